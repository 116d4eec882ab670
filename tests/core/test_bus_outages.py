"""What subscribers see when the service behind the bus dies, hangs and comes back.

Nothing is lost means: wherever a subscriber missed a message, it read a Gap in that place.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest

from core.bus import Bus, BusSubscription, Gap, Notice, links, supervised
from core.errors import Unavailable
from tests.private_servers import PrivatePostgres, PrivateRedis, free_port

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 30
LAST = -1


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage right after another is met with patience; here that would be most of the time."""
    monkeypatch.setattr(supervised, "LONGEST_PAUSE_SECONDS", 0.2)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Bus]:
    bus = Bus(url, queue_size=100_000)
    await bus.connect()
    try:
        yield bus
    finally:
        await bus.close()


class Reader:
    """Keeps what one subscription brings until the last message."""

    def __init__(self, subscription: BusSubscription) -> None:
        self.notices: list[Notice] = []
        self.gaps = 0
        self.task = asyncio.create_task(self._run(subscription))

    async def _run(self, subscription: BusSubscription) -> None:
        async for notice in subscription:
            if isinstance(notice, Gap):
                self.gaps += 1
            elif notice.data["n"] == LAST:
                return
            self.notices.append(notice)

    def holes(self, published: int) -> list[int]:
        """Numbers it missed without a Gap in their place. Fails if any came twice or out of order."""
        expected, excused, holes = 0, False, list[int]()
        for notice in self.notices:
            if isinstance(notice, Gap):
                excused = True
                continue
            number = notice.data["n"]
            assert number >= expected, f"{number} came again or late"
            if not excused:
                holes.extend(range(expected, number))
            expected, excused = number + 1, False
        if not excused:
            holes.extend(range(expected, published))
        return holes


async def run_through_outages(
    url: str, outage: Callable[[], Awaitable[None]], times: int
) -> tuple[int, Sequence[Reader]]:
    """Publish all the time from one process to readers in three while `outage` happens again and again."""
    async with AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(connected(url)) for _ in range(3)]
        readers = [Reader(await stack.enter_async_context(bus.subscribe("session:1"))) for bus in [*buses, buses[0]]]
        published = 0
        stopping = False

        async def publish() -> None:
            nonlocal published
            while not stopping:
                await buses[0].publish("session:1", {"n": published})
                published += 1
                await asyncio.sleep(0.001)

        publishing = asyncio.create_task(publish())
        async with asyncio.timeout(PATIENCE_SECONDS + times * 3):
            for number in range(1, times + 1):
                await asyncio.sleep(random.uniform(0.01, 0.1))
                await outage()
                while any(reader.gaps < number for reader in readers):
                    await asyncio.sleep(0.01)
            stopping = True
            await publishing
            await buses[0].publish("session:1", {"n": LAST})
            await asyncio.gather(*(reader.task for reader in readers))
        assert all(bus.status().connected and bus.status().reconnects >= times for bus in buses)
        return published, readers


async def test_redis_killed_and_restarted_twenty_times() -> None:
    with PrivateRedis() as redis:

        async def outage() -> None:
            redis.kill()
            await asyncio.sleep(random.uniform(0, 0.1))
            await asyncio.to_thread(redis.start)

        published, readers = await run_through_outages(redis.url, outage, times=20)
        for reader in readers:
            assert reader.holes(published) == []
            assert len(reader.notices) > 100


async def test_postgresql_crashes_and_restarts() -> None:
    with PrivatePostgres() as postgres:

        async def outage() -> None:
            await asyncio.to_thread(postgres.stop)
            await asyncio.to_thread(postgres.start)

        published, readers = await run_through_outages(postgres.url, outage, times=3)
        for reader in readers:
            assert reader.holes(published) == []


async def test_postgresql_cuts_the_connections() -> None:
    with PrivatePostgres() as postgres:
        administrator = await asyncpg.connect(postgres.url)

        async def outage() -> None:
            await administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quarterdeck bus'"
            )

        published, readers = await run_through_outages(postgres.url, outage, times=10)
        await administrator.close()
        for reader in readers:
            assert reader.holes(published) == []


async def test_a_server_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "QUIET_SECONDS", 0.1)
    with PrivateRedis() as redis:
        async with connected(redis.url) as bus, bus.subscribe("session:1") as subscription:
            redis.signal(signal.SIGSTOP)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while bus.status().connected:
                    await asyncio.sleep(0.01)
            await bus.publish("session:1", {"n": 1})
            redis.signal(signal.SIGCONT)
            assert isinstance(await subscription.next(PATIENCE_SECONDS), Gap)
            notice = await subscription.next(PATIENCE_SECONDS)
            assert notice is not None
            assert not isinstance(notice, Gap)


async def test_who_subscribes_during_an_outage_is_told_of_the_gap() -> None:
    with PrivateRedis() as redis:
        async with connected(redis.url) as bus:
            redis.kill()
            async with bus.subscribe("session:1") as subscription:
                redis.start()
                assert isinstance(await subscription.next(PATIENCE_SECONDS), Gap)
                await bus.publish("session:1", {"n": 1})
                notice = await subscription.next(PATIENCE_SECONDS)
                assert notice is not None
                assert not isinstance(notice, Gap)


async def test_a_publisher_cut_off_for_a_while_loses_and_repeats_nothing() -> None:
    with PrivateRedis() as redis:
        async with (
            passage(redis.port) as (door, port),
            connected(f"redis://127.0.0.1:{port}") as away,
            connected(redis.url) as here,
            here.subscribe("session:1") as subscription,
        ):
            for n in range(300):
                if n % 100 == 50:
                    door.shut()
                if n % 100 == 75:
                    door.open()
                await away.publish("session:1", {"n": n})
                await asyncio.sleep(0.002)
            for n in range(300):
                notice = await subscription.next(PATIENCE_SECONDS)
                assert notice is not None
                assert not isinstance(notice, Gap)
                assert notice.data["n"] == n


async def test_a_publisher_that_gives_messages_up_tells_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "PUBLISH_SECONDS", 0.05)
    with PrivateRedis() as redis:
        async with (
            passage(redis.port) as (door, port),
            connected(f"redis://127.0.0.1:{port}") as away,
            connected(redis.url) as here,
            here.subscribe("session:1") as subscription,
        ):
            door.shut()
            await away.publish("session:1", {"n": 1})
            await asyncio.sleep(0.2)
            door.open()
            assert isinstance(await subscription.next(PATIENCE_SECONDS), Gap)


async def test_a_bus_that_is_not_there_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "START_SECONDS", 0.3)
    bus = Bus(f"redis://:secret@127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="QUARTERDECK_BUS_URL") as raised:
        await bus.connect()
    assert "secret" not in str(raised.value)
    await bus.close()


class Door:
    """Passes bytes on to a server while it is open; shutting it cuts every connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._opened = True
        self._writers: set[asyncio.StreamWriter] = set()

    def shut(self) -> None:
        self._opened = False
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        self._opened = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._opened:
            writer.transport.abort()
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        ends = {writer, inner_writer}
        self._writers |= ends
        try:
            with suppress(OSError):
                await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()


@asynccontextmanager
async def passage(target: int) -> AsyncIterator[tuple[Door, int]]:
    door = Door(target)
    server = await asyncio.start_server(door.serve, "127.0.0.1", 0)
    try:
        yield door, server.sockets[0].getsockname()[1]
    finally:
        door.shut()
        server.close()
