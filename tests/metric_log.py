"""Event logs as sessions leave them, written at once: for tests and measurements of what is made of them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import asyncpg

# Runs of a session follow each other; each has a message, so many tool calls, an answer, and an end that tells what
# was used. Figures are made of the numbers of things, so they are the same every time.
_SESSIONS = """
INSERT INTO sessions (id, organization_id, creator_id, owner_id, title, status, visibility, runtime, model,
                      permission_mode, options, labels, last_event_seq, message_count, tool_execution_count,
                      request_count, created_at, updated_at)
SELECT md5('session' || $5 || s)::uuid, $1, $2, $2, 'Session ' || s, 'ACTIVE', 'PRIVATE', 'pydantic_ai',
       CASE s % 3 WHEN 0 THEN 'anthropic:model-a' WHEN 1 THEN 'openai:model-b' END, 'DEFAULT', '{}', '{}',
       1 + $4::int * 1000, 0, 0, 0, $6, $6
FROM generate_series(1, $3::int) AS s
"""
_RUNS = """
INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, started_at,
                  ended_at, request_count)
SELECT md5('run' || $5 || s || ':' || r)::uuid, $1, md5('session' || $5 || s)::uuid, r,
       CASE WHEN (s + r) % 5 = 0 THEN 'FAILED' ELSE 'FINISHED' END, 1, $2, at, at + s * interval '10 milliseconds',
       at + interval '30 seconds', 0
FROM generate_series(1, $3::int) AS s, generate_series(1, $4::int) AS r,
     LATERAL (SELECT $6::timestamptz + r * $7::interval + s * interval '1 second') AS t (at)
"""
_TOOLS = """
INSERT INTO tool_executions (id, organization_id, session_id, run_id, seq, call_id, tool, arguments, status, truncated,
                             created_at, started_at, ended_at, duration_ms)
SELECT md5('tool' || $2 || runs.session_id || runs.number || ':' || t)::uuid, runs.organization_id, runs.session_id,
       runs.id, runs.number * 1000 + 10 + t, 'call' || t, 'server' || t % 3 || '.tool' || t % 7, '{}',
       CASE WHEN t % 9 = 0 THEN 'FAILED' ELSE 'SUCCEEDED' END, false, runs.started_at, runs.started_at,
       runs.started_at + t * interval '10 milliseconds', 1 + (t * 37 + runs.number * 11) % 5000
FROM runs, generate_series(1, $3::int) AS t WHERE runs.organization_id = $1 AND NOT EXISTS (
    SELECT FROM tool_executions WHERE tool_executions.run_id = runs.id)
"""
_MESSAGES = """
INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, author_id, text,
                      created_at)
SELECT md5('message' || runs.id || who)::uuid, runs.organization_id, runs.session_id, runs.id,
       runs.number * 1000 + CASE who WHEN 'USER' THEN 1 ELSE 800 END, who, 'COMPLETE', false,
       CASE who WHEN 'USER' THEN runs.started_by_id END, repeat('x', 10 + runs.number % 50), runs.queued_at
FROM runs, unnest(ARRAY['USER', 'ASSISTANT']) AS who WHERE runs.organization_id = $1 AND NOT EXISTS (
    SELECT FROM messages WHERE messages.run_id = runs.id)
"""
_EVENTS = """
INSERT INTO session_events (session_id, seq, organization_id, at, type, name, run_id, message_id, tool_execution_id,
                            actor_kind, data)
SELECT session_id, seq, organization_id, at, type, name, run_id, message_id, tool_execution_id, 'AGENT', data FROM (
    SELECT id AS session_id, 1 AS seq, organization_id, created_at AS at, 'CUSTOM' AS type,
           'quarterdeck.session.created' AS name, NULL::uuid AS run_id, NULL::uuid AS message_id,
           NULL::uuid AS tool_execution_id, '{}'::jsonb AS data
    FROM sessions WHERE organization_id = $1
    UNION ALL
    SELECT session_id, seq, organization_id, created_at, 'CUSTOM', 'quarterdeck.message.sent', run_id, id, NULL, '{}'
    FROM messages WHERE organization_id = $1 AND role = 'USER'
    UNION ALL
    SELECT session_id, seq, organization_id, ended_at, 'TOOL_CALL_RESULT', NULL, run_id, NULL, id, '{}'
    FROM tool_executions WHERE organization_id = $1
    UNION ALL
    SELECT session_id, seq, organization_id, created_at, 'TEXT_MESSAGE_END', NULL, run_id, id, NULL, '{}'
    FROM messages WHERE organization_id = $1 AND role = 'ASSISTANT'
    UNION ALL
    SELECT session_id, number * 1000 + 900, organization_id, ended_at, 'RUN_FINISHED', NULL, id, NULL, NULL,
           jsonb_build_object('outcome', 'success', 'usage', CASE WHEN number % 4 > 0 THEN jsonb_build_object(
               'model', 'anthropic:model-' || number % 2, 'requests', 2, 'inputTokens', number * 100,
               'outputTokens', number, 'costUsd', (number * 0.0001)::text, 'costSource', 'provider') END)
    FROM runs WHERE organization_id = $1
) AS made ORDER BY session_id, seq ON CONFLICT DO NOTHING
"""


async def write_log(
    connection: asyncpg.Connection,
    organization_id: UUID,
    user_id: UUID,
    *,
    start: datetime,
    sessions: int,
    runs: int,
    tools: int,
    every: str = "7 minutes",
    name: str = "",
) -> int:
    """Sessions of `name` with their runs, one `every` so often from `start` on, and `tools` calls in each run; returns
    how many events were written."""
    async with connection.transaction():
        await connection.execute(_SESSIONS, organization_id, user_id, sessions, runs, name, start)
        await connection.execute(
            _RUNS.replace("$7::interval", f"interval '{every}'"), organization_id, user_id, sessions, runs, name, start
        )
        await connection.execute(_TOOLS, organization_id, name, tools)
        await connection.execute(_MESSAGES, organization_id)
        return int((await connection.execute(_EVENTS, organization_id)).rpartition(" ")[2])
