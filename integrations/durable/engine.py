"""DBOS as this product sets it up. Everything here blocks: call it from threads.

What is used beyond its public interface (`queue_worker_thread`, `_recover_pending_workflows`,
`reenqueue_for_recovery`, `DefaultSerializer`; all of 3.4.0, which is pinned) is held by
tests/integrations/durable/test_contract.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from dbos._queue import queue_worker_thread
from dbos._serialization import DefaultSerializer
from sqlalchemy.exc import DBAPIError

from integrations.durable.store import APPLICATION, QUEUE, SCHEMA, VERSION, WORKFLOW

POLL_SECONDS = 1.0
"""How often the queue is looked into without being told: a notification may be lost with its connection."""

SAME_LOG_SECONDS = 60.0

Workflow = Callable[[str, str, str, int], Coroutine[Any, Any, None]]


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


class Engine:
    """DBOS in this process, of which there can be one, with the thread that claims jobs."""

    def __init__(self, database_url: str, executor: str) -> None:
        self._database_url = database_url
        self._executor = executor
        self._dbos: DBOS | None = None
        self._claimer: threading.Thread | None = None
        self.bell = Bell()

    @property
    def claiming(self) -> bool:
        """Whether the thread that looks into the queue is there."""
        return self._claimer is not None and self._claimer.is_alive()

    def launch(self, workflow: Workflow, *, per_worker: int, per_organization: int) -> None:
        """Start DBOS, and claiming once the bell allows it. Not on a thread with an event loop, which DBOS adopts."""
        _refuse_pickle()
        quieten()
        self._dbos = DBOS(config=_config(self._database_url, self._executor))
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(workflow)
        DBOS.listen_queues([])  # our queue's thread is started below, with the bell
        DBOS.launch()
        queue = DBOS.register_queue(
            QUEUE,
            worker_concurrency=per_worker,
            partition_concurrency=per_organization,
            polling_interval_sec=POLL_SECONDS,
            on_conflict="always_update",
        )
        arguments = (self.bell, self._dbos, queue)
        self._claimer = threading.Thread(target=queue_worker_thread, args=arguments, name="run-queue", daemon=True)
        self._claimer.start()

    def stop_claiming(self) -> None:
        """Returns when nothing more will be claimed."""
        self.bell.set()
        if self._claimer is not None:
            self._claimer.join()

    def destroy(self) -> None:
        """End DBOS."""
        DBOS.destroy(destroy_registry=True)

    def put_back_all(self, executor: str) -> None:
        """What the executor has claimed and not ended waits in the queue again. It must not be executing anything."""
        DBOS._recover_pending_workflows([executor])

    def put_back(self, key: str) -> None:
        """A job that this executor has claimed, but is not executing, waits in the queue again."""
        if self._dbos is not None:
            self._dbos._sys_db.reenqueue_for_recovery(key, [self._executor], QUEUE)

    def delete(self, keys: list[str]) -> None:
        """Remove ended jobs."""
        DBOS.delete_workflows(keys)


def migrate(database_url: str) -> None:
    """Create DBOS's tables, or bring them up to its version."""
    quieten()
    DBOS.migrate(database_url, schema=SCHEMA)


def quieten() -> None:
    """DBOS would print to the console by itself, past the configured log, and much while the database is away."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.WARNING)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.addFilter(_Brief())


class _Brief(logging.Filter):
    """The same complaint once a minute, and without pages of traceback when the database is the cause."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage().split("\n", 1)[0]
        if record.exc_info and isinstance(record.exc_info[1], DBAPIError):
            text, record.exc_info = f"{text} {record.exc_info[1].orig}".split("\n", 1)[0], None
        record.msg, record.args = text, ()
        subject = text.split(": ", 1)[0]
        now = time.monotonic()
        if now - self._last.get(subject, -SAME_LOG_SECONDS) < SAME_LOG_SECONDS:
            return False
        if len(self._last) > 100:
            self._last.clear()
        self._last[subject] = now
        return True


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
