"""The run queue on DBOS 3.4.0, in the `dbos` schema of the product's own PostgreSQL.

A process that only enqueues talks SQL and never imports DBOS. A worker claims at most so many jobs for itself and
for each organisation, and hands its jobs over when it stops, is killed, or loses the database (lease.py).
"""

from __future__ import annotations

import asyncio
import importlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import Unavailable
from integrations.durable.base import Job, RunQueue
from integrations.durable.lease import Lease, LeaseEvents
from integrations.durable.store import Store

if TYPE_CHECKING:
    from integrations.durable.worker import Worker


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """State of this process's part of the queue, for health checks. A worker is healthy when it is `claiming`."""

    executor: str | None
    claiming: bool
    executing: int


class DurableQueue(RunQueue):
    """One per process. The database must be reached directly: locks and notifications need a session of their own."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url.replace("postgres://", "postgresql://", 1)
        self._store = Store(self._database_url)
        self._executor: str | None = None
        self._worker: Worker | None = None
        self._lease: Lease | None = None

    async def migrate(self) -> None:
        """Create DBOS's tables, or bring them up to its version. Raises Unavailable when there is no database."""
        store = Store(self._database_url)
        await store.open()
        try:
            if await store.has_tables():
                return  # at once: importing DBOS takes longer than the rest of a start
        finally:
            await store.close()
        engine = await asyncio.to_thread(importlib.import_module, "integrations.durable.engine")
        await asyncio.to_thread(engine.migrate, self._database_url)

    async def connect(self) -> None:
        """Be ready to enqueue. Raises Unavailable when the database can't be reached."""
        await self._store.open()

    async def enqueue(self, job: Job) -> None:
        await self._store.enqueue([job])

    async def work(self, handler: Callable[[Job], Awaitable[None]], *, per_worker: int, per_organization: int) -> None:
        """Execute jobs on this event loop from now on; returns when ready.

        At most `per_worker` at a time here, and `per_organization` of one organisation in all workers together; the
        last worker to start decides both numbers for all. Raises Unavailable when the database can't be reached.

        The handler is called again with a higher `attempt` when it raised (twice, after 1 and 5 s), or when the
        worker that executed the job died or stopped; it finds out itself what was done before. It is cancelled when
        the job is handed over: it then leaves the run as it is, for the next to go on with.
        """
        await self._store.open()
        await self._store.held_by("")  # says so when the tables are missing
        # DBOS takes a second to import, which the rest of the process need not wait for.
        engine_module = await asyncio.to_thread(importlib.import_module, "integrations.durable.engine")
        worker_module = importlib.import_module("integrations.durable.worker")
        executor = f"worker-{uuid.uuid4()}"
        engine = engine_module.Engine(self._database_url, executor)
        worker: Worker = worker_module.Worker(engine, executor, self._store, handler, per_worker)
        lease = Lease(
            self._database_url,
            executor,
            LeaseEvents(
                woken=worker.wake,
                held=worker.resume,
                lost=worker.hold,
                fenced=worker.give_up,
                died=worker.put_back_all,
            ),
        )
        # The lock is held before DBOS starts, else the first job could be taken for a dead worker's.
        await lease.start()
        self._executor, self._worker, self._lease = executor, worker, lease
        try:
            await worker.launch(per_worker=per_worker, per_organization=per_organization)
        except BaseException:
            await self.stop(0)
            raise

    async def sweep(self, jobs: Sequence[Job]) -> int:
        """Put back those of the jobs that are neither waiting nor executing; returns how many.

        For a worker to call now and then, with the segments that should be waiting or executing by the service's own
        tables: an enqueue may have failed after the run was stored, a handler given up. Deletes what ended a week ago.
        """
        if self._worker is None:
            raise Unavailable("only a worker sweeps the run queue")
        return await self._store.sweep(jobs, self._worker.delete)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing new, wait so long for what is executed, leave the rest to other workers, and disconnect."""
        if self._worker is not None and self._lease is not None:
            await self._worker.stop(grace_seconds)
            await self._lease.stop()
            self._worker = self._lease = self._executor = None
        await self._store.close()

    def status(self) -> QueueStatus:
        """How it is now, without asking the database."""
        worker, lease = self._worker, self._lease
        return QueueStatus(
            executor=self._executor,
            claiming=worker is not None and lease is not None and worker.claiming and lease.held,
            executing=0 if worker is None else worker.executing,
        )
