"""A user's inbox: its places for those who follow it, and what was read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from core import db
from core.errors import BadInput, NotFound
from core.ids import encode
from core.paging import decode_cursor, encode_cursor
from core.permissions import Actor
from models.base import Query
from models.notifications import Notification
from services.notifications.telling import Told, announce
from services.work import Work, write

MOST_AT_ONCE = 100
KEPT_DAYS = 180


async def current_cursor() -> str:
    """The place of one who has read their inbox just now: everything from here on is news, some of it may be known."""
    return feed_cursor(await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"), 0)


def feed_cursor(xid: int, seq: int) -> str:
    """The cursor of one who has everything up to a place of the feed."""
    return encode_cursor(str(xid), seq)


def feed_position(cursor: str, *, field: str = "after") -> tuple[int, int]:
    """The place a cursor stands for; BadInput where it is none of this feed."""
    xid, seq = decode_cursor(cursor, 2, field=field)
    if (
        not isinstance(xid, str)
        or not (xid.isascii() and xid.isdigit() and len(xid) <= 18)
        or isinstance(seq, bool)
        or not isinstance(seq, int)
        or not 0 <= seq < 2**63
    ):
        raise BadInput(
            "This is not a cursor of notifications. Pass an event's cursor, or viewer.notificationsCursor.", field=field
        )
    return int(xid), seq


async def mark_read(actor: Actor, ids: Sequence[UUID]) -> int:
    """Mark these as read; returns how many were not before. Raises BadInput for too many, NotFound for others' ones."""
    wanted = list(dict.fromkeys(ids))
    if not 1 <= len(wanted) <= MOST_AT_ONCE:
        raise BadInput(f"Give 1 to {MOST_AT_ONCE} ids, or `upTo`.", field="ids")
    async with write(actor, None) as work:
        query = Query()
        rows = await work.tx.fetch(
            f"SELECT id FROM notifications WHERE id = ANY({query.arg(wanted)}) "
            f"AND {query.scope(Notification.visible_to(actor))} ORDER BY id FOR UPDATE",
            *query.args,
        )
        found = {row["id"] for row in rows}
        for id_ in wanted:
            if id_ not in found:
                raise NotFound(f"There is no notification {encode('ntf', id_)} of yours.", field="ids")
        query = Query()
        return await _mark(work, query, f"id = ANY({query.arg(wanted)})")


async def mark_read_up_to(actor: Actor, cursor: str) -> int:
    """Mark everything as read that one who has followed up to a cursor has seen; returns how many were not before."""
    xid, seq = feed_position(cursor, field="upTo")
    async with write(actor, None) as work:
        query = Query()
        scope = query.scope(Notification.visible_to(actor))
        place = f"({query.arg(str(xid))}::text::xid8, {query.arg(seq)}::bigint)"
        return await _mark(work, query, f"{scope} AND (changed_xid, changed_seq) <= {place}")


async def prune_notifications() -> None:
    """Remove what is older than KEPT_DAYS, read or not. Called by workers now and then."""
    # UUIDv7 begins with the milliseconds of its making.
    before = UUID(int=int((time.time() - KEPT_DAYS * 86_400) * 1000) << 80)
    await db.execute("DELETE FROM notifications WHERE id < $1", before)


async def _mark(work: Work, query: Query, condition: str) -> int:
    # A new place in the feed, so that the user's other devices hear of it.
    tag = await work.tx.execute(
        f"UPDATE notifications SET read_at = {query.arg(work.at)}, changed_xid = DEFAULT, changed_seq = DEFAULT "
        f"WHERE {condition} AND read_at IS NULL",
        *query.args,
    )
    count = int(tag.rpartition(" ")[2])
    if count and work.actor.user_id is not None:
        told = Told(frozenset({work.actor.user_id}))
        work.after_commit(lambda: announce(told))
    return count
