"""People who work in one session together, at two web processes over Redis, and what being together costs.

The same people follow the session twice, each time at fresh processes: by `sessionEvents`, which knows nobody, and by
`workspace`, in which all of them are seen, look from message to message, and some of them write.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from websockets.asyncio.client import ClientConnection, connect

from bench.measure import quantile
from bench.processes import cpu_seconds, free_port, python, resident_bytes, started, wait_for
from core.crypto import digest
from core.ids import encode

PEOPLE = 200
SECONDS = 10.0
PAUSE_SECONDS = 0.5
"""Between two messages."""
LOOKS_EVERY_SECONDS = 5.0
"""How often each of them turns to another message."""
WRITERS, STROKES_EVERY_SECONDS = 5, 0.3
STUCK_SECONDS = 60.0
CONNECT_AT_ONCE = 20

_EVENT = "{ seq type name at data }"
_PERSON = "{ userId clientId state messageId }"
STREAMS = {
    "sessionEvents": (
        f"subscription ($id: ID!, $after: Cursor) {{ sessionEvents(sessionId: $id, after: $after) {_EVENT} }}"
    ),
    "workspace": (
        "subscription ($id: ID!, $after: Cursor, $client: String) {"
        " workspace(sessionId: $id, after: $after, clientId: $client) {"
        f" ... on WorkspaceEvent {{ event {_EVENT} }}"
        f" ... on WorkspacePresence {{ participants {_PERSON} joined {_PERSON} changed {_PERSON} left {_PERSON} }}"
        " ... on WorkspaceDraft { drafts { clientId text } } } }"
    ),
}
SEND = "mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }"
UPDATE = "mutation ($input: UpdatePresenceInput!) { updatePresence(input: $input) { participant { state } } }"
PLACE = "query ($id: ID!) { session(id: $id) { lastEventCursor messages(first: 1) { nodes { id } } } }"


@dataclass
class Together:
    """What one way of following the session cost."""

    stream: str
    people: int
    seconds: float
    bytes_each: float
    """Memory of the web processes, for each of the people."""
    last_deliveries: list[float] = field(repr=False)
    """Seconds from sending a message until the last of them had it."""
    presence_items: int
    presence_bytes: int
    drafts: int
    cpu_seconds: float

    def plain(self) -> dict[str, Any]:
        """The numbers, for programs."""
        each = self.people * self.seconds
        return {
            "people": self.people,
            "p50": quantile(self.last_deliveries, 0.5),
            "p99": quantile(self.last_deliveries, 0.99),
            "presencePerSecond": self.presence_items / each,
            "presenceBytesPerSecond": self.presence_bytes / each,
            "draftsPerSecond": self.drafts / each,
            "bytesEach": self.bytes_each,
            "cpuPerSecond": self.cpu_seconds / self.seconds,
        }


HEAD = (
    "people in one session",
    "stream",
    "p50 / p99 ms to the last of them",
    "presence items/s each",
    "presence B/s each",
    "drafts/s each",
    "KiB each",
    "CPU s/s of both",
)


def row(result: Together) -> tuple[str, ...]:
    """A line of the table."""
    plain = result.plain()
    return (
        f"{result.people:,}",
        result.stream,
        f"{plain['p50'] * 1000:.0f} / {plain['p99'] * 1000:.0f}",
        f"{plain['presencePerSecond']:.2f}",
        f"{plain['presenceBytesPerSecond']:,.0f}",
        f"{plain['draftsPerSecond']:.2f}",
        f"{plain['bytesEach'] / 1024:.0f}",
        f"{plain['cpuPerSecond']:.2f}",
    )


async def measure(
    dsn: str,
    environment: dict[str, str],
    folder: Path,
    organization_id: UUID,
    session_id: UUID,
    *,
    people: int = PEOPLE,
    seconds: float = SECONDS,
) -> list[Together]:
    """Both ways of following, one after the other. `session_id` is open to the organisation."""
    tokens = await _people(dsn, organization_id, people)
    results = []
    for stream in STREAMS:
        with ExitStack() as stack:
            redis = _redis(stack, folder)
            webs = [_web(stack, environment, folder, redis, f"rooms-{number}") for number in range(2)]
            room = _Session(
                encode("ses", session_id), environment["QUARTERDECK_BOOTSTRAP_TOKEN"], [port for port, _ in webs]
            )
            results.append(await room.measure(stream, tokens, [pid for _, pid in webs], seconds))
    return results


async def _people(dsn: str, organization_id: UUID, count: int) -> list[str]:
    """Members with a token each, made by SQL: only their tokens are asked for here."""
    tokens = [f"bench-{secrets.token_urlsafe(24)}" for _ in range(count)]
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            """
            WITH people AS (
                INSERT INTO users (id, organization_id, kind, name, role, created_at)
                SELECT gen_random_uuid(), $1, 'HUMAN', 'Person ' || n, 'MEMBER', now() FROM generate_series(1, $2) AS n
                RETURNING id
            )
            INSERT INTO access_tokens (id, organization_id, user_id, name, secret_hash, hint, created_at)
            SELECT gen_random_uuid(), $1, people.id, 'bench', token.hash, 'xxxx', now()
            FROM (SELECT id, row_number() OVER () AS place FROM people) AS people
            JOIN unnest($3::bytea[]) WITH ORDINALITY AS token (hash, place) USING (place)
            """,
            organization_id,
            count,
            [digest(token) for token in tokens],
        )
    finally:
        await connection.close()
    return tokens


def _redis(stack: ExitStack, folder: Path) -> str:
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not on the PATH: `make test` fetches it into .tools/bin.")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    stack.enter_context(started("redis", command, {}, folder))
    deadline = time.monotonic() + STUCK_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return f"redis://127.0.0.1:{port}"
    raise TimeoutError("redis-server did not start")


def _web(stack: ExitStack, environment: dict[str, str], folder: Path, redis: str, name: str) -> tuple[int, int]:
    port = free_port()
    more = {"PORT": str(port), "QUARTERDECK_BUS_URL": redis}
    running = stack.enter_context(started(name, python("app.cli", "web"), environment | more, folder, port=port))
    wait_for(running)
    return port, running.pid


class _Session:
    """The session, and the people who follow it."""

    def __init__(self, id_: str, sender_token: str, ports: list[int]) -> None:
        self._id, self._sender_token, self._ports = id_, sender_token, ports

    async def measure(self, stream: str, tokens: list[str], pids: list[int], seconds: float) -> Together:
        async with AsyncExitStack() as stack:
            sender = await stack.enter_async_context(_person(self._ports[0], self._sender_token, "sender"))
            place = (await sender.ask(PLACE, {"id": self._id}))["session"]
            nodes = place["messages"]["nodes"]
            before = sum(resident_bytes(pid) for pid in pids)
            people: list[_Person] = []
            for first in range(0, len(tokens), CONNECT_AT_ONCE):
                people += await asyncio.gather(
                    *(
                        stack.enter_async_context(_person(self._ports[number % 2], tokens[number], f"person-{number}"))
                        for number in range(first, min(first + CONNECT_AT_ONCE, len(tokens)))
                    )
                )
            variables = {"id": self._id, "after": place["lastEventCursor"]}
            for person in people:
                more = {"client": person.name} if stream == "workspace" else {}
                await person.subscribe(STREAMS[stream], variables | more)
            # A message that reaches everybody shows that all of them follow; after the second it is quiet again.
            for _ in range(2):
                await self._send(sender, people)
                await asyncio.sleep(1.0)
            bytes_each = (sum(resident_bytes(pid) for pid in pids) - before) / len(people)
            for person in people:
                person.presence_items = person.presence_bytes = person.drafts = 0
            busy = [
                asyncio.create_task(self._look_about(person, [node["id"] for node in nodes], number / len(people)))
                for number, person in enumerate(people)
                if stream == "workspace"
            ]
            busy += [asyncio.create_task(self._write(person)) for person in people[:WRITERS] if stream == "workspace"]
            cpu, began = sum(cpu_seconds(pid) for pid in pids), time.perf_counter()
            last_deliveries = []
            while time.perf_counter() - began < seconds:
                last_deliveries.append(await self._send(sender, people))
                await asyncio.sleep(PAUSE_SECONDS)
            took = time.perf_counter() - began
            cpu = sum(cpu_seconds(pid) for pid in pids) - cpu
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
            if problem := next((person.problem for person in people if person.problem), None):
                raise RuntimeError(problem)
            return Together(
                stream,
                len(people),
                took,
                bytes_each,
                last_deliveries,
                sum(person.presence_items for person in people),
                sum(person.presence_bytes for person in people),
                sum(person.drafts for person in people),
                cpu,
            )

    async def _send(self, sender: _Person, people: list[_Person]) -> float:
        """Seconds from sending a message until the last of the people has it."""
        text = f"message {secrets.token_hex(8)}"
        arrivals = [person.expect(text.encode()) for person in people]
        began = time.perf_counter()
        await sender.ask(SEND, {"input": {"sessionId": self._id, "text": text}})
        async with asyncio.timeout(STUCK_SECONDS):
            return max(await asyncio.gather(*arrivals)) - began

    async def _look_about(self, person: _Person, messages: list[str], offset: float) -> None:
        await asyncio.sleep(offset * LOOKS_EVERY_SECONDS)
        for state in itertools.cycle(("VIEWING", "IDLE", "VIEWING")):
            given: dict[str, Any] = {"sessionId": self._id, "clientId": person.name, "state": state}
            await person.ask(UPDATE, {"input": given | {"messageId": messages[0] if messages else None}})
            await asyncio.sleep(LOOKS_EVERY_SECONDS)

    async def _write(self, person: _Person) -> None:
        for length in itertools.cycle(range(1, 200, 3)):
            given = {"sessionId": self._id, "clientId": person.name, "state": "TYPING", "draft": "word " * length}
            await person.ask(UPDATE, {"input": given})
            await asyncio.sleep(STROKES_EVERY_SECONDS)


class _Person:
    """A socket of somebody, with a subscription and whatever else they ask."""

    def __init__(self, socket: ClientConnection, name: str) -> None:
        self.name = name
        self.presence_items = self.presence_bytes = self.drafts = 0
        self.problem: str | None = None
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._expected: tuple[bytes, asyncio.Future[float]] | None = None

    def expect(self, text: bytes) -> asyncio.Future[float]:
        """When an event with this text will have arrived."""
        arrival: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected = (text, arrival)
        return arrival

    async def subscribe(self, document: str, variables: dict[str, Any]) -> None:
        payload = {"query": document, "variables": variables}
        await self._socket.send(orjson.dumps({"id": "stream", "type": "subscribe", "payload": payload}).decode())

    async def ask(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of an operation."""
        id_ = str(next(self._ids))
        self._answers[id_] = asyncio.get_running_loop().create_future()
        payload = {"query": document, "variables": variables}
        await self._socket.send(orjson.dumps({"id": id_, "type": "subscribe", "payload": payload}).decode())
        return await self._answers[id_]

    async def read(self) -> None:
        """Take what comes, until the socket is closed."""
        async for message in self._socket:
            data = message.encode() if isinstance(message, str) else message
            if b'"id":"stream"' in data[:40]:
                self._take(data)
            else:
                self._answer(orjson.loads(data))

    def _take(self, data: bytes) -> None:
        if self._expected is not None and self._expected[0] in data:
            self._expected[1].set_result(time.perf_counter())
            self._expected = None
        elif b'"participants":' in data:
            self.presence_items += 1
            self.presence_bytes += len(data)
        elif b'"drafts":' in data:
            self.drafts += 1
            self.presence_bytes += len(data)
        elif b'"errors"' in data or b'"type":"error"' in data:
            self.problem = data[:300].decode()

    def _answer(self, message: dict[str, Any]) -> None:
        waiting = self._answers.pop(message.get("id", ""), None)
        if waiting is None or waiting.done():
            return
        body = message.get("payload")
        if message["type"] != "next" or body.get("errors"):
            waiting.set_exception(RuntimeError(f"{self.name} was refused: {body}"))
        else:
            waiting.set_result(body["data"])


@asynccontextmanager
async def _person(port: int, token: str, name: str) -> AsyncIterator[_Person]:
    async with connect(
        f"ws://127.0.0.1:{port}/graphql",
        subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
        max_size=None,
        max_queue=None,
        compression=None,
        open_timeout=STUCK_SECONDS,
    ) as socket:
        init = {"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}
        await socket.send(orjson.dumps(init).decode())
        await socket.recv()
        person = _Person(socket, name)
        reading = asyncio.create_task(person.read())
        try:
            yield person
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
