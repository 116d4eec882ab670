"""The live stream of one session: its event log, and text while it is being written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

from core import db
from core.errors import CursorExpired, NotFound
from core.paging import encode_cursor
from core.permissions import Actor
from models.base import Query, Scope
from models.events import SessionEventRow
from models.sessions import Session
from services.sharing.views import note_view
from subscriptions import access
from subscriptions.session_log import (
    CHANGES_OF_ACCESS,
    PAGE,
    Place,
    SessionEvent,
    SessionTail,
    read_log,
    read_log_together,
)
from subscriptions.tails import Following

__all__ = ["SessionEvent", "SessionEvents", "event_cursor", "session_events"]

WAIT_SECONDS = 1.0
_Read = Callable[[UUID, int], Awaitable[list[SessionEventRow]]]


def event_cursor(seq: int) -> str:
    """The cursor of one who has everything up to an event."""
    return encode_cursor(seq, {})


def session_events(actor: Actor, session_id: UUID, after: str | None) -> AsyncGenerator[SessionEvent, None]:
    """The session's events after a cursor (None: from the first one), for as long as the actor may see the session.

    Raises NotFound at the start, or later when access ends; CursorExpired for a cursor from beyond the log.
    """
    return aiter(SessionEvents(actor, session_id, after))


class SessionEvents(Following[SessionEvent]):
    """One client's place in a session's log. Raises BadInput for a cursor that is none."""

    tail: SessionTail

    def __init__(self, actor: Actor, session_id: UUID, after: str | None) -> None:
        super().__init__()
        self._actor, self._session_id = actor, session_id
        self._scope = Session.visible_to(actor)
        self._place = Place.of(session_id, after)
        self._lost: NotFound | None = None

    def open(self) -> None:
        self._watch = access.watch(self._actor, self._session_id, self._end)
        self.tail = SessionTail.named(self._session_id)

    def close(self) -> None:
        self._watch.stop()
        self.tail.release()

    async def missed(self) -> AsyncIterator[SessionEvent]:
        last = await _last_event(self._scope, self._session_id)
        if last is None:
            raise NotFound("There is no such session, or you may not see it.", field="sessionId")
        if self._place.seq > last:
            raise CursorExpired(
                "This cursor is from beyond the session's log. Leave `after` out, and read anew.", field="after"
            )
        self.state = last
        note_view(self._actor, [self._session_id], "events")
        await self.tail.started()
        read: _Read = partial(read_log_together, last=last)
        while True:
            async for event in self._stored(read):
                yield event
            read = read_log
            for event in self._written():
                yield event
            self._check()
            if self._is_where_the_tail_is():
                return
            if self._place.seq >= self.tail.place.seq:
                # The tail has still to hear of what this client has read, or has been told before.
                if self._place.seq > self.tail.place.seq:
                    self.tail.look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_SECONDS):
                        await self.tail.moved()

    def go_on_after(self, event: SessionEvent) -> None:
        self._place = Place.of(self._session_id, event.cursor)

    async def _stored(self, read: _Read) -> AsyncIterator[SessionEvent]:
        """What the log has between this client's place and the tail's."""
        while self._place.seq < self.tail.place.seq:
            rows = await read(self._session_id, self._place.seq)
            for row in rows:
                if row["name"] in CHANGES_OF_ACCESS and await _last_event(self._scope, self._session_id) is None:
                    self._watch.end()
                for event in self._place.take(row):
                    self._check()
                    yield event
            if len(rows) < PAGE:
                read = read_log

    def _written(self) -> list[SessionEvent]:
        """What the tail knows of messages that are being written, and this client does not."""
        if self._place.seq != self.tail.place.seq:
            return []
        events = []
        for message, known in self.tail.place.open.items():
            have = self._place.open.get(message, 0)
            if have < known:
                events.append(self._place.write(message, self.tail.text(message)[have:], None))
        return events

    def _is_where_the_tail_is(self) -> bool:
        here, there = self._place, self.tail.place
        return here.seq == there.seq and all(here.open.get(name, 0) == have for name, have in there.open.items())

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _end(self) -> None:
        self._lost = NotFound("You may no longer see this session.", field="sessionId")
        self.ended(self._lost)


# Many who come at once ask the same. A question is shared until it goes to the database: whoever comes later has a
# watch of their own, which must not be older than the answer.
_asked: dict[tuple[Scope, UUID], asyncio.Task[int | None]] = {}


async def _last_event(scope: Scope, session_id: UUID) -> int | None:
    """The number of the session's last event; None where the scope does not have it."""
    key = (scope, session_id)
    asking = _asked.get(key)
    if asking is None:
        asking = _asked[key] = asyncio.create_task(_ask(scope, session_id))
        asking.add_done_callback(lambda done: _asked.pop(key, None) if _asked.get(key) is done else None)
    return await asyncio.shield(asking)


async def _ask(scope: Scope, session_id: UUID) -> int | None:
    query = Query()
    session, visible = query.arg(session_id), query.scope(scope, by_row=True)
    sql = f"SELECT last_event_seq FROM sessions WHERE id = {session} AND {visible}"
    async with db.acquire() as connection:
        _asked.pop((scope, session_id), None)
        return await connection.fetchval(sql, *query.args)  # type: ignore[no-any-return]
