"""Streams over WebSocket and server-sent events: the same, resumable, ended when access ends, fair to all."""

from __future__ import annotations

import asyncio
import socket as sockets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import Server
from tests.talking import BARE_EVENTS, EVENTS, UPDATE, create, ended, following, send, talk, texts

pytestmark = pytest.mark.anyio

TOKEN = """
mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret accessToken { id } } }
"""
REVOKE = "mutation ($input: RevokeAccessTokenInput!) { revokeAccessToken(input: $input) { accessToken { id } } }"
CHANGES = """
subscription ($filter: SessionFilter, $after: Cursor) {
  sessionChanges(filter: $filter, after: $after) { cursor kind session { id title status } }
}
"""


@asynccontextmanager
async def server_sent(client: Client, document: str, **variables: Any) -> AsyncIterator[AsyncIterator[Json]]:
    """The results of an operation as server-sent events."""
    body = {"query": document, "variables": variables}
    async with (
        httpx.AsyncClient(timeout=30) as http,
        http.stream(
            "POST", client.url, json=body, headers=client.headers | {"accept": "text/event-stream"}
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")

        async def results() -> AsyncIterator[Json]:
            name = ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data:") and name == "next":
                    yield orjson.loads(line.removeprefix("data:"))

        yield results()


async def new_token(client: Client) -> tuple[Client, str]:
    made = (await client(TOKEN, input={"name": "to be revoked"}))["createAccessToken"]
    return Client(client.url, made["secret"]), made["accessToken"]["id"]


async def test_the_same_stream_comes_over_both_transports_from_every_cursor(people: People) -> None:
    client = people.member.client
    session = (await create(client, message="hello"))["id"]
    async with following(client, session) as stream:
        whole = await stream.until(ended)
    assert [event["seq"] for event in whole if event["type"] != "TEXT_MESSAGE_CONTENT"] == list(
        range(1, whole[-1]["seq"] + 1)
    )

    def stored(events: list[Json]) -> list[Json]:
        # Pieces are cut where they came; put together they are the same.
        return [event for event in events if event["type"] != "TEXT_MESSAGE_CONTENT"]

    async with server_sent(client, BARE_EVENTS, id=session) as results:
        events = []
        async for body in results:
            events.append(body["data"]["sessionEvents"])
            if ended(events[-1]):
                break
    assert stored(events) == stored(whole)
    assert texts(events) == texts(whole)

    async with client.socket() as socket:
        for cut in range(len(whole) - 1):
            resumed = await socket.subscribe(BARE_EVENTS, id=session, after=whole[cut]["cursor"])
            rest = await resumed.until("sessionEvents", ended)
            assert stored(rest) == stored(whole[cut + 1 :])
            assert texts(whole[: cut + 1] + rest) == texts(whole)
            await socket.websocket.send(orjson.dumps({"type": "complete", "id": resumed.id}).decode())


async def test_events_bring_the_objects_they_are_about(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    async with following(client, session, document=EVENTS) as stream:
        sent = await send(client, session, "/tool list_files {}")
        events = await stream.until(ended)
    by_name = {event["name"] or event["type"]: event for event in events}
    assert by_name["quarterdeck.message.sent"]["message"]["id"] == sent["message"]["id"]
    assert by_name["RUN_FINISHED"]["run"] == {"id": sent["run"]["id"], "status": "FINISHED"}
    assert by_name["TOOL_CALL_START"]["toolExecution"]["id"] == by_name["TOOL_CALL_RESULT"]["toolExecution"]["id"]
    assert by_name["TOOL_CALL_START"]["actorKind"] == "AGENT"
    assert by_name["TEXT_MESSAGE_END"]["data"]["text"] == "".join(
        event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT"
    )


async def test_a_list_of_sessions_is_kept_live_from_where_it_was_read(people: People) -> None:
    client = people.member.client
    cursor = (await client("{ sessionChangesCursor }"))["sessionChangesCursor"]
    first = (await create(client, title="While away"))["id"]
    async with client.stream(CHANGES, after=cursor) as stream:

        async def change_of(session: str, kind: str, within: float = 10) -> Json:
            changes = await stream.until(
                "sessionChanges",
                lambda change: change["session"]["id"] == session and change["kind"] == kind,
                within,
            )
            return changes[-1]

        seen = await change_of(first, "CREATED")
        assert seen["session"]["title"] == "While away"
        second = (await create(client))["id"]
        await change_of(second, "CREATED")
        hidden = (await create(people.colleague.client))["id"]
        await client(UPDATE, input={"sessionId": second, "title": "New name"})
        changes = await stream.until("sessionChanges", lambda change: change["session"]["title"] == "New name")
        assert hidden not in {change["session"]["id"] for change in changes}
    async with client.stream(CHANGES, after=seen["cursor"]) as stream:
        change = (await stream.next())["sessionChanges"]
        assert (change["kind"], change["session"]["id"]) == ("CREATED", second)


# -- when access ends


async def test_a_revoked_token_ends_its_sockets_and_event_streams_within_a_second_or_so(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    token, id_ = await new_token(client)
    async with token.stream(BARE_EVENTS, id=session) as stream, server_sent(token, BARE_EVENTS, id=session) as results:
        await stream.next()
        assert (await anext(results))["data"]["sessionEvents"]["seq"] == 1
        await client(REVOKE, input={"accessTokenId": id_})
        revoked = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await stream.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        rest = [body async for body in results]
        assert rest[-1]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert time.monotonic() - revoked < 5, "a second, on a machine that is not busy"
    assert (await token.raw("{ viewer { user { id } } }")).status_code == 401


async def test_a_token_that_another_process_revokes_ends_its_socket_too(people: People, server: Server) -> None:
    """This server's bus reaches no other process: it has to find out by itself."""
    client = people.member.client
    session = (await create(client))["id"]
    token, id_ = await new_token(client)
    async with token.stream(BARE_EVENTS, id=session) as stream:
        await stream.next()
        await asyncio.to_thread(server.command, "token", "revoke", id_)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    await stream.next()


async def test_a_session_that_is_withdrawn_ends_its_readers_streams(people: People) -> None:
    owner = people.member.client
    session = (await create(owner, visibility="ORGANIZATION"))["id"]
    reader = people.colleague.client
    async with (
        reader.stream(BARE_EVENTS, id=session) as stream,
        server_sent(reader, BARE_EVENTS, id=session) as results,
    ):
        await stream.next()
        await anext(results)
        await owner(UPDATE, input={"sessionId": session, "visibility": "PRIVATE"})
        await send(owner, session, "between us")
        with pytest.raises(AssertionError, match="NOT_FOUND"):
            await stream.next()
        rest = [body async for body in results]
        assert rest[-1]["errors"][0]["extensions"]["code"] == "NOT_FOUND"
        assert "between us" not in orjson.dumps(rest).decode()


async def test_bad_subscriptions_are_refused_and_the_socket_stays(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    async with client.socket() as socket:
        for variables in (
            {"id": session, "after": "nonsense"},
            {"id": "nonsense"},
            {"id": session, "after": "WzksIHt9XQ"},
        ):
            stream = await socket.subscribe(BARE_EVENTS, **variables)
            with pytest.raises(AssertionError, match=r"BAD_INPUT|CURSOR_EXPIRED"):
                await stream.next()
        stream = await socket.subscribe(CHANGES, after="WyI5OTk5OTk5OTk5OTk5OTk5OTk5OSIsIDFd")
        with pytest.raises(AssertionError, match="BAD_INPUT"):
            await stream.next()
        stream = await socket.subscribe(BARE_EVENTS, id=session)
        assert (await stream.next())["sessionEvents"]["seq"] == 1


# -- who does not read


async def test_a_client_that_never_reads_is_let_go_and_slows_nobody(people: People, server: Server) -> None:
    """Its socket is full within moments; the server keeps a bounded queue, and gives it up after a while."""
    client = people.member.client
    session = (await create(client))["id"]
    for _ in range(4):
        await send(client, session, "x" * 200_000)
    async with following(client, session) as stream:
        for _ in range(4):
            await stream.until(ended)

    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", int(client.url.split(":")[2].split("/")[0])))
    raw.setblocking(False)
    url = client.url.replace("http", "ws", 1)
    async with connect(
        url,
        sock=raw,
        subprotocols=["graphql-transport-ws"],
        max_size=None,
        max_queue=1,
        ping_interval=None,
        compression=None,  # type: ignore[list-item]
    ) as deaf:
        await deaf.send(
            orjson.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {client.token}"}}).decode()
        )
        await deaf.recv()
        for number in range(20):
            payload = {"query": BARE_EVENTS, "variables": {"id": session}}
            await deaf.send(orjson.dumps({"type": "subscribe", "id": str(number), "payload": payload}).decode())
        deaf.transport.pause_reading()

        # Others are served as if it were not there.
        other = (await create(client))["id"]
        for _ in range(5):
            started = time.monotonic()
            await talk(client, other, "hello")
            assert time.monotonic() - started < 8
            await talk(client, session, "hello")
        async with asyncio.timeout(40):
            while "did not read" not in server.log:
                await asyncio.sleep(0.5)
        deaf.transport.abort()
