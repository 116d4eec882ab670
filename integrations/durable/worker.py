"""Executes the jobs that DBOS claims, on the event loop of the caller.

DBOS runs workflows on a loop and threads of its own. The handler's connections belong to the caller's loop, so
each workflow only waits for a task there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import cast
from uuid import UUID

from core.errors import Unavailable
from integrations.durable.base import Job
from integrations.durable.engine import Engine, Workflow
from integrations.durable.store import Store

log = logging.getLogger(__name__)

Handler = Callable[[Job], Awaitable[None]]

RETRY_PAUSES_SECONDS = (1.0, 5.0)
"""Pauses before a handler that raised is called again in the same process."""

CANCEL_SECONDS = 5.0
SETTLE_SECONDS = 2.0
RECONCILE_SECONDS = 5.0

OUTCOME_SECONDS = 0.05
"""How long DBOS needs to write the end of a job, about."""


class HandedOver(BaseException):
    """Ends a workflow here without an outcome. Not an Exception, for DBOS would store that as the outcome."""


class Worker:
    """One executor of the queue."""

    def __init__(self, engine: Engine, executor: str, store: Store, handler: Handler, per_worker: int) -> None:
        self._engine = engine
        self._executor = executor
        self._store = store
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        # DBOS counts a job as running a moment after it claimed it, and could claim one too many when woken then.
        self._slots = asyncio.Semaphore(per_worker)
        self._executing: dict[asyncio.Task[None], str] = {}
        self._handed_over: set[str] = set()
        self._accepting = True
        self._launched = False
        self._wakers: set[asyncio.Task[None]] = set()
        self._reconciler: asyncio.Task[None] | None = None

    @property
    def executing(self) -> int:
        """Jobs whose handler is running."""
        return len(self._executing)

    @property
    def claiming(self) -> bool:
        """Whether jobs are looked for."""
        return self._engine.claiming

    async def launch(self, *, per_worker: int, per_organization: int) -> None:
        """Start DBOS; jobs are claimed while `resume` was called last, and not `hold`."""
        await asyncio.to_thread(
            self._engine.launch, self._workflow(), per_worker=per_worker, per_organization=per_organization
        )
        self._launched = True
        self._reconciler = asyncio.create_task(self._reconcile(), name="run-queue reconciler")

    def wake(self) -> None:
        """There may be something to start."""
        self._engine.bell.ring()

    def hold(self) -> None:
        """Start nothing new until `resume`."""
        self._engine.bell.allow(False)

    async def resume(self, after_giving_up: bool) -> None:
        """Start jobs again; what was given up in between goes back into the queue."""
        if after_giving_up and self._launched:
            await self.put_back_all(self._executor)
        self._engine.bell.allow(True)

    async def give_up(self) -> None:
        """Cancel every handler and wait until it has ended."""
        tasks = list(self._executing)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
            for task in stuck:
                log.error("the handler of %s does not end when it is cancelled", self._executing.get(task))

    async def put_back_all(self, executor: str) -> None:
        """What the executor, which executes nothing now, has claimed and not ended waits in the queue again."""
        await asyncio.to_thread(self._engine.put_back_all, executor)
        await self._store.wake_workers()

    async def delete(self, keys: list[str]) -> None:
        """Remove ended jobs."""
        await asyncio.to_thread(self._engine.delete, keys)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing new, wait for what runs, give the rest to other workers, and end DBOS."""
        self._accepting = False
        await asyncio.to_thread(self._engine.stop_claiming)
        if self._executing:
            await asyncio.wait(list(self._executing), timeout=grace_seconds)
        await self.give_up()
        helpers = [*self._wakers, *([self._reconciler] if self._reconciler else [])]
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        try:
            if self._launched and await self._unended():
                await self.put_back_all(self._executor)
        except (Unavailable, TimeoutError):
            log.warning("the database is away: unfinished jobs are left for others to take over")
        await asyncio.to_thread(self._engine.destroy)

    async def _unended(self) -> set[str]:
        """Jobs of ours that won't get an outcome. The others' is written just now, in threads of DBOS."""
        deadline = time.monotonic() + SETTLE_SECONDS
        async with asyncio.timeout(2 * SETTLE_SECONDS):
            while True:
                held = await self._store.held_by(self._executor)
                if held <= self._handed_over or time.monotonic() > deadline:
                    return held
                await asyncio.sleep(0.02)

    def _workflow(self) -> Workflow:
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

    async def _reconcile(self) -> None:
        """Put back what is ours in the table, but not in this process.

        DBOS loses track of a job when the database goes away between its claim and its start, and of its outcome
        when the database is away then (seen with psycopg 3.3, whose errors it does not know for transient).
        """
        idle: set[str] = set()
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            try:
                held = await self._store.held_by(self._executor) - set(self._executing.values())
                for key in held & idle:
                    log.warning("job %s was claimed and is not executing; it goes back into the queue", key)
                    await asyncio.to_thread(self._engine.put_back, key)
                if held & idle:
                    await self._store.wake_workers()
                idle = held - idle
            except Exception:
                log.exception("comparing the queue with what is executed failed")
