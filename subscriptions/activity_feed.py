"""The activity feed, live: of one session, of a team, or of all sessions that somebody may see.

Of one session it is the session's stream, narrowed. Of many it is read as `session_changes` is: in the order of
transactions, below the oldest one still open, so that nothing that is committed late is passed by.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from core import db
from core.bus import BusMessage
from core.errors import BadInput, NotFound, SlowConsumer
from core.paging import decode_cursor, encode_cursor
from core.permissions import Actor
from models.activity_feed import COLUMNS, INDEXED, ActivityRow, Event, in_team
from models.base import Query
from models.identity import Team
from models.sessions import Session
from services.parts import parts
from services.work import activity_channel
from subscriptions.sessions import session_events

PAGE = 200
LOOK_ANYWAY_SECONDS = 5.0
# What was told may still be above the oldest open transaction; it will not be for long.
SOON_SECONDS = 0.05
WATCHFUL_SECONDS = 1.0
# In a busy organisation reading what came together beats reading each alone.
PAUSE_SECONDS = 0.1
SHARED_SECONDS = 1.0

_SIZE_OF_NUMBER = 18

Matches = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """An activity, and the place in the feed after it."""

    cursor: str
    activity: Any
    """An ActivityRow, or a SessionEvent where one session is followed."""


async def current_cursor() -> str:
    """The place of one who has read the feed just now: everything from here on is news, some of it may be known."""
    xmin = await db.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
    return encode_cursor(xmin, str(UUID(int=0)), 0)


async def activity_of_session(
    actor: Actor, session_id: UUID, matches: Matches, after: str | None
) -> AsyncIterator[FeedItem]:
    """A session's activities after one of its cursors (None: from the first one). Raises as `session_events`."""
    stream = cast(Any, session_events(actor, session_id, after))
    async with aclosing(stream):
        async for event in stream:
            if matches(event):
                yield FeedItem(event.cursor, event)


async def activity_feed(
    actor: Actor, matches: Matches, after: str | None, *, team_id: UUID | None = None
) -> AsyncIterator[FeedItem]:
    """Activities after a cursor (None: from now on) in all sessions that the actor may see, or in those of a team.

    What somebody may see is asked again with every reading. Raises NotFound for a team, BadInput for a cursor.
    """
    if team_id is not None:
        await _check_team(actor, team_id)
    place = _position(after or await current_cursor())
    while True:
        async with parts().bus.subscribe(activity_channel(actor.organization_id)) as notices:
            wait, watchful_until = 0.0, 0.0
            try:
                while True:
                    if isinstance(await notices.next(wait), BusMessage):
                        watchful_until = time.monotonic() + WATCHFUL_SECONDS
                    rows = await _read_together(actor.organization_id, place)
                    seen = await _seen(actor, team_id, {row["session_id"] for row in rows})
                    for row in rows:
                        # The place moves on also over what the actor may not see, or does not want.
                        place = (row["xid"], row["session_id"], row["seq"])
                        if row["session_id"] in seen and matches(row):
                            yield FeedItem(_cursor(place), row)
                    wait = SOON_SECONDS if time.monotonic() < watchful_until else LOOK_ANYWAY_SECONDS
                    if len(rows) == PAGE:
                        wait = 0.0
                    elif rows:
                        await asyncio.sleep(PAUSE_SECONDS)
            except SlowConsumer:
                continue


_Place = tuple[int, UUID, int]

# What was just read of an organisation's feed, by place: all who are there in this process share one read. Only what
# has rows is kept, for below the oldest open transaction a page never changes, but an end does.
_just_read: dict[tuple[UUID, _Place], asyncio.Task[list[ActivityRow]]] = {}


async def _read_together(organization_id: UUID, place: _Place) -> list[ActivityRow]:
    key = (organization_id, place)
    reading = _just_read.get(key)
    if reading is None:
        reading = _just_read[key] = asyncio.create_task(_read(organization_id, place))
        reading.add_done_callback(lambda done: _keep_a_moment(key, done))
    # A follower that leaves must not take the read away from the others.
    return await asyncio.shield(reading)


def _keep_a_moment(key: tuple[UUID, _Place], done: asyncio.Task[list[ActivityRow]]) -> None:
    if done.cancelled() or done.exception() or len(done.result()) < PAGE:
        _just_read.pop(key, None)
    else:
        asyncio.get_running_loop().call_later(SHARED_SECONDS, _just_read.pop, key, None)


async def _read(organization_id: UUID, place: _Place) -> list[ActivityRow]:
    xid, session_id, seq = place
    return await db.fetch(
        f"SELECT session_events.xid, {COLUMNS} FROM session_events "
        f"WHERE organization_id = $1 AND {INDEXED} AND xid >= $2::text::xid8 "
        "AND (xid, session_id, seq) > ($2::text::xid8, $3, $4) "
        f"AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, session_id, seq LIMIT {PAGE}",
        organization_id,
        str(xid),
        session_id,
        seq,
        row=ActivityRow,
    )


async def _seen(actor: Actor, team_id: UUID | None, sessions: set[UUID]) -> set[UUID]:
    """Those of the sessions that the actor may see now, and that are the team's where there is one."""
    if not sessions:
        return set()
    query = Query()
    conditions = f"sessions.id = ANY({query.arg(list(sessions))}) AND {query.scope(Session.visible_to(actor))}"
    if team_id is not None:
        conditions += f" AND {in_team(f'= {query.arg(team_id)}')}"
    rows = await db.fetch(f"SELECT sessions.id FROM sessions WHERE {conditions}", *query.args)
    return {row["id"] for row in rows}


async def _check_team(actor: Actor, team_id: UUID) -> None:
    query = Query()
    found = await db.fetchval(
        f"SELECT 1 FROM teams WHERE teams.id = {query.arg(team_id)} AND {query.scope(Team.visible_to(actor))}",
        *query.args,
    )
    if not found:
        raise NotFound("There is no such team in your organisation.", field="teamId")


def _cursor(place: _Place) -> str:
    return encode_cursor(str(place[0]), str(place[1]), place[2])


def _position(after: str) -> _Place:
    xid, session_id, seq = decode_cursor(after, 3)
    try:
        if not (xid.isascii() and xid.isdigit() and len(xid) <= _SIZE_OF_NUMBER and type(seq) is int):
            raise ValueError
        place = (int(xid), UUID(session_id), seq)
    except (ValueError, AttributeError, TypeError):
        place = (0, UUID(int=0), -1)
    if not 0 <= place[2] < 2**63:
        raise BadInput(
            "This is not a cursor of this feed. Pass an item's cursor or `activityFeedCursor`, or leave it out.",
            field="after",
        )
    return place
