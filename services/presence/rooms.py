"""The rooms of this process: who comes, who says what they do, and who is there."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

from core import db
from core.bus import Bus
from core.errors import BadInput, Forbidden, LimitExceeded, NotFound, RateLimited, TooLarge
from core.permissions import Actor, Role
from models.base import Query
from models.sessions import Session
from services.identity.actors import still_valid
from services.parts import parts
from services.presence.participants import LARGEST_MESSAGE, Draft, Participant, PresenceState, TextCursor
from services.presence.room import Room
from services.presence.watch import Watch

LONGEST_DRAFT = 2_000
MOST_CLIENTS = 50
"""Of one user in one session, at one process."""
UPDATES_PER_SECOND = 20.0
UPDATES_AT_ONCE = 40.0
"""Of one user, all clients together."""
CHECKED_SECONDS = 1.0
PINNED_SECONDS = 15.0
MOST_PINNED = 500
MOST_REMEMBERED = 10_000

_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Presence:
    """Who is in which session, as far as this process takes part in it."""

    def __init__(self, bus: Callable[[], Bus] = lambda: parts().bus) -> None:
        self._bus = bus
        self._process = secrets.token_hex(6)
        self._rooms: dict[UUID, Room] = {}
        self._pinned: OrderedDict[UUID, None] = OrderedDict()
        self._checked: dict[tuple[UUID, UUID | None, Role, UUID], float] = {}
        self._messages: set[tuple[UUID, UUID]] = set()
        self._buckets: dict[UUID, tuple[float, float]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take leave of the others when the context is left."""
        try:
            yield
        finally:
            await asyncio.gather(*(room.close() for room in list(self._rooms.values())))
            self._rooms.clear()

    @asynccontextmanager
    async def watching(
        self, actor: Actor, session_id: UUID, client_id: str, wake: Callable[[], None]
    ) -> AsyncIterator[Watch]:
        """Be in a session, and be told of the others, while the context is open. The caller has checked that the
        actor may see the session, and ends this when they may no more.

        Raises BadInput for the client's id, LimitExceeded for too many clients of one user.
        """
        _check_client(client_id)
        room = self._room(session_id)
        self._check_number(room, actor, client_id)
        watch = room.watch(wake)
        if actor.user_id is not None:
            watch.leave = once(partial(room.leave, room.arrive(actor, client_id)))
        try:
            yield watch
        finally:
            room.unwatch(watch)
            watch.leave()

    async def update(
        self,
        actor: Actor,
        session_id: UUID,
        client_id: str,
        state: PresenceState,
        *,
        message_id: UUID | None = None,
        draft: str | None = None,
        cursor: TextCursor | None = None,
    ) -> Participant:
        """Say what somebody does in a session. Without a stream they leave 30 seconds after their last word.

        Raises BadInput, TooLarge, NotFound for the session and for messages that are not in it, RateLimited.
        """
        _check_client(client_id)
        if actor.user_id is None:
            raise Forbidden("Only users and service accounts can be in a session.")
        relayed = _draft(actor.user_id, client_id, draft, cursor)
        self._spend(actor.user_id)
        await self.check_access(actor, session_id)
        for given, field in ((message_id, "messageId"), (cursor.message_id if cursor else None, "cursor.messageId")):
            if given is not None:
                await self._check_message(session_id, given, field)
        room = self._room(session_id)
        self._check_number(room, actor, client_id)
        return room.say(actor, client_id, state, message_id, relayed)

    async def participants(self, session_id: UUID) -> list[Participant]:
        """Who is there, as this process knows it. One that was not following the session asks the others first, which
        takes a third of a second. The caller has checked that the session may be seen."""
        room = self._rooms.get(session_id)
        if room is None:
            if self._bus().is_alone:
                return []
            room = self._room(session_id)
        room.pinned_until = time.monotonic() + PINNED_SECONDS
        self._pinned.pop(session_id, None)
        self._pinned[session_id] = None
        if len(self._pinned) > MOST_PINNED:
            oldest = self._rooms.get(self._pinned.popitem(last=False)[0])
            if oldest is not None:
                oldest.pinned_until = 0.0
        await room.settled.wait()
        return sorted(room.merged().values(), key=lambda one: one.since)

    async def check_access(self, actor: Actor, session_id: UUID) -> None:
        """Raises NotFound where the actor may not see the session. A yes is good for a second."""
        key = (session_id, actor.user_id, actor.role, actor.organization_id)
        now = time.monotonic()
        if now - self._checked.get(key, -CHECKED_SECONDS) < CHECKED_SECONDS:
            return
        if not await _may_see(actor, session_id):
            raise NotFound("There is no such session, or you may not see it.", field="sessionId")
        if len(self._checked) >= MOST_REMEMBERED:
            self._checked.clear()
        self._checked[key] = now

    async def _check_message(self, session_id: UUID, message_id: UUID, field: str) -> None:
        key = (session_id, message_id)
        if key in self._messages:
            return
        if not await db.fetchval("SELECT 1 FROM messages WHERE id = $2 AND session_id = $1", *key):
            raise NotFound("There is no such message in this session.", field=field)
        if len(self._messages) >= MOST_REMEMBERED:
            self._messages.clear()
        self._messages.add(key)

    def _check_number(self, room: Room, actor: Actor, client_id: str) -> None:
        user_id = actor.user_id
        if user_id is None or room.has((user_id, client_id)) or room.clients_of(user_id) < MOST_CLIENTS:
            return
        raise LimitExceeded(
            f"You are in this session with {MOST_CLIENTS} clients already. Close some, or use one `clientId` again.",
            field="clientId",
        )

    def _spend(self, user_id: UUID) -> None:
        """A bucket of updates that fills again; raises RateLimited where it is empty."""
        now = time.monotonic()
        left, at = self._buckets.get(user_id, (UPDATES_AT_ONCE, now))
        left = min(UPDATES_AT_ONCE, left + (now - at) * UPDATES_PER_SECOND)
        if left < 1:
            raise RateLimited(
                f"More than {UPDATES_PER_SECOND:.0f} updates a second. Send the latest one in a second.",
                retryAfterSeconds=1,
            )
        if len(self._buckets) >= MOST_REMEMBERED:
            self._buckets.clear()
        self._buckets[user_id] = (left - 1, now)

    def _room(self, session_id: UUID) -> Room:
        room = self._rooms.get(session_id)
        if room is None:
            room = self._rooms[session_id] = Room(session_id, self._bus(), self._process, _may_stay, self._closed)
        return room

    def _closed(self, room: Room) -> None:
        if self._rooms.get(room.session_id) is room:
            del self._rooms[room.session_id]
            self._pinned.pop(room.session_id, None)


presence = Presence()
"""Those of this process. The web program keeps it running."""


async def _may_see(actor: Actor, session_id: UUID) -> bool:
    query = Query()
    found = await db.fetchval(
        f"SELECT 1 FROM sessions WHERE id = {query.arg(session_id)} "
        f"AND {query.scope(Session.visible_to(actor), by_row=True)}",
        *query.args,
    )
    return bool(found)


async def _may_stay(actor: Actor, session_id: UUID) -> bool:
    """Whether somebody who came without a stream may still be in a session."""
    return await _may_see(actor, session_id) and await still_valid(actor)


def _check_client(client_id: str) -> None:
    if not _CLIENT_ID.fullmatch(client_id):
        raise BadInput("A client's id has 1 to 64 letters, digits and . _ : - characters.", field="clientId")


def _draft(user_id: UUID, client_id: str, text: str | None, cursor: TextCursor | None) -> Draft | None:
    if cursor is not None and not 0 <= cursor.start <= cursor.end:
        raise BadInput("A cursor's end is not before its start, and its start not below 0.", field="cursor")
    if text is None and cursor is None:
        return None
    found = Draft(user_id, client_id, text, cursor)
    if len(text or "") > LONGEST_DRAFT or found.size > LARGEST_MESSAGE:
        raise TooLarge(
            f"A draft has at most {LONGEST_DRAFT:,} characters, and {LARGEST_MESSAGE:,} bytes as JSON: send its end.",
            field="draft",
        )
    return found


def once(call: Callable[[], object]) -> Callable[[], None]:
    """The same, done at the first time only."""
    left = [call]

    def do() -> None:
        if left:
            left.pop()()

    return do
