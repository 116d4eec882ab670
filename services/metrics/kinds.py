"""How facts are made of events: the statement that reads the next events of the log, and stores their facts.

The events of a batch are read once, with their sessions and runs, whatever facts they become.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.metrics.store import COLUMNS, adding

# As the migration of the index has it, word for word, for the planner to see that it is the same.
FACTUAL = (
    "(e.type IN ('TOOL_CALL_RESULT', 'TEXT_MESSAGE_END', 'RUN_FINISHED', 'RUN_ERROR') OR e.name IN ("
    "'quarterdeck.message.sent', 'quarterdeck.session.created', 'quarterdeck.session.forked', "
    "'quarterdeck.session.status'))"
)
"""Whether an event `e` becomes facts."""

# What other events have with them may be long, and is not asked for.
_EVENTS = f"""
SELECT e.*, s.id IS NOT NULL AND ($6::timestamptz IS NULL OR e.at >= $6) AS fits,
       s.runtime, s.model AS session_model, s.template_version_id, s.owner_id, s.creator_id,
       s.created_at AS session_created_at,
       r.id AS ended_run_id, r.status, r.error_code, r.started_by_id, r.queued_at, r.started_at, r.ended_at,
       coalesce(r.model, s.model) AS run_model, r.request_count, r.input_tokens, r.output_tokens, r.cache_read_tokens,
       r.cache_write_tokens, r.cost_usd, r.cost_source
FROM (
    SELECT e.xid, e.session_id, e.seq, e.organization_id, e.at, e.type, e.name, e.run_id, e.message_id,
           e.tool_execution_id,
           CASE WHEN e.type IN ('RUN_FINISHED', 'RUN_ERROR') OR e.name = 'quarterdeck.session.status' THEN e.data END
               AS data
    FROM session_events e
    WHERE {FACTUAL} AND (e.xid, e.session_id, e.seq) > ($1::text::xid8, $2, $3)
      AND e.xid < pg_snapshot_xmin(pg_current_snapshot()) AND ($4::text IS NULL OR e.xid < $4::text::xid8)
    ORDER BY e.xid, e.session_id, e.seq LIMIT $5
) AS e
LEFT JOIN sessions s ON s.id = e.session_id AND s.purpose = 'WORK'
LEFT JOIN runs r ON r.id = e.run_id
"""
_PARAMETERS = 6
_END = """
SELECT xid::text AS xid, session_id, seq, (SELECT count(*) FROM events) AS events
FROM events ORDER BY events.xid DESC, session_id DESC, seq DESC LIMIT 1
"""

_ENDS = "e.type IN ('RUN_FINISHED', 'RUN_ERROR')"
# pydantic-ai spells provider:name, and the Claude Agent SDK has but one provider.
_SPELT = "e.runtime = 'pydantic_ai' AND position(':' IN {model}) > 0"
_MODEL = f"CASE WHEN {_SPELT} THEN substr({{model}}, position(':' IN {{model}}) + 1) ELSE {{model}} END"
_PROVIDER = f"CASE WHEN {_SPELT} THEN split_part({{model}}, ':', 1) WHEN e.runtime = 'claude' THEN 'anthropic' END"
_USED_MODEL = "coalesce(e.data #>> '{usage,model}', e.run_model)"


def _milliseconds(start: str, end: str) -> str:
    return f"greatest(extract(epoch FROM {end} - {start}) * 1000, 0)::float8"


_COMMON = {
    "at": "e.at",
    "organization_id": "e.organization_id",
    "source": "'QUARTERDECK'",
    "session_id": "e.session_id",
    "run_id": "e.run_id",
    "user_id": "e.started_by_id",
    "template_version_id": "e.template_version_id",
    "runtime": "e.runtime",
    "service": "NULL::text",
    "conventions": "NULL::text",
}
_OWN_ID = "md5(e.session_id || ':' || e.seq)::uuid"
"""An id that is always the same, for what has none of its own."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How facts of a table are made of events."""

    table: str
    values: dict[str, str]
    which: str
    join: str = ""

    @property
    def facts(self) -> str:
        """SQL of the facts, in the order of the table's columns."""
        values = _COMMON | self.values
        chosen = ", ".join(f"{values[name]} AS {name}" for name in COLUMNS[self.table])
        return f"SELECT {chosen} FROM events AS e {self.join} WHERE e.fits AND {self.which}"


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
            "model": _MODEL.format(model="e.run_model"),
            "error_kind": "t.error_kind",
        },
        "e.type = 'TOOL_CALL_RESULT'",
        "JOIN tool_executions t ON t.id = e.tool_execution_id",
    ),
    _Kind(
        "run_facts",
        {
            "id": "e.ended_run_id",
            "at": "coalesce(e.ended_at, e.at)",
            "model": _MODEL.format(model="e.run_model"),
            "outcome": "e.status",
            "error_code": "e.error_code",
            "duration_ms": _milliseconds("e.started_at", "coalesce(e.ended_at, e.at)"),
            "queue_ms": _milliseconds("e.queued_at", "e.started_at"),
        },
        f"{_ENDS} AND e.ended_run_id IS NOT NULL AND e.data ->> 'outcome' IS DISTINCT FROM 'interrupt'",
    ),
    _Kind(
        "usage_facts",
        {
            "id": _OWN_ID,
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
        f"{_ENDS} AND e.data ->> 'usage' IS NOT NULL",
    ),
    # Runs of before segments told what they used: what all of a run used.
    _Kind(
        "usage_facts",
        {
            "id": "e.ended_run_id",
            "at": "coalesce(e.ended_at, e.at)",
            "model": _MODEL.format(model="e.run_model"),
            "provider": _PROVIDER.format(model="e.run_model"),
            "requests": "e.request_count",
            "input_tokens": "e.input_tokens",
            "output_tokens": "e.output_tokens",
            "cache_read_tokens": "e.cache_read_tokens",
            "cache_write_tokens": "e.cache_write_tokens",
            "duration_ms": "NULL::float8",
            "cost_usd": "e.cost_usd",
            "cost_source": "e.cost_source",
        },
        f"{_ENDS} AND NOT e.data ? 'usage' AND e.data ->> 'outcome' IS DISTINCT FROM 'interrupt' AND "
        "(e.request_count > 0 OR num_nonnulls(e.input_tokens, e.output_tokens, e.cost_usd) > 0)",
    ),
    _Kind(
        "message_facts",
        {
            "id": "m.id",
            "at": "m.created_at",
            "user_id": "coalesce(m.author_id, e.started_by_id)",
            "role": "CASE WHEN m.reasoning THEN 'REASONING' ELSE m.role END",
            "characters": "length(m.text)",
        },
        "(e.type = 'TEXT_MESSAGE_END' OR e.name = 'quarterdeck.message.sent')",
        "JOIN messages m ON m.id = e.message_id",
    ),
    _Kind(
        "session_facts",
        {
            "id": _OWN_ID,
            "user_id": "CASE WHEN e.name = 'quarterdeck.session.status' THEN e.owner_id ELSE e.creator_id END",
            "change": "CASE WHEN e.name = 'quarterdeck.session.status' THEN e.data ->> 'to' ELSE 'CREATED' END",
            "duration_ms": "CASE WHEN e.data ->> 'to' IN ('COMPLETED', 'FAILED', 'TERMINATED') THEN "
            f"{_milliseconds('e.session_created_at', 'e.at')} END",
        },
        "e.name IN ('quarterdeck.session.created', 'quarterdeck.session.forked', 'quarterdeck.session.status')",
    ),
)
TABLES = tuple(dict.fromkeys(kind.table for kind in _KINDS))
"""The tables that facts of the log go to."""

AT_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan; " + "; ".join(
    f"SET LOCAL enable_{way} = off" for way in ("seqscan", "hashjoin", "mergejoin")
)
"""What a transaction begins with that reads the log: what an event refers to is looked up by its id, of sessions and
runs that many events have in common once. The planner knows nothing of events that are newer than its statistics, and
would plan these statements anew each time."""


def _statement(*, new: bool) -> str:
    parts = [f"events AS MATERIALIZED ({_EVENTS})"]
    for place, table in enumerate(TABLES):
        facts = " UNION ALL ".join(kind.facts for kind in _KINDS if kind.table == table)
        found, since = f"{table}_found", f"${_PARAMETERS + place + 1}"
        parts.append(f"{found} AS MATERIALIZED (SELECT * FROM ({facts}) AS found WHERE at >= {since})")
        parts += adding(table, found, new=new)
    return f"WITH {', '.join(parts)} {_END}"


STORE_NEXT = _statement(new=False)
"""Stores the facts of the next events that are not there yet, and gives the place of the last event and how many there
were; no row where there are none. Parameters: the place after which to begin (transaction, session, number), the
transaction to end before, how many events at most, since when, and for each of TABLES before when facts are refused."""

STORE_NEXT_NEW = _statement(new=True)
"""The same for facts of which none is there: raises UniqueViolationError where one is. Takes less time."""
