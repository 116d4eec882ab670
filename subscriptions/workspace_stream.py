"""All that happens in a session, as those who work in it together follow it: its events, who is there, and drafts.

Events come as `session_events` gives them, each once, with its cursor. Presence goes between them and is not stored:
whoever comes back with a cursor is told anew who is there. Either of the two that ends, ends the other.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from core import db
from core.errors import BadInput, NotFound
from core.paging import decode_cursor
from core.permissions import Actor
from models.base import Query
from models.sessions import Session
from services.presence.participants import Draft, PresenceChange
from services.presence.rooms import presence
from subscriptions.sessions import SessionEvent, session_events

MOST_WAITING = 100
"""Events read ahead of a slow client; what is beyond waits in the log."""


@dataclass(frozen=True, slots=True)
class WorkspaceEvent:
    """Something that happened, and is in the session's log; or a piece of text."""

    event: SessionEvent

    @property
    def cursor(self) -> str:
        return self.event.cursor


@dataclass(frozen=True, slots=True)
class WorkspacePresence:
    """Who came, did something else, or left. `cursor` is the last event's."""

    cursor: str | None
    change: PresenceChange


@dataclass(frozen=True, slots=True)
class WorkspaceDraft:
    """What people are about to say."""

    cursor: str | None
    drafts: tuple[Draft, ...]


WorkspaceItem = WorkspaceEvent | WorkspacePresence | WorkspaceDraft


async def workspace(
    actor: Actor, session_id: UUID, after: str | None, client_id: str | None
) -> AsyncIterator[WorkspaceItem]:
    """A session's events after a cursor (None: from the first one), and its presence. Who follows it is present.

    Raises as `session_events` and `presence.watching` do.
    """
    begins_with_event = await _begins_with_event(actor, session_id, after)
    events = _Ahead()
    client = secrets.token_urlsafe(12) if client_id is None else client_id
    async with presence.watching(actor, session_id, client, events.wake) as watch:
        reading = asyncio.create_task(events.read(actor, session_id, after))
        # Also while a slow client takes its time: whoever may not be here any more is not seen here any more.
        reading.add_done_callback(lambda _: watch.leave())
        cursor = after
        try:
            while begins_with_event and not events.waiting and not reading.done():
                await events.news()
                events.clear()
            while True:
                events.clear()
                if reading.done():
                    reading.result()  # what was read before access ended is not told any more
                    if not events.waiting:
                        return
                if (change := watch.change()) is not None:
                    yield WorkspacePresence(cursor, change)
                if drafts := watch.drafts():
                    yield WorkspaceDraft(cursor, drafts)
                if events.waiting:
                    event = events.take()
                    cursor = event.cursor
                    yield WorkspaceEvent(event)
                else:
                    await events.news()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _begins_with_event(actor: Actor, session_id: UUID, after: str | None) -> bool:
    """Whether the stream of events has something to tell at once: an event, or that its cursor is none. Then that comes
    first, and nobody is told who is there who is refused a moment later. Raises NotFound."""
    query = Query()
    last = await db.fetchval(
        f"SELECT last_event_seq FROM sessions WHERE id = {query.arg(session_id)} "
        f"AND {query.scope(Session.visible_to(actor), by_row=True)}",
        *query.args,
    )
    if last is None:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    try:
        return after is None or bool(decode_cursor(after, 2)[0] != last)
    except BadInput:
        return True


class _Ahead:
    """Events that were read and not yet told, and a bell for these and for presence."""

    def __init__(self) -> None:
        self.waiting: deque[SessionEvent] = deque()
        self._bell = asyncio.Event()
        self._room = asyncio.Event()

    async def read(self, actor: Actor, session_id: UUID, after: str | None) -> None:
        """Read the session's events for as long as there are any."""
        try:
            async with aclosing(cast(Any, session_events(actor, session_id, after))) as events:
                async for event in events:
                    self.waiting.append(event)
                    self._bell.set()
                    while len(self.waiting) >= MOST_WAITING:
                        self._room.clear()
                        await self._room.wait()
        finally:
            self._bell.set()

    def take(self) -> SessionEvent:
        self._room.set()
        return self.waiting.popleft()

    def wake(self) -> None:
        """There is something to tell."""
        self._bell.set()

    def clear(self) -> None:
        """What is there is looked at from here on."""
        self._bell.clear()

    async def news(self) -> None:
        """Returns when there is something to tell, or when there are no more events."""
        await self._bell.wait()
