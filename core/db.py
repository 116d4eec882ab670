"""The database of this process: one pool, used by Tortoise for writes and by plain SQL for reads.

Connections are not reset between users (core.pool): only `SET LOCAL`, and neither session advisory locks nor LISTEN,
may be used on them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import orjson
from tortoise import Tortoise, connections
from tortoise.exceptions import DBConnectionError
from tortoise.transactions import in_transaction

from core.errors import Unavailable
from core.pool import Pool

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
        "timeout": CONNECT_SECONDS,
        # A schema of the user's name, or another default of the server, must not take our tables' place.
        "server_settings": {"jit": "off", "statement_timeout": statement_timeout, "search_path": "public"}
        | ({"role": role} if role else {}),
    }
    if "sslmode" in options:
        credentials["ssl"] = options["sslmode"]
    return {
        "connections": {"default": {"engine": "core.pool", "credentials": credentials}},
        "apps": {
            "models": {
                "models": [
                    "models.identity",
                    "models.sessions",
                    "models.mcp_servers",
                    "models.sharing",
                    "models.writes",
                    "models.documents",
                    "models.annotations",
                    "models.notifications",
                    "models.handoffs",
                    "models.templates",
                    "models.template_trust",
                    "models.costs",
                    "models.analytics",
                    "models.reports",
                    "models.monitors",
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
    global _pool
    with _said_in_a_line(config):
        await Tortoise.init(config=config, _enable_global_fallback=True)
        client: Any = connections.get("default")
        await client.create_connection(with_db=True)
        _pool = client._pool
        await fetchval("SELECT 1")


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
    global _pool
    try:
        await Tortoise.close_connections()
    finally:
        _pool = None


_pool: Pool | None = None


def pool() -> Pool:
    """The pool of this process; raises Unavailable before it is connected, and after it is closed."""
    if _pool is None:
        raise Unavailable("The database is not connected: the process is starting or stopping.")
    return _pool


def is_connected() -> bool:
    """Whether there is a pool."""
    return _pool is not None


class acquire:  # noqa: N801
    """A connection of the pool, for as long as the context is open; within a transaction, the transaction's."""

    __slots__ = ("_connection", "_pool", "_within")

    async def __aenter__(self) -> asyncpg.Connection:
        within = _within.get()
        if within is not None and not within.is_over:
            self._within = within.orm.acquire_connection()
            return await self._within.__aenter__()
        self._within = None
        self._pool = pool()
        self._connection = self._pool.take() or await self._pool.acquire()
        return self._connection

    async def __aexit__(self, *error: object) -> None:
        if self._within is not None:
            await self._within.__aexit__(*error)
        else:
            self._pool.give_back(self._connection)


@overload
async def fetch(sql: str, *args: Any) -> list[Any]: ...


@overload
async def fetch(sql: str, *args: Any, row: type[R]) -> list[R]: ...


async def fetch(sql: str, *args: Any, row: Any = asyncpg.Record) -> Any:
    """All rows of a statement, as `row` objects."""
    _note(sql)
    async with acquire() as connection:
        return await connection.fetch(sql, *args, record_class=row)


async def fetch_by_its_own_plan(sql: str, *args: Any, row: type[R]) -> list[R]:
    """As `fetch`, for statements whose best plan depends on the values, as searches: PostgreSQL plans anew each time,
    and does not take after five executions what is good on the average. Costs two round trips more."""
    _note(sql)
    async with acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        return await connection.fetch(sql, *args, record_class=row)  # type: ignore[no-any-return]


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
        self.is_over = False

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

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Add rows by COPY. What breaks a constraint undoes these rows alone: the transaction can go on."""
        _note(f"COPY {table}")
        async with self.savepoint():
            await self._connection.copy_records_to_table(table, columns=columns, records=rows)

    def savepoint(self) -> AbstractAsyncContextManager[Any]:
        """What is within it is undone alone where it raises: the transaction can go on."""
        return self._connection.transaction()  # type: ignore[no-any-return]

    @property
    def _connection(self) -> asyncpg.Connection:
        return self.orm._connection


@asynccontextmanager
async def transaction() -> AsyncIterator[Transaction]:
    """All or nothing; commits at the end, rolls back on any exception."""
    async with in_transaction() as orm:
        opened = Transaction(orm)
        token = _within.set(opened)
        try:
            yield opened
        finally:
            opened.is_over = True
            _within.reset(token)


_within: ContextVar[Transaction | None] = ContextVar("within", default=None)
"""The transaction that the current context is in."""


async def ping() -> float:
    """Seconds a trivial query takes; raises where the database is away."""
    started = time.perf_counter()
    await fetchval("SELECT 1")
    return time.perf_counter() - started


def _note(sql: str) -> None:
    seen = queries_seen.get()
    if seen is not None:
        seen.append(sql)
