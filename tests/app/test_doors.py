"""What the doors of the graph do with requests that are odd, clients that leave, and failures nobody foresaw.

A small schema of the tests' own stands behind the real doors, because the product's fields do not fail on demand.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import orjson
import pytest
from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInt,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import ConnectionClosed

from app import web
from app.graphql.http import GraphQLOverHttp
from app.graphql.requests import accepted
from app.graphql.websocket import GraphQLOverWebSocket
from app.http import files
from app.http.traffic import Traffic
from app.wiring import Program, serving
from core import db
from core.permissions import Role
from core.settings import Settings
from schema.execution import Graph
from schema.streams import Live
from services.identity.actors import actor_of_bearer
from services.identity.tokens import create_access_token, revoke_access_token
from services.sessions.lifecycle import NewSession, create_session, session_directory
from services.workspace import download_url
from tests.app.conftest import served
from tests.clients_of_graph import Client, Refused, Socket
from tests.services.identity_help import HERE, House, a_house, audited
from tests.talking import eventually

pytestmark = pytest.mark.anyio

GRAPHQL = "application/graphql-response+json"
CHANGE = "mutation { change }"


class Fields:
    """What the fields of the tests' schema do, and what has become of it."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.changes = 0
        self.streams_ended = 0

    async def slow(self, *_: Any) -> int:
        self.asked.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return 1

    async def change(self, *_: Any) -> int:
        self.asked.set()
        await self.go_on.wait()
        self.changes += 1
        return self.changes

    async def flood(self, *_: Any) -> AsyncIterator[str]:
        self.asked.set()
        try:
            while True:
                yield "x" * 200_000
                await asyncio.sleep(0)
        finally:
            self.streams_ended += 1

    async def deep_ones(self, *_: Any) -> AsyncIterator[Any]:
        yield deep(300)
        yield "shallow"

    def schema(self) -> GraphQLSchema:
        anything = GraphQLScalarType("Anything")
        query = {
            "slow": GraphQLField(GraphQLInt, resolve=self.slow),
            "deep": GraphQLField(anything, resolve=lambda *_: deep(300)),
            "echo": GraphQLField(
                anything, args={"value": GraphQLArgument(anything)}, resolve=lambda *_, value=None: value
            ),
        }
        subscription = {
            "flood": GraphQLField(GraphQLString, subscribe=self.flood, resolve=lambda event, *_: event),
            "deepOnes": GraphQLField(anything, subscribe=self.deep_ones, resolve=lambda event, *_: event),
        }
        return GraphQLSchema(
            GraphQLObjectType("Query", query),
            GraphQLObjectType("Mutation", {"change": GraphQLField(GraphQLInt, resolve=self.change)}),
            GraphQLObjectType("Subscription", subscription),
        )


class BrokenGraph(Graph):
    """Fails as nobody foresaw for operations that are named so."""

    async def prepare(self, request: Any, actor: Any) -> Any:
        if request.operation_name == "Broken":
            raise RecursionError("secret detail")
        return await super().prepare(request, actor)


class Door:
    def __init__(self, url: str, fields: Fields, house: House, program: Program) -> None:
        self.url, self.fields, self.house, self.program = url, fields, house, program
        self.anybody = Client(url, None)

    async def post(self, query: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=20) as http:
            return await http.post(
                self.url,
                json={"query": query},
                headers={name.replace("_", "-"): text for name, text in headers.items()},
            )

    def plain_socket(self) -> sockets.socket:
        """A connection with a small buffer, for clients that do not read."""
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", httpx.URL(self.url).port))
        return raw

    def send(self, raw: sockets.socket, query: str, *headers: str, cut: int = 0) -> None:
        body = orjson.dumps({"query": query})
        head = ["POST /graphql HTTP/1.1", "Host: test", "Content-Type: application/json", *headers]
        head.append(f"Content-Length: {len(body)}")
        raw.sendall("\r\n".join([*head, "", ""]).encode() + body[: len(body) - cut])

    def internal(self, errors: list[dict[str, Any]], log: str) -> None:
        """The errors are one masked failure, whose reason is in the log under its id."""
        [error] = errors
        assert error["extensions"]["code"] == "INTERNAL"
        assert error["extensions"]["errorId"] in error["message"]
        assert error["extensions"]["errorId"] in log


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
async def door(database: Program, settings_for_tests: Settings) -> AsyncIterator[Door]:
    fields = Fields()
    schema = fields.schema()
    graph = BrokenGraph(schema, settings_for_tests, plans=False)
    live, traffic = Live(graph, schema), Traffic()
    routes = [
        Route("/graphql", GraphQLOverHttp(graph, live, traffic)),
        WebSocketRoute("/graphql", GraphQLOverWebSocket(graph, live, traffic)),
    ]
    async with serving(database), served(Starlette(routes=routes), settings_for_tests) as base:
        yield Door(f"{base}/graphql", fields, await a_house(), database)
        fields.go_on.set()


# -- methods and media types


async def test_only_get_and_post_execute_anything(door: Door) -> None:
    made = await create_access_token(door.house.actor(Role.ADMIN), name="tests", scopes=None)
    door.fields.go_on.set()
    async with httpx.AsyncClient() as http:
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
            for credential in ({"cookie": "quarterdeck=anything"}, {"authorization": f"Bearer {made.secret}"}, {}):
                response = await http.request(method, door.url, params={"query": CHANGE}, headers=credential)
                assert response.status_code == 405
                assert {"GET", "POST"} <= set(response.headers["allow"].split(", "))
    assert door.fields.changes == 0


async def test_no_mutation_comes_by_get(door: Door) -> None:
    door.fields.go_on.set()
    async with httpx.AsyncClient() as http:
        assert (await http.get(door.url, params={"query": CHANGE})).status_code == 405
        assert (await http.get(door.url, params={"query": "{ slow }"})).json() == {"data": {"slow": 1}}
    assert door.fields.changes == 0


async def test_a_page_is_offered_to_get_alone(door: Door) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=.2"
    assert accepted(browser, page=True) == "text/html"
    response = await door.post("{ echo }", accept=browser)
    assert (response.status_code, response.json()) == (200, {"data": {"echo": None}})
    response = await door.post("{ echo }", accept=f"text/html, {GRAPHQL};q=0.5, */*;q=0.2")
    assert response.headers["content-type"].startswith(GRAPHQL)
    assert (await door.post("{ echo }", accept="text/html")).status_code == 406


async def test_the_content_type_is_read_with_all_its_parameters(door: Door) -> None:
    async with httpx.AsyncClient() as http:
        for content_type, status in (
            ("application/json", 200),
            ("application/json; charset=utf-8; x=y", 200),
            ('Application/JSON; x="a;charset=latin-1"; charset="UTF-8"', 200),
            ("application/json; charset=latin-1", 415),
            ("application/json; x=y; charset=utf-16", 415),
            ("text/plain; x=application/json", 415),
            ("", 415),
        ):
            body, headers = b'{"query": "{ echo }"}', {"content-type": content_type}
            response = await http.post(door.url, content=body, headers=headers)
            assert response.status_code == status, content_type


# -- depth and failures


async def test_variables_that_are_nested_too_deeply_are_refused_by_name(door: Door) -> None:
    document = "query ($other: Anything, $value: Anything) { a: echo(value: $other) echo(value: $value) }"

    def request(value: str) -> str:
        return f'{{"query": "{document}", "variables": {{"other": 1, "value": {value}}}}}'

    async with httpx.AsyncClient() as http, door.anybody.socket() as socket:
        for levels in (101, 900):
            for value in ("[" * levels + "]" * levels, '{"a":' * levels + "1" + "}" * levels):
                response = await http.post(
                    door.url, content=request(value), headers={"content-type": "application/json"}
                )
                assert response.status_code == 400
                [error] = response.json()["errors"]
                assert (error["extensions"]["code"], error["extensions"]["field"]) == ("BAD_INPUT", "value")
                assert "$value" in error["message"]
                await socket.websocket.send(f'{{"type": "subscribe", "id": "1", "payload": {request(value)}}}')
                message = await socket.message()
                assert message["type"] == "error"
                assert message["payload"][0]["extensions"]["field"] == "value"
    assert (await door.anybody(document, value=deep(100)))["echo"] == deep(100)


async def test_a_result_that_is_no_json_is_an_error_with_an_id(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    response = await door.post("{ deep }")
    assert response.status_code == 500
    door.internal(response.json()["errors"], caplog.text)

    response = await door.post("subscription { deepOnes }", accept="text/event-stream")
    first, second = (
        orjson.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line.startswith("data: ")
    )
    door.internal(first["errors"], caplog.text)
    assert second == {"data": {"deepOnes": "shallow"}}
    assert "event: complete" in response.text

    async with door.anybody.socket() as socket:
        stream = await socket.subscribe("subscription { deepOnes }")
        with pytest.raises(Refused) as refused:
            await stream.next()
        door.internal(refused.value.errors, caplog.text)
        assert await stream.next() == {"deepOnes": "shallow"}


async def test_a_failure_nobody_foresaw_is_masked_and_said(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    broken = {"query": "query Broken { echo }", "operationName": "Broken"}
    async with httpx.AsyncClient() as http:
        response = await http.post(door.url, json=broken)
        assert response.status_code == 500
        door.internal(response.json()["errors"], caplog.text)
        assert "secret detail" not in response.text
        response = await http.post(door.url, json=broken, headers={"accept": "text/event-stream"})
        [data] = [line for line in response.text.splitlines() if line.startswith("data: ")]
        door.internal(orjson.loads(data.removeprefix("data: "))["errors"], caplog.text)
        assert "event: complete" in response.text
    async with door.anybody.socket() as socket:
        await subscribe(socket, "1", **broken)
        message = await socket.message()
        assert (message["type"], message["id"]) == ("error", "1")
        door.internal(message["payload"], caplog.text)


# -- clients that leave


async def test_a_query_ends_with_its_client_and_without_a_traceback(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with door.plain_socket() as raw:
        door.send(raw, "{ slow }")
        await asyncio.wait_for(door.fields.asked.wait(), 10)
    await asyncio.wait_for(door.fields.cancelled.wait(), 10)
    with door.plain_socket() as raw:  # in the middle of its request
        door.send(raw, "{ slow }", cut=5)
        await asyncio.sleep(0.2)
    await asyncio.sleep(0.3)
    assert "Exception" not in caplog.text


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_mutation_runs_to_its_end_though_its_client_has_left(door: Door, accept: str) -> None:
    with door.plain_socket() as raw:
        door.send(raw, CHANGE, f"Accept: {accept}")
        await asyncio.wait_for(door.fields.asked.wait(), 10)
    await asyncio.sleep(0.3)
    door.fields.go_on.set()
    await asyncio.wait_for(_until(lambda: door.fields.changes == 1), 10)


async def test_a_mutation_runs_to_its_end_though_its_socket_has_closed(door: Door) -> None:
    async with door.anybody.socket() as socket:
        await socket.subscribe(CHANGE)
        await asyncio.wait_for(door.fields.asked.wait(), 10)
    await asyncio.sleep(0.3)
    door.fields.go_on.set()
    await asyncio.wait_for(_until(lambda: door.fields.changes == 1), 10)


async def _until(condition: Any) -> None:
    async def found() -> Any:
        return condition()

    await eventually(found)


# -- clients that do not read


async def test_an_event_stream_that_nobody_reads_is_let_go(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("app.graphql.events.SEND_SECONDS", 0.5)
    with door.plain_socket() as raw:
        door.send(raw, "subscription { flood }", "Accept: text/event-stream")
        await asyncio.wait_for(_until(lambda: door.fields.streams_ended == 1), 20)
    assert "did not read" in caplog.text


async def test_an_event_stream_that_nobody_reads_ends_with_access(door: Door) -> None:
    admin = door.house.actor(Role.ADMIN)
    made = await create_access_token(admin, name="tests", scopes=None)
    with door.plain_socket() as raw:
        authorization = f"Authorization: Bearer {made.secret}"
        door.send(raw, "subscription { flood }", "Accept: text/event-stream", authorization)
        await asyncio.wait_for(door.fields.asked.wait(), 10)
        await asyncio.sleep(0.5)
        assert door.fields.streams_ended == 0
        await revoke_access_token(admin, made.row["id"])
        # Sooner than for not reading.
        await asyncio.wait_for(_until(lambda: door.fields.streams_ended == 1), 10)


# -- sockets


async def subscribe(socket: Socket, id_: str, **payload: Any) -> None:
    await socket.websocket.send(orjson.dumps({"type": "subscribe", "id": id_, "payload": payload}).decode())


async def test_an_id_can_be_used_again_as_soon_as_its_error_is_read(database: Program) -> None:
    """This client reads and writes while the server is still in its call to send."""
    schema = Fields().schema()
    graph = Graph(schema, database.parts.settings, plans=False)
    given: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def say(**message: Any) -> None:
        given.put_nowait({"type": "websocket.receive", "text": orjson.dumps(message).decode()})

    async def send(event: Any) -> None:
        message = orjson.loads(event["text"]) if event["type"] == "websocket.send" else dict(event)
        sent.put_nowait(message)
        if message["type"] == "error":
            say(type="subscribe", id="same", payload={"query": "{ echo }"})
            await asyncio.sleep(0.1)

    scope = {"type": "websocket", "headers": [], "subprotocols": ["graphql-transport-ws"], "path": "/graphql"}
    given.put_nowait({"type": "websocket.connect"})
    say(type="connection_init")
    say(type="subscribe", id="same", payload={"query": "{ nothing }"})
    serving_it = asyncio.create_task(
        GraphQLOverWebSocket(graph, Live(graph, schema), Traffic())(scope, given.get, send)
    )
    seen = [(await asyncio.wait_for(sent.get(), 10))["type"] for _ in range(5)]
    given.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await serving_it
    assert seen == ["websocket.accept", "connection_ack", "error", "next", "complete"]


async def test_a_socket_without_credential_is_closed_after_a_while(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.graphql.websocket.ANONYMOUS_SECONDS", 0.5)
    made = await create_access_token(door.house.actor(Role.ADMIN), name="tests", scopes=None)
    async with Client(door.url, made.secret).socket() as signed_in:
        async with door.anybody.socket() as socket:
            await subscribe(socket, "1", query="{ __schema { queryType { name } } }")
            assert (await socket.message())["payload"]["data"]["__schema"] == {"queryType": {"name": "Query"}}
            assert (await socket.message())["type"] == "complete"
            with pytest.raises(ConnectionClosed) as closed:
                await socket.message()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        await subscribe(signed_in, "1", query="{ echo }")
        assert (await signed_in.message())["type"] == "next"


# -- the server and its other doors


async def test_only_named_proxies_are_believed(settings_for_tests: Settings) -> None:
    async def who(request: Request) -> Response:
        return PlainTextResponse(request.client.host if request.client else "")

    app = Starlette(routes=[Route("/", who)])
    for trusted, seen in (((), "127.0.0.1"), (("192.0.2.0/24",), "127.0.0.1"), (("127.0.0.0/8",), "198.51.100.7")):
        settings = settings_for_tests.model_copy(update={"trusted_proxies": trusted})
        async with served(app, settings) as base, httpx.AsyncClient() as http:
            response = await http.get(base, headers={"x-forwarded-for": "198.51.100.7"})
            assert response.text == seen, trusted


async def test_a_download_is_a_get_with_a_credential_that_is_still_good(database: Program) -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    session = await create_session(admin, NewSession())
    (session_directory(session["organization_id"], session["id"]) / "file").write_text("x")
    made = await create_access_token(admin, name="tests", scopes=None)
    by_token = await actor_of_bearer(str(made.secret), HERE)
    assert by_token is not None
    link, other = (download_url(actor, session["id"], "file") for actor in (by_token, admin))
    transport = httpx.ASGITransport(Starlette(routes=files.routes))
    async with httpx.AsyncClient(transport=transport) as http:
        head = await http.head(link)
        assert (head.status_code, head.headers["allow"]) == (405, "GET")
        assert await audited("workspace.download") == []
        assert (await http.get(link)).text == "x"
        await revoke_access_token(admin, made.row["id"])
        assert (await http.get(link)).status_code == 404
        assert (await http.get(other)).text == "x"
    assert len(await audited("workspace.download")) == 2


async def test_readiness_does_not_wait_for_a_database_that_is_stuck(
    database: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "READY_SECONDS", 0.2)
    transport = httpx.ASGITransport(web.WebApp(database.parts.settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/readyz")).status_code == 200
        async with _pool_taken(database.parts.settings.database_pool_size):
            response = await asyncio.wait_for(http.get("/readyz"), 10)
        assert response.status_code == 503
        assert response.json()["checks"]["database"] == {"ok": False, "problem": "TimeoutError"}
        assert await db.ping() > 0


@asynccontextmanager
async def _pool_taken(size: int) -> AsyncIterator[None]:
    """Every connection is busy with something slow."""
    tasks = [asyncio.create_task(db.fetchval("SELECT pg_sleep(3)")) for _ in range(size * 2)]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(Exception):
            await asyncio.gather(*tasks, return_exceptions=True)
