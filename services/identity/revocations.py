"""Telling living sockets and streams that whom they serve is signed out, revoked, deactivated, expired or demoted.

What is watched is asked of the database twice a second, in one query for the whole process, and at once when a
notice comes over the bus. The notices make it quick; the asking makes it certain, also while the bus is away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

from core.bus import Bus, BusMessage, Gap
from core.errors import QuarterdeckError, SlowConsumer
from core.permissions import Actor, Role
from services.identity import actors
from services.parts import parts

log = logging.getLogger(__name__)

CHANNEL = "credentials"

_ASK_EVERY_SECONDS = 0.5
_WRITE_USES_EVERY_SECONDS = 15.0


class Revocations:
    """The credentials in use by this process's sockets and streams."""

    def __init__(self) -> None:
        self._watched: dict[tuple[UUID, Role], dict[object, Callable[[], object]]] = {}
        self._ask_now = asyncio.Event()

    @asynccontextmanager
    async def running(self, bus: Bus) -> AsyncIterator[None]:
        """Keep watch while the context is open. The bus and the database must be connected."""
        self._ask_now = asyncio.Event()
        actors.forget()
        tasks = [asyncio.create_task(self._ask()), asyncio.create_task(self._listen(bus))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(Exception):
                await actors.write_uses()

    @contextmanager
    def watch(self, actor: Actor, revoked: Callable[[], object]) -> Iterator[None]:
        """Call `revoked` within a second after the actor's credential, user or role is no longer what it was.

        It never is for an actor without a credential. Begin to watch before `still_valid` is asked.
        """
        if actor.credential_id is None:
            yield
            return
        key = (actor.credential_id, actor.role)
        watcher = object()
        self._watched.setdefault(key, {})[watcher] = revoked
        try:
            yield
        finally:
            if (watching := self._watched.get(key)) is not None:
                watching.pop(watcher, None)
                if not watching:
                    del self._watched[key]

    async def _ask(self) -> None:
        wrote = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ask_now.wait(), _ASK_EVERY_SECONDS)
            self._ask_now.clear()
            try:
                await self._end_what_is_not_valid()
                if time.monotonic() - wrote >= _WRITE_USES_EVERY_SECONDS:
                    wrote = time.monotonic()
                    await actors.write_uses()
            except Exception:
                # Nothing can be revoked either while the database is away.
                log.warning("credentials in use could not be checked", exc_info=True)
                await asyncio.sleep(_ASK_EVERY_SECONDS)

    async def _end_what_is_not_valid(self) -> None:
        asked = list(self._watched)
        if not asked:
            return
        valid = await actors.valid_credentials({credential_id for credential_id, _ in asked})
        for key in asked:
            if key not in valid:
                for revoked in self._watched.pop(key, {}).values():
                    try:
                        revoked()
                    except Exception:
                        log.exception("One that uses a revoked credential could not be told.")

    async def _listen(self, bus: Bus) -> None:
        while True:
            try:
                async with bus.subscribe(CHANNEL) as notices:
                    async for notice in notices:
                        self._take(notice)
                    return  # the bus is closed: the process is stopping
            except SlowConsumer as slow:
                self._take(Gap(slow.message))
            except QuarterdeckError as error:
                log.warning("notices of revoked credentials are not read: %s", error)
                return

    def _take(self, notice: BusMessage | Gap) -> None:
        if isinstance(notice, Gap):
            actors.forget()
        else:
            _forget(notice.data)
        self._ask_now.set()


revocations = Revocations()
"""Those of this process. The web program keeps them running; sockets and streams watch."""


async def tell_revoked(credential_id: UUID) -> None:
    """A credential was revoked: after the commit."""
    await _tell({"revoked": str(credential_id)})


async def tell_changed(user_id: UUID) -> None:
    """A user was deactivated, or their role or credentials changed: after the commit."""
    await _tell({"user": str(user_id)})


async def _tell(message: dict[str, str]) -> None:
    _forget(message)
    try:
        await parts().bus.publish(CHANNEL, message)
    except QuarterdeckError as error:
        # It has happened all the same; the others find out by asking.
        log.warning("other processes were not told of a revoked credential: %s", error)


def _forget(message: dict[str, str]) -> None:
    if "revoked" in message:
        actors.forget(credential_id=UUID(message["revoked"]))
    if "user" in message:
        actors.forget(user_id=UUID(message["user"]))
