"""A closed-loop HTTP load generator: prebuilt requests, keep-alive connections, no HTTP library in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
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


class _Connection(asyncio.Protocol):
    """One connection: sends the next request when it has read the answer to the last."""

    def __init__(self, following: Callable[[], bytes | None], latencies: list[float]) -> None:
        self._following, self._latencies = following, latencies
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._wanted = 0
        self._body_at = 0
        self._sent_at = 0.0
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the class
        self._send()

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
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._last = bytes(self._received[self._body_at : self._wanted])
        if not self._received.startswith(b"HTTP/1.1 200") or not self._last.startswith(b'{"data":{'):
            self._fail(WrongAnswer(bytes(self._received[:600]).decode(errors="replace")))
            return
        if b'"errors":[' in self._last[-2000:]:
            self._fail(WrongAnswer(self._last[-600:].decode(errors="replace")))
            return
        del self._received[: self._wanted]
        self._wanted = 0
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or WrongAnswer("The server closed the connection."))

    def _send(self) -> None:
        assert self._transport is not None
        data = self._following()
        if data is None:
            if not self.done.done():
                self.done.set_result(self._last)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(data)

    def _fail(self, error: Exception) -> None:
        assert self._transport is not None
        if not self.done.done():
            self.done.set_exception(error)
        self._transport.close()


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
        *(
            loop.create_connection(lambda: _Connection(following, latencies), "127.0.0.1", port)
            for _ in range(connections)
        )
    )
    async with asyncio.timeout(seconds + STUCK_SECONDS):
        await asyncio.gather(*(protocol.done for _, protocol in opened))
    return Measured(len(latencies), time.perf_counter() - began, time.process_time() - cpu, latencies)


async def ask(port: int, data: bytes) -> bytes:
    """The body of one answer. Raises WrongAnswer."""
    left = [data]

    def following() -> bytes | None:
        return left.pop() if left else None

    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: _Connection(following, []), "127.0.0.1", port)
    async with asyncio.timeout(STUCK_SECONDS):
        return await protocol.done
