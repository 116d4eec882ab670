"""Redis as what carries the bus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Any

from broadcaster import Event
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from core.bus.links import ANSWER_SECONDS, QUIET_SECONDS, Link
from core.errors import BadInput

log = logging.getLogger(__name__)


def connections(url: str) -> ConnectionPool:
    """How to connect to a Redis URL; raises BadInput for what is none."""
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
