"""The live stream of one session: its event log, and text while it is being written.

A cursor says what its client has: the number of the last event, and how many characters of each message that is
still being written. So a client that reconnects in the middle of a message gets the rest of it, and nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core import clock, db
from core.bus import BusMessage, Gap
from core.errors import BadInput, CursorExpired, NotFound, SlowConsumer
from core.ids import decode, encode
from core.paging import decode_cursor, encode_cursor
from core.permissions import Actor, ActorKind
from models.base import Query
from models.events import SessionEventRow
from models.sessions import Session
from services.parts import parts
from services.work import session_channel

PAGE = 500
# Notices tell at once; this finds what a lost one would have told.
LOOK_ANYWAY_SECONDS = 10.0
SHARED_SECONDS = 1.0
# Text in progress is stored four times a second.
PROGRESS_SECONDS = 0.3
# Messages that are written at the same time; a cursor names them.
MOST_OPEN = 100


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One event as the graph shows it. `delta` and `offset` are set for TEXT_MESSAGE_CONTENT."""

    cursor: str
    session_id: UUID
    seq: int
    type: str
    at: datetime
    data: dict[str, Any]
    name: str | None = None
    run_id: UUID | None = None
    message_id: UUID | None = None
    tool_execution_id: UUID | None = None
    approval_id: UUID | None = None
    actor_kind: str = ActorKind.AGENT.value
    actor_id: UUID | None = None
    on_behalf_of: UUID | None = None
    delta: str | None = None
    offset: int | None = None


def event_cursor(seq: int) -> str:
    """The cursor of one who has everything up to an event."""
    return encode_cursor(seq, {})


async def session_events(actor: Actor, session_id: UUID, after: str | None) -> AsyncIterator[SessionEvent]:
    """The session's events after a cursor (None: from the first one), for as long as the actor may see the session.

    Raises NotFound at the start, or later when access ends; CursorExpired for a cursor from beyond the log.
    """
    follower = _Follower(actor, session_id, after)
    while True:
        async with parts().bus.subscribe(session_channel(session_id)) as notices:
            await follower.check_access(starting=True)
            async for event in follower.catch_up():
                yield event
            async for event in follower.fill_in():
                yield event
            try:
                while True:
                    notice = await notices.next(PROGRESS_SECONDS if follower.behind else LOOK_ANYWAY_SECONDS)
                    async for event in follower.take(notice):
                        yield event
            except SlowConsumer:
                # Nothing is lost: the log has it. Begin again where this client is.
                continue


async def _read(session_id: UUID, after: int) -> list[SessionEventRow]:
    return await db.fetch(
        "SELECT * FROM session_events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        session_id,
        after,
        PAGE,
        row=SessionEventRow,
    )


# What was just read of a log, by session and place. The log only grows, so an old page is a true beginning of a
# new one: all who follow a session in this process share one read of each event.
_just_read: dict[tuple[UUID, int], asyncio.Task[list[SessionEventRow]]] = {}


async def _read_together(session_id: UUID, after: int) -> list[SessionEventRow]:
    place = (session_id, after)
    reading = _just_read.get(place)
    if reading is None:
        reading = _just_read[place] = asyncio.create_task(_read(session_id, after))
        asyncio.get_running_loop().call_later(SHARED_SECONDS, _just_read.pop, place, None)
    # A follower that leaves must not take the read away from the others.
    return await asyncio.shield(reading)


class _Follower:
    """Where one client is."""

    def __init__(self, actor: Actor, session_id: UUID, after: str | None) -> None:
        self._actor, self._session_id = actor, session_id
        self._seq, self._open = _position(after)
        # Pieces of text that came before those that lead up to them, by message.
        self._ahead: dict[str, list[tuple[int, str]]] = {}
        self._filled_in_at = 0.0

    @property
    def behind(self) -> bool:
        """Whether text is missing that the database will have in a moment."""
        return bool(self._ahead)

    async def check_access(self, *, starting: bool = False) -> None:
        """Raises NotFound where the actor may not see the session (any more)."""
        query = Query()
        last = await db.fetchval(
            f"SELECT last_event_seq FROM sessions WHERE id = {query.arg(self._session_id)} "
            f"AND {query.scope(Session.visible_to(self._actor))}",
            *query.args,
        )
        if last is None:
            raise NotFound(
                "There is no such session, or you may not see it."
                if starting
                else "You may no longer see this session.",
                field="sessionId",
            )
        if starting and self._seq > last:
            raise CursorExpired(
                "This cursor is from beyond the session's log. Leave `after` out, and read anew.", field="after"
            )

    async def take(self, notice: BusMessage | Gap | None) -> AsyncIterator[SessionEvent]:
        """What a notice, or the lack of one, gives the client."""
        if isinstance(notice, BusMessage) and "text" in notice.data:
            async for event in self._delta(notice.data):
                yield event
            return
        if isinstance(notice, BusMessage):
            if notice.data["seq"] > self._seq:
                async for event in self.catch_up(notice.data["seq"]):
                    yield event
            return
        async for event in self.catch_up():
            yield event
        await self.check_access()
        async for event in self.fill_in():
            yield event

    async def catch_up(self, until: int = 0) -> AsyncIterator[SessionEvent]:
        """All stored events after the client's place. With `until`, the number of an event that is known to be
        stored, what others read from the same place a moment ago will do up to there."""
        together = until > 0
        while True:
            rows = await (_read_together if together else _read)(self._session_id, self._seq)
            for row in rows:
                if row["name"] == "quarterdeck.session.updated":
                    await self.check_access()
                for event in self._stored(row):
                    yield event
            if together and self._seq < until:
                together = bool(rows)
            elif len(rows) < PAGE:
                return

    async def fill_in(self) -> AsyncIterator[SessionEvent]:
        """The text so far of messages that are being written."""
        self._filled_in_at = time.monotonic()
        for row in await db.fetch(
            "SELECT messages.id, messages.run_id, message_progress.text FROM messages "
            "LEFT JOIN message_progress ON message_progress.message_id = messages.id "
            "WHERE messages.session_id = $1 AND messages.status = 'STREAMING' AND messages.seq <= $2",
            self._session_id,
            self._seq,
        ):
            message = encode("msg", row["id"])
            have = self._open.setdefault(message, 0)
            if row["text"] and len(row["text"]) > have:
                yield self._text(message, have, row["text"][have:], row["run_id"])
            # Now the pieces that waited may fit on.
            for offset, text in self._ahead.pop(message, []):
                for event in self._piece(message, offset, text):
                    yield event

    async def _delta(self, data: dict[str, Any]) -> AsyncIterator[SessionEvent]:
        if data["after"] > self._seq:
            async for event in self.catch_up(data["after"]):
                yield event
        for event in self._piece(data["message"], data["offset"], data["text"]):
            yield event
        # While pieces keep coming there is no pause to look in.
        if self.behind and time.monotonic() - self._filled_in_at >= PROGRESS_SECONDS:
            async for event in self.fill_in():
                yield event

    def _piece(self, message: str, offset: int, text: str) -> list[SessionEvent]:
        have = self._open.get(message)
        if have is None:
            return []  # it has ended, and the client has all of it
        if offset > have:
            self._ahead.setdefault(message, []).append((offset, text))
            return []
        rest = text[have - offset :]
        return [self._text(message, have, rest, None)] if rest else []

    def _stored(self, row: SessionEventRow) -> list[SessionEvent]:
        events = []
        message = encode("msg", row["message_id"]) if row["message_id"] else ""
        if row["type"] == "TEXT_MESSAGE_START":
            self._open[message] = 0
        elif row["type"] == "TEXT_MESSAGE_END":
            have, text = self._open.get(message, 0), row["data"].get("text", "")
            if len(text) > have:
                events.append(self._text(message, have, text[have:], row["run_id"]))
            self._open.pop(message, None)
            self._ahead.pop(message, None)
        self._seq = row["seq"]
        events.append(
            SessionEvent(
                cursor=self._cursor(),
                session_id=self._session_id,
                seq=row["seq"],
                type=row["type"],
                at=row["at"],
                data=row["data"],
                name=row["name"],
                run_id=row["run_id"],
                message_id=row["message_id"],
                tool_execution_id=row["tool_execution_id"],
                approval_id=row["approval_id"],
                actor_kind=row["actor_kind"],
                actor_id=row["actor_id"],
                on_behalf_of=row["on_behalf_of"],
            )
        )
        return events

    def _text(self, message: str, offset: int, text: str, run_id: UUID | None) -> SessionEvent:
        self._open[message] = offset + len(text)
        return SessionEvent(
            cursor=self._cursor(),
            session_id=self._session_id,
            seq=self._seq,
            type="TEXT_MESSAGE_CONTENT",
            at=clock.now(),
            data={"messageId": message, "delta": text},
            run_id=run_id,
            message_id=decode("msg", message),
            delta=text,
            offset=offset,
        )

    def _cursor(self) -> str:
        return encode_cursor(self._seq, self._open)


def _position(after: str | None) -> tuple[int, dict[str, int]]:
    if after is None:
        return 0, {}
    seq, open_ = decode_cursor(after, 2)
    if (
        not isinstance(seq, int)
        or seq < 0
        or not isinstance(open_, dict)
        or len(open_) > MOST_OPEN
        or not all(isinstance(have, int) and have >= 0 for have in open_.values())
    ):
        raise BadInput("This is not a cursor of sessionEvents. Pass an event's cursor, or leave it out.", field="after")
    for message in open_:
        decode("msg", message, field="after")
    return seq, open_
