"""The bus as its readers see it, on every transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from core.bus import Bus, BusMessage, BusSubscription, Gap
from core.errors import BadInput, SlowConsumer, TooLarge, Unavailable
from tests.private_servers import PrivatePostgres, PrivateRedis

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 10


@pytest.fixture(scope="module")
def redis() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(params=["memory", "redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    return str(request.getfixturevalue(request.param).url)


@asynccontextmanager
async def connected(url: str, queue_size: int = 1000) -> AsyncIterator[Bus]:
    bus = Bus(url, queue_size=queue_size)
    await bus.connect()
    try:
        yield bus
    finally:
        await bus.close()


async def read(subscription: BusSubscription, count: int) -> list[int]:
    """The numbers of the next messages; fails on anything else."""
    numbers = []
    for _ in range(count):
        notice = await subscription.next(PATIENCE_SECONDS)
        assert isinstance(notice, BusMessage), notice
        numbers.append(notice.data["n"])
    return numbers


async def test_every_subscriber_reads_everything_in_order(url: str) -> None:
    async with connected(url) as bus, bus.subscribe("session:1") as one, bus.subscribe("session:1") as two:
        for n in range(300):
            await bus.publish("session:1", {"n": n})
        assert await read(one, 300) == list(range(300))
        assert await read(two, 300) == list(range(300))


async def test_one_subscription_follows_several_channels_and_no_others(url: str) -> None:
    async with connected(url) as bus, bus.subscribe("session:1", "organization:1") as subscription:
        await bus.publish("session:2", {"n": 0})
        await bus.publish("session:1", {"n": 1})
        await bus.publish("organization:1", {"n": 2})
        assert await subscription.next(PATIENCE_SECONDS) == BusMessage("session:1", {"n": 1})
        assert await subscription.next(PATIENCE_SECONDS) == BusMessage("organization:1", {"n": 2})
        assert await subscription.next(0.05) is None


async def test_first_subscribers_that_come_together_all_read(url: str) -> None:
    async with connected(url) as bus:

        async def follow() -> list[int]:
            async with bus.subscribe("session:1") as subscription:
                arrived.release()
                return await read(subscription, 3)

        arrived = asyncio.Semaphore(0)
        followers = [asyncio.create_task(follow()) for _ in range(20)]
        for _ in followers:
            await arrived.acquire()
        for n in range(3):
            await bus.publish("session:1", {"n": n})
        assert await asyncio.gather(*followers) == [[0, 1, 2]] * 20


async def test_a_channel_can_be_left_and_joined_again_at_once(url: str) -> None:
    async with connected(url) as bus:
        for n in range(20):
            async with bus.subscribe("session:1") as subscription:
                await bus.publish("session:1", {"n": n})
                assert await read(subscription, 1) == [n]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while bus.status().channels:
                await asyncio.sleep(0.01)


async def test_many_concurrent_publishers(url: str) -> None:
    async with connected(url) as bus, bus.subscribe("session:1") as subscription:
        await asyncio.gather(*(bus.publish("session:1", {"n": n}) for n in range(200)))
        assert sorted(await read(subscription, 200)) == list(range(200))


async def test_two_processes_hear_each_other(redis: PrivateRedis, postgres: PrivatePostgres) -> None:
    for url in (redis.url, postgres.url):
        async with connected(url) as here, connected(url) as there, there.subscribe("session:1") as subscription:
            await here.publish("session:1", {"n": 1})
            assert await read(subscription, 1) == [1]


async def test_a_slow_reader_is_told_and_others_are_not_disturbed(url: str) -> None:
    async with connected(url, queue_size=10) as bus:
        async with bus.subscribe("session:1") as slow, bus.subscribe("session:1") as quick:
            for n in range(30):
                await bus.publish("session:1", {"n": n})
                assert await read(quick, 1) == [n]
            for _ in range(2):
                with pytest.raises(SlowConsumer):
                    await slow.next(PATIENCE_SECONDS)
        async with bus.subscribe("session:1") as again:
            await bus.publish("session:1", {"n": 99})
            assert await read(again, 1) == [99]


async def test_closing_ends_iteration_and_waiting(url: str) -> None:
    bus = Bus(url)
    await bus.connect()

    async def iterate() -> list[object]:
        async with bus.subscribe("session:1") as subscription:
            joined.release()
            return [notice async for notice in subscription]

    async def wait() -> None:
        async with bus.subscribe("session:1") as subscription:
            joined.release()
            await subscription.next()

    joined = asyncio.Semaphore(0)
    iterating, waiting = asyncio.create_task(iterate()), asyncio.create_task(wait())
    await joined.acquire()
    await joined.acquire()
    await bus.publish("session:2", {"n": 1})
    await bus.close()
    await bus.close()
    assert await asyncio.wait_for(iterating, PATIENCE_SECONDS) == []
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    with pytest.raises(Unavailable):
        await bus.publish("session:1", {"n": 1})


async def test_cancelled_subscribers_leave_nothing_behind(url: str) -> None:
    async with connected(url) as bus:

        async def follow() -> None:
            async with bus.subscribe("session:1") as subscription:
                await subscription.next()

        for pause in (0, 0, 0.001, 0.01):
            task = asyncio.create_task(follow())
            await asyncio.sleep(pause)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while bus.status().channels:
                await asyncio.sleep(0.01)
        async with bus.subscribe("session:1") as subscription:
            await bus.publish("session:1", {"n": 1})
            assert await read(subscription, 1) == [1]


async def test_bad_input_is_refused_before_it_is_sent(url: str) -> None:
    async with connected(url) as bus, bus.subscribe("session:1") as subscription:
        with pytest.raises(TooLarge):
            await bus.publish("session:1", {"body": "x" * 7_000})
        for name in ("", "x" * 64, "quarterdeck:bus", "nul\0"):
            with pytest.raises(BadInput):
                await bus.publish(name, {"n": 1})
            with pytest.raises(BadInput):
                bus.subscribe(name)
        await bus.publish("session:1", {"n": 1})
        assert await read(subscription, 1) == [1]


@pytest.mark.parametrize("address", ["", "kafka://host", "redis://host:port"])
def test_an_address_without_a_transport_is_refused(address: str) -> None:
    with pytest.raises(BadInput):
        Bus(address)


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"from": "x", "number": "1", "previous": 0, "data": {}}'])
async def test_foreign_messages_are_skipped(postgres: PrivatePostgres, redis: PrivateRedis, text: str) -> None:
    async with connected(redis.url) as bus, bus.subscribe("session:1") as subscription:
        await redis.command("PUBLISH", "session:1", text)
        await redis.command("PUBLISH", "session:1", b"\xff\xfe")
        await bus.publish("session:1", {"n": 1})
        assert await read(subscription, 1) == [1]
    async with connected(postgres.url) as bus, bus.subscribe("session:1") as subscription:
        foreigner = await asyncpg.connect(postgres.url)
        await foreigner.execute("SELECT pg_notify('session:1', $1)", text)
        await foreigner.close()
        await bus.publish("session:1", {"n": 1})
        assert await read(subscription, 1) == [1]


async def test_what_was_sent_twice_is_read_once_and_what_is_missing_is_a_gap(redis: PrivateRedis) -> None:
    def message(number: int, previous: int) -> str:
        return f'{{"from": "another", "number": {number}, "previous": {previous}, "data": {{"n": {number}}}}}'

    async with connected(redis.url) as bus, bus.subscribe("session:1") as subscription:
        for number, previous in ((5, 4), (6, 5), (5, 4), (6, 5), (9, 8)):
            await redis.command("PUBLISH", "session:1", message(number, previous))
        assert await read(subscription, 2) == [5, 6]
        assert isinstance(await subscription.next(PATIENCE_SECONDS), Gap)
        assert await read(subscription, 1) == [9]


async def test_status_tells_how_it_is(url: str) -> None:
    bus = Bus(url)
    assert not bus.status().connected
    await bus.connect()
    async with bus.subscribe("session:1", "session:2") as _one, bus.subscribe("session:1") as _two:
        status = bus.status()
        assert (status.connected, status.channels, status.subscribers, status.reconnects) == (True, 2, 2, 0)
        assert status.since is not None
    await bus.close()
    assert not bus.status().connected
