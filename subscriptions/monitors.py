"""Incidents, live, as subscriptions/notifications.py tells of notifications: in the order of transactions, below the
oldest one still open. Each incident is told as it now is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from core import db
from core.bus import BusMessage
from core.errors import SlowConsumer
from core.permissions import Actor
from models.base import Query
from models.monitors import MonitorIncident, MonitorIncidentRow
from services.monitors.incidents import incidents_channel
from services.notifications.inbox import current_cursor, feed_cursor, feed_position
from services.parts import parts

PAGE = 200
LOOK_ANYWAY_SECONDS = 5.0
SOON_SECONDS = 0.05
WATCHFUL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """An incident that opened, changed or ended, as it now is."""

    cursor: str
    incident: MonitorIncidentRow


async def incident_changes(actor: Actor, after: str | None) -> AsyncIterator[IncidentChange]:
    """Changes of the incidents that the actor sees, after a cursor (None: from now on). What they see is asked anew
    for every one. Raises BadInput for a bad cursor."""
    xid, seq = feed_position(after or await current_cursor())
    while True:
        async with parts().bus.subscribe(incidents_channel(actor.organization_id)) as notices:
            wait, watchful_until = 0.0, 0.0
            try:
                while True:
                    if isinstance(await notices.next(wait), BusMessage):
                        watchful_until = time.monotonic() + WATCHFUL_SECONDS
                    rows = await _read(actor, xid, seq)
                    for row in rows:
                        xid, seq = row["xid"], row["changed_seq"]
                        yield IncidentChange(feed_cursor(xid, seq), row)
                    wait = SOON_SECONDS if time.monotonic() < watchful_until else LOOK_ANYWAY_SECONDS
                    if len(rows) == PAGE:
                        wait = 0.0
            except SlowConsumer:
                continue


async def _read(actor: Actor, xid: int, seq: int) -> list[MonitorIncidentRow]:
    query = Query()
    seen = query.scope(MonitorIncident.visible_to(actor))
    place = f"({query.arg(str(xid))}::text::xid8, {query.arg(seq)}::bigint)"
    return await db.fetch(
        "SELECT monitor_incidents.*, changed_xid::text::bigint AS xid FROM monitor_incidents "
        f"WHERE {seen} AND (changed_xid, changed_seq) > {place} "
        "AND changed_xid < pg_snapshot_xmin(pg_current_snapshot()) "
        f"ORDER BY changed_xid, changed_seq LIMIT {PAGE}",
        *query.args,
        row=MonitorIncidentRow,
    )
