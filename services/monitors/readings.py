"""What a monitor sees at an instant: one reading for each of its groups."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from core import db
from core.permissions import Actor
from models.monitors import MonitorRow
from services.costs.burn import burn
from services.metrics.calendar import Bucket, zone_of
from services.metrics.definitions import METRICS, MetricKind
from services.metrics.engine import read, scope_of
from services.monitors.alerts import condition_of
from services.monitors.anomaly import TooLittle, Verdict, by_local_time, estimate, judge
from services.monitors.conditions import (
    DAY,
    Absence,
    Anomaly,
    BudgetBurn,
    Change,
    MonitorChangeUnit,
    MonitorComparison,
    Threshold,
    duration,
    limit_of,
)
from services.monitors.people import TOO_FEW, Shown, seen_budget, shown_to
from services.monitors.states import Reading

MOST_GROUPS = 100
MOST_ANOMALY_GROUPS = 20
GROUPS_KNOWN_FOR = timedelta(days=7)
"""A group that is absent is one that was there within this time."""

LONGEST_SHIFT = timedelta(hours=3)
"""No clock is set forward or back by more."""

# statsmodels holds a processor for a moment: one at a time, and never the event loop's.
_analysts = ThreadPoolExecutor(1, "anomalies")


@dataclass(frozen=True, slots=True)
class Seen:
    """What an evaluation saw."""

    readings: Sequence[Reading]
    left_out: int = 0
    """Groups beyond the most that a monitor has."""
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class _Value:
    label: str | None
    value: float | None
    count: int


_Values = Mapping[str, _Value]
_NOTHING = _Value(None, None, 0)


def window_end(monitor: MonitorRow, at: datetime) -> datetime:
    """The end of the window that is looked at: the instant; for anomalies, where the last whole window ended."""
    if isinstance(condition_of(monitor), Anomaly):
        return at - timedelta(seconds=at.timestamp() % monitor["window_seconds"])
    return at


async def readings(monitor: MonitorRow, owner: Actor, at: datetime, known: Mapping[str, str | None]) -> Seen:
    """What the monitor sees at an instant, as its owner may see it. `known` are the groups that it knows of (key:
    label): those without a value are among the readings, and so are those that are not shown in this window, without
    measure; not those that may not be watched any more. Raises what the metrics raise."""
    end = window_end(monitor, at)
    condition = condition_of(monitor)
    shown = await shown_to(owner, monitor, list(_ranges(monitor, end)))
    source = _Source(monitor, owner, shown, known)
    if shown.nothing:
        return Seen(source.withheld, 0, TOO_FEW)
    if source.grouped:
        known = {key: label for key, label in known.items() if shown.may_show(label)}
    match condition:
        case Threshold():
            found = await source.values(end - source.window, end)
            all_ = [
                Reading(key, one.label, value, value)
                for key, one in source.with_known(found, known).items()
                for value in [source.value_of(one)]
            ]
        case Change():
            all_ = await _changes(source, condition, end, known)
        case Absence():
            all_ = await _absences(source, condition, end, known)
        case Anomaly():
            return await _anomalies(source, condition, end, known)
        case BudgetBurn():
            return Seen([await _burn(condition, owner, end)])
    return source.seen(all_, MOST_GROUPS)


def _ranges(monitor: MonitorRow, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The times that figures are read over."""
    window = timedelta(seconds=monitor["window_seconds"])
    condition = condition_of(monitor)
    match condition:
        case Absence():
            yield end - timedelta(seconds=condition.for_seconds), end
        case Change():
            yield end - window, end
            yield end - window - _back(condition, window), end - _back(condition, window)
        case _:
            yield end - window, end


def _back(condition: Change, window: timedelta) -> timedelta:
    return window if condition.compared_with is MonitorComparison.PREVIOUS_WINDOW else timedelta(days=7)


class _Source:
    """Reads the monitor's metric."""

    def __init__(self, monitor: MonitorRow, owner: Actor, shown: Shown, known: Mapping[str, str | None]) -> None:
        self._monitor, self._shown, self._known = monitor, shown, known
        self._scope = scope_of(owner)
        self.kind = METRICS[monitor["metric"]].kind
        self.window = timedelta(seconds=monitor["window_seconds"])
        self.grouped = monitor["group_by"] is not None
        self._group_by = (monitor["group_by"],) if self.grouped else ()

    @property
    def withheld(self) -> Sequence[Reading]:
        """The known groups that are the monitor's, and not shown in this window: nobody knows how they stand."""
        groups = self._known if self.grouped else {"": None}
        return [
            Reading(key, label, None, None, TOO_FEW)
            for key, label in groups.items()
            if not self._shown.may_show(label) and self._shown.may_watch(label)
        ]

    @property
    def adds_up(self) -> bool:
        """Whether no facts are a value of 0."""
        return self.kind in (MetricKind.COUNT, MetricKind.SUM, MetricKind.RATE)

    def value_of(self, one: _Value) -> float | None:
        """A value as it is judged."""
        if one.value is not None:
            return one.value if math.isfinite(one.value) else None
        # Facts whose value is not known are not nothing: a cost without price is no cost of 0.
        return 0.0 if self.adds_up and one.count == 0 else None

    async def values(self, start: datetime, end: datetime) -> _Values:
        """The value of each group over a time."""
        rows = await read(
            self._scope,
            self._monitor["metric"],
            start=start,
            end=end,
            bucket=None,
            filter=self._monitor["filters"],
            group_by=self._group_by,
        )
        found: dict[str, _Value] = {}
        for row in rows.rows:
            label = row.labels[0] if self.grouped else None
            if not self.grouped or self._shown.may_show(label):
                found[self._key(label)] = _Value(label, row.value, row.count)
        return found if found or self.grouped else {"": _NOTHING}

    async def history(self, start: datetime, end: datetime) -> Mapping[str, list[float | None]]:
        """The values of each group by windows, the oldest first."""
        rows = await read(
            self._scope,
            self._monitor["metric"],
            start=start,
            end=end,
            bucket=Bucket(self.window),
            filter=self._monitor["filters"],
            group_by=self._group_by,
        )
        length = (end - start) // self.window
        found: dict[str, list[float | None]] = {}
        first: dict[str, int] = {}
        for row in rows.rows:
            label = row.labels[0] if self.grouped else None
            if self.grouped and not self._shown.may_show(label):
                continue
            key = self._key(label)
            place = (row.at - start) // self.window
            series = found.setdefault(key, [None] * length)
            if 0 <= place < length:
                series[place] = self.value_of(_Value(label, row.value, row.count))
                first[key] = min(first.get(key, place), place)
        if self.adds_up:
            for key, series in found.items():
                # Before its first fact there was no metric; after it, no facts are 0.
                series[first.get(key, length) :] = [0.0 if one is None else one for one in series[first[key] :]]
        return found

    def with_known(self, found: _Values, known: Mapping[str, str | None]) -> _Values:
        """The values, and those of known groups that have none."""
        missing = {key: _Value(label, None, 0) for key, label in known.items() if key not in found}
        return {**found, **missing}

    def seen(self, shown: Sequence[Reading], most: int, estimates: Mapping[str, float | None] | None = None) -> Seen:
        """As many as a monitor has: those that it knows, and those nearest to the limit and beyond, by their measures
        or, where there are none yet, by `estimates`."""
        hidden = self._shown.explanation
        all_ = [*shown, *self.withheld]
        if len(all_) <= most:
            return Seen(all_, 0, hidden)
        upwards = limit_of(condition_of(self._monitor), None).operator.upwards

        def order(reading: Reading) -> tuple[bool, bool, float, str]:
            measure = reading.measure if estimates is None else estimates.get(reading.key)
            near = 0.0 if measure is None else -measure if upwards else measure
            return (reading.key not in self._known, measure is None, near, reading.key)

        left_out = len(all_) - most
        told = f"It has more than {most} groups: {left_out} are not looked at. Narrow it down by a filter."
        return Seen(sorted(all_, key=order)[:most], left_out, f"{told} {hidden}" if hidden else told)

    def _key(self, label: str | None) -> str:
        return "" if label is None else f"={label}"


async def _changes(source: _Source, condition: Change, end: datetime, known: Mapping[str, str | None]) -> list[Reading]:
    back = _back(condition, source.window)
    now = source.with_known(await source.values(end - source.window, end), known)
    before = await source.values(end - source.window - back, end - back)
    found = []
    for key, one in {**{key: _Value(was.label, None, 0) for key, was in before.items()}, **now}.items():
        value, was = source.value_of(one), source.value_of(before.get(key, _NOTHING))
        measure, why = _change(condition.unit, value, was)
        found.append(Reading(key, one.label, value, measure, why))
    return found


def _change(unit: MonitorChangeUnit, value: float | None, was: float | None) -> tuple[float | None, str]:
    """The measure of a change, and how it is told."""
    if value is None or was is None:
        return None, "There is nothing to compare: one of the two windows has no value."
    if unit is MonitorChangeUnit.ABSOLUTE:
        return value - was, f"It was {was:.6g}: a change by {value - was:+.6g}."
    if was == 0:
        if value == 0:
            return 0.0, "It was 0, and is."
        return math.copysign(math.inf, value), "It was 0: any change is beyond all per cent."
    change = (value - was) / abs(was) * 100
    return change, f"It was {was:.6g}: a change by {change:+.1f}%."


async def _absences(
    source: _Source, condition: Absence, end: datetime, known: Mapping[str, str | None]
) -> list[Reading]:
    lately = await source.values(end - timedelta(seconds=condition.for_seconds), end)
    groups = await source.values(end - max(GROUPS_KNOWN_FOR, timedelta(seconds=condition.for_seconds)), end)
    # One that is absent already stays so, however long ago it was there.
    groups = source.with_known(groups, known)
    found = []
    for key, one in {**groups, **lately}.items() if source.grouped else [("", _NOTHING)]:
        present = key in lately and lately[key].count > 0
        found.append(
            Reading(
                key,
                one.label,
                lately[key].value if present else None,
                0.0 if present else 1.0,
                None if present else f"Nothing happened for {duration(condition.for_seconds)}.",
            )
        )
    return found


async def _anomalies(source: _Source, condition: Anomaly, end: datetime, known: Mapping[str, str | None]) -> Seen:
    window = source.window
    now = source.with_known(await source.values(end - window, end), known)
    days, judged, zone = timedelta(days=condition.training_days), end - window, zone_of(condition.timezone)
    start = judged - days - LONGEST_SHIFT
    history = {
        key: by_local_time(series, start=start, window=window, zone=zone, judged=judged, length=days // window)
        for key, series in (await source.history(start, judged)).items()
    }
    period = condition.season.days * DAY // int(window.total_seconds())
    values = {key: source.value_of(one) for key, one in now.items()}
    in_thread = partial(asyncio.get_running_loop().run_in_executor, _analysts)
    estimates = None
    if len(values) > MOST_ANOMALY_GROUPS - len(source.withheld):
        estimates = await in_thread(_estimates, history, values, period, source.adds_up)
    first = source.seen(
        [Reading(key, now[key].label, value, None) for key, value in values.items()], MOST_ANOMALY_GROUPS, estimates
    )
    found = []
    for reading in first.readings:
        if reading.value is None:
            found.append(reading)
            continue
        verdict = await in_thread(
            _judged, history.get(reading.key, []), reading.value, period, condition, source.adds_up
        )
        found.append(_of_verdict(reading, verdict))
    return Seen(found, first.left_out, first.explanation)


def _estimates(
    history: Mapping[str, Sequence[float | None]], values: Mapping[str, float | None], period: int, adds_up: bool
) -> Mapping[str, float | None]:
    return {
        key: estimate(history.get(key, []), value, period=period, counted=adds_up)
        for key, value in values.items()
        if value is not None
    }


def _judged(
    history: Sequence[float | None], value: float, period: int, condition: Anomaly, adds_up: bool
) -> Verdict | TooLittle:
    return judge(history, value, period=period, season=condition.season.value.lower(), counted=adds_up)


def _of_verdict(reading: Reading, verdict: Verdict | TooLittle) -> Reading:
    if isinstance(verdict, TooLittle):
        return Reading(reading.key, reading.label, reading.value, None, verdict.explanation)
    return Reading(
        reading.key,
        reading.label,
        reading.value,
        verdict.deviations,
        f"Expected is {verdict.expected:.6g} ± {verdict.spread:.6g}: it is {verdict.deviations:.1f} standard "
        "deviations away.",
    )


async def _burn(condition: BudgetBurn, owner: Actor, end: datetime) -> Reading:
    hours = timedelta(hours=condition.hours)
    subject = await seen_budget(db.fetchval, owner, condition.budget_id)
    # Of a budget for each user, admins are told of whoever spends most, and others of themselves alone.
    user_id = None if owner.is_admin else owner.user_id
    found = None
    if subject is not None:
        found = await burn(condition.budget_id, start=end - hours, end=end, user_id=user_id)
    if found is None:
        return Reading("", None, None, None, "The budget is gone, or the monitor's owner may not see it any more.")
    spent, limit = float(found.spent), float(found.limit)
    if limit <= 0:
        return Reading("", None, spent, None, "The budget has no limit to use up.")
    rate = (spent / limit) / (hours / found.period)
    return Reading(
        "", None, spent, rate, f"{spent:.6g} of {limit:.6g} in {condition.hours} h: {rate:.2f} times its rate."
    )
