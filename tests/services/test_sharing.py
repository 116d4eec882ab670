"""Sharing below the graph: what happens at once, on time, and over the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core import clock, db
from core.bus import BusMessage
from core.errors import Forbidden, LimitExceeded, NotFound
from core.permissions import Actor, Role
from models.notifications import NotificationKind
from models.sessions import Visibility
from models.sharing import AccessLevel, Allowance
from services.identity.teams import add_team_member, create_team, remove_team_member
from services.parts import parts
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.messages import send_message
from services.sharing.giving import MOST_TEAMS, MOST_USERS, Terms
from services.sharing.grants import expire_grants, leave_session, revoke_grant, share_session, update_grant
from services.sharing.policy import PolicyChanges, update_sharing_policy
from services.work import Work, access_channel, write
from tests.services.identity_help import House, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

READ, WRITE, ADMIN = Terms(AccessLevel.READ), Terms(AccessLevel.WRITE), Terms(AccessLevel.ADMIN)


@pytest.fixture
async def house(database: object) -> House:
    return await a_house()


@pytest.fixture
def owner(house: House) -> Actor:
    return house.actor(Role.MEMBER)


@pytest.fixture
def guest(house: House) -> Actor:
    """Somebody who is no admin. What their role may not do is refused at the door, and not here."""
    return house.actor(Role.VIEWER)


@pytest.fixture
async def session(owner: Actor) -> UUID:
    return (await create_session(owner, NewSession()))["id"]  # type: ignore[no-any-return]


@asynccontextmanager
async def another_process(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as another process has one."""
    connection = await asyncpg.connect(database_url)
    try:
        yield connection
    finally:
        await connection.close()


async def events_of(session: UUID) -> list[tuple[str, Any]]:
    rows = await db.fetch(
        "SELECT name, data FROM session_events WHERE session_id = $1 AND name LIKE 'quarterdeck.access.%' ORDER BY seq",
        session,
    )
    return [(row["name"].removeprefix("quarterdeck.access."), row["data"]) for row in rows]


# -- what a write asks


async def test_the_owner_and_admins_cost_a_write_nothing_more(
    house: House, owner: Actor, guest: Actor, session: UUID
) -> None:
    await share_session(owner, session, READ, users=[guest.user_id])  # type: ignore[list-item]

    async def statements(actor: Actor) -> int:
        seen: list[str] = []
        async with write(actor, None) as work:
            mark = db.queries_seen.set(seen)
            await work.lock_session(session, needs=AccessLevel.READ)
            db.queries_seen.reset(mark)
        return len(seen)

    assert await statements(owner) == 1
    assert await statements(house.actor(Role.ADMIN)) == 1
    assert await statements(guest) == 2


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("revoked_at = now()", NotFound),
        ("expires_at = clock_timestamp()", NotFound),
        ("level = 'READ'", Forbidden),
    ],
)
async def test_who_waits_for_a_session_while_their_access_goes_does_not_get_in(
    owner: Actor, guest: Actor, session: UUID, database_url: str, change: str, refused: type[Exception]
) -> None:
    await share_session(owner, session, WRITE, users=[guest.user_id])  # type: ignore[list-item]
    async with another_process(database_url) as other, other.transaction():
        await other.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", session)
        waiting = asyncio.create_task(send_message(guest, session, "hello"))
        async with asyncio.timeout(20):
            while not await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.02)
        await other.execute(f"UPDATE grants SET {change} WHERE resource_id = $1", session)
        await other.execute("UPDATE sessions SET updated_at = now() WHERE id = $1", session)
    with pytest.raises(refused):
        await waiting
    assert await db.fetchval("SELECT count(*) FROM messages WHERE session_id = $1", session) == 0


# -- how many


async def test_a_session_is_shared_with_so_many_and_no_more(house: House, owner: Actor, session: UUID) -> None:
    users, teams = [
        [
            row["id"]
            for row in await db.fetch(
                statement.format("gen_random_uuid(), $1, 'n' || n") + " FROM generate_series(1, $2) n RETURNING id",
                house.organization_id,
                count,
            )
        ]
        for statement, count in (
            (
                "INSERT INTO users (id, organization_id, name, kind, role, created_at) "
                "SELECT {}, 'HUMAN', 'MEMBER', now()",
                MOST_USERS,
            ),
            ("INSERT INTO teams (id, organization_id, name, slug, created_at) SELECT {}, 'n' || n, now()", MOST_TEAMS),
        )
    ]
    await share_session(owner, session, READ, users=users, teams=teams)
    assert len(await events_of(session)) == MOST_USERS + MOST_TEAMS
    assert len(await audited("grant.create")) == MOST_USERS + MOST_TEAMS
    another = house.users[Role.VIEWER]["id"]
    team = (await create_team(house.actor(Role.ADMIN), name="One more"))["id"]
    for more in ({"users": [another]}, {"teams": [team]}):
        with pytest.raises(LimitExceeded):
            await share_session(owner, session, READ, **more)
    # Those that are there can get other terms, and one that ends makes room.
    changed = await share_session(owner, session, WRITE, users=users[:2])
    await revoke_grant(owner, changed[0]["id"])
    await share_session(owner, session, READ, users=[another])


# -- what expires


async def expiring(owner: Actor, guest: Actor, count: int) -> list[UUID]:
    """Sessions whose grants to the guest are over."""
    sessions = []
    for _ in range(count):
        session = (await create_session(owner, NewSession()))["id"]
        later = datetime.now(UTC) + timedelta(hours=1)
        terms = Terms(AccessLevel.WRITE, None, later)
        await share_session(owner, session, terms, users=[guest.user_id])  # type: ignore[list-item]
        sessions.append(session)
    await db.execute("UPDATE grants SET expires_at = now() - interval '1 second' WHERE resource_id = ANY($1)", sessions)
    return sessions


async def test_several_workers_tell_of_an_end_once(owner: Actor, guest: Actor, database_url: str) -> None:
    sessions = await expiring(owner, guest, 4)
    # One of them is in use.
    async with another_process(database_url) as other, other.transaction():
        await other.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", sessions[0])
        assert sum(await asyncio.gather(*(expire_grants() for _ in range(3)))) == 3
    assert sum(await asyncio.gather(*(expire_grants() for _ in range(3)))) == 1
    for session in sessions:
        assert [name for name, _ in await events_of(session)] == ["granted", "expired"]
    records = await audited("grant.expire")
    assert len(records) == 4
    assert records[0]["before"]["level"] == "WRITE"
    ended = await db.fetch("SELECT * FROM grants")
    assert all(row["revoked_at"] == row["expires_at"] and row["revoked_by_id"] is None for row in ended)


async def test_sharing_again_after_the_end_tells_of_the_end_first(owner: Actor, guest: Actor) -> None:
    [session] = await expiring(owner, guest, 1)
    [anew] = await share_session(owner, session, READ, users=[guest.user_id])  # type: ignore[list-item]
    told = await events_of(session)
    assert [name for name, _ in told] == ["granted", "expired", "granted"]
    assert told[0][1]["grantId"] == told[1][1]["grantId"] != told[2][1]["grantId"]
    assert await expire_grants() == 0
    assert anew["revoked_at"] is None


@pytest.mark.parametrize("skew", [timedelta(minutes=-10), timedelta(minutes=10)])
async def test_a_worker_whose_clock_is_wrong_loses_no_end(
    owner: Actor, guest: Actor, skew: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    [session] = await expiring(owner, guest, 1)
    with monkeypatch.context() as wrong:
        wrong.setattr(clock, "now", lambda: datetime.now(UTC) + skew)
        # Access goes by the database's clock, which all processes share.
        with pytest.raises(NotFound):
            await send_message(guest, session, "hello")
        await expire_grants()
    await expire_grants()
    assert [name for name, _ in await events_of(session)] == ["granted", "expired"]


# -- who is told


@asynccontextmanager
async def access_notices(house: House) -> AsyncIterator[list[Any]]:
    """The notices of changed access that came while the context was open."""
    found: list[Any] = []
    async with parts().bus.subscribe(access_channel(house.organization_id)) as notices:
        yield found
        while isinstance(notice := await notices.next(0.2), BusMessage):
            found.append(notice.data)


async def test_every_change_of_access_is_told_to_streams(
    house: House, owner: Actor, guest: Actor, session: UUID
) -> None:
    admin, user = house.actor(Role.ADMIN), guest.user_id
    assert user is not None
    team = (await create_team(admin, name="Team"))["id"]
    await add_team_member(admin, team, user)
    one = {"sessions": [str(session)], "users": [str(user)]}

    async with access_notices(house) as told:
        [grant] = await share_session(owner, session, READ, users=[user])
    assert told == [one]
    async with access_notices(house) as told:
        await update_grant(owner, grant["id"], level=AccessLevel.WRITE)
        await leave_session(guest, session)
    assert told == [one, one]
    async with access_notices(house) as told:
        [grant] = await share_session(owner, session, READ, teams=[team])
        await revoke_grant(owner, grant["id"])
    assert told == [one, one]
    async with access_notices(house) as told:
        await remove_team_member(admin, team, user)
    assert told == [{"sessions": None, "users": [str(user)]}]
    async with access_notices(house) as told:
        await update_session(owner, session, SessionChanges(visibility=Visibility.ORGANIZATION))
        await update_session(owner, session, SessionChanges(title="No change of access"))
    assert told == [{"sessions": [str(session)], "users": None}]
    async with access_notices(house) as told:
        await update_sharing_policy(admin, PolicyChanges(organization_visibility=Allowance.FORBIDDEN))
    assert told == [{"sessions": None, "users": None}]
    [elsewhere] = await expiring(owner, guest, 1)
    async with access_notices(house) as told:
        await expire_grants()
    assert told == [{"sessions": [str(elsewhere)], "users": [str(user)]}]


async def test_people_are_told_of_what_they_get_and_once(
    house: House, owner: Actor, guest: Actor, session: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    collect = Work.notify

    def noting(work: Work, kind: NotificationKind, user_ids: Any, title: str, **more: Any) -> None:
        people = list(user_ids)
        told.append((kind, set(people), title, more))
        collect(work, kind, people, title, **more)

    monkeypatch.setattr(Work, "notify", noting)
    admin, user = house.actor(Role.ADMIN), guest.user_id
    assert user is not None
    team = (await create_team(admin, name="Team"))["id"]
    await add_team_member(admin, team, user)
    other = house.users[Role.OWNER]["id"]
    await add_team_member(admin, team, other)
    await share_session(owner, session, Terms(AccessLevel.READ, "please look"), users=[user], teams=[team])
    [(kind, people, title, more)] = told
    assert (kind, people) == (NotificationKind.SHARE, {user, other})
    assert title == f"{owner.name} lets you read “Untitled session”"
    assert more == {"body": "please look", "subject": ("Session", session)}
    # The same again is no news.
    await share_session(owner, session, Terms(AccessLevel.READ, "please look"), users=[user], teams=[team])
    assert len(told) == 1


async def test_a_grant_that_is_raised_ends_by_what_the_policy_allows_now(
    house: House, owner: Actor, guest: Actor, session: UUID
) -> None:
    [grant] = await share_session(owner, session, WRITE, users=[guest.user_id])  # type: ignore[list-item]
    await update_sharing_policy(house.actor(Role.ADMIN), PolicyChanges(longest_grant_days=7))
    # What is no more than before stays as it was given.
    assert (await update_grant(owner, grant["id"], note="still"))["expires_at"] is None
    assert (await update_grant(owner, grant["id"], level=AccessLevel.READ))["expires_at"] is None
    raised = await update_grant(owner, grant["id"], level=AccessLevel.ADMIN)
    week = datetime.now(UTC) + timedelta(days=7)
    assert week - timedelta(minutes=5) < raised["expires_at"] <= week
    # An end that is sooner stays, and one that is later than the policy lets does not.
    soon = datetime.now(UTC) + timedelta(days=1)
    await update_grant(owner, grant["id"], level=AccessLevel.READ, expires_at=soon)
    assert (await update_grant(owner, grant["id"], level=AccessLevel.WRITE))["expires_at"] == soon
    await update_sharing_policy(house.actor(Role.ADMIN), PolicyChanges(longest_grant_days=30))
    await update_grant(owner, grant["id"], level=AccessLevel.READ, expires_at=soon + timedelta(days=20))
    await update_sharing_policy(house.actor(Role.ADMIN), PolicyChanges(longest_grant_days=7))
    assert (await update_grant(owner, grant["id"], level=AccessLevel.WRITE))["expires_at"] < week + timedelta(hours=1)


async def test_the_policy_s_change_has_its_record(house: House) -> None:
    await update_sharing_policy(house.actor(Role.ADMIN), PolicyChanges(longest_grant_days=30))
    [record] = await audited("sharing_policy.update")
    assert record["before"]["longestGrantDays"] is None
    assert record["after"] == record["before"] | {"longestGrantDays": 30}
    with pytest.raises(Forbidden):
        await update_sharing_policy(house.actor(Role.MEMBER), PolicyChanges(longest_grant_days=1))
