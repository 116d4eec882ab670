"""All roles with all that gives access: lists, single and nested reads, mutations and streams agree on what it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from core.ids import decode, encode, new_id
from core.permissions import Role
from tests.app.conftest import People, Person
from tests.clients_of_graph import Client, Refused
from tests.conftest import Server
from tests.sharing_help import SHARE, account, revoke, share, team_of
from tests.talking import FORK, UPDATE, create

pytestmark = pytest.mark.anyio

LEVELS = [None, "READ", "WRITE", "ADMIN"]
# What each way gives to somebody who is no admin of the organisation.
GIVES = {
    "owner": "ADMIN",
    "none": None,
    "READ": "READ",
    "WRITE": "WRITE",
    "ADMIN": "ADMIN",
    "READ by team": "READ",
    "WRITE by team": "WRITE",
    "ADMIN by team": "ADMIN",
    "READ, and WRITE by team": "WRITE",
    "expired": None,
    "revoked": None,
    "organisation": "READ",
    "organisation, and WRITE": "WRITE",
}
READ = """
query ($session: ID!, $message: ID!) {
  session(id: $session) { id access { level } messages { nodes { id } } }
  node(id: $session) { id }
  message: node(id: $message) { ... on Message { id session { id } } }
}
"""
LIST = """
query ($label: String!) {
  sessions(first: 100, filter: {labels: [{name: "matrix", value: $label}]}) { totalCount nodes { id } }
}
"""
FIRST_EVENT = "subscription ($id: ID!) { sessionEvents(sessionId: $id) { seq session { id } } }"


@asynccontextmanager
async def database_of(server: Server) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.environment["QUARTERDECK_DATABASE_URL"])
    try:
        yield connection
    finally:
        await connection.close()


async def make(
    owner: Client, one: Person, team: str, way: str, label: str, connection: asyncpg.Connection
) -> tuple[str, str]:
    """A session of the owner that somebody has access to in this way, and a message in it."""
    visibility = "ORGANIZATION" if way.startswith("organisation") else "PRIVATE"
    session = (await create(owner, visibility=visibility, labels=[{"name": "matrix", "value": label}]))["id"]
    uuid, message = decode("ses", session), new_id()
    await connection.execute(
        "INSERT INTO messages (id, organization_id, session_id, seq, role, status, reasoning, text, created_at) "
        "SELECT $2, organization_id, id, 1, 'USER', 'COMPLETE', false, 'hello', now() FROM sessions WHERE id = $1",
        uuid,
        message,
    )
    for part in way.split(", "):
        level, _, by_team = part.removeprefix("and ").partition(" ")
        if level == "owner":
            await connection.execute("UPDATE sessions SET owner_id = $2 WHERE id = $1", uuid, decode("usr", one.id))
        elif level in ("expired", "revoked"):
            [grant] = await share(owner, session, one.id, level="ADMIN")
            if level == "revoked":
                await revoke(owner, grant["id"])
            else:
                await connection.execute(
                    "UPDATE grants SET expires_at = now() - interval '1 minute' WHERE id = $1",
                    decode("gra", grant["id"]),
                )
        elif level in LEVELS:
            if by_team:
                await share(owner, session, level=level, teamIds=[team])
            else:
                await share(owner, session, one.id, level=level)
    return session, encode("msg", message)


async def code_of(client: Client, document: str, **variables: object) -> str | None:
    """The code that an operation is refused with; None where it is done."""
    try:
        await client(document, **variables)
    except Refused as refused:
        return refused.codes[0]  # type: ignore[no-any-return]
    return None


@pytest.mark.parametrize("role", list(Role))
async def test_every_door_agrees_on_what_is_given(people: People, server: Server, role: Role) -> None:
    owner, label = people.member.client, uuid4().hex
    one = people.admin if role is Role.OWNER else await account(people.admin.client, role)
    team = await team_of(people.admin.client, one.id)
    async with database_of(server) as connection:
        made = {way: await make(owner, one, team, way, label, connection) for way in GIVES}
    admin = role in (Role.OWNER, Role.ADMIN)
    levels = {way: "ADMIN" if admin else level for way, level in GIVES.items()}

    listed = (await one.client(LIST, label=label))["sessions"]
    seen = {made[way][0] for way, level in levels.items() if level is not None}
    assert {node["id"] for node in listed["nodes"]} == seen
    assert listed["totalCount"] == len(seen)

    for way, (session, message) in made.items():
        level = levels[way]
        found = await one.client(READ, session=session, message=message)
        if level is None:
            assert found == {"session": None, "node": None, "message": None}, way
        else:
            assert found["session"]["access"]["level"] == level, way
            assert found["session"]["messages"]["nodes"] == [{"id": message}], way
            assert found["node"] == {"id": session}
            assert found["message"] == {"id": message, "session": {"id": session}}, way

    # The least first, for each does something to the session.
    for needs, document, input in (
        ("READ", FORK, {}),
        ("WRITE", UPDATE, {"title": "Changed"}),
        ("ADMIN", SHARE, {"userIds": [people.colleague.id], "level": "READ"}),
    ):
        codes = await asyncio.gather(
            *(code_of(one.client, document, input={"sessionId": made[way][0]} | input) for way in GIVES)
        )
        for way, code in zip(GIVES, codes, strict=True):
            level = levels[way]
            if role is Role.VIEWER:
                expected = "FORBIDDEN"
            elif level is None:
                expected = "NOT_FOUND"
            else:
                expected = None if LEVELS.index(level) >= LEVELS.index(needs) else "FORBIDDEN"
            assert code == expected, (way, needs)

    firsts = await asyncio.gather(*(first_event(one.client, made[way][0]) for way in GIVES))
    for way, first in zip(GIVES, firsts, strict=True):
        assert first == ("NOT_FOUND" if levels[way] is None else made[way][0]), way


async def first_event(client: Client, session: str) -> str:
    """The session of a stream's first event, or the code that the stream is refused with."""
    async with client.stream(FIRST_EVENT, id=session) as stream:
        try:
            event = (await stream.next())["sessionEvents"]
        except Refused as refused:
            return refused.codes[0]  # type: ignore[no-any-return]
    assert event["seq"] == 1
    return event["session"]["id"]  # type: ignore[no-any-return]
