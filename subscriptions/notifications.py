"""A user's notifications, live: those that come, and those that are read elsewhere.

Read in the order of transactions, below the oldest one still open, as subscriptions/session_changes.py does: no
cursor leads past a notification that is committed late. Each notification is told as it now is, so whoever was away
while one came and was read hears of it once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from core import db
from core.bus import BusMessage
from core.errors import SlowConsumer
from core.permissions import Actor
from models.base import Query
from models.notifications import Notification, NotificationRow
from services.notifications.inbox import current_cursor, feed_cursor, feed_position
from services.notifications.telling import user_channel
from services.parts import parts

PAGE = 200
LOOK_ANYWAY_SECONDS = 5.0
# What was told may still be above the oldest open transaction; it will not be for long.
SOON_SECONDS = 0.05
WATCHFUL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NotificationChange:
    """A notification that came or was read, as it now is."""

    cursor: str
    kind: str
    notification: NotificationRow
    unread_count: int


async def notification_changes(actor: Actor, after: str | None) -> AsyncIterator[NotificationChange]:
    """Changes of the actor's notifications after a cursor (None: from now on). Raises BadInput for a bad cursor."""
    assert actor.user_id is not None
    xid, seq = feed_position(after or await current_cursor())
    while True:
        async with parts().bus.subscribe(user_channel(actor.user_id)) as notices:
            wait, watchful_until = 0.0, 0.0
            try:
                while True:
                    if isinstance(await notices.next(wait), BusMessage):
                        watchful_until = time.monotonic() + WATCHFUL_SECONDS
                    rows = await _read(actor, xid, seq)
                    for row in rows:
                        xid, seq = row["xid"], row["changed_seq"]
                        kind = "CREATED" if row["read_at"] is None else "READ"
                        yield NotificationChange(feed_cursor(xid, seq), kind, row, row["unread"])
                    wait = SOON_SECONDS if time.monotonic() < watchful_until else LOOK_ANYWAY_SECONDS
                    if len(rows) == PAGE:
                        wait = 0.0
            except SlowConsumer:
                continue


async def _read(actor: Actor, xid: int, seq: int) -> list[NotificationRow]:
    query = Query()
    mine = query.scope(Notification.visible_to(actor))
    place = f"({query.arg(str(xid))}::text::xid8, {query.arg(seq)}::bigint)"
    return await db.fetch(
        "SELECT notifications.*, changed_xid::text::bigint AS xid, "
        f"(SELECT count(*) FROM notifications WHERE {mine} AND read_at IS NULL) AS unread "
        f"FROM notifications WHERE {mine} AND (changed_xid, changed_seq) > {place} "
        "AND changed_xid < pg_snapshot_xmin(pg_current_snapshot()) "
        f"ORDER BY changed_xid, changed_seq LIMIT {PAGE}",
        *query.args,
        row=NotificationRow,
    )
