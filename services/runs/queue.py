"""Which run of a session is next, and handing it to the durable queue."""

from __future__ import annotations

import logging
from uuid import UUID

from core import db
from integrations.durable.base import Job
from services.parts import parts

logger = logging.getLogger(__name__)

# The head of a session's line, where nothing of the session is under way and it is not paused.
_NEXT = """
SELECT runs.id, runs.organization_id, runs.segment, runs.status FROM runs
JOIN sessions ON sessions.id = runs.session_id
WHERE runs.session_id = $1 AND runs.status IN ('QUEUED', 'RUNNING', 'WAITING')
  AND sessions.status NOT IN ('PAUSED', 'TERMINATED', 'ARCHIVED')
ORDER BY runs.number LIMIT 1
"""


async def enqueue_next(session_id: UUID) -> None:
    """Hand the session's next run to the workers, if it is its turn. Safe to call at any time.

    A failure here loses nothing: the run stands in the database and the workers' sweep finds it.
    """
    run = await db.fetchrow(_NEXT, session_id)
    if run is None or run["status"] != "QUEUED":
        return
    try:
        await parts().queue.enqueue(job_of(run["id"], run["organization_id"], run["segment"]))
    except Exception:
        logger.exception("Run %s could not be queued; the workers' sweep will find it.", run["id"])


def job_of(run_id: UUID, organization_id: UUID, segment: int) -> Job:
    """The queued job of one segment of a run."""
    return Job(key=f"{run_id}:{segment}", run_id=run_id, organization_id=organization_id, segment=segment)
