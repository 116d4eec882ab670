"""Bring a database to the current schema and give the application's role what it needs, and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import asyncpg
from tortoise import Tortoise
from tortoise.migrations.api import migrate as run_migrations

from core.db import APP_ROLE, tortoise_config

logger = logging.getLogger(__name__)

APPEND_ONLY = ("audit_records", "audit_links")
"""Tables whose rows the application may add but never change or remove."""

FOR_MAKEMIGRATIONS = tortoise_config("postgresql:///", pool_size=1, role=None)
"""Tortoise compares the models with the migrations, not with a database: `make migration`."""

# Any number of processes may start at once; one migrates, the others wait for it.
_LOCK = 0x5175_6172_7465_7264


async def migrate(url: str, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """Apply what is missing, as the URL's own user. Safe to repeat and to run from several processes."""
    config = tortoise_config(url, pool_size=2, role=None)
    credentials = config["connections"]["default"]["credentials"]
    guard = await asyncpg.connect(
        host=credentials["host"],
        port=credentials["port"],
        user=credentials["user"],
        password=credentials["password"],
        database=credentials["database"],
        ssl=credentials.get("ssl"),
    )
    try:
        await guard.execute("SELECT pg_advisory_lock($1)", _LOCK)
        # A new extension must be loaded before anything else of its session; ours is fresh here.
        await _add_timescaledb(guard)
        try:
            await run_migrations(
                config=config, app_labels=["models"], progress=lambda event, _, name: _tell(progress, event, name)
            )
        finally:
            await Tortoise.close_connections()
        await _grant(guard)
    finally:
        await asyncio.wait_for(guard.close(), 10)


def _tell(progress: Callable[[str], None], event: str, name: str) -> None:
    if event == "apply_start":
        progress(name)


async def _add_timescaledb(connection: asyncpg.Connection) -> None:
    available = await connection.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb'")
    preloaded = "timescaledb" in await connection.fetchval("SHOW shared_preload_libraries")
    if not (available and preloaded):
        return
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except asyncpg.InsufficientPrivilegeError as error:
        logger.warning("TimescaleDB is there but this user may not add it (%s); tables stay plain.", error)


async def _grant(connection: asyncpg.Connection) -> None:
    """The application's role: everything on our tables, but append-only on the audit log."""
    # Another database of the same server may be doing the same: roles belong to the server.
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK + 1)
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", APP_ROLE):
            try:
                await connection.execute(f"CREATE ROLE {APP_ROLE} NOLOGIN")
            except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                pass
        await connection.execute(f"GRANT {APP_ROLE} TO current_user")
    for statement in (
        f"GRANT USAGE ON SCHEMA public TO {APP_ROLE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP_ROLE}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {APP_ROLE}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {APP_ROLE}",
        *(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {APP_ROLE}" for table in APPEND_ONLY),
    ):
        await connection.execute(statement)
