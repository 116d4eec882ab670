"""A closed-loop HTTP load generator: prebuilt requests, keep-alive connections, no HTTP library in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import orjson

STUCK_SECONDS = 30.0
CLIENT_LIMIT = 0.9
"""A client that used this share of a core may have been what was measured."""


class WrongAnswer(Exception):
    """A server answered a benchmark's request with something else than data."""


@dataclass
class Measured:
    """What one burst saw. Latencies in seconds."""

    requests: int
    seconds: float
    client_cpu_seconds: float
    latencies: list[float] = field(repr=False)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def client_bound(self) -> bool:
        return self.client_cpu_seconds / self.seconds >= CLIENT_LIMIT


def request(path: str, body: object, token: str, port: int) -> bytes:
    """The bytes of a POST with a JSON body."""
    data = orjson.dumps(body)
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\naccept: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    ).encode() + data


class _Http(asyncio.Protocol):
    """Reads answers of one keep-alive connection; subclasses say what then."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._body_at = self._wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the class

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            _, _, length = head.partition(b"content-length:")
            self._body_at = end + 4
            self._wanted = self._body_at + int(length.split(b"\r\n", 1)[0])
        if len(self._received) < self._wanted:
            return
        body = bytes(self._received[self._body_at : self._wanted])
        if not self._received.startswith(b"HTTP/1.1 200") or not body.startswith(b'{"data":{'):
            self._fail(WrongAnswer(bytes(self._received[:600]).decode(errors="replace")))
        elif b'"errors":[' in body[-2000:]:
            self._fail(WrongAnswer(body[-600:].decode(errors="replace")))
        else:
            del self._received[: self._wanted]
            self._wanted = 0
            self._answered(body)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or WrongAnswer("The server closed the connection."))

    def _answered(self, body: bytes) -> None:
        raise NotImplementedError

    def _fail(self, error: Exception) -> None:
        raise NotImplementedError


class _Asking(_Http):
    """Sends the next request as soon as it has read the answer to the last."""

    def __init__(self, following: Callable[[], bytes | None], latencies: list[float]) -> None:
        super().__init__()
        self._following, self._latencies = following, latencies
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._send()

    def _answered(self, body: bytes) -> None:
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._send()

    def _send(self) -> None:
        assert self.transport is not None
        data = self._following()
        if data is None:
            if not self.done.done():
                self.done.set_result(None)
            self.transport.close()
            return
        self._sent_at = time.perf_counter()
        self.transport.write(data)

    def _fail(self, error: Exception) -> None:
        assert self.transport is not None
        if not self.done.done():
            self.done.set_exception(error)
        self.transport.close()


class _Kept(_Http):
    """A connection that is asked now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: asyncio.Future[bytes] | None = None

    async def ask(self, data: bytes) -> bytes:
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._answer

    def _answered(self, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(body)

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def burst(
    port: int, next_request: Callable[[], bytes], *, connections: int, seconds: float, most: int | None = None
) -> Measured:
    """Ask for so many seconds, or `most` requests, over so many connections. Raises WrongAnswer."""
    latencies: list[float] = []
    left = [most if most is not None else 1 << 60]
    deadline = time.perf_counter() + seconds

    def following() -> bytes | None:
        if left[0] <= 0 or time.perf_counter() >= deadline:
            return None
        left[0] -= 1
        return next_request()

    loop = asyncio.get_running_loop()
    cpu, began = time.process_time(), time.perf_counter()
    opened = await asyncio.gather(
        *(loop.create_connection(lambda: _Asking(following, latencies), "127.0.0.1", port) for _ in range(connections))
    )
    async with asyncio.timeout(seconds + STUCK_SECONDS):
        await asyncio.gather(*(protocol.done for _, protocol in opened))
    return Measured(len(latencies), time.perf_counter() - began, time.process_time() - cpu, latencies)


@asynccontextmanager
async def asking(port: int, connections: int) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """A function that asks over the first of so many kept connections that is free, and gives the body of the answer.

    It raises WrongAnswer, and TimeoutError where no answer comes.
    """
    loop = asyncio.get_running_loop()
    opened = [
        protocol for _, protocol in [await loop.create_connection(_Kept, "127.0.0.1", port) for _ in range(connections)]
    ]
    free: asyncio.LifoQueue[_Kept] = asyncio.LifoQueue()
    for connection in opened:
        free.put_nowait(connection)

    async def ask(data: bytes) -> bytes:
        connection = await free.get()
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                return await connection.ask(data)
        finally:
            free.put_nowait(connection)

    try:
        yield ask
    finally:
        for connection in opened:
            if connection.transport is not None:
                connection.transport.close()


async def ask_once(port: int, data: bytes) -> bytes:
    """The body of one answer. Raises WrongAnswer."""
    async with asking(port, 1) as ask:
        return await ask(data)
