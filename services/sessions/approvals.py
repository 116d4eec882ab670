"""Decisions on tool calls that wait for a human."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import orjson

from core import db
from core.errors import BadInput, Conflict, NotFound, TooLarge
from core.ids import encode
from core.permissions import Actor
from models.base import Query
from models.sessions import ApprovalRow, ApprovalStatus, RunRow, in_visible_session
from services.identity.actors import system_actor
from services.parts import parts
from services.runs.queue import enqueue_next
from services.runs.storable import check_storable
from services.sessions.transitions import follow_runs
from services.work import Work, write

logger = logging.getLogger(__name__)


async def decide_approval(
    actor: Actor, approval_id: UUID, *, approve: bool, note: str | None, arguments: dict[str, Any] | None
) -> ApprovalRow:
    """Allow or refuse a tool call. Once all calls that the run waits for are decided, the run goes on.

    Raises Conflict, naming who was first, where a decision was made already.
    """
    if note is not None and len(note) > 2000:
        raise TooLarge("A note has at most 2,000 characters.", field="note")
    if arguments is not None:
        if not approve:
            raise BadInput("Arguments are edited only with an approval.", field="arguments")
        check_storable(arguments, field="arguments")
        if len(orjson.dumps(arguments)) > parts().settings.max_arguments_bytes:
            raise TooLarge(f"Arguments have at most {parts().settings.max_arguments_bytes} bytes.", field="arguments")
    async with write(actor, "approval.decide") as work:
        query = Query()
        session_id = await work.tx.fetchval(
            f"SELECT approvals.session_id FROM approvals WHERE approvals.id = {query.arg(approval_id)} "
            f"AND {query.scope(in_visible_session('approvals', actor), by_row=True)}",
            *query.args,
        )
        if session_id is None:
            raise NotFound("There is no such approval, or you may not see it.", field="approvalId")
        await work.lock_session(session_id)
        approval = await _lock(work, approval_id)
        work.target("Approval", approval_id)
        if approval["status"] != ApprovalStatus.PENDING:
            raise await _too_late(work, approval)
        status = ApprovalStatus.APPROVED if approve else ApprovalStatus.DENIED
        work.changed(
            before={"status": "PENDING"},
            after={"status": status, "note": note, "argumentsEdited": arguments is not None},
        )
        await _settle(work, approval, status, note=note, arguments=arguments)
        return await _lock(work, approval_id)


async def expire_approvals() -> int:
    """Let approvals whose time is over count as denied; returns how many. Called by workers.

    One that cannot be settled is logged and tried again; it does not keep the others waiting.
    """
    due = await db.fetch(
        "SELECT id, session_id, organization_id FROM approvals WHERE status = 'PENDING' AND expires_at < now() "
        "ORDER BY expires_at LIMIT 100"
    )
    expired = 0
    for row in due:
        try:
            expired += await _expire(row["id"], row["session_id"], row["organization_id"])
        except Exception:
            logger.exception("Approval %s could not expire; it is tried again.", encode("apr", row["id"]))
    return expired


async def _expire(approval_id: UUID, session_id: UUID, organization_id: UUID) -> bool:
    async with write(system_actor(organization_id), "approval.expire") as work:
        await work.hold_session(session_id)
        approval = await _lock(work, approval_id)
        work.target("Approval", approval_id)
        if approval["status"] != ApprovalStatus.PENDING:
            work.entry.action = ""  # somebody has decided in the meantime
            return False
        await _settle(work, approval, ApprovalStatus.EXPIRED, note="Nobody decided in time.", arguments=None)
        return True


async def _settle(
    work: Work, approval: ApprovalRow, status: ApprovalStatus, *, note: str | None, arguments: dict[str, Any] | None
) -> None:
    await work.tx.execute(
        "UPDATE approvals SET status = $2, decided_by_id = $3, decided_at = $4, note = $5, arguments = $6 WHERE id = "
        "$1",
        approval["id"],
        status.value,
        work.actor.user_id,
        work.at,
        note,
        arguments,
    )
    work.emit(
        "CUSTOM",
        {"approvalId": encode("apr", approval["id"]), "status": status.value, "note": note},
        name="quarterdeck.approval.decided",
        run_id=approval["run_id"],
        approval_id=approval["id"],
        tool_execution_id=approval["tool_execution_id"],
    )
    work.session_changed("UPDATED")
    still_pending = await work.tx.fetchval(
        "SELECT 1 FROM approvals WHERE run_id = $1 AND status = 'PENDING' LIMIT 1", approval["run_id"]
    )
    if still_pending:
        return
    # A run that is still executing asks for the decision when it comes to wait.
    run = await work.tx.fetchrow("SELECT * FROM runs WHERE id = $1 FOR UPDATE", approval["run_id"], row=RunRow)
    if run is None or run["status"] != "WAITING":
        return
    await requeue(work, run)


async def requeue(work: Work, run: RunRow) -> None:
    """A waiting run whose decisions are all made goes on as a new segment."""
    session = work.session
    assert session is not None
    await work.tx.execute(
        "UPDATE runs SET status = 'QUEUED', segment = segment + 1, executor = NULL WHERE id = $1", run["id"]
    )
    await follow_runs(work)
    work.session_changed("UPDATED")
    session_id = session["id"]
    work.after_commit(lambda: enqueue_next(session_id))


async def _too_late(work: Work, approval: ApprovalRow) -> Conflict:
    who = await work.tx.fetchval("SELECT name FROM users WHERE id = $1", approval["decided_by_id"])
    by = f" by {who}" if who else ""
    return Conflict(
        f"This call is {approval['status'].lower()} already: decided{by} at {approval['decided_at']:%Y-%m-%d %H:%M:%S} "
        "UTC.",
        field="approvalId",
        status=approval["status"],
        decidedBy=encode("usr", approval["decided_by_id"]) if approval["decided_by_id"] else None,
    )


async def _lock(work: Work, approval_id: UUID) -> ApprovalRow:
    row = await work.tx.fetchrow("SELECT * FROM approvals WHERE id = $1 FOR UPDATE", approval_id, row=ApprovalRow)
    assert row is not None
    return row
