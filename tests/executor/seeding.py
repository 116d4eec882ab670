"""An organisation full of sessions, put there by SQL: quick, and with every kind of value and of null."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core import db
from core.ids import encode
from core.permissions import Role
from tests.executor.seeding_monitors import seed_monitors
from tests.services.identity_help import House, a_house


async def a_full_house(name: str = "Acme", *, sessions: int = 12, messages: int = 8) -> House:
    """`sessions` sessions of all four members with `messages` messages each, runs, tool executions, approvals,
    MCP servers, environment variables and teams, grants and links, annotations and scores, and templates with
    versions."""
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
    await _annotate(house, users)
    await db.execute(
        """
        INSERT INTO share_links (id, organization_id, resource_kind, resource_id, secret_hash, hint, level, expires_at,
            max_uses, use_count, created_by_id, created_at)
        SELECT gen_random_uuid(), organization_id, 'SESSION', id, uuid_send(id), 'abcd', 'READ',
            CASE WHEN title LIKE '%2' THEN now() + interval '1 day' END, CASE WHEN title LIKE '%4' THEN 3 END, 1,
            owner_id, now()
        FROM sessions WHERE organization_id = $1
        """,
        organization,
    )
    await db.execute(
        """
        INSERT INTO grants (id, organization_id, resource_kind, resource_id, user_id, level, note, expires_at,
            granted_by_id, via_link_id, created_at)
        SELECT gen_random_uuid(), sessions.organization_id, 'SESSION', sessions.id, users.id,
            (ARRAY['READ', 'WRITE', 'ADMIN'])[1 + sessions.message_count % 3],
            CASE WHEN users.role = 'VIEWER' THEN 'a note' END,
            CASE WHEN users.role = 'MEMBER' THEN now() + interval '1 day' END, sessions.owner_id,
            CASE WHEN users.role = 'VIEWER' THEN share_links.id END, now()
        FROM sessions JOIN share_links ON share_links.resource_id = sessions.id
        JOIN users ON users.organization_id = sessions.organization_id AND users.id <> sessions.owner_id
        WHERE sessions.organization_id = $1
        """,
        organization,
    )
    await db.execute(
        """
        INSERT INTO handoffs (id, organization_id, session_id, session_title, giver_id, receiver_id, offered_by_id,
            note, reply, keep_access, status, created_at, expires_at, ended_at)
        SELECT gen_random_uuid(), organization_id, id, title, owner_id, ($2::uuid[])[1 + number % 4], owner_id,
            'Please', CASE WHEN number % 3 = 0 THEN 'No' END, number % 2 = 0,
            (ARRAY['OFFERED', 'ACCEPTED', 'DECLINED'])[1 + number % 3], now(), now() + interval '1 day',
            CASE WHEN number % 3 > 0 THEN now() END
        FROM (SELECT sessions.*, row_number() OVER (ORDER BY title) AS number FROM sessions WHERE organization_id = $1)
            AS numbered
        """,
        organization,
        users,
    )
    await db.execute(
        """
        INSERT INTO notifications (id, organization_id, user_id, kind, session_id, subject_kind, subject_id, actor_kind,
            actor_id, title, body, in_app, created_at, read_at)
        SELECT gen_random_uuid(), organization_id, ($2::uuid[])[1 + n], 'RUN_FINISHED', session_id,
            (ARRAY['Run', 'Session', 'Nothing'])[number], CASE number WHEN 1 THEN id WHEN 2 THEN session_id END,
            'AGENT', CASE WHEN number < 3 THEN started_by_id END, 'Run ' || number, '', n < 3, now(),
            CASE WHEN number = 2 THEN now() END
        FROM runs, generate_series(0, 3) AS n WHERE organization_id = $1
        """,
        organization,
        users,
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
    await _make_templates(house, users)
    await _trust(house, users)
    await _count(house)
    await seed_monitors(organization, users)
    return house


async def _count(house: House) -> None:
    """Facts of the tool executions and runs, and one from outside."""
    organization = house.organization_id
    common = "organization_id, id, at, source, session_id, run_id, user_id, runtime, outcome, duration_ms"
    await db.execute(
        f"""
        INSERT INTO tool_facts ({common}, tool, server, error_kind)
        SELECT t.organization_id, t.id, '2026-03-03T10:00:00Z'::timestamptz + t.seq * interval '1 hour',
            CASE WHEN t.seq = 3 THEN 'OTLP' ELSE 'QUARTERDECK' END, CASE WHEN t.seq < 3 THEN t.session_id END, t.run_id,
            runs.started_by_id, 'script', CASE WHEN t.seq = 2 THEN 'FAILED' ELSE 'SUCCEEDED' END,
            CASE WHEN t.seq = 1 THEN 12.5 END, t.tool, CASE WHEN t.seq = 1 THEN 'time' END, t.error_kind
        FROM tool_executions t JOIN runs ON runs.id = t.run_id WHERE t.organization_id = $1
        """,
        organization,
    )
    await db.execute(
        f"""
        INSERT INTO run_facts ({common}, model, error_code)
        SELECT organization_id, id, '2026-03-03T10:00:00Z'::timestamptz + number * interval '1 day', 'QUARTERDECK',
            session_id, id, started_by_id, 'script', status, 1000 * number, 'some:model', error_code
        FROM runs WHERE organization_id = $1
        """,
        organization,
    )


async def _make_templates(house: House, users: list[UUID]) -> None:
    """Templates of all four members with three versions each; sessions started from some of them."""
    organization = house.organization_id
    await db.execute(
        """
        INSERT INTO session_templates (id, organization_id, name, title, summary, icon, category, labels, owner_id,
            organization_level, draft, draft_digest, draft_revision, draft_updated_by_id, draft_updated_at,
            latest_version, deprecated_at, deprecation_note, listed_at, use_count, rating_count, rating_sum,
            created_by_id, created_at, updated_at)
        SELECT gen_random_uuid(), $1, 'template-' || n, 'Template ' || n, 'What it is for',
            CASE WHEN n % 2 = 0 THEN '🔎' END, (ARRAY['development', 'security-audit'])[1 + n % 2],
            jsonb_build_object('team', 'blue'),
            ($2::uuid[])[1 + n % 4], (ARRAY[NULL, 'VIEW', 'USE', 'EDIT'])[1 + n % 4],
            jsonb_build_object('systemPrompt', 'Say {{ word }}', 'messages', jsonb_build_array('Go'), 'parameters',
                '{"type": "object", "properties": {"word": {"type": "string"}}}'::jsonb), repeat('a', 64), n + 1,
            ($2::uuid[])[1 + n % 4], now(), 3, CASE WHEN n = 3 THEN now() END, CASE WHEN n = 3 THEN 'Old' END,
            CASE WHEN n % 3 > 0 THEN now() END, n, 1, 4, ($2::uuid[])[1 + n % 4], now() - n * interval '1 hour', now()
        FROM generate_series(0, 5) AS n
        """,
        organization,
        users,
    )
    await db.execute(
        """
        UPDATE session_templates SET replaced_by_id = other.id FROM session_templates other
        WHERE session_templates.organization_id = $1 AND session_templates.deprecated_at IS NOT NULL
            AND other.organization_id = $1 AND other.name = 'template-2'
        """,
        organization,
    )
    await _test_templates(organization)
    await db.execute(
        """
        INSERT INTO session_template_versions (id, organization_id, template_id, number, spec, digest, message,
            author_id, created_at, rolled_back_to, untested_reason, deprecated_at, deprecation_note,
            replacement_version, use_count, test_id)
        SELECT gen_random_uuid(), organization_id, id, n, draft, repeat(n::text, 64), 'Version ' || n, owner_id, now(),
            CASE WHEN n = 3 THEN 1 END, CASE WHEN n = 2 THEN 'It is urgent' END, CASE WHEN n = 1 THEN now() END,
            CASE WHEN n = 1 THEN 'Old' END, CASE WHEN n = 1 THEN 2 END, n,
            CASE WHEN n = 1 THEN (SELECT template_tests.id FROM template_tests
                WHERE template_tests.template_id = session_templates.id AND status = 'PASSED') END
        FROM session_templates, generate_series(1, 3) AS n WHERE organization_id = $1
        """,
        organization,
    )
    await db.execute(
        "INSERT INTO template_listings (template_id, organization_id, everybody, facets, search) "
        "SELECT id, organization_id, organization_level IS NOT NULL, "
        "ARRAY['category:' || category, 'label:team=blue', 'server:git', 'tool:git.log'], "
        "to_tsvector('english', title) FROM session_templates WHERE organization_id = $1 AND listed_at IS NOT NULL",
        organization,
    )
    await db.execute(
        "INSERT INTO template_reviews (id, organization_id, template_id, author_id, version, rating, text, created_at, "
        "updated_at) SELECT gen_random_uuid(), organization_id, id, author, 1, 4, 'Good', now(), now() "
        "FROM session_templates, unnest($2::uuid[]) AS author WHERE organization_id = $1 AND author <> owner_id",
        organization,
        users,
    )
    await db.execute(
        "INSERT INTO template_categories (id, organization_id, key, title, created_at) "
        "VALUES (gen_random_uuid(), $1, 'cooking', 'Cooking', now())",
        organization,
    )
    await db.execute(
        """
        UPDATE sessions SET template_version_id = versions.id
        FROM session_template_versions versions JOIN session_templates ON session_templates.id = versions.template_id
        WHERE sessions.organization_id = $1 AND versions.organization_id = $1 AND versions.number = 3
            AND session_templates.name = 'template-' || right(sessions.title, 1)
        """,
        organization,
    )


async def _trust(house: House, users: list[UUID]) -> None:
    """A signing key and a retired one, two trusted publishers, and a template that was imported twice."""
    organization = house.organization_id
    await db.execute(
        """
        INSERT INTO template_signing_keys (id, organization_id, public_key, fingerprint, private_sealed, created_by_id,
            created_at, retired_at)
        SELECT gen_random_uuid(), $1, 'ed25519:' || repeat(n::text, 43) || '=', repeat(n::text, 64), NULL,
            ($2::uuid[])[1], now(), CASE WHEN n = 1 THEN now() END
        FROM generate_series(1, 2) AS n
        """,
        organization,
        users,
    )
    await db.execute(
        """
        INSERT INTO trusted_publishers (id, organization_id, name, public_key, fingerprint, added_by_id, created_at)
        SELECT gen_random_uuid(), $1, 'Publisher', 'ed25519:' || repeat(n::text, 43) || '=', repeat(n::text, 64),
            CASE WHEN n = 3 THEN ($2::uuid[])[1] END, now()
        FROM generate_series(3, 4) AS n
        """,
        organization,
        users,
    )
    await db.execute(
        """
        INSERT INTO template_origins (id, organization_id, template_id, publisher, fingerprint, version, digest,
            bundle_sha256, imported_by_id, imported_at)
        SELECT gen_random_uuid(), $1, id, 'Publisher', repeat('3', 64), n, draft_digest, repeat('b', 64), owner_id,
            now()
        FROM session_templates, generate_series(1, 2) AS n WHERE organization_id = $1 AND name = 'template-2'
        """,
        organization,
    )


_CHECKS = [
    ("VALIDATION", "PASSED", {"findings": [{"severity": "WARNING", "code": "NO_MESSAGE", "path": "/messages"}]}),
    ("SERVER", "FAILED", {"server": "time", "toolCount": 2, "milliseconds": 12}),
    ("COST", "SKIPPED", {"limitUsd": "1.5"}),
    ("TIME", "RUNNING", {}),
]


async def _test_templates(organization: UUID) -> None:
    """Two tests of each template: one that passed, in some session, and one that waits."""
    checks: list[dict[str, Any]] = [
        {"key": kind, "kind": kind, "title": kind.lower(), "status": status, "message": "é", "details": details}
        | {"startedAt": "2026-01-01T00:00:00+00:00", "endedAt": None}
        for kind, status, details in _CHECKS
    ]
    checks[0]["details"]["findings"][0] |= {"message": "Nothing is sent.", "suggestion": None}
    run = await db.fetchrow(
        "SELECT id, session_id FROM runs WHERE organization_id = $1 ORDER BY id LIMIT 1", organization
    )
    checks.append(checks[1] | {"key": "message:1", "kind": "MESSAGE", "details": {"runId": encode("run", run["id"])}})
    await db.execute(
        """
        INSERT INTO template_tests (id, organization_id, template_id, digest, spec, parameters, status, checks,
            revision, session_id, attempt, started_by_id, created_at, started_at, ended_at)
        SELECT gen_random_uuid(), organization_id, id, repeat('1', 64), draft, '{"word": "go"}',
            CASE WHEN n = 1 THEN 'PASSED' ELSE 'QUEUED' END, CASE WHEN n = 1 THEN $2::jsonb ELSE '[]' END, n,
            CASE WHEN n = 1 THEN $3::uuid END, n % 2, owner_id, now(), CASE WHEN n = 1 THEN now() END,
            CASE WHEN n = 1 THEN now() END
        FROM session_templates, generate_series(1, 2) AS n WHERE organization_id = $1
        """,
        organization,
        checks,
        run["session_id"],
    )


async def _annotate(house: House, users: list[UUID]) -> None:
    """Threads on sessions and messages with comments, reactions and revisions, and scores of every type."""
    organization = house.organization_id
    await db.execute(
        """
        INSERT INTO annotation_threads (id, organization_id, session_id, number, message_id, range_start, range_end,
            quote, prefix, suffix, orphaned, author_id, status, resolved_by_id, resolved_at, labels, comment_count,
            copied_from_id, created_at, updated_at)
        SELECT gen_random_uuid(), messages.organization_id, session_id, seq, CASE WHEN seq <> 3 THEN messages.id END,
            CASE WHEN seq = 1 THEN 0 END, CASE WHEN seq = 1 THEN 7 END, CASE WHEN seq = 1 THEN 'Message' END,
            CASE WHEN seq = 1 THEN '' END, CASE WHEN seq = 1 THEN ' 1' END, seq = 2, ($2::uuid[])[seq],
            CASE WHEN seq = 2 THEN 'RESOLVED' ELSE 'OPEN' END, CASE WHEN seq = 2 THEN ($2::uuid[])[2] END,
            CASE WHEN seq = 2 THEN now() END, CASE WHEN seq = 1 THEN ARRAY['bug', 'team'] ELSE '{}' END, 2,
            CASE WHEN seq = 3 THEN gen_random_uuid() END, now() - seq * interval '1 minute', now()
        FROM messages WHERE organization_id = $1 AND seq <= 3
        """,
        organization,
        users,
    )
    await db.execute(
        """
        INSERT INTO annotation_comments (id, organization_id, session_id, thread_id, number, author_id, markdown, html,
            plain, mentions, revision_count, edited_at, deleted_at, deleted_by_id, created_at)
        SELECT gen_random_uuid(), organization_id, session_id, id, n, ($2::uuid[])[1 + (number + n) % 4],
            '**said** ' || n, '<p><strong>said</strong> ' || n || '</p>', 'said ' || n, ($2::uuid[])[1:n],
            CASE WHEN n = 1 THEN 1 ELSE 0 END, CASE WHEN n = 1 THEN now() END,
            CASE WHEN n = 2 AND number = 2 THEN now() END, CASE WHEN n = 2 AND number = 2 THEN ($2::uuid[])[1] END,
            created_at
        FROM annotation_threads, generate_series(1, 2) AS n WHERE organization_id = $1
        """,
        organization,
        users,
    )
    await db.execute(
        "INSERT INTO annotation_reactions (id, comment_id, user_id, emoji, created_at) "
        "SELECT gen_random_uuid(), annotation_comments.id, person, emoji, now() FROM annotation_comments, "
        "unnest($2::uuid[]) AS person, unnest(ARRAY['👍', ':ship-it:']) AS emoji "
        "WHERE organization_id = $1 AND number = 1 AND (emoji = '👍' OR person = author_id)",
        organization,
        users,
    )
    await db.execute(
        "INSERT INTO annotation_revisions (id, comment_id, number, markdown, html, written_at) "
        "SELECT gen_random_uuid(), id, 1, 'before', '<p>before</p>', created_at FROM annotation_comments "
        "WHERE organization_id = $1 AND number = 1",
        organization,
    )
    await db.execute(
        """
        INSERT INTO scores (id, organization_id, session_id, message_id, name, type, number, boolean, category, source,
            evaluator, author_id, comment, created_at, updated_at)
        SELECT gen_random_uuid(), organization_id, session_id, CASE WHEN seq > 1 THEN id END, 'score ' || seq,
            (ARRAY['NUMERIC', 'BOOLEAN', 'CATEGORICAL'])[seq], CASE WHEN seq = 1 THEN 0.5 END,
            CASE WHEN seq = 2 THEN false END, CASE WHEN seq = 3 THEN 'good' END,
            CASE WHEN seq = 1 THEN 'EVALUATOR' ELSE 'HUMAN' END, CASE WHEN seq = 1 THEN 'judge' END, ($2::uuid[])[seq],
            CASE WHEN seq = 1 THEN 'why' END, now() - seq * interval '1 minute', now()
        FROM messages WHERE organization_id = $1 AND seq <= 3
        """,
        organization,
        users,
    )
