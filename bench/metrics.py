"""Metrics of millions of tool calls over 90 days, read through the engine and by the same questions in SQL by hand; and
facts made of the event log against a bare COPY of the same rows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from bench.seed import Say
from core import db
from services.metrics import ingest, rollups
from services.metrics.calendar import BUCKETS, BucketName
from services.metrics.engine import MetricScope, read
from services.metrics.store import COLUMNS
from tests.metric_log import write_log

CALLS = (500_000, 5_000_000)
DAYS = 90
USERS, TOOLS, VERSIONS = 60, 40, 25
USES_EVERY = 10
"""Tool calls to one fact of usage."""
ROLLED_AT_ONCE = 250_000
LOGGED = {"sessions": 40, "runs": 25, "tools": 60}

# Calls come evenly, but for who makes them and what they call: a few are most of it. Durations are log-normal.
_TOOLS = """
INSERT INTO {table} (at, organization_id, id, source, session_id, user_id, template_version_id, runtime, tool, server,
                     outcome, duration_ms, model)
SELECT at, $1, md5('tool' || n)::uuid, 'QUARTERDECK', md5('session' || n / 50)::uuid,
       md5('user' || floor({users} * (n * 7919 % 10007 / 10007.0) ^ 2))::uuid,
       md5('version' || n / 50 % {versions})::uuid, 'pydantic_ai',
       'server' || t % 4 || '.tool' || t, 'server' || t % 4,
       CASE WHEN n * 31 % 29 = 0 THEN 'FAILED' ELSE 'SUCCEEDED' END,
       round(exp(4 + 1.5 * (((n * 104729) % 10007 + (n * 1299709) % 10007 + (n * 15485863) % 10007) / 5003.5 - 3))
             ::numeric, 0)::float8,
       CASE n / 50 % 3 WHEN 0 THEN 'model-a' WHEN 1 THEN 'model-b' ELSE 'model-c' END
FROM (SELECT n, $2::timestamptz + n * interval '{days} days' / {calls} AS at,
             floor({tools} * (n * 6389 % 10007 / 10007.0) ^ 2)::integer AS t
      FROM generate_series($3::bigint, $4::bigint) AS n) AS calls
"""
_USES = """
INSERT INTO {table} (at, organization_id, id, source, session_id, user_id, template_version_id, runtime, model,
                     provider, requests, input_tokens, output_tokens, cost_usd, cost_source)
SELECT at, $1, md5('use' || id)::uuid, source, session_id, user_id, template_version_id, runtime, model, 'provider', 2,
       1000 + duration_ms::bigint % 5000, 100 + duration_ms::bigint % 700,
       (0.001 + duration_ms::bigint % 100 * 0.0001)::numeric, 'provider'
FROM tool_facts WHERE organization_id = $1 AND get_byte(uuid_send(id), 3) % {every} = 0 AND at >= $2 AND at < $3
"""


@dataclass(frozen=True, slots=True)
class Question:
    """Something that is asked of the engine, and in SQL by hand."""

    title: str
    metric: str
    days: float
    bucket: BucketName | None
    group_by: tuple[str, ...]
    top: int | None
    by_hand: str
    """Of the rollups, and of what waits to be counted. Parameters: organisation, begin, end."""
    of_facts: str


_PENDING = "FROM {pending} WHERE organization_id = $1 AND at >= $2 AND at < $3"
_ROLLED = "FROM {table} WHERE organization_id = $1 AND dimensions = '{dimensions}' AND at >= $2 AND at < $3"
_BIN = "greatest(floor(ln(greatest(duration_ms, 1e-9)) / ln(1.1::float8)) + 64, 0)::bigint"


def _counts(unit: str) -> str:
    return (
        f"SELECT at, sum(calls) FROM (SELECT at, calls {_ROLLED.format(table=f'tool_{unit}s', dimensions='')} "
        f"UNION ALL SELECT date_bin('1 {unit}', at, '2000-01-01T00:00:00Z'), count(*) "
        f"{_PENDING.format(pending='tool_pending')} GROUP BY 1) AS found GROUP BY at ORDER BY at"
    )


def _raw_counts(unit: str) -> str:
    return (
        f"SELECT date_bin('1 {unit}', at, '2000-01-01T00:00:00Z'), count(*) FROM tool_facts "
        "WHERE organization_id = $1 AND at >= $2 AND at < $3 GROUP BY 1 ORDER BY 1"
    )


QUESTIONS = (
    Question("90 days by day", "tools.calls", 90, BucketName.DAY, (), None, _counts("day"), _raw_counts("day")),
    Question("30 days by hour", "tools.calls", 30, BucketName.HOUR, (), None, _counts("hour"), _raw_counts("hour")),
    Question(
        "24 h by minute, p95",
        "tools.duration_p95",
        1,
        BucketName.MINUTE,
        (),
        None,
        "SELECT DISTINCT ON (at) at, bin, total FROM ("
        "SELECT at, bin, sum(sum(n)) OVER (PARTITION BY at ORDER BY bin) AS up_to, "
        "sum(sum(n)) OVER (PARTITION BY at) AS total FROM ("
        "SELECT at, packed >> 40 AS bin, packed & 1099511627775 AS n FROM tool_minutes, unnest(histogram) AS packed "
        "WHERE organization_id = $1 AND dimensions = '' AND at >= $2 AND at < $3 UNION ALL "
        f"SELECT date_bin('1 minute', at, '2000-01-01T00:00:00Z'), {_BIN}, count(*) "
        f"{_PENDING.format(pending='tool_pending')} GROUP BY 1, 2) AS found GROUP BY at, bin) AS bins "
        "WHERE up_to >= 0.95 * total ORDER BY at, bin",
        "SELECT date_bin('1 minute', at, '2000-01-01T00:00:00Z'), "
        "percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FROM tool_facts "
        "WHERE organization_id = $1 AND at >= $2 AND at < $3 GROUP BY 1 ORDER BY 1",
    ),
    Question(
        "top 20 tools of 90 days",
        "tools.calls",
        90,
        None,
        ("tool",),
        20,
        "WITH tools AS MATERIALIZED (SELECT tool, sum(calls) AS calls FROM ("
        f"SELECT labels[1] AS tool, calls {_ROLLED.format(table='tool_days', dimensions='tool')} "
        f"UNION ALL SELECT tool, count(*) {_PENDING.format(pending='tool_pending')} GROUP BY 1) AS found "
        "GROUP BY tool), "
        "best AS (SELECT * FROM tools ORDER BY calls DESC, tool LIMIT 20) SELECT * FROM best "
        "UNION ALL SELECT NULL, sum(calls) FROM tools WHERE tool NOT IN (SELECT tool FROM best)",
        "SELECT tool, count(*) FROM tool_facts WHERE organization_id = $1 AND at >= $2 AND at < $3 "
        "GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
    ),
    Question(
        "cost of 90 days by user and template version",
        "cost.usd",
        90,
        None,
        ("user", "template_version"),
        None,
        "SELECT who, what, sum(cost_usd) FROM (SELECT labels[1] AS who, labels[2] AS what, cost_usd "
        f"{_ROLLED.format(table='usage_days', dimensions='user,template_version')} "
        "UNION ALL SELECT user_id::text, template_version_id::text, sum(cost_usd) "
        f"{_PENDING.format(pending='usage_pending')} GROUP BY 1, 2) AS found GROUP BY 1, 2",
        "SELECT user_id, template_version_id, sum(cost_usd) FROM usage_facts "
        "WHERE organization_id = $1 AND at >= $2 AND at < $3 GROUP BY 1, 2",
    ),
)

DASHBOARD = (
    ("runs.count", None),
    ("runs.error_rate", None),
    ("tools.calls", BucketName.HOUR),
    ("tools.error_rate", BucketName.HOUR),
    ("tools.duration_p50", BucketName.HOUR),
    ("tools.duration_p95", BucketName.HOUR),
    ("tokens.total", BucketName.HOUR),
    ("tokens.per_second", BucketName.HOUR),
    ("cost.usd", BucketName.HOUR),
    ("cost.per_hour", None),
    ("sessions.created", BucketName.HOUR),
    ("messages.count", BucketName.HOUR),
)
"""Panels of a dashboard of the last 24 hours."""


@dataclass
class MetricFigures:
    """Seconds, medians over rounds."""

    calls: int
    questions: list[tuple[str, float, float, float]] = field(default_factory=list)
    """Title; through the engine, by hand of the rollups, by hand of the facts."""
    dashboard: float = 0.0
    rolled_per_second: float = 0.0


@dataclass
class IngestFigures:
    """Facts a second."""

    facts: int
    ingested: float
    copied: float


async def measure(dsn: str, calls: int, rounds: int, say: Say) -> MetricFigures:
    """Fill an organisation of its own, and ask; the process must be connected to the same database."""
    organization_id, end = uuid4(), datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    figures = MetricFigures(calls)
    figures.rolled_per_second = await fill(dsn, organization_id, end, calls, say)
    await ask(dsn, organization_id, end, rounds, figures)
    return figures


async def fill(dsn: str, organization_id: UUID, end: datetime, calls: int, say: Say) -> float:
    """Write so many calls of the days before, and count them; returns how many facts were counted a second."""
    connection = await asyncpg.connect(dsn, timeout=60, command_timeout=3600)
    try:
        await _fill(connection, organization_id, end, calls, say)
        rolled_per_second = await _roll(connection, say)
        for table in ("tool_facts", "usage_facts", "tool_minutes", "tool_hours", "tool_days", "usage_days"):
            await connection.execute(f"VACUUM ANALYZE {table}")
        for table in ("tool_pending", "usage_pending"):
            await connection.execute(f"VACUUM FULL {table}")
    finally:
        await connection.close()
    return rolled_per_second


async def ask(dsn: str, organization_id: UUID, end: datetime, rounds: int, figures: MetricFigures) -> None:
    """Ask all questions of what `fill` wrote."""
    scope = MetricScope(organization_id)
    connection = await asyncpg.connect(dsn, timeout=60, command_timeout=3600)
    try:
        for question in QUESTIONS:
            begin = end - timedelta(days=question.days)
            figures.questions.append(await _ask(connection, scope, question, begin, end, rounds))
    finally:
        await connection.close()

    async def dashboard() -> None:
        for metric, bucket in DASHBOARD:
            asked: Any = {"start": end - timedelta(days=1), "end": end}
            await read(scope, metric, **asked, bucket=None if bucket is None else BUCKETS[bucket])

    [figures.dashboard] = await _medians(rounds, dashboard)


async def measure_ingest(dsn: str, rounds: int, say: Say) -> IngestFigures:
    """Make facts of a log, and store the same facts by nothing but COPY."""
    say("Making facts of the event log …")
    connection = await asyncpg.connect(dsn, timeout=60, command_timeout=3600)
    ingested, copied, total = [], [], 0
    try:
        user = await connection.fetchrow("SELECT id, organization_id FROM users ORDER BY created_at LIMIT 1")
        while await ingest.ingest():
            pass
        for turn in range(rounds):
            start = datetime.now(UTC) - timedelta(days=20 - turn)
            await write_log(connection, user["organization_id"], user["id"], start=start, **LOGGED, name=f"bench{turn}")
            await connection.execute("ANALYZE session_events, tool_executions, runs, messages, sessions")
            place = await connection.fetchval("SELECT clock_timestamp()")
            began = time.perf_counter()
            while await ingest.ingest():
                pass
            taken = time.perf_counter() - began
            found = {}
            for table, columns in COLUMNS.items():
                found[table] = await connection.fetch(
                    f"SELECT {', '.join(columns)} FROM {table} WHERE recorded_at >= $1 AND source = 'QUARTERDECK'",
                    place,
                )
                # The same rows for somebody else, so that they are as new as the first time.
                found[table] = [(row[0], UUID(int=turn), *row[2:]) for row in found[table]]
            total = sum(map(len, found.values()))
            ingested.append(total / taken)
            began = time.perf_counter()
            async with connection.transaction():
                for table, rows in found.items():
                    for at in range(0, len(rows), ingest.BATCH):
                        batch = rows[at : at + ingest.BATCH]
                        await connection.copy_records_to_table(table, columns=COLUMNS[table], records=batch)
            copied.append(total / (time.perf_counter() - began))
    finally:
        await connection.close()
    return IngestFigures(total, statistics.median(ingested), statistics.median(copied))


async def _fill(connection: asyncpg.Connection, organization_id: UUID, end: datetime, calls: int, say: Say) -> None:
    say(f"Writing {calls:,} tool calls …")
    begin = end - timedelta(days=DAYS)
    shape = {"days": DAYS, "calls": calls, "users": USERS, "tools": TOOLS, "versions": VERSIONS}
    for first in range(0, calls, 500_000):
        last = min(first + 500_000, calls) - 1
        statement = _TOOLS.format(table="tool_facts", **shape)
        await connection.execute(statement, organization_id, begin, first, last)
        times = begin + first * timedelta(days=DAYS) / calls, begin + (last + 1) * timedelta(days=DAYS) / calls
        await connection.execute(_USES.format(table="usage_facts", every=USES_EVERY), organization_id, *times)
        for fact in ("tool", "usage"):
            await connection.execute(
                f"INSERT INTO {fact}_pending SELECT * FROM {fact}_facts "
                "WHERE organization_id = $1 AND at >= $2 AND at < $3",
                organization_id,
                *times,
            )


async def _roll(connection: asyncpg.Connection, say: Say) -> float:
    say("Counting them …")
    await connection.execute("SET work_mem = '128MB'")
    began, counted = time.perf_counter(), 0
    for facts in ("tool", "usage"):
        while rolled := await connection.fetchval(rollups.STATEMENTS[facts], ROLLED_AT_ONCE):
            counted += rolled
    return counted / (time.perf_counter() - began)


async def _ask(
    connection: asyncpg.Connection,
    scope: MetricScope,
    question: Question,
    begin: datetime,
    end: datetime,
    rounds: int,
) -> tuple[str, float, float, float]:
    async def by_engine() -> None:
        await read(
            scope,
            question.metric,
            start=begin,
            end=end,
            bucket=None if question.bucket is None else BUCKETS[question.bucket],
            group_by=question.group_by,
            top=question.top,
        )

    async def by_hand() -> None:
        async with db.acquire() as pooled:
            await pooled.fetch(question.by_hand, scope.organization_id, begin, end)

    async def of_facts() -> None:
        await connection.fetch(question.of_facts, scope.organization_id, begin, end)

    engine, hand = await _medians(rounds, by_engine, by_hand)
    [facts] = await _medians(min(rounds, 2), of_facts)
    return question.title, engine, hand, facts


async def _medians(rounds: int, *calls: Callable[[], Awaitable[None]]) -> list[float]:
    """Of each call, asked in turn; quick ones several times a round."""
    seconds: Sequence[list[float]] = [[] for _ in calls]
    for _ in range(2):
        for call in calls:
            await call()
    for _ in range(rounds):
        for taken, call in zip(seconds, calls, strict=True):
            began, times = time.perf_counter(), 0
            while times == 0 or (time.perf_counter() - began < 0.3 and times < 50):
                each = time.perf_counter()
                await call()
                taken.append(time.perf_counter() - each)
                times += 1
    return [statistics.median(taken) for taken in seconds]
