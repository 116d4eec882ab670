"""An organisation full of sessions, put there by SQL: quick, and with every kind of value and of null."""

from __future__ import annotations

from core import db
from core.permissions import Role
from tests.services.identity_help import House, a_house


async def a_full_house(name: str = "Acme", *, sessions: int = 12, messages: int = 8) -> House:
    """`sessions` sessions of all four members with `messages` messages each, runs, tool executions, approvals,
    MCP servers, environment variables and teams."""
    house = await a_house(name)
    users = [house.users[role]["id"] for role in Role]
    organization = house.organization_id
    await db.execute(
        """
        INSERT INTO sessions (id, organization_id, creator_id, owner_id, title, status, visibility, runtime, model,
            system_prompt, permission_mode, options, labels, last_event_seq, message_count, tool_execution_count,
            input_tokens, output_tokens, request_count, cost_usd, cost_source, created_at, updated_at, archived_at)
        SELECT gen_random_uuid(), $1, ($2::uuid[])[1 + n % 4], ($2::uuid[])[1 + (n / 2) % 4], 'Session ' || n,
            (ARRAY['CREATED', 'ACTIVE', 'WAITING', 'PAUSED', 'COMPLETED', 'FAILED'])[1 + n % 6],
            (ARRAY['PRIVATE', 'ORGANIZATION'])[1 + n % 2], 'script',
            CASE WHEN n % 3 = 0 THEN 'some:model' END, CASE WHEN n % 4 = 0 THEN 'Be brief: "é" 😀' END,
            (ARRAY['DEFAULT', 'PLAN', 'DONT_ASK'])[1 + n % 3], '{}'::jsonb,
            jsonb_build_object('team', 'blue', 'number', n::text), $3::int, $3::int, 3,
            CASE WHEN n % 2 = 0 THEN 5000000000 + n END, n, n, CASE WHEN n % 5 = 0 THEN 0.125 * n END,
            CASE WHEN n % 5 = 0 THEN 'provider' END, now() - n * interval '1 hour', now() - n * interval '1 minute',
            CASE WHEN n % 7 = 3 THEN now() END
        FROM generate_series(0, $4::int - 1) AS n
        """,
        organization,
        users,
        messages,
        sessions,
    )
    await db.execute(
        """
        UPDATE sessions SET forked_from_id = source.id, forked_at_message_id = gen_random_uuid()
        FROM sessions source
        WHERE sessions.organization_id = $1 AND source.organization_id = $1 AND source.title = 'Session 0'
            AND sessions.title LIKE '%5'
        """,
        organization,
    )
    await db.execute(
        """
        INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at,
            started_at, ended_at, error_code, error_message, request_count)
        SELECT gen_random_uuid(), organization_id, id, n,
            (ARRAY['FINISHED', 'FAILED', 'INTERRUPTED'])[n], 1, owner_id, now(), now(),
            CASE WHEN n = 1 THEN now() END, CASE WHEN n = 2 THEN 'MODEL_ERROR' END, NULL, n
        FROM sessions, generate_series(1, 3) AS n WHERE organization_id = $1
        """,
        organization,
    )
    await db.execute(
        """
        INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, author_id, text,
            created_at)
        SELECT gen_random_uuid(), sessions.organization_id, sessions.id,
            CASE WHEN n % 4 <> 0 THEN runs.id END, n,
            CASE WHEN n % 2 = 1 THEN 'USER' ELSE 'ASSISTANT' END, 'COMPLETE', n % 3 = 0,
            CASE WHEN n % 2 = 1 THEN sessions.owner_id END, 'Message ' || n || repeat(' and more of it', 10), now()
        FROM sessions JOIN runs ON runs.session_id = sessions.id AND runs.number = 1, generate_series(1, $2::int) AS n
        WHERE sessions.organization_id = $1
        """,
        organization,
        messages,
    )
    await db.execute(
        """
        INSERT INTO tool_executions (id, organization_id, session_id, run_id, seq, call_id, tool, arguments, status,
            result, truncated, error_kind, created_at, started_at, duration_ms)
        SELECT gen_random_uuid(), organization_id, session_id, id, number, 'call-' || number, 'time.now',
            '{"zone": "Etc/UTC", "deep": [1, {"a": null}]}'::jsonb,
            (ARRAY['SUCCEEDED', 'FAILED', 'WAITING'])[number],
            CASE WHEN number = 1 THEN '[{"type": "text", "text": "now"}]'::jsonb END, false,
            CASE WHEN number = 2 THEN 'tool' END, now(), now(), 12
        FROM runs WHERE organization_id = $1
        """,
        organization,
    )
    await db.execute(
        """
        INSERT INTO approvals (id, organization_id, session_id, run_id, tool_execution_id, seq, status, reason,
            decided_by_id, decided_at, arguments, created_at, expires_at)
        SELECT gen_random_uuid(), organization_id, session_id, run_id, id, seq,
            CASE WHEN seq = 3 THEN 'PENDING' ELSE 'APPROVED' END, 'writes a file',
            CASE WHEN seq = 2 THEN $2::uuid END, CASE WHEN seq = 2 THEN now() END,
            CASE WHEN seq = 2 THEN '{"edited": true}'::jsonb END, now(), now() + interval '1 day'
        FROM tool_executions WHERE organization_id = $1 AND seq >= 2
        """,
        organization,
        users[0],
    )
    await db.execute(
        """
        INSERT INTO session_events (session_id, seq, organization_id, at, type, name, run_id, message_id, actor_kind,
            actor_id, on_behalf_of, data)
        SELECT sessions.id, n, sessions.organization_id, now() - n * interval '1 minute',
            CASE WHEN n > 6 THEN (ARRAY['RUN_STARTED', 'RUN_FINISHED', 'TOOL_CALL_START'])[n - 6] ELSE 'CUSTOM' END,
            CASE WHEN n <= 6 THEN 'quarterdeck.' || (ARRAY['session.created', 'session.status', 'message.sent',
                'access.granted', 'annotation.resolved', 'session.forked'])[n] END,
            (SELECT id FROM runs WHERE session_id = sessions.id AND number = 1),
            (SELECT id FROM messages WHERE session_id = sessions.id AND seq = 1),
            CASE WHEN n > 6 THEN 'AGENT' ELSE 'HUMAN' END, owner_id, CASE WHEN n > 6 THEN owner_id END,
            jsonb_build_object('title', title, 'from', 'CREATED', 'to', 'ACTIVE', 'level', 'READ', 'outcome', 'success',
                'segment', n, 'toolCallName', 'time.now', 'text', 'left out')
        FROM sessions, generate_series(1, least($2::int, 9)) AS n WHERE organization_id = $1
        """,
        organization,
        messages,
    )
    return house
