"""Samples of what is used: by sandboxes of this host's worker, by the installation's queue, by a web process' sockets.

Every SAMPLE_SECONDS, at the same moments in all processes. A sample's id is made of what it measures, where and when:
so two workers of a host, which see the same, store it once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid5

from core import clock, db
from services.metrics.definitions import SAMPLE_SECONDS
from services.metrics.store import store
from services.parts import parts

logger = logging.getLogger(__name__)

DISK_EVERY = 4
"""Samples from one look at the disk to the next."""
_NAMESPACE = UUID("5a1b3f0e-6e0c-4c57-8d7b-0d1f6a4b9c21")
_INSTALLATION = "installation"
"""The host of what belongs to none."""

_QUEUES = """
SELECT runs.organization_id, count(*) FILTER (WHERE runs.status = 'QUEUED') AS queued,
       count(DISTINCT runs.session_id) AS active
FROM runs JOIN sessions ON sessions.id = runs.session_id AND sessions.purpose = 'WORK'
WHERE runs.status IN ('QUEUED', 'RUNNING', 'WAITING') GROUP BY 1
"""
_SESSIONS = """
SELECT sessions.id, sessions.organization_id, sessions.template_version_id, sessions.runtime, sessions.owner_id,
       (SELECT started_by_id FROM runs WHERE runs.session_id = sessions.id ORDER BY number DESC LIMIT 1) AS started_by
FROM sessions WHERE id = ANY($1) AND purpose = 'WORK'
"""


class SandboxUse(Protocol):
    """As integrations/sandbox/usage.py has it."""

    organization_id: UUID
    session_id: UUID
    memory_bytes: int
    cpu_seconds: dict[tuple[int, int], float]


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of something there is, or was since the sample before."""

    organization_id: UUID
    resource: str
    value: float
    session_id: UUID | None = None


Measure = Callable[[], Awaitable[Sequence[Sample]]]


class Sampler:
    """Takes samples from `start` to `stop`. `host` is where; `place` tells processes of a host apart."""

    def __init__(self, measures: Sequence[Measure], *, host: str | None = None, place: str = "") -> None:
        self._measures = measures
        self._host, self._place = host or socket.gethostname(), place
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, as a task of the running loop. The database must be connected."""
        self._task = asyncio.create_task(self._run(), name="samples of resources")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            now = clock.now()
            at = _tick(now) + timedelta(seconds=SAMPLE_SECONDS)
            await asyncio.sleep((at - now).total_seconds())
            try:
                await self.sample(at)
            except Exception:
                logger.exception("Resources were not measured this time.")

    async def sample(self, at: datetime) -> int:
        """Take all samples of a moment; returns how many were new."""
        samples = [sample for measure in self._measures for sample in await measure()]
        return await keep(samples, at, host=self._host, place=self._place)


async def keep(samples: Sequence[Sample], at: datetime, *, host: str, place: str = "") -> int:
    """Store samples of a moment; returns how many were new."""
    if not samples:
        return 0
    about = {}
    if ids := [sample.session_id for sample in samples if sample.session_id is not None]:
        about = {row["id"]: row for row in await db.fetch(_SESSIONS, ids)}
    rows = []
    for sample in samples:
        session = about.get(sample.session_id) if sample.session_id is not None else None
        if sample.session_id is not None and (session is None or session["organization_id"] != sample.organization_id):
            continue
        what = (sample.resource, host, place, sample.organization_id, sample.session_id, int(at.timestamp()))
        row = {
            "at": at,
            "organization_id": sample.organization_id,
            "id": uuid5(_NAMESPACE, ":".join(map(str, what))),
            "source": "QUARTERDECK",
            "resource": sample.resource,
            "host": host,
            "value": float(sample.value),
        }
        if session is not None:
            row |= {
                "session_id": sample.session_id,
                "user_id": session["started_by"] or session["owner_id"],
                "template_version_id": session["template_version_id"],
                "runtime": session["runtime"],
            }
        rows.append(row)
    async with db.transaction() as tx:
        return (await store(tx, {"resource_facts": rows}))["resource_facts"]


async def queues() -> list[Sample]:
    """Of each organisation, the runs that wait for a worker, and the sessions that have something open."""
    return [
        Sample(row["organization_id"], resource, row[column])
        for row in await db.fetch(_QUEUES)
        for resource, column in (("queue_depth", "queued"), ("sessions_active", "active"))
    ]


def installation_sampler() -> Sampler:
    """Of what belongs to no host: any worker may take it, and the first one does."""
    return Sampler([queues], host=_INSTALLATION)


def sockets(open_now: Mapping[UUID, int]) -> Measure:
    """Of each organisation, the sockets that are open at this process."""

    async def measure() -> list[Sample]:
        return [Sample(organization_id, "sockets", count) for organization_id, count in open_now.items() if count > 0]

    return measure


class Sandboxes:
    """Measures the sandboxes of this host. Of a program that ends between two samples the last seconds are missed."""

    def __init__(self, usage: Callable[[Path], Iterable[SandboxUse]], disk_bytes: Callable[[Path], int | None]) -> None:
        self._usage, self._disk_bytes = usage, disk_bytes
        self._before: dict[tuple[int, int], float] = {}
        self._taken = 0

    async def __call__(self) -> list[Sample]:
        return await asyncio.to_thread(self._measure, parts().settings.workspaces)

    def _measure(self, workspaces: Path) -> list[Sample]:
        samples: list[Sample] = []
        seconds: dict[tuple[int, int], float] = {}
        disk = self._taken % DISK_EVERY == 0
        for use in self._usage(workspaces):
            spent = sum(max(total - self._before.get(process, 0.0), 0.0) for process, total in use.cpu_seconds.items())
            seconds |= use.cpu_seconds
            samples += [
                Sample(use.organization_id, "cpu_seconds", spent, use.session_id),
                Sample(use.organization_id, "memory_bytes", use.memory_bytes, use.session_id),
            ]
            folder = workspaces / str(use.organization_id) / str(use.session_id)
            if disk and (size := self._disk_bytes(folder)) is not None:
                samples.append(Sample(use.organization_id, "disk_bytes", size, use.session_id))
        self._before, self._taken = seconds, self._taken + 1
        return samples


def _tick(at: datetime) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // SAMPLE_SECONDS * SAMPLE_SECONDS, UTC)
