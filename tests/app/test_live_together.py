"""Those who ask for the same stream share its execution, and nothing else: not what only one of them may see, not the
pace of one that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed

from app.web import WebApp
from app.wiring import Program, serving
from core import db
from core.ids import encode
from core.permissions import Permission, Role
from models.sessions import Visibility
from services.identity.tokens import create_access_token, revoke_access_token
from services.sessions.lifecycle import NewSession, SessionChanges, create_session, update_session
from services.sessions.messages import send_message
from subscriptions import session_log
from subscriptions.tails import Tail
from tests.app.conftest import served
from tests.clients_of_graph import Client, Refused, Stream
from tests.services.identity_help import House, a_house
from tests.talking import BARE_EVENTS

pytestmark = pytest.mark.anyio

WITH_OBJECTS = """
subscription ($id: ID!, $after: Cursor) {
  sessionEvents(sessionId: $id, after: $after) { cursor seq name message { id text run { number } } run { id status } }
}
"""
WITH_PEOPLE = """
subscription ($id: ID!, $after: Cursor) {
  sessionEvents(sessionId: $id, after: $after) { cursor seq name actor { name } session { id forkedFrom { id } } }
}
"""


class Place:
    """A running web process in this one, and the people of its organisation."""

    def __init__(self, url: str, app: WebApp, house: House) -> None:
        self.url, self.house, self.live = url, house, app.live

    async def client(self, role: Role, *scopes: Permission) -> Client:
        made = await create_access_token(
            self.house.actor(role), name="tests", scopes=[scope.value for scope in scopes] or None
        )
        return Client(self.url, made.secret)

    async def session(self, role: Role = Role.MEMBER) -> UUID:
        """A session with four events."""
        new = NewSession(visibility=Visibility.ORGANIZATION)
        session = (await create_session(self.house.actor(role), new))["id"]
        await self.say(session, "the first")
        return session

    async def say(self, session: Any, *texts: str) -> None:
        for text in texts:
            await send_message(self.house.actor(Role.MEMBER), session, text)

    async def until_together(self, joined: int, groups: int = 1) -> None:
        """Until so many subscribers share so many executions."""
        async with asyncio.timeout(20):
            while (self.live.joined, self.live.groups) != (joined, groups):
                await asyncio.sleep(0.02)


@pytest.fixture(params=["wire", "asgi"])
async def place(request: pytest.FixtureRequest, database: Program) -> AsyncIterator[Place]:
    """Served with our protocol, and by one that knows nothing of wires. No worker: messages are sent and stay so."""
    app = WebApp(database.parts.settings)
    protocol = WebSocketsSansIOProtocol if request.param == "asgi" else None
    async with serving(database), served(app, database.parts.settings, protocol=protocol) as base:
        yield Place(f"{base}/graphql", app, await a_house())


@asynccontextmanager
async def following(
    *clients: Client, document: str, session: Any, after: str | None = None
) -> AsyncIterator[list[Stream]]:
    async with AsyncExitStack() as stack:
        id_ = encode("ses", session)
        yield [await stack.enter_async_context(client.stream(document, id=id_)) for client in clients]


async def seqs(stream: Stream, count: int) -> list[int]:
    return [(await stream.next())["sessionEvents"]["seq"] for _ in range(count)]


async def test_an_event_is_executed_once_for_all_who_may_see_the_same(place: Place) -> None:
    clients = [await place.client(role) for role in (Role.MEMBER, Role.MEMBER, Role.VIEWER)] * 2
    for document in (BARE_EVENTS, WITH_OBJECTS):
        session = await place.session()
        async with following(*clients, document=document, session=session) as streams_:
            for stream in streams_:
                assert await seqs(stream, 4) == [1, 2, 3, 4]
            await place.until_together(6, 2)  # what viewers may do is less: they are a scope of their own
            before = place.live.executed
            await place.say(session, "one")
            bodies = [[(await stream.next())["sessionEvents"] for _ in range(2)] for stream in streams_]
            assert all(body == bodies[0] for body in bodies)
            assert [event["name"] for event in bodies[0]] == ["quarterdeck.message.sent", "quarterdeck.run.queued"]
            assert place.live.executed - before == 2 * 2
        await place.until_together(0, 0)


async def test_nobody_is_given_what_only_another_may_see(place: Place) -> None:
    """The same document and variables; one sees the session it was forked from, one may not read people."""
    source = await place.session(Role.MEMBER)
    await update_session(place.house.actor(Role.MEMBER), source, SessionChanges(visibility=Visibility.PRIVATE))
    session = await place.session(Role.MEMBER)
    await db.execute("UPDATE sessions SET forked_from_id = $2 WHERE id = $1", session, source)
    clients = [
        await place.client(Role.MEMBER),
        await place.client(Role.VIEWER),
        await place.client(Role.ADMIN),
        await place.client(Role.VIEWER, Permission.SESSIONS_READ),
    ]
    async with following(*clients, document=WITH_PEOPLE, session=session) as streams_:

        async def seen() -> list[tuple[Any, Any]]:
            found = []
            for stream in streams_:
                body = (await stream.socket.message())["payload"]
                event = body["data"]["sessionEvents"]
                found.append((event["actor"] and event["actor"]["name"], event["session"]["forkedFrom"] is not None))
                assert bool(body.get("errors")) == (event["actor"] is None)
            return found

        expected = [("Demo Member", True), ("Demo Member", False), ("Demo Member", True), (None, False)]
        for _ in range(4):
            assert await seen() == expected
        await place.until_together(4, 4)
        await place.say(session, "hello")
        assert await seen() == expected


async def test_who_loses_access_leaves_and_the_others_stay(place: Place) -> None:
    session = await place.session()
    owner, reader = await place.client(Role.MEMBER), await place.client(Role.VIEWER)
    async with following(owner, reader, owner, document=BARE_EVENTS, session=session) as (first, second, third):
        for stream in (first, second, third):
            await seqs(stream, 4)
        await place.until_together(3, 2)
        await update_session(place.house.actor(Role.MEMBER), session, SessionChanges(visibility=Visibility.PRIVATE))
        await place.say(session, "between us")
        with pytest.raises(Refused) as refused:
            await second.next(5)
        assert refused.value.codes == ["NOT_FOUND"]
        for stream in (first, third):
            assert await seqs(stream, 3) == [5, 6, 7]


async def test_one_that_does_not_read_loses_nothing_and_slows_nobody(place: Place) -> None:
    """It stops reading while 20 MB come, and then reads on: every event once, in order."""
    session = await place.session()
    client = await place.client(Role.MEMBER)
    async with following(client, client, document=BARE_EVENTS, session=session) as (lazy, eager):
        await seqs(lazy, 4)
        await seqs(eager, 4)
        await place.until_together(2)
        lazy.socket.websocket.transport.pause_reading()
        big = "x" * 200_000
        for number in range(100):
            await place.say(session, f"{number} {big}")
            assert await seqs(eager, 2) == [5 + 2 * number, 6 + 2 * number]
        lazy.socket.websocket.transport.resume_reading()
        assert await seqs(lazy, 200) == list(range(5, 205))
        await place.until_together(2)
        await place.say(session, "and on")
        assert await seqs(lazy, 2) == [205, 206]


async def test_one_that_does_not_read_ends_with_its_access(place: Place) -> None:
    """Also where not even the reason for it can be told."""
    session = await place.session()
    made = await create_access_token(place.house.actor(Role.MEMBER), name="tests", scopes=None)
    async with following(Client(place.url, made.secret), document=BARE_EVENTS, session=session) as (lazy,):
        await seqs(lazy, 4)
        lazy.socket.websocket.transport.pause_reading()
        await place.say(session, *["x" * 200_000] * 60)
        assert place.live.open_now == 1
        await revoke_access_token(place.house.actor(Role.MEMBER), made.row["id"])
        async with asyncio.timeout(8):
            while place.live.open_now:
                await asyncio.sleep(0.05)
        # What was on its way is all that it gets.
        lazy.socket.websocket.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            while True:
                assert (await lazy.next())["sessionEvents"]["seq"] < 120


async def test_an_operation_s_id_is_its_own(place: Place) -> None:
    """Whatever it is: what is sent to others is made apart from it."""
    session = await place.session()
    client = await place.client(Role.MEMBER)
    body = {"query": BARE_EVENTS, "variables": {"id": encode("ses", session)}}
    async with (
        httpx.AsyncClient(timeout=20) as http,
        http.stream("POST", place.url, json=body, headers=client.headers | {"accept": "text/event-stream"}) as response,
        client.socket() as socket,
    ):
        lines = response.aiter_lines()
        for id_ in ("text/event-stream", "events", "socket", "1"):
            message = {"type": "subscribe", "id": id_, "payload": body}
            await socket.websocket.send(orjson.dumps(message).decode())
            for _ in range(4):
                assert (await socket.message())["id"] == id_
        await place.until_together(5)
        await place.say(session, "to all")
        heard = [(await socket.message())["id"] for _ in range(8)]
        assert sorted(set(heard)) == ["1", "events", "socket", "text/event-stream"]
        async with asyncio.timeout(10):
            seen = [orjson.loads(line[6:]) async for line in first(lines, "data: ", 6)]
        assert [event["data"]["sessionEvents"]["seq"] for event in seen] == [1, 2, 3, 4, 5, 6]


async def first(lines: AsyncIterator[str], prefix: str, count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith(prefix):
            yield line
            count -= 1
            if not count:
                return


async def test_a_log_that_cannot_be_read_ends_its_streams_and_the_next_ones_begin_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await place.session()
    client = await place.client(Role.MEMBER)
    async with following(client, client, document=BARE_EVENTS, session=session) as streams_:
        for stream in streams_:
            await seqs(stream, 4)
        await place.until_together(2)

        async def away(*_: object) -> None:
            raise ConnectionRefusedError("the database is away")

        with monkeypatch.context() as patch:
            patch.setattr(session_log, "read_log", away)
            await place.say(session, "unread")
            for stream in streams_:
                with pytest.raises(Refused) as refused:
                    await stream.next()
                assert refused.value.codes == ["UNAVAILABLE"]
        await place.until_together(0, 0)
    async with following(client, client, document=BARE_EVENTS, session=session) as streams_:
        for stream in streams_:
            assert await seqs(stream, 6) == [1, 2, 3, 4, 5, 6]
        await place.until_together(2)
        await place.say(session, "and on")
        for stream in streams_:
            assert await seqs(stream, 2) == [7, 8]


async def test_who_comes_to_the_end_of_a_log_that_has_just_failed_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not join those who will never hear of anything."""
    session = await place.session()
    client = await place.client(Role.MEMBER)
    execute = place.live.execute

    async def and_then_the_tail_fails(begun: Any, context: Any, event: Any) -> Any:
        if event.seq == 4:
            tail = Tail._living["session", session]
            assert tail._task is not None
            monkeypatch.setattr(tail, "follow", None)
            tail._error = ConnectionRefusedError("the database is away")
            del Tail._living["session", session]
        return await execute(begun, context, event)

    monkeypatch.setattr(place.live, "execute", and_then_the_tail_fails)
    async with following(client, document=BARE_EVENTS, session=session) as (stream,):
        await seqs(stream, 4)
        with pytest.raises(Refused) as refused:
            await stream.next()
        assert refused.value.codes == ["UNAVAILABLE"]
    monkeypatch.setattr(place.live, "execute", execute)
    async with following(client, document=BARE_EVENTS, session=session) as (stream,):
        await seqs(stream, 4)
        await place.until_together(1)
        await place.say(session, "to the living")
        assert await seqs(stream, 2) == [5, 6]
