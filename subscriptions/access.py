"""Whether those who follow sessions live may still see them.

Nobody is asked about twice: readers with the same scope are one question, for all of their sessions at once. It is
asked when a notice says that access has changed, when a session's log does, and now and then in case a notice was lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from uuid import UUID

from core import clock, db
from core.bus import BusMessage
from core.errors import QuarterdeckError, SlowConsumer, Unavailable
from core.permissions import Actor
from models.base import Query, Scope
from models.sessions import Session
from services.parts import parts
from services.sharing.views import note_view
from services.work import access_channel

log = logging.getLogger(__name__)

LOOK_ANYWAY_SECONDS = 10.0
EXPIRY_SECONDS = 0.5
"""How often it is looked whose time is over: nobody tells of that but the clock of the database."""
AGAIN_SECONDS = 1.0
AT_ONCE = 4


class Watch:
    """One reader of one session. `lost` is called once, when access has ended; not after `stop`."""

    __slots__ = ("_hour", "_lost", "_of", "actor", "session_id")

    def __init__(self, of: _Organization, actor: Actor, session_id: UUID, lost: Callable[[], None]) -> None:
        self._of, self.actor, self.session_id, self._lost = of, actor, session_id, lost
        self._hour = clock.now().hour

    def go_on(self) -> None:
        """The reader is still there, and may be: a stream that lasts is a view in every hour of it."""
        if (hour := clock.now().hour) != self._hour:
            self._hour = hour
            note_view(self.actor, [self.session_id], "events")

    def stop(self) -> None:
        """The reader has left."""
        self._of.remove(self)

    def end(self) -> None:
        """Access has ended. Nothing happens where the reader has left."""
        if self._of.remove(self):
            try:
                self._lost()
            except Exception:
                log.exception("A reader could not be told that access has ended.")


def watch(actor: Actor, session_id: UUID, lost: Callable[[], None]) -> Watch:
    """Call `lost` when the actor may no longer see the session. Begin before asking whether they may now."""
    organization = _organizations.get(actor.organization_id)
    if organization is None:
        organization = _organizations[actor.organization_id] = _Organization(actor.organization_id)
    return organization.add(actor, session_id, lost)


async def check(session_id: UUID) -> None:
    """Ask now about all who follow a session here; those who may not see it any more are told before this returns."""
    for organization in list(_organizations.values()):
        await organization.check(sessions={session_id})


class _Organization:
    """The readers of one organisation's sessions in this process, as long as there are any."""

    def __init__(self, id_: UUID) -> None:
        self._id = id_
        self._watches: dict[UUID, dict[Watch, None]] = {}
        self._task = asyncio.create_task(self._run())

    def add(self, actor: Actor, session_id: UUID, lost: Callable[[], None]) -> Watch:
        added = Watch(self, actor, session_id, lost)
        self._watches.setdefault(session_id, {})[added] = None
        return added

    def remove(self, watch: Watch) -> bool:
        """Whether it was there."""
        found = self._watches.get(watch.session_id)
        if found is None or found.pop(watch, watch) is watch:
            return False
        if not found:
            del self._watches[watch.session_id]
        if not self._watches:
            _organizations.pop(self._id, None)
            self._task.cancel()
        return True

    async def check(self, *, sessions: Collection[UUID] | None = None, users: Collection[UUID] | None = None) -> None:
        asked: dict[Scope, list[Watch]] = {}
        for session_id in list(self._watches) if sessions is None else sessions:
            for reader in self._watches.get(session_id, ()):
                if users is None or reader.actor.user_id in users:
                    asked.setdefault(Session.visible_to(reader.actor), []).append(reader)
        questions = list(asked.items())
        # Everybody but admins is a scope of their own. Some at a time: events wait for the answers.
        for start in range(0, len(questions), AT_ONCE):
            await asyncio.gather(*(self._ask(*question) for question in questions[start : start + AT_ONCE]))

    async def _ask(self, scope: Scope, readers: Sequence[Watch]) -> None:
        seen = await _seen(scope, {reader.session_id for reader in readers})
        for reader in readers:
            if reader.session_id in seen:
                reader.go_on()
            else:
                reader.end()

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except SlowConsumer:
                continue  # what was not read is made good by looking at all
            except Unavailable:
                return  # the process is stopping, and its streams with it
            except (QuarterdeckError, OSError, TimeoutError):
                log.warning("It could not be asked who still has access; it is tried again.", exc_info=True)
            except Exception:
                # Nobody's access can end either while the database is away.
                log.warning("It could not be asked who still has access; it is tried again.", exc_info=True)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen(self) -> None:
        async with parts().bus.subscribe(access_channel(self._id)) as notices:
            looked = -math.inf
            while True:
                if time.monotonic() - looked >= LOOK_ANYWAY_SECONDS:
                    looked, expired_until = time.monotonic(), await db.fetchval("SELECT now()")
                    await self.check()
                notice = await notices.next(EXPIRY_SECONDS)
                if isinstance(notice, BusMessage):
                    await self.check(sessions=_ids(notice, "sessions"), users=_ids(notice, "users"))
                elif notice is None:
                    expired, expired_until = await _expired(list(self._watches), expired_until)
                    await self.check(sessions=expired)
                else:
                    looked = -math.inf


_organizations: dict[UUID, _Organization] = {}


def _ids(notice: BusMessage, name: str) -> set[UUID] | None:
    named = notice.data.get(name)
    return None if named is None else {UUID(id_) for id_ in named}


async def _expired(session_ids: Sequence[UUID], since: datetime) -> tuple[set[UUID], datetime]:
    """The sessions to which somebody's access has expired since a time, and the time now."""
    rows = await db.fetch(
        "SELECT now() AS at, ARRAY(SELECT DISTINCT resource_id FROM grants WHERE resource_kind = 'SESSION' "
        "AND resource_id = ANY($1) AND expires_at > $2 AND expires_at <= now()) AS sessions",
        session_ids,
        since,
    )
    return set(rows[0]["sessions"]), rows[0]["at"]


async def _seen(scope: Scope, session_ids: Collection[UUID]) -> set[UUID]:
    query = Query()
    rows = await db.fetch(
        f"SELECT sessions.id FROM sessions WHERE sessions.id = ANY({query.arg(list(session_ids))}) "
        f"AND {query.scope(scope, by_row=True)}",
        *query.args,
    )
    return {row["id"] for row in rows}
