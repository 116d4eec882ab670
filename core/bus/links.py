"""One connection to a message service each. A link is good until its first error; then it is replaced, not mended."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

import asyncpg
from broadcaster import Event

from core.errors import BadInput

ANSWER_SECONDS = 5.0
"""How long the service may take to answer anything before the connection counts as lost."""

QUIET_SECONDS = 2.0
"""A connection that was silent for this long is asked whether it lives: nobody else notices a half-open one."""


class Link(ABC):
    """Carries events of the channels it listens to. Errors come out of `receive`, after what arrived before them."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[Event | Exception] = asyncio.Queue()

    @abstractmethod
    async def open(self) -> None:
        """Connect; raises what the driver raises."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back; never raises for a connection that is already lost."""

    @abstractmethod
    async def listen(self, channels: Collection[str]) -> None:
        """Returns when the service has registered all of them."""

    @abstractmethod
    async def unlisten(self, channel: str) -> None:
        """Stop receiving one channel."""

    @abstractmethod
    async def publish(self, events: Sequence[Event]) -> None:
        """Returns when the service has taken all of them, in this order. One call at a time."""

    async def receive(self) -> Event:
        """The next event; raises the error that ended the link."""
        item = await self._incoming.get()
        if isinstance(item, Exception):
            raise item
        return item

    def fail(self, error: Exception) -> None:
        """End this link: `receive` raises `error`."""
        self._incoming.put_nowait(error)


def link_factory(url: str) -> Callable[[], Link]:
    """How to make links to this address. Raises BadInput for an address no link is for."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryLink
    if scheme in ("redis", "rediss"):
        # Half a second of imports, which most commands and small installations do without.
        from core.bus.redis_link import RedisLink, connections

        pool = connections(url)
        return lambda: RedisLink(pool)
    if scheme in ("postgres", "postgresql"):
        return lambda: PostgresLink(url)
    raise BadInput(
        f"the bus has no transport for {scheme or 'an empty address'}; use memory://, redis:// or postgres://"
    )


class MemoryLink(Link):
    """Within one process."""

    def __init__(self) -> None:
        super().__init__()
        self._listening: set[str] = set()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def listen(self, channels: Collection[str]) -> None:
        self._listening.update(channels)

    async def unlisten(self, channel: str) -> None:
        self._listening.discard(channel)

    async def publish(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.channel in self._listening:
                self._incoming.put_nowait(event)


class PostgresLink(Link):
    """LISTEN and NOTIFY on one PostgreSQL connection of its own; commands on it take turns."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        # A NOTIFY is a transaction with a commit record: without this each one waits for the disk, and there
        # is nothing to keep, since a server that crashes has no listeners left.
        self._connection = await asyncpg.connect(
            self._url,
            timeout=ANSWER_SECONDS,
            command_timeout=ANSWER_SECONDS,
            server_settings={
                "application_name": "quarterdeck bus",
                "synchronous_commit": "off",
            },
        )
        self._connection.add_termination_listener(self._terminated)
        self._watch = asyncio.create_task(self._watch_over())

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._connection is not None:
            self._connection.remove_termination_listener(self._terminated)
            self._connection.terminate()

    async def listen(self, channels: Collection[str]) -> None:
        async with self._turn:
            for channel in channels:
                await self._open_connection().add_listener(channel, self._notified)

    async def unlisten(self, channel: str) -> None:
        async with self._turn:
            await self._open_connection().remove_listener(channel, self._notified)

    async def publish(self, events: Sequence[Event]) -> None:
        async with self._turn:
            await self._open_connection().execute(
                "SELECT pg_notify(channel, message) FROM"
                " (SELECT * FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS e(channel, message, place)"
                " ORDER BY place) ordered",
                [event.channel for event in events],
                [event.message for event in events],
            )

    async def _watch_over(self) -> None:
        try:
            while True:
                await asyncio.sleep(QUIET_SECONDS)
                async with self._turn:
                    await self._open_connection().execute("SELECT 1")
        except Exception as error:  # whatever ended it, the supervisor replaces the link
            self.fail(error)

    def _open_connection(self) -> asyncpg.Connection:
        if self._connection is None:
            raise ConnectionError("the link is not open")
        return self._connection

    def _notified(self, _connection: object, _pid: int, channel: str, payload: str) -> None:
        self._incoming.put_nowait(Event(channel, payload))

    def _terminated(self, _connection: object) -> None:
        self.fail(ConnectionError("PostgreSQL closed the connection"))
