"""Silences: times in which incidents are not told. They begin and end by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core import clock, db
from core.errors import BadInput, Conflict, NotFound
from core.permissions import Actor, Permission
from models.base import Query
from models.monitors import Monitor, MonitorSilence, MonitorSilenceRow
from services.idempotency import claim
from services.monitors.checking import label_problems
from services.monitors.waking import wake
from services.work import write

LONGEST = timedelta(days=90)
LONGEST_REASON = 1000
MOST_LIVING = 200
"""Silences of an organisation that are not over."""


@dataclass(frozen=True, slots=True)
class NewSilence:
    """A silence to make. `starts_at` None is now."""

    monitor_id: UUID | None
    labels: Mapping[str, str]
    reason: str
    starts_at: datetime | None
    ends_at: datetime

    def problems(self, now: datetime) -> list[tuple[str, str]]:
        """What makes no sense about it."""
        found = label_problems(self.labels, "labels", any_label=True)
        if self.monitor_id is None and not self.labels:
            found.append(("labels", "Say what is silenced: `monitorId`, `labels`, or both."))
        if not self.reason.strip() or len(self.reason) > LONGEST_REASON:
            found.append(("reason", f"Say why, in up to {LONGEST_REASON:,} characters."))
        starts = max(self.starts_at or now, now)
        if self.ends_at <= starts:
            found.append(("endsAt", "A silence ends in the future, and after it began."))
        elif self.ends_at - starts > LONGEST:
            found.append(("endsAt", f"A silence lasts at most {LONGEST.days} days."))
        return found


async def create_silence(actor: Actor, new: NewSilence, key: str | None) -> MonitorSilenceRow:
    """Make a silence. An admin's holds for everybody's monitors, another's for their own. Raises BadInput, NotFound,
    Conflict."""
    now = clock.now()
    if found := new.problems(now):
        raise BadInput.of_fields(found)
    async with write(actor, "monitor_silence.create") as work:
        actor.require(Permission.MONITORS_MANAGE)
        claimed = await claim(work, "createSilence", key, _public(new))
        if claimed.earlier is not None:
            work.entry.action = ""
            return await _find(actor, claimed.earlier)
        name = None
        if new.monitor_id is not None:
            query = Query()
            name = await work.tx.fetchval(
                f"SELECT name FROM monitors WHERE id = {query.arg(new.monitor_id)} "
                f"AND {query.scope(Monitor.visible_to(actor))}",
                *query.args,
            )
            if name is None:
                raise NotFound("There is no such monitor, or you may not see it.", field="monitorId")
        living = await work.tx.fetchval(
            "SELECT count(*) FROM monitor_silences WHERE organization_id = $1 AND ended_at IS NULL AND ends_at > $2",
            actor.organization_id,
            work.at,
        )
        if living >= MOST_LIVING:
            raise Conflict(f"There are {MOST_LIVING} silences already. End those that are not needed any more.")
        row = await work.tx.fetchrow(
            "INSERT INTO monitor_silences (id, organization_id, monitor_id, labels, reason, starts_at, ends_at, "
            "created_by_id, everybody, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING *",
            claimed.result_id,
            actor.organization_id,
            new.monitor_id,
            dict(new.labels),
            new.reason.strip(),
            max(new.starts_at or work.at, work.at),
            new.ends_at,
            actor.user_id,
            actor.is_admin,
            work.at,
            row=MonitorSilenceRow,
        )
        assert row is not None
        work.target("MonitorSilence", row["id"], name)
        work.changed(after=_public(new))
        work.after_commit(wake)
    return row


async def end_silence(actor: Actor, id_: UUID) -> MonitorSilenceRow:
    """End a silence before its time; again has no effect. What still fires is told. Raises NotFound."""
    async with write(actor, "monitor_silence.end") as work:
        actor.require(Permission.MONITORS_MANAGE)
        query = Query()
        row = await work.tx.fetchrow(
            f"SELECT * FROM monitor_silences WHERE id = {query.arg(id_)} "
            f"AND {query.scope(MonitorSilence.visible_to(actor))} FOR UPDATE",
            *query.args,
            row=MonitorSilenceRow,
        )
        if row is None:
            raise NotFound("There is no such silence, or you may not see it.", field="silenceId")
        work.target("MonitorSilence", id_)
        if row["ended_at"] is not None or row["ends_at"] <= work.at:
            work.entry.action = ""
            return row
        ended = await work.tx.fetchrow(
            "UPDATE monitor_silences SET ended_at = $2 WHERE id = $1 RETURNING *", id_, work.at, row=MonitorSilenceRow
        )
        assert ended is not None
        work.changed(before={"endsAt": row["ends_at"]}, after={"endedAt": work.at})
        work.after_commit(wake)
    return ended


MATCHES = """(
    silences.organization_id = incidents.organization_id AND silences.ended_at IS NULL
    AND silences.starts_at <= {now} AND silences.ends_at > {now}
    AND (silences.monitor_id IS NULL OR silences.monitor_id = incidents.monitor_id)
    AND incidents.labels @> silences.labels
    AND (silences.everybody OR silences.created_by_id = monitors.owner_id)
)"""
"""Whether a row of silences holds for one of incidents, whose monitor is in monitors."""


async def _find(actor: Actor, id_: UUID) -> MonitorSilenceRow:
    row = await db.fetchrow("SELECT * FROM monitor_silences WHERE id = $1", id_, row=MonitorSilenceRow)
    assert row is not None
    return row


def _public(new: NewSilence) -> dict[str, Any]:
    return {
        "monitorId": new.monitor_id,
        "labels": dict(new.labels),
        "reason": new.reason,
        "startsAt": new.starts_at,
        "endsAt": new.ends_at,
    }
