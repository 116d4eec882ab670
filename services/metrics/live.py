"""How things stand at an instant: figures of the last minute, or of some other short time, up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core import clock, db
from core.errors import BadInput
from models.base import Query
from services.metrics import engine
from services.metrics.definitions import METRICS
from services.metrics.engine import MetricScope
from services.metrics.freshness import known_until
from services.metrics.questions import LONGEST, unknown_metric

USUAL = (
    "sessions.active",
    "runs.running",
    "queue.depth",
    "tokens.per_second",
    "tools.duration_p95",
    "runs.error_rate",
    "cost.per_hour",
)
MOST_METRICS = 20
WINDOW_SECONDS = 60
LONGEST_WINDOW_SECONDS = 3600
SHORTEST_EVERY, LONGEST_EVERY = 1, 300

# What is said of runs at an instant is kept with each of them, so it can be asked of any instant.
_OPEN = "runs.started_at <= {at} AND (runs.ended_at IS NULL OR runs.ended_at > {at})"
_QUEUED = (
    "runs.queued_at <= {at} AND (runs.started_at IS NULL OR runs.started_at > {at}) "
    "AND (runs.ended_at IS NULL OR runs.ended_at > {at})"
)
STATES = {
    "sessions.active": ("{session}", "count(DISTINCT runs.session_id)", _OPEN),
    "runs.running": ("{run}", "count(*)", _OPEN),
    "queue.depth": ("{run}", "count(*)", _QUEUED),
}
"""Figures that are counted of what is there, and not of facts: unit, what is counted, and of which runs."""


@dataclass(frozen=True, slots=True)
class Value:
    """One figure."""

    metric: str
    unit: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures at one instant."""

    at: datetime
    window_seconds: int
    values: Sequence[Value]


def check(metrics: Sequence[str], window: int) -> tuple[str, ...]:
    """The metrics, each once. Raises BadInput."""
    chosen = tuple(dict.fromkeys(metrics))
    if not 1 <= len(chosen) <= MOST_METRICS:
        raise BadInput(f"Name 1 to {MOST_METRICS} metrics.", field="metrics")
    for name in chosen:
        if name not in METRICS and name not in STATES:
            raise unknown_metric(name, field="metrics")
    if not 1 <= window <= LONGEST_WINDOW_SECONDS:
        raise BadInput(f"The window is 1 to {LONGEST_WINDOW_SECONDS} seconds.", field="windowSeconds")
    return chosen


async def newest() -> datetime:
    """The latest full second of which everything is known; the current one where nothing has been counted yet."""
    return (await known_until() or clock.now()).replace(microsecond=0)


async def snapshot(scope: MetricScope, metrics: Sequence[str], at: datetime, window: int = WINDOW_SECONDS) -> Snapshot:
    """The figures at an instant: counted from `window` seconds before it, or as it then was. Raises BadInput."""
    now = clock.now()
    if not now - LONGEST <= at <= now + timedelta(days=1):
        raise BadInput("`at` lies within the last ten years.", field="at")
    return Snapshot(at, window, [await _value(scope, name, at, window) for name in metrics])


async def _value(scope: MetricScope, name: str, at: datetime, window: int) -> Value:
    if name in STATES:
        unit, counted, condition = STATES[name]
        return Value(name, unit, await _count(scope, counted, condition, at))
    found = await engine.value(scope, name, start=at - timedelta(seconds=window), end=at)
    return Value(name, METRICS[name].unit, found)


async def _count(scope: MetricScope, counted: str, condition: str, at: datetime) -> float:
    query = Query()
    conditions = [
        f"runs.organization_id = {query.arg(scope.organization_id)}",
        condition.format(at=query.arg(at)),
        "sessions.purpose = 'WORK'",
    ]
    if scope.user_ids is not None:
        conditions.append(f"runs.started_by_id = ANY({query.arg(list(scope.user_ids))})")
    return float(
        await db.fetchval(
            f"SELECT {counted} FROM runs JOIN sessions ON sessions.id = runs.session_id "
            f"WHERE {' AND '.join(conditions)}",
            *query.args,
        )
    )
