"""Several worker processes on one queue: limits, death, hibernation, restarts of the database."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from integrations.durable.dbos_queue import DurableQueue
from tests.integrations.durable.conftest import job
from tests.integrations.durable.workers import Executions, Worker
from tests.private_servers import PrivatePostgres

pytestmark = pytest.mark.anyio


class Crew:
    """Starts workers on one database, and kills what is left of them in the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._workers: list[Worker] = []

    async def start(self, count: int = 1, **options: int) -> list[Worker]:
        started = await asyncio.gather(*(Worker.start(self._url, **options) for _ in range(count)))
        self._workers += started
        return list(started)

    async def dismiss(self) -> None:
        for worker in self._workers:
            await worker.end()


@pytest.fixture
async def crew(url: str) -> AsyncIterator[Crew]:
    crew = Crew(url)
    yield crew
    await crew.dismiss()


@pytest.fixture
async def executions(url: str) -> AsyncIterator[Executions]:
    connection = await asyncpg.connect(url)
    yield Executions(connection)
    await connection.close()


async def test_a_killed_workers_jobs_are_executed_by_another(
    queue: DurableQueue, crew: Crew, executions: Executions
) -> None:
    (first,) = await crew.start()
    jobs = [job(segment=60_000), job(segment=60_001)]
    for each in jobs:
        await queue.enqueue(each)
    await executions.wait_for(lambda rows: len(rows) == 2)
    await crew.start()
    await first.end(signal.SIGKILL)
    async with asyncio.timeout(20):
        rows = await executions.wait_for(lambda rows: len(rows) == 4)
    assert {(row["key"], row["attempt"]) for row in rows} == {(each.key, n) for each in jobs for n in (1, 2)}
    assert {row["process"] for row in rows[2:]} != {first.pid}


async def test_the_next_worker_takes_over_when_none_was_left(
    queue: DurableQueue, crew: Crew, executions: Executions
) -> None:
    (first,) = await crew.start()
    await queue.enqueue(job(segment=2_000))
    await executions.wait_for(lambda rows: len(rows) == 1)
    await first.end(signal.SIGKILL)
    await queue.enqueue(job(segment=10))
    await crew.start()
    rows = await executions.wait_for_done(2)
    assert sorted(row["attempt"] for row in rows) == [1, 1, 2]


async def test_limits_hold_over_all_workers(queue: DurableQueue, crew: Crew, executions: Executions) -> None:
    await crew.start(3, per_worker=3, per_organization=4)
    organizations = [uuid4(), uuid4()]
    jobs = [job(organizations[n % 2], segment=50 + n) for n in range(60)]
    await asyncio.gather(*(queue.enqueue(each) for each in jobs))
    rows = await executions.wait_for_done(60)
    assert len({row["key"] for row in rows}) == len(rows) == 60
    assert await executions.most_at_once("process") <= 3
    assert await executions.most_at_once("organization") <= 4
    assert len({row["process"] for row in rows}) > 1


async def test_no_job_is_executed_twice_at_once_while_workers_come_and_go(
    queue: DurableQueue, crew: Crew, executions: Executions
) -> None:
    workers = await crew.start(2)
    for n in range(30):
        await queue.enqueue(job(segment=300 + n))
    await asyncio.sleep(0.5)
    await workers[0].end(signal.SIGTERM)
    await crew.start()
    rows = await executions.wait_for_done(30)
    assert len({row["key"] for row in rows if row["outcome"] == "done"}) == 30
    assert await executions.most_at_once("key") == 1


async def test_a_stopped_worker_finishes_what_it_can_and_hands_over_the_rest(
    queue: DurableQueue, crew: Crew, executions: Executions
) -> None:
    (first,) = await crew.start()
    short, long = job(segment=1_000), job(segment=5_000)
    await queue.enqueue(short)
    await queue.enqueue(long)
    await executions.wait_for(lambda rows: len(rows) == 2)
    await first.end(signal.SIGTERM)
    rows = {row["key"]: row for row in await executions.rows()}
    assert (rows[short.key]["outcome"], rows[long.key]["outcome"]) == ("done", "cut off")
    await queue.enqueue(job(segment=10))
    await asyncio.sleep(0.5)
    assert len(await executions.rows()) == 2
    await crew.start()
    done = await executions.wait_for_done(3)
    assert [row["attempt"] for row in done if row["key"] == long.key] == [1, 2]


async def test_a_worker_that_was_stopped_and_resumed_gives_up_what_others_took(
    queue: DurableQueue, crew: Crew, executions: Executions
) -> None:
    (sleeper,) = await crew.start(silent_seconds=1)
    taken = job(segment=3_000)
    await queue.enqueue(taken)
    await executions.wait_for(lambda rows: len(rows) == 1)
    await crew.start(silent_seconds=1)
    sleeper.send(signal.SIGSTOP)
    await executions.wait_for(lambda rows: len(rows) == 2)
    sleeper.send(signal.SIGCONT)
    rows = await executions.wait_for(lambda rows: all(row["outcome"] for row in rows))
    assert [(row["attempt"], row["outcome"]) for row in rows] == [(1, "cut off"), (2, "done")]
    # It is a good worker again.
    await asyncio.gather(*(queue.enqueue(job(segment=500 + n)) for n in range(10)))
    rows = await executions.wait_for_done(11)
    assert sleeper.pid in {row["process"] for row in rows[2:]}


async def test_a_restart_of_the_database_loses_nothing(
    postgres: PrivatePostgres, url: str, queue: DurableQueue, crew: Crew
) -> None:
    await crew.start(2)
    jobs = [job(segment=20 + n) for n in range(40)]

    async def enqueue_all() -> None:
        for each in jobs:
            await queue.enqueue(each)
            await asyncio.sleep(0.02)

    enqueueing = asyncio.create_task(enqueue_all())
    await asyncio.sleep(0.4)
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)
    await enqueueing
    connection = await asyncpg.connect(url)
    executions = Executions(connection)
    rows = await executions.wait_for(
        lambda rows: {row["key"] for row in rows if row["outcome"] == "done"} == {each.key for each in jobs}
    )
    assert len({row["key"] for row in rows}) == 40
    # Also what DBOS could not write down while the database was away comes to its end.
    async with asyncio.timeout(60):
        while await connection.fetchval("SELECT count(*) FROM dbos.workflow_status WHERE status <> 'SUCCESS'"):
            await asyncio.sleep(0.1)
    await connection.close()
