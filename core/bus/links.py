"""One connection to a message service each. A link is good until its first error; then it is replaced, not mended."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from broadcaster import Event
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from core.errors import BadInput

log = logging.getLogger(__name__)

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
        pool = _redis_connections(url)
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


class RedisLink(Link):
    """Redis pub/sub on two bare connections, one that listens and one that publishes.

    Not broadcaster's own Redis backend and not redis-py's `PubSub`: the first delivers nothing with redis-py 8
    (it waits for messages before the first SUBSCRIBE is sent) and its listener stays dead after an outage; the
    second reconnects by itself, and so hides exactly the moment at which messages were missed.
    """

    def __init__(self, connections: ConnectionPool) -> None:
        super().__init__()
        self._listener: AbstractConnection = connections.make_connection()  # type: ignore[no-untyped-call]
        self._publisher: AbstractConnection = connections.make_connection()  # type: ignore[no-untyped-call]
        self._registrations: dict[str, asyncio.Future[None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._listener.connect()  # type: ignore[no-untyped-call]
        await self._publisher.connect()  # type: ignore[no-untyped-call]
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        for registered in self._registrations.values():
            if not registered.done():
                registered.set_exception(ConnectionError("the connection to Redis is closed"))
        for connection in (self._listener, self._publisher):
            await connection.disconnect(nowait=True)

    async def listen(self, channels: Collection[str]) -> None:
        loop = asyncio.get_running_loop()
        waiting = {channel: loop.create_future() for channel in channels}
        self._registrations.update(waiting)
        await self._send("SUBSCRIBE", *channels)
        async with asyncio.timeout(ANSWER_SECONDS):
            await asyncio.gather(*waiting.values())

    async def unlisten(self, channel: str) -> None:
        await self._send("UNSUBSCRIBE", channel)

    async def publish(self, events: Sequence[Event]) -> None:
        if not self._publisher.is_connected:
            raise ConnectionError("the publishing connection to Redis is lost")
        commands = [("PUBLISH", event.channel, event.message) for event in events]
        await self._publisher.send_packed_command(self._publisher.pack_commands(commands))
        for _ in events:
            await self._publisher.read_response()

    async def _send(self, *command: str) -> None:
        # A lost connection would silently be opened anew by the send, without its subscriptions.
        if not self._listener.is_connected:
            raise ConnectionError("the listening connection to Redis is lost")
        await self._listener.send_command(*command, check_health=False)

    async def _read(self) -> None:
        try:
            unanswered = 0
            while True:
                reply = await self._listener.read_response(timeout=QUIET_SECONDS, disconnect_on_error=False)
                if reply is not None:
                    unanswered = 0
                    self._take(reply)
                elif unanswered == 2:
                    raise ConnectionError("Redis does not answer")
                else:
                    unanswered += 1
                    await self._send("PING")
        except Exception as error:  # whatever ended it, the supervisor replaces the link
            self.fail(error)

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) != 3:
            return  # the answer to a PING
        kind, name, payload = reply
        if kind == b"message":
            try:
                self._incoming.put_nowait(Event(name.decode(), payload.decode()))
            except UnicodeDecodeError:
                log.warning(
                    "skipped a message on the bus that is not UTF-8, on channel %r",
                    name,
                )
        elif kind == b"subscribe":
            registered = self._registrations.pop(name.decode(), None)
            if registered is not None and not registered.done():
                registered.set_result(None)


def _redis_connections(url: str) -> ConnectionPool:
    try:
        return ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=ANSWER_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
        )
    except ValueError:  # its text may hold parts of the password
        raise BadInput("the address of the bus is no Redis URL: redis://user:password@host:6379/0") from None


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
