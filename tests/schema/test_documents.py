"""Documents that are new to a process: read once, bounded, and at nobody else's cost."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from core.errors import ErrorCode
from core.permissions import Actor, Origin, Role
from core.settings import Settings
from models.audit import INSTALLATION
from schema import documents
from schema.build import served_schema
from schema.context import Context
from schema.execution import Body, Graph, Refused, Request
from schema.persisted import Reference
from services.documents import register
from services.identity.actors import system_actor
from tests.services.identity_help import House, a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

ENTANGLED = {
    "one selection over and over": "{ " + "viewer { user { id } } " * 550 + "}",
    "nested": "{ " + "sessions { nodes { owner { id } } } " * 390 + "}",
    "arguments": "{ " + 'a: session(id: "x") { id } ' * 360 + "}",
    "fragments": "{ " + " ".join(f"...F{n}" for n in range(200)) + " } "
    + " ".join(f"fragment F{n} on Query {{ viewer {{ user {{ id }} }} }}" for n in range(200)),
    "fragments in fragments": "{ ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(300))
    + " fragment F300 on Query { viewer { user { id } } }",
}  # fmt: skip


@pytest.fixture
def graph() -> Graph:
    return Graph(served_schema(), Settings())


async def ask(graph: Graph, text: str, actor: Actor | None, **variables: Any) -> Body:
    """As a door does."""
    try:
        return await graph.execute(Request(text, variables, None), Context(actor, Origin()))
    except Refused as refused:
        return refused.body


def code(body: Body) -> str | None:
    return body["errors"][0]["extensions"]["code"] if "errors" in body else None


async def test_documents_that_are_costly_to_check_are_refused_before_they_have_cost_much(graph: Graph) -> None:
    for text in ENTANGLED.values():
        with pytest.raises(Refused) as refused:
            await graph.prepare(Request(text, {}, None), None)
        assert code(refused.value.body) == ErrorCode.LIMIT_EXCEEDED
        assert "entangled" in refused.value.body["errors"][0]["message"]


async def test_a_large_document_is_read_beside_the_requests(graph: Graph) -> None:
    house = await a_house()
    reading = asyncio.create_task(ask(graph, ENTANGLED["nested"], house.actor(Role.MEMBER)))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert code(reading.result()) == ErrorCode.LIMIT_EXCEEDED
    assert turns > 5  # it was once round the loop, or twice, while documents were read in it


async def test_many_who_send_the_same_new_document_have_it_read_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await a_house()
    read: list[str] = []
    original = documents.Reader.read

    def counted(self: documents.Reader, text: str) -> documents.Document:
        read.append(text)
        return original(self, text)

    monkeypatch.setattr(documents.Reader, "read", counted)
    text = "{ viewer { user { name } } }"
    bodies = await asyncio.gather(*(ask(graph, text, house.actor(Role.MEMBER)) for _ in range(20)))
    assert [code(body) for body in bodies] == [None] * 20
    assert read == [text]


async def test_whoever_sends_too_many_new_documents_waits_and_nobody_else(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "FREE_SECONDS", 0.05)
    monkeypatch.setattr(documents, "SHARE", 0.001)
    house = await a_house()
    flooder, other = house.actor(Role.ADMIN), house.actor(Role.MEMBER)

    def new() -> str:
        return f"query Q{uuid4().hex} {{ viewer {{ user {{ id name }} }} }}"

    known = new()
    assert code(await ask(graph, known, flooder)) is None
    for _ in range(200):
        refused = await ask(graph, new(), flooder)
        if code(refused):
            break
    assert code(refused) == ErrorCode.RATE_LIMITED
    assert refused["errors"][0]["extensions"]["retryAfterSeconds"] > 0
    # Documents that are known already, other users, and those who are not signed in, are no worse off.
    assert code(await ask(graph, known, flooder)) is None
    assert code(await ask(graph, new(), other)) is None
    assert code(await ask(graph, new(), None)) == ErrorCode.UNAUTHENTICATED


async def test_those_not_signed_in_are_one(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "FREE_SECONDS", 0.0)
    monkeypatch.setattr(documents, "SHARE", 0.001)
    assert code(await ask(graph, "{ viewer { user { id } } }", None)) == ErrorCode.UNAUTHENTICATED
    assert code(await ask(graph, "{ viewer { user { name } } }", None)) == ErrorCode.RATE_LIMITED


async def test_a_flood_of_documents_does_not_push_out_what_is_registered(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "FREE_SECONDS", 1000)
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    text = "query Registered { viewer { user { id name } } }"
    await register(system_actor(INSTALLATION), "web", "1", {"mine": text})
    assert code(await by_id(graph, "mine", house)) is None
    before = graph.kept()["registered"]
    filler = " ".join(f"# {'x' * 990}\n" for _ in range(150))
    for number in range(20):
        assert code(await ask(graph, f"query Q{number} {{ viewer {{ user {{ id }} }} }} {filler}", actor)) is None
    kept = graph.kept()
    assert kept["sent"].documents < 10
    assert kept["sent"].characters <= 1_000_000
    assert kept["registered"] == before
    assert before.documents == before.plans == 1


async def by_id(graph: Graph, identifier: str, house: House) -> Body:
    actor = house.actor(Role.MEMBER)
    return await graph.execute(Request("", {}, None, Reference(identifier)), Context(actor, Origin()))
