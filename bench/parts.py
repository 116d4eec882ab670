"""The parts of a bench: which servers are asked what."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from bench import annotated, cases, live_metrics, metrics, rooms, telemetry, templates
from bench.cases import Speaks
from bench.load import burst
from bench.measure import CONNECTIONS, Bench, Contestant
from bench.peers import node
from bench.processes import (
    Running,
    cpu_seconds_of_tree,
    free_port,
    product,
    python,
    resident_bytes,
    rested,
    started,
    wait_for,
)
from bench.report import Documents, Report, Streams
from bench.seed import Seeded
from bench.statements import StatementLog
from bench.streams import EVENTS_PER_MESSAGE, Audience
from core import db
from integrations.postgres.embedded import EmbeddedPostgres

PARTS = (
    "reads",
    "growth",
    "documents",
    "writes",
    "statements",
    "streams",
    "separate",
    "rooms",
    "annotations",
    "templates",
    "live_metrics",
    "metrics",
    "work",
    "telemetry",
)
"""In the order in which they are measured: what reads comes first, from rows that nobody has written to."""

PRODUCT, LIMIT, STOCK = "Quarterdeck", "bare ASGI + asyncpg", "stock Strawberry"
YOGA, MERCURIUS, POSTGRAPHILE = "graphql-yoga", "mercurius + JIT", "postgraphile"
GRAPHQL_WS, MERCURIUS_SOCKETS = "graphql-ws", "mercurius"
STORES_NOTHING = " (stores nothing)"

ROUNDS_FOR_SUBSCRIBERS = 500
PACES = (1_000.0, 20_000.0)
"""Deliveries a second to subscribers of one session."""
SEPARATE_PACES = (200.0,)
"""To subscribers of one session each, where every two deliveries are a message that is stored."""
MOST_MESSAGES = 100.0
"""Messages a second, above which a pace is left out: then sending them is what would be measured."""
ROWS = ((1, 10), (1, 100), (10, 100), (99, 100))
"""Sessions, and messages of each. The last is the largest page that the limit of an operation's cost allows."""
DOCUMENTS = (1, 100, 10_000)
DOCUMENTS_OF_SMALL = (1, 10, 100)
SMALL_SESSIONS = 1000
WARM_UP_SECONDS = 300.0
WORK_SECONDS = 10.0


@dataclass
class Parts:
    """What is measured, on what, and where it is written down."""

    bench: Bench
    seeded: Seeded
    postgres: EmbeddedPostgres
    environment: dict[str, str]
    folder: Path
    report: Report
    peers: bool
    """Whether servers of Node.js are measured too."""
    calls: Sequence[int] = metrics.CALLS
    """Tool calls of 90 days that metrics are read of."""

    async def run(self, parts: set[str], audiences: Sequence[int], *, people: int) -> None:
        """Measure these parts, in their order; `people` is how many work in one session together."""
        if parts & {"reads", "growth", "writes", "statements"}:
            nodes = self._if_peers(YOGA, MERCURIUS, POSTGRAPHILE)
            with self._servers(PRODUCT, LIMIT, *[STOCK] * ("reads" in parts), *nodes) as servers:
                await self._requests(parts, servers)
        elif "documents" in parts:
            await self._documents()
        if "streams" in parts:
            await self._streams(audiences)
        if "separate" in parts and audiences:
            await self._separate(audiences)
        if "rooms" in parts:
            await self._rooms(people)
        if "annotations" in parts:
            await self._annotations()
        if "templates" in parts:
            await self._templates()
        if "live_metrics" in parts:
            await self._live_metrics()
        if "metrics" in parts:
            await self._metrics()
        if "work" in parts:
            await self._work()
        if "telemetry" in parts and self.peers:
            await self._telemetry()

    # -- requests

    async def _requests(self, parts: set[str], servers: list[Contestant]) -> None:
        lists = [server for server in servers if server.name != STOCK]
        writers = [server for server in lists if server.name != POSTGRAPHILE]
        if "reads" in parts:
            await self._reads(servers)
        if "growth" in parts:
            await self._growth(lists)
        if "documents" in parts:
            await self._documents()
        if "writes" in parts:
            await self._writes(writers)
        if "statements" in parts:
            await self._statements(writers)

    async def _reads(self, contestants: list[Contestant]) -> None:
        for case in (cases.one_session(self.seeded), cases.nested(self.seeded), cases.flat(self.seeded)):
            _say(f"Measuring {case.key}: {case.title} …")
            results = await self.bench.compare({c.name: case for c in contestants}, contestants)
            self.report.requests.append((case.key, case.title, results))

    async def _writes(self, contestants: list[Contestant]) -> None:
        # No session is written to by two, so that each finds the same work before it.
        case_of = {
            contestant.name: cases.send(self.seeded, self.seeded.session_ids[number :: len(contestants)])
            for number, contestant in enumerate(contestants)
        }
        case = case_of[PRODUCT]
        _say(f"Measuring {case.key}: {case.title} …")
        self.report.requests.append((case.key, case.title, await self.bench.compare(case_of, contestants)))

    async def _growth(self, contestants: list[Contestant]) -> None:
        for sessions, messages in ROWS:
            if sessions <= self.seeded.longest_page:
                case = cases.flat(self.seeded, sessions, messages)
                _say(f"Measuring {case.title} …")
                results = await self.bench.compare({c.name: case for c in contestants}, contestants)
                self.report.growth.append((sessions * messages, results))

    async def _documents(self) -> None:
        small = len(self.seeded.session_ids) < SMALL_SESSIONS
        # Fresh processes: what documents take shows only where nothing else was asked before.
        with self._servers(PRODUCT, *self._if_peers(YOGA, MERCURIUS, POSTGRAPHILE)) as contestants:
            self.report.documents = documents = Documents(await _memory(contestants))
            for number in DOCUMENTS_OF_SMALL if small else DOCUMENTS:
                case = cases.copies(cases.one_session(self.seeded), number)
                _say(f"Measuring {case.title} in {number:,} documents …")
                for contestant in contestants:
                    port = contestant.running.port
                    following = cases.requests(case, self.bench.token, port, contestant.speaks)
                    await burst(port, following, connections=CONNECTIONS, seconds=WARM_UP_SECONDS, most=number)
                results = await self.bench.compare({c.name: case for c in contestants}, contestants)
                documents.steps.append((number, results, await _memory(contestants)))

    async def _statements(self, contestants: list[Contestant]) -> None:
        _say("Counting statements …")
        seeded, (ours, *others) = self.seeded, contestants
        long, short = seeded.long_session_ids, [i for i in seeded.session_ids if i not in set(seeded.long_session_ids)]
        messages = (cases.send(seeded, short), cases.send(seeded, long))
        asked = [
            (ours, "Q1", cases.one_session(seeded), cases.one_session(seeded)),
            (ours, "Q2: 5 sessions by 5 messages; 50 by 50", cases.nested(seeded, 5, 5), cases.nested(seeded, 50, 50)),
            (ours, "Q3: 2 sessions by 10 messages; 10 by 100", cases.flat(seeded, 2, 10), cases.flat(seeded, 10, 100)),
            (ours, "M1: a session of 30 messages; of 130", *messages),
            *((other, f"M1 by {other.name}", *messages) for other in others),
        ]
        async with StatementLog(self.postgres.dsn, self.postgres.log) as log:
            for contestant, what, *forms in asked:
                port = contestant.running.port
                small, large = [
                    await log.count(port, cases.requests(case, self.bench.token, port, contestant.speaks))
                    for case in forms
                ]
                self.report.statements.append((what, small, large))

    # -- streams

    async def _streams(self, sizes: Sequence[int]) -> None:
        streams = Streams("subscribers of one session", PACES)
        self.report.streams.append(streams)
        for size in sizes:
            rounds = self.bench.rounds if size == _main_size(sizes) else 1
            await self._streamed(streams, size, rounds, sessions=1)

    async def _separate(self, sizes: Sequence[int]) -> None:
        streams = Streams("subscribers of one session each", SEPARATE_PACES)
        self.report.streams.append(streams)
        size = min(_main_size(sizes), len(self.seeded.session_ids))
        await self._streamed(streams, size, self.bench.rounds, sessions=size)

    async def _rooms(self, people: int) -> None:
        _say(f"Measuring {people} people in one session at two web processes …")
        self.report.rooms = await rooms.measure(
            self.postgres.dsn,
            self.environment,
            self.folder,
            self.seeded.organization_id,
            self.seeded.session_ids[1],  # open to the organisation
            people=people,
            seconds=5 * self.bench.seconds,
        )

    async def _annotations(self) -> None:
        _say(f"Measuring searches of {annotated.ANNOTATIONS:,} annotations …")
        with self._servers(PRODUCT) as [contestant]:
            self.report.annotations = await annotated.measure(self.bench, self.postgres.dsn, self.seeded, contestant)

    async def _live_metrics(self) -> None:
        _say(f"Measuring {live_metrics.WATCHERS} who watch the figures of a dashboard …")
        with self._servers(PRODUCT) as [contestant]:
            self.report.live_metrics = await live_metrics.measure(
                self.postgres.dsn,
                self.seeded.organization_id,
                contestant.running.port,
                contestant.running.pid,
                self.bench.database_pid,
                self.bench.token,
                seconds=5 * self.bench.seconds,
            )

    async def _templates(self) -> None:
        _say(f"Measuring a catalogue of {templates.TEMPLATES:,} templates …")
        with self._servers(PRODUCT) as [contestant]:
            self.report.templates = await templates.measure(self.bench, self.postgres.dsn, contestant)

    async def _metrics(self) -> None:
        await db.connect(self.postgres.dsn, pool_size=2)
        try:
            self.report.ingest = await metrics.measure_ingest(self.postgres.dsn, 3, _say)
            for calls in self.calls:
                self.report.metrics.append(await metrics.measure(self.postgres.dsn, calls, self.bench.rounds, _say))
        finally:
            await db.close()

    async def _streamed(self, streams: Streams, size: int, rounds: int, *, sessions: int) -> None:
        _say(f"Measuring {size:,} {streams.title} …")
        # Fresh processes: what a connection takes shows only where no memory lies about for other reasons.
        nodes = self._if_peers(GRAPHQL_WS, MERCURIUS_SOCKETS, GRAPHQL_WS + STORES_NOTHING)
        with self._servers(PRODUCT, LIMIT, *nodes) as contestants:
            # One after the other they send to the same sessions, and each goes on from where the log ends.
            audiences = {
                contestant.name: Audience(
                    contestant.running.port,
                    contestant.running.pid,
                    self.bench.token,
                    self.seeded.session_ids[:sessions],
                    contestant.speaks,
                )
                for contestant in contestants
            }
            deliveries = EVENTS_PER_MESSAGE * size / sessions
            paces = [pace for pace in streams.paces if pace / deliveries <= MOST_MESSAGES]
            results = await self.bench.stream(contestants, audiences, size, rounds=rounds, paces=paces)
            self.report.notes += [
                f"{size:,} {streams.title}: {result.contestant} failed. {result.problem}"
                for result in results
                if result.problem is not None
            ]
            streams.steps.append((size, results))

    # -- work

    async def _work(self) -> None:
        _say("Measuring a worker on what was sent …")
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            with started("worker", product("worker"), self.environment, self.folder) as worker:
                began, first = await self._finished(connection, 1)
                cpu, database = self._cpu(worker)
                ended, last = await self._finished(connection, None, seconds=WORK_SECONDS)
                now_cpu, now_database = self._cpu(worker)
        finally:
            await connection.close()
        runs = max(1, last - first)
        self.report.work = {
            "per_second": runs / (ended - began),
            "worker_ms": 1000 * (now_cpu - cpu) / runs,
            "database_ms": 1000 * (now_database - database) / runs,
        }

    async def _finished(
        self, connection: asyncpg.Connection, wanted: int | None, seconds: float = 30.0
    ) -> tuple[float, int]:
        """When so many of the sent messages' runs had ended, or the time was over, and how many then had."""
        deadline = time.monotonic() + seconds
        while True:
            count = await connection.fetchval(
                "SELECT count(*) FROM runs WHERE status = 'FINISHED' AND ended_at > now() - interval '1 hour'"
            )
            left = await connection.fetchval("SELECT count(*) FROM runs WHERE status IN ('QUEUED', 'RUNNING')")
            if (wanted is not None and count >= wanted) or not left or time.monotonic() > deadline:
                return time.monotonic(), count
            await asyncio.sleep(0.2)

    def _cpu(self, worker: Running) -> tuple[float, float]:
        return cpu_seconds_of_tree(worker.pid), cpu_seconds_of_tree(self.bench.database_pid)

    async def _telemetry(self) -> None:
        with (
            self._servers(PRODUCT) as [contestant],
            started("worker", product("worker"), self.environment, self.folder),
        ):
            self.report.telemetry = await telemetry.measure(
                contestant.running.port, self.bench.token, self.postgres.dsn, self.folder, self.bench.rounds, _say
            )

    # -- servers

    def _if_peers(self, *names: str) -> tuple[str, ...]:
        return names if self.peers else ()

    @contextmanager
    def _servers(self, *names: str) -> Iterator[list[Contestant]]:
        """These servers, running, until the context is left."""
        with ExitStack() as stack:
            servers = [self._server(name, stack) for name in names]
            for server in servers:
                wait_for(server.running)
            yield servers

    def _server(self, name: str, stack: ExitStack) -> Contestant:
        port, dsn, speaks, more = free_port(), self.postgres.dsn, Speaks.GRAPHQL, node.ENVIRONMENT
        if name == PRODUCT:
            command, more = product("web"), {"PORT": str(port)}
        elif name == LIMIT:
            command, speaks = python("bench.peers.bare", str(port), dsn), Speaks.PLAIN
        elif name == STOCK:
            command = python("bench.peers.stock", str(port), dsn)
        else:
            plain = name.removesuffix(STORES_NOTHING)
            command = node.command(_KINDS[plain], port, dsn, *["announce"] * (plain != name))
            speaks = Speaks.POSTGRAPHILE if name == POSTGRAPHILE else Speaks.GRAPHQL
        running = started(name, command, self.environment | more, self.folder, port)
        return Contestant(stack.enter_context(running), speaks)


_KINDS = {
    YOGA: "yoga",
    GRAPHQL_WS: "yoga",
    MERCURIUS: "mercurius",
    MERCURIUS_SOCKETS: "mercurius",
    POSTGRAPHILE: "postgraphile",
}
"""What a server of Node.js is started as."""


def _main_size(sizes: Sequence[int]) -> int:
    return min(sizes, key=lambda size: abs(size - ROUNDS_FOR_SUBSCRIBERS))


async def _memory(contestants: Sequence[Contestant]) -> dict[str, int]:
    """Bytes of each server, at rest."""
    found = {}
    for contestant in contestants:
        await rested(contestant.running.pid)
        found[contestant.name] = resident_bytes(contestant.running.pid)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
