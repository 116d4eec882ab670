"""Series as Vega-Lite specifications with their data: what the dashboard, the reports and other programs draw.

Source: the Vega-Lite 5 documentation. Times are told as the wall clock of the series' zone, on a scale of UTC: so they
look the same wherever they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from services.metrics.series import Group, Series

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
OTHERS = "Others"
PREVIOUS = "Before"
LONGEST_NAME = 60
_UNITS = {"ms": "ms", "By": "bytes", "USD": "US$", "USD/h": "US$ an hour", "s": "s"}
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
    groups = [(_name(group, number), group) for number, group in enumerate(series.groups)]
    if series.rest is not None:
        groups.append((OTHERS, series.rest))
    drawn = _bars(series, groups) if kind is ChartKind.BAR else _by_time(series, groups, kind)
    return {
        "$schema": SCHEMA,
        "title": {"text": series.metric.title, "anchor": "start"},
        "description": f"{series.metric.description} {_between(series)}",
        "width": width,
        "height": height,
        "background": "white",
        "config": {"font": "sans-serif", "view": {"stroke": None}, "axis": {"grid": True, "domain": False}},
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
    color: dict[str, Any] = {"value": "#4c78a8"}
    if order and series.group_by:
        legend = {"labelLimit": 100, "symbolType": "square"}
        color = {"field": "group", "type": "nominal", "title": None, "scale": {"domain": order}, "legend": legend}
    encoding: dict[str, Any] = {"x": _axis_of_time(series, zone), "color": color}
    if kind is ChartKind.COLUMN:
        # Rectangles from one edge to the next, on top of each other: buckets are not all of one length.
        values = _stacked(groups, zone)
        encoding |= {"x2": {"field": "end"}, "y": _axis_of_values(series, "upper"), "y2": {"field": "lower"}}
        mark: dict[str, Any] = {"type": "rect", "stroke": "white", "strokeWidth": 0.5}
    else:
        values = [
            {"time": _wall(point.at, zone), "group": name, "value": point.value}
            for name, group in groups
            for point in group.points
        ]
        encoding["y"] = _axis_of_values(series, "value")
        mark = {"type": "line", "point": len(values) <= 100}
    then = [] if series.group_by else _before(series, zone)
    if not then:
        return {"data": {"values": values}, "mark": mark, "encoding": encoding}
    dashed = {
        "data": {"values": then},
        "mark": {"type": "line", "strokeDash": [4, 3], "color": "#888"},
        "encoding": {"x": _axis_of_time(series, zone), "y": _axis_of_values(series, "value")},
    }
    return {"layer": [{"data": {"values": values}, "mark": mark, "encoding": encoding}, dashed]}


def _stacked(groups: Sequence[tuple[str, Group]], zone: ZoneInfo) -> list[dict[str, Any]]:
    heights: dict[datetime, float] = {}
    found = []
    for name, group in groups:
        for point in group.points:
            if point.value:
                lower = heights.get(point.at, 0.0)
                upper = heights[point.at] = lower + point.value
                place = {"time": _wall(point.at, zone), "end": _wall(point.end, zone), "lower": lower, "upper": upper}
                found.append({"group": name, "value": point.value, **place})
    return found


def _axis_of_time(series: Series, zone: ZoneInfo) -> dict[str, Any]:
    domain = [_wall(series.start, zone), _wall(series.end, zone)]
    axis = {"labelOverlap": True, "tickCount": 8}
    scale = {"type": "utc", "domain": domain}
    return {"field": "time", "type": "temporal", "scale": scale, "axis": axis, "title": None}


def _axis_of_values(series: Series, field: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "scale": {"zero": True}, **_scale_of(series)}


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
    unit = series.metric.unit
    if unit == "1":
        return {"axis": {"format": ".1%"}, "title": series.metric.title}
    shown = _UNITS.get(unit)  # what is counted, the title says
    return {"axis": {"format": "~s"}, "title": f"{series.metric.title} ({shown})" if shown else series.metric.title}


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
