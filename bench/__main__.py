"""`python -m bench`: seeds a database of its own, starts the servers, measures, prints the tables, and ends it all."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import orjson
import uvloop

from bench import cases, rooms
from bench.measure import Bench, Contestant
from bench.peers import node
from bench.processes import (
    ROOT,
    Running,
    cpu_seconds_of_tree,
    database_pid,
    free_port,
    python,
    started,
)
from bench.report import Growth, Report
from bench.seed import SCALES, Seeded, seed
from bench.statements import StatementLog
from bench.streams import Audience
from integrations.postgres.embedded import EmbeddedPostgres

PRODUCT, LIMIT, STOCK = "Quarterdeck", "bare ASGI + asyncpg", "stock Strawberry"
NODE_PEERS = {"graphql-yoga": "yoga", "mercurius + JIT": "mercurius"}
GRAPHQL_WS = "graphql-ws (stores nothing)"
PACED_DELIVERIES_PER_SECOND = 1000.0
WORK_SECONDS = 10.0


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="how many rows are seeded")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians over them are reported")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument(
        "--only", default="", help="the parts to run, of: reads,writes,growth,statements,streams,rooms,work"
    )
    parser.add_argument(
        "--subscribers", default="100,500,2000", help="sizes of the audience; rounds are for the middle"
    )
    parser.add_argument("--people", type=int, default=rooms.PEOPLE, help="how many work in one session together")
    parser.add_argument("--peers", action="store_true", help="also measure servers of Node.js, installed from npm")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    # A polite end from outside ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = uvloop.run(_run(options))
    print(report.markdown())
    if options.json:
        options.json.write_bytes(orjson.dumps(report.plain(), option=orjson.OPT_INDENT_2))


async def _run(options: argparse.Namespace) -> Report:
    parts = set(filter(None, options.only.split(","))) or {
        *("reads", "writes", "growth", "statements", "streams", "rooms", "work")
    }
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-bench-"))
    folder.chmod(0o711)  # the database's own user, where there is one, must get at its folder
    try:
        with ExitStack() as stack:
            _say("Starting a database …")
            postgres = EmbeddedPostgres(folder, say=_say, timescaledb_folder=ROOT / ".tools" / "timescaledb")
            stack.enter_context(postgres)
            token = secrets.token_urlsafe(32)
            environment = _environment(postgres.dsn, folder / "home", token)
            _say("Migrating …")
            await asyncio.to_thread(_migrate, environment)
            _say("Seeding …")
            seeded = await seed(postgres.dsn, SCALES[options.scale], _say)
            _say(f"  in {seeded.seconds:.0f} s")
            bench = Bench(token, database_pid(folder / "postgres"), options.rounds, options.seconds)
            run = _Run(bench, seeded, postgres, environment, folder)
            gc.freeze()
            gc.disable()  # a pause of the client is not a latency of the server
            if "rooms" in parts:
                await run.rooms(options.people)
            return await run.all(parts, [int(size) for size in options.subscribers.split(",")], peers=options.peers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Run:
    def __init__(
        self,
        bench: Bench,
        seeded: Seeded,
        postgres: EmbeddedPostgres,
        environment: dict[str, str],
        folder: Path,
    ) -> None:
        self.bench, self.seeded, self.postgres = bench, seeded, postgres
        self.environment, self.folder = environment, folder
        self.report = Report(_machine(), _data(seeded))

    async def all(self, parts: set[str], audiences: list[int], *, peers: bool) -> Report:
        _say("Starting the servers …")
        with ExitStack() as stack:
            both = [self._product(stack), self._limit(stack)]
            if "reads" in parts:
                nodes = [self._node(name, stack) for name in NODE_PEERS] if peers else []
                await self._reads([*both, self._stock(stack), *nodes])
            if "writes" in parts:
                await self._writes(both)
            if "growth" in parts:
                await self._growth(both)
            if "statements" in parts:
                await self._statements(*both)
        if "streams" in parts:
            await self._streams(audiences, peers=peers)
        if "work" in parts:
            await self._work()
        return self.report

    async def rooms(self, people: int) -> None:
        _say(f"Measuring {people} people in one session at two web processes …")
        # The second of the seeded sessions is open to the organisation.
        self.report.rooms = await rooms.measure(
            self.postgres.dsn,
            self.environment,
            self.folder,
            self.seeded.organization_id,
            self.seeded.session_ids[1],
            people=people,
            seconds=5 * self.bench.seconds,
        )

    def _product(self, stack: ExitStack) -> Contestant:
        port = free_port()
        return Contestant(self._started(stack, PRODUCT, python("app.cli", "web"), port, {"PORT": str(port)}))

    def _limit(self, stack: ExitStack) -> Contestant:
        port = free_port()
        command = python("bench.peers.bare", str(port), self.postgres.dsn)
        return Contestant(self._started(stack, LIMIT, command, port), graphql=False)

    def _stock(self, stack: ExitStack) -> Contestant:
        port = free_port()
        return Contestant(self._started(stack, STOCK, python("bench.peers.stock", str(port), self.postgres.dsn), port))

    def _node(self, name: str, stack: ExitStack) -> Contestant:
        port = free_port()
        return Contestant(self._started(stack, name, node.command(NODE_PEERS[name], port, self.postgres.dsn), port))

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
        case = case_of[contestants[0].name]
        _say(f"Measuring {case.key}: {case.title} …")
        self.report.requests.append((case.key, case.title, await self.bench.compare(case_of, contestants)))

    async def _growth(self, contestants: list[Contestant]) -> None:
        _say("Measuring how cost grows …")
        growth = Growth("messages, 6 fields", "rows")
        for sessions, messages in ((1, 10), (1, 100), (10, 100)):
            case = cases.flat(self.seeded, sessions, messages)
            results = await self.bench.compare({c.name: case for c in contestants}, contestants)
            growth.steps.append((sessions * messages, results))
        self.report.growths.append(growth)

    async def _statements(self, contestant: Contestant, limit: Contestant) -> None:
        _say("Counting statements …")
        seeded, port = self.seeded, contestant.running.port
        long, short = seeded.long_session_ids, [i for i in seeded.session_ids if i not in set(seeded.long_session_ids)]
        pairs = (
            ("Q1", cases.one_session(seeded), cases.one_session(seeded)),
            ("Q2: 5 sessions by 5 messages; 50 by 50", cases.nested(seeded, 5, 5), cases.nested(seeded, 50, 50)),
            ("Q3: 2 sessions by 10 messages; 10 by 100", cases.flat(seeded, 2, 10), cases.flat(seeded, 10, 100)),
            ("M1: a session of 30 messages; of 130", cases.send(seeded, short), cases.send(seeded, long)),
        )
        async with StatementLog(self.postgres.dsn, self.postgres.log) as log:
            for what, *forms in pairs:
                small, large = [
                    await log.count(port, cases.requests(case, self.bench.token, port, graphql=True)) for case in forms
                ]
                self.report.statements.append((what, small, large))
            small, large = [
                await log.count(
                    limit.running.port,
                    cases.requests(cases.send(seeded, ids), self.bench.token, limit.running.port, graphql=False),
                )
                for ids in (short, long)
            ]
            self.report.statements.append((f"M1 by {limit.name}", small, large))

    async def _streams(self, sizes: list[int], *, peers: bool) -> None:
        for size in sizes:
            _say(f"Measuring S1: {size} subscribers of one session …")
            # Fresh processes: what a connection takes shows only where no memory lies about for other reasons.
            with ExitStack() as stack:
                contestants = [self._product(stack), self._limit(stack)]
                if peers:
                    yoga = self._node("graphql-yoga", stack)
                    contestants.append(Contestant(replace(yoga.running, name=GRAPHQL_WS)))
                audiences = {
                    contestant.name: Audience(
                        contestant.running.port,
                        contestant.running.pid,
                        self.bench.token,
                        self.seeded.session_ids[number],
                        graphql=contestant.graphql,
                    )
                    for number, contestant in enumerate(contestants)
                }
                results = await self.bench.stream(
                    contestants,
                    audiences,
                    size,
                    rounds=self.bench.rounds if size == sizes[len(sizes) // 2] else 1,
                    events_per_second=PACED_DELIVERIES_PER_SECOND / size,
                )
                self.report.streams.append((size, results))

    async def _work(self) -> None:
        _say("Measuring a worker on what was sent …")
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            with ExitStack() as stack:
                worker = self._started(stack, "worker", python("app.cli", "worker"))
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

    def _started(
        self,
        stack: ExitStack,
        name: str,
        command: list[str],
        port: int | None = None,
        more: dict[str, str] | None = None,
    ) -> Running:
        environment = self.environment | (more or {})
        return stack.enter_context(started(name, command, environment, self.folder, port=port))


def _environment(dsn: str, home: Path, token: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "QUARTERDECK_DATABASE_URL": dsn,
        "QUARTERDECK_HOME": str(home),
        "QUARTERDECK_BOOTSTRAP_TOKEN": token,
        "QUARTERDECK_SECRET_KEY": secrets.token_urlsafe(40),
        "QUARTERDECK_LOG_LEVEL": "WARNING",
    }


def _migrate(environment: dict[str, str]) -> None:
    subprocess.run(python("app.cli", "migrate"), env=environment, cwd=ROOT, check=True, stdout=sys.stderr)


def _machine() -> str:
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, everything on it."


def _data(seeded: Seeded) -> str:
    return (
        f"{len(seeded.session_ids):,} sessions, {seeded.messages:,} messages, "
        f"{seeded.tool_executions:,} tool executions."
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
