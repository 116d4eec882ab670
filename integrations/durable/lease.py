"""Who of the workers is alive: each holds a session lock in PostgreSQL, and takes over from those that lost theirs.

The server drops the lock when the holder's connection ends (a killed process), or stays silent (a stopped process,
a lost host). Times are in this order, so that a job is never executed twice at once: a holder that lost its lock
gives its jobs up FENCE_SECONDS after it last knew that it had it; others take them DEAD_SECONDS after the lock was
free at the earliest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from core.errors import Unavailable
from integrations.durable.store import CHANNEL, QUEUE, SCHEMA, TRANSIENT, VERSION

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 0.5
FENCE_SECONDS = 2.0
DEAD_SECONDS = 3.0
SILENT_SECONDS = 10
"""After this long without a word from the holder the server ends its session."""
ANSWER_SECONDS = 5.0
START_SECONDS = 10.0

_LOCK_CLASS = 0x51440001

_OTHERS = f"""
SELECT DISTINCT executor_id FROM {SCHEMA}.workflow_status
WHERE queue_name = '{QUEUE}' AND status = 'PENDING' AND application_version = '{VERSION}' AND executor_id <> $1
"""


@dataclass(frozen=True, slots=True)
class LeaseEvents:
    """What the owner of a lease does when something happens to it."""

    woken: Callable[[], None]
    """There may be something to start."""
    held: Callable[[bool], Awaitable[None]]
    """The lock is held (again); the argument says whether `fenced` was called since it was last held."""
    lost: Callable[[], None]
    """The lock may be lost: start nothing new."""
    fenced: Callable[[], Awaitable[None]]
    """It was not regained in time: stop everything that is being executed, for another worker may take it."""
    died: Callable[[str], Awaitable[None]]
    """This other executor is dead: put its jobs back into the queue."""


class Lease:
    """The lock of one executor, and a watch over the others'."""

    def __init__(self, database_url: str, executor: str, events: LeaseEvents) -> None:
        self._database_url = database_url
        self._executor = executor
        self._events = events
        self._keeper: asyncio.Task[None] | None = None
        self._known_at = 0.0
        self._held = asyncio.Event()
        self._absent_since: dict[str, float] = {}

    @property
    def held(self) -> bool:
        """Whether the lock is held, as far as we know."""
        return self._held.is_set()

    async def start(self) -> None:
        """Returns when the lock is held. Raises Unavailable when that can't be had for some seconds."""
        self._keeper = asyncio.create_task(self._keep(), name="lease")
        waiting = asyncio.create_task(self._held.wait())
        await asyncio.wait({self._keeper, waiting}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self.held:
            await self.stop()
            raise Unavailable("the worker can't register in the database: it can't be reached, or refuses locks")

    async def stop(self) -> None:
        """Let others have what this executor still holds."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    async def _keep(self) -> None:
        fenced = True  # nothing of ours is being executed yet
        while True:
            connection = await self._connect(None if fenced else self._known_at + FENCE_SECONDS)
            if connection is None:
                log.error("the worker lost its lock in the database; it stops what it executes")
                await self._events.fenced()
                fenced = True
                continue
            try:
                self._known_at = time.monotonic()
                await self._events.held(fenced)
                fenced = False
                self._held.set()
                await self._watch(connection)
            except TRANSIENT as error:
                log.warning("the worker's lock in the database is in doubt: %s", error)
            finally:
                self._held.clear()
                self._events.lost()
                connection.terminate()

    async def _connect(self, deadline: float | None) -> asyncpg.Connection | None:
        """A new connection that holds the lock, or None when there was none before the deadline."""
        while True:
            left = ANSWER_SECONDS if deadline is None else min(ANSWER_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    return await self._locked_connection()
            except TRANSIENT as error:
                log.debug("no lock yet: %s", error)
            await asyncio.sleep(0.1)

    async def _locked_connection(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            self._database_url,
            command_timeout=ANSWER_SECONDS,
            server_settings={
                "application_name": "quarterdeck worker",
                "idle_session_timeout": f"{SILENT_SECONDS}s",
            },
        )
        try:
            await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", _LOCK_CLASS, self._executor)
            await connection.add_listener(CHANNEL, lambda *_: self._events.woken())
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _watch(self, connection: asyncpg.Connection) -> None:
        """Raises what the driver does, or ConnectionError, when the connection is lost."""
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        self._absent_since.clear()
        while not ended.is_set() and not connection.is_closed():
            asked_at = time.monotonic()
            others = {row["executor_id"] for row in await connection.fetch(_OTHERS, self._executor)}
            self._known_at = asked_at
            for gone in self._absent_since.keys() - others:
                del self._absent_since[gone]
            for executor in others:
                await self._look_after(connection, executor)
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await ended.wait()
            except TimeoutError:
                continue
        raise ConnectionError("the server ended the session")

    async def _look_after(self, connection: asyncpg.Connection, executor: str) -> None:
        lock = (_LOCK_CLASS, executor)
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", *lock):
            self._absent_since.pop(executor, None)
            return
        # While we hold its lock nobody else takes it over, and should it come back, it waits for us.
        try:
            if time.monotonic() - self._absent_since.setdefault(executor, time.monotonic()) >= DEAD_SECONDS:
                log.warning("worker %s is dead; its jobs go back into the queue", executor)
                await self._events.died(executor)
                del self._absent_since[executor]
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1, hashtext($2))", *lock)
