"""Trying monitors: what one would see now, and whether its alerts arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core import db
from core.errors import QuarterdeckError, RateLimited
from core.ids import encode
from core.permissions import Actor, Permission
from models.monitors import (
    AlertDeliveryRow,
    AlertKind,
    MonitorNoData,
    MonitorRow,
    MonitorState,
)
from models.notifications import NotificationKind
from services.identity.actors import system_actor
from services.metrics.ingest import watermark
from services.metrics.labels import Label, Names
from services.monitors.alerts import condition_of, described, enqueue, labels_of, recipients
from services.monitors.conditions import limit_of
from services.monitors.delivery import send_now
from services.monitors.evaluation import BEHIND, behind_since, instant
from services.monitors.keeping import lock_monitor
from services.monitors.people import owner_of
from services.monitors.readings import readings, window_end
from services.monitors.states import Rules, step, worst
from services.parts import parts
from services.work import Work, write

TEST_LASTS = timedelta(minutes=5)
MOST_TESTS = 10
"""Test alerts to a monitor's channels within a minute, and tests by one person, of whatever monitors."""


@dataclass(frozen=True, slots=True)
class GroupTried:
    """What one group would come to."""

    label: Label | None
    state: MonitorState
    value: float | None
    measure: float | None
    explanation: str | None


@dataclass(frozen=True, slots=True)
class Tried:
    """What an evaluation at this moment would come to. Nothing is written, and nobody is told."""

    at: datetime
    window_start: datetime
    window_end: datetime
    state: MonitorState
    groups: Sequence[GroupTried]
    groups_left_out: int
    explanation: str | None


@dataclass(frozen=True, slots=True)
class TestFired:
    """What became of a test alert."""

    user_ids: Sequence[UUID]
    """Who has it in their inbox, or is mailed it."""
    deliveries: Sequence[AlertDeliveryRow]


async def try_monitor(actor: Actor, id_: UUID) -> Tried:
    """Evaluate a monitor as of now, without any effect. Raises NotFound, Forbidden, and what its metric raises."""
    async with write(actor, None) as work:
        actor.require(Permission.MONITORS_MANAGE)
        monitor = await lock_monitor(work, id_)
    now, ready = await db.fetchval("SELECT now()"), await watermark()
    if now - ready <= BEHIND:
        return await evaluate_dry(monitor, min(now, ready))
    tried = await evaluate_dry(monitor, now)
    told = behind_since(ready)
    return replace(tried, explanation=f"{told} {tried.explanation}" if tried.explanation else told)


async def evaluate_dry(monitor: MonitorRow, moment: datetime) -> Tried:
    """What a monitor would come to at the latest instant before a moment."""
    at = instant(moment, monitor["evaluate_every_seconds"])
    owner = await owner_of(monitor)
    end = window_end(monitor, at)
    start = end - timedelta(seconds=monitor["window_seconds"])
    if isinstance(owner, str):
        return Tried(at, start, end, MonitorState.ERROR, [], 0, owner)
    try:
        seen = await readings(monitor, owner, at, {})
    except QuarterdeckError as error:
        return Tried(at, start, end, MonitorState.ERROR, [], 0, error.message)
    rules = Rules(limit_of(condition_of(monitor), monitor["recovery"]), timedelta(0), MonitorNoData(monitor["no_data"]))
    groups = [step(None, reading, rules, at).group for reading in seen.readings]
    dimension = monitor["group_by"]
    names = await Names.of(owner, [dimension] if dimension else [], [[group.label] for group in groups])
    tried = [
        GroupTried(
            names.label(dimension, group.label) if dimension else None,
            group.state,
            group.value,
            group.measure if group.measure is not None and abs(group.measure) != float("inf") else None,
            group.explanation,
        )
        for group in groups
    ]
    tried.sort(key=lambda one: one.state is not MonitorState.FIRING)
    return Tried(at, start, end, worst([one.state for one in tried]), tried, seen.left_out, seen.explanation)


async def test_fire(actor: Actor, id_: UUID) -> TestFired:
    """Send an alert that says that it is a test, by all ways of the monitor, and say what became of it. Raises
    NotFound, Forbidden, RateLimited."""
    async with write(actor, "monitor.test_fire") as work:
        actor.require(Permission.MONITORS_MANAGE)
        monitor = await lock_monitor(work, id_)
        await _bound(work)
        lately = await work.tx.fetchval(
            "SELECT count(*) FROM alert_deliveries WHERE monitor_id = $1 AND kind = 'TEST' AND created_at > $2",
            id_,
            work.at - timedelta(minutes=1),
        )
        if lately >= MOST_TESTS:
            raise _tested_enough()
        title = f"[Test] {monitor['name']}"
        text = "This is a test: nothing is wrong. It was sent by hand, to see whether alerts arrive."
        users = await recipients(work, monitor)
        # Told as the product tells, so that whoever tests is among those who are told.
        channels = await work.tx.fetch(
            "SELECT id FROM alert_channels WHERE id = ANY($1) AND removed_at IS NULL ORDER BY id",
            monitor["channel_ids"],
        )
        ids = await enqueue(
            work,
            monitor,
            [(row["id"], None, AlertKind.TEST) for row in channels],
            work.at,
            alert=_test_alert(monitor, title, text, work.at),
        )
        told = await work.tx.fetch(
            "SELECT id FROM users WHERE id = ANY($1) AND deactivated_at IS NULL ORDER BY id", users
        )
    await _tell(actor, monitor, [row["id"] for row in told], title, text)
    await asyncio.gather(*(send_now(one) for one in ids))
    deliveries = await db.fetch(
        "SELECT * FROM alert_deliveries WHERE id = ANY($1) ORDER BY id", ids, row=AlertDeliveryRow
    )
    return TestFired([row["id"] for row in told], deliveries)


async def _bound(work: Work) -> None:
    """Raises RateLimited where the actor has tested often enough, whether or not there were channels."""
    actor = work.actor
    # Two at once are counted one after the other: each has its audit record once it is through.
    await work.tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"monitor tests:{actor.user_id}")
    lately = await work.tx.fetchval(
        "SELECT count(*) FROM audit_records WHERE organization_id = $1 AND actor_id = $2 AND at > $3 "
        "AND action = 'monitor.test_fire' AND outcome = 'SUCCEEDED'",
        actor.organization_id,
        actor.user_id,
        work.at - timedelta(minutes=1),
    )
    if lately >= MOST_TESTS:
        raise _tested_enough()


def _tested_enough() -> RateLimited:
    return RateLimited("That was tested often enough. Try again in a minute.", retryAfterSeconds=60)


async def _tell(actor: Actor, monitor: MonitorRow, user_ids: Sequence[UUID], title: str, text: str) -> None:
    async with write(system_actor(monitor["organization_id"]), None) as work:
        subject = ("Monitor", monitor["id"])
        work.notify(NotificationKind.MONITOR, user_ids, title, body=text, subject=subject, author=actor.user_id)


def _test_alert(monitor: MonitorRow, title: str, text: str, at: datetime) -> dict[str, Any]:
    labels = labels_of(monitor, None) | {"test": "true"}
    return {
        "title": title,
        "summary": text,
        "at": at.isoformat(),
        "startsAt": at.isoformat(),
        "endsAt": (at + TEST_LASTS).isoformat(),
        "labels": labels,
        "link": f"{parts().settings.base_url}/graphql#{encode('mon', monitor['id'])}",
        "data": {"test": True, "message": text, "monitor": described(monitor)},
    }
