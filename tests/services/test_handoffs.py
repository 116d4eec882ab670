"""Handoffs where time and people get in the way: offers that run out, undoing too late, deactivations meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.errors import Conflict, IllegalTransition, QuarterdeckError
from core.permissions import Actor, Role
from models.base import Row
from models.sharing import AccessLevel
from services.handoffs import accept_handoff, expire_handoffs, offer_handoff, undo_handoff
from services.identity.accounts import create_user, set_successor, update_user
from services.identity.actors import actor_of_user
from services.sessions.lifecycle import NewSession, create_session
from services.sharing.giving import Terms
from services.sharing.grants import share_session
from services.sharing.policy import PolicyChanges, update_sharing_policy
from tests.services.identity_help import HERE, House, a_house, audited

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


async def somebody(house: House, name: str) -> Actor:
    row = await create_user(house.system, name=name, email=f"{name.lower()}@acme.example")
    return actor_of_user(row, None, HERE)


async def an_offer(house: House, receiver: Actor) -> tuple[UUID, UUID]:
    """The ids of a session of the member, and of its offer."""
    member = house.actor(Role.MEMBER)
    session = (await create_session(member, NewSession(title="Handed over")))["id"]
    assert receiver.user_id is not None
    return session, (await offer_handoff(member, session, receiver.user_id))["id"]


async def notices(user_id: UUID | None) -> list[str]:
    rows = await db.fetch("SELECT title FROM notifications WHERE user_id = $1 ORDER BY id", user_id, row=Row)
    return [row["title"] for row in rows]


async def test_an_offer_runs_out_whoever_notices_first(house: House) -> None:
    receiver = await somebody(house, "Receiver")
    session, handoff = await an_offer(house, receiver)
    await db.execute("UPDATE handoffs SET expires_at = now() - interval '1 second'")
    with pytest.raises(Conflict) as refused:
        await accept_handoff(receiver, handoff)
    assert refused.value.details["status"] == "EXPIRED"
    # Another offer does not wait for the sweep, nor does the sweep end it.
    assert receiver.user_id is not None
    again = (await offer_handoff(house.actor(Role.MEMBER), session, receiver.user_id))["id"]
    assert await expire_handoffs() == 0
    await db.execute("UPDATE handoffs SET expires_at = now() - interval '1 second' WHERE id = $1", again)
    assert await asyncio.gather(expire_handoffs(), expire_handoffs()) in ([1, 0], [0, 1])
    assert [row["status"] for row in await db.fetch("SELECT status FROM handoffs", row=Row)] == ["EXPIRED"] * 2
    records = await audited("handoff.expire")
    assert [record["actor_kind"] for record in records] == ["SYSTEM", "SYSTEM"]
    events = await db.fetch("SELECT seq, name FROM session_events WHERE session_id = $1 ORDER BY seq", session, row=Row)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["name"].rpartition(".")[2] for event in events if "handoff" in event["name"]] == [
        "offered",
        "expired",
        "offered",
        "expired",
    ]
    told = await notices(house.users[Role.MEMBER]["id"])
    assert told == ["The offer of “Handed over” has expired"]
    assert (await notices(receiver.user_id)).count("The offer of “Handed over” has expired") == 2


async def test_undoing_has_its_time(house: House) -> None:
    receiver = await somebody(house, "Receiver")
    session, handoff = await an_offer(house, receiver)
    await accept_handoff(receiver, handoff)
    await db.execute("UPDATE handoffs SET undo_until = now() - interval '1 second'")
    with pytest.raises(IllegalTransition):
        await undo_handoff(receiver, handoff)
    assert await db.fetchval("SELECT owner_id FROM sessions WHERE id = $1", session) == receiver.user_id
    [refusal] = await audited("handoff.undo")
    assert (refusal["outcome"], refusal["session_id"]) == ("REFUSED", session)


async def living_grants(session: UUID) -> list[Row]:
    return await db.fetch("SELECT * FROM grants WHERE resource_id = $1 AND revoked_at IS NULL", session, row=Row)


async def test_who_keeps_access_keeps_it_as_long_as_the_policy_lets(house: House) -> None:
    receiver = await somebody(house, "Receiver")
    await update_sharing_policy(house.actor(Role.ADMIN), PolicyChanges(longest_grant_days=7))
    session, handoff = await an_offer(house, receiver)
    await accept_handoff(receiver, handoff)
    [grant] = await living_grants(session)
    assert (grant["user_id"], grant["level"]) == (house.users[Role.MEMBER]["id"], "WRITE")
    left = grant["expires_at"] - datetime.now(UTC)
    assert timedelta(days=6) < left <= timedelta(days=7)


async def test_an_owner_who_has_a_grant_still_loses_it_with_the_session(house: House) -> None:
    """As those may who came to own it when grants were not ended."""
    giver, receiver = await somebody(house, "Giver"), await somebody(house, "Receiver")
    member = house.actor(Role.MEMBER)
    assert giver.user_id
    assert receiver.user_id
    session = (await create_session(member, NewSession()))["id"]
    await share_session(member, session, Terms(AccessLevel.ADMIN), users=[giver.user_id])
    await db.execute("UPDATE sessions SET owner_id = $2 WHERE id = $1", session, giver.user_id)
    handoff = (await offer_handoff(giver, session, receiver.user_id, keep_access=False))["id"]
    await accept_handoff(receiver, handoff)
    assert await living_grants(session) == []


async def test_very_many_sessions_are_left_at_once(house: House) -> None:
    """More than one statement takes the records of."""
    left, heir = await somebody(house, "Left"), await somebody(house, "Heir")
    assert left.user_id
    assert heir.user_id
    session = (await create_session(left, NewSession()))["id"]
    columns = [
        row["name"]
        for row in await db.fetch(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'sessions' "
            "AND column_name <> 'id' AND is_generated = 'NEVER'",
            row=Row,
        )
    ]
    await db.execute(
        f"INSERT INTO sessions (id, {', '.join(columns)}) SELECT gen_random_uuid(), {', '.join(columns)} "
        "FROM sessions, generate_series(1, 1500) WHERE id = $1",
        session,
    )
    await update_user(house.actor(Role.ADMIN), left.user_id, active=False, successor_id=heir.user_id)
    assert len({row["session_id"] for row in await audited("session.succeed")}) == 1501
    assert await db.fetchval("SELECT count(*) FROM sessions WHERE owner_id = $1", heir.user_id) == 1501


async def test_people_may_go_while_sessions_change_hands(house: House) -> None:
    """Whatever comes first, all of it is done in some order, nothing waits for ever, and no session is lost."""
    admin, member = house.actor(Role.ADMIN), house.actor(Role.MEMBER)
    for round_ in range(6):
        giver, receiver, heir = [await somebody(house, f"{name}{round_}") for name in ("Giver", "Receiver", "Heir")]
        assert giver.user_id
        assert receiver.user_id
        assert heir.user_id
        await set_successor(receiver, receiver.user_id, heir.user_id)
        await set_successor(heir, heir.user_id, giver.user_id)
        session = (await create_session(giver, NewSession()))["id"]
        handoff = (await offer_handoff(giver, session, receiver.user_id))["id"]
        results = await asyncio.gather(
            accept_handoff(receiver, handoff),
            update_user(admin, receiver.user_id, active=False),
            set_successor(heir, heir.user_id, receiver.user_id),
            update_user(admin, giver.user_id, active=False, successor_id=heir.user_id),
            offer_handoff(admin, session, heir.user_id),
            offer_handoff(member, session, heir.user_id),
            return_exceptions=True,
        )
        unforeseen = [
            one for one in results if isinstance(one, BaseException) and not isinstance(one, QuarterdeckError)
        ]
        assert not unforeseen, unforeseen
        # Both are gone: whichever of them had it, their heir has it.
        owner = await db.fetchval("SELECT owner_id FROM sessions WHERE id = $1", session)
        assert owner == heir.user_id
        assert not await db.fetchval(
            "SELECT count(*) FROM users JOIN users AS successor ON successor.id = users.successor_id "
            "WHERE successor.deactivated_at IS NOT NULL"
        )
