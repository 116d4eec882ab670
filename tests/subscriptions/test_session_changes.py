"""The live feed of sessions: nothing is missed, however late it is committed, and nothing told that may not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from contextvars import Context
from dataclasses import replace
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.errors import BadInput
from core.paging import encode_cursor
from core.permissions import Actor, Role
from models.sessions import SessionRow, Visibility
from models.sharing import AccessLevel
from resolvers.sessions import SessionFilter
from services.sessions.lifecycle import NewSession, SessionChanges, complete_session, create_session, update_session
from services.sharing.giving import Terms
from services.sharing.grants import revoke_grant, share_session
from subscriptions.session_changes import SessionChange, current_cursor, session_changes
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
def actor(house: House) -> Actor:
    return house.actor(Role.MEMBER)


def everything(row: SessionRow) -> bool:
    return True


@asynccontextmanager
async def feed(actor: Actor, after: str | None = None) -> AsyncIterator[AsyncIterator[SessionChange]]:
    async with asyncio.timeout(20), aclosing(session_changes(actor, everything, after)) as changes:  # type: ignore[type-var]
        yield changes


async def made(actor: Actor, title: str, **more: Visibility) -> UUID:
    return (await create_session(actor, NewSession(title=title, **more)))["id"]  # type: ignore[arg-type,no-any-return]


async def test_a_transaction_that_commits_late_is_not_passed_by(actor: Actor) -> None:
    """A later one is read only when the earlier one is done, so that no cursor leads past it."""
    start = await current_cursor(actor)
    early = await made(actor, "committed late")
    await db.execute("DELETE FROM session_changes")
    async with db.transaction() as tx:
        await tx.execute(
            "INSERT INTO session_changes (organization_id, session_id, kind) VALUES ($1, $2, 'CREATED')",
            actor.organization_id,
            early,
        )

        async def meanwhile() -> UUID:
            late = await made(actor, "committed first")
            async with feed(actor, start) as changes:
                reading = asyncio.ensure_future(anext(changes))
                await asyncio.wait({reading}, timeout=0.5)
                assert not reading.done()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            return late

        # In a context of its own: what is done in this one is part of the transaction.
        late = await asyncio.create_task(meanwhile(), context=Context())
    async with feed(actor, start) as changes:
        assert [(await anext(changes)).session_id, (await anext(changes)).session_id] == [early, late]


async def test_concurrent_writers_are_each_heard_once_from_any_cursor(actor: Actor, house: House) -> None:
    start = await current_cursor(actor)
    admin = house.actor(Role.ADMIN)
    async with feed(admin, start) as changes:
        ids = await asyncio.gather(*(made(one, f"{n}") for n in range(15) for one in (actor, admin)))
        heard = [await anext(changes) for _ in range(len(ids))]
    assert {change.session_id for change in heard} == set(ids)
    for cut in (0, 7, 29):
        async with feed(admin, heard[cut].cursor) as changes:
            rest = [(await anext(changes)).session_id for _ in range(len(heard) - cut - 1)]
            assert rest == [change.session_id for change in heard[cut + 1 :]]
            await complete_session(admin, ids[0])
            assert (await anext(changes)).session_id == ids[0]


async def test_only_what_one_may_see_is_told(house: House) -> None:
    owner, viewer = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    stranger = (await a_house("Elsewhere")).actor(Role.OWNER)
    start = await current_cursor(viewer)
    async with feed(viewer, start) as seen, feed(stranger, start) as foreign:
        await made(owner, "private")
        open_ = await made(owner, "open", visibility=Visibility.ORGANIZATION)
        assert (await anext(seen)).session_id == open_
        theirs = await made(stranger, "theirs")
        assert (await anext(foreign)).session_id == theirs
        await update_session(owner, open_, SessionChanges(visibility=Visibility.PRIVATE))
        change = await anext(seen)
        assert (change.kind, change.session_id, change.session) == ("REMOVED", open_, None)
        await update_session(owner, open_, SessionChanges(title="between us"))
        after = await made(owner, "after", visibility=Visibility.ORGANIZATION)
        assert (await anext(seen)).session_id == after


async def test_a_filter_narrows_the_feed(actor: Actor) -> None:
    wanted = SessionFilter(title_contains="find me", labels={"team": "core"})
    start = await current_cursor(actor)
    async with (
        asyncio.timeout(20),
        aclosing(session_changes(actor, wanted.matches, start)) as changes,  # type: ignore[type-var]
    ):
        await made(actor, "something else")
        await create_session(actor, NewSession(title="Find me", labels={"team": "other"}))
        found = (await create_session(actor, NewSession(title="FIND ME", labels={"team": "core"})))["id"]
        assert (await anext(changes)).session_id == found


async def test_what_a_filter_takes_no_more_is_told_once_to_be_gone(actor: Actor) -> None:
    """Else a list that is kept live would show it for ever."""
    wanted = SessionFilter(title_contains="keep")
    start = await current_cursor(actor)
    async with (
        asyncio.timeout(20),
        aclosing(session_changes(actor, wanted.matches, start)) as changes,  # type: ignore[type-var]
    ):
        session = await made(actor, "keep this")
        assert (await anext(changes)).kind == "CREATED"
        await update_session(actor, session, SessionChanges(title="drop this"))
        assert (await anext(changes)).kind == "REMOVED"
        await update_session(actor, session, SessionChanges(title="still to be dropped"))
        await update_session(actor, session, SessionChanges(title="keep it after all"))
        # Each change is told with the session as it is when it is read.
        assert [(await anext(changes)).kind for _ in range(2)] == ["UPDATED", "UPDATED"]
        await update_session(actor, session, SessionChanges(title="gone"))
        assert (await anext(changes)).kind == "REMOVED"


async def test_cursors_that_are_none(actor: Actor) -> None:
    for after in (
        "nonsense",
        encode_cursor(1, 1),
        encode_cursor("x", 1),
        encode_cursor("²", 1),
        encode_cursor("9" * 20, 1),
        encode_cursor("1", "1"),
        encode_cursor("1", 2**63),
        encode_cursor("-1", 1),
    ):
        with pytest.raises(BadInput):
            await anext(session_changes(actor, everything, after))


async def test_who_loses_access_is_told_to_drop_the_session_and_nobody_else_hears_of_it(house: House) -> None:
    owner, guest, stranger = house.actor(Role.MEMBER), house.actor(Role.VIEWER), house.actor(Role.ADMIN)
    stranger = replace(stranger, role=Role.MEMBER)
    session = await made(owner, "shared")
    assert guest.user_id is not None
    start = await current_cursor(guest)
    [grant] = await share_session(owner, session, Terms(AccessLevel.READ), users=[guest.user_id])
    async with feed(guest, start) as changes, feed(stranger, start) as others:
        change = await anext(changes)
        assert (change.kind, change.session and change.session["title"]) == ("UPDATED", "shared")
        hearing = asyncio.ensure_future(anext(others))
        await revoke_grant(owner, grant["id"])
        change = await anext(changes)
        assert (change.kind, change.session_id, change.session) == ("REMOVED", session, None)
        await made(guest, "their own")
        assert (await anext(changes)).kind == "CREATED"
        assert not hearing.done()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
    # Who was away while it ended hears of it too.
    async with feed(guest, start) as changes:
        assert [(await anext(changes)).kind for _ in range(2)] == ["REMOVED", "CREATED"]


async def test_what_happens_in_a_session_after_access_has_ended_is_not_told(house: House) -> None:
    owner, guest = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    assert guest.user_id is not None
    session = await made(owner, "shared")
    [grant] = await share_session(owner, session, Terms(AccessLevel.READ), users=[guest.user_id])
    await revoke_grant(owner, grant["id"])
    ago = "now() - interval '2 minutes'"
    for ended in (f"revoked_at = {ago}", f"revoked_at = NULL, expires_at = {ago}"):
        await db.execute(f"UPDATE grants SET {ended}")
        start = await current_cursor(guest)
        async with feed(guest, start) as changes:
            await update_session(owner, session, SessionChanges(title=f"between us: {ended}"))
            theirs = await made(guest, "their own")
            change = await anext(changes)
            assert (change.kind, change.session_id) == ("CREATED", theirs)
