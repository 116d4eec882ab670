"""The live feed of an organisation's sessions: what was made or changed, as far as the actor may see it.

Rows are read in the order (xid, id), below the oldest transaction that is still open. A transaction that commits
late therefore cannot slip in behind a reader's place, and writers never wait for one another.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core import db
from core.bus import BusMessage
from core.errors import BadInput, CursorExpired, SlowConsumer
from core.paging import decode_cursor, encode_cursor
from core.permissions import Actor
from models.base import Query
from models.sessions import Session, SessionRow
from models.sharing import SESSION
from services.parts import parts
from services.sessions.pruning import KEPT_DAYS, has_pruned_after
from services.work import organization_channel

PAGE = 200
LOOK_ANYWAY_SECONDS = 5.0
# A change that was told may still be above the oldest open transaction; it will not be for long.
SOON_SECONDS = 0.05
WATCHFUL_SECONDS = 1.0
# What ends by itself is told by a later sweep, and the clocks of processes differ a little.
SAME_TIME = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A session that was made or changed; `session` is as it is now, None where the actor may not see it any more."""

    cursor: str
    kind: str
    session_id: UUID
    at: datetime
    session: SessionRow | None


async def current_cursor(actor: Actor) -> str:
    """The place of one who has read the list just now: everything from here on is news, some of it may be known."""
    return encode_cursor(str(await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())")), 0)


async def session_changes(
    actor: Actor, matches: Callable[[SessionRow], bool], after: str | None
) -> AsyncIterator[SessionChange]:
    """Changes after a cursor (None: from now on) of the sessions the actor may see and the filter takes.

    A change that the filter does not take is told as REMOVED, once until the filter takes the session again: whoever
    keeps a list may have it there. So is one of a session that the actor was told of, or was given access to, and may
    not see any more. Raises CursorExpired where changes after the cursor are no longer kept.
    """
    removed: set[UUID] = set()
    told: set[UUID] = set()
    kept = after is None
    xid, id_ = _position(after or await current_cursor(actor))
    while True:
        async with parts().bus.subscribe(organization_channel(actor.organization_id)) as notices:
            wait, watchful_until = 0.0, 0.0
            try:
                while True:
                    if isinstance(await notices.next(wait), BusMessage):
                        watchful_until = time.monotonic() + WATCHFUL_SECONDS
                    rows = await _read(actor, xid, id_)
                    # Asked after reading, so that what was there then has not been missed. And once: who listens
                    # in a quiet organisation keeps an old place, and misses nothing.
                    if not kept and await has_pruned_after(xid, id_):
                        raise CursorExpired(
                            f"Changes are kept for {KEPT_DAYS} days, and this cursor is older. Read the list of "
                            "sessions again, and go on from sessionChangesCursor.",
                            field="after",
                        )
                    kept = True
                    for row in rows:
                        xid, id_ = row["xid"], row["id"]
                        session, session_id, kind = row["session"], row["session_id"], row["kind"]
                        if session is not None and matches(session):
                            removed.discard(session_id)
                            told.add(session_id)
                        elif session_id in removed or (
                            kind == "CREATED" if session else not (row["had_access"] or session_id in told)
                        ):
                            continue
                        else:
                            removed.add(session_id)
                            kind = "REMOVED"
                        yield SessionChange(encode_cursor(str(xid), id_), kind, session_id, row["at"], session)
                    wait = SOON_SECONDS if time.monotonic() < watchful_until else LOOK_ANYWAY_SECONDS
                    if len(rows) == PAGE:
                        wait = 0.0
            except SlowConsumer:
                continue


async def _read(actor: Actor, xid: int, id_: int) -> list[dict[str, Any]]:
    query = Query()
    changes = await db.fetch(
        "SELECT xid::text::bigint AS xid, id, session_id, kind, at FROM session_changes "
        f"WHERE organization_id = {query.arg(actor.organization_id)} "
        f"AND (xid, id) > ({query.arg(str(xid))}::text::xid8, {query.arg(id_)}) "
        f"AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT {PAGE}",
        *query.args,
    )
    if not changes:
        return []
    query = Query()
    wanted = query.arg(list({change["session_id"] for change in changes}))
    seen = {
        row["id"]: row
        for row in await db.fetch(
            f"SELECT * FROM sessions WHERE id = ANY({wanted}) AND {query.scope(Session.visible_to(actor))}",
            *query.args,
            row=SessionRow,
        )
    }
    ended = await _ended_access(actor, {change["session_id"] for change in changes} - seen.keys())
    # Those the actor may not see are kept as None: the reader's place moves on over them.
    return [
        dict(change)
        | {
            "session": seen.get(change["session_id"]),
            "had_access": change["session_id"] in ended and ended[change["session_id"]] >= change["at"] - SAME_TIME,
        }
        for change in changes
    ]


async def _ended_access(actor: Actor, session_ids: set[UUID]) -> dict[UUID, datetime]:
    """When the access ended that the actor was given to these sessions, where they were: until then it is no news to
    them that the sessions are there, and what happens in them afterwards is none of theirs."""
    if not session_ids or actor.user_id is None:
        return {}
    rows = await db.fetch(
        "SELECT resource_id, max(coalesce(revoked_at, expires_at, now())) AS ended FROM grants "
        "WHERE resource_kind = $1 AND resource_id = ANY($2) AND user_id = $3 GROUP BY resource_id",
        SESSION,
        list(session_ids),
        actor.user_id,
    )
    return {row["resource_id"]: row["ended"] for row in rows}


def _position(after: str) -> tuple[int, int]:
    xid, id_ = decode_cursor(after, 2)
    if (
        not isinstance(xid, str)
        or not (xid.isascii() and xid.isdigit() and len(xid) <= 18)
        or not isinstance(id_, int)
        or not 0 <= id_ < 2**63
    ):
        raise BadInput(
            "This is not a cursor of sessionChanges. Pass an event's cursor, or leave it out.", field="after"
        )
    return int(xid), id_
