"""The figures of a dashboard for many who watch it: told by `metricsLive`, or asked for by `metricsNow` once a second.

Each in turn at the same server, over 100,000 tool calls, runs and uses of models of the last minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from websockets.asyncio.client import ClientConnection, connect

from bench.load import asking, request
from bench.processes import cpu_seconds, cpu_seconds_of_tree, quiet

WATCHERS = 500
FACTS = 100_000
SETTLE_SECONDS = 3.0
CONNECTIONS = 50
"""Over which those who ask do so: more would only wait for each other."""

_LIVE = "subscription { metricsLive(every: 1) { at windowSeconds values { metric unit value } } }"
_NOW = "{ metricsNow { at windowSeconds values { metric unit value } } }"
_FACTS = (
    "INSERT INTO tool_facts (at, organization_id, id, source, tool, outcome, duration_ms) "
    "SELECT now() + (n % 1200 - 600) * interval '1 second', $1, gen_random_uuid(), 'QUARTERDECK', 'tool' || n % 30, "
    "CASE WHEN n % 20 = 0 THEN 'FAILED' ELSE 'SUCCEEDED' END, n % 997 FROM generate_series(1, $2::int) AS n",
    "INSERT INTO run_facts (at, organization_id, id, source, outcome, duration_ms) "
    "SELECT now() + (n % 1200 - 600) * interval '1 second', $1, gen_random_uuid(), 'QUARTERDECK', "
    "CASE WHEN n % 20 = 0 THEN 'FAILED' ELSE 'FINISHED' END, n % 997 FROM generate_series(1, $2::int / 5) AS n",
    "INSERT INTO usage_facts (at, organization_id, id, source, model, requests, input_tokens, cost_usd) "
    "SELECT now() + (n % 1200 - 600) * interval '1 second', $1, gen_random_uuid(), 'QUARTERDECK', 'some:model', 1, n, "
    "0.001 FROM generate_series(1, $2::int / 5) AS n",
)


@dataclass
class Watched:
    """What one way of keeping up came to."""

    how: str
    watchers: int
    seconds: float
    snapshots: int
    server_cpu_seconds: float
    database_cpu_seconds: float

    def plain(self) -> dict[str, Any]:
        """The numbers, for programs."""
        return {
            "watchers": self.watchers,
            "snapshotsPerSecond": self.snapshots / self.seconds,
            "serverCpuPerSecond": self.server_cpu_seconds / self.seconds,
            "databaseCpuPerSecond": self.database_cpu_seconds / self.seconds,
        }


HEAD = ("figures of a dashboard, once a second", "watchers", "snapshots/s", "server CPU s/s", "database CPU s/s")


def row(result: Watched) -> tuple[str, ...]:
    """A line of the table."""
    plain = result.plain()
    return (
        result.how,
        f"{result.watchers:,}",
        f"{plain['snapshotsPerSecond']:,.0f}",
        f"{plain['serverCpuPerSecond']:.3f}",
        f"{plain['databaseCpuPerSecond']:.3f}",
    )


async def measure(
    dsn: str, organization_id: UUID, port: int, pid: int, database_pid: int, token: str, *, seconds: float
) -> list[Watched]:
    """Both ways, one after the other."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _FACTS:
            await connection.execute(statement, organization_id, FACTS)
        await connection.execute("ANALYZE tool_facts, run_facts, usage_facts, runs")
    finally:
        await connection.close()
    found = []
    for how, keep_up in (("told by metricsLive", _watch), ("asked by metricsNow", _ask)):
        await quiet(pid)
        found.append(await keep_up(how, port, pid, database_pid, token, seconds))
    return found


async def _watch(how: str, port: int, pid: int, database_pid: int, token: str, seconds: float) -> Watched:
    count = 0

    async def read(socket: ClientConnection) -> None:
        nonlocal count
        async for message in socket:
            count += '"metricsLive"' in str(message)

    async with AsyncExitStack() as stack:
        sockets = []
        for _ in range(WATCHERS):
            opening = connect(
                f"ws://127.0.0.1:{port}/graphql",
                subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
                compression=None,
            )
            socket = await stack.enter_async_context(opening)
            payload = {"authorization": f"Bearer {token}"}
            await socket.send(orjson.dumps({"type": "connection_init", "payload": payload}).decode())
            await socket.recv()
            await socket.send(orjson.dumps({"id": "1", "type": "subscribe", "payload": {"query": _LIVE}}).decode())
            sockets.append(socket)
        readers = [asyncio.create_task(read(socket)) for socket in sockets]
        try:
            await asyncio.sleep(SETTLE_SECONDS)
            return await _measured(how, lambda: count, lambda: asyncio.sleep(seconds), pid, database_pid)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _ask(how: str, port: int, pid: int, database_pid: int, token: str, seconds: float) -> Watched:
    count = 0
    data = request("/graphql", {"query": _NOW}, token, port)
    async with asking(port, CONNECTIONS) as ask:

        async def keep_asking(number: int, until: float) -> None:
            nonlocal count
            due = time.monotonic() + number / WATCHERS
            while due < until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                body = await ask(data)
                assert b'"errors"' not in body, body[:300]
                count += time.monotonic() < until
                due = max(due + 1, time.monotonic())

        async def all_of_them() -> None:
            until = time.monotonic() + seconds
            async with asyncio.timeout(seconds + 1), asyncio.TaskGroup() as tasks:
                for number in range(WATCHERS):
                    tasks.create_task(keep_asking(number, until))

        async def at_most() -> None:
            try:
                await all_of_them()
            except TimeoutError:
                pass  # the server has not kept pace: what it did count is counted

        return await _measured(how, lambda: count, at_most, pid, database_pid)


async def _measured(
    how: str, count: Callable[[], int], during: Callable[[], Awaitable[None]], pid: int, database_pid: int
) -> Watched:
    began, first = time.perf_counter(), count()
    server, database = cpu_seconds(pid), cpu_seconds_of_tree(database_pid)
    await during()
    return Watched(
        how,
        WATCHERS,
        time.perf_counter() - began,
        count() - first,
        cpu_seconds(pid) - server,
        cpu_seconds_of_tree(database_pid) - database,
    )
