"""A PostgreSQL of these tests' own, for they restart it, with a queue in a fresh database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from integrations.durable.base import Job
from integrations.durable.dbos_queue import DurableQueue
from tests.integrations.durable.workers import EXECUTIONS
from tests.private_servers import PrivatePostgres


@dataclass(frozen=True)
class Template:
    """A server, and the database in it that is ready to be copied."""

    server: PrivatePostgres
    name: str


@pytest.fixture(scope="package")
def template() -> Iterator[Template]:
    with PrivatePostgres() as server:
        url = server.create_database()
        asyncio.run(_prepare(url))
        yield Template(server, urlsplit(url).path.removeprefix("/"))


@pytest.fixture
def postgres(template: Template) -> PrivatePostgres:
    return template.server


@pytest.fixture
def url(template: Template) -> str:
    return template.server.create_database(template.name)


@pytest.fixture
async def queue(url: str) -> AsyncIterator[DurableQueue]:
    """Connected to enqueue; it is stopped after the test, also when it was made to work."""
    queue = DurableQueue(url)
    await queue.connect()
    yield queue
    await queue.stop(0)


def job(organization: UUID | None = None, segment: int = 0) -> Job:
    """A new job. The tests' worker program takes `segment` as the milliseconds it works on it."""
    run = uuid4()
    return Job(f"{run}:{segment}", run, organization or uuid4(), segment)


async def _prepare(url: str) -> None:
    await DurableQueue(url).migrate()
    connection = await asyncpg.connect(url)
    await connection.execute(EXECUTIONS)
    await connection.close()
