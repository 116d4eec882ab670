"""The feed of many sessions, live: nothing is passed by, however late it is committed; and it is read along indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.permissions import Actor, Role
from models import activity_feed as models
from models.activity_feed import ActivityKind
from models.base import Query
from models.sessions import Visibility
from resolvers import activity_feed as feeds
from resolvers.activity_feed import ActivityFilter
from services.identity.teams import add_team_member, create_team
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.messages import send_message
from subscriptions.activity_feed import FeedItem, activity_feed, current_cursor
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio

EVERYTHING = ActivityFilter().matches


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@asynccontextmanager
async def following(actor: Actor, after: str | None = None) -> AsyncIterator[AsyncIterator[FeedItem]]:
    async with asyncio.timeout(20), aclosing(activity_feed(actor, EVERYTHING, after)) as items:  # type: ignore[type-var]
        yield items


async def made(actor: Actor, **more: Visibility) -> UUID:
    return (await create_session(actor, NewSession(title="one", **more)))["id"]  # type: ignore[arg-type,no-any-return]


async def test_what_is_committed_late_is_not_passed_by(house: House) -> None:
    actor = house.actor(Role.MEMBER)
    early = await made(actor)
    start = await current_cursor()
    async with db.transaction() as tx:
        await tx.execute(
            "INSERT INTO session_events (session_id, seq, organization_id, at, type, name, actor_kind, data) "
            "VALUES ($1, 100, $2, now(), 'CUSTOM', 'quarterdeck.message.sent', 'HUMAN', '{}')",
            early,
            actor.organization_id,
        )
        late = await made(actor)
        async with following(actor, start) as items:
            reading = asyncio.ensure_future(anext(items))
            await asyncio.wait({reading}, timeout=0.5)
            assert not reading.done()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    async with following(actor, start) as items:
        first, second = await anext(items), await anext(items)
        assert (first.activity.session_id, first.activity.seq) == (early, 100)
        assert (second.activity.session_id, second.activity.seq) == (late, 1)


async def test_concurrent_writers_are_each_heard_once_by_all_who_follow(house: House) -> None:
    member, admin = house.actor(Role.MEMBER), house.actor(Role.ADMIN)
    session = await made(member)
    start = await current_cursor()

    async def read(count: int) -> list[tuple[UUID, int]]:
        async with following(admin, start) as items:
            return [
                (item.activity.session_id, item.activity.seq) for item in [await anext(items) for _ in range(count)]
            ]

    readers = [asyncio.create_task(read(40 + 20)) for _ in range(4)]
    # A message changes the status of the session that was new.
    others = await asyncio.gather(*(made(one) for _ in range(10) for one in (member, admin)))
    await asyncio.gather(*(send_message(member, session, f"{n}") for n in range(39)))
    heard = await asyncio.gather(*readers)
    assert all(one == heard[0] for one in heard)
    assert len(set(heard[0])) == 60
    assert {id_ for id_, _ in heard[0]} == {session, *others}


async def test_a_place_moves_on_over_what_one_may_not_see(house: House) -> None:
    owner, viewer = house.actor(Role.MEMBER), house.actor(Role.VIEWER)
    start = await current_cursor()
    async with following(viewer, start) as items:
        for _ in range(3):
            await made(owner)
        session = await made(owner, visibility=Visibility.ORGANIZATION)
        item = await anext(items)
        assert item.activity.session_id == session
        await update_session(owner, session, SessionChanges(visibility=Visibility.PRIVATE))
        await send_message(owner, session, "between us")
        other = await made(owner, visibility=Visibility.ORGANIZATION)
        assert (await anext(items)).activity.session_id == other
    async with following(viewer, item.cursor) as items:
        assert (await anext(items)).activity.session_id == other


async def test_every_kind_that_is_told_has_its_kind_and_its_index() -> None:
    types, names = models.events_of(ActivityKind)
    assert set(types) & set(names) == set()
    for kind in ActivityKind:
        assert any(found for found in models.events_of([kind])), kind


async def test_feeds_of_many_are_read_at_once(house: House) -> None:
    admin, member = house.actor(Role.ADMIN), house.actor(Role.MEMBER)
    sessions = [{"id": await made(member)} for _ in range(5)]
    teams = [{"id": (await create_team(admin, name=f"Team {n}"))["id"]} for n in range(3)]
    await add_team_member(admin, teams[1]["id"], member.user_id)  # type: ignore[arg-type]
    args = {"first": 2, "after": None, "filter": ActivityFilter(), "descending": True}
    for batch, parents, most, lengths in (
        (feeds.feed_of_sessions, sessions, 1, [1, 1, 1, 1, 1]),
        (feeds.feed_of_teams, teams, 2, [0, 2, 0]),
    ):
        seen: list[str] = []
        mark = db.queries_seen.set(seen)
        pages = await batch(member, parents, args)
        db.queries_seen.reset(mark)
        assert [len(page.rows) for page in pages] == lengths
        assert len(seen) == most
    assert [await page.count() for page in pages] == [0, 5, 0]


async def test_where_much_is_seen_the_same_comes_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, member, viewer = (house.actor(role) for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER))
    team = {"id": (await create_team(admin, name="All"))["id"]}
    await add_team_member(admin, team["id"], member.user_id)  # type: ignore[arg-type]
    for number in range(6):
        await made(member, visibility=(Visibility.PRIVATE, Visibility.ORGANIZATION)[number % 2])
    await made(admin)
    args = {"first": 10, "after": None, "filter": ActivityFilter(), "descending": True}

    async def read() -> list[list[tuple[UUID, int]]]:
        pages = [
            await feeds.feed(actor, ActivityFilter(), first=10, after=None, descending=True)
            for actor in (admin, member, viewer)
        ]
        pages += [(await feeds.feed_of_teams(actor, [team], args))[0] for actor in (admin, viewer)]
        return [[(row["session_id"], row["seq"]) for row in page.rows] for page in pages]

    joined = await read()
    monkeypatch.setattr(feeds, "FEW", -1)
    assert await read() == joined
    assert [len(rows) for rows in joined] == [7, 6, 3, 6, 3]


INDEXES = ("session_events_feed", "session_events_actor", "session_events_rare", "session_events_tail")


async def test_feeds_are_read_along_their_indexes(house: House, database_url: str) -> None:
    """Statements say the same as the migration's indexes, word for word, or the planner could not use them."""
    actor = house.actor(Role.ADMIN)
    tail = (
        f"SELECT * FROM session_events WHERE organization_id = $1 AND {models.INDEXED} AND xid >= $2::text::xid8",
        [actor.organization_id, "5"],
    )
    cases = [("session_events_tail", *tail)]
    for index, wanted in (
        ("session_events_feed", ActivityFilter()),
        ("session_events_feed", ActivityFilter(kinds=[ActivityKind.TOOL_CALLED, ActivityKind.MESSAGE_SENT])),
        ("session_events_actor", ActivityFilter(actor_ids=[actor.organization_id])),
        ("session_events_rare", ActivityFilter(kinds=[ActivityKind.HANDOFF_CHANGED, ActivityKind.SESSION_CREATED])),
    ):
        query = Query()
        conditions = [*feeds._seen(actor, query, few=True), *wanted.conditions(query)]
        cases.append((index, feeds._page(conditions, feeds._order(True), 25), query.args))
    connection = await db.connect_alone(database_url)
    try:
        for index, statement, args in cases:
            # A table of a few rows is read in whatever way; without the others this one has to do.
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SET LOCAL enable_seqscan = off")
            await connection.execute(f"DROP INDEX {', '.join(name for name in INDEXES if name != index)}")
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *args))
            assert index in plan
            await transaction.rollback()
    finally:
        await connection.close()
