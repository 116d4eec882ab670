"""How a group of a monitor moves between its states. Pure: no clock, no database.

OK → PENDING → FIRING → (resolved) OK, with NO_DATA where there is nothing to judge. An incident is what tells FIRING
from the rest: it outlives evaluations that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from models.monitors import MonitorNoData, MonitorState
from services.monitors.conditions import Limit

WORST_FIRST = (
    MonitorState.FIRING,
    MonitorState.ERROR,
    MonitorState.PENDING,
    MonitorState.NO_DATA,
    MonitorState.OK,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an evaluation saw of one group."""

    key: str
    """'' for the only group of a monitor that does not group."""
    label: str | None
    value: float | None
    """The metric's value, for people."""
    measure: float | None
    """What is held against the limit; None where there is nothing to judge."""
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """How a group stands."""

    key: str
    label: str | None
    state: MonitorState
    since: datetime
    pending_since: datetime | None = None
    value: float | None = None
    measure: float | None = None
    explanation: str | None = None
    incident_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the monitor says about states."""

    limit: Limit
    hold: timedelta
    """How long it must be over the limit before it fires."""
    no_data: MonitorNoData


@dataclass(frozen=True, slots=True)
class Step:
    """How a group stands after an evaluation, and what began or ended with it."""

    group: Group
    opened: bool = False
    resolved: str | None = None
    """Why its incident ended."""


def step(before: Group | None, reading: Reading, rules: Rules, at: datetime, *, after_gap: bool = False) -> Step:
    """The next state of a group. `after_gap` where instants before this one were not evaluated: nobody knows whether
    it held meanwhile, so what is pending begins anew."""
    firing = before is not None and before.incident_id is not None
    unknown = reading.measure is None
    if reading.measure is None:
        over = rules.no_data is MonitorNoData.FIRING
    else:
        over = rules.limit.passed(reading.measure, already=firing)
    if unknown and rules.no_data is MonitorNoData.KEEP:
        if firing:
            return Step(_moved(before, reading, MonitorState.FIRING, at))
        pending = None if after_gap else _still_pending(before, rules, at)
        return Step(_moved(before, reading, MonitorState.NO_DATA, at, pending))
    if over:
        if firing:
            return Step(_moved(before, reading, MonitorState.FIRING, at))
        since = _pending_since(before, at, after_gap)
        if at - since >= rules.hold:
            return Step(_moved(before, reading, MonitorState.FIRING, at, since), opened=True)
        return Step(_moved(before, reading, MonitorState.PENDING, at, since))
    group = _moved(before, reading, MonitorState.OK, at, incident_id=None)
    if not firing:
        return Step(group)
    return Step(group, resolved="There is no data any more." if unknown else "It is back within the limit.")


def worst(groups: list[MonitorState]) -> MonitorState:
    """The state of a monitor with groups in these states."""
    return next((state for state in WORST_FIRST if state in groups), MonitorState.OK)


def _pending_since(before: Group | None, at: datetime, after_gap: bool) -> datetime:
    since = before.pending_since if before is not None else None
    # A time that is still to come is of a clock that was set back.
    return at if since is None or since > at or after_gap else since


def _still_pending(before: Group | None, rules: Rules, at: datetime) -> datetime | None:
    """Since when it is pending where there is no data now: for as long as it must hold, and no longer."""
    if before is None or (before.state is MonitorState.NO_DATA and at - before.since >= rules.hold):
        return None
    return before.pending_since


_SAME = object()


def _moved(
    before: Group | None,
    reading: Reading,
    state: MonitorState,
    at: datetime,
    pending_since: datetime | None = None,
    *,
    incident_id: object = _SAME,
) -> Group:
    same = before is not None and before.state is state
    kept = before.incident_id if before is not None and incident_id is _SAME else None
    return Group(
        key=reading.key,
        label=reading.label,
        state=state,
        since=min(before.since, at) if before is not None and same else at,
        pending_since=pending_since,
        value=reading.value,
        measure=reading.measure,
        explanation=reading.explanation,
        incident_id=kept,
    )
