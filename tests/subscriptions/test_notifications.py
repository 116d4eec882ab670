"""The live feed of notifications: nothing is missed, however late it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from contextvars import Context

import pytest

from app.wiring import Program
from core import db
from core.permissions import Actor, Role
from models.notifications import NotificationKind
from services.notifications.inbox import current_cursor, mark_read_up_to
from services.work import write
from subscriptions.notifications import NotificationChange, notification_changes
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@asynccontextmanager
async def feed(actor: Actor, after: str | None = None) -> AsyncIterator[AsyncIterator[NotificationChange]]:
    async with asyncio.timeout(20), aclosing(notification_changes(actor, after)) as changes:  # type: ignore[type-var]
        yield changes


async def tell(house: House, title: str, *roles: Role) -> None:
    async with write(house.actor(Role.OWNER), None) as work:
        work.notify(NotificationKind.MENTION, [house.users[role]["id"] for role in roles], title)


async def count_alone() -> int:
    """How many notifications everybody sees, outside of the transaction of this context."""

    async def count() -> int:
        return await db.fetchval("SELECT count(*) FROM notifications")  # type: ignore[no-any-return]

    return await asyncio.create_task(count(), context=Context())


async def test_a_notification_that_is_committed_late_is_not_passed_by(house: House) -> None:
    member = house.actor(Role.MEMBER)
    start = await current_cursor()
    async with feed(member, start) as changes:
        reading = asyncio.ensure_future(anext(changes))
        async with write(house.actor(Role.OWNER), None) as slow:
            await slow.tx.fetchval("SELECT pg_current_xact_id()")
            slow.notify(NotificationKind.MENTION, [house.users[Role.MEMBER]["id"]], "committed late")
            # In a context of its own, or it would be a savepoint of the same transaction.
            await asyncio.create_task(tell(house, "committed first", Role.MEMBER), context=Context())
            assert await count_alone() == 1
            await asyncio.wait({reading}, timeout=0.5)
            assert not reading.done()
        first, second = await reading, await anext(changes)
    assert [one.notification["title"] for one in (first, second)] == ["committed late", "committed first"]
    assert second.unread_count == 2


async def test_nothing_is_lost_when_many_tell_and_one_reads_meanwhile(house: House) -> None:
    member = house.actor(Role.MEMBER)
    start = await current_cursor()
    known: dict[object, str] = {}

    async def follow(changes: AsyncIterator[NotificationChange]) -> None:
        async for change in changes:
            known[change.notification["id"]] = change.kind
            if len(known) % 7 == 0:
                await mark_read_up_to(member, change.cursor)
            if len(known) == 30 and change.unread_count == 0:
                return
            if len(known) == 30:
                await mark_read_up_to(member, change.cursor)

    async with feed(member, start) as changes:
        await asyncio.gather(
            follow(changes), *(tell(house, f"{n}", Role.MEMBER, Role.ADMIN, Role.VIEWER) for n in range(30))
        )
    # Only what was seen was marked, and nothing is left: so everything was seen.
    assert len(known) == 30
    assert (
        await db.fetchval("SELECT count(*) FROM notifications WHERE read_at IS NULL AND user_id = $1", member.user_id)
        == 0
    )
    assert await db.fetchval("SELECT count(*) FROM notifications WHERE read_at IS NULL") == 60


async def test_each_hears_of_their_own_alone(house: House) -> None:
    start = await current_cursor()
    async with feed(house.actor(Role.MEMBER), start) as mine, feed(house.actor(Role.VIEWER), start) as theirs:
        await tell(house, "for the viewer", Role.VIEWER)
        await tell(house, "for the member", Role.MEMBER)
        assert (await anext(mine)).notification["title"] == "for the member"
        assert (await anext(theirs)).notification["title"] == "for the viewer"
