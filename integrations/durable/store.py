"""The queue's rows in PostgreSQL, as seen from asyncpg: enqueueing needs no DBOS in the process.

DBOS 3.4.0 owns the tables; `dbos.enqueue_workflow` is its documented SQL entry for other languages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg

from core.errors import Unavailable
from integrations.durable.base import Job

SCHEMA = "dbos"
APPLICATION = "quarterdeck"
QUEUE = "runs"
WORKFLOW = "run_segment"
VERSION = "1"
"""Protocol between enqueuers and workers. A new number leaves the old one's jobs to workers of the old one."""

TABLES_VERSION = 125
"""The migration of DBOS's tables that its pinned release ends with."""

CHANNEL = "quarterdeck:runs"
"""Notified whenever there may be something to start, so that workers need not poll fast."""

RETRY_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 1.0

TRANSIENT = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
)
"""Errors after which the database may well be back in a moment."""

_MISSING_TABLES = (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError)

_ENQUEUE = f"""
SELECT {SCHEMA}.enqueue_workflow(
    workflow_name => '{WORKFLOW}',
    queue_name => '{QUEUE}',
    named_args => json_build_object(
        'key', job.key, 'run_id', job.run_id, 'organization_id', job.organization_id, 'segment', job.segment),
    workflow_id => job.key,
    app_version => '{VERSION}',
    queue_partition_key => job.organization_id::text,
    application_name => '{APPLICATION}'
)
FROM unnest($1::text[], $2::uuid[], $3::uuid[], $4::int[]) AS job(key, run_id, organization_id, segment)
"""

_CLAIMED = f"""
SELECT recovery_attempts FROM {SCHEMA}.workflow_status
WHERE workflow_uuid = $1 AND status = 'PENDING' AND executor_id = $2
"""

_HELD = f"""
SELECT workflow_uuid FROM {SCHEMA}.workflow_status
WHERE queue_name = '{QUEUE}' AND status = 'PENDING' AND executor_id = $1
"""

_ABSENT = f"""
SELECT job.key, row.workflow_uuid IS NOT NULL AS ended
FROM unnest($1::text[]) AS job(key)
LEFT JOIN {SCHEMA}.workflow_status AS row ON row.workflow_uuid = job.key
WHERE row.workflow_uuid IS NULL
   OR row.status NOT IN ('ENQUEUED', 'DELAYED', 'PENDING')
      AND row.updated_at < (extract(epoch FROM now()) - $2::float) * 1000
"""

_OLD = f"""
SELECT workflow_uuid FROM {SCHEMA}.workflow_status
WHERE queue_name = '{QUEUE}' AND completed_at < (extract(epoch FROM now()) - $1::float) * 1000
LIMIT 1000
"""

_SWEEP_LOCK = (0x51440002, 0)
"""Advisory lock of the one worker that sweeps."""

_SETTLED_SECONDS = 30.0
"""An ended job is only taken for lost when it ended this long ago: the service may just be writing it down."""

_KEPT_SECONDS = 7 * 24 * 3600.0

T = TypeVar("T")


class Store:
    """Statements on the queue's tables, on a small connection pool of its own."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Raises Unavailable when the database can't be reached."""
        if self._pool is None:
            self._pool = await _patiently(self._connect)

    async def close(self) -> None:
        """Give the connections back."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def enqueue(self, jobs: Sequence[Job]) -> None:
        """Store those that are not stored yet, and wake the workers. Raises Unavailable."""

        async def store() -> None:
            async with self._opened().acquire() as connection, connection.transaction():
                await _enqueue_on(connection, jobs)

        await _patiently(store)

    async def claimed_attempt(self, key: str, executor: str) -> int | None:
        """How often the job was given to an executor, if it is this executor's now, else None."""
        attempt: int | None = await _patiently(lambda: self._opened().fetchval(_CLAIMED, key, executor))
        return attempt

    async def held_by(self, executor: str) -> set[str]:
        """Keys of the jobs an executor has taken and not ended."""
        rows = await _patiently(lambda: self._opened().fetch(_HELD, executor))
        return {row["workflow_uuid"] for row in rows}

    async def wake_workers(self) -> None:
        """Have every worker look into the queue now."""
        await _patiently(lambda: self._opened().execute("SELECT pg_notify($1, '')", CHANNEL))

    async def has_tables(self) -> bool:
        """Whether DBOS's tables are there as its release wants them, or a later one."""
        try:
            version = await self._opened().fetchval(f"SELECT version FROM {SCHEMA}.dbos_migrations")
        except _MISSING_TABLES:
            return False
        return version is not None and version >= TABLES_VERSION

    async def sweep(self, jobs: Sequence[Job], delete: Callable[[list[str]], Awaitable[None]]) -> int:
        """Put back those of the jobs that are neither waiting nor executing, and delete what is long done.

        `delete` removes the rows of ended jobs. Returns how many were put back; 0 while another worker sweeps.
        Raises Unavailable.
        """

        async def sweep() -> int:
            async with self._opened().acquire() as connection, connection.transaction():
                if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", *_SWEEP_LOCK):
                    return 0
                absent = await connection.fetch(_ABSENT, [job.key for job in jobs], _SETTLED_SECONDS)
                old = await connection.fetch(_OLD, _KEPT_SECONDS)
                ended = [row["key"] for row in absent if row["ended"]] + [row["workflow_uuid"] for row in old]
                if ended:
                    await delete(ended)
                keys = {row["key"] for row in absent}
                await _enqueue_on(connection, [job for job in jobs if job.key in keys])
                return len(keys)

        return await _patiently(sweep)

    async def _connect(self) -> asyncpg.Pool:
        pool = await asyncpg.create_pool(
            self._database_url,
            min_size=0,  # else the pool itself complains at length while the database is away
            max_size=4,
            timeout=5,
            command_timeout=10,
            server_settings={"application_name": "quarterdeck queue"},
        )
        try:
            await pool.execute("SELECT 1")
        except BaseException:
            await pool.close()
            raise
        return pool

    def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            raise Unavailable("the run queue is not connected: call connect() first")
        return self._pool


async def _enqueue_on(connection: asyncpg.Connection, jobs: Sequence[Job]) -> None:
    if jobs:
        await connection.execute(
            _ENQUEUE,
            [job.key for job in jobs],
            [job.run_id for job in jobs],
            [job.organization_id for job in jobs],
            [job.segment for job in jobs],
        )
        await connection.execute("SELECT pg_notify($1, '')", CHANNEL)


async def _patiently(operation: Callable[[], Awaitable[T]]) -> T:
    """Try again while the database is away, for some seconds."""
    deadline = time.monotonic() + RETRY_SECONDS
    pause = 0.05
    while True:
        try:
            return await operation()
        except _MISSING_TABLES:
            raise Unavailable("the run queue has no tables in this database: run `quarterdeck migrate`") from None
        except TRANSIENT as error:
            if time.monotonic() + pause > deadline:
                raise Unavailable(f"the run queue's database can't be reached: {error}") from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
