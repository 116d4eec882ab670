"""Incidents: opened, told, acknowledged and resolved. All of a monitor's are changed while its row is held."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from core import db
from core.errors import Conflict, NotFound
from core.ids import encode, new_id
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.monitors import (
    AlertKind,
    IncidentEventKind,
    IncidentState,
    MonitorIncident,
    MonitorIncidentRow,
    MonitorRow,
)
from services.identity.actors import system_actor
from services.monitors.alerts import labels_of, note, summary_of, tell
from services.monitors.silences import MATCHES
from services.monitors.states import Group
from services.parts import parts
from services.work import Work, write

logger = logging.getLogger(__name__)

LONGEST_NOTE = 1000
AT_ONCE = 50

# A change gives an incident a new place in the live feed.
_CHANGED = "changed_xid = pg_current_xact_id(), changed_seq = nextval('monitor_incident_changes')"

# Those whose silence began or ended, and those that are to be told again.
_UPKEEP = f"""
SELECT incidents.id, incidents.monitor_id, incidents.silenced, incidents.told_at,
       (SELECT reason FROM monitor_silences AS silences WHERE {MATCHES.format(now="$1")} LIMIT 1) AS reason
FROM monitor_incidents AS incidents JOIN monitors ON monitors.id = incidents.monitor_id
WHERE incidents.resolved_at IS NULL AND ($2::uuid IS NULL OR monitors.id = $2) AND (
    incidents.silenced <> EXISTS (SELECT FROM monitor_silences AS silences WHERE {MATCHES.format(now="$1")})
    OR (NOT incidents.silenced AND incidents.acknowledged_at IS NULL
        AND incidents.told_at + monitors.renotify_seconds * interval '1 second' <= $1)
) ORDER BY incidents.id LIMIT {AT_ONCE}
"""


def incidents_channel(organization_id: UUID) -> str:
    """The bus channel that says that an organisation's incidents changed."""
    return f"incidents:{organization_id}"


async def open_incident(
    work: Work, monitor: MonitorRow, group: Group, name: str | None, at: datetime
) -> MonitorIncidentRow:
    """A group fires: a new incident, silenced where a silence holds for it. Tell of it with `tell_of`."""
    row = await work.tx.fetchrow(
        f"""
        INSERT INTO monitor_incidents (id, organization_id, monitor_id, group_key, group_label, title, labels, severity,
            state, opened_at, opening_value, value, summary, silenced, told_count, group_name)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, false, 0, $13)
        RETURNING *, (
            SELECT reason FROM monitor_silences AS silences, monitors,
                (SELECT $2::uuid AS organization_id, $3::uuid AS monitor_id, $7::jsonb AS labels) AS incidents
            WHERE monitors.id = $3 AND {MATCHES.format(now="$10::timestamptz")} LIMIT 1
        ) AS silence
        """,
        new_id(),
        monitor["organization_id"],
        monitor["id"],
        group.key,
        group.label,
        title_of(monitor, name),
        labels_of(monitor, group.label),
        monitor["severity"],
        IncidentState.FIRING.value,
        at,
        group.value,
        summary_of(monitor, group.value, group.explanation),
        name,
        row=MonitorIncidentRow,
    )
    assert row is not None
    kind = IncidentEventKind.OPENED if group.measure is not None else IncidentEventKind.NO_DATA
    await note(work, row["id"], kind, at, value=group.value, text=group.explanation)
    if row["silence"] is not None:
        return await _silence(work, row["id"], row["silence"], at)
    return row


async def resolve(
    work: Work, monitor: MonitorRow, incident_id: UUID, why: str, value: float | None, at: datetime
) -> MonitorIncidentRow:
    """An incident is over. Tell of it with `tell_of`."""
    row = await work.tx.fetchrow(
        f"UPDATE monitor_incidents SET state = 'RESOLVED', resolved_at = greatest($2, opened_at), resolution = $3, "
        f"value = coalesce($4, value), {_CHANGED} WHERE id = $1 AND resolved_at IS NULL RETURNING *",
        incident_id,
        at,
        why,
        value,
        row=MonitorIncidentRow,
    )
    assert row is not None, "an incident ends once"
    await note(work, incident_id, IncidentEventKind.RESOLVED, at, value=value, text=why)
    return row


async def update_value(work: Work, monitor: MonitorRow, group: Group, at: datetime) -> None:
    """The value of an incident that lasts; on its timeline where it moved by a tenth since it was last noted."""
    noted = await work.tx.fetchrow(
        f"""
        UPDATE monitor_incidents SET value = $2, summary = $3, {_CHANGED}
        WHERE id = $1 AND value IS DISTINCT FROM $2
        RETURNING (SELECT value FROM monitor_incident_events WHERE incident_id = $1 AND value IS NOT NULL
                   ORDER BY id DESC LIMIT 1) AS noted
        """,
        group.incident_id,
        group.value,
        summary_of(monitor, group.value, group.explanation),
    )
    if noted is not None and group.incident_id is not None and moved(noted["noted"], group.value):
        kind = IncidentEventKind.VALUE if group.value is not None else IncidentEventKind.NO_DATA
        await note(work, group.incident_id, kind, at, value=group.value, text=group.explanation)


def moved(before: float | None, now: float | None) -> bool:
    """Whether a value is worth a point on a timeline."""
    if before is None or now is None:
        return before is not now
    return abs(now - before) >= 0.1 * max(abs(before), abs(now), 1e-12)


async def tell_of(
    work: Work, monitor: MonitorRow, told: Sequence[tuple[MonitorIncidentRow, AlertKind]], at: datetime
) -> None:
    """Tell of incidents that are not silenced; of the end of those that were told."""
    wanted = [
        (incident, kind)
        for incident, kind in told
        if (incident["told_count"] > 0 if kind is AlertKind.RESOLVED else not incident["silenced"])
    ]
    if not wanted:
        return
    await tell(work, monitor, wanted, at)
    for incident, kind in wanted:
        if kind is not AlertKind.RESOLVED:
            await note(work, incident["id"], IncidentEventKind.TOLD, at, value=incident["value"], text=kind.value)
    await work.tx.execute(
        "UPDATE monitor_incidents SET told_at = $2, told_count = told_count + 1 WHERE id = ANY($1)",
        [incident["id"] for incident, kind in wanted if kind is not AlertKind.RESOLVED],
        at,
    )


async def end_all(work: Work, monitor: MonitorRow, why: str, at: datetime) -> None:
    """A monitor watches no more, or something else: its incidents are over, and its groups forgotten."""
    open_ = await work.tx.fetch(
        "SELECT id FROM monitor_incidents WHERE monitor_id = $1 AND resolved_at IS NULL ORDER BY id", monitor["id"]
    )
    ended = [(await resolve(work, monitor, row["id"], why, None, at), AlertKind.RESOLVED) for row in open_]
    await tell_of(work, monitor, ended, at)
    await work.tx.execute("DELETE FROM monitor_groups WHERE monitor_id = $1", monitor["id"])
    changed(work, monitor["organization_id"])


async def upkeep(now: datetime) -> int:
    """See to silences that began or ended and to what is to be told again; returns how many monitors were seen to.
    Any number of workers may call it: each incident is looked at again while its monitor is held."""
    rows = await db.fetch(_UPKEEP, now, None, row=Row)
    seen = 0
    for monitor_id in dict.fromkeys(row["monitor_id"] for row in rows):
        try:
            seen += await _keep_up(monitor_id, now)
        except Exception:
            logger.exception("Incidents of %s could not be seen to.", encode("mon", monitor_id))
    return seen


async def _keep_up(monitor_id: UUID, now: datetime) -> int:
    organization_id = await db.fetchval("SELECT organization_id FROM monitors WHERE id = $1", monitor_id)
    async with write(system_actor(organization_id), None) as work:
        monitor = await work.tx.fetchrow(
            "SELECT * FROM monitors WHERE id = $1 FOR UPDATE SKIP LOCKED", monitor_id, row=MonitorRow
        )
        if monitor is None:
            return 0
        told: list[tuple[MonitorIncidentRow, AlertKind]] = []
        # A statement of its own, so that it sees what the row's last holder did.
        for row in await work.tx.fetch(_UPKEEP, now, monitor_id, row=Row):
            if row["reason"] is not None:
                await _silence(work, row["id"], row["reason"], now)
                continue
            incident = await work.tx.fetchrow(
                f"UPDATE monitor_incidents SET silenced = false, {_CHANGED} WHERE id = $1 RETURNING *",
                row["id"],
                row=MonitorIncidentRow,
            )
            assert incident is not None
            if row["silenced"]:
                await note(work, row["id"], IncidentEventKind.SILENCE_ENDED, now, value=incident["value"])
            told.append((incident, AlertKind.FIRING if row["told_at"] is None else AlertKind.STILL_FIRING))
        await tell_of(work, monitor, told, now)
        changed(work, organization_id)
    return 1


async def _silence(work: Work, incident_id: UUID, reason: str, at: datetime) -> MonitorIncidentRow:
    row = await work.tx.fetchrow(
        f"UPDATE monitor_incidents SET silenced = true, {_CHANGED} WHERE id = $1 RETURNING *",
        incident_id,
        row=MonitorIncidentRow,
    )
    assert row is not None
    await note(work, incident_id, IncidentEventKind.SILENCED, at, value=row["value"], text=reason)
    return row


async def acknowledge(actor: Actor, incident_id: UUID, text: str | None) -> MonitorIncidentRow:
    """Say that somebody sees to it: it is not told again, until it is over. Again, by whomever, has no effect. Raises
    NotFound, Conflict for one that is over."""
    async with write(actor, "monitor_incident.acknowledge") as work:
        actor.require(Permission.MONITORS_MANAGE)
        found = await _visible(work, incident_id)
        await work.tx.fetchrow("SELECT id FROM monitors WHERE id = $1 FOR UPDATE", found["monitor_id"])
        row = await _visible(work, incident_id)
        work.target("MonitorIncident", incident_id, row["title"])
        if row["acknowledged_at"] is not None:
            work.entry.action = ""
            return row
        if row["resolved_at"] is not None:
            raise Conflict("The incident is over.", field="incidentId")
        acknowledged = await work.tx.fetchrow(
            f"UPDATE monitor_incidents SET acknowledged_at = $2, acknowledged_by_id = $3, {_CHANGED} "
            "WHERE id = $1 RETURNING *",
            incident_id,
            work.at,
            actor.user_id,
            row=MonitorIncidentRow,
        )
        assert acknowledged is not None
        await note(
            work,
            incident_id,
            IncidentEventKind.ACKNOWLEDGED,
            work.at,
            value=row["value"],
            text=text,
            actor_id=actor.user_id,
        )
        work.changed(after={"note": text})
        changed(work, actor.organization_id)
    return acknowledged


def changed(work: Work, organization_id: UUID) -> None:
    """Tell those who follow incidents, after the commit."""
    work.after_commit(lambda: parts().bus.publish(incidents_channel(organization_id), {"changed": True}))


def title_of(monitor: MonitorRow, group_name: str | None) -> str:
    """One line: what fires."""
    if monitor["group_by"] is None:
        return str(monitor["name"])
    return f"{monitor['name']} ({monitor['group_by']} {group_name or 'none'})"[:300]


async def _visible(work: Work, incident_id: UUID) -> MonitorIncidentRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM monitor_incidents WHERE id = {query.arg(incident_id)} "
        f"AND {query.scope(MonitorIncident.visible_to(work.actor))}",
        *query.args,
        row=MonitorIncidentRow,
    )
    if row is None:
        raise NotFound("There is no such incident, or you may not see it.", field="incidentId")
    return row
