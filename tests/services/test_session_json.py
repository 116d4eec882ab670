"""JSON of clients that could be stored and never read again, or not be stored, is refused with its field."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.wiring import Program
from core import db
from core.errors import BadInput
from core.permissions import Actor, Role
from integrations.agents.base import Outcome, RuntimeEvent, ToolCall
from services.runs.executor import RunExecutor
from services.runs.queue import job_of
from services.sessions.approvals import decide_approval, expire_approvals
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.options import check_options
from tests.fakes.puppet import Puppet, Strings, end
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


UNSTORABLE: list[tuple[dict[str, Any], str]] = [
    (nested(101), "100 levels"),
    (nested(252), "100 levels"),
    (nested(5000), "100 levels"),
    ({"list": [[2**63]]}, "64 bits"),
    ({"n": -(2**63) - 1}, "64 bits"),
    ({"n": float("inf")}, "infinite"),
    ({"text": "a\0b"}, "NUL"),
    ({"a\0b": 1}, "NUL"),
    ({"text": "\ud800"}, "surrogate"),
]
LARGEST = nested(99) | {"n": [2**63 - 1, -(2**63), 1.5, True, None, "\\u0000 \U0001f600"]}


async def asking(strings: Strings) -> AsyncIterator[RuntimeEvent]:
    await strings.hooks.before_tool(ToolCall("c1", "shell", {"command": "ls"}))
    yield end(Outcome.WAITING)


@pytest.fixture
async def actor(database: Program) -> Actor:
    database.parts.runtimes["puppet"] = Puppet(asking)  # type: ignore[index]
    return (await a_house()).actor(Role.MEMBER)


async def an_approval(actor: Actor) -> UUID:
    async def sweep(jobs: Any) -> int:
        return 0

    session = await create_session(actor, NewSession(runtime="puppet", message="go"))
    run = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1", session["id"])
    await RunExecutor(sweep).execute(job_of(run["id"], run["organization_id"], 1))
    return await db.fetchval("SELECT id FROM approvals WHERE run_id = $1", run["id"])  # type: ignore[no-any-return]


async def test_arguments_of_a_decision_are_what_can_be_read_again(actor: Actor) -> None:
    approval = await an_approval(actor)
    for arguments, reason in UNSTORABLE:
        with pytest.raises(BadInput, match=reason) as refused:
            await decide_approval(actor, approval, approve=True, note=None, arguments=arguments)
        assert refused.value.field == "arguments"
    assert await db.fetchval("SELECT status FROM approvals WHERE id = $1", approval) == "PENDING"
    decided = await decide_approval(actor, approval, approve=True, note=None, arguments=LARGEST)
    assert decided["arguments"] == LARGEST
    row = await db.fetchrow("SELECT * FROM approvals WHERE id = $1", approval)
    assert row["arguments"] == LARGEST


@pytest.mark.parametrize(("name", "place"), [("extra", "options.extra"), ("output_schema", "options.outputSchema")])
async def test_options_are_what_can_be_read_again(name: str, place: str, actor: Actor) -> None:
    for value, reason in UNSTORABLE:
        with pytest.raises(BadInput, match=reason) as refused:
            check_options({name: value})
        assert refused.value.field == place
    options = check_options({"extra": LARGEST})
    session = await create_session(actor, NewSession(runtime="puppet", options=options))
    assert session["options"] == {"extra": LARGEST}


async def test_an_approval_that_cannot_expire_does_not_keep_others_from_it(actor: Actor, database_url: str) -> None:
    first, second = await an_approval(actor), await an_approval(actor)
    await db.execute("UPDATE approvals SET expires_at = now() - interval '2 hours' WHERE id = $1", first)
    await db.execute("UPDATE approvals SET expires_at = now() - interval '1 hour' WHERE id = $1", second)
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk on fire'; END $$"
        )
        await connection.execute(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON approvals FOR EACH ROW WHEN (OLD.id = '{first}') "
            "EXECUTE FUNCTION refuse()"
        )
        assert await expire_approvals() == 1
        assert await db.fetchval("SELECT status FROM approvals WHERE id = $1", second) == "EXPIRED"
        await connection.execute("DROP TRIGGER refuse ON approvals")
    finally:
        await connection.close()
    assert await expire_approvals() == 1
    assert await db.fetchval("SELECT status FROM approvals WHERE id = $1", first) == "EXPIRED"
