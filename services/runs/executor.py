"""What a worker does with a queued job: claim the run, drive the runtime, record the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from uuid import UUID

from core import db
from core.bus import BusMessage
from core.errors import Forbidden, QuarterdeckError, new_error_id
from core.ids import encode
from core.permissions import Actor, ActorKind, Permission, Role, permissions_of
from integrations.agents.base import (
    Decision,
    RunEnded,
    RuntimeEvent,
    RuntimeSession,
    RuntimeState,
    StepStarted,
    TextDelta,
    TextEnded,
    TextStarted,
    UserInput,
    Verdict,
)
from integrations.durable.base import Job
from models.sessions import RunRow, RunStatus, SessionRow, SessionStatus
from services.costs.guard import BUDGET_EXCEEDED, refused_by
from services.handoffs import expire_handoffs
from services.identity.actors import system_actor
from services.parts import parts
from services.runs.configuration import runtime_config
from services.runs.endings import INTERRUPTS, end_run, lost_with_worker
from services.runs.queue import job_of
from services.runs.recorder import Fenced, Recorder, record_refusal
from services.sessions.approvals import expire_approvals
from services.sessions.options import load_options
from services.sharing.grants import expire_grants
from services.templates.seeding import fetch_seed
from services.work import Work, write

logger = logging.getLogger(__name__)

# How soon a run stops, or a lost notice is made good, when the bus is down.
POLL_SECONDS = 1.0
SWEEP_SECONDS = 5.0
INTERRUPT_SECONDS = 5.0


class RunExecutor:
    """Executes runs in this process. `execute` is the handler of the durable queue."""

    def __init__(self, sweep: Callable[[Sequence[Job]], Awaitable[int]]) -> None:
        self._sweep_queue = sweep
        self._active: dict[UUID, RuntimeSession] = {}
        self._claimed: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Listen for interrupts, and look now and then for what notices missed."""
        self._tasks = [asyncio.create_task(self._hear_interrupts()), asyncio.create_task(self._sweep())]

    async def stop(self) -> None:
        """Stop listening. Runs under way are the queue's to drain."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    async def execute(self, job: Job) -> None:
        """Execute one segment of a run; does nothing where it is not this job's turn."""
        if job.key in self._claimed:
            return
        self._claimed.add(job.key)
        try:
            if claimed := await _claim(job):
                await self._execute(*claimed)
        finally:
            self._claimed.discard(job.key)

    async def _execute(self, run: RunRow, session: SessionRow, agent: Actor) -> None:
        recorder = Recorder(agent, session, run, load_options(session["options"]))
        try:
            await self._drive(run, session, recorder)
        except Fenced:
            logger.warning("Run %s is another worker's now; this one lets go of it.", encode("run", run["id"]))
        except asyncio.CancelledError:
            with suppress(Fenced):
                await asyncio.shield(
                    recorder.broke(
                        RunStatus.INTERRUPTED,
                        "WORKER_STOPPED",
                        "The worker was stopped while this run was under way. Send the message again to go on.",
                    )
                )
            raise
        except QuarterdeckError as error:
            with suppress(Fenced):
                await recorder.broke(RunStatus.FAILED, error.code.value, error.message)
        except Exception:
            error_id = new_error_id()
            logger.exception("Run %s failed (errorId %s).", encode("run", run["id"]), error_id)
            with suppress(Fenced):
                await recorder.broke(
                    RunStatus.FAILED,
                    "RUNTIME_ERROR",
                    f"The agent failed unexpectedly. The log has the reason under {error_id}.",
                )
        finally:
            self._active.pop(run["id"], None)
            await recorder.close()

    async def _drive(self, run: RunRow, session: SessionRow, recorder: Recorder) -> None:
        if not await _seeded(run, session, recorder):
            return
        config = await runtime_config(session)
        runtime = parts().runtimes[session["runtime"]]
        live = await runtime.start(config, recorder, await _state(session))
        self._active[run["id"]] = live
        try:
            if await _interrupts_wanted([run["id"]]):
                await recorder.broke(RunStatus.INTERRUPTED, None, "Interrupted before it began.")
                return
            async with aclosing(await _segment(live, run)) as events:  # type: ignore[type-var]
                async for event in events:
                    await _record(recorder, event)
                    if isinstance(event, RunEnded):
                        return
            await recorder.broke(RunStatus.FAILED, "RUNTIME_ERROR", "The agent stopped without an end of its run.")
        finally:
            await live.close()

    async def _hear_interrupts(self) -> None:
        """Notices make it quick. Looking every second makes it certain: whatever a notice missed stands in the row."""
        while True:
            try:
                async with parts().bus.subscribe(INTERRUPTS) as notices:
                    looked_at = time.monotonic()
                    while True:
                        notice = await notices.next(POLL_SECONDS)
                        if isinstance(notice, BusMessage):
                            await self._interrupt(UUID(str(notice.data["run"])))
                        if self._active and time.monotonic() - looked_at >= POLL_SECONDS:
                            looked_at = time.monotonic()
                            for run_id in await _interrupts_wanted(list(self._active)):
                                await self._interrupt(run_id)
            except Exception:
                logger.exception("Interrupts were not heard for a moment.")
                await asyncio.sleep(POLL_SECONDS)

    async def _interrupt(self, run_id: UUID) -> None:
        if live := self._active.get(run_id):
            try:
                async with asyncio.timeout(INTERRUPT_SECONDS):
                    await live.interrupt()
            except Exception:
                logger.exception("Run %s could not be interrupted; it is tried again.", encode("run", run_id))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._sweep_queue(await unfinished_jobs())
                await expire_approvals()
                await expire_grants()
                await expire_handoffs()
            except Exception:
                logger.exception("The sweep failed; the next one comes in %s seconds.", SWEEP_SECONDS)


async def _seeded(run: RunRow, session: SessionRow, recorder: Recorder) -> bool:
    """Fill the session's directory, where that is still to be done; whether the run can go on."""
    seeding = asyncio.create_task(fetch_seed(session, recorder))
    try:
        while not seeding.done():
            await asyncio.wait([seeding], timeout=POLL_SECONDS)
            if not seeding.done() and await _interrupts_wanted([run["id"]]):
                await recorder.broke(RunStatus.INTERRUPTED, None, "Interrupted before it began.")
                return False
        await seeding
    except QuarterdeckError as error:
        await recorder.broke(
            RunStatus.FAILED,
            "SEED_FAILED",
            f"The session's directory could not be filled as its template says. {error.message} "
            "Send the message again to try once more.",
        )
        return False
    finally:
        seeding.cancel()
        await asyncio.gather(seeding, return_exceptions=True)
    return True


async def unfinished_jobs() -> list[Job]:
    """What should be waiting or executing by our own tables: of each session the first run that has not ended."""
    rows = await db.fetch(
        "SELECT DISTINCT ON (runs.session_id) runs.id, runs.organization_id, runs.segment, runs.status "
        "FROM runs JOIN sessions ON sessions.id = runs.session_id "
        "WHERE runs.status IN ('QUEUED', 'RUNNING', 'WAITING') "
        # A pause, or an end, starts nothing; what is under way may be lost with its worker all the same.
        "AND (runs.status = 'RUNNING' OR sessions.status NOT IN ('PAUSED', 'TERMINATED', 'ARCHIVED')) "
        "ORDER BY runs.session_id, runs.number"
    )
    return [job_of(row["id"], row["organization_id"], row["segment"]) for row in rows if row["status"] != "WAITING"]


async def _claim(job: Job) -> tuple[RunRow, SessionRow, Actor] | None:
    found = await db.fetchrow(
        "SELECT session_id, organization_id, status, executor, segment FROM runs WHERE id = $1", job.run_id
    )
    if found is None or found["segment"] != job.segment:
        # A pause, or a decision, made it another job's. Nor does this one know how that one fares.
        return None
    executor = parts().executor_id
    if found["status"] == RunStatus.RUNNING:
        # The queue hands over what a dead worker left, or what this one could not bring to an end.
        await lost_with_worker(job.run_id, found["session_id"], found["executor"])
        return None
    async with write(system_actor(found["organization_id"]), None) as work:
        session = await work.hold_session(found["session_id"])
        run = await work.tx.fetchrow("SELECT * FROM runs WHERE id = $1 FOR UPDATE", job.run_id, row=RunRow)
        if run is None or run["status"] != RunStatus.QUEUED or run["segment"] != job.segment:
            return None
        if session["status"] in (SessionStatus.PAUSED, SessionStatus.TERMINATED, SessionStatus.ARCHIVED):
            return None
        earlier = await work.tx.fetchval(
            "SELECT 1 FROM runs WHERE session_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING') AND number < $2 "
            "LIMIT 1",
            session["id"],
            run["number"],
        )
        if earlier:
            return None
        try:
            agent = await _agent(work, run)
        except Forbidden as error:
            await end_run(work, run, RunStatus.FAILED, error_code=error.code.value, error_message=error.message)
            return None
        if refusal := await refused_by(work, agent, run, session):
            await end_run(work, run, RunStatus.FAILED, error_code=BUDGET_EXCEEDED, error_message=refusal)
            return None
        await work.tx.execute(
            "UPDATE runs SET status = 'RUNNING', executor = $2, started_at = coalesce(started_at, $3), model = $4 "
            "WHERE id = $1",
            run["id"],
            executor,
            work.at,
            session["model"],
        )
        work.emit(
            "RUN_STARTED",
            {"threadId": encode("ses", session["id"]), "runId": encode("run", run["id"]), "segment": run["segment"]},
            run_id=run["id"],
        )
        for tool in await work.tx.fetch(_DECIDED, run["id"]):
            if tool["decision"] == "APPROVED":
                await work.tx.execute(
                    "UPDATE tool_executions SET status = 'RUNNING', started_at = $2, arguments = coalesce($3, "
                    "arguments) WHERE id = $1",
                    tool["id"],
                    work.at,
                    tool["edited"],
                )
            else:
                reason = _denial(tool["decision"], tool["note"])
                await work.tx.execute(
                    "UPDATE tool_executions SET status = 'DENIED', ended_at = $2, error_message = $3 WHERE id = $1",
                    tool["id"],
                    work.at,
                    reason,
                )
                record_refusal(work, run, tool["id"], tool["call_id"], tool["tool"], reason)
        work.session_changed("UPDATED")
        return run, session, agent


_DECIDED = """
SELECT tool_executions.id, tool_executions.call_id, tool_executions.tool, approvals.status AS decision, approvals.note,
       approvals.arguments AS edited
FROM tool_executions JOIN approvals ON approvals.tool_execution_id = tool_executions.id
WHERE tool_executions.run_id = $1 AND tool_executions.status = 'WAITING' AND approvals.status <> 'PENDING'
"""


async def _segment(live: RuntimeSession, run: RunRow) -> AsyncIterator[RuntimeEvent]:
    """The first segment answers the message; later ones go on with the decisions that were made."""
    if run["started_at"] is None:
        text = await db.fetchval("SELECT text FROM messages WHERE run_id = $1 AND role = 'USER'", run["id"])
        return live.send(UserInput(text))
    decisions = {}
    for row in await db.fetch(
        "SELECT tool_executions.call_id, approvals.status, approvals.note, approvals.arguments FROM approvals "
        "JOIN tool_executions ON tool_executions.id = approvals.tool_execution_id WHERE approvals.run_id = $1",
        run["id"],
    ):
        if row["status"] == "APPROVED":
            decisions[row["call_id"]] = Decision(Verdict.ALLOW, row["note"], row["arguments"])
        else:
            decisions[row["call_id"]] = Decision(Verdict.DENY, _denial(row["status"], row["note"]))
    return live.resume(decisions)


async def _record(recorder: Recorder, event: RuntimeEvent) -> None:
    match event:
        case TextDelta():
            await recorder.text_delta(event)
        case TextStarted():
            await recorder.text_started(event)
        case TextEnded():
            await recorder.text_ended(event)
        case StepStarted():
            await recorder.step_started(event)
        case RunEnded():
            await recorder.ended(event)


def _denial(status: str, note: str | None) -> str:
    if status == "EXPIRED":
        return "Nobody allowed this call in time."
    return f"A human refused this call: {note}" if note else "A human refused this call."


async def _agent(work: Work, run: RunRow) -> Actor:
    """The agent acts with the rights of whoever started the run, and in their name.

    Raises Forbidden where these have been taken away since the run was queued, or came to wait.
    """
    starter = await work.tx.fetchrow("SELECT name, role, deactivated_at FROM users WHERE id = $1", run["started_by_id"])
    role = Role(starter["role"])
    permissions = permissions_of(role)
    if starter["deactivated_at"] is not None or Permission.SESSIONS_WRITE not in permissions:
        why = (
            "has been deactivated"
            if starter["deactivated_at"] is not None
            else f"is {role.value} now, which may run nothing"
        )
        raise Forbidden(
            f"{starter['name']}, who started this run, {why}. Somebody who may write can send the message again."
        )
    return Actor(
        ActorKind.AGENT,
        run["organization_id"],
        role,
        run["started_by_id"],
        permissions,
        "Agent",
        on_behalf_of=run["started_by_id"],
    )


async def _state(session: SessionRow) -> RuntimeState | None:
    row = await db.fetchrow("SELECT runtime, version, payload FROM runtime_states WHERE session_id = $1", session["id"])
    return None if row is None else RuntimeState(row["runtime"], row["version"], row["payload"])


async def _interrupts_wanted(run_ids: list[UUID]) -> list[UUID]:
    rows = await db.fetch("SELECT id FROM runs WHERE id = ANY($1) AND interrupt_requested_at IS NOT NULL", run_ids)
    return [row["id"] for row in rows]
