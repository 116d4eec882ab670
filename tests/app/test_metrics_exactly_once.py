"""Whatever happens to the workers, figures are those of a run that nothing happened to; with TimescaleDB or without."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from app.wiring import connected
from core import db
from core.permissions import Role
from core.settings import Settings
from services.metrics import ingest, rollups
from services.metrics.families import FAMILIES, ROLLED
from services.metrics.metering import Metering
from services.metrics.store import COLUMNS
from tests.conftest import Server, environment_for, free_port, running
from tests.databases import TestServer
from tests.metric_log import write_log
from tests.services.identity_help import a_house

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

LOG_BEGINS = datetime(2026, 11, 1, 22, tzinfo=UTC)
SECONDS = 60.0


async def test_killed_workers_and_outages_leave_the_figures_of_an_undisturbed_run(
    postgres: TestServer, metric_url: str, tmp_path: Path
) -> None:
    async with in_process(metric_url, tmp_path):
        house = await a_house()
        organization_id, user_id = house.organization_id, house.users[Role.MEMBER]["id"]
    await add_to_the_log(metric_url, organization_id, user_id, 0)
    undisturbed = await asyncio.to_thread(postgres.create_database, metric_url)

    # What nothing happens to.
    for part in (1, 2):
        await add_to_the_log(undisturbed, organization_id, user_id, part)
    async with in_process(undisturbed, tmp_path):
        await counted()
        expected = await figures()
    await asyncio.to_thread(postgres.drop_database, undisturbed)
    assert expected["tool_facts"][0] == 3 * 4 * 6 * 20
    assert expected["tool_days"]

    # A worker is killed while it stores facts, and leaves nothing half done.
    port = free_port()
    server = Server(port, "", tmp_path, environment_for(metric_url, tmp_path, port, "t" * 24))
    await add_to_the_log(metric_url, organization_id, user_id, 1)
    connection = await asyncpg.connect(metric_url)
    try:
        # A fact of which nobody knows yet whether it will be there, among those that it stores.
        fact = (
            "INSERT INTO run_facts (at, organization_id, id, source, outcome) "
            "SELECT ended_at, organization_id, id, 'QUARTERDECK', status FROM runs LIMIT 1"
        )
        async with held(connection, fact):
            with running("worker", server.environment, server.home) as worker:
                await waits(server, "WITH events AS")
                kill(worker)
        # The server hears of it when it next writes to the worker.
        await eventually(connection, NOBODY_WRITES, server)
        assert await connection.fetchval("SELECT count(*) FROM tool_facts") == 0
        assert await connection.fetchval("SELECT xid::text FROM metric_positions WHERE reader = 'log'") == "0"

        # While nobody works, somebody begins to fill a gap, beyond what was read of the log.
        async with in_process(metric_url, tmp_path):
            assert await ingest.ingest(await ingest.fill(LOG_BEGINS + timedelta(minutes=30)), batch=600) == 600
        assert 0 < await connection.fetchval("SELECT count(*) FROM tool_facts") < 600

        # One is killed while it counts, and another one goes on; more comes meanwhile, of the past and of the future.
        row = f"INSERT INTO tool_days VALUES ('{organization_id}', '', '2026-11-01', '{{}}')"
        with ExitStack() as workers:
            async with held(connection, row):
                first = workers.enter_context(running("worker", server.environment, server.home))
                await eventually(connection, "SELECT count(*) = 2 * 4 * 6 * 20 FROM tool_facts", server)
                await waits(server, "batch AS (DELETE")
                assert await connection.fetchval("SELECT count(*) FROM tool_pending") == 2 * 4 * 6 * 20
                workers.enter_context(running("worker", server.environment, server.home))
                await add_to_the_log(metric_url, organization_id, user_id, 2)
                kill(first)
            await eventually(connection, IDLE, server)
        with_timescaledb = await connection.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname ~ 'scale')")
    finally:
        await connection.close()

    # Once more from the beginning, and once more than that.
    if with_timescaledb:
        said = await asyncio.to_thread(server.command, "metrics", "backfill", "--from", "2026-01-01")
        assert f"tool_facts: 0 new, {expected['tool_facts'][0]} since then" in said
        said = await asyncio.to_thread(server.command, "metrics", "retention", "--dry-run")
        assert "RAW: kept 90 days" in said
        assert "DAY: kept for ever" in said
    async with in_process(metric_url, tmp_path):
        assert await figures() == expected
        again = await ingest.fill(LOG_BEGINS - timedelta(days=300))
        while await ingest.ingest(again):
            pass
        await counted()
        assert await figures() == expected


NOBODY_WRITES = (
    "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'quarterdeck' AND xact_start IS NOT NULL)"
)
IDLE = (
    "SELECT NOT EXISTS (SELECT FROM metric_positions WHERE reader <> 'log') "
    "AND NOT EXISTS (SELECT FROM tool_pending) AND NOT EXISTS (SELECT FROM message_pending) "
    "AND NOT EXISTS (SELECT FROM usage_pending) AND NOT EXISTS (SELECT FROM run_pending) "
    "AND NOT EXISTS (SELECT FROM session_pending) AND NOT EXISTS ("
    "SELECT FROM session_events, metric_positions p WHERE p.reader = 'log' "
    "AND (session_events.xid, session_events.session_id, session_events.seq) > (p.xid, p.session_id, p.seq))"
)


async def add_to_the_log(url: str, organization_id: UUID, user_id: UUID, part: int) -> None:
    """Part 1 is of the same time as part 0, and part 2 of before and after both."""
    connection = await asyncpg.connect(url)
    try:
        await write_log(
            connection,
            organization_id,
            user_id,
            start=LOG_BEGINS + timedelta(days=(0, 0, -3)[part]),
            every=("9 minutes", "11 minutes", "8 days")[part],
            sessions=4,
            runs=6,
            tools=20,
            name=f"part{part}",
        )
    finally:
        await connection.close()


@asynccontextmanager
async def in_process(url: str, home: Path) -> AsyncIterator[None]:
    settings = Settings(
        home=home,
        database_url=url,  # type: ignore[arg-type]
        secret_key="tests-only-" + "k" * 40,  # type: ignore[arg-type]
        database_pool_size=3,
    )
    async with connected(settings, url):
        yield


async def counted() -> None:
    await Metering().follow()
    while await rollups.roll():
        pass


async def figures() -> dict[str, Any]:
    """All facts, by their ids, and all that was counted of them."""
    found: dict[str, Any] = {}
    for table in COLUMNS:
        if table != "resource_facts":
            columns = ", ".join(COLUMNS[table])
            row = await db.fetchrow(
                f"SELECT count(*), md5(string_agg(row({columns})::text, ',' ORDER BY id)) AS all FROM {table}"
            )
            found[table] = tuple(row)
    for family in FAMILIES.values():
        for level in ROLLED:
            if family.name != "resource":
                rows = await db.fetch(
                    f"SELECT * FROM {family.rollup(level)} ORDER BY organization_id, dimensions, at, labels"
                )
                found[family.rollup(level)] = [tuple(row) for row in rows]
    return found


async def waits(server: Server, statement: str) -> None:
    """Until somebody waits in the middle of a statement for what another transaction holds."""
    other = await asyncpg.connect(server.environment["QUARTERDECK_DATABASE_URL"])
    try:
        await eventually(
            other,
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() "
            f"AND wait_event_type = 'Lock' AND query LIKE '%{statement}%' AND pid <> pg_backend_pid())",
            server,
        )
    finally:
        await other.close()


@asynccontextmanager
async def held(connection: asyncpg.Connection, lock: str) -> AsyncIterator[None]:
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(lock)
    try:
        yield
    finally:
        await transaction.rollback()


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


async def eventually(connection: asyncpg.Connection, question: str, server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while not await connection.fetchval(question):
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {question}\n{server.log[-3000:]}"
        await asyncio.sleep(0.1)
