"""The queue in one process, as `make run` has it: enqueueing, executing, retrying, sweeping, stopping."""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from core.errors import Unavailable
from integrations.durable import store, worker
from integrations.durable.base import Job
from integrations.durable.dbos_queue import DurableQueue
from tests.integrations.durable.conftest import job
from tests.private_servers import PrivatePostgres

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 30


class Recorder:
    """A handler that remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[Job] = []
        self.failures = 0
        self.gate: asyncio.Event | None = None
        self.cancelled = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, given: Job) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls.append(given)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the database is away")
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    @property
    def attempts(self) -> list[int]:
        return [call.attempt for call in self.calls]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def work(queue: DurableQueue, handler: Recorder) -> None:
    await queue.work(handler, per_worker=5, per_organization=5)


async def test_a_job_is_executed_once_on_the_callers_loop(queue: DurableQueue) -> None:
    handler = Recorder()
    await work(queue, handler)
    assert queue.status().claiming
    given = job()
    for _ in range(3):
        await queue.enqueue(given)
    last = job()
    await queue.enqueue(last)
    await until(lambda: len(handler.calls) >= 2)
    await queue.enqueue(given)
    await asyncio.sleep(0.2)
    await queue.stop(5)
    assert sorted(call.key for call in handler.calls) == sorted([given.key, last.key])
    assert handler.loop is asyncio.get_running_loop()
    assert handler.attempts == [1, 1]
    assert not queue.status().claiming


async def test_what_was_enqueued_waits_for_a_worker(queue: DurableQueue) -> None:
    given = job()
    await queue.enqueue(given)
    handler = Recorder()
    await work(queue, handler)
    await until(lambda: handler.calls == [given])


async def test_many_enqueue_at_once(queue: DurableQueue) -> None:
    handler = Recorder()
    await work(queue, handler)
    jobs = [job() for _ in range(100)]
    await asyncio.gather(*(queue.enqueue(each) for each in jobs))
    await until(lambda: len(handler.calls) == 100)
    assert {call.key for call in handler.calls} == {each.key for each in jobs}


async def test_a_handler_that_raises_is_called_again(queue: DurableQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_PAUSES_SECONDS", (0.01, 0.02))
    handler = Recorder()
    handler.failures = 2
    await work(queue, handler)
    await queue.enqueue(job())
    await until(lambda: handler.attempts == [1, 2, 3])


async def test_a_job_that_was_given_up_is_found_by_the_sweep(
    queue: DurableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_PAUSES_SECONDS", ())
    handler = Recorder()
    handler.failures = 1
    await work(queue, handler)
    given = job()
    await queue.enqueue(given)
    await until(lambda: len(handler.calls) == 1)
    await asyncio.sleep(0.2)
    assert await queue.sweep([given]) == 0, "it may just be written down"
    monkeypatch.setattr(store, "_SETTLED_SECONDS", 0.0)
    assert await queue.sweep([given]) == 1
    await until(lambda: len(handler.calls) == 2)


async def test_the_sweep_enqueues_what_is_missing_and_leaves_what_is_there(queue: DurableQueue) -> None:
    handler = Recorder()
    handler.gate = asyncio.Event()
    await work(queue, handler)
    there, missing = job(), job()
    await queue.enqueue(there)
    await until(lambda: handler.calls == [there])
    assert await queue.sweep([]) == 0
    assert await queue.sweep([there, missing]) == 1
    assert await queue.sweep([there, missing]) == 0
    await until(lambda: len(handler.calls) == 2)
    handler.gate.set()
    await queue.stop(5)
    assert handler.calls == [there, missing]


async def test_the_sweep_deletes_what_is_long_done(
    queue: DurableQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Recorder()
    await work(queue, handler)
    await queue.enqueue(job())
    connection = await asyncpg.connect(url)

    async def count(condition: str) -> int:
        found: int = await connection.fetchval(f"SELECT count(*) FROM dbos.workflow_status WHERE {condition}")
        return found

    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await count("completed_at IS NOT NULL"):
                await asyncio.sleep(0.01)
        await queue.sweep([])
        assert await count("true") == 1
        monkeypatch.setattr(store, "_KEPT_SECONDS", 0.0)
        await queue.sweep([])
        assert await count("true") == 0
    finally:
        await connection.close()


async def test_stopping_waits_for_what_can_end_and_hands_over_the_rest(queue: DurableQueue, url: str) -> None:
    handler = Recorder()
    handler.gate = asyncio.Event()
    await work(queue, handler)
    given, waiting = job(), job()
    await queue.enqueue(given)
    await until(lambda: handler.calls == [given])
    stopping = asyncio.create_task(queue.stop(0.3))
    await asyncio.sleep(0.1)
    assert handler.cancelled == 0
    await stopping
    assert handler.cancelled == 1
    # The same process may work again, and another attempt goes on with the job.
    other = DurableQueue(url)
    await other.connect()
    await other.enqueue(waiting)
    handler.gate.set()
    await work(other, handler)
    await until(lambda: len(handler.calls) == 3)
    await other.stop(5)
    assert sorted(call.attempt for call in handler.calls if call.key == given.key) == [1, 2]


async def test_a_lock_that_is_lost_and_regained_at_once_disturbs_nothing(queue: DurableQueue, url: str) -> None:
    handler = Recorder()
    handler.gate = asyncio.Event()
    await work(queue, handler)
    await queue.enqueue(job())
    await until(lambda: len(handler.calls) == 1)
    administrator = await asyncpg.connect(url)
    sessions = (
        "SELECT {} FROM pg_stat_activity WHERE application_name = 'quarterdeck worker' AND datname = current_database()"
    )
    for _ in range(3):
        ended = await administrator.fetchval(sessions.format("pid"))
        await administrator.fetchval(sessions.format("pg_terminate_backend(pid)"))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await administrator.fetchval(sessions.format("pid")) in (None, ended):
                await asyncio.sleep(0.01)
        await until(lambda: queue.status().claiming)
    await administrator.close()
    await queue.enqueue(last := job())
    await until(lambda: last in handler.calls)
    handler.gate.set()
    await queue.stop(5)
    assert handler.attempts == [1, 1]
    assert handler.cancelled == 0


async def test_pickled_rows_are_refused(queue: DurableQueue, url: str, tmp_path: Path) -> None:
    harm = tmp_path / "harm"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (harm,)

    handler = Recorder()
    await queue.enqueue(given := job())
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE dbos.workflow_status SET serialization = 'py_pickle'")
    await connection.execute(
        "UPDATE dbos.workflow_input SET inputs = $1", base64.b64encode(pickle.dumps(Bomb())).decode()
    )
    await work(queue, handler)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await connection.fetchval("SELECT status FROM dbos.workflow_status") != "ERROR":
            await asyncio.sleep(0.01)
    await connection.close()
    assert not handler.calls
    assert not harm.exists()
    assert given.attempt == 1


async def test_a_job_whose_outcome_was_not_written_does_not_keep_its_place(
    queue: DurableQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RECONCILE_SECONDS", 0.1)
    handler = Recorder()
    await work(queue, handler)
    await queue.enqueue(job())
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await connection.fetchval("SELECT status FROM dbos.workflow_status") != "SUCCESS":
            await asyncio.sleep(0.01)
    await connection.execute("UPDATE dbos.workflow_status SET status = 'PENDING', completed_at = NULL")
    await connection.close()
    await until(lambda: handler.attempts == [1, 2])


async def test_a_database_without_the_tables_is_explained(postgres: PrivatePostgres) -> None:
    queue = DurableQueue(postgres.create_database())
    await queue.connect()
    with pytest.raises(Unavailable, match="quarterdeck migrate"):
        await queue.enqueue(job())
    await queue.stop(0)


async def test_a_database_that_is_not_there_is_explained(
    postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RETRY_SECONDS", 0.2)
    queue = DurableQueue(postgres.url.replace("host=/", "host=/nowhere/"))
    with pytest.raises(Unavailable):
        await queue.connect()
    with pytest.raises(Unavailable):
        await queue.enqueue(job())


async def test_migrating_again_changes_nothing(queue: DurableQueue) -> None:
    await queue.enqueue(job())
    await queue.migrate()
    await queue.enqueue(job())
