"""Writes down what a run does, while it does it: text, tool calls, approvals, the end.

Every write first makes sure that the run is still this worker's: a worker that was stopped and woken up
finds another executor in the row, and must not touch the run any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from core.ids import encode, new_id
from core.permissions import Actor
from integrations.agents.base import (
    Decision,
    Outcome,
    RunEnded,
    RuntimeState,
    StepStarted,
    TextDelta,
    TextEnded,
    TextStarted,
    ToolCall,
    ToolResult,
    Usage,
    Verdict,
)
from models.notifications import NotificationKind
from models.sessions import MessageStatus, PermissionMode, RunRow, RunStatus, SessionRow, ToolStatus
from services import audit
from services.costs.guard import watch
from services.costs.ledger import spend
from services.parts import parts
from services.policy import decide
from services.runs.endings import end_run
from services.runs.storable import MOST_LEVELS, storable
from services.runs.text import TextStream
from services.sessions.approvals import requeue
from services.sessions.options import SessionOptions
from services.sessions.transitions import follow_runs
from services.work import Work, write

_INEXACT = (
    "The arguments cannot be recorded exactly, so the call may not run: no NUL characters, no numbers over 64 bits, "
    f"and at most {MOST_LEVELS} levels."
)


class Fenced(Exception):
    """The run is another worker's now, or has ended: stop, and write nothing more."""


class Recorder:
    """One run's records. It is also the `Hooks` of the run's runtime."""

    def __init__(self, actor: Actor, session: SessionRow, run: RunRow, options: SessionOptions) -> None:
        self._actor, self._session, self._run, self._options = actor, session, run, options
        self._executor = parts().executor_id
        self._texts: dict[str, TextStream] = {}
        # Tools may run in parallel; their records are written one after the other.
        self._turn = asyncio.Lock()
        self._allowed: set[str] = set()
        """Ids of the calls that were let run in this segment."""

    # -- events of the runtime

    async def text_started(self, event: TextStarted) -> None:
        message_id = new_id()
        async with self._write() as work:
            seq = work.emit(
                "TEXT_MESSAGE_START",
                {"messageId": encode("msg", message_id), "role": "reasoning" if event.reasoning else "assistant"},
                run_id=self._run["id"],
                message_id=message_id,
            )
            await work.tx.execute(
                "INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, text, "
                "created_at) "
                "VALUES ($1, $2, $3, $4, $5, 'ASSISTANT', 'STREAMING', $6, '', $7)",
                message_id,
                self._run["organization_id"],
                self._run["session_id"],
                self._run["id"],
                seq,
                event.reasoning,
                work.at,
            )
            await work.tx.execute(
                "UPDATE sessions SET message_count = message_count + 1 WHERE id = $1", self._run["session_id"]
            )
        self._texts[event.message_id] = TextStream(self._run["session_id"], message_id, seq)

    async def text_delta(self, event: TextDelta) -> None:
        stream = self._texts.get(event.message_id)
        if stream is None:
            await self.text_started(TextStarted(event.message_id))
            stream = self._texts[event.message_id]
        await stream.add(event.text)

    async def text_ended(self, event: TextEnded, *, cut_off: bool = False) -> None:
        stream = self._texts.pop(event.message_id, None)
        if stream is None:
            return
        text = await stream.finish()
        async with self._write() as work:
            await work.tx.execute(
                "UPDATE messages SET status = $3, text = $2 WHERE id = $1",
                stream.message_id,
                text,
                MessageStatus.INTERRUPTED.value if cut_off else MessageStatus.COMPLETE.value,
            )
            await work.tx.execute("DELETE FROM message_progress WHERE message_id = $1", stream.message_id)
            work.emit(
                "TEXT_MESSAGE_END",
                {"messageId": encode("msg", stream.message_id), "text": text}
                | ({"interrupted": True} if cut_off else {}),
                run_id=self._run["id"],
                message_id=stream.message_id,
            )

    async def step_started(self, event: StepStarted) -> None:
        async with self._write() as work:
            work.emit("STEP_STARTED", {"stepName": event.name}, run_id=self._run["id"])

    async def ended(self, event: RunEnded) -> None:
        """The end of a segment. A run that waits for decisions that were made meanwhile goes on at once."""
        for stream in list(self._texts):
            await self.text_ended(TextEnded(stream), cut_off=event.outcome in (Outcome.INTERRUPTED, Outcome.FAILED))
        async with self._write() as work:
            await self._keep(work, event.state, event.usage)
            usage = _told(event.usage, self._session["model"])
            stop = await work.tx.fetchval("SELECT interrupt_requested_at FROM runs WHERE id = $1", self._run["id"])
            if event.outcome is Outcome.WAITING and stop is not None:
                # Somebody stopped it while it came to wait: nobody shall have to decide first.
                await end_run(work, self._run, RunStatus.INTERRUPTED, error_message="Interrupted.", usage=usage)
            elif event.outcome is Outcome.WAITING:
                await self._wait(work, usage)
            elif event.outcome is Outcome.FINISHED:
                await end_run(work, self._run, RunStatus.FINISHED, usage=usage)
            elif event.outcome is Outcome.INTERRUPTED:
                await end_run(
                    work,
                    self._run,
                    RunStatus.INTERRUPTED,
                    error_message=event.error_message or "Interrupted.",
                    usage=usage,
                )
            else:
                await end_run(
                    work,
                    self._run,
                    RunStatus.FAILED,
                    error_code=event.error_code or "RUNTIME_ERROR",
                    error_message=event.error_message or "The agent failed without saying why.",
                    usage=usage,
                )

    async def broke(self, status: RunStatus, code: str | None, message: str) -> None:
        """The end of a segment that the runtime did not end itself. No code where somebody stopped it."""
        for stream in list(self._texts):
            await self.text_ended(TextEnded(stream), cut_off=True)
        async with self._write() as work:
            await end_run(work, self._run, status, error_code=code, error_message=message)

    @property
    def run_id(self) -> UUID:
        """The run that is recorded."""
        return self._run["id"]  # type: ignore[no-any-return]

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Work]:
        """A write of the run's own; raises Fenced where the run is another worker's by now."""
        async with self._write() as work:
            yield work

    async def close(self) -> None:
        """Stop the streams' timers, whatever happened."""
        for stream in self._texts.values():
            await stream.stop()

    # -- hooks

    async def before_tool(self, call: ToolCall) -> Decision:
        exact = storable(call.arguments) == call.arguments
        call = _kept(call)
        async with self._write() as work:
            known = await work.tx.fetchrow(
                "SELECT tool_executions.status, tool_executions.tool, approvals.status AS decision, approvals.note, "
                "approvals.arguments FROM tool_executions "
                "LEFT JOIN approvals ON approvals.tool_execution_id = tool_executions.id "
                "WHERE tool_executions.run_id = $1 AND tool_executions.call_id = $2",
                self._run["id"],
                call.id,
            )
            if known is not None:
                if known["status"] == ToolStatus.WAITING:
                    return Decision(Verdict.ASK)
                if known["status"] == ToolStatus.DENIED:
                    return Decision(Verdict.DENY, known["note"])
                # A decision is for one call: a model that uses its id again gets nothing by it.
                if known["status"] != ToolStatus.RUNNING or known["tool"] != call.name or call.id in self._allowed:
                    return Decision(Verdict.DENY, "This call's id was used before in this run. Give each call its own.")
                self._allowed.add(call.id)
                return Decision(Verdict.ALLOW, arguments=known["arguments"])
            decision = self._decide(call) if exact else Decision(Verdict.DENY, _INEXACT)
            if decision.verdict is Verdict.ALLOW:
                self._allowed.add(call.id)
            tool_id = await self._insert_tool(work, call, decision)
            if decision.verdict is Verdict.ASK:
                await self._ask(work, call, tool_id, decision)
            elif decision.verdict is Verdict.DENY:
                self._refused(work, tool_id, call.id, call.name, decision.reason or "Denied.")
            return decision

    async def after_tool(self, call: ToolCall, result: ToolResult) -> ToolResult:
        call = _kept(call)
        result = replace(result, content=storable(result.content), structured=storable(result.structured))
        status = ToolStatus.FAILED if result.is_error else ToolStatus.SUCCEEDED
        if result.error_kind == "cancelled":
            status = ToolStatus.INTERRUPTED
        message = _text_of(result) if result.is_error else None
        async with self._write() as work:
            tool_id = await work.tx.fetchval(
                "UPDATE tool_executions SET status = $3, result = $4, structured_result = $5, truncated = $6, "
                "error_kind = $7, "
                "error_message = $8, ended_at = $9, duration_ms = $10 WHERE run_id = $1 AND call_id = $2 AND status = "
                "'RUNNING' "
                "RETURNING id",
                self._run["id"],
                call.id,
                status.value,
                result.content,
                result.structured,
                result.truncated,
                (result.error_kind or "tool") if result.is_error else None,
                message and message[:4000],
                work.at,
                result.duration_ms,
            )
            if tool_id is None:
                return result
            work.emit(
                "TOOL_CALL_RESULT",
                {
                    "toolCallId": call.id,
                    "content": _text_of(result)[:4000],
                    "isError": result.is_error,
                    "durationMs": result.duration_ms,
                },
                run_id=self._run["id"],
                tool_execution_id=tool_id,
            )
            entry = self._entry(tool_id, call.name)
            entry.details = {"arguments": dict(call.arguments), "durationMs": result.duration_ms}
            if result.is_error:
                entry.outcome, entry.error_message = audit.AuditOutcome.FAILED, message and message[:500]
            work.also(entry)
        return result

    async def rejected_tool(self, call: ToolCall, result: ToolResult) -> None:
        call = _kept(call)
        message = storable(_text_of(result))
        async with self._write() as work:
            known = await work.tx.fetchval(
                "SELECT 1 FROM tool_executions WHERE run_id = $1 AND call_id = $2", self._run["id"], call.id
            )
            if known:
                return
            tool_id = await self._insert_tool(work, call, Decision(Verdict.DENY, message))
            await work.tx.execute(
                "UPDATE tool_executions SET status = 'FAILED', error_kind = $2, error_message = $3 WHERE id = $1",
                tool_id,
                result.error_kind or "tool",
                message[:4000],
            )
            record_refusal(work, self._run, tool_id, call.id, call.name, message[:4000])

    # -- details

    def _decide(self, call: ToolCall) -> Decision:
        if len(orjson.dumps(call.arguments)) > parts().settings.max_arguments_bytes:
            return Decision(Verdict.DENY, f"The arguments are over {parts().settings.max_arguments_bytes} bytes.")
        return decide(
            PermissionMode(self._session["permission_mode"]),
            self._options.allowed_tools,
            self._options.disallowed_tools,
            self._options.approval_rules,
            call.name,
            call.annotations,
        )

    async def _insert_tool(self, work: Work, call: ToolCall, decision: Decision) -> UUID:
        tool_id = new_id()
        run_id = self._run["id"]
        status = {Verdict.ALLOW: ToolStatus.RUNNING, Verdict.ASK: ToolStatus.WAITING, Verdict.DENY: ToolStatus.DENIED}[
            decision.verdict
        ]
        seq = work.emit(
            "TOOL_CALL_START",
            {"toolCallId": call.id, "toolCallName": call.name},
            run_id=run_id,
            tool_execution_id=tool_id,
        )
        work.emit(
            "TOOL_CALL_ARGS",
            {"toolCallId": call.id, "delta": orjson.dumps(call.arguments).decode()[:16_000]},
            run_id=run_id,
            tool_execution_id=tool_id,
        )
        work.emit("TOOL_CALL_END", {"toolCallId": call.id}, run_id=run_id, tool_execution_id=tool_id)
        await work.tx.execute(
            "INSERT INTO tool_executions (id, organization_id, session_id, run_id, seq, call_id, parent_call_id, tool, "
            "arguments, "
            "status, truncated, error_message, created_at, started_at, ended_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, false, $11, $12, $13, $14)",
            tool_id,
            self._run["organization_id"],
            self._run["session_id"],
            run_id,
            seq,
            call.id,
            call.parent_id,
            call.name,
            call.arguments,
            status.value,
            decision.reason if status is ToolStatus.DENIED else None,
            work.at,
            work.at if status is ToolStatus.RUNNING else None,
            work.at if status is ToolStatus.DENIED else None,
        )
        await work.tx.execute(
            "UPDATE sessions SET tool_execution_count = tool_execution_count + 1 WHERE id = $1", self._run["session_id"]
        )
        return tool_id

    async def _ask(self, work: Work, call: ToolCall, tool_id: UUID, decision: Decision) -> None:
        approval_id = new_id()
        expires_at = work.at + timedelta(hours=parts().settings.approval_hours)
        seq = work.emit(
            "CUSTOM",
            {
                "approvalId": encode("apr", approval_id),
                "toolCallId": call.id,
                "tool": call.name,
                "reason": decision.reason,
                "expiresAt": expires_at.isoformat(),
            },
            name="quarterdeck.approval.requested",
            run_id=self._run["id"],
            tool_execution_id=tool_id,
            approval_id=approval_id,
        )
        await work.tx.execute(
            "INSERT INTO approvals (id, organization_id, session_id, run_id, tool_execution_id, seq, status, reason, "
            "created_at, expires_at, assigned_to_id) "
            "VALUES ($1, $2, $3, $4, $5, $6, 'PENDING', $7, $8, $9, $10)",
            approval_id,
            self._run["organization_id"],
            self._run["session_id"],
            self._run["id"],
            tool_id,
            seq,
            decision.reason,
            work.at,
            expires_at,
            _held(work)["owner_id"],
        )

    def _refused(self, work: Work, tool_id: UUID, call_id: str, tool: str, reason: str) -> None:
        record_refusal(work, self._run, tool_id, call_id, tool, reason)

    async def _wait(self, work: Work, usage: dict[str, Any] | None) -> None:
        run_id, session_id = self._run["id"], self._run["session_id"]
        pending = await work.tx.fetch(
            "SELECT approvals.id, approvals.assigned_to_id, tool_executions.tool FROM approvals "
            "JOIN tool_executions ON tool_executions.id = approvals.tool_execution_id "
            "WHERE approvals.run_id = $1 AND approvals.status = 'PENDING' ORDER BY approvals.seq",
            run_id,
        )
        await work.tx.execute("UPDATE runs SET status = 'WAITING', executor = NULL WHERE id = $1", run_id)
        work.emit(
            "RUN_FINISHED",
            {
                "threadId": encode("ses", session_id),
                "runId": encode("run", run_id),
                "outcome": "interrupt",
                "interrupts": [{"id": encode("apr", row["id"]), "reason": "tool_approval"} for row in pending],
                "usage": usage,
            },
            run_id=run_id,
        )
        if not pending:
            run = await work.tx.fetchrow("SELECT * FROM runs WHERE id = $1", run_id, row=RunRow)
            assert run is not None
            await requeue(work, run)
        else:
            await follow_runs(work)
            self._ask_people(work, pending)
        work.session_changed("UPDATED")

    def _ask_people(self, work: Work, pending: Sequence[Any]) -> None:
        """Tell those who are to decide, and whoever waits for the answer."""
        deciders = [row["assigned_to_id"] for row in pending if row["assigned_to_id"] is not None]
        tools = ", ".join(dict.fromkeys(row["tool"] for row in pending))
        work.notify(
            NotificationKind.APPROVAL_WANTED,
            [*deciders, self._run["started_by_id"]],
            f"A decision is wanted on {tools} in “{_held(work)['title']}”",
            subject=("Approval", pending[0]["id"]),
        )

    async def _keep(self, work: Work, state: RuntimeState | None, usage: Usage) -> None:
        if state is not None:
            await work.tx.execute(
                "INSERT INTO runtime_states (session_id, runtime, version, payload, run_id, updated_at) VALUES ($1, "
                "$2, $3, $4, $5, $6) "
                "ON CONFLICT (session_id) DO UPDATE SET runtime = $2, version = $3, payload = $4, run_id = $5, "
                "updated_at = $6",
                self._run["session_id"],
                state.runtime,
                state.version,
                state.payload,
                self._run["id"],
                work.at,
            )
        for table, id_ in (("runs", self._run["id"]), ("sessions", self._run["session_id"])):
            await work.tx.execute(
                _ADD_USAGE.format(table=table),
                id_,
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_tokens,
                usage.cache_write_tokens,
                usage.requests,
                usage.cost_usd,
                usage.cost_source,
            )
        template_id = await spend(work, self._session, self._run, usage)
        if template_id is not None:
            organization_id, user_id = self._run["organization_id"], self._run["started_by_id"]
            work.after_commit(lambda: watch(organization_id, [user_id], template_id))

    def _entry(self, tool_id: UUID, tool: str) -> audit.Entry:
        entry = audit.Entry.of(self._actor, "tool.execute")
        entry.target_kind, entry.target_id, entry.target_name = "ToolExecution", tool_id, tool
        entry.session_id = self._run["session_id"]
        return entry

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[Work]:
        async with self._turn, write(self._actor, None) as work:
            await work.hold_session(self._run["session_id"])
            run = await work.tx.fetchrow("SELECT status, executor FROM runs WHERE id = $1 FOR UPDATE", self._run["id"])
            if run is None or run["status"] != RunStatus.RUNNING or run["executor"] != self._executor:
                raise Fenced
            yield work


_ADD_USAGE = """
UPDATE {table} SET
    input_tokens = CASE WHEN $2::bigint IS NULL THEN input_tokens ELSE coalesce(input_tokens, 0) + $2 END,
    output_tokens = CASE WHEN $3::bigint IS NULL THEN output_tokens ELSE coalesce(output_tokens, 0) + $3 END,
    cache_read_tokens =
        CASE WHEN $4::bigint IS NULL THEN cache_read_tokens ELSE coalesce(cache_read_tokens, 0) + $4 END,
    cache_write_tokens =
        CASE WHEN $5::bigint IS NULL THEN cache_write_tokens ELSE coalesce(cache_write_tokens, 0) + $5 END,
    request_count = request_count + $6,
    cost_usd = CASE WHEN $7::numeric IS NULL THEN cost_usd ELSE coalesce(cost_usd, 0) + $7 END,
    cost_source = coalesce($8, cost_source)
WHERE id = $1
"""


def record_refusal(work: Work, run: RunRow, tool_id: UUID, call_id: str, tool: str, reason: str) -> None:
    """The events and the audit record of a tool call that may not run."""
    work.emit(
        "TOOL_CALL_RESULT",
        {"toolCallId": call_id, "content": reason, "isError": True},
        run_id=run["id"],
        tool_execution_id=tool_id,
    )
    entry = audit.Entry.of(work.actor, "tool.execute")
    entry.target_kind, entry.target_id, entry.target_name = "ToolExecution", tool_id, tool
    entry.session_id, entry.outcome, entry.error_message = run["session_id"], audit.AuditOutcome.REFUSED, reason
    work.also(entry)


def _told(usage: Usage, model: str | None) -> dict[str, Any] | None:
    """What a segment used, as its last event says it; None where it used nothing."""
    if usage == Usage():
        return None
    return {
        "model": model,
        "requests": usage.requests,
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": usage.cache_write_tokens,
        "costUsd": None if usage.cost_usd is None else format(usage.cost_usd, "f"),
        "costSource": usage.cost_source,
    }


def _held(work: Work) -> SessionRow:
    assert work.session is not None
    return work.session


def _kept(call: ToolCall) -> ToolCall:
    """The call as it can be stored."""
    return replace(
        call,
        id=storable(call.id)[:200],
        name=storable(call.name)[:200],
        arguments=storable(call.arguments),
        parent_id=None if call.parent_id is None else storable(call.parent_id)[:200],
        annotations=storable(call.annotations),
    )


def _text_of(result: ToolResult) -> str:
    return "\n".join(str(block["text"]) for block in result.content if block.get("type") == "text")
