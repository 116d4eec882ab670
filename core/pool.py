"""A pool of asyncpg connections, and Tortoise's client on it.

asyncpg's own pool wraps each connection and resets it after each use; for one small statement that takes longer than
the statement (docs/performance.md). Connections here are handed out as they are, so whoever uses one leaves nothing
behind on it: no SET but SET LOCAL, no session locks, no LISTEN, no temporary tables. A test holds the code to that.
What is not clean when it comes back (a statement that was cancelled, a transaction that is open) is cleaned or closed
before anybody else gets it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import TransactionContextPooled
from tortoise.connection import get_connections

log = logging.getLogger(__name__)

LONGEST_IDLE_SECONDS = 300.0
"""What was not used for so long may have been forgotten by a firewall: it is closed, and a new one opened."""
CLEAN_SECONDS = 5.0


class Pool:
    """At most `largest` connections, of which `smallest` are opened at once. The last one used is used first."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, smallest: int, largest: int) -> None:
        self._connect, self._smallest, self._largest = connect, smallest, largest
        self._idle: deque[tuple[asyncpg.Connection, float]] = deque()
        self._all: set[asyncpg.Connection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._cleaning: set[asyncio.Task[None]] = set()
        self._closed = False
        self._emptied = asyncio.Event()

    @property
    def size(self) -> int:
        """How many connections are open."""
        return len(self._all)

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    @property
    def largest(self) -> int:
        """How many there may be."""
        return self._largest

    async def open(self) -> Pool:
        """Open the first connections; raises what opening one does."""
        opened = [await self.acquire() for _ in range(self._smallest)]
        for connection in opened:
            self.give_back(connection)
        return self

    def take(self) -> asyncpg.Connection | None:
        """A connection that is idle now, to be given back; None where there is none."""
        while self._idle:
            connection, since = self._idle.pop()
            if connection.is_closed():
                self._all.discard(connection)
            elif time.monotonic() - since > LONGEST_IDLE_SECONDS:
                self._all.discard(connection)
                connection.terminate()
            else:
                return connection
        return None

    async def acquire(self) -> asyncpg.Connection:
        """A connection, as soon as there is one. Raises InterfaceError where the pool is closed, and what opening a
        connection does."""
        while True:
            if self._closed:
                raise asyncpg.InterfaceError("the pool is closed")
            if (connection := self.take()) is not None:
                return connection
            if len(self._all) + self._opening < self._largest:
                return await self._opened()
            waiter: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                given = await waiter
            except asyncio.CancelledError:
                # It may have been given one in the same moment.
                if waiter.done() and not waiter.cancelled():
                    given = waiter.result()
                    if given is not None:
                        self.give_back(given)
                    else:
                        self._let_one_try()
                else:
                    with suppress(ValueError):  # it may have been passed over in the same moment
                        self._waiting.remove(waiter)
                raise
            if given is not None:
                return given

    async def release(self, connection: asyncpg.Connection) -> None:
        """The same as `give_back`, as Tortoise calls it."""
        self.give_back(connection)

    def give_back(self, connection: asyncpg.Connection) -> None:
        """Somebody else may have it."""
        if connection.is_closed() or self._closed:
            self._drop(connection)
        elif (
            connection._protocol._is_cancelling() or connection.is_in_transaction() or connection._top_xact is not None
        ):
            task = asyncio.create_task(self._clean(connection))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        else:
            self._hand_on(connection)

    async def expire_connections(self) -> None:
        """Open new connections from here on."""
        while self._idle:
            self._drop(self._idle.pop()[0])

    async def close(self) -> None:
        """Take no more requests, and wait until all connections have come back and are closed."""
        self._closed = True
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
        while self._idle:
            connection, _ = self._idle.pop()
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=CLEAN_SECONDS)
            self._all.discard(connection)
        if self._all:
            await self._emptied.wait()

    def terminate(self) -> None:
        """Close all connections without a word."""
        self._closed = True
        for connection in list(self._all):
            connection.terminate()
        self._all.clear()

    async def _opened(self) -> asyncpg.Connection:
        self._opening += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._opening -= 1
            self._let_one_try()
            raise
        self._opening -= 1
        self._all.add(connection)
        return connection

    def _hand_on(self, connection: asyncpg.Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append((connection, time.monotonic()))

    def _drop(self, connection: asyncpg.Connection) -> None:
        if not connection.is_closed():
            connection.terminate()
        self._all.discard(connection)
        if self._closed and not self._all:
            self._emptied.set()
        self._let_one_try()

    def _let_one_try(self) -> None:
        """There is room for a connection: one that waits may open it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    @staticmethod
    def _is_unclean(connection: asyncpg.Connection) -> bool:
        # The driver takes a transaction that was cancelled as it began for open: the next would begin inside of it.
        return bool(
            connection._protocol._is_cancelling() or connection.is_in_transaction() or connection._top_xact is not None
        )

    async def _clean(self, connection: asyncpg.Connection) -> None:
        """Wait for the end of a statement that was cancelled, and end the transaction that it left."""
        try:
            async with asyncio.timeout(CLEAN_SECONDS):
                if connection._protocol._is_cancelling():
                    await connection._protocol._wait_for_cancellation()
                connection._top_xact = None
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
        except BaseException as error:
            self._drop(connection)
            if not isinstance(error, Exception):
                raise
            log.info("A connection was closed: it could not be cleaned (%s).", type(error).__name__)
        else:
            self.give_back(connection)


class Client(AsyncpgDBClient):
    """Tortoise's client, on this pool."""

    async def create_pool(self, **kwargs: Any) -> Any:
        smallest, largest, init = kwargs.pop("min_size"), kwargs.pop("max_size"), kwargs.pop("init", None)

        async def connect() -> asyncpg.Connection:
            connection = await asyncpg.connect(**kwargs)
            if init is not None:
                try:
                    await init(connection)
                except BaseException:
                    connection.terminate()
                    raise
            return connection

        return await Pool(connect, smallest=smallest, largest=largest).open()

    def _in_transaction(self) -> TransactionContextPooled:
        return _Transaction(TransactionWrapper(self), self._pool_init_lock)


class _Transaction(TransactionContextPooled):
    """Gives its connection back also where the transaction could not begin, or nobody waits for it any more."""

    async def __aenter__(self) -> Any:
        wrapper: Any = self.client
        wrapper._connection = None
        try:
            return await super().__aenter__()
        except BaseException:
            if wrapper._connection is not None:
                wrapper._parent._pool.give_back(wrapper._connection)
                wrapper._connection = None
            if (token := getattr(self, "token", None)) is not None:
                get_connections().reset(token)
            raise


client_class = Client
"""What Tortoise looks for in the module that its configuration names as engine."""
