"""The database of this process: one pool, used by Tortoise for writes and by plain SQL for reads.

Connections stay clean between users, so asyncpg's reset round trip is switched off: only `SET LOCAL`,
and neither session advisory locks nor LISTEN, may be used on them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import orjson
from tortoise import Tortoise, connections
from tortoise.exceptions import DBConnectionError
from tortoise.transactions import in_transaction

from core.errors import Unavailable

APP_ROLE = "quarterdeck_app"
"""The role the application works as. It may not change or delete audit records; migrations run without it."""

LONGEST_STATEMENT = "30s"
"""No statement of a request or a worker takes longer; migrations have all the time they need."""

CONNECT_SECONDS = 10.0

# Who makes a role is a member of it at once since PostgreSQL 16, but one that may not become it.
MAY_BECOME_APP_ROLE = f"""
SELECT pg_has_role(
    current_user, oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END)
FROM pg_roles WHERE rolname = '{APP_ROLE}'
"""
"""Whether this user may work as the application's role; no row where there is none."""

# Somebody may have made the role after the last migration, which then gave it nothing.
_APP_ROLE_HAS_TABLES = f"SELECT has_table_privilege('{APP_ROLE}', to_regclass('public.audit_records'), 'INSERT')"

R = TypeVar("R", bound=asyncpg.Record)
queries_seen: ContextVar[list[str] | None] = ContextVar("queries_seen", default=None)
"""Statements of the current context, where somebody (a test, the profiler) put a list."""


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        return ""


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


def tortoise_config(
    url: str, *, pool_size: int, role: str | None = APP_ROLE, statement_timeout: str = "0"
) -> dict[str, Any]:
    """Tortoise's configuration for a PostgreSQL URL (TCP, or a socket folder as `?host=/folder`)."""
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    credentials: dict[str, Any] = {
        "host": options.get("host") or parts.hostname or "127.0.0.1",
        "port": int(options.get("port") or parts.port or 5432),
        "user": unquote(parts.username or options.get("user") or "postgres"),
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")) or options.get("dbname", "postgres"),
        "minsize": min(2, pool_size),
        "maxsize": pool_size,
        "application_name": "quarterdeck",
        "init": _prepare,
        "connection_class": _Connection,
        "timeout": CONNECT_SECONDS,
        # A schema of the user's name, or another default of the server, must not take our tables' place.
        "server_settings": {"jit": "off", "statement_timeout": statement_timeout, "search_path": "public"}
        | ({"role": role} if role else {}),
    }
    if "sslmode" in options:
        credentials["ssl"] = options["sslmode"]
    return {
        "connections": {"default": {"engine": "tortoise.backends.asyncpg", "credentials": credentials}},
        "apps": {
            "models": {
                "models": [
                    "models.identity",
                    "models.sessions",
                    "models.mcp_servers",
                    "models.writes",
                    "models.notifications",
                    "models.handoffs",
                ],
                "migrations": "models.migrations",
                "default_connection": "default",
            }
        },
        "use_tz": True,
        "timezone": "UTC",
    }


async def connect(url: str, *, pool_size: int) -> None:
    """Open the pool, as the application's role where that can be, and make the models usable from every task.

    Raises Unavailable, which names the host, port and database.
    """
    alone = await connect_alone(url)
    try:
        restricted = await alone.fetchval(MAY_BECOME_APP_ROLE) and await alone.fetchval(_APP_ROLE_HAS_TABLES)
    finally:
        await alone.close(timeout=CONNECT_SECONDS)
    config = tortoise_config(
        url, pool_size=pool_size, role=APP_ROLE if restricted else None, statement_timeout=LONGEST_STATEMENT
    )
    with _said_in_a_line(config):
        await Tortoise.init(config=config, _enable_global_fallback=True)
        async with acquire() as connection:
            await connection.fetchval("SELECT 1")


async def connect_alone(url: str) -> asyncpg.Connection:
    """One connection outside of the pool, as the URL's own user; the caller closes it. Raises Unavailable."""
    config = tortoise_config(url, pool_size=1, role=None)
    credentials = config["connections"]["default"]["credentials"]
    with _said_in_a_line(config):
        return await asyncpg.connect(
            host=credentials["host"],
            port=credentials["port"],
            user=credentials["user"],
            password=credentials["password"],
            database=credentials["database"],
            ssl=credentials.get("ssl"),
            timeout=CONNECT_SECONDS,
            server_settings=credentials["server_settings"],
        )


@contextmanager
def _said_in_a_line(config: dict[str, Any]) -> Iterator[None]:
    to = config["connections"]["default"]["credentials"]
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBConnectionError) as error:
        reason = str(error).partition("\n")[0] or ("no answer" if isinstance(error, TimeoutError) else repr(error))
        raise Unavailable(
            f"The database {to['database']!r} at {to['host']}:{to['port']} cannot be used: {reason}. "
            "Check QUARTERDECK_DATABASE_URL and the server."
        ) from None


async def close() -> None:
    """Close the pool; waits for queries under way."""
    await Tortoise.close_connections()


@asynccontextmanager
async def acquire() -> AsyncIterator[asyncpg.Connection]:
    """A connection of the pool."""
    async with connections.get("default").acquire_connection() as connection:
        yield connection


@overload
async def fetch(sql: str, *args: Any) -> list[Any]: ...


@overload
async def fetch(sql: str, *args: Any, row: type[R]) -> list[R]: ...


async def fetch(sql: str, *args: Any, row: Any = asyncpg.Record) -> Any:
    """All rows of a statement, as `row` objects."""
    _note(sql)
    async with acquire() as connection:
        return await connection.fetch(sql, *args, record_class=row)


@overload
async def fetchrow(sql: str, *args: Any) -> Any: ...


@overload
async def fetchrow(sql: str, *args: Any, row: type[R]) -> R | None: ...


async def fetchrow(sql: str, *args: Any, row: Any = asyncpg.Record) -> Any:
    """The first row, or None."""
    _note(sql)
    async with acquire() as connection:
        return await connection.fetchrow(sql, *args, record_class=row)


async def fetchval(sql: str, *args: Any) -> Any:
    """The first column of the first row, or None."""
    _note(sql)
    async with acquire() as connection:
        return await connection.fetchval(sql, *args)


async def execute(sql: str, *args: Any) -> str:
    """Run a statement outside of any transaction; returns PostgreSQL's command tag."""
    _note(sql)
    async with acquire() as connection:
        return await connection.execute(sql, *args)  # type: ignore[no-any-return]


class Transaction:
    """One open transaction. `orm` goes to Tortoise as `using_db`; the methods run plain SQL inside it."""

    def __init__(self, orm: Any) -> None:
        self.orm = orm

    @overload
    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...

    @overload
    async def fetch(self, sql: str, *args: Any, row: type[R]) -> list[R]: ...

    async def fetch(self, sql: str, *args: Any, row: Any = asyncpg.Record) -> Any:
        _note(sql)
        return await self._connection.fetch(sql, *args, record_class=row)

    @overload
    async def fetchrow(self, sql: str, *args: Any) -> Any: ...

    @overload
    async def fetchrow(self, sql: str, *args: Any, row: type[R]) -> R | None: ...

    async def fetchrow(self, sql: str, *args: Any, row: Any = asyncpg.Record) -> Any:
        _note(sql)
        return await self._connection.fetchrow(sql, *args, record_class=row)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        _note(sql)
        return await self._connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        _note(sql)
        return await self._connection.execute(sql, *args)  # type: ignore[no-any-return]

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        _note(sql)
        await self._connection.executemany(sql, rows)

    @property
    def _connection(self) -> asyncpg.Connection:
        return self.orm._connection


@asynccontextmanager
async def transaction() -> AsyncIterator[Transaction]:
    """All or nothing; commits at the end, rolls back on any exception."""
    async with in_transaction() as orm:
        yield Transaction(orm)


async def ping() -> float:
    """Seconds a trivial query takes; raises where the database is away."""
    started = time.perf_counter()
    await fetchval("SELECT 1")
    return time.perf_counter() - started


def _note(sql: str) -> None:
    seen = queries_seen.get()
    if seen is not None:
        seen.append(sql)
