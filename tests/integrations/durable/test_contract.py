"""What we use of DBOS beyond its public interface. When this fails after an update, read engine.py and lease.py."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import asyncpg
import pytest
from dbos import DBOS
from dbos import _queue as dbos_queue
from dbos._recovery import recover_pending_workflows
from dbos._serialization import DefaultSerializer
from dbos._sys_db import SystemDatabase

from integrations.durable.store import TABLES_VERSION

pytestmark = pytest.mark.anyio


def test_it_is_the_version_that_was_read() -> None:
    assert version("dbos") == "3.4.0"


def test_the_queue_thread_takes_our_bell_for_its_stop_event() -> None:
    assert list(inspect.signature(dbos_queue.queue_worker_thread).parameters) == ["stop_event", "dbos", "queue"]
    source = inspect.getsource(dbos_queue.queue_worker_thread)
    assert "stop_event.wait(timeout=" in source
    assert "stop_event.is_set()" in source


def test_recovery_takes_the_dead_executors() -> None:
    assert list(inspect.signature(DBOS._recover_pending_workflows).parameters) == ["executor_ids"]
    assert "get_pending_workflows" in inspect.getsource(recover_pending_workflows)


def test_a_single_job_can_be_put_back() -> None:
    parameters = list(inspect.signature(SystemDatabase.reenqueue_for_recovery).parameters)
    assert parameters == ["self", "workflow_id", "executor_ids", "recovery_queue_name"]
    assert isinstance(DBOS._sys_db, property)


def test_rows_can_name_pickle_which_we_refuse() -> None:
    assert DefaultSerializer().name() == "py_pickle"


async def test_the_tables_are_at_the_version_that_skips_migrating(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT version FROM dbos.dbos_migrations") == TABLES_VERSION
    finally:
        await connection.close()


async def test_the_tables_have_the_columns_we_read(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT workflow_uuid, status, queue_name, executor_id, application_version, recovery_attempts,"
            " updated_at, completed_at FROM dbos.workflow_status LIMIT 0"
        )
    finally:
        await connection.close()
