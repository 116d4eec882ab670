"""Documents by their ids, through every door: registered by operators, or remembered by Apollo's protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from click.testing import CliRunner

from app import documents as commands
from app.cli import main
from app.web import WebApp
from app.wiring import Program, serving
from core.errors import BadInput
from core.permissions import Role
from core.settings import Settings
from models.audit import INSTALLATION
from services.documents import register, sha256_of
from services.identity.actors import system_actor
from services.identity.tokens import create_access_token
from tests.app.conftest import served
from tests.clients_of_graph import Client, Json
from tests.conftest import Server
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio

GRAPHQL = "application/graphql-response+json"
VIEWER = "query Viewer { viewer { user { role } } }"
PAGE = "query Page($n: Int!) { sessions(first: $n) { nodes { id } } }"
CREATE = "mutation Create($input: CreateSessionInput!) { createSession(input: $input) { session { title } } }"
EVENTS = "subscription Changes { sessionChanges { kind session { title } } }"


def unique(text: str) -> str:
    """The same document, which no other test sends."""
    return f"# {uuid4().hex}\n{text}"


def apq(text: str) -> Json:
    return {"persistedQuery": {"version": 1, "sha256Hash": sha256_of(text)}}


@dataclass
class Door:
    """A web process of the test's own."""

    url: str
    token: str

    async def post(self, body: Any, *, accept: str = GRAPHQL, token: str | None = "admin") -> httpx.Response:
        headers = {"accept": accept, "content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {self.token}"
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.post(self.url, content=orjson.dumps(body), headers=headers)

    async def get(self, **parameters: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as http:
            headers = {"accept": GRAPHQL, "authorization": f"Bearer {self.token}"}
            return await http.get(self.url, params=parameters, headers=headers)


@asynccontextmanager
async def door_of(program: Program, **settings: Any) -> AsyncIterator[Door]:
    house = await a_house()
    made = await create_access_token(house.actor(Role.ADMIN), name="tests", scopes=None)
    found = program.parts.settings.model_copy(update=settings)
    async with serving(program), served(WebApp(found), found) as base:
        yield Door(f"{base}/graphql", str(made.secret))


@pytest.fixture
async def door(database: Program) -> AsyncIterator[Door]:
    async with door_of(database) as found:
        yield found


@pytest.fixture
async def strict(database: Program) -> AsyncIterator[Door]:
    """Executes registered documents only."""
    async with door_of(database, documents="registered") as found:
        yield found


async def registered(documents: dict[str, str]) -> None:
    await register(system_actor(INSTALLATION), "web", "1", documents)


def code(response: httpx.Response) -> str | None:
    body = response.json()
    return body["errors"][0]["extensions"]["code"] if "errors" in body else None


# -- by id


async def test_a_registered_document_is_executed_by_its_id_through_every_door(door: Door) -> None:
    digest = f"sha256:{sha256_of(VIEWER)}"
    await registered({"viewer": VIEWER, digest: VIEWER, "page": PAGE, "create": CREATE, "changes": EVENTS})
    for identifier in ("viewer", digest):
        response = await door.post({"documentId": identifier})
        assert (response.status_code, response.json()) == (200, {"data": {"viewer": {"user": {"role": "ADMIN"}}}})
        assert (await door.get(documentId=identifier)).json() == response.json()
    response = await door.post({"documentId": "page", "variables": {"n": 1}, "operationName": "Page"})
    assert response.json() == {"data": {"sessions": {"nodes": []}}}
    assert (await door.get(documentId="page", variables='{"n":1}')).json() == response.json()
    assert (await door.get(documentId="create", variables='{"input":{}}')).status_code == 405

    async with Client(door.url, door.token).socket() as socket:
        for id_, payload in (("1", {"documentId": "changes"}), ("2", {"documentId": "viewer"})):
            await socket.websocket.send(orjson.dumps({"type": "subscribe", "id": id_, "payload": payload}).decode())
        assert (await socket.message())["payload"]["data"]["viewer"]["user"]["role"] == "ADMIN"
        assert (await socket.message())["type"] == "complete"
        made = await door.post({"documentId": "create", "variables": {"input": {"title": "By id"}}})
        assert made.json()["data"]["createSession"]["session"]["title"] == "By id"
        event = await socket.message()
        assert event["payload"]["data"]["sessionChanges"]["session"]["title"] == "By id"

    response = await door.post({"documentId": "viewer"}, accept="text/event-stream")
    assert '"role":"ADMIN"' in response.text


async def test_what_is_registered_elsewhere_meanwhile_is_known_at_once(door: Door) -> None:
    assert (await door.post({"documentId": "other"})).status_code == 400
    await registered({"viewer": VIEWER})
    assert (await door.post({"documentId": "viewer"})).status_code == 200


async def test_an_id_that_stands_for_nothing_is_a_single_error(door: Door) -> None:
    for accept, status in ((GRAPHQL, 400), ("application/json", 200)):
        response = await door.post({"documentId": "nothing"}, accept=accept)
        assert (response.status_code, code(response)) == (status, "PERSISTED_QUERY_NOT_FOUND")
        [error] = response.json()["errors"]
        assert "data" not in response.json()
        assert "nothing" in error["message"]
        assert "operator" in error["message"]
    assert code(await door.get(documentId="nothing")) == "PERSISTED_QUERY_NOT_FOUND"
    async with Client(door.url, door.token).socket() as socket:
        message = {"type": "subscribe", "id": "1", "payload": {"documentId": "nothing"}}
        await socket.websocket.send(orjson.dumps(message).decode())
        answer = await socket.message()
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "PERSISTED_QUERY_NOT_FOUND")


async def test_what_cannot_name_a_document_is_refused_with_its_place(door: Door) -> None:
    digest = sha256_of(VIEWER)
    for body, field in (
        ({"documentId": 5}, "documentId"),
        ({"documentId": ""}, "documentId"),
        ({"documentId": "a b"}, "documentId"),
        ({"documentId": "sha256:" + digest.upper()}, "documentId"),
        ({"documentId": "md5:" + digest}, "documentId"),
        ({"documentId": "x" * 100_000}, "documentId"),
        ({"documentId": "nul\0"}, "documentId"),
        ({"documentId": ["viewer"]}, "documentId"),
        ({"query": VIEWER, "documentId": "viewer"}, "documentId"),
        ({"query": VIEWER, "documentId": "sha256:" + "0" * 64}, "documentId"),
        ({"extensions": {"persistedQuery": "x"}}, "extensions.persistedQuery"),
        ({"extensions": {"persistedQuery": {"version": 2, "sha256Hash": digest}}}, "extensions.persistedQuery"),
        ({"extensions": {"persistedQuery": {"version": 1}}}, "extensions.persistedQuery.sha256Hash"),
        ({"query": VIEWER, "extensions": apq(PAGE)}, "extensions.persistedQuery.sha256Hash"),
        ({"extensions": {}}, "query"),
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "", "documentId": "viewer"}, "query"),
    ):
        response = await door.post(body)
        assert (response.status_code, code(response)) == (400, "BAD_INPUT"), body
        [error] = response.json()["errors"]
        assert error["extensions"]["field"] == field, body
        assert len(error["message"]) < 400


async def test_documents_by_id_have_limits_like_all_others(door: Door) -> None:
    deep = "{ sessions { nodes { id " + "forkedFrom { " * 20 + "id" + " }" * 20 + " } } }"
    await registered({"deep": deep, "wrong": "{ nothing }", "none": "fragment F on Query { __typename }"})
    assert code(await door.post({"documentId": "deep"})) == "LIMIT_EXCEEDED"
    assert code(await door.post({"documentId": "wrong"})) == "BAD_INPUT"
    assert code(await door.post({"documentId": "none"})) == "BAD_INPUT"
    await registered({"viewer": VIEWER})
    assert code(await door.post({"documentId": "viewer"}, token=None)) == "UNAUTHENTICATED"


# -- Apollo's automatic persisted queries


async def test_a_document_is_remembered_by_its_hash(door: Door) -> None:
    text = unique(VIEWER)
    response = await door.post({"extensions": apq(text)}, accept="application/json")
    assert response.status_code == 200
    [error] = response.json()["errors"]
    assert (error["message"], code(response)) == ("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")
    expected = {"data": {"viewer": {"user": {"role": "ADMIN"}}}}
    assert (await door.post({"query": text, "extensions": apq(text)})).json() == expected
    assert (await door.post({"extensions": apq(text)})).json() == expected
    assert (await door.get(extensions=json.dumps(apq(text)))).json() == expected
    assert (await door.post({"documentId": f"sha256:{sha256_of(text)}"})).json() == expected


async def test_only_valid_documents_are_remembered_and_none_is_registered_by_it(door: Door) -> None:
    text = unique("{ nothing }")
    assert code(await door.post({"query": text, "extensions": apq(text)})) == "BAD_INPUT"
    assert code(await door.post({"extensions": apq(text)})) == "PERSISTED_QUERY_NOT_FOUND"


async def test_registered_documents_are_known_by_hash_at_once(door: Door) -> None:
    await registered({"viewer": VIEWER})
    assert (await door.post({"extensions": apq(VIEWER)})).status_code == 200


# -- only what is registered


async def test_only_registered_documents_are_executed_where_operators_say_so(strict: Door) -> None:
    await registered({"viewer": VIEWER})
    expected = {"data": {"viewer": {"user": {"role": "ADMIN"}}}}
    for body in ({"documentId": "viewer"}, {"query": VIEWER}, {"query": VIEWER, "extensions": apq(VIEWER)}):
        assert (await strict.post(body)).json() == expected
    for text in (PAGE, VIEWER + " ", "{ __schema { queryType { name } } }", "{", unique(EVENTS)):
        for body in ({"query": text}, {"query": text, "extensions": apq(text)}):
            response = await strict.post(body)
            assert (response.status_code, code(response)) == (400, "FORBIDDEN")
            assert "documents register" in response.json()["errors"][0]["message"]
        assert code(await strict.post({"extensions": apq(text)})) == "PERSISTED_QUERY_NOT_FOUND"
    async with Client(strict.url, strict.token).socket() as socket:
        message = {"type": "subscribe", "id": "1", "payload": {"query": EVENTS}}
        await socket.websocket.send(orjson.dumps(message).decode())
        assert (await socket.message())["payload"][0]["extensions"]["code"] == "FORBIDDEN"


# -- operators


def files_of(folder: Path, mark: str) -> tuple[list[Path], dict[str, str]]:
    """A file of each kind, and the documents in them by how a client asks for them."""
    relay, manifest, file = folder / "relay.json", folder / "manifest.json", folder / "create.graphql"
    viewer, page, create = (f"# {mark}\n{text}" for text in (VIEWER, PAGE, CREATE))
    relay.write_text(json.dumps({f"relay-{mark}": viewer}))
    operations = [{"id": sha256_of(page), "name": "Page", "type": "query", "body": page}]
    manifest.write_text(
        json.dumps({"format": "apollo-persisted-query-manifest", "version": 1, "operations": operations})
    )
    file.write_text(create)
    found = {f"relay-{mark}": viewer, sha256_of(page): page, f"sha256:{sha256_of(create)}": create}
    return [relay, manifest, file], found


async def test_what_operators_register_is_executed_by_processes_that_run(server: Server, tmp_path: Path) -> None:
    mark = uuid4().hex[:8]
    paths, found = files_of(tmp_path, mark)
    said = server.command("documents", "register", "--client", "web", "--release", mark, *map(str, paths))
    assert f"web {mark}: 3 documents, 3 of them new" in said
    door = Door(server.url, server.token)
    for identifier in found:
        response = await door.post({"documentId": identifier, "variables": {"n": 1, "input": {"title": "x"}}})
        assert "errors" not in response.json(), response.text
    by_hash = {"persistedQuery": {"version": 1, "sha256Hash": list(found)[1]}}
    assert "data" in (await door.post({"extensions": by_hash, "variables": {"n": 1}})).json()
    assert "documents fit" in server.command("documents", "check")


async def test_operators_list_check_and_retire(settings_for_tests: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    paths, found = files_of(tmp_path, "one")
    for _ in range(2):
        await commands.register(settings_for_tests, "web", "1.0", paths, said.append)
    assert said == ["web 1.0: 3 documents, 3 of them new to it.", "web 1.0: 3 documents, 0 of them new to it."]
    paths[0].write_text(json.dumps({"relay-one": found["relay-one"], "relay-two": PAGE}))
    await commands.register(settings_for_tests, "web", "1.1", paths[:1], said.append)
    assert await commands.check(settings_for_tests, said.append)
    assert said[-1] == "All 4 documents fit."

    # As if the schema had changed since.
    async with commands._connected(settings_for_tests):
        await registered({"old": "{ sessionsOfOld { id } }"})
    assert not await commands.check(settings_for_tests, said.append)
    assert said[-3] == "old (web 1)"
    assert "sessionsOfOld" in said[-2]
    assert "1 of them broken" in said[-1]

    await commands.retire(settings_for_tests, "web", "1", said.append)
    await commands.retire(settings_for_tests, "web", "1.0", said.append)
    assert "2 documents are not executed any more" in said[-1]
    assert await commands.check(settings_for_tests, said.append)
    del said[:]
    await commands.list_releases(settings_for_tests, said.append)
    assert [(line.split()[:3], "retired" in line) for line in said] == [
        (["web", "1", "1"], True),
        (["web", "1.1", "2"], False),
        (["web", "1.0", "3"], True),
    ]


async def test_documents_that_do_not_fit_are_not_registered(settings_for_tests: Settings, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    costly = (
        "{ sessions(first: 100) { nodes { messages(first: 100) { nodes { run { messages { nodes { id } } } } } } } }"
    )
    for content, words in (
        ({"a": "{ nothing }", "b": VIEWER}, "Nothing was registered.\n  a: Cannot query field 'nothing'"),
        ({"a": "{"}, "Syntax Error"),
        ({"a": costly}, "cost is"),
        ({"a b": VIEWER}, "not the id of a document"),
        ({"sha256:" + "0" * 64: VIEWER}, "not the SHA-256"),
        ([VIEWER], "no map of documents"),
        ({"a": 1}, "no map of documents"),
        ({"format": "apollo-persisted-query-manifest", "version": 2}, "version"),
        ({"format": "apollo-persisted-query-manifest", "version": 1, "operations": [1]}, "without id"),
    ):
        bad.write_text(json.dumps(content))
        with pytest.raises(BadInput) as refused:
            await commands.register(settings_for_tests, "bad", "1", [bad], print)
        assert words in refused.value.message
    for raw in (b"\xff", b"{"):
        bad.write_bytes(raw)
        with pytest.raises(BadInput):
            await commands.register(settings_for_tests, "bad", "1", [bad], print)
    said: list[str] = []
    await commands.list_releases(settings_for_tests, said.append)
    assert said == []


def test_check_exits_with_1_where_a_document_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> bool:
        return False

    monkeypatch.setattr(commands, "check", broken)
    assert CliRunner().invoke(main, ["documents", "check"]).exit_code == 1
