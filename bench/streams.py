"""Many subscribers of one session over WebSockets (graphql-transport-ws), and how its events reach them."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import orjson

from bench.cases import EVENTS, SEND, SESSION_PLACE, TEXT
from bench.load import ask, request
from bench.processes import resident_bytes
from core.ids import encode

EVENTS_PER_MESSAGE = 2
CONNECT_AT_ONCE = 50
STUCK_SECONDS = 60.0
MESSAGES_UNDER_WAY = 4
SETTLE_SECONDS = 0.3
_SEQ = re.compile(rb'"seq":(\d+)')


class StreamFailed(Exception):
    """A subscriber was refused, or did not get what was sent."""


@dataclass
class Streamed:
    """What one measurement saw. Latencies in seconds, from sending the message to the arrival of its event."""

    subscribers: int
    delivered: int
    seconds: float
    subscribe_seconds: float
    bytes_per_connection: float
    client_cpu_seconds: float
    server_cpu_seconds: float = 0.0
    database_cpu_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list, repr=False)

    @property
    def per_second(self) -> float:
        return self.delivered / self.seconds


class _Feed:
    """What all subscribers share: when each event was sent, and what has arrived."""

    def __init__(self) -> None:
        self.sent_at: dict[int, float] = {}
        self.latencies: list[float] = []
        self.problem: str | None = None


class _Subscriber(asyncio.Protocol):
    """A WebSocket client (RFC 6455) with as little in it as the measurement needs."""

    def __init__(self, port: int, token: str, variables: dict[str, object], feed: _Feed) -> None:
        self._port, self._token, self._variables, self._feed = port, token, variables, feed
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self._received = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = socket = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the class
        key = base64.b64encode(os.urandom(16)).decode()
        socket.write(
            f"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        data = self._received + data if self._received else data
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._received = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._fail(data[:200].decode(errors="replace"))
                return
            self._open = True
            data = data[end + 4 :]
            self._send({"type": "connection_init", "payload": {"authorization": f"Bearer {self._token}"}})
        at, size = 0, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length == 126:
                length, begin = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, begin = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if size < begin + length:
                break
            self._frame(data[at] & 15, data[begin : begin + length])
            at = begin + length
        self._received = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ready.done():
            self._fail("closed while subscribing")

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == 1:
            found = _SEQ.search(payload)
            if found is not None:
                sent_at = self._feed.sent_at.get(int(found[1]))
                if sent_at is not None:
                    self._feed.latencies.append(time.perf_counter() - sent_at)
            elif b'"connection_ack"' in payload:
                variables = {"query": EVENTS, "variables": self._variables}
                self._send({"id": "1", "type": "subscribe", "payload": variables})
                if not self.ready.done():
                    self.ready.set_result(None)
            elif b'"error"' in payload or b'"errors"' in payload:
                self._fail(payload[:300].decode())
        elif kind == 9:
            self._write(10, payload)
        elif kind == 8:
            self._fail(f"closed by the server: {payload[2:].decode(errors='replace')}")

    def _send(self, message: dict[str, object]) -> None:
        self._write(1, orjson.dumps(message))

    def _write(self, kind: int, payload: bytes) -> None:
        """A frame masked with zeros, which RFC 6455 leaves to the client to choose."""
        assert self.transport is not None
        size = len(payload)
        head = bytes([0x80 | kind, 0x80 | size]) if size < 126 else bytes([0x80 | kind, 0xFE]) + size.to_bytes(2)
        self.transport.write(head + bytes(4) + payload)

    def _fail(self, problem: str) -> None:
        self._feed.problem = problem
        if not self.ready.done():
            self.ready.set_exception(StreamFailed(problem))


class Audience:
    """So many subscribers of one session, and somebody who sends to it."""

    def __init__(self, port: int, pid: int, token: str, session_id: UUID, *, graphql: bool) -> None:
        self._port, self._pid, self._token, self._graphql = port, pid, token, graphql
        self._session = encode("ses", session_id)
        self._feed = _Feed()
        self._subscribers: list[_Subscriber] = []
        self._next_seq = 0
        self.subscribe_seconds = 0.0
        self.bytes_per_connection = 0.0

    async def gather(self, count: int) -> None:
        """Connect and subscribe them all, and wait until each gets its events."""
        self._next_seq, variables = await self._place()
        before = resident_bytes(self._pid)
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        for first in range(0, count, CONNECT_AT_ONCE):
            opened = await asyncio.gather(
                *(
                    loop.create_connection(
                        lambda: _Subscriber(self._port, self._token, variables, self._feed), "127.0.0.1", self._port
                    )
                    for _ in range(min(CONNECT_AT_ONCE, count - first))
                )
            )
            self._subscribers += [subscriber for _, subscriber in opened]
            async with asyncio.timeout(STUCK_SECONDS):
                await asyncio.gather(*(subscriber.ready for _, subscriber in opened))
        await asyncio.sleep(SETTLE_SECONDS)
        # The first event that reaches everybody shows that all are subscribed.
        await self._send_and_wait(1)
        self.subscribe_seconds = time.perf_counter() - began
        self.bytes_per_connection = (resident_bytes(self._pid) - before) / count

    async def saturate(self, seconds: float) -> Streamed:
        """Send as fast as the events arrive, with a few messages under way, for so long."""
        return await self._measure(seconds, pause=None)

    async def pace(self, seconds: float, events_per_second: float) -> Streamed:
        """Send so many events a second, which gives as many deliveries for every subscriber, for so long."""
        return await self._measure(seconds, pause=EVENTS_PER_MESSAGE / events_per_second)

    async def leave(self) -> None:
        """Close all sockets."""
        for subscriber in self._subscribers:
            if subscriber.transport is not None:
                subscriber.transport.abort()
        self._subscribers.clear()
        await asyncio.sleep(0.5)

    async def _measure(self, seconds: float, pause: float | None) -> Streamed:
        self._feed.latencies = []
        cpu, began = time.process_time(), time.perf_counter()
        sent = 0
        while (now := time.perf_counter()) - began < seconds:
            if pause is None:
                await self._until((sent - MESSAGES_UNDER_WAY + 1) * EVENTS_PER_MESSAGE)
            elif (wait := began + sent * pause - now) > 0:
                await asyncio.sleep(wait)
            await self._send()
            sent += 1
        await self._until(sent * EVENTS_PER_MESSAGE)
        return Streamed(
            len(self._subscribers),
            len(self._feed.latencies),
            time.perf_counter() - began,
            self.subscribe_seconds,
            self.bytes_per_connection,
            time.process_time() - cpu,
            latencies=self._feed.latencies,
        )

    async def _send_and_wait(self, messages: int) -> None:
        self._feed.latencies = []
        for _ in range(messages):
            await self._send()
        await self._until(messages * EVENTS_PER_MESSAGE)

    async def _send(self) -> None:
        now = time.perf_counter()
        for _ in range(EVENTS_PER_MESSAGE):
            self._feed.sent_at[self._next_seq] = now
            self._next_seq += 1
        variables = {"input": {"sessionId": self._session, "text": TEXT}}
        body = {"query": SEND, "variables": variables} if self._graphql else variables
        await ask(self._port, request("/graphql" if self._graphql else "/send", body, self._token, self._port))

    async def _until(self, events: int) -> None:
        """Wait until so many events have reached everybody."""
        wanted = events * len(self._subscribers)
        async with asyncio.timeout(STUCK_SECONDS):
            while len(self._feed.latencies) < wanted:
                if self._feed.problem is not None:
                    raise StreamFailed(self._feed.problem)
                await asyncio.sleep(0.001)

    async def _place(self) -> tuple[int, dict[str, object]]:
        """The number of the next event, and the variables that a subscription goes on from there with."""
        if not self._graphql:
            body = request("/place", {"id": self._session}, self._token, self._port)
            return orjson.loads(await ask(self._port, body))["data"]["next"], {"id": self._session}
        body = request(
            "/graphql", {"query": SESSION_PLACE, "variables": {"id": self._session}}, self._token, self._port
        )
        cursor = orjson.loads(await ask(self._port, body))["data"]["session"]["lastEventCursor"]
        seq = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
        return seq + 1, {"id": self._session, "after": cursor}
