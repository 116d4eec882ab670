"""Makes facts of the sessions' event log: each event once, whatever happens to the workers.

The log is read in the order of transactions, below the oldest one still open, so nothing that commits late is passed
by. A batch is one transaction: its facts, their place in line to be counted, and how far the log has been read. Any
number of workers run this; the row that says how far it is lets one at a time.

After an outage it goes on from where it was. `fill` reads a part of the log once more: what is there stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from core import db
from models.base import Row
from services.metrics.store import COLUMNS, store_found

BATCH = 5000
LOG = "log"

# As the migration of the index has it, word for word, for the planner to see that it is the same.
_FACTUAL = (
    "(e.type IN ('TOOL_CALL_RESULT', 'TEXT_MESSAGE_END', 'RUN_FINISHED', 'RUN_ERROR') OR e.name IN ("
    "'quarterdeck.message.sent', 'quarterdeck.session.created', 'quarterdeck.session.forked', "
    "'quarterdeck.session.status'))"
)
_BEFORE_WORK_SECONDS = 2.0
"""A write takes its time before it takes its number, and hosts' clocks differ."""

_BOUNDARY = f"""
SELECT xid::text AS xid, session_id, seq, count(*) OVER () AS events FROM (
    SELECT e.xid, e.session_id, e.seq FROM session_events e
    WHERE {_FACTUAL} AND (e.xid, e.session_id, e.seq) > ($1::text::xid8, $2, $3)
      AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND ($4::text IS NULL OR e.xid < $4::text::xid8)
    ORDER BY e.xid, e.session_id, e.seq LIMIT $5
) AS batch ORDER BY batch.xid DESC, session_id DESC, seq DESC LIMIT 1
"""

_EVENTS = f"""
FROM session_events e
JOIN sessions s ON s.id = e.session_id AND s.purpose = 'WORK'
LEFT JOIN runs r ON r.id = e.run_id
{{join}}
WHERE {_FACTUAL} AND (e.xid, e.session_id, e.seq) > ($1::text::xid8, $2, $3)
  AND (e.xid, e.session_id, e.seq) <= ($4::text::xid8, $5, $6)
  AND ($7::timestamptz IS NULL OR e.at >= $7) AND {{which}}
"""

_ENDS = "e.type IN ('RUN_FINISHED', 'RUN_ERROR')"
# pydantic-ai spells provider:name, and the Claude Agent SDK has but one provider.
_SPELT = "s.runtime = 'pydantic_ai' AND position(':' IN {model}) > 0"
_MODEL = f"CASE WHEN {_SPELT} THEN substr({{model}}, position(':' IN {{model}}) + 1) ELSE {{model}} END"
_PROVIDER = f"CASE WHEN {_SPELT} THEN split_part({{model}}, ':', 1) WHEN s.runtime = 'claude' THEN 'anthropic' END"
_RUN_MODEL = "coalesce(r.model, s.model)"
_USED_MODEL = f"coalesce(e.data #>> '{{usage,model}}', {_RUN_MODEL})"


def _milliseconds(start: str, end: str) -> str:
    return f"greatest(extract(epoch FROM {end} - {start}) * 1000, 0)::float8"


def _own_id(what: str) -> str:
    """An id that is always the same, for what has none of its own."""
    return f"md5({what})::uuid"


_COMMON = {
    "at": "e.at",
    "organization_id": "e.organization_id",
    "source": "'QUARTERDECK'",
    "session_id": "e.session_id",
    "run_id": "e.run_id",
    "user_id": "r.started_by_id",
    "template_version_id": "s.template_version_id",
    "runtime": "s.runtime",
    "service": "NULL::text",
    "conventions": "NULL::text",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How facts of a table are made of events."""

    table: str
    values: dict[str, str]
    join: str
    which: str

    @property
    def facts(self) -> str:
        """The statement that gives the facts, in the order of the table's columns."""
        values = _COMMON | self.values
        chosen = ", ".join(f"{values[name]} AS {name}" for name in COLUMNS[self.table])
        return f"SELECT {chosen} {_EVENTS.format(join=self.join, which=self.which)}"


_KINDS = (
    _Kind(
        "tool_facts",
        {
            "id": "t.id",
            "at": "coalesce(t.ended_at, e.at)",
            "tool": "t.tool",
            "server": "CASE WHEN position('.' IN t.tool) > 1 THEN split_part(t.tool, '.', 1) END",
            "outcome": "t.status",
            "duration_ms": "t.duration_ms::float8",
            "model": _MODEL.format(model=_RUN_MODEL),
            "error_kind": "t.error_kind",
        },
        "JOIN tool_executions t ON t.id = e.tool_execution_id",
        "e.type = 'TOOL_CALL_RESULT'",
    ),
    _Kind(
        "run_facts",
        {
            "id": "r.id",
            "at": "coalesce(r.ended_at, e.at)",
            "model": _MODEL.format(model=_RUN_MODEL),
            "outcome": "r.status",
            "error_code": "r.error_code",
            "duration_ms": _milliseconds("r.started_at", "coalesce(r.ended_at, e.at)"),
            "queue_ms": _milliseconds("r.queued_at", "r.started_at"),
        },
        "",
        f"{_ENDS} AND r.id IS NOT NULL AND e.data ->> 'outcome' IS DISTINCT FROM 'interrupt'",
    ),
    _Kind(
        "usage_facts",
        {
            "id": _own_id("e.session_id || ':' || e.seq"),
            "model": _MODEL.format(model=_USED_MODEL),
            "provider": _PROVIDER.format(model=_USED_MODEL),
            "requests": "coalesce((e.data #>> '{usage,requests}')::integer, 0)",
            "input_tokens": "(e.data #>> '{usage,inputTokens}')::bigint",
            "output_tokens": "(e.data #>> '{usage,outputTokens}')::bigint",
            "cache_read_tokens": "(e.data #>> '{usage,cacheReadTokens}')::bigint",
            "cache_write_tokens": "(e.data #>> '{usage,cacheWriteTokens}')::bigint",
            "duration_ms": "NULL::float8",
            "cost_usd": "(e.data #>> '{usage,costUsd}')::numeric",
            "cost_source": "e.data #>> '{usage,costSource}'",
        },
        "",
        f"{_ENDS} AND e.data ->> 'usage' IS NOT NULL",
    ),
    # Runs of before segments told what they used: what all of a run used.
    _Kind(
        "usage_facts",
        {
            "id": "r.id",
            "at": "coalesce(r.ended_at, e.at)",
            "model": _MODEL.format(model=_RUN_MODEL),
            "provider": _PROVIDER.format(model=_RUN_MODEL),
            "requests": "r.request_count",
            "input_tokens": "r.input_tokens",
            "output_tokens": "r.output_tokens",
            "cache_read_tokens": "r.cache_read_tokens",
            "cache_write_tokens": "r.cache_write_tokens",
            "duration_ms": "NULL::float8",
            "cost_usd": "r.cost_usd",
            "cost_source": "r.cost_source",
        },
        "",
        f"{_ENDS} AND NOT e.data ? 'usage' AND e.data ->> 'outcome' IS DISTINCT FROM 'interrupt' AND "
        "(r.request_count > 0 OR num_nonnulls(r.input_tokens, r.output_tokens, r.cost_usd) > 0)",
    ),
    _Kind(
        "message_facts",
        {
            "id": "m.id",
            "at": "m.created_at",
            "user_id": "coalesce(m.author_id, r.started_by_id)",
            "role": "CASE WHEN m.reasoning THEN 'REASONING' ELSE m.role END",
            "characters": "length(m.text)",
        },
        "JOIN messages m ON m.id = e.message_id",
        "(e.type = 'TEXT_MESSAGE_END' OR e.name = 'quarterdeck.message.sent')",
    ),
    _Kind(
        "session_facts",
        {
            "id": _own_id("e.session_id || ':' || e.seq"),
            "user_id": "CASE WHEN e.name = 'quarterdeck.session.status' THEN s.owner_id ELSE s.creator_id END",
            "change": "CASE WHEN e.name = 'quarterdeck.session.status' THEN e.data ->> 'to' ELSE 'CREATED' END",
            "duration_ms": "CASE WHEN e.data ->> 'to' IN ('COMPLETED', 'FAILED', 'TERMINATED') THEN "
            f"{_milliseconds('s.created_at', 'e.at')} END",
        },
        "",
        "e.name IN ('quarterdeck.session.created', 'quarterdeck.session.forked', 'quarterdeck.session.status')",
    ),
)


async def ingest(reader: str = LOG, *, batch: int = BATCH) -> int | None:
    """Make facts of the next events; returns how many events were read. None where another worker is at it."""
    async with db.transaction() as tx:
        at = await tx.fetchrow(
            "SELECT xid::text AS xid, session_id, seq, until_xid::text AS until_xid, since FROM metric_positions "
            "WHERE reader = $1 FOR UPDATE SKIP LOCKED",
            reader,
            row=Row,
        )
        if at is None:
            return None
        place = (at.xid, at.session_id, at.seq)
        last = await tx.fetchrow(_BOUNDARY, *place, at.until_xid, batch, row=Row)
        if last is None:
            if reader != LOG:
                await tx.execute("DELETE FROM metric_positions WHERE reader = $1", reader)
            return 0
        end = (last.xid, last.session_id, last.seq)
        for kind in _KINDS:
            await store_found(tx, kind.table, kind.facts, *place, *end, at.since)
        await tx.execute(
            "UPDATE metric_positions SET xid = $2::text::xid8, session_id = $3, seq = $4 WHERE reader = $1",
            reader,
            *end,
        )
        return int(last.events)


async def fill(since: datetime) -> str:
    """Have the log read once more from a time on; returns the name of the reader that does. A worker goes on with it
    where whoever began it is gone."""
    reader = f"fill {uuid4()}"
    await db.execute(
        "INSERT INTO metric_positions (reader, xid, session_id, seq, until_xid, since) "
        "SELECT $1, '0', $2, 0, pg_snapshot_xmin(pg_current_snapshot()), $3",
        reader,
        UUID(int=0),
        since,
    )
    return reader


async def readers() -> list[str]:
    """All who read the log: the one that follows it, first, and those that fill gaps."""
    rows = await db.fetch("SELECT reader FROM metric_positions ORDER BY reader <> $1, reader", LOG)
    return [row["reader"] for row in rows]


async def watermark(tx: db.Transaction | None = None) -> datetime:
    """Up to when the facts of our own sessions are complete: everything of before is stored."""
    fetchval = db.fetchval if tx is None else tx.fetchval
    found = await fetchval("SELECT nullif(up_to, '-infinity') FROM metric_positions WHERE reader = $1", LOG)
    return found or datetime.min.replace(tzinfo=UTC)


class Watermark:
    """Moves `watermark` on, each time that all of the log has been read."""

    def __init__(self) -> None:
        self._seen: tuple[int, datetime] | None = None
        """The next transaction's number at a time: once no older one is open, all of that time is there to be read."""

    async def look(self) -> tuple[int, int, datetime]:
        """The oldest open transaction, the next one, and the time; before the log is read to its end."""
        row = await db.fetchrow(
            "SELECT pg_snapshot_xmin(s)::text AS oldest, pg_snapshot_xmax(s)::text AS next, clock_timestamp() AS at "
            "FROM pg_current_snapshot() AS s"
        )
        return int(row["oldest"]), int(row["next"]), row["at"]

    async def move(self, looked: tuple[int, int, datetime]) -> None:
        """All that was below the oldest transaction when we looked has been read."""
        oldest, next_, at = looked
        if self._seen is None:
            self._seen = (next_, at)
        if oldest >= self._seen[0]:
            up_to = self._seen[1] - timedelta(seconds=_BEFORE_WORK_SECONDS)
            await db.execute(
                "UPDATE metric_positions SET up_to = $2 "
                "WHERE reader = $1 AND up_to < $2::timestamptz - interval '1 second'",
                LOG,
                up_to,
            )
            self._seen = (next_, at)
