"""Facts for the time series, written in the transaction of what they count: exactly once, like it.

There are none of sessions in which templates are tested.
"""

from __future__ import annotations

from uuid import UUID

from models.sessions import RunRow, SessionPurpose
from services.work import Work


async def record_run(work: Work, run_id: UUID, outcome: str) -> None:
    """A run ended; its time is that since its first start, waiting for decisions included."""
    assert work.session is not None
    if work.session["purpose"] != SessionPurpose.WORK:
        return
    await work.tx.execute(
        "INSERT INTO activity_facts (at, organization_id, session_id, run_id, kind, name, outcome, duration_ms) "
        "SELECT $2, organization_id, session_id, id, 'RUN', $3, $4, extract(epoch FROM $2 - started_at) * 1000 "
        "FROM runs WHERE id = $1",
        run_id,
        work.at,
        work.session["runtime"],
        outcome,
    )


async def record_tool(work: Work, run: RunRow, tool: str, outcome: str, milliseconds: int) -> None:
    """A tool came to its end."""
    assert work.session is not None
    if work.session["purpose"] != SessionPurpose.WORK:
        return
    await work.tx.execute(
        "INSERT INTO activity_facts (at, organization_id, session_id, run_id, kind, name, outcome, duration_ms) "
        "VALUES ($1, $2, $3, $4, 'TOOL', $5, $6, $7)",
        work.at,
        run["organization_id"],
        run["session_id"],
        run["id"],
        tool[:200],
        outcome,
        milliseconds,
    )
