"""Sessions that were terminated before the end had a column of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import pytest
from tortoise import Tortoise

from core.db import tortoise_config
from models.migrate import migrate
from models.migration_state import run_migrations
from tests.databases import TestServer

pytestmark = pytest.mark.anyio

ENDED = datetime(2026, 1, 2, tzinfo=UTC)
TOUCHED = datetime(2026, 1, 3, tzinfo=UTC)

# title, status, options, whether the log has the end
SESSIONS = [
    ("terminated", "TERMINATED", '{"maxTurns": 3, "terminated": true}', True),
    ("archived, mark lost", "ARCHIVED", "{}", True),
    ("archived, log of another time", "ARCHIVED", '{"terminated": true}', False),
    ("archived only", "ARCHIVED", "{}", False),
    ("at work", "ACTIVE", "{}", False),
]


@pytest.fixture
def empty(postgres: TestServer) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


async def test_what_was_terminated_is_found_by_its_mark_and_by_the_log(empty: str) -> None:
    config = tortoise_config(empty, pool_size=2, role=None)
    await run_migrations(config, target="0005_activity")
    await Tortoise.close_connections()
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute(
            "INSERT INTO organizations (id, name, slug, region, created_at) "
            "VALUES (gen_random_uuid(), 'Old', 'old', 'local', now())"
        )
        await connection.execute(
            "INSERT INTO users (id, organization_id, kind, name, role, created_at) "
            "SELECT gen_random_uuid(), id, 'HUMAN', 'Demo Engineer', 'MEMBER', now() FROM organizations"
        )
        for title, status, options, logged in SESSIONS:
            session = await connection.fetchval(
                "INSERT INTO sessions (id, organization_id, creator_id, owner_id, title, status, visibility, runtime, "
                "permission_mode, options, labels, last_event_seq, message_count, tool_execution_count, request_count, "
                "created_at, updated_at) SELECT gen_random_uuid(), organization_id, id, id, $1, $2, 'PRIVATE', "
                "'script', 'DEFAULT', $3::text::jsonb, '{}', 0, 0, 0, 0, $4, $4 FROM users RETURNING id",
                title,
                status,
                options,
                TOUCHED,
            )
            if logged:
                await connection.execute(
                    "INSERT INTO session_events (session_id, seq, organization_id, at, type, name, actor_kind, data) "
                    "SELECT $1, 1, id, $2, 'CUSTOM', 'quarterdeck.session.status', 'HUMAN', "
                    '\'{"from": "ACTIVE", "to": "TERMINATED"}\' FROM organizations',
                    session,
                    ENDED,
                )
        await migrate(empty)
        found = {
            row["title"]: (row["terminated_at"], row["options"])
            for row in await connection.fetch("SELECT title, terminated_at, options::text FROM sessions")
        }
        assert found == {
            "terminated": (ENDED, '{"maxTurns": 3}'),
            "archived, mark lost": (ENDED, "{}"),
            "archived, log of another time": (TOUCHED, "{}"),
            "archived only": (None, "{}"),
            "at work": (None, "{}"),
        }
    finally:
        await connection.close()
