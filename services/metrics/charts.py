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
_UNITS = {"1": "", "ms": "ms", "By": "bytes", "USD": "US$", "USD/h": "US$ an hour", "s": "s"}
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
    if series.group_by and all(len(group.points) == 1 for group in series.groups):
        return ChartKind.BAR
    return ChartKind.COLUMN if series.metric.kind in _ADDED_UP else ChartKind.LINE


def _bars(series: Series, groups: Sequence[tuple[str, Group]]) -> dict[str, Any]:
    values = [{"group": name, "value": group.total} for name, group in groups]
    order = [name for name, _ in groups]
    return {
        "data": {"values": values},
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "y": {"field": "group", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 240}},
            "x": {"field": "value", "type": "quantitative", **_scale_of(series)},
        },
    }


def _by_time(series: Series, groups: Sequence[tuple[str, Group]], kind: ChartKind) -> dict[str, Any]:
    zone = ZoneInfo(series.timezone)
    values = [
        {"time": _wall(point.at, zone), "end": _wall(point.end, zone), "group": name, "value": point.value}
        for name, group in groups
        for point in group.points
    ]
    order = [name for name, _ in groups]
    color: dict[str, Any] = {"value": "#4c78a8"}
    if series.group_by:
        color = {"field": "group", "type": "nominal", "sort": order, "title": None, "scale": {"domain": order}}
    encoding = {
        "x": {"field": "time", "type": "temporal", "scale": {"type": "utc"}, "title": None},
        "y": {"field": "value", "type": "quantitative", **_scale_of(series)},
        "color": color,
    }
    mark: dict[str, Any] = {"type": "line", "tooltip": True, "point": len(values) <= 60}
    if kind is ChartKind.COLUMN:
        mark = {"type": "bar", "tooltip": True, "binSpacing": 1}
        encoding["x"] = {**encoding["x"], "bandPosition": 0}
        encoding["x2"] = {"field": "end"}
        encoding["y"] = {**encoding["y"], "stack": "zero"}
    then = [] if series.group_by else _before(series, zone)
    if not then:
        return {"data": {"values": values}, "mark": mark, "encoding": encoding}
    dashed = {
        "data": {"values": then},
        "mark": {"type": "line", "strokeDash": [4, 3], "color": "#888", "tooltip": True},
        "encoding": {
            "x": {"field": "time", "type": "temporal", "scale": {"type": "utc"}},
            "y": {"field": "value", "type": "quantitative"},
        },
    }
    return {"layer": [{"data": {"values": values}, "mark": mark, "encoding": encoding}, dashed]}


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
    shown = _UNITS.get(unit, unit.replace("{", "").replace("}", "").replace("/", " per "))
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
