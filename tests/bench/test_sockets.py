"""The bench's own WebSocket client reads frames however they come, and does not overlook what is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from bench.sockets import Arrivals, StreamFailed, Subscriber

pytestmark = pytest.mark.anyio


def text(message: object) -> bytes:
    """A text frame as a server sends it, of any length."""
    data = orjson.dumps(message)
    if len(data) < 126:
        return bytes([0x81, len(data)]) + data
    if len(data) < 1 << 16:
        return b"\x81\x7e" + len(data).to_bytes(2) + data
    return b"\x81\x7f" + len(data).to_bytes(8) + data


def event(seq: int, size: int = 1) -> bytes:
    data = {"sessionEvents": {"seq": seq, "type": "CUSTOM", "data": {"text": "x" * size}}}
    return text({"id": "1", "type": "next", "payload": {"data": data}})


@asynccontextmanager
async def subscribed(pieces: list[bytes]) -> AsyncIterator[tuple[Subscriber, Arrivals]]:
    """A subscriber to whom a real socket brings these pieces, one after the other, once it has subscribed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + text({"type": "connection_ack"}))
        received = b""
        while b'"subscribe"' not in received:
            received += await reader.read(10_000)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        await reader.read()
        writer.close()

    arrivals, sent_at = Arrivals(), dict.fromkeys(range(1, 10), time.perf_counter())
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        subscriber = Subscriber(port, "token", {"query": "…"}, sent_at, arrivals)
        await asyncio.get_running_loop().create_connection(lambda: subscriber, "127.0.0.1", port)
        await subscriber.ready
        yield subscriber, arrivals
        subscriber.leave()


@pytest.mark.parametrize("size", [1, 200, 70_000])
async def test_frames_may_come_in_any_pieces(size: int) -> None:
    one, two, three = event(1, size), event(2, size), event(3, size)
    ends = [*range(1, 12), len(one) - 1]
    torn = [one[begin:end] for begin, end in zip([0, *ends], [*ends, None], strict=True)]
    async with subscribed([*torn, two + b"\x89\x02hi" + three[:5], three[5:]]) as (subscriber, arrivals):
        await arrivals.reach(3, 10)
        assert subscriber.received == 3
        assert all(latency > 0 for latency in arrivals.latencies)


async def test_an_event_that_nobody_sent_ends_the_measurement() -> None:
    async with subscribed([event(1), event(77)]) as (_, arrivals):
        with pytest.raises(StreamFailed, match="nobody sent"):
            await arrivals.reach(2, 10)


async def test_an_error_ends_the_measurement() -> None:
    refused = text({"id": "1", "type": "error", "payload": [{"message": "There is no such session."}]})
    async with subscribed([refused]) as (_, arrivals):
        with pytest.raises(StreamFailed, match="no such session"):
            await arrivals.reach(1, 10)


async def test_who_waits_for_what_does_not_come_is_told_how_much_has() -> None:
    async with subscribed([event(1)]) as (_, arrivals):
        with pytest.raises(StreamFailed, match="1 events of 2"):
            await arrivals.reach(2, 0.2)
