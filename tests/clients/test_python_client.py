"""A session through `gql`, the GraphQL client that people use from Python."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportConnectionFailed
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from websockets.exceptions import ConnectionClosed

from tests.clients.stories import Event, assert_nothing_missed_or_repeated
from tests.conftest import Server

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 30


def over_http(server: Server) -> Client:
    transport = HTTPXAsyncTransport(url=server.url, headers={"Authorization": f"Bearer {server.token}"})
    return Client(transport=transport, fetch_schema_from_transport=True)


def over_socket(server: Server, token: str) -> Client:
    payload = {"authorization": f"Bearer {token}"}
    return Client(transport=WebsocketsTransport(url=server.ws_url, init_payload=payload))


async def read_until(events: AsyncGenerator[dict[str, Any], None], fits: Callable[[Event], bool]) -> list[Event]:
    """The events up to the first that fits; then the subscription is ended."""
    read: list[Event] = []
    with anyio.fail_after(PATIENCE_SECONDS):
        async with aclosing(events):
            async for data in events:
                read.append(data["sessionEvents"])
                if fits(read[-1]):
                    return read
    raise AssertionError(f"the stream ended after {read}")


async def test_session_with_a_reconnect_in_the_middle(server: Server, document: Callable[[str], str]) -> None:
    def request(name: str, **variables: Any) -> GraphQLRequest:
        return GraphQLRequest(document(name), variable_values=variables)

    def events(socket: AsyncClientSession, after: str | None) -> AsyncGenerator[dict[str, Any], None]:
        return socket.subscribe(request("session_events", sessionId=session_id, after=after))

    async with over_http(server) as http:
        viewer = await http.execute(request("viewer"))
        assert "@" in viewer["viewer"]["user"]["email"]
        created = await http.execute(request("create_session", input={"runtime": "script"}))
        session_id = created["createSession"]["session"]["id"]

        async with over_socket(server, server.token) as socket:
            stream = events(socket, None)
            await http.execute(request("send_message", input={"sessionId": session_id, "text": "/tool list_files {}"}))
            before = await read_until(stream, lambda event: event["type"] == "TOOL_CALL_START")

        async with over_socket(server, server.token) as socket:
            after = await read_until(
                events(socket, before[-1]["cursor"]), lambda event: event["type"] == "RUN_FINISHED"
            )

        async with over_socket(server, server.token) as socket:
            last = (after[-1]["seq"], "RUN_FINISHED")
            again = await read_until(events(socket, None), lambda event: (event["seq"], event["type"]) == last)

    assert_nothing_missed_or_repeated(before, after, again, runs=1)


async def test_socket_with_a_foreign_token_is_refused(server: Server, document: Callable[[str], str]) -> None:
    with pytest.raises(TransportConnectionFailed) as refusal:
        async with over_socket(server, "not-a-token") as socket:
            await socket.execute(GraphQLRequest(document("viewer")))
    closed = refusal.value.__cause__
    assert isinstance(closed, ConnectionClosed)
    assert closed.rcvd is not None
    assert closed.rcvd.code == 4403
