"""Subscribers of graphql-transport-ws over WebSockets (RFC 6455), with as little in them as the measurement needs.

What they cost is what a server of many thousand events a second would have to wait for: a chunk of data is looked
through once, nothing of it is copied, and who waits for events is told instead of looking again and again.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from array import array
from typing import cast

import orjson

_SEQ = re.compile(rb'"seq":(\d+)')
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class StreamFailed(Exception):
    """A subscriber was refused, or did not get what was sent."""


class Arrivals:
    """What all subscribers of a measurement share: how long each event took, and who waits for how many."""

    def __init__(self) -> None:
        self.latencies = array("d")
        self.wanted = 1 << 60
        self.problem: str | None = None
        self._reached: asyncio.Future[None] | None = None

    async def reach(self, number: int, seconds: float) -> None:
        """Wait until so many events have arrived. Raises StreamFailed."""
        if self.problem is None and len(self.latencies) < number:
            self.wanted, self._reached = number, asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._reached
            except TimeoutError:
                raise StreamFailed(f"{len(self.latencies):,} events of {number:,} have arrived.") from None
            finally:
                self.wanted, self._reached = 1 << 60, None
        if self.problem is not None:
            raise StreamFailed(self.problem)

    def fail(self, problem: str) -> None:
        """Have the measurement end."""
        self.problem = self.problem or problem
        self.wake()

    def wake(self) -> None:
        if self._reached is not None and not self._reached.done():
            self._reached.set_result(None)


class Subscriber(asyncio.Protocol):
    """One socket with one subscription. `ready` when it is accepted and has asked; `received` counts its events.

    `sent_at` says when each event of its session was sent, by the event's number.
    """

    def __init__(
        self, port: int, token: str, subscription: dict[str, object], sent_at: dict[int, float], arrivals: Arrivals
    ) -> None:
        self._port, self._token, self._subscription = port, token, subscription
        self._sent_at, self._arrivals = sent_at, arrivals
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._open = self._left = False

    def leave(self) -> None:
        """Close the socket, without a word."""
        self._left = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = socket = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the class
        key = base64.b64encode(os.urandom(16)).decode()
        socket.write(
            f"GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-protocol: graphql-transport-ws\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._rest:
            data = self._rest + data
        if not self._open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
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
            if length >= 126:
                wide = 2 if length == 126 else 8
                if size < begin + wide:
                    break
                length, begin = int.from_bytes(data[begin : begin + wide]), begin + wide
            end = begin + length
            if size < end:
                break
            if data[at] & 15 == _TEXT and (found := _SEQ.search(data, begin, end)):
                sent_at = self._sent_at.get(int(found[1]))
                if sent_at is None:
                    self._fail(f"got an event that nobody sent: {data[begin:end][:300].decode(errors='replace')}")
                    return
                self._arrivals.latencies.append(now - sent_at)
                self.received += 1
            else:
                self._other(data[at] & 15, data[begin:end])
            at = end
        self._rest = data[at:]
        if len(self._arrivals.latencies) >= self._arrivals.wanted:
            self._arrivals.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail("the server closed a socket")

    def _other(self, kind: int, payload: bytes) -> None:
        if kind == _PING:
            self._write(_PONG, payload)
        elif kind == _CLOSE:
            self._fail(f"closed by the server: {payload[2:].decode(errors='replace')}")
        elif kind == _TEXT and b'"connection_ack"' in payload:
            self._send({"id": "1", "type": "subscribe", "payload": self._subscription})
            if not self.ready.done():
                self.ready.set_result(None)
        elif kind == _TEXT and b'"ping"' in payload:
            self._send({"type": "pong"})
        elif kind == _TEXT and b'"ka"' not in payload:
            self._fail(payload[:300].decode(errors="replace"))

    def _send(self, message: dict[str, object]) -> None:
        self._write(_TEXT, orjson.dumps(message))

    def _write(self, kind: int, payload: bytes) -> None:
        """A frame masked with zeros, which RFC 6455 leaves to the client to choose."""
        assert self._transport is not None
        size = len(payload)
        head = bytes([0x80 | kind, 0x80 | size]) if size < 126 else bytes([0x80 | kind, 0xFE]) + size.to_bytes(2)
        self._transport.write(head + bytes(4) + payload)

    def _fail(self, problem: str) -> None:
        if self._left:
            return
        self._arrivals.fail(problem)
        if not self.ready.done():
            self.ready.set_exception(StreamFailed(problem))
            self.ready.exception()  # it is looked at: whoever waits for another one may have given up
