"""Migrations: an empty database, an existing one, several processes at once, with and without TimescaleDB."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from tortoise import Tortoise

from core import db
from core.db import APP_ROLE, tortoise_config
from core.errors import Unavailable
from models.migrate import APPEND_ONLY, FOR_MAKEMIGRATIONS, migrate
from models.migration_state import run_migrations
from tests.databases import TestServer

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "models" / "migrations"


@pytest.fixture
def empty(postgres: TestServer) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


async def applied(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch("SELECT name FROM tortoise_migrations ORDER BY name")]
    finally:
        await connection.close()


async def test_an_empty_database_gets_everything_and_a_second_time_changes_nothing(empty: str) -> None:
    told: list[str] = []
    await migrate(empty, progress=told.append)
    files = sorted(path.stem for path in FOLDER.glob("0*.py"))
    assert sorted(told) == files == await applied(empty)
    await migrate(empty, progress=told.append)
    assert sorted(told) == files


async def test_a_database_of_an_earlier_version_is_brought_up_with_its_rows(empty: str) -> None:
    config = tortoise_config(empty, pool_size=2, role=None)
    await run_migrations(config, target="0003_audit")
    await Tortoise.close_connections()
    connection = await asyncpg.connect(empty)
    await connection.execute(
        "INSERT INTO organizations (id, name, slug, region, created_at) "
        "VALUES (gen_random_uuid(), 'Old', 'old', 'local', now())"
    )
    await connection.execute(
        "INSERT INTO mcp_servers (id, organization_id, name, description, transport, command, environment_names, "
        "header_names, stateless, timeout_seconds, created_at) "
        "SELECT gen_random_uuid(), id, 'time', '', 'STDIO', '{}', '{}', '{}', false, 60, now() FROM organizations"
    )
    await connection.close()
    await migrate(empty)
    await db.connect(empty, pool_size=2)
    try:
        assert await db.fetchval("SELECT count(*) FROM mcp_servers") == 1
        assert await db.fetchval("SELECT count(*) FROM tool_facts") == 0
    finally:
        await db.close()


async def test_indexes_of_the_event_log_are_made_while_others_read_and_begun_again_where_they_broke_off(
    empty: str,
) -> None:
    config = tortoise_config(empty, pool_size=2, role=None)

    async def go_to(target: str) -> None:
        await run_migrations(config, target=target)
        await Tortoise.close_connections()

    valid = "SELECT count(*) FROM pg_index WHERE indisvalid AND indexrelid::regclass::text LIKE 'session_events_%' "
    await go_to("0012_documents")
    connection, other = await asyncpg.connect(empty), await asyncpg.connect(empty)
    try:
        before = await connection.fetchval(valid)
        # As one that was broken off leaves it: there, and of no use.
        await connection.execute("CREATE INDEX session_events_feed ON session_events (at)")
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'session_events_feed'::regclass"
        )
        reading = other.transaction(isolation="read_committed")
        await reading.start()
        await other.fetchval("SELECT count(*) FROM users")
        migrating = asyncio.create_task(migrate(empty))
        await asyncio.sleep(0.5)
        # Nobody waits for it who writes the log meanwhile.
        await connection.execute("SET lock_timeout = '2s'")
        await connection.execute("DELETE FROM session_events")
        await reading.commit()
        await migrating
        assert await connection.fetchval(valid) == before + 5
        definition = await connection.fetchval("SELECT pg_get_indexdef('session_events_feed'::regclass)")
        assert "(organization_id, at, session_id, seq)" in definition
        await go_to("0010_people")
        assert await connection.fetchval(valid) == before
        await migrate(empty)
        assert await connection.fetchval(valid) == before + 5
    finally:
        await other.close()
        await connection.close()


async def test_a_ledger_of_spending_is_added_up_as_it_is_found(database_url: str) -> None:
    config = tortoise_config(database_url, pool_size=2, role=None)
    await run_migrations(config, target="0028_monitors")
    await Tortoise.close_connections()
    connection = await asyncpg.connect(database_url)
    try:
        # Of one organisation and nobody's template, every 20 minutes of a day and a half, at nine dollars or unknown.
        await connection.execute(
            "INSERT INTO spend_entries (run_id, segment, organization_id, user_id, template_id, at, cost_usd, tokens) "
            "SELECT gen_random_uuid(), 1, md5('o')::uuid, md5('u' || n % 3)::uuid, $1, "
            "timestamptz '2026-03-01 12:00Z' + n * interval '20 minutes', CASE WHEN n % 9 > 0 THEN 9 END, 7 "
            "FROM generate_series(0, 107) AS n",
            UUID(int=0),
        )
        await migrate(database_url)
        sums = (
            "SELECT unit, count(DISTINCT at), sum(cost_usd)::int, sum(tokens)::int, sum(unpriced)::int FROM spend_sums "
            "WHERE spender_id = ANY($1::uuid[]) GROUP BY unit ORDER BY unit"
        )
        expected = [(1, 108, 864, 756, 12), (2, 36, 864, 756, 12), (3, 2, 864, 756, 12)]
        people = await connection.fetch("SELECT DISTINCT user_id, organization_id FROM spend_entries")
        for ids in ([row["user_id"] for row in people], [people[0]["organization_id"]]):
            assert [tuple(row) for row in await connection.fetch(sums, ids)] == expected
        assert await connection.fetchval("SELECT count(DISTINCT spender_id) FROM spend_sums") == 4
        await run_migrations(config, target="0028_monitors")
        await Tortoise.close_connections()
        hours = "SELECT count(*), sum(cost_usd)::int FROM spend_hours WHERE subject_id = $1"
        assert tuple(await connection.fetchrow(hours, people[0]["organization_id"])) == (36, 864)
    finally:
        await connection.close()


async def test_processes_that_start_together_migrate_once(empty: str) -> None:
    script = f"import asyncio; from models.migrate import migrate; asyncio.run(migrate({empty!r}, progress=print))"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            cwd=FOLDER.parents[1],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(3)
    ]
    told = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert sorted(line for out, _ in told for line in out.decode().split()) == await applied(empty)


async def test_the_models_are_what_the_migrations_say(tmp_path: Path) -> None:
    before = set(FOLDER.glob("*.py"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tortoise",
        "-c",
        "models.migrate.FOR_MAKEMIGRATIONS",
        "makemigrations",
        "-n",
        "forgotten",
        cwd=FOLDER.parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    made = set(FOLDER.glob("*.py")) - before
    for path in made:
        path.unlink()
    assert not made, f"models have changed without a migration: make migration NAME=… {said.decode()}"


async def test_time_series_are_hypertables_where_timescaledb_is(migrated_connection: asyncpg.Connection) -> None:
    assert await migrated_connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'")
    assert await migrated_connection.fetchval(
        "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = 'tool_facts'"
    )


async def test_without_timescaledb_the_tables_are_plain_and_complete(empty: str) -> None:
    connection = await asyncpg.connect(empty)
    await connection.execute("DROP EXTENSION IF EXISTS timescaledb CASCADE")
    await connection.close()
    config = tortoise_config(empty, pool_size=2, role=None)
    await run_migrations(config)
    await Tortoise.close_connections()
    connection = await asyncpg.connect(empty)
    try:
        assert await connection.fetchval("SELECT relkind FROM pg_class WHERE relname = 'tool_facts'") == b"r"
    finally:
        await connection.close()


async def test_the_application_may_add_to_the_audit_log_and_nothing_else(
    migrated_connection: asyncpg.Connection,
) -> None:
    for table in APPEND_ONLY:
        for privilege, expected in (
            ("INSERT", True),
            ("SELECT", True),
            ("UPDATE", False),
            ("DELETE", False),
            ("TRUNCATE", False),
        ):
            has = await migrated_connection.fetchval(
                "SELECT has_table_privilege($1, $2, $3)", APP_ROLE, table, privilege
            )
            assert has is expected, (table, privilege)


@pytest.fixture
async def migrated_connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def untouched() -> Iterator[TestServer]:
    """A server where nobody has made the application's role: roles belong to the server, not to a database."""
    with TestServer() as found:
        yield found


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def owned_by(server: TestServer, user: str, rights: str = "") -> tuple[str, str]:
    """The URLs of a new database for a superuser, and for its owner, who is none."""
    url = server.create_database()
    name = urlsplit(url).path.removeprefix("/")
    await run_sql(
        url,
        "DROP EXTENSION IF EXISTS timescaledb CASCADE",
        f'CREATE ROLE "{user}" LOGIN {rights}',
        f'ALTER DATABASE {name} OWNER TO "{user}"',
    )
    return url, urlsplit(url)._replace(netloc=f"{user}@").geturl()


async def working_role(url: str) -> str:
    await db.connect(url, pool_size=2)
    try:
        await db.fetchval("SELECT count(*) FROM users")
        return str(await db.fetchval("SELECT current_user"))
    finally:
        await db.close()


async def refusal_of_change(url: str) -> None:
    await db.connect(url, pool_size=2)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute("DELETE FROM audit_records")
    finally:
        await db.close()


async def test_owners_who_are_no_superusers_work_as_far_as_their_rights_go(
    untouched: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    # Without CREATEROLE there is no role: the application works as its user, and says what to do.
    admin, plain = await owned_by(untouched, "plain-owner")
    await migrate(plain)
    assert 'CREATE ROLE quarterdeck_app NOLOGIN; GRANT quarterdeck_app TO "plain-owner";' in caplog.text
    assert await working_role(plain) == "plain-owner"
    await refusal_of_change(plain)

    # With it, the role is made, and worked as; also the second time.
    _, maker = await owned_by(untouched, "maker", "CREATEROLE")
    for _ in range(2):
        await migrate(maker)
        assert await working_role(maker) == APP_ROLE
    await refusal_of_change(maker)

    # The role is another user's now, who alone may give it.
    _, second = await owned_by(untouched, "second-maker", "CREATEROLE")
    await migrate(second)
    assert await working_role(second) == "second-maker"

    # What was said helps: the next migration gives the role what it needs, and until then nothing changes.
    await run_sql(admin, f'GRANT {APP_ROLE} TO "plain-owner"')
    assert await working_role(plain) == "plain-owner"
    await migrate(plain)
    assert await working_role(plain) == APP_ROLE
    await refusal_of_change(plain)


async def test_what_others_keep_in_the_schema_and_where_they_look_is_none_of_our_business(
    untouched: TestServer,
) -> None:
    admin, owner = await owned_by(untouched, "among-others", "CREATEROLE")
    name = urlsplit(admin).path.removeprefix("/")
    await run_sql(
        admin,
        "CREATE TABLE public.foreign_table (id int)",
        "CREATE FUNCTION public.foreign_function() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "REVOKE ALL ON FUNCTION public.foreign_function() FROM public",
        'CREATE SCHEMA "among-others" AUTHORIZATION "among-others"',
        f"ALTER DATABASE {name} SET search_path = pg_catalog",
    )
    await migrate(owner)
    assert await working_role(owner) == APP_ROLE
    connection = await asyncpg.connect(admin)
    try:
        assert await connection.fetchval("SELECT to_regclass('public.users') IS NOT NULL")
        assert await connection.fetchval("SELECT has_table_privilege($1, 'public.sessions', 'UPDATE')", APP_ROLE)
        assert not await connection.fetchval(
            "SELECT has_table_privilege($1, 'public.foreign_table', 'SELECT')", APP_ROLE
        )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://nobody:hush@127.0.0.1:1/none", ("127.0.0.1:1", "'none'", "Connect")),
        ("postgresql://nobody:hush@nowhere.invalid/none", ("nowhere.invalid:5432", "'none'")),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(url: str, said: tuple[str, ...]) -> None:
    for attempt in (migrate(url), db.connect(url, pool_size=2)):
        with pytest.raises(Unavailable) as refused:
            await attempt
        assert all(word in refused.value.message for word in said), refused.value.message
        assert "hush" not in refused.value.message


async def test_a_database_or_a_user_that_is_not_there_is_said(postgres: TestServer, empty: str) -> None:
    for url in (empty.replace("/test_", "/missing_"), urlsplit(empty)._replace(netloc="nobody@").geturl()):
        with pytest.raises(Unavailable, match="does not exist"):
            await migrate(url)


def test_migrations_are_configured_without_a_database() -> None:
    assert FOR_MAKEMIGRATIONS["apps"]["models"]["migrations"] == "models.migrations"
