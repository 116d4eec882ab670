"""What services know of the durable queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Job:
    """One segment of a run: from its start, or from a decision, to the next interruption or the end.

    `key` is unique for the segment (`<run id>:<segment>`); enqueueing it again does nothing. `attempt` is 1 when
    the segment is executed for the first time, and more when an earlier execution was cut off or failed.
    """

    key: str
    run_id: UUID
    organization_id: UUID
    segment: int
    attempt: int = 1


class RunQueue(Protocol):
    """Where a service puts segments that a worker shall execute."""

    async def enqueue(self, job: Job) -> None:
        """Returns when the job is stored durably. Idempotent by `job.key`.

        Raises Unavailable when the database stays away; the worker's sweep finds what is missing in the queue.
        """
