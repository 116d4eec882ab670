"""Hooks that decide as a test says and remember what they saw."""

from __future__ import annotations

from collections.abc import Callable

from integrations.agents.base import Decision, ToolCall, ToolResult, Verdict


class RecordingHooks:
    """Allows everything, unless `policy` says otherwise for a call."""

    def __init__(self, policy: Callable[[ToolCall], Decision] | None = None) -> None:
        self._policy = policy
        self.before: list[ToolCall] = []
        self.after: list[tuple[ToolCall, ToolResult]] = []
        self.rejected: list[tuple[ToolCall, ToolResult]] = []

    async def before_tool(self, call: ToolCall) -> Decision:
        self.before.append(call)
        if self._policy is not None:
            return self._policy(call)
        if call.annotations.get("requiresApproval"):
            return Decision(Verdict.ASK, str(call.annotations["question"]))
        return Decision(Verdict.ALLOW)

    async def after_tool(self, call: ToolCall, result: ToolResult) -> ToolResult:
        self.after.append((call, result))
        return result

    async def rejected_tool(self, call: ToolCall, result: ToolResult) -> None:
        self.rejected.append((call, result))


def asking(*names: str) -> Callable[[ToolCall], Decision]:
    """A policy that asks for tools of these names and allows the others."""
    return lambda call: Decision(Verdict.ASK if call.name in names else Verdict.ALLOW, "please look")
