"""Bring a database to the current schema and give the application's role what it needs, and no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import asyncpg
from tortoise import Tortoise

from core.db import APP_ROLE, MAY_BECOME_APP_ROLE, connect_alone, tortoise_config
from models.migration_state import run_migrations

logger = logging.getLogger(__name__)

APPEND_ONLY = ("audit_records", "audit_links")
"""Tables whose rows the application may add but never change or remove."""

FOR_MAKEMIGRATIONS = tortoise_config("postgresql:///", pool_size=1, role=None)
"""Tortoise compares the models with the migrations, not with a database: `make migration`."""

# Any number of processes may start at once; one migrates, the others wait for it.
_LOCK = 0x5175_6172_7465_7264
_LOOK_AGAIN_SECONDS = 0.1

# Others may keep things in this schema, and extensions do: those are not ours to give.
_OURS = """
{kind}namespace = 'public'::regnamespace AND {kind}owner = current_user::regrole AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = '{catalog}'::regclass AND objid = {catalog}.oid AND deptype = 'e')
"""
_RELATIONS = "SELECT oid::regclass::text FROM pg_class WHERE relkind::text = ANY($1::text[]) AND " + _OURS.format(
    kind="rel", catalog="pg_class"
)
_ROUTINES = "SELECT oid::regprocedure::text FROM pg_proc WHERE " + _OURS.format(kind="pro", catalog="pg_proc")


async def migrate(url: str, *, progress: Callable[[str], object] = lambda _: None) -> None:
    """Apply what is missing, as the URL's own user, who owns the database or may make tables in it.

    Safe to repeat and to run from several processes. Raises Unavailable where the database cannot be used.
    """
    guard = await connect_alone(url)
    try:
        # Asked again and again: a statement that waits has a snapshot, and CREATE INDEX CONCURRENTLY waits for it.
        while not await guard.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        await _add_timescaledb(url)
        try:
            await run_migrations(
                tortoise_config(url, pool_size=2, role=None),
                progress=lambda event, _, name: _tell(progress, event, name),
            )
        finally:
            await Tortoise.close_connections()
        if await _app_role(guard):
            await _grant(guard)
    finally:
        await asyncio.wait_for(guard.close(), 10)


def role_statements(user: str) -> str:
    """What a superuser runs so that the application can work as its own role; `user` is a quoted identifier."""
    return f"CREATE ROLE {APP_ROLE} NOLOGIN; GRANT {APP_ROLE} TO {user};"


def _tell(progress: Callable[[str], object], event: str, name: str) -> None:
    if event == "apply_start":
        progress(name)


async def _add_timescaledb(url: str) -> None:
    # A connection of its own: the extension must be loaded before anything else, and ends it where it cannot be.
    connection = await connect_alone(url)
    try:
        if await connection.fetchval(
            "SELECT 1 FROM pg_available_extensions WHERE name = 'timescaledb' AND installed_version IS NULL"
        ):
            await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except asyncpg.PostgresError as error:
        logger.warning("TimescaleDB is there but cannot be added (%s): tables stay plain.", error)
    finally:
        await connection.close(timeout=10)


async def _app_role(connection: asyncpg.Connection) -> bool:
    """Whether the application's role is there and this user may become it, once that was tried."""
    may = await connection.fetchval(MAY_BECOME_APP_ROLE)
    if may:
        return True
    try:
        if may is None:
            # Another database of the same server may be doing the same: roles belong to the server.
            with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
                await connection.execute(f"CREATE ROLE {APP_ROLE} NOLOGIN")
        if not await connection.fetchval(MAY_BECOME_APP_ROLE):
            await connection.execute(f"GRANT {APP_ROLE} TO current_user")
    except asyncpg.InsufficientPrivilegeError as error:
        user = await connection.fetchval("SELECT quote_ident(current_user)")
        logger.warning(
            "The application works as %s, and triggers alone keep the audit log from changes: %s. "
            "A superuser can run %s then migrate again.",
            user,
            error,
            role_statements(user),
        )
        return False
    return True


async def _grant(connection: asyncpg.Connection) -> None:
    """The application's role: everything on our tables, but append-only on the audit log."""
    await connection.execute(f"GRANT USAGE ON SCHEMA public TO {APP_ROLE}")
    for kinds, privileges, what in (
        (("r", "p", "v", "m"), "SELECT, INSERT, UPDATE, DELETE", "TABLE"),
        (("S",), "USAGE, SELECT", "SEQUENCE"),
    ):
        await _grant_on(connection, f"{privileges} ON {what}", await connection.fetch(_RELATIONS, list(kinds)))
    await _grant_on(connection, "EXECUTE ON ROUTINE", await connection.fetch(_ROUTINES))
    for table in APPEND_ONLY:
        await connection.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {APP_ROLE}")


async def _grant_on(connection: asyncpg.Connection, what: str, found: Sequence[asyncpg.Record]) -> None:
    if found:
        await connection.execute(f"GRANT {what} {', '.join(row[0] for row in found)} TO {APP_ROLE}")
