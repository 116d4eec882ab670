"""Series as Vega-Lite specifications with their data: what the dashboard, the reports and other programs draw.

Source: the Vega-Lite 6 documentation. Times are told as the wall clock of the series' zone, on a scale of UTC: so they
look the same wherever they are drawn. What is a matter of looks is in `config`, where a page may put its own. Drawing
makes nothing of `usermeta`; programs find in it what asks for the rows behind a mark:

    {"quarterdeck": {metric, unit, kind, fact, timezone,
     edges: begin and end of the buckets, one more than these; a mark's `bucket` is its number,
     filter: of all groups together, where they can be listed,
     groups: [{name, total, filter: null for the rest, which no filter finds}]}}
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from core.clock import moment
from services.metrics.series import Condition, Group, Series

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
OTHERS = "Others"
PREVIOUS = "Before"
LONGEST_NAME = 60
MOST_POINTS = 300
"""That are drawn as such on lines; more of them are the line."""
# Told apart on white and on the dark ground of pages alike: at least 3 to 1 against both.
PALETTE = (
    "#4478c4", "#d9722e", "#2f9a7c", "#c25588", "#8f8418", "#7c6cc9", "#3b96b8", "#c4544d", "#5f9443", "#a97142",
)  # fmt: skip
GREY = "#7f8a95"
_LOOKS: dict[str, Any] = {
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {"grid": True, "domain": False, "gridColor": "#dde3e8", "tickColor": "#dde3e8"},
    "mark": {"color": PALETTE[0]},
    "rect": {"stroke": "white", "strokeWidth": 0.5},
    "range": {"category": list(PALETTE)},
    "style": {"before": {"stroke": GREY, "strokeDash": [4, 3]}},
}
_TIMES = {
    "year": "%Y",
    "quarter": "%-d %b",
    "month": "%-d %b",
    "week": "%-d %b",
    "date": "%-d %b",
    "hours": "%H:%M",
    "minutes": "%H:%M",
    "seconds": "%H:%M:%S",
    "milliseconds": "",
}
_ADDED_UP = frozenset({"COUNT", "SUM"})


class ChartKind(StrEnum):
    """How a series is drawn."""

    AUTO = "AUTO"
    LINE = "LINE"
    COLUMN = "COLUMN"
    BAR = "BAR"


def chart(series: Series, *, width: int = 720, height: int = 280, kind: ChartKind = ChartKind.AUTO) -> dict[str, Any]:
    """The specification of a series, in pixels. Nothing in it is fetched from anywhere."""
    if kind is ChartKind.AUTO:
        kind = _kind_of(series)
    groups = _named(series)
    drawn = _bars(series, groups) if kind is ChartKind.BAR else _by_time(series, groups, kind)
    return {
        "$schema": SCHEMA,
        "title": {"text": series.metric.title, "anchor": "start"},
        "description": f"{series.metric.description} {_between(series)}",
        "width": width,
        "height": height,
        "background": "white",
        "config": _LOOKS,
        "usermeta": {"quarterdeck": _meta(series, groups)},
        **drawn,
    }


def _kind_of(series: Series) -> ChartKind:
    if series.groups and series.group_by and all(len(group.points) == 1 for group in series.groups):
        return ChartKind.BAR
    return ChartKind.COLUMN if series.metric.kind in _ADDED_UP else ChartKind.LINE


def _bars(series: Series, groups: Sequence[tuple[str, Group]]) -> dict[str, Any]:
    values = [{"group": name, "value": group.total} for name, group in groups]
    order = [name for name, _ in groups]
    return {
        "data": {"values": values},
        "mark": "bar",
        "encoding": {
            "y": {"field": "group", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 240}},
            "x": {"field": "value", "type": "quantitative", **_scale_of(series)},
        },
    }


def _by_time(series: Series, groups: Sequence[tuple[str, Group]], kind: ChartKind) -> dict[str, Any]:
    zone = ZoneInfo(series.timezone)
    order = [name for name, _ in groups]
    encoding: dict[str, Any] = {"x": _axis_of_time(series, zone)}
    then = [] if series.group_by else _before(series, zone)
    if order and series.group_by:
        legend: dict[str, Any] = {"labelLimit": 140}
        if kind is ChartKind.COLUMN:
            legend["symbolType"] = "square"
        colors = [GREY if group is series.rest else PALETTE[n % len(PALETTE)] for n, (_, group) in enumerate(groups)]
        scale = {"domain": order, "range": colors}
        encoding["color"] = {"field": "group", "type": "nominal", "title": None, "scale": scale, "legend": legend}
    mark: dict[str, Any]
    if kind is ChartKind.COLUMN:
        # Rectangles from one edge to the next, on top of each other: buckets are not all of one length.
        values, y = _stacked(groups, zone), "upper"
        encoding |= {"x2": {"field": "end"}, "y2": {"field": "lower"}}
        mark = {"type": "rect"}
    else:
        values, y = _in_line(groups, zone), "value"
        # Without points, a value between gaps is not seen.
        known = sum(1 for value in values if value["value"] is not None)
        mark = {"type": "line", "point": {"size": 20} if known <= MOST_POINTS else False}
    is_empty = all(value["value"] is None for value in [*values, *then])
    encoding["y"] = _axis_of_values(series, y, is_empty)
    if not then:
        return {"data": {"values": values}, "mark": mark, "encoding": encoding}
    dashed = {
        "data": {"values": then},
        "mark": {"type": "line", "style": "before"},
        "encoding": {"x": _axis_of_time(series, zone), "y": _axis_of_values(series, "value", is_empty)},
    }
    return {"layer": [{"data": {"values": values}, "mark": mark, "encoding": encoding}, dashed]}


def _in_line(groups: Sequence[tuple[str, Group]], zone: ZoneInfo) -> list[dict[str, Any]]:
    return [
        {"time": _wall(point.at, zone), "group": name, "value": point.value, "bucket": number}
        for name, group in groups
        for number, point in enumerate(group.points)
    ]


def _stacked(groups: Sequence[tuple[str, Group]], zone: ZoneInfo) -> list[dict[str, Any]]:
    heights: dict[datetime, float] = {}
    found = []
    for name, group in groups:
        for number, point in enumerate(group.points):
            if point.value:
                lower = heights.get(point.at, 0.0)
                upper = heights[point.at] = lower + point.value
                place = {"time": _wall(point.at, zone), "end": _wall(point.end, zone), "lower": lower, "upper": upper}
                found.append({"group": name, "value": point.value, "bucket": number, **place})
    return found


def _axis_of_time(series: Series, zone: ZoneInfo) -> dict[str, Any]:
    # In milliseconds: text would be read as a time for `x`, and as text for `x2`.
    start, end = (int(datetime.fromisoformat(_wall(at, zone)).timestamp() * 1000) for at in (series.start, series.end))
    axis = {"labelOverlap": True, "labelSeparation": 8, "tickCount": 8, "format": _TIMES}
    scale = {"type": "utc", "domain": {"expr": f"[{start}, {end}]"}}
    return {"field": "time", "type": "temporal", "scale": scale, "axis": axis, "title": None}


def _axis_of_values(series: Series, field: str, is_empty: bool) -> dict[str, Any]:
    scale: dict[str, Any] = {"domain": [0, 1]} if is_empty else {"zero": True}
    return {"field": field, "type": "quantitative", "scale": scale, **_scale_of(series)}


def _before(series: Series, zone: ZoneInfo) -> list[dict[str, Any]]:
    """The values of the range before, at the times of this one."""
    if series.previous_start is None:
        return []
    return [
        {"time": _wall(point.at, zone), "group": PREVIOUS, "value": point.previous}
        for group in series.groups
        for point in group.points
    ]


def _scale_of(series: Series) -> dict[str, Any]:
    """How values are written at their axis; of what, the chart's title says."""
    axis: dict[str, Any]
    match series.metric.unit:
        case "1":
            axis = {"format": "~%"}
        case "ms":
            many, few = "format(datum.value / 1000, ',~r') + ' s'", "format(datum.value, '~r') + ' ms'"
            axis = {"labelExpr": f"datum.value < 1000 ? {few} : {many}"}
        case "USD" | "USD/h":
            axis = {"format": "$,~r"}
        case unit:
            suffix = {"s": " s", "By": "B"}.get(unit, "")
            shown = "format(datum.value, datum.value < 1000 ? '~r' : '~s')"
            axis = {"labelExpr": f"{shown} + '{suffix}'" if suffix else shown}
            if series.metric.kind in _ADDED_UP and unit.startswith("{"):
                axis["tickMinStep"] = 1  # there are no halves of what is counted
    return {"axis": axis, "title": None}


def _meta(series: Series, groups: Sequence[tuple[str, Group]]) -> dict[str, Any]:
    points = groups[0][1].points if groups else ()
    edges = [point.at for point in points] + [point.end for point in points[-1:]]
    return {
        "metric": series.metric.name,
        "unit": series.metric.unit,
        "kind": series.metric.kind,
        "fact": series.metric.fact,
        "timezone": series.timezone,
        "edges": [moment(edge) for edge in edges],
        "filter": _filter(series.filter),
        "groups": [
            {"name": name, "total": group.total, "filter": _filter(group.points[0].filter if group.points else None)}
            for name, group in groups
        ],
    }


def _filter(conditions: Sequence[Condition] | None) -> list[dict[str, Any]] | None:
    """As `metricRows` takes it."""
    if conditions is None:
        return None
    return [{"dimension": each.dimension, "values": list(each.values)} for each in conditions]


def _named(series: Series) -> list[tuple[str, Group]]:
    """The groups by names that differ, even where those of their labels do not."""
    names = [(_name(group, number), group) for number, group in enumerate(series.groups)]
    if series.rest is not None:
        names.append((OTHERS, series.rest))
    found: dict[str, Group] = {}
    for name, group in names:
        again = 1
        while (unique := name if again == 1 else f"{name} ({again})") in found:
            again += 1
        found[unique] = group
    return list(found.items())


def _name(group: Group, number: int) -> str:
    parts = [label.name or label.value or "none" for label in group.labels]
    name = " · ".join(parts) or f"{number + 1}"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _wall(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).replace(tzinfo=None).isoformat() + "Z"


def _between(series: Series) -> str:
    zone = ZoneInfo(series.timezone)
    start, end = (at.astimezone(zone).strftime("%Y-%m-%d %H:%M") for at in (series.start, series.end))
    return f"From {start} to {end} ({series.timezone})."
