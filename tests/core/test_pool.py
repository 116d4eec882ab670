"""The pool hands out clean connections, no more than it may, and gets over whatever happens to them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from app.wiring import Program
from core import db
from core.pool import Pool
from tests.conftest import ROOT
from tests.databases import TestServer

pytestmark = pytest.mark.anyio

ROOMS = ("app", "schema", "resolvers", "subscriptions", "services", "models", "core")
# What would stay on a connection for whoever has it next.
STATE = re.compile(
    r"\bSET (SESSION|ROLE|TIME ZONE|search_path|statement_timeout|lock_timeout|plan_cache_mode|work_mem|jit)\b"
    r"|\"\s*(RESET |LISTEN |UNLISTEN|DECLARE .* WITH HOLD|CREATE TEMP(?!.*ON COMMIT DROP)|PREPARE |LOAD )"
    r"|pg_(try_)?advisory_lock|\.add_listener\(|set_config\([^)]*false\)"
)
# Files that have connections of their own.
ALONE = {"core/bus/links.py", "models/migrate.py"}


@pytest.fixture
async def pool(postgres: TestServer) -> AsyncIterator[Pool]:
    url = postgres.create_database()
    found = await Pool(lambda: asyncpg.connect(url), smallest=1, largest=3).open()
    yield found
    await asyncio.wait_for(found.close(), 10)
    postgres.drop_database(url)


async def ask(pool: Pool, sql: str) -> object:
    connection = pool.take() or await pool.acquire()
    try:
        return await connection.fetchval(sql)
    finally:
        pool.give_back(connection)


async def test_no_more_are_opened_than_may_be_and_all_who_wait_are_served(pool: Pool) -> None:
    pids = await asyncio.gather(*(ask(pool, "SELECT pg_backend_pid() FROM pg_sleep(0.01)") for _ in range(50)))
    assert len(set(pids)) == pool.size == 3
    assert (pool.idle, pool.waiting) == (3, 0)


async def test_those_who_leave_the_line_take_nothing_with_them(pool: Pool) -> None:
    slow = [asyncio.create_task(ask(pool, "SELECT pg_sleep(0.3)")) for _ in range(3)]
    await asyncio.sleep(0.1)
    impatient = [asyncio.create_task(ask(pool, "SELECT 1")) for _ in range(20)]
    await asyncio.sleep(0.05)
    for task in impatient[::2]:
        task.cancel()
    await asyncio.gather(*slow)
    assert await asyncio.gather(*impatient[1::2]) == [1] * 10
    assert (pool.idle, pool.waiting) == (pool.size, 0)


async def test_who_leaves_the_line_in_the_moment_it_is_called_is_cancelled_and_nothing_else(pool: Pool) -> None:
    held = [await pool.acquire() for _ in range(3)]
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    for connection in held:
        pool.give_back(connection)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (pool.idle, pool.waiting) == (3, 0)


async def test_transactions_that_never_began_keep_no_connection(database: Program) -> None:
    """Given up at any moment of their beginning."""
    pool = db.pool()

    async def write() -> None:
        async with db.transaction() as tx:
            await tx.fetchval("SELECT 1")

    for number in range(60):
        task = asyncio.create_task(write())
        for _ in range(number % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.wait_for(asyncio.gather(*(db.fetchval(f"SELECT {n}") for n in range(20))), 10) == [*range(20)]
    async with asyncio.timeout(5):
        while pool.idle < pool.size:
            await asyncio.sleep(0.01)


async def test_a_statement_that_was_cancelled_is_over_before_the_connection_is_used_again(pool: Pool) -> None:
    for _ in range(10):
        task = asyncio.create_task(ask(pool, "SELECT pg_sleep(10)"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(asyncio.gather(*(ask(pool, f"SELECT {n}") for n in range(9))), 5) == [*range(9)]
    assert pool.size <= 3


async def test_a_transaction_that_was_left_open_is_rolled_back(pool: Pool) -> None:
    await ask(pool, "CREATE TABLE things (id int)")
    connection = await pool.acquire()
    await connection.execute("BEGIN; INSERT INTO things VALUES (1)")
    pool.give_back(connection)
    assert await asyncio.gather(*(ask(pool, "SELECT count(*) FROM things") for _ in range(6))) == [0] * 6
    assert all(not held.is_in_transaction() for held in pool._all)


async def test_a_transaction_that_was_cancelled_as_it_began_is_over(pool: Pool) -> None:
    for _ in range(5):
        connection = await pool.acquire()
        beginning = asyncio.create_task(connection.transaction().start())
        await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        pool.give_back(connection)
    for _ in range(6):
        connection = await pool.acquire()
        async with connection.transaction():
            assert await connection.fetchval("SELECT 1") == 1
        pool.give_back(connection)


async def test_connections_that_the_server_ends_are_replaced(pool: Pool) -> None:
    async def end_all() -> None:
        connection = await pool.acquire()
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        pool.give_back(connection)

    first = await asyncio.gather(*(ask(pool, "SELECT pg_backend_pid() FROM pg_sleep(0.05)") for _ in range(3)))
    await end_all()
    await asyncio.sleep(0.1)
    again = await asyncio.gather(*(ask(pool, "SELECT pg_backend_pid() FROM pg_sleep(0.05)") for _ in range(9)))
    assert len(set(again)) <= 3
    assert len(set(again) & set(first)) == 1


async def test_who_waits_while_the_server_cannot_be_reached_is_told(postgres: TestServer) -> None:
    url, tries = postgres.create_database(), 0

    async def connect() -> asyncpg.Connection:
        nonlocal tries
        tries += 1
        if tries > 1:
            raise ConnectionRefusedError("away")
        return await asyncpg.connect(url)

    pool = await Pool(connect, smallest=1, largest=1).open()
    connection = await pool.acquire()
    waiting = [asyncio.create_task(pool.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    connection.terminate()
    pool.give_back(connection)
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(error) for error in found] == [ConnectionRefusedError] * 3
    await asyncio.wait_for(pool.close(), 5)
    with pytest.raises(asyncpg.InterfaceError):
        await pool.acquire()
    postgres.drop_database(url)


async def test_closing_waits_for_what_is_under_way(postgres: TestServer) -> None:
    url = postgres.create_database()
    pool = await Pool(lambda: asyncpg.connect(url), smallest=1, largest=2).open()
    busy = asyncio.create_task(ask(pool, "SELECT 7 FROM pg_sleep(0.3)"))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(pool.close(), 5)
    assert await busy == 7
    assert pool.size == 0
    postgres.drop_database(url)


def test_no_statement_leaves_anything_on_a_pooled_connection() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for room in ROOMS
        for path in sorted(Path(ROOT / room).rglob("*.py"))
        if "migrations" not in path.parts and str(path.relative_to(ROOT)) not in ALONE
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if STATE.search(line) and "pg_advisory_xact" not in line
    ]
    assert not found, "\n".join(found)
