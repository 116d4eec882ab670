"""Evaluating monitors: each at its instants, once, by whichever worker claims it first.

A worker claims a monitor, reads its metric, and writes all that follows in one transaction: states, incidents, what is
told, and the evaluation itself. The transaction shows the number of the claim; where another worker has claimed the
monitor since, or somebody changed it, nothing is written. So a worker that was slow or killed fires nothing twice, and
what it left is done by another after LEASE_SECONDS.

Instants are multiples of the monitor's interval since 1970, by the database's clock. The one that is evaluated is the
latest that the metrics are complete up to; those before it that nobody evaluated are counted, not made up for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core import db
from core.errors import Forbidden, QuarterdeckError
from core.ids import encode, new_id
from core.permissions import Actor
from models.monitors import (
    AlertKind,
    MonitorIncidentRow,
    MonitorNoData,
    MonitorRow,
    MonitorState,
    MonitorStatus,
)
from models.notifications import NotificationKind
from services.identity.actors import system_actor
from services.metrics.ingest import watermark
from services.metrics.labels import Names
from services.monitors.alerts import condition_of
from services.monitors.conditions import limit_of
from services.monitors.groups import failed_groups, known_groups, store_groups, stored_groups
from services.monitors.incidents import changed, end_all, open_incident, resolve, tell_of, update_value, upkeep
from services.monitors.people import owner_of
from services.monitors.readings import Seen, readings
from services.monitors.states import Group, Rules, Step, step, worst
from services.monitors.waking import MONITORS
from services.outbox import Loop
from services.work import Work, write

logger = logging.getLogger(__name__)

AT_ONCE = 4
"""Monitors that one worker has in hand."""
LEASE_SECONDS = 120
EVALUATION_SECONDS = 60.0
BEHIND = timedelta(minutes=5)
"""Metrics that are not complete up to this long ago are an error that monitors tell of."""
LONGEST_EXPLANATION = 1000
UNWATCHED = "It is not watched any more."
FAILED = "The evaluation could not be finished: something went wrong on our side. It is tried again."

# A monitor whose next time is far ahead was planned by a clock that has been set back since.
_CLAIM = f"""
UPDATE monitors SET claim = claim + 1, claimed_until = $1::timestamptz + {LEASE_SECONDS} * interval '1 second'
WHERE id IN (
    SELECT id FROM monitors WHERE status = 'ACTIVE' AND removed_at IS NULL
        AND (next_evaluation_at <= $1
             OR next_evaluation_at > $1::timestamptz + (2 * evaluate_every_seconds + 120) * interval '1 second')
        AND (claimed_until IS NULL OR claimed_until < $1
             OR claimed_until > $1::timestamptz + {2 * LEASE_SECONDS} * interval '1 second')
    ORDER BY next_evaluation_at LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED
) RETURNING *
"""


class Evaluator(Loop):
    """Runs in every worker."""

    def __init__(self) -> None:
        super().__init__("evaluator of monitors", self._tick, woken_by=MONITORS, poll_seconds=1.0)

    @staticmethod
    async def _tick() -> int:
        evaluated = await evaluate_due()
        return evaluated + await upkeep(await db.fetchval("SELECT now()"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of looking at a monitor's metric."""

    seen: Seen | None
    error: str | None
    duration_ms: int
    forbidden: bool = False
    """Whether it may not be looked at any more, as after a change of the organisation's policy: not where too few
    people are behind the figures of this window."""


async def evaluate_due(now: datetime | None = None, ready: datetime | None = None) -> int:
    """Evaluate what is due; returns how many monitors were in hand. `now` is the database's time, and `ready` the time
    up to which the metrics are complete, unless they are given."""
    now = now or await db.fetchval("SELECT now()")
    ready = ready or await watermark()
    claimed = await claim_due(now)
    await asyncio.gather(*(_evaluate(monitor, now, ready) for monitor in claimed))
    return len(claimed)


async def claim_due(now: datetime) -> list[MonitorRow]:
    """Monitors that are due, claimed: nobody else evaluates them until the claim runs out."""
    return await db.fetch(_CLAIM, now, row=MonitorRow)


async def _evaluate(monitor: MonitorRow, now: datetime, ready: datetime) -> None:
    try:
        owner = await owner_of(monitor)
        if isinstance(owner, str):
            await _pause(monitor, owner, now)
            return
        every = monitor["evaluate_every_seconds"]
        behind = now - ready > max(BEHIND, 2 * timedelta(seconds=every))
        at = instant(now if behind else min(now, ready), every)
        if monitor["last_instant"] is not None and monitor["last_instant"] == at:
            await _postpone(monitor, now + timedelta(seconds=min(every, 5)))
            return
        if behind:
            outcome = Outcome(None, behind_since(ready), 0)
        else:
            outcome = await look(monitor, owner, at)
        await finish(monitor, at, outcome, now, next_at=_next(at, every, now, ready))
    except Exception:
        # One monitor's trouble is not the others'. Its claim runs out, and it is tried again.
        logger.exception("%s could not be evaluated.", encode("mon", monitor["id"]))
        await _say_that_it_failed(monitor, now)


async def look(monitor: MonitorRow, owner: Actor, at: datetime) -> Outcome:
    """What a monitor sees at an instant. Never raises: what fails is the outcome."""
    started = time.perf_counter()
    seen, error, forbidden = None, None, False
    try:
        known = await known_groups(monitor["id"])
        async with asyncio.timeout(EVALUATION_SECONDS):
            seen = await readings(monitor, owner, at, known)
    except TimeoutError:
        error = f"Reading the metric took longer than {EVALUATION_SECONDS:g} seconds."
    except QuarterdeckError as problem:
        error, forbidden = problem.message, isinstance(problem, Forbidden)
    except Exception:
        logger.exception("The metric of %s could not be read.", encode("mon", monitor["id"]))
        error = "The metric could not be read: something went wrong on our side."
    return Outcome(seen, error, round((time.perf_counter() - started) * 1000), forbidden)


async def finish(claimed: MonitorRow, at: datetime, outcome: Outcome, now: datetime, *, next_at: datetime) -> bool:
    """Write an evaluation with all that follows from it. False where the claim is no longer one: nothing is written
    then."""
    async with write(system_actor(claimed["organization_id"]), None) as work:
        monitor = await _held(work, claimed)
        if monitor is None:
            return False
        every = timedelta(seconds=monitor["evaluate_every_seconds"])
        last = monitor["last_instant"]
        missed = max((at - last) // every - 1, 0) if last is not None else 0
        if outcome.forbidden:
            await end_all(work, monitor, f"{UNWATCHED} {outcome.error}", now)
        if outcome.seen is None:
            state, value, counts = MonitorState.ERROR, None, await failed_groups(work, monitor)
            explanation, left_out = outcome.error, monitor["groups_left_out"]
        else:
            steps = await _take_steps(work, monitor, outcome.seen, at, now, after_gap=missed > 0)
            state = worst([each.group.state for each in steps])
            value = next((each.group.value for each in steps if each.group.state is state), None)
            counts = (len(steps), sum(each.group.state is MonitorState.FIRING for each in steps))
            explanation, left_out = _explained(steps, state, outcome.seen), outcome.seen.left_out
        if missed and last is not None:
            caught_up = f"{missed} evaluations between {last:%Y-%m-%d %H:%M:%S} and this one did not take place."
            explanation = f"{explanation} {caught_up}" if explanation else caught_up
        explanation = explanation[:LONGEST_EXPLANATION] if explanation else None
        changes = state.value != monitor["state"]
        await work.tx.execute(
            "UPDATE monitors SET state = $2::text, "
            "state_since = CASE WHEN state = $2::text THEN state_since ELSE $3 END, "
            "explanation = $4, groups_left_out = $5, last_instant = $3, next_evaluation_at = $6, claimed_until = NULL "
            "WHERE id = $1",
            monitor["id"],
            state.value,
            at,
            explanation,
            left_out,
            next_at,
        )
        # After a clock was set back an instant may come again.
        await work.tx.execute(
            "INSERT INTO monitor_evaluations (id, monitor_id, at, evaluated_at, state, changed, value, group_count, "
            "firing_count, missed, explanation, duration_ms) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (monitor_id, at) DO UPDATE SET "
            "evaluated_at = excluded.evaluated_at, state = excluded.state, changed = excluded.changed, "
            "value = excluded.value, group_count = excluded.group_count, firing_count = excluded.firing_count, "
            "explanation = excluded.explanation, duration_ms = excluded.duration_ms",
            new_id(),
            monitor["id"],
            at,
            now,
            state.value,
            changes,
            value,
            *counts,
            missed,
            explanation,
            outcome.duration_ms,
        )
    return True


def instant(moment: datetime, every: int) -> datetime:
    """The latest instant of a monitor that is evaluated every so many seconds."""
    return moment - timedelta(seconds=moment.timestamp() % every)


def behind_since(ready: datetime) -> str:
    """What to say of metrics that are complete up to a time that is long past."""
    if ready.year == 1:
        return "The metrics have not been counted yet: nobody knows how it stands."
    return f"The metrics are complete up to {ready:%Y-%m-%d %H:%M:%S} UTC only: nobody knows how it stands."


def _next(at: datetime, every: int, now: datetime, ready: datetime) -> datetime:
    """When the next instant can be evaluated: once the metrics are complete up to it."""
    lag = min(max(now - ready, timedelta(0)), timedelta(seconds=60))
    return max(at + timedelta(seconds=every) + lag, now + timedelta(seconds=1))


async def _held(work: Work, claimed: MonitorRow) -> MonitorRow | None:
    return await work.tx.fetchrow(
        "SELECT * FROM monitors WHERE id = $1 AND claim = $2 AND status = 'ACTIVE' AND removed_at IS NULL FOR UPDATE",
        claimed["id"],
        claimed["claim"],
        row=MonitorRow,
    )


async def _take_steps(
    work: Work, monitor: MonitorRow, seen: Seen, at: datetime, now: datetime, *, after_gap: bool
) -> list[Step]:
    rules = Rules(
        limit_of(condition_of(monitor), monitor["recovery"]),
        timedelta(seconds=monitor["for_seconds"]),
        MonitorNoData(monitor["no_data"]),
    )
    before = await stored_groups(work, monitor["id"])
    steps = [step(before.get(reading.key), reading, rules, at, after_gap=after_gap) for reading in seen.readings]
    told: list[tuple[MonitorIncidentRow, AlertKind]] = []
    kept: list[Group] = []
    names = await _names(monitor, [each.group for each in steps if each.opened])
    for each in steps:
        group = each.group
        if each.opened:
            incident = await open_incident(work, monitor, group, names.get(group.key), at)
            told.append((incident, AlertKind.FIRING))
            group = replace(group, incident_id=incident["id"], pending_since=None)
        elif each.resolved is not None:
            ended = before[group.key].incident_id
            assert ended is not None
            told.append((await resolve(work, monitor, ended, each.resolved, group.value, at), AlertKind.RESOLVED))
        elif group.incident_id is not None:
            await update_value(work, monitor, group, at)
        kept.append(group)
    read = {each.group.key for each in steps}
    for group in before.values():
        if group.incident_id is not None and group.key not in read:
            why = f"{UNWATCHED} {seen.explanation}" if seen.explanation else UNWATCHED
            told.append((await resolve(work, monitor, group.incident_id, why, None, at), AlertKind.RESOLVED))
    await tell_of(work, monitor, told, now)
    if told or any(group.incident_id is not None for group in kept):
        changed(work, monitor["organization_id"])
    await store_groups(work, monitor["id"], kept, grouped=monitor["group_by"] is not None)
    return steps


async def _names(monitor: MonitorRow, groups: Sequence[Group]) -> dict[str, str | None]:
    """What groups are called, as the monitor's owner sees it."""
    dimension = monitor["group_by"]
    owner = await owner_of(monitor)
    if dimension is None or not groups or isinstance(owner, str):
        return {}
    names = await Names.of(owner, [dimension], [[group.label] for group in groups])
    return {group.key: names.label(dimension, group.label).name or group.label for group in groups}


async def _say_that_it_failed(claimed: MonitorRow, now: datetime) -> None:
    """What nobody foresaw is seen on the monitor too. Its claim stays: when that runs out, it is tried again."""
    try:
        await db.execute(
            "UPDATE monitors SET state = 'ERROR', explanation = $3, "
            "state_since = CASE WHEN state = 'ERROR' THEN state_since ELSE $4 END "
            "WHERE id = $1 AND claim = $2 AND status = 'ACTIVE'",
            claimed["id"],
            claimed["claim"],
            FAILED,
            now,
        )
    except Exception:
        logger.exception("Nor could that be said of %s.", encode("mon", claimed["id"]))


async def _postpone(claimed: MonitorRow, until: datetime) -> None:
    await db.execute(
        "UPDATE monitors SET next_evaluation_at = $3, claimed_until = NULL WHERE id = $1 AND claim = $2",
        claimed["id"],
        claimed["claim"],
        until,
    )


async def _pause(claimed: MonitorRow, reason: str, now: datetime) -> None:
    """The monitor has nobody any more to see for: it is paused, and its owner and the admins are told."""
    actor = system_actor(claimed["organization_id"])
    async with write(actor, "monitor.pause") as work:
        monitor = await _held(work, claimed)
        if monitor is None:
            work.entry.action = ""
            return
        work.target("Monitor", monitor["id"], monitor["name"])
        work.changed(before={"status": MonitorStatus.ACTIVE}, after={"status": MonitorStatus.PAUSED, "reason": reason})
        await end_all(work, monitor, f"The monitor was paused. {reason}", now)
        await work.tx.execute(
            "UPDATE monitors SET status = 'PAUSED', paused_reason = $2, state = 'OK', state_since = $3, "
            "claim = claim + 1, claimed_until = NULL, updated_at = $3 WHERE id = $1",
            monitor["id"],
            reason,
            now,
        )
        admins = await work.tx.fetch(
            "SELECT id FROM users WHERE organization_id = $1 AND role IN ('OWNER', 'ADMIN') AND deactivated_at IS NULL "
            "ORDER BY id LIMIT 20",
            monitor["organization_id"],
        )
        work.notify(
            NotificationKind.MONITOR,
            [monitor["owner_id"], *(row["id"] for row in admins)],
            f"Monitor paused: {monitor['name']}",
            body=reason,
            subject=("Monitor", monitor["id"]),
            author=monitor["owner_id"],
        )


def _explained(steps: Sequence[Step], state: MonitorState, seen: Seen) -> str | None:
    told = next((each.group.explanation for each in steps if each.group.state is state), None)
    parts = [part for part in (told, seen.explanation) if part]
    return " ".join(parts) or None
