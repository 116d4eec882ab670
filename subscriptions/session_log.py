"""The end of one session's event log, and of the text that is being written: read once for all who follow it here.

A place in it is the number of the last event, and how many characters of each message that is still being written are
known. A cursor is a place. So a client that reconnects in the middle of a message gets the rest of it, nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from core import clock, db
from core.bus import BusMessage, BusSubscription, Gap, Notice
from core.errors import BadInput, NotFound, SlowConsumer
from core.ids import decode, encode
from core.paging import decode_cursor, encode_cursor
from core.permissions import ActorKind
from models.events import SessionEventRow
from services.parts import parts
from services.work import session_channel
from subscriptions import access
from subscriptions.tails import Tail

PAGE = 500
# Notices tell at once; this finds what a lost one would have told.
LOOK_ANYWAY_SECONDS = 10.0
SHARED_SECONDS = 1.0
# Text in progress is stored four times a second.
PROGRESS_SECONDS = 0.3
# Messages that are written at the same time; a cursor names them.
MOST_OPEN = 100

# After one of these the session may have fewer readers than before.
CHANGES_OF_ACCESS = frozenset(
    {
        "quarterdeck.session.updated",
        "quarterdeck.access.changed",
        "quarterdeck.access.revoked",
        "quarterdeck.access.expired",
        "quarterdeck.handoff.accepted",
        "quarterdeck.handoff.undone",
    }
)


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


@dataclass(slots=True)
class Place:
    """A place in a session's log: all events up to `seq`, and so much of each message that is being written."""

    session_id: UUID
    seq: int = 0
    open: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, session_id: UUID, cursor: str | None) -> Place:
        """The place that a cursor names; before the first event without one. Raises BadInput."""
        if cursor is None:
            return cls(session_id)
        seq, open_ = decode_cursor(cursor, 2)
        if (
            not isinstance(seq, int)
            or seq < 0
            or not isinstance(open_, dict)
            or len(open_) > MOST_OPEN
            or not all(isinstance(have, int) and have >= 0 for have in open_.values())
        ):
            raise BadInput(
                "This is not a cursor of sessionEvents. Pass an event's cursor, or leave it out.", field="after"
            )
        for message in open_:
            decode("msg", message, field="after")
        return cls(session_id, seq, open_)

    @property
    def cursor(self) -> str:
        return encode_cursor(self.seq, self.open)

    def take(self, row: SessionEventRow) -> Iterator[SessionEvent]:
        """Go on to the next stored event; the end of a message brings what is not known of its text."""
        message = encode("msg", row["message_id"]) if row["message_id"] else ""
        if row["type"] == "TEXT_MESSAGE_START":
            self.open[message] = 0
        elif row["type"] == "TEXT_MESSAGE_END":
            have, text = self.open.get(message, 0), row["data"].get("text", "")
            if len(text) > have:
                yield self.write(message, text[have:], row["run_id"])
            self.open.pop(message, None)
        self.seq = row["seq"]
        yield SessionEvent(
            cursor=self.cursor,
            session_id=self.session_id,
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

    def write(self, message: str, text: str, run_id: UUID | None) -> SessionEvent:
        """Go on by so much of a message's text."""
        offset = self.open.get(message, 0)
        self.open[message] = offset + len(text)
        return SessionEvent(
            cursor=self.cursor,
            session_id=self.session_id,
            seq=self.seq,
            type="TEXT_MESSAGE_CONTENT",
            at=clock.now(),
            data={"messageId": message, "delta": text},
            run_id=run_id,
            message_id=decode("msg", message),
            delta=text,
            offset=offset,
        )


async def read_log(session_id: UUID, after: int) -> list[SessionEventRow]:
    """The next page of stored events."""
    return await db.fetch(
        "SELECT * FROM session_events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
        session_id,
        after,
        PAGE,
        row=SessionEventRow,
    )


# What was just read of a log, by session, place and the number of its last event: those who come back together share
# their reads. Whatever is changed in the log, as a redaction changes it, is an event itself; so the number tells.
_just_read: dict[tuple[UUID, int, int], asyncio.Task[list[SessionEventRow]]] = {}


async def read_log_together(session_id: UUID, after: int, last: int) -> list[SessionEventRow]:
    """The next page of stored events, while the log's last event is this one."""
    place = (session_id, after, last)
    reading = _just_read.get(place)
    if reading is None:
        reading = _just_read[place] = asyncio.create_task(read_log(session_id, after))
        reading.add_done_callback(partial(_keep_a_moment, place))
    # A reader that leaves must not take the page away from the others.
    return await asyncio.shield(reading)


def _keep_a_moment(place: tuple[UUID, int, int], reading: asyncio.Task[list[SessionEventRow]]) -> None:
    failed = reading.cancelled() or reading.exception() is not None
    asyncio.get_running_loop().call_later(0.0 if failed else SHARED_SECONDS, _just_read.pop, place, None)


class SessionTail(Tail[SessionEvent]):
    """The end of one session's log."""

    def __init__(self, session_id: UUID) -> None:
        super().__init__(("session", session_id))
        self._session_id = session_id
        self.place = Place(session_id)
        self._texts: dict[str, _Text] = {}
        # Pieces of text that came before those that lead up to them, by message.
        self._ahead: dict[str, list[tuple[int, str]]] = {}
        self._filled_in_at = 0.0
        self._notices: BusSubscription | None = None

    @staticmethod
    def named(session_id: UUID) -> SessionTail:
        """The session's tail in this process. Let go of it with `release`."""
        tail = Tail.of(("session", session_id), lambda: SessionTail(session_id))
        assert isinstance(tail, SessionTail)
        return tail

    def text(self, message: str) -> str:
        """What is known of a message that is being written."""
        return self._texts[message].whole() if message in self._texts else ""

    def look(self) -> None:
        """Somebody knows of an event that the tail does not: its notice may have been lost."""
        if self._notices is not None:
            self._notices.offer(Gap("the log is ahead of its tail"))

    async def follow(self) -> None:
        while True:
            async with parts().bus.subscribe(session_channel(self._session_id)) as notices:
                self._notices = notices
                if self._filled_in_at:
                    await self._catch_up()
                else:
                    await self._begin()
                await self._fill_in()
                self.stand()
                try:
                    while True:
                        await self._take(await notices.next(self._patience()))
                except SlowConsumer:
                    continue  # nothing is lost: the log has it

    def _patience(self) -> float:
        # Text that is missing the database will have in a moment; also what was being written when we came.
        fresh = self.place.open and time.monotonic() - self._filled_in_at < PROGRESS_SECONDS
        return PROGRESS_SECONDS if self._ahead or fresh else LOOK_ANYWAY_SECONDS

    async def _begin(self) -> None:
        last = await db.fetchval("SELECT last_event_seq FROM sessions WHERE id = $1", self._session_id)
        if last is None:
            raise NotFound("There is no such session, or you may not see it.", field="sessionId")
        self.place.seq = last

    async def _take(self, notice: Notice | None) -> None:
        if not isinstance(notice, BusMessage):
            await self._catch_up()
            await self._fill_in()
        elif "text" in notice.data:
            await self._piece_came(notice.data)
        elif notice.data["seq"] > self.place.seq:
            await self._catch_up()

    async def _catch_up(self) -> None:
        while True:
            rows = await read_log(self._session_id, self.place.seq)
            events: list[SessionEvent] = []
            for row in rows:
                if row["name"] in CHANGES_OF_ACCESS:
                    # Who has lost access gets nothing from here on.
                    self.tell(events)
                    events = []
                    await access.check(self._session_id)
                events += self._store(row)
            self.tell(events)
            if len(rows) < PAGE:
                return

    def _store(self, row: SessionEventRow) -> list[SessionEvent]:
        if row["type"] == "TEXT_MESSAGE_START":
            self._texts[encode("msg", row["message_id"])] = _Text()
        elif row["type"] == "TEXT_MESSAGE_END":
            message = encode("msg", row["message_id"])
            self._texts.pop(message, None)
            self._ahead.pop(message, None)
        return list(self.place.take(row))

    async def _fill_in(self) -> None:
        """The text so far of messages that are being written."""
        self._filled_in_at = time.monotonic()
        events: list[SessionEvent] = []
        for row in await db.fetch(
            "SELECT messages.id, messages.run_id, message_progress.text FROM messages "
            "LEFT JOIN message_progress ON message_progress.message_id = messages.id "
            "WHERE messages.session_id = $1 AND messages.status = 'STREAMING' AND messages.seq <= $2",
            self._session_id,
            self.place.seq,
        ):
            message = encode("msg", row["id"])
            have = self.place.open.setdefault(message, 0)
            if row["text"] and len(row["text"]) > have:
                events.append(self._write(message, row["text"][have:], row["run_id"]))
            # Now the pieces that waited may fit on.
            for offset, text in self._ahead.pop(message, []):
                events += self._piece(message, offset, text)
        self.tell(events)

    async def _piece_came(self, data: dict[str, Any]) -> None:
        if data["after"] > self.place.seq:
            await self._catch_up()
        self.tell(self._piece(data["message"], data["offset"], data["text"]))
        # While pieces keep coming there is no pause to look in.
        if self._ahead and time.monotonic() - self._filled_in_at >= PROGRESS_SECONDS:
            await self._fill_in()

    def _piece(self, message: str, offset: int, text: str) -> list[SessionEvent]:
        have = self.place.open.get(message)
        if have is None:
            return []  # it has ended, and everybody has all of it
        if offset > have:
            self._ahead.setdefault(message, []).append((offset, text))
            return []
        rest = text[have - offset :]
        return [self._write(message, rest, None)] if rest else []

    def _write(self, message: str, text: str, run_id: UUID | None) -> SessionEvent:
        self._texts.setdefault(message, _Text()).add(text)
        return self.place.write(message, text, run_id)


class _Text:
    """A text that grows piece by piece."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def whole(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""
