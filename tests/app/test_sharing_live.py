"""Whose access ends, for whatever reason, hears no more of a session within about a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from core.permissions import Role
from tests.app.conftest import People
from tests.clients_of_graph import Json, Refused
from tests.sharing_help import LEAVE, POLICY, UPDATE_GRANT, account, part, revoke, share, team_of
from tests.talking import BARE_EVENTS, UPDATE, create, send

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 4
"""A second, on a machine that is not busy."""

Cut = Callable[[], Awaitable[object]]


async def by_revoking(people: People, session: str) -> Cut:
    [grant] = await share(people.member.client, session, people.colleague.id)
    return lambda: revoke(people.member.client, grant["id"])


async def by_leaving(people: People, session: str) -> Cut:
    await share(people.member.client, session, people.colleague.id)
    return lambda: people.colleague.client(LEAVE, input={"sessionId": session})


async def by_expiry(people: People, session: str) -> Cut:
    [grant] = await share(people.member.client, session, people.colleague.id)

    async def cut() -> None:
        soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
        await people.member.client(UPDATE_GRANT, input={"grantId": grant["id"], "expiresAt": soon})
        await asyncio.sleep(0.5)

    return cut


async def by_leaving_the_team(people: People, session: str) -> Cut:
    team = await team_of(people.admin.client, people.colleague.id)
    await share(people.member.client, session, teamIds=[team])
    return lambda: part(people.admin.client, team, people.colleague.id)


async def by_visibility(people: People, session: str) -> Cut:
    change = {"sessionId": session, "visibility": "ORGANIZATION"}
    await people.member.client(UPDATE, input=change)
    return lambda: people.member.client(UPDATE, input=change | {"visibility": "PRIVATE"})


# What is in the session's log comes before all that happens after it; of the rest streams hear within a second.
@pytest.mark.parametrize(
    ("way", "seconds"),
    [(by_revoking, 0), (by_leaving, 0), (by_visibility, 0), (by_expiry, 1.5), (by_leaving_the_team, 1.5)],
)
async def test_a_stream_ends_with_the_access_that_it_had(
    people: People, way: Callable[[People, str], Awaitable[Cut]], seconds: float
) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    cut = await way(people, session)
    async with people.colleague.client.stream(BARE_EVENTS, id=session) as stream:
        heard: list[Json] = [await stream.next()]
        await cut()
        since = time.monotonic()
        await asyncio.sleep(seconds)
        await send(owner, session, "between us")
        with pytest.raises(Refused, match="NOT_FOUND"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    heard.append(await stream.next())
        assert time.monotonic() - since < PATIENCE_SECONDS
        assert "between us" not in orjson.dumps(heard).decode()


async def test_a_policy_that_closes_sessions_ends_their_streams(people: People) -> None:
    """In an organisation of its own, since others share theirs."""
    boss = people.stranger.client
    session = (await create(boss, visibility="ORGANIZATION"))["id"]
    guest = await account(boss, Role.MEMBER)
    async with guest.client.stream(BARE_EVENTS, id=session) as stream:
        await stream.next()
        try:
            await boss(POLICY, input={"organizationVisibility": "FORBIDDEN"})
            with pytest.raises(Refused, match="NOT_FOUND"):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while True:
                        await stream.next()
        finally:
            await boss(POLICY, input={"organizationVisibility": "ALLOWED"})


async def test_who_keeps_access_by_something_else_keeps_the_stream(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    team = await team_of(people.admin.client, guest.id)
    session = (await create(owner))["id"]
    await share(owner, session, teamIds=[team])
    [grant] = await share(owner, session, guest.id)
    async with guest.client.stream(BARE_EVENTS, id=session) as stream:
        await stream.next()
        await revoke(owner, grant["id"])
        await asyncio.sleep(1)
        await send(owner, session, "still here")
        events = await stream.until("sessionEvents", lambda event: event["name"] == "quarterdeck.message.sent")
        assert events[-1]["data"]["text"] == "still here"
