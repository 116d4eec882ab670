"""The stream of those who work together: everything once, and nothing left behind when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

import pytest

from app.wiring import Program
from core.errors import BadInput, CursorExpired, NotFound
from core.permissions import Actor, Role
from models.sessions import Visibility
from services.presence.participants import PresenceState
from services.presence.rooms import presence
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.messages import send_message
from subscriptions.sessions import event_cursor
from subscriptions.workspace_stream import WorkspaceDraft, WorkspaceEvent, WorkspaceItem, WorkspacePresence, workspace
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@asynccontextmanager
async def working_in(
    actor: Actor, session: UUID, after: str | None = None, client: str | None = None
) -> AsyncIterator[AsyncIterator[WorkspaceItem]]:
    async with asyncio.timeout(20), aclosing(workspace(actor, session, after, client)) as items:  # type: ignore[type-var]
        yield items


async def events_until(items: AsyncIterator[WorkspaceItem], seq: int) -> list[int]:
    found = []
    async for item in items:
        if isinstance(item, WorkspaceEvent):
            found.append(item.event.seq)
            if item.event.seq == seq:
                return found
    raise AssertionError("the stream ended")


async def quiet(before: set[asyncio.Task[object]]) -> None:
    """Every task that was begun since has ended."""
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.02)


async def test_each_event_comes_once_from_any_cursor(house: House) -> None:
    actor = house.actor(Role.MEMBER)
    session = (await create_session(actor, NewSession(title="one")))["id"]
    for number in range(5):
        await send_message(actor, session, f"message {number}")
    last = 12
    async with working_in(actor, session) as items:
        assert await events_until(items, last) == list(range(1, last + 1))
        await send_message(actor, session, "live")
        assert await events_until(items, last + 2) == [last + 1, last + 2]
    for cut in range(1, last + 2):
        async with working_in(actor, session, event_cursor(cut)) as items:
            assert await events_until(items, last + 2) == list(range(cut + 1, last + 3))


async def test_presence_goes_between_with_the_cursor_unchanged(house: House) -> None:
    actor, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    session = (await create_session(actor, NewSession(title="one")))["id"]
    async with working_in(actor, session, client="mine") as items:
        first = await anext(items)
        assert isinstance(first, WorkspacePresence)
        assert [one.client_id for one in first.change.participants or ()] == ["mine"]
        event = await anext(items)
        assert isinstance(event, WorkspaceEvent)
        async with working_in(admin, session, event.cursor, client="theirs") as others:
            snapshot = await anext(others)
            assert isinstance(snapshot, WorkspacePresence)
            assert snapshot.cursor == event.cursor
            assert {one.client_id for one in snapshot.change.participants or ()} == {"mine", "theirs"}
            joined = await anext(items)
            assert isinstance(joined, WorkspacePresence)
            assert joined.cursor == event.cursor
            assert ([one.client_id for one in joined.change.joined], joined.change.participants) == (["theirs"], None)
            await presence.update(admin, session, "theirs", PresenceState.TYPING, draft="let us")
            seen = [await anext(items), await anext(items)]
            assert {type(item) for item in seen} == {WorkspacePresence, WorkspaceDraft}
        left = await anext(items)
        assert isinstance(left, WorkspacePresence)
        assert [one.client_id for one in left.change.left] == ["theirs"]


async def test_nothing_is_left_of_a_stream_however_it_ends(house: House) -> None:
    actor, reader = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    session = (await create_session(actor, NewSession(title="one", visibility=Visibility.ORGANIZATION)))["id"]
    before = asyncio.all_tasks()
    # Closed by its reader.
    async with working_in(actor, session) as items:
        await events_until(items, 1)
    await quiet(before)

    # Cancelled while it waits.
    async def wait_for_ever() -> None:
        async with working_in(actor, session) as items:
            async for _ in items:
                pass

    waiting = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await quiet(before)
    # Ended by a refusal at its begin.
    for after, error in (("nonsense", BadInput), (event_cursor(99), CursorExpired)):
        with pytest.raises(error):
            async with working_in(actor, session, after) as items:
                await anext(items)
    with pytest.raises(BadInput):
        async with working_in(actor, session, client="no client's id") as items:
            await anext(items)
    await quiet(before)
    # Ended by the end of the access.
    async with working_in(reader, session) as items:
        await events_until(items, 1)
        await update_session(actor, session, SessionChanges(visibility=Visibility.PRIVATE))
        with pytest.raises(NotFound):
            while True:
                await anext(items)
    with pytest.raises(NotFound):
        async with working_in(reader, session) as items:
            await anext(items)
    await quiet(before)
    assert presence._rooms == {}


async def test_who_reads_slowly_loses_nothing_and_holds_nobody_up(house: House) -> None:
    actor = house.actor(Role.MEMBER)
    session = (await create_session(actor, NewSession(title="one")))["id"]
    async with working_in(actor, session) as slow:
        assert await events_until(slow, 1) == [1]
        for number in range(120):
            await send_message(actor, session, f"{number}")
        async with working_in(actor, session) as quick:
            assert len(await events_until(quick, 242)) == 242
        assert await events_until(slow, 242) == list(range(2, 243))
