"""Every tool call of Claude Code, put before the service's hooks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from claude_agent_sdk import PermissionResultAllow, PermissionResultDeny, ToolPermissionContext

from integrations.agents.base import Decision, Hooks, ToolCall, Verdict
from integrations.agents.claude_tools import BridgedTools, to_result
from integrations.mcp.results import failure

_ANOTHER_WAITS = "Another call of this turn waits for a human's decision. Make this call again after it."


class Gate:
    """The hooks and the permission callback of one segment. `decisions` answer calls that waited in an earlier one."""

    def __init__(self, hooks: Hooks, bridged: BridgedTools, decisions: Mapping[str, Decision], max_bytes: int) -> None:
        self._hooks = hooks
        self._bridged = bridged
        self._decisions = decisions
        self._max_bytes = max_bytes
        self._turn = asyncio.Lock()
        self._running: dict[str, tuple[ToolCall, float]] = {}
        self._waiting: str | None = None

    async def before(self, given: Mapping[str, Any], tool_use_id: str | None, context: Any) -> dict[str, Any]:
        """PreToolUse."""
        call = self._call(given["tool_name"], given["tool_input"], given["tool_use_id"], given.get("agent_id"))
        async with self._turn:
            if self._waiting is not None:
                await self._hooks.rejected_tool(call, failure("tool", _ANOTHER_WAITS))
                return _answer("deny", _ANOTHER_WAITS)
            decision = self._decisions.get(call.id) or await self._hooks.before_tool(call)
            match decision.verdict:
                case Verdict.ASK:
                    self._waiting = call.id
                    return _answer("defer", decision.reason)
                case Verdict.DENY:
                    return _answer("deny", f"Denied: {decision.reason or 'no reason was given'}")
        return _answer("allow", decision.reason, self._start(call, decision))

    async def permit(
        self, name: str, arguments: dict[str, Any], context: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        """What Claude Code asks about on its own: a call that waited for a decision, or what no rule of its allows."""
        call_id = context.tool_use_id or ""
        if call_id in self._running:
            return PermissionResultAllow()
        decision = self._decisions.get(call_id)
        if decision is None:
            return PermissionResultDeny(message="This call needs a human's decision, which cannot be waited for here.")
        if decision.verdict is not Verdict.ALLOW:
            return PermissionResultDeny(message=f"Denied: {decision.reason or 'no reason was given'}")
        call = self._call(name, arguments, call_id, context.agent_id)
        return PermissionResultAllow(updated_input=self._start(call, decision) or arguments)

    async def after(self, given: Mapping[str, Any], tool_use_id: str | None, context: Any) -> dict[str, Any]:
        """PostToolUse and PostToolUseFailure."""
        call, started = self._running.pop(given["tool_use_id"], (None, 0.0))
        if call is None:
            return {}
        failed = given["hook_event_name"] == "PostToolUseFailure"
        took = given.get("duration_ms")
        result = to_result(
            given["error"] if failed else given["tool_response"],
            is_error=failed,
            duration_ms=round(took if took is not None else (time.perf_counter() - started) * 1000),
            max_bytes=self._max_bytes,
        )
        changed = await self._hooks.after_tool(call, result)
        if changed is result or failed or not given["tool_name"].startswith("mcp__"):
            return {}
        output = [dict(block) for block in changed.content]
        return {"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": output}}

    async def abandon(self) -> None:
        """Tell the hooks of calls that were cut off."""
        running, self._running = self._running, {}
        for call, _ in running.values():
            await self._hooks.after_tool(call, failure("cancelled", "Cancelled before it was done."))

    def _start(self, call: ToolCall, decision: Decision) -> dict[str, Any] | None:
        """Note that a call runs; the arguments it runs with where a human changed them."""
        arguments = None if decision.arguments is None else dict(decision.arguments)
        self._running[call.id] = (call, time.perf_counter())
        return arguments

    def _call(self, name: str, arguments: Mapping[str, Any], call_id: str, agent_id: str | None) -> ToolCall:
        annotations = self._bridged.annotations(name)
        return ToolCall(call_id, self._bridged.name(name), dict(arguments), agent_id, annotations)


def _answer(decision: str, reason: str | None, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    output: dict[str, Any] = {"hookEventName": "PreToolUse", "permissionDecision": decision}
    if reason:
        output["permissionDecisionReason"] = reason
    if arguments is not None:
        output["updatedInput"] = dict(arguments)
    return {"hookSpecificOutput": output}
