"""What a monitor asks of its metric. Every kind comes to one number, the measure, and a limit that it must not pass.

| kind | measure |
|---|---|
| THRESHOLD | the metric's value over the window |
| CHANGE | the difference from the window of before, or of a week ago; in per cent of it, or as it is |
| ABSENCE | 1 where nothing happened for so long, else 0 |
| ANOMALY | how many standard deviations the value is from what its season lets expect |
| BUDGET_BURN | how many times faster than evenly the budget is used up |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from core.errors import BadInput
from core.ids import encode
from models.monitors import MonitorConditionKind
from services.metrics.calendar import zone_of

DAY = 86_400
SHORTEST_WINDOW = 60
LONGEST_WINDOW = 31 * DAY
SHORTEST_EVERY = 10
LONGEST_EVERY = DAY
LONGEST_FOR = 7 * DAY
LARGEST_NUMBER = 1e15
ANOMALY_WINDOWS = (900, 1800, 3600)
"""Seconds: what divides hours and leaves a season few enough points."""
MOST_POINTS = 2016
"""Of an anomaly's history."""
SEASONS_NEEDED = 3


class MonitorOperator(StrEnum):
    """On which side of the limit a measure is too far."""

    GREATER = "GREATER"
    GREATER_OR_EQUAL = "GREATER_OR_EQUAL"
    LESS = "LESS"
    LESS_OR_EQUAL = "LESS_OR_EQUAL"

    @property
    def upwards(self) -> bool:
        """Whether more is worse."""
        return self in (MonitorOperator.GREATER, MonitorOperator.GREATER_OR_EQUAL)

    def passes(self, measure: float, limit: float) -> bool:
        """Whether the measure is beyond the limit."""
        match self:
            case MonitorOperator.GREATER:
                return measure > limit
            case MonitorOperator.GREATER_OR_EQUAL:
                return measure >= limit
            case MonitorOperator.LESS:
                return measure < limit
            case MonitorOperator.LESS_OR_EQUAL:
                return measure <= limit


class MonitorChangeUnit(StrEnum):
    """How a change is measured."""

    PERCENT = "PERCENT"
    ABSOLUTE = "ABSOLUTE"


class MonitorComparison(StrEnum):
    """What a window is compared with."""

    PREVIOUS_WINDOW = "PREVIOUS_WINDOW"
    LAST_WEEK = "LAST_WEEK"


class MonitorSeason(StrEnum):
    """After what time a metric repeats itself."""

    DAY = "DAY"
    WEEK = "WEEK"

    @property
    def days(self) -> int:
        return 1 if self is MonitorSeason.DAY else 7


@dataclass(frozen=True, slots=True)
class Threshold:
    """The value is beyond a number."""

    operator: MonitorOperator
    value: float


@dataclass(frozen=True, slots=True)
class Change:
    """The value moved too far."""

    operator: MonitorOperator
    value: float
    unit: MonitorChangeUnit
    compared_with: MonitorComparison


@dataclass(frozen=True, slots=True)
class Absence:
    """Nothing happened for so many seconds."""

    for_seconds: int


@dataclass(frozen=True, slots=True)
class Anomaly:
    """The value is not what its season lets expect: more than `sensitivity` standard deviations away."""

    sensitivity: float
    season: MonitorSeason
    training_days: int
    timezone: str = "UTC"
    """Whose clock the season follows."""


@dataclass(frozen=True, slots=True)
class BudgetBurn:
    """Within `hours`, the budget was used up `ratio` times as fast as it may be on the average."""

    budget_id: UUID
    hours: int
    ratio: float


Condition = Threshold | Change | Absence | Anomaly | BudgetBurn
_KINDS: Mapping[type, MonitorConditionKind] = {
    Threshold: MonitorConditionKind.THRESHOLD,
    Change: MonitorConditionKind.CHANGE,
    Absence: MonitorConditionKind.ABSENCE,
    Anomaly: MonitorConditionKind.ANOMALY,
    BudgetBurn: MonitorConditionKind.BUDGET_BURN,
}


@dataclass(frozen=True, slots=True)
class Limit:
    """How far a measure may go, and how far it must come back once it went too far."""

    operator: MonitorOperator
    value: float
    recovery: float | None = None

    def passed(self, measure: float, *, already: bool) -> bool:
        """Whether the measure is too far; `already` where it was before, so that it has to come back to `recovery`."""
        return self.operator.passes(measure, self.recovery if already and self.recovery is not None else self.value)


def kind_of(condition: Condition) -> MonitorConditionKind:
    """Which kind it is."""
    return _KINDS[type(condition)]


def stored(condition: Condition) -> dict[str, Any]:
    """As it is in `monitors.condition`."""
    return {name: str(value) if isinstance(value, UUID) else value for name, value in asdict(condition).items()}


def restored(kind: str, found: Mapping[str, Any]) -> Condition:
    """From `monitors.condition_kind` and `monitors.condition`."""
    match MonitorConditionKind(kind):
        case MonitorConditionKind.THRESHOLD:
            return Threshold(MonitorOperator(found["operator"]), found["value"])
        case MonitorConditionKind.CHANGE:
            return Change(
                MonitorOperator(found["operator"]),
                found["value"],
                MonitorChangeUnit(found["unit"]),
                MonitorComparison(found["compared_with"]),
            )
        case MonitorConditionKind.ABSENCE:
            return Absence(found["for_seconds"])
        case MonitorConditionKind.ANOMALY:
            return Anomaly(
                found["sensitivity"],
                MonitorSeason(found["season"]),
                found["training_days"],
                # Those of before there was a choice have none.
                found.get("timezone", "UTC"),
            )
        case MonitorConditionKind.BUDGET_BURN:
            return BudgetBurn(UUID(found["budget_id"]), found["hours"], found["ratio"])


def limit_of(condition: Condition, recovery: float | None) -> Limit:
    """The limit of its measure."""
    match condition:
        case Threshold() | Change():
            return Limit(condition.operator, condition.value, recovery)
        case Absence():
            return Limit(MonitorOperator.GREATER_OR_EQUAL, 1.0)
        case Anomaly():
            return Limit(MonitorOperator.GREATER, condition.sensitivity, recovery)
        case BudgetBurn():
            return Limit(MonitorOperator.GREATER_OR_EQUAL, condition.ratio, recovery)


def problems(condition: Condition, window_seconds: int, recovery: float | None) -> list[tuple[str, str]]:
    """What makes no sense about it: (field of the input, message)."""
    found: list[tuple[str, str]] = []
    match condition:
        case Threshold():
            _number(found, "condition.threshold.value", condition.value)
        case Change():
            _number(found, "condition.change.value", condition.value)
        case Absence():
            if not SHORTEST_WINDOW <= condition.for_seconds <= LONGEST_WINDOW:
                found.append(("condition.absence.forSeconds", f"{SHORTEST_WINDOW} to {LONGEST_WINDOW} seconds."))
            if recovery is not None:
                found.append(("recovery", "An absence is over with the first thing that happens: leave this out."))
        case Anomaly():
            found += _anomaly_problems(condition, window_seconds)
        case BudgetBurn():
            if not 1 <= condition.hours <= 31 * 24:
                found.append(("condition.budgetBurn.hours", "1 to 744 hours."))
            if not 0 < condition.ratio <= 1000:
                found.append(("condition.budgetBurn.ratio", "More than 0, and at most 1,000."))
    if recovery is not None and not found and not isinstance(condition, Absence):
        limit = limit_of(condition, recovery)
        _number(found, "recovery", recovery)
        if not found and (recovery > limit.value if limit.operator.upwards else recovery < limit.value):
            side = "at most" if limit.operator.upwards else "at least"
            found.append(("recovery", f"It is where an incident ends, so {side} the limit of {limit.value:g}."))
    return found


def describe(condition: Condition) -> str:
    """In words, for people: `above 5`."""
    match condition:
        case Threshold():
            return f"{_WORDS[condition.operator]} {condition.value:g}"
        case Change():
            unit = "%" if condition.unit is MonitorChangeUnit.PERCENT else ""
            than = "the window before" if condition.compared_with is MonitorComparison.PREVIOUS_WINDOW else "a week ago"
            return f"change {_WORDS[condition.operator]} {condition.value:g}{unit} against {than}"
        case Absence():
            return f"nothing for {duration(condition.for_seconds)}"
        case Anomaly():
            return (
                f"more than {condition.sensitivity:g} standard deviations from its usual "
                f"{condition.season.value.lower()}{'' if condition.timezone == 'UTC' else f' ({condition.timezone})'}"
            )
        case BudgetBurn():
            return (
                f"{encode('bud', condition.budget_id)} burning at {condition.ratio:g} times its rate or more over "
                f"{condition.hours} h"
            )


def duration(seconds: float) -> str:
    """`90 s`, `15 min`, `6 h`, `7 d`: whole units where it comes out even."""
    for size, unit in ((DAY, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


_WORDS = {
    MonitorOperator.GREATER: "above",
    MonitorOperator.GREATER_OR_EQUAL: "at or above",
    MonitorOperator.LESS: "below",
    MonitorOperator.LESS_OR_EQUAL: "at or below",
}


def _anomaly_problems(condition: Anomaly, window_seconds: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if not 1 <= condition.sensitivity <= 100:
        found.append(("condition.anomaly.sensitivity", "1 to 100 standard deviations."))
    try:
        zone_of(condition.timezone)
    except BadInput as error:
        found.append(("condition.anomaly.timezone", error.message))
    if window_seconds not in ANOMALY_WINDOWS:
        found.append(("windowSeconds", "Anomalies are looked for in windows of 900, 1800 or 3600 seconds."))
        return found
    least = SEASONS_NEEDED * condition.season.days
    most = MOST_POINTS * window_seconds // DAY
    if least > most:
        found.append(("windowSeconds", "The window is too short for a season of a week: take 3600."))
    elif not least <= condition.training_days <= most:
        found.append(
            (
                "condition.anomaly.trainingDays",
                f"{least} to {most} days for this season and window: at least {SEASONS_NEEDED} seasons, at most "
                f"{MOST_POINTS:,} windows.",
            )
        )
    return found


def _number(found: list[tuple[str, str]], field: str, value: float) -> None:
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        found.append((field, "A number between -10^15 and 10^15."))
