"""DBOS in this process: it claims jobs from the queue, and we execute them on the event loop of the caller.

DBOS runs workflows on a loop and threads of its own. The handler's connections belong to the caller's loop, so
each workflow only waits for a task there. What is used beyond DBOS's public interface (`queue_worker_thread`,
`_recover_pending_workflows`, `DefaultSerializer`; all of 3.4.0, which is pinned) is held by
tests/integrations/durable/test_contract.py.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from dbos._queue import queue_worker_thread
from dbos._serialization import DefaultSerializer

from core.errors import Unavailable
from integrations.durable.base import Job
from integrations.durable.store import APPLICATION, QUEUE, SCHEMA, VERSION, WORKFLOW, Store

log = logging.getLogger(__name__)

Handler = Callable[[Job], Awaitable[None]]

POLL_SECONDS = 1.0
"""How often the queue is looked into without being told: a notification may be lost with its connection."""

RETRY_PAUSES_SECONDS = (1.0, 5.0)
"""Pauses before a handler that raised is called again in the same process."""

CANCEL_SECONDS = 5.0
SETTLE_SECONDS = 2.0

OUTCOME_SECONDS = 0.05
"""How long DBOS needs to write the end of a job, about."""


class HandedOver(BaseException):
    """Ends a workflow here without an outcome. Not an Exception, for DBOS would store that as the outcome."""


class Bell(threading.Event):
    """The stop event of DBOS's queue thread, which also lets us wake that thread, and hold it.

    The thread looks into the queue after each `wait`, whose timeout is its polling interval.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._rung = False
        self._claiming = False

    def ring(self) -> None:
        """Look into the queue now."""
        self._change(rung=True)

    def allow(self, claiming: bool) -> None:
        """Whether jobs may be claimed at all."""
        self._change(claiming=claiming, rung=claiming)

    def set(self) -> None:
        super().set()
        self._change(rung=True)

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._rung, timeout)
            self._changed.wait_for(lambda: self._claiming or self.is_set())
            self._rung = False
        return self.is_set()

    def _change(self, *, rung: bool, claiming: bool | None = None) -> None:
        with self._changed:
            self._rung = self._rung or rung
            if claiming is not None:
                self._claiming = claiming
            self._changed.notify_all()


class Worker:
    """Claims and executes jobs. DBOS allows one per process."""

    def __init__(self, database_url: str, executor: str, store: Store, handler: Handler, per_worker: int) -> None:
        self._database_url = database_url
        self._executor = executor
        self._store = store
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        # DBOS counts a job as running a moment after it claimed it, and could claim one too many when woken then.
        self._slots = asyncio.Semaphore(per_worker)
        self._per_worker = per_worker
        self._executing: dict[asyncio.Task[None], str] = {}
        self._wakers: set[asyncio.Task[None]] = set()
        self._handed_over: set[str] = set()
        self._accepting = True
        self._bell = Bell()
        self._thread: threading.Thread | None = None

    @property
    def executing(self) -> int:
        """Jobs whose handler is running."""
        return len(self._executing)

    @property
    def claiming(self) -> bool:
        """Whether the thread that looks into the queue is there."""
        return self._thread is not None and self._thread.is_alive()

    def launch(self, per_organization: int) -> None:
        """Blocks for some tenths of a second: call it from a thread, so that DBOS does not adopt the caller's loop."""
        _refuse_pickle()
        quieten()
        dbos = DBOS(config=_config(self._database_url, self._executor))
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(self._workflow())
        DBOS.listen_queues([])  # our queue's thread is started below, with the bell
        DBOS.launch()
        queue = DBOS.register_queue(
            QUEUE,
            worker_concurrency=self._per_worker,
            partition_concurrency=per_organization,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )
        self._thread = threading.Thread(
            target=queue_worker_thread, args=(self._bell, dbos, queue), name="run-queue", daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """There may be something to start."""
        self._bell.ring()

    def hold(self) -> None:
        """Start nothing new until `resume`."""
        self._bell.allow(False)

    async def resume(self, after_giving_up: bool) -> None:
        """Start jobs again; what was given up in between goes back into the queue."""
        if after_giving_up and self._thread is not None:
            await self.put_back(self._executor)
        self._bell.allow(True)

    async def give_up(self) -> None:
        """Cancel every handler and wait until it has ended."""
        tasks = list(self._executing)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
            for task in stuck:
                log.error("the handler of %s does not end when it is cancelled", self._executing.get(task))

    async def put_back(self, executor: str) -> None:
        """What the executor has claimed and not ended waits in the queue again."""
        await asyncio.to_thread(DBOS._recover_pending_workflows, [executor])
        await self._store.wake_workers()

    async def delete(self, keys: list[str]) -> None:
        """Remove ended jobs."""
        await asyncio.to_thread(DBOS.delete_workflows, keys)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing new, wait for what runs, give the rest to other workers, and end DBOS."""
        self._accepting = False
        self._bell.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._executing:
            await asyncio.wait(list(self._executing), timeout=grace_seconds)
        await self.give_up()
        for waker in self._wakers:
            waker.cancel()
        try:
            if await self._unended():
                await self.put_back(self._executor)
        except Unavailable as error:
            log.warning("unfinished jobs are left to be taken over: %s", error)
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    async def _unended(self) -> set[str]:
        """Jobs of ours that won't get an outcome. The others' is written just now, in threads of DBOS."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            held = await self._store.held_by(self._executor)
            if held <= self._handed_over or time.monotonic() > deadline:
                return held
            await asyncio.sleep(0.02)

    def _workflow(self) -> Callable[[str, str, str, int], Coroutine[Any, Any, None]]:
        async def run_segment(key: str, run_id: str, organization_id: str, segment: int) -> None:
            job = Job(key, UUID(run_id), UUID(organization_id), segment)
            try:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._execute(job), self._loop))
            except asyncio.CancelledError:
                raise HandedOver from None

        return run_segment

    async def _execute(self, job: Job) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._executing[task] = job.key
        self._handed_over.add(job.key)
        try:
            async with self._slots:
                await self._call(job)
            self._handed_over.discard(job.key)
        except Exception:
            self._handed_over.discard(job.key)
            raise
        finally:
            del self._executing[task]
            waker = self._loop.create_task(self._wake_others())
            self._wakers.add(waker)
            waker.add_done_callback(self._wakers.discard)

    async def _call(self, job: Job) -> None:
        for failures, pause in enumerate([*RETRY_PAUSES_SECONDS, None]):
            try:
                claimed = await self._store.claimed_attempt(job.key, self._executor)
                if claimed is None or not self._accepting:
                    raise HandedOver
                return await self._handler(replace(job, attempt=claimed + failures))
            except Exception:
                log.exception("executing %s failed", job.key)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _wake_others(self) -> None:
        """A place in the organisation is free for a waiting job, once DBOS has written the outcome."""
        await asyncio.sleep(OUTCOME_SECONDS)
        self.wake()
        with suppress(Unavailable):
            await self._store.wake_workers()


def quieten() -> None:
    """DBOS would print to the console by itself, past the configured log."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)


def _config(database_url: str, executor: str) -> DBOSConfig:
    return {
        "name": APPLICATION,
        "system_database_url": database_url,
        "dbos_system_schema": SCHEMA,
        "run_migrations": False,
        "executor_id": executor,
        "application_version": VERSION,
        "serializer": DBOSPortableJSONSerializer(),
        "sys_db_pool_size": 6,
        "log_level": "WARNING",
        "enable_otlp": False,
    }


def _refuse_pickle() -> None:
    """A row may name its own serialization, and DBOS would unpickle it: database access would be code execution."""

    def refuse(_: DefaultSerializer, __: str) -> Any:
        raise ValueError("pickled data in the queue is refused")

    DefaultSerializer.deserialize = refuse  # type: ignore[assignment, method-assign]
