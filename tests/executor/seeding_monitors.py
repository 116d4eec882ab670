"""Monitors with groups, evaluations, incidents, silences, channels and deliveries, put there by SQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core import db


async def seed_monitors(organization_id: UUID, users: Sequence[UUID]) -> None:
    """Monitors of every kind of condition in every state, each with all that a monitor can have."""
    await db.execute(
        """
        INSERT INTO alert_channels (id, organization_id, owner_id, name, kind, url, secret_sealed, status,
            disabled_reason, failures, failing_since, former_until, created_at, updated_at)
        SELECT gen_random_uuid(), $1, ($2::uuid[])[1 + n % 4], 'Channel ' || n,
            (ARRAY['WEBHOOK', 'ALERTMANAGER'])[1 + n % 2], 'https://hooks.example/' || n,
            CASE WHEN n % 2 = 0 THEN '\\x00'::bytea END, CASE WHEN n = 3 THEN 'DISABLED' ELSE 'ACTIVE' END,
            CASE WHEN n = 3 THEN 'It is gone.' END, n, CASE WHEN n = 3 THEN now() END,
            CASE WHEN n = 0 THEN now() END, now(), now()
        FROM generate_series(0, 3) AS n
        """,
        organization_id,
        users,
    )
    await db.execute(
        """
        INSERT INTO monitors (id, organization_id, owner_id, name, description, metric, filters, group_by,
            window_seconds, condition_kind, condition, for_seconds, recovery, no_data, renotify_seconds, severity,
            labels, evaluate_every_seconds, about_people, notify_user_ids, channel_ids, status, paused_reason, state,
            state_since, explanation, groups_left_out, last_instant, next_evaluation_at, claim, created_at, updated_at)
        SELECT gen_random_uuid(), $1, ($2::uuid[])[1 + n % 4], 'Monitor ' || n, repeat('why ', n), 'tools.calls',
            CASE WHEN n % 2 = 0 THEN '{"tool": ["time.now", null]}'::jsonb ELSE '{}'::jsonb END,
            CASE WHEN n % 3 = 0 THEN 'tool' WHEN n % 3 = 1 THEN 'user' END, 3600,
            (ARRAY['THRESHOLD', 'CHANGE', 'ABSENCE', 'ANOMALY', 'BUDGET_BURN'])[1 + n % 5],
            (ARRAY['{"operator": "GREATER", "value": 5}',
                '{"operator": "LESS", "value": -50.5, "unit": "PERCENT", "compared_with": "LAST_WEEK"}',
                '{"for_seconds": 600}', '{"sensitivity": 5, "season": "DAY", "training_days": 14}',
                '{"budget_id": "019a0c6e-0000-7aaa-8bbb-000000000001", "hours": 6, "ratio": 2}'])[1 + n % 5]::jsonb,
            60 * n, CASE WHEN n = 0 THEN 4 END, (ARRAY['KEEP', 'OK', 'FIRING'])[1 + n % 3],
            CASE WHEN n % 2 = 0 THEN 600 END, (ARRAY['INFO', 'WARNING', 'CRITICAL'])[1 + n % 3],
            '{"team": "blue", "b": "é"}'::jsonb, 60, n % 3 = 1, ($2::uuid[])[1 : 1 + n % 4],
            ARRAY(SELECT id FROM alert_channels WHERE organization_id = $1 ORDER BY name LIMIT n % 3),
            CASE WHEN n = 4 THEN 'PAUSED' ELSE 'ACTIVE' END, CASE WHEN n = 4 THEN 'Holidays' END,
            (ARRAY['OK', 'PENDING', 'FIRING', 'NO_DATA', 'ERROR'])[1 + n % 5], now(),
            CASE WHEN n > 2 THEN 'It takes 3 days.' END, n, CASE WHEN n > 0 THEN now() END, now() + interval '1 day',
            0, now() - n * interval '1 hour', now()
        FROM generate_series(0, 6) AS n
        """,
        organization_id,
        users,
    )
    await db.execute(
        """
        INSERT INTO monitor_incidents (id, organization_id, monitor_id, group_key, group_label, group_name, title,
            labels, severity, state, opened_at, resolved_at, resolution, acknowledged_at, acknowledged_by_id, silenced,
            opening_value, value, summary, told_at, told_count)
        SELECT gen_random_uuid(), $1, id, n::text, CASE WHEN group_by = 'user' THEN owner_id::text
                WHEN group_by = 'tool' THEN 'time.now' END, CASE WHEN n = 0 THEN 'Somebody' END, name, labels, severity,
            CASE WHEN n = 0 THEN 'FIRING' ELSE 'RESOLVED' END, now() - interval '1 hour',
            CASE WHEN n > 0 THEN now() END, CASE WHEN n > 0 THEN 'It is back within the limit.' END,
            CASE WHEN n = 1 THEN now() END, CASE WHEN n = 1 THEN owner_id END, n = 2, 1.5,
            CASE WHEN n < 2 THEN 2.25 END, 'So it is.', CASE WHEN n < 2 THEN now() END, n
        FROM monitors, generate_series(0, 2) AS n WHERE organization_id = $1
        """,
        organization_id,
    )
    await db.execute(
        """
        INSERT INTO monitor_incident_events (id, incident_id, at, kind, value, note, actor_id)
        SELECT gen_random_uuid(), monitor_incidents.id, now(), kind, CASE WHEN kind <> 'SILENCED' THEN 2.25 END,
            CASE WHEN kind = 'SILENCED' THEN 'Known' END, CASE WHEN kind = 'ACKNOWLEDGED' THEN $2::uuid END
        FROM monitor_incidents, unnest(ARRAY['OPENED', 'VALUE', 'SILENCED', 'ACKNOWLEDGED']) AS kind
        WHERE organization_id = $1
        """,
        organization_id,
        users[0],
    )
    await db.execute(
        """
        INSERT INTO monitor_groups (id, monitor_id, key, label, state, since, pending_since, value, measure,
            explanation, incident_id)
        SELECT gen_random_uuid(), id, n::text, CASE WHEN group_by = 'user' THEN owner_id::text
                WHEN group_by = 'tool' AND n = 0 THEN 'time.now' END,
            (ARRAY['PENDING', 'FIRING'])[1 + n], now(), CASE WHEN n = 0 THEN now() END, CASE WHEN n = 1 THEN 7.5 END,
            CASE WHEN n = 1 THEN 7.5 END, CASE WHEN n = 0 THEN 'nothing' END,
            CASE WHEN n = 1 THEN (SELECT id FROM monitor_incidents
                WHERE monitor_id = monitors.id AND state = 'FIRING') END
        FROM monitors, generate_series(0, 1) AS n WHERE organization_id = $1
        """,
        organization_id,
    )
    await db.execute(
        """
        INSERT INTO monitor_evaluations (id, monitor_id, at, evaluated_at, state, changed, value, group_count,
            firing_count, missed, explanation, duration_ms)
        SELECT gen_random_uuid(), id, now() - n * interval '1 minute', now(), state, n % 2 = 0,
            CASE WHEN n < 3 THEN n * 1.5 END, 2, 1, n, CASE WHEN n = 2 THEN 'It said so.' END, 12
        FROM monitors, generate_series(0, 4) AS n WHERE organization_id = $1
        """,
        organization_id,
    )
    await db.execute(
        """
        INSERT INTO monitor_silences (id, organization_id, monitor_id, labels, reason, starts_at, ends_at, ended_at,
            created_by_id, everybody, created_at)
        SELECT gen_random_uuid(), $1, CASE WHEN n % 2 = 0 THEN (SELECT id FROM monitors WHERE organization_id = $1
                ORDER BY name LIMIT 1) END, '{"team": "blue"}'::jsonb, 'Known', now(),
            now() + (n - 1) * interval '1 hour', CASE WHEN n = 3 THEN now() END, ($2::uuid[])[1 + n % 4], n % 2 = 0,
            now()
        FROM generate_series(0, 3) AS n
        """,
        organization_id,
        users,
    )
    await db.execute(
        """
        INSERT INTO alert_deliveries (id, organization_id, channel_id, monitor_id, incident_id, kind, alert, status,
            attempts, claim, next_attempt_at, give_up_at, last_error, response_status, sent_at, created_at)
        SELECT gen_random_uuid(), $1, alert_channels.id, monitor_id, monitor_incidents.id, 'FIRING', '{}'::jsonb,
            (ARRAY['SENT', 'FAILED', 'STANDING', 'SKIPPED'])[1 + failures], failures, 0, now() + interval '1 day',
            now() + interval '1 day', CASE WHEN failures = 1 THEN 'It answered 500.' END,
            CASE WHEN failures < 2 THEN 200 + 300 * failures END, CASE WHEN failures <> 1 THEN now() END, now()
        FROM alert_channels, monitor_incidents
        WHERE alert_channels.organization_id = $1 AND monitor_incidents.organization_id = $1
            AND monitor_incidents.state = 'FIRING'
        """,
        organization_id,
    )
