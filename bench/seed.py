"""Fills a migrated database with sessions, messages, runs and tool executions, by COPY.

A fifth of the sessions are long, the rest short, as in life; the average is 50 messages and 50 calls of tools.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

Say = Callable[[str], None]

BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=45)
LONG, SHORT = 130, 30
LONG_EVERY = 5
MESSAGES_PER_RUN = 10
USERS = 100
WORDS = (
    "agent",
    "branch",
    "budget",
    "check",
    "commit",
    "deploy",
    "error",
    "file",
    "index",
    "message",
    "model",
    "plan",
    "policy",
    "prompt",
    "query",
    "queue",
    "release",
    "report",
    "result",
    "retry",
    "review",
    "schema",
    "session",
    "test",
    "token",
    "tool",
    "trace",
    "worker",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How many sessions; the rest follows."""

    sessions: int


SCALES = {"small": Scale(100), "full": Scale(10_000)}


@dataclass(frozen=True, slots=True)
class Seeded:
    """What was written: ids in the order of creation, and moments to page from."""

    organization_id: UUID
    session_ids: list[UUID]
    long_session_ids: list[UUID]
    moments: list[datetime]
    """Moments of creation to page back from, each with enough older sessions for the largest page that is asked for."""
    longest_page: int
    """Long sessions that are older than any of the moments."""
    messages: int
    tool_executions: int
    seconds: float


class _Ids:
    """UUIDv7 (RFC 9562) of a given time, from a seeded generator: every run of the bench has the same rows."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def at(self, moment: datetime) -> UUID:
        milliseconds = int(moment.timestamp() * 1000)
        low = self._random.getrandbits(74)
        return UUID(int=milliseconds << 80 | 7 << 76 | (low >> 62) << 64 | 2 << 62 | low & (1 << 62) - 1)


class _Rows:
    def __init__(self, organization_id: UUID, scale: Scale) -> None:
        self.organization_id, self.scale = organization_id, scale
        self.random = random.Random(1)
        self.ids = _Ids(2)
        self.users = [self.ids.at(BEGINNING - STEP) for _ in range(USERS)]
        self.moments = [BEGINNING + STEP * number for number in range(scale.sessions)]
        self.sessions = [self.ids.at(moment) for moment in self.moments]
        self.runs: list[list[UUID]] = [
            [self.ids.at(moment) for _ in range(_length(number) // MESSAGES_PER_RUN)]
            for number, moment in enumerate(self.moments)
        ]
        self.texts = [" ".join(self.random.choices(WORDS, k=self.random.randint(5, 60))) for _ in range(500)]

    def of_users(self) -> Iterator[tuple[Any, ...]]:
        for number, id_ in enumerate(self.users, 1):
            yield (
                id_,
                self.organization_id,
                "HUMAN",
                f"User {number}",
                f"user{number}@example.test",
                "MEMBER",
                BEGINNING,
            )

    def of_sessions(self) -> Iterator[tuple[Any, ...]]:
        for number, (id_, moment) in enumerate(zip(self.sessions, self.moments, strict=True)):
            owner = self.users[number % USERS]
            length = _length(number)
            yield (
                *(id_, self.organization_id, owner, owner, f"Session {number}: {self.texts[number % 500][:80]}"),
                *("ACTIVE", "ORGANIZATION" if number % 2 else "PRIVATE", "script", "DEFAULT", b"{}"),
                orjson.dumps({"size": "long" if length == LONG else "short"}),
                *(2 * length, length, length, 0, moment, moment),
            )

    def of_runs(self) -> Iterator[tuple[Any, ...]]:
        for number, runs in enumerate(self.runs):
            for place, id_ in enumerate(runs, 1):
                at = self.moments[number] + timedelta(seconds=10 * place)
                yield (
                    *(id_, self.organization_id, self.sessions[number], place, "FINISHED", 1),
                    *(self.users[number % USERS], at, at, at, 0),
                )

    def of_messages(self) -> Iterator[tuple[Any, ...]]:
        for number, session in enumerate(self.sessions):
            for place in range(_length(number)):
                at = self.moments[number] + timedelta(seconds=place)
                by_user = place % MESSAGES_PER_RUN == 0
                yield (
                    *(self.ids.at(at), self.organization_id, session, self.runs[number][place // MESSAGES_PER_RUN]),
                    *(2 * place + 1, "USER" if by_user else "ASSISTANT", "COMPLETE", False),
                    *(self.users[number % USERS] if by_user else None, self.texts[(number + place) % 500], at),
                )

    def of_tool_executions(self) -> Iterator[tuple[Any, ...]]:
        arguments = [orjson.dumps({"path": f"src/{word}.py", "lines": 40}) for word in WORDS]
        results = [orjson.dumps([{"type": "text", "text": text}]) for text in self.texts]
        for number, session in enumerate(self.sessions):
            for place in range(_length(number)):
                at = self.moments[number] + timedelta(seconds=place)
                yield (
                    *(self.ids.at(at), self.organization_id, session, self.runs[number][place // MESSAGES_PER_RUN]),
                    *(2 * place + 2, f"call-{place}", "files.read", arguments[place % len(WORDS)], "SUCCEEDED"),
                    *(results[(number + place) % 500], False, at, at, at, 12),
                )


_TABLES: tuple[tuple[str, str], ...] = (
    ("users", "id organization_id kind name email role created_at"),
    (
        "sessions",
        "id organization_id creator_id owner_id title status visibility runtime permission_mode options labels "
        "last_event_seq message_count tool_execution_count request_count created_at updated_at",
    ),
    (
        "runs",
        "id organization_id session_id number status segment started_by_id queued_at started_at ended_at request_count",
    ),
    ("messages", "id organization_id session_id run_id seq role status reasoning author_id text created_at"),
    (
        "tool_executions",
        "id organization_id session_id run_id seq call_id tool arguments status result truncated created_at "
        "started_at ended_at duration_ms",
    ),
)


async def seed(dsn: str, scale: Scale, say: Say) -> Seeded:
    """Write the rows into the first organisation of a migrated database, and let PostgreSQL look at them."""
    started = time.monotonic()
    connection = await asyncpg.connect(dsn)
    try:
        # The rows below are JSON already; PostgreSQL's binary jsonb has a version before it.
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=lambda data: b"\x01" + data, decoder=bytes, format="binary"
        )
        # Foreign keys are true by construction; asking for each of a million rows would take a minute.
        await connection.execute("SET session_replication_role = replica")
        rows = _Rows(await connection.fetchval("SELECT id FROM organizations ORDER BY created_at LIMIT 1"), scale)
        written = {}
        for table, columns in _TABLES:
            records = getattr(rows, f"of_{table}")()
            tag = await connection.copy_records_to_table(table, records=records, columns=columns.split())
            written[table] = int(tag.split()[-1])
            say(f"  {written[table]:>8,} {table.replace('_', ' ')}")
        await connection.execute("SET session_replication_role = origin")
        for table, _ in _TABLES:
            await connection.execute(f"VACUUM ANALYZE {table}")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    first = min(len(rows.moments) // 2, 500)
    return Seeded(
        rows.organization_id,
        rows.sessions,
        [id_ for number, id_ in enumerate(rows.sessions) if _length(number) == LONG],
        [moment + STEP / 2 for moment in rows.moments[first:]],
        sum(_length(number) == LONG for number in range(first + 1)),
        written["messages"],
        written["tool_executions"],
        time.monotonic() - started,
    )


def _length(number: int) -> int:
    return LONG if number % LONG_EVERY == 0 else SHORT
