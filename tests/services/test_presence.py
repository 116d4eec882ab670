"""Presence among processes: each with its own rooms and its own connection to one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from app.wiring import Program
from core.bus import Bus
from core.permissions import Actor, Role
from models.sessions import Visibility
from services.presence import room as rooms
from services.presence.participants import Participant, PresenceChange, PresenceState
from services.presence.rooms import Presence
from services.presence.watch import Watch
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from tests.private_servers import PrivateRedis
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio

S = PresenceState


@pytest.fixture(scope="module")
def redis() -> AsyncIterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server  # type: ignore[misc]


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
async def session(house: House) -> UUID:
    made = await create_session(house.actor(Role.MEMBER), NewSession(title="shared"))
    return made["id"]  # type: ignore[no-any-return]


class Process:
    """A process that takes part. Its bus counts what it publishes."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(url)
        self.presence = Presence(lambda: self.bus)
        self.published = 0
        publish = self.bus.publish

        async def counted(channel: str, message: dict[str, object]) -> None:
            self.published += 1
            await publish(channel, message)

        self.bus.publish = counted  # type: ignore[method-assign, assignment]

    async def die(self) -> None:
        """As a killed process does: without a word."""
        for room in list(self.presence._rooms.values()):
            for task in room._all_tasks():
                task.cancel()
            await asyncio.gather(*room._all_tasks(), return_exceptions=True)
        await self.bus.close()


@asynccontextmanager
async def processes(redis: PrivateRedis, count: int) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            process = Process(redis.url)
            await process.bus.connect()
            stack.push_async_callback(process.bus.close)
            await stack.enter_async_context(process.presence.running())
            found.append(process)
        yield found


class Seen:
    """What one stream was told."""

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.changes: list[PresenceChange] = []
        self.here: dict[str, Participant] = {}
        self._bell = asyncio.Event()

    def wake(self) -> None:
        self._bell.set()

    def look(self) -> None:
        assert self.watch is not None
        change = self.watch.change()
        if change is None:
            return
        self.changes.append(change)
        if change.participants is not None:
            self.here = {}
        for one in [*(change.participants or ()), *change.joined, *change.changed]:
            self.here[one.client_id] = one
        for one in change.left:
            self.here.pop(one.client_id, None)

    async def until(self, found: Callable[[dict[str, Participant]], object], within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while True:
                self._bell.clear()
                self.look()
                if self.changes and found(self.here):
                    return
                await self._bell.wait()


@asynccontextmanager
async def there(process: Process, actor: Actor, session: UUID, name: str) -> AsyncIterator[Seen]:
    seen = Seen()
    async with process.presence.watching(actor, session, name, seen.wake) as seen.watch:
        yield seen


async def test_everybody_sees_everybody_whichever_process_they_are_at(
    redis: PrivateRedis, house: House, session: UUID
) -> None:
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    async with processes(redis, 3) as (one, two, three), there(one, member, session, "a") as a:
        await a.until(lambda here: set(here) == {"a"})
        async with there(two, admin, session, "b") as b:
            # Who comes is told at once who is there: the first that is said is complete.
            await b.until(lambda here: here)
            assert set(b.here) == {"a", "b"}
            await a.until(lambda here: set(here) == {"a", "b"})
            # A process that had nothing to do with the session asks the others.
            found = await three.presence.participants(session)
            assert [found_one.client_id for found_one in found] == ["a", "b"]
            await one.presence.update(member, session, "a", S.TYPING)
            await b.until(lambda here: here["a"].state is S.TYPING)
        await a.until(lambda here: set(here) == {"a"})
        assert [found_one.client_id for found_one in await three.presence.participants(session)] == ["a"]


async def test_what_a_client_says_at_another_process_than_its_stream_s_counts(
    redis: PrivateRedis, house: House, session: UUID
) -> None:
    member = house.actor(Role.MEMBER)
    async with processes(redis, 2) as (one, two), there(one, member, session, "a") as a:
        await a.until(lambda here: here)
        # The other process has not heard of the client when it says its first word there.
        await two.presence.update(member, session, "a", S.TYPING)
        await a.until(lambda here: here["a"].state is S.TYPING)
        await asyncio.sleep(0.6)
        await two.presence.update(member, session, "a", S.IDLE)
        await a.until(lambda here: here["a"].state is S.IDLE)
        assert [found.state for found in await two.presence.participants(session)] == [S.IDLE]
        assert all(len(change.participants or change.changed) == 1 and not change.left for change in a.changes)
        # The other process tells nothing of its own any more.
        assert not two.presence._rooms[session]._local


async def test_a_process_that_dies_takes_its_people_with_it(
    redis: PrivateRedis, house: House, session: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "AGAIN_SECONDS", 0.4)
    monkeypatch.setattr(rooms, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(rooms, "LOOK_SECONDS", 0.2)
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    async with processes(redis, 1) as (one,), there(one, member, session, "a") as a:
        doomed = Process(redis.url)
        await doomed.bus.connect()
        async with there(doomed, admin, session, "b"):
            await a.until(lambda here: set(here) == {"a", "b"})
            # As long as it lives they stay, though nothing changes.
            await asyncio.sleep(2.0)
            a.look()
            assert set(a.here) == {"a", "b"}
            await doomed.die()
            await a.until(lambda here: set(here) == {"a"}, within=5)


async def test_a_process_that_stops_takes_leave_of_the_others(redis: PrivateRedis, house: House, session: UUID) -> None:
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    async with processes(redis, 1) as (one,), there(one, member, session, "a") as a:
        stopping = Process(redis.url)
        await stopping.bus.connect()
        async with AsyncExitStack() as until_stopped:
            await until_stopped.enter_async_context(stopping.presence.running())
            async with there(stopping, admin, session, "b"):
                await a.until(lambda here: set(here) == {"a", "b"})
                await until_stopped.aclose()
                await a.until(lambda here: set(here) == {"a"}, within=3)
        await stopping.bus.close()


async def test_while_the_bus_is_away_nobody_is_missed_and_afterwards_everything_is_told(
    house: House, session: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "AGAIN_SECONDS", 0.4)
    monkeypatch.setattr(rooms, "SILENT_SECONDS", 1.5)
    monkeypatch.setattr(rooms, "LOOK_SECONDS", 0.2)
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    with PrivateRedis() as redis:
        async with processes(redis, 2) as (one, two), there(one, member, session, "a") as a:
            async with there(two, admin, session, "b"), there(two, admin, session, "c"):
                await a.until(lambda here: set(here) == {"a", "b", "c"})
                redis.kill()
                await asyncio.sleep(2.5)
                a.look()
                assert set(a.here) == {"a", "b", "c"}
                await two.presence.update(admin, session, "b", S.TYPING)
                redis.start()
                await a.until(lambda here: here["b"].state is S.TYPING, within=10)
            await a.until(lambda here: set(here) == {"a"}, within=10)


async def test_typing_ends_and_guests_leave_by_our_own_clock(
    redis: PrivateRedis, house: House, session: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "TYPING_SECONDS", 0.5)
    monkeypatch.setattr(rooms, "GUEST_SECONDS", 1.5)
    monkeypatch.setattr(rooms, "LOOK_SECONDS", 0.1)
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    async with processes(redis, 2) as (one, two), there(one, member, session, "a") as a:
        await two.presence.update(admin, session, "guest", S.TYPING)
        await a.until(lambda here: "guest" in here and here["guest"].state is S.TYPING)
        await a.until(lambda here: here["guest"].state is S.VIEWING)
        await a.until(lambda here: "guest" not in here)


async def test_a_guest_whose_access_ends_is_shown_out(
    redis: PrivateRedis, house: House, session: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(rooms, "LOOK_SECONDS", 0.1)
    member, viewer = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    await update_session(member, session, SessionChanges(visibility=Visibility.ORGANIZATION))
    async with processes(redis, 1) as (one,), there(one, member, session, "a") as a:
        await one.presence.update(viewer, session, "guest", S.VIEWING)
        await a.until(lambda here: "guest" in here)
        await update_session(member, session, SessionChanges(visibility=Visibility.PRIVATE))
        await a.until(lambda here: "guest" not in here)


async def test_traffic_for_each_does_not_grow_with_their_number(
    redis: PrivateRedis, house: House, session: UUID
) -> None:
    """150 people who all change what they do without pause, at two processes."""
    people = [replace(house.actor(Role.MEMBER), user_id=uuid4()) for _ in range(150)]
    async with processes(redis, 2) as both, AsyncExitStack() as stack:
        seen = [
            await stack.enter_async_context(there(both[n % 2], actor, session, f"c{n}"))
            for n, actor in enumerate(people)
        ]
        await seen[0].until(lambda here: len(here) == len(people), within=20)
        for one in seen:
            one.look()
            one.changes.clear()
        for process in both:
            process.published = 0
        seconds, flips = 4.0, 0
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            flips += 1
            for n, actor in enumerate(people):
                both[n % 2].presence._rooms[session].say(actor, f"c{n}", (S.VIEWING, S.IDLE)[flips % 2], None, None)
            await asyncio.sleep(0.02)
            for one in seen:
                one.look()
        # A beat is 0.75 s for 150 people, which each process and the hearing of the other's can begin anew.
        most = seconds / 0.75 + 2
        assert flips > 20
        assert 2 <= max(len(one.changes) for one in seen) <= most
        told = max(sum(len(change.changed) for change in one.changes) for one in seen)
        assert told <= most * len(people)
        # 75 people are told of in two messages; all of them again every four seconds.
        assert max(process.published for process in both) <= 2 * most + 3 * 2
