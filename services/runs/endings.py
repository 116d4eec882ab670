"""How runs end, other than by finishing: interrupted by somebody, or left by a worker that died."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from core import db
from core.errors import IllegalTransition, NotFound
from core.ids import encode
from core.permissions import Actor
from models.base import Query
from models.notifications import NotificationKind
from models.sessions import RunRow, RunStatus, in_visible_session
from services import audit
from services.identity.actors import system_actor
from services.parts import parts
from services.runs.queue import enqueue_next
from services.sessions.transitions import follow_runs
from services.work import Work, write

logger = logging.getLogger(__name__)

LONG_RUN = timedelta(seconds=30)
"""From the message to the end. People who waited longer for a run that went well are told of it."""

INTERRUPTS = "interrupts"
"""Bus channel: ids of runs that somebody wants to stop."""


async def interrupt_run(actor: Actor, run_id: UUID) -> RunRow:
    """Stop a run: at once where nothing executes it, else as soon as its worker hears of it (about a second)."""
    async with write(actor, "run.interrupt") as work:
        query = Query()
        found = await work.tx.fetchrow(
            f"SELECT runs.session_id FROM runs WHERE runs.id = {query.arg(run_id)} "
            f"AND {query.scope(in_visible_session('runs', actor), by_row=True)}",
            *query.args,
        )
        if found is None:
            raise NotFound("There is no such run, or you may not see it.", field="runId")
        await work.lock_session(found["session_id"])
        run = await _lock_run(work, run_id)
        work.target("Run", run_id, f"run {run['number']}")
        if run["status"] not in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING):
            raise IllegalTransition(
                f"This run has ended already: it is {run['status']}.", field="runId", status=run["status"]
            )
        work.changed(before={"status": run["status"]})
        await _interrupt(work, run, f"Interrupted by {actor.name or 'a user'}.")
        return await _lock_run(work, run_id)


async def interrupt_runs_of(actor: Actor, user_id: UUID) -> None:
    """Stop all that a user has started, each run in a write of its own; for an admin who takes their rights away.

    A run that cannot be stopped now is logged. Where it is queued or waits, it ends as soon as its turn comes.
    """
    # The last first, so that none of them begins as the one before it ends.
    for row in await db.fetch(
        "SELECT id FROM runs WHERE started_by_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING') "
        "ORDER BY session_id, number DESC",
        user_id,
    ):
        try:
            await interrupt_run(actor, row["id"])
        except IllegalTransition:
            continue
        except Exception:
            logger.exception("Run %s could not be interrupted.", encode("run", row["id"]))


async def interrupt_open_runs(work: Work, reason: str) -> None:
    """Stop all that is open in the held session."""
    assert work.session is not None
    for run in await work.tx.fetch(
        "SELECT * FROM runs WHERE session_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING') ORDER BY number FOR "
        "UPDATE",
        work.session["id"],
        row=RunRow,
    ):
        await _interrupt(work, run, reason)


async def lost_with_worker(run_id: UUID, session_id: UUID, executor: str) -> None:
    """End a run whose worker is gone. What it did is kept; nothing is done twice."""
    async with write(system_actor(await _organization_of(run_id)), None) as work:
        await work.hold_session(session_id)
        run = await _lock_run(work, run_id)
        if run["status"] != RunStatus.RUNNING or run["executor"] != executor:
            return
        await end_run(
            work,
            run,
            RunStatus.INTERRUPTED,
            error_code="WORKER_LOST",
            error_message="The worker that executed this run stopped unexpectedly. What it had done is kept; "
            "send the message again to go on.",
        )


async def end_run(
    work: Work,
    run: RunRow,
    status: RunStatus,
    *,
    error_code: str | None = None,
    error_message: str | None = None,
    usage: dict[str, Any] | None = None,
) -> None:
    """Set a run's last status, with everything that hangs on it: open tools and approvals, streaming messages, the
    session's status, the event, and the next run in line. `usage` is that of its last segment, for the event."""
    await work.tx.execute(
        "UPDATE runs SET status = $2, ended_at = $3, error_code = $4, error_message = $5 WHERE id = $1",
        run["id"],
        status.value,
        work.at,
        error_code,
        error_message,
    )
    await _close_tools(work, run, error_message or "The run ended before this call did.")
    await _close_approvals(work, run)
    await _close_messages(work, run)
    data: dict[str, Any] = {
        "threadId": encode("ses", run["session_id"]),
        "runId": encode("run", run["id"]),
        "usage": usage,
    }
    if status is RunStatus.FINISHED:
        work.emit("RUN_FINISHED", data | {"outcome": "success"}, run_id=run["id"])
    elif status is RunStatus.INTERRUPTED and error_code is None:
        work.emit("RUN_FINISHED", data | {"outcome": "cancelled", "reason": error_message}, run_id=run["id"])
    else:
        work.emit("RUN_ERROR", data | {"code": error_code, "message": error_message}, run_id=run["id"])
    await follow_runs(work, failed=status is RunStatus.FAILED)
    work.session_changed("UPDATED")
    _tell_starter(work, run, status, error_code, error_message)
    session_id = run["session_id"]
    work.after_commit(lambda: enqueue_next(session_id))


def _tell_starter(work: Work, run: RunRow, status: RunStatus, code: str | None, message: str | None) -> None:
    """Whoever sent the message is told of a run that broke, and of one that took so long that they look elsewhere.

    Whoever stops a run knows that it has ended, so nobody is told of that.
    """
    broke = code is not None or status is RunStatus.FAILED
    long = status is RunStatus.FINISHED and work.at - run["queued_at"] > LONG_RUN
    if work.session is None or not (broke or long):
        return
    work.notify(
        NotificationKind.RUN_FINISHED,
        [run["started_by_id"]],
        f"Run {run['number']} {'failed' if broke else 'is done'} in “{work.session['title']}”",
        body=(message or "") if broke else "",
        subject=("Run", run["id"]),
    )


async def _interrupt(work: Work, run: RunRow, reason: str) -> None:
    if run["status"] == RunStatus.RUNNING:
        await work.tx.execute(
            "UPDATE runs SET interrupt_requested_at = coalesce(interrupt_requested_at, $2) WHERE id = $1",
            run["id"],
            work.at,
        )
        run_id = str(run["id"])
        work.after_commit(lambda: parts().bus.publish(INTERRUPTS, {"run": run_id}))
    else:
        await end_run(work, run, RunStatus.INTERRUPTED, error_message=reason)


async def _close_tools(work: Work, run: RunRow, reason: str) -> None:
    for tool in await work.tx.fetch(
        "UPDATE tool_executions SET status = 'INTERRUPTED', ended_at = $2, error_kind = 'cancelled', error_message = "
        "$3 "
        "WHERE run_id = $1 AND status IN ('WAITING', 'RUNNING') RETURNING id, call_id, tool",
        run["id"],
        work.at,
        reason,
    ):
        work.emit(
            "TOOL_CALL_RESULT",
            {"toolCallId": tool["call_id"], "content": reason, "isError": True},
            run_id=run["id"],
            tool_execution_id=tool["id"],
        )
        entry = audit.Entry.of(work.actor, "tool.execute")
        entry.target_kind, entry.target_id, entry.target_name = "ToolExecution", tool["id"], tool["tool"]
        entry.session_id, entry.outcome, entry.error_message = run["session_id"], audit.AuditOutcome.FAILED, reason
        work.also(entry)


async def _close_approvals(work: Work, run: RunRow) -> None:
    for approval in await work.tx.fetch(
        "UPDATE approvals SET status = 'CANCELLED', decided_at = $2 WHERE run_id = $1 AND status = 'PENDING' RETURNING "
        "id",
        run["id"],
        work.at,
    ):
        work.emit(
            "CUSTOM",
            {"approvalId": encode("apr", approval["id"]), "status": "CANCELLED"},
            name="quarterdeck.approval.decided",
            run_id=run["id"],
            approval_id=approval["id"],
        )


async def _close_messages(work: Work, run: RunRow) -> None:
    """Messages that were being written keep the text that had come."""
    for message in await work.tx.fetch(
        "UPDATE messages SET status = 'INTERRUPTED', "
        "text = coalesce((SELECT text FROM message_progress WHERE message_id = messages.id), text) "
        "WHERE run_id = $1 AND status = 'STREAMING' RETURNING id, text",
        run["id"],
    ):
        work.emit(
            "TEXT_MESSAGE_END",
            {"messageId": encode("msg", message["id"]), "text": message["text"], "interrupted": True},
            run_id=run["id"],
            message_id=message["id"],
        )
        await work.tx.execute("DELETE FROM message_progress WHERE message_id = $1", message["id"])


async def _lock_run(work: Work, run_id: UUID) -> RunRow:
    row = await work.tx.fetchrow("SELECT * FROM runs WHERE id = $1 FOR UPDATE", run_id, row=RunRow)
    assert row is not None
    return row


async def _organization_of(run_id: UUID) -> UUID:
    return await db.fetchval("SELECT organization_id FROM runs WHERE id = $1", run_id)  # type: ignore[no-any-return]
