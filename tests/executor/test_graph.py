"""The product's graph by plans: mutations, masked errors, and what goes to graphql-core."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from core import db
from core.ids import encode
from core.permissions import Origin, Role
from core.settings import Settings
from schema.build import served_schema
from schema.context import Context
from schema.execution import Body, Graph, Refused, Request
from tests.executor.seeding import a_full_house
from tests.services.identity_help import House

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

MUTATIONS = [
    # What succeeds, and reads below it.
    """mutation ($s: ID!) {
         a: updateSession(input: {sessionId: $s, title: "One", labels: [{name: "x", value: "y"}]}) {
           session { title labels { name value } owner { name } messages(first: 1) { totalCount nodes { seq } } }
         }
         b: updateSession(input: {sessionId: $s, title: "Two"}) { session { ...S } }
       } fragment S on Session { __typename title status visibility }""",
    """mutation ($n: String!, $v: String = "by default") {
         setEnvironmentVariable(input: {name: $n, value: $v}) { environmentVariable { name } }
       }""",
    """mutation { createTeam(input: {name: "Blue"}) { team { name members { totalCount nodes { name } } } } }""",
    # Refused in the middle: what follows is not done.
    """mutation ($s: ID!) {
         a: terminateSession(input: {sessionId: $s}) { session { status } }
         b: resumeSession(input: {sessionId: $s}) { session { status } }
         c: updateSession(input: {sessionId: $s, title: "Three"}) { session { title } }
       }""",
    """mutation { createUser(input: {name: "", email: "no address", role: VIEWER}) { user { id } } }""",
    """mutation { sendMessage(input: {sessionId: "ses_nonsense", text: ""}) { message { text } run { number } } }""",
    """mutation ($s: ID!) { completeSession(input: {sessionId: $s, extra: 1}) { session { id } } }""",
]


def graphs() -> tuple[Graph, Graph]:
    settings = Settings(max_query_aliases=200)
    return Graph(served_schema(), settings, plans=False), Graph(served_schema(), settings)


def without_what_differs(body: Body) -> Any:
    """A response with ids and moments replaced: those of one organisation are not those of another."""
    text = orjson.dumps(body, default=str).decode()
    text = re.sub(r"(\b[a-z]{2,4}_)[0-9a-z]{16,26}\b", r"\1ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[0-9:.+Z]+", "MOMENT", text)
    return orjson.loads(text)


async def answer(graph: Graph, house: House, text: str, role: Role, variables: dict[str, Any] | None = None) -> Body:
    try:
        return await graph.execute(Request(text, variables or {}, None), Context(house.actor(role), Origin()))
    except Refused as refused:
        return refused.body


@pytest.mark.parametrize("role", [Role.ADMIN, Role.VIEWER])
async def test_mutations_come_to_the_same(role: Role) -> None:
    reference, planned = graphs()
    houses = [await a_full_house("Reference"), await a_full_house("Planned")]
    for text in MUTATIONS:
        found = []
        for graph, house in zip((reference, planned), houses, strict=True):
            session = await db.fetchval(
                "SELECT id FROM sessions WHERE organization_id = $1 AND title IN ('Session 1', 'One', 'Two')",
                house.organization_id,
            )
            variables = {"s": encode("ses", session), "n": "NAME"}
            given = {name: value for name, value in variables.items() if f"${name}" in text}
            found.append(without_what_differs(await answer(graph, house, text, role, given)))
        assert found[0] == found[1], text
        if role is Role.ADMIN and "terminate" in text:
            assert [error["path"] for error in found[1]["errors"]] == [["b"]]
            titles = await db.fetch("SELECT 1 FROM sessions WHERE title = 'Three'")
            assert not titles, "what follows a refused mutation that may not be null is not executed"
    states = [
        await db.fetch("SELECT title, status FROM sessions WHERE organization_id = $1 ORDER BY 1, 2", h.organization_id)
        for h in houses
    ]
    assert states[0] == states[1]
    assert planned.planned > 0
    assert not planned.fallbacks


async def test_unknown_failures_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, planned = graphs()
    house = await a_full_house(sessions=2)

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("resolvers.sessions.sessions", broken)
    body = await answer(planned, house, "{ viewer { user { name } } sessions { totalCount } }", Role.ADMIN)
    [error] = body["errors"]
    assert body["data"] is None
    assert error["path"] == ["sessions"]
    assert error["locations"] == [{"line": 1, "column": 28}]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "secret" not in orjson.dumps(body).decode()


async def test_what_plans_do_not_support_is_counted() -> None:
    reference, planned = graphs()
    house = await a_full_house(sessions=2)
    for text, variables, reason in (
        ("{ viewer { user { name } } __schema { queryType { name } } }", {}, "introspection"),
        ("query ($b: Boolean = true) { viewer { user { name @skip(if: $b) } } }", {"b": None}, "condition_null"),
    ):
        expected = without_what_differs(await answer(reference, house, text, Role.ADMIN, variables))
        found = without_what_differs(await answer(planned, house, text, Role.ADMIN, variables))
        for body in (expected, found):
            for error in body.get("errors", []):
                error["extensions"].pop("errorId")
        assert found == expected
        assert planned.fallbacks[reason] == 1
    assert planned.planned == 0


async def test_a_page_of_children_costs_as_many_statements_as_it_has_kinds() -> None:
    _, planned = graphs()
    house = await a_full_house(sessions=12)
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        body = await answer(
            planned,
            house,
            "{ sessions { nodes { owner { name } messages(first: 3) { totalCount nodes { author { id } } } } } }",
            Role.ADMIN,
        )
    finally:
        db.queries_seen.reset(mark)
    assert "errors" not in body
    # Sessions; their owners; their messages; how many; the messages' authors.
    assert len(seen) == 5, seen
