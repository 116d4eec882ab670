"""The runtime without a model: runs the tool call or the playbook that a message spells out.

It is honest about what it is: it invents no answers, no tokens and no costs. Any other message gets
an explanation of what can be sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from core.errors import BadInput
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    Hooks,
    ModelCheck,
    Outcome,
    RunEnded,
    RuntimeConfig,
    RuntimeEvent,
    RuntimeSession,
    RuntimeState,
    StepStarted,
    TextDelta,
    TextEnded,
    TextStarted,
    ToolCall,
    ToolResult,
    Usage,
    UserInput,
)
from integrations.agents.interruption import Interruption, StopRequestedError
from integrations.agents.options import ExtraOptions
from integrations.agents.playbook import Script, Step, parse, saved, substitute, unmet, with_values
from integrations.agents.tools.toolbox import Granted, Refused, Toolbox, Undecided, built_in_names, result_text
from integrations.mcp.base import McpServers
from integrations.sandbox.base import Sandbox

_VERSION = 1
_APPROVE = "approve"
_SHOWN_CHARACTERS = 16 * 1024
_SHOWN_IN_PLAYBOOK = 2000


class ScriptRuntime:
    """Runtime `script`."""

    name = "script"

    def __init__(self, settings: Settings, servers: McpServers, sandbox: Sandbox) -> None:
        self._settings = settings
        self._servers = servers
        self._sandbox = sandbox

    def available(self) -> tuple[bool, str]:
        return True, "Runs tool calls and playbooks without a model."

    def validate(self, text: str) -> None:
        parse(text)

    def validate_options(self, extra: Mapping[str, Any]) -> None:
        ExtraOptions.read(extra)

    def built_in_tools(self) -> frozenset[str] | None:
        return built_in_names(self._settings, self._sandbox)

    async def check_model(self, name: str | None) -> ModelCheck | None:
        return None

    def with_values(self, text: str, values: Mapping[str, Any]) -> str | None:
        return with_values(text, values)

    async def start(self, config: RuntimeConfig, hooks: Hooks, state: RuntimeState | None) -> RuntimeSession:
        toolbox = Toolbox(config, hooks, servers=self._servers, sandbox=self._sandbox, settings=self._settings)
        return ScriptSession(toolbox, hooks, state)

    async def fork(self, state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
        # A script remembers nothing from one message to the next.
        return None


@dataclass(slots=True)
class _Progress:
    """Where a script stands: what has to survive while a human decides. JSON-safe."""

    text: str
    step: int = 0
    variables: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] | None = None
    """The call that waits for a decision."""

    def state(self) -> RuntimeState:
        payload = {"text": self.text, "step": self.step, "variables": self.variables, "call": self.call}
        return RuntimeState("script", _VERSION, json.dumps(payload).encode())

    @classmethod
    def load(cls, state: RuntimeState | None) -> _Progress | None:
        if state is None:
            return None
        if state.version != _VERSION:
            raise BadInput(f"The session's state has version {state.version}; this program reads {_VERSION}.")
        found = json.loads(state.payload)
        return cls(**found) if found else None


_NOTHING = RuntimeState("script", _VERSION, b"null")


class _ScriptError(Exception):
    """The script stops here."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScriptSession:
    """A started script runtime."""

    def __init__(self, toolbox: Toolbox, hooks: Hooks, state: RuntimeState | None) -> None:
        self._toolbox = toolbox
        self._hooks = hooks
        self._state = state
        self._interruption = Interruption()

    async def send(self, content: UserInput) -> AsyncIterator[RuntimeEvent]:
        self._interruption = Interruption()
        try:
            script = parse(content.text)
        except BadInput as error:
            async for event in _speak(error.message):
                yield event
            yield _ended(Outcome.FAILED, code="BAD_SCRIPT", message=error.message)
            return
        if script is None:
            try:
                explanation = await self._interruption.watch(self._explain())
            except StopRequestedError:
                yield _ended(Outcome.INTERRUPTED)
                return
            async for event in _speak(explanation):
                yield event
            yield _ended(Outcome.FINISHED)
            return
        async for event in self._go(script, _Progress(content.text, variables=dict(script.variables))):
            yield event

    async def resume(self, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        self._interruption = Interruption()
        progress = _Progress.load(self._state)
        if progress is None or progress.call is None or progress.call["id"] not in decisions:
            yield _ended(
                Outcome.FAILED, code="RUNTIME_ERROR", message="There is no decision for what the script waits for."
            )
            return
        script = parse(progress.text)
        assert script is not None
        async for event in self._go(script, progress, decisions[progress.call["id"]]):
            yield event

    async def interrupt(self) -> None:
        self._interruption.request()

    async def close(self) -> None:
        self._interruption.request()
        await self._toolbox.close()

    async def _go(
        self, script: Script, progress: _Progress, decision: Decision | None = None
    ) -> AsyncIterator[RuntimeEvent]:
        """Run the steps from where `progress` stands; `decision` answers the call that it waits for."""
        try:
            while progress.step < len(script.steps):
                step = script.steps[progress.step]
                if script.title is not None and decision is None:
                    yield StepStarted(_name(progress.step, step))
                if step.say is not None:
                    async for event in _speak(_text(substitute(step.say, progress.variables))):
                        yield event
                else:
                    result = await self._call(step, progress, decision)
                    decision = None
                    if result is None:
                        yield RunEnded(Outcome.WAITING, progress.state(), Usage())
                        return
                    async for event in _speak(_report(script, step, result)):
                        yield event
                    _judge(script, step, result, progress)
                if self._interruption.requested:
                    raise StopRequestedError
                progress.step += 1
        except StopRequestedError:
            yield _ended(Outcome.INTERRUPTED)
        except BadInput as error:
            message = f"Step {progress.step + 1}: {error.message}"
            yield _ended(Outcome.FAILED, code="BAD_SCRIPT", message=message)
        except _ScriptError as failed:
            message = f"Step {progress.step + 1} of {len(script.steps)}: {failed}"
            yield _ended(Outcome.FAILED, code=failed.code, message=message)
        else:
            yield _ended(Outcome.FINISHED)

    async def _call(self, step: Step, progress: _Progress, decision: Decision | None) -> ToolResult | None:
        """The result of a step's call; None where a human has to decide first."""
        if decision is None:
            call = self._next_call(step, progress.variables)
            answer = await self._interruption.watch(
                self._toolbox.request(call) if step.tool is not None else self._ask(call)
            )
        else:
            assert progress.call is not None
            call = ToolCall(**progress.call)
            answer = self._toolbox.decided(call, decision)
        progress.call = None
        match answer:
            case Undecided(call):
                progress.call = {
                    "id": call.id,
                    "name": call.name,
                    "arguments": dict(call.arguments),
                    "annotations": dict(call.annotations),
                }
                return None
            case Refused(result):
                return result
            case Granted() if step.tool is None:
                approved = ToolResult(content=[{"type": "text", "text": "Approved."}])
                return await self._hooks.after_tool(answer.call, approved)
            case Granted():
                return await self._interruption.watch(self._toolbox.run(answer))

    async def _ask(self, call: ToolCall) -> Granted | Refused | Undecided:
        return self._toolbox.decided(call, await self._hooks.before_tool(call))

    @staticmethod
    def _next_call(step: Step, variables: Mapping[str, Any]) -> ToolCall:
        annotations: dict[str, Any] = {}
        arguments = substitute(step.arguments, variables)
        if step.approve is not None:
            question = _text(substitute(step.approve, variables))
            annotations = {"requiresApproval": True, "question": question}
            if step.tool is None:
                arguments = {"question": question}
        return ToolCall(f"call_{uuid4().hex}", step.tool or _APPROVE, arguments, annotations=annotations)

    async def _explain(self) -> str:
        tools = await self._toolbox.tools()
        lines = [
            "This session has no model: it runs what you spell out. Send a tool call:",
            "",
            '    /tool list_files {"path": "."}',
            "",
            "or a playbook:",
            "",
            "    playbook: What is here",
            "    steps:",
            "      - tool: list_files",
            "        save: files",
            '      - say: "I see {{ files }}"',
            "",
            "Tools of this session:",
            *(
                f"- {tool.name}: {tool.description.strip().splitlines()[0][:160] if tool.description.strip() else ''}"
                for tool in tools
            ),
            *(f"- {message}" for message in self._toolbox.unavailable.values()),
        ]
        return "\n".join(lines)


def _judge(script: Script, step: Step, result: ToolResult, progress: _Progress) -> None:
    """Keep what is to be kept; raise _ScriptError where the result is not what the playbook expects."""
    text = result_text(result)
    kept = saved(text, result.structured, result.is_error)
    if step.save is not None:
        progress.variables[step.save] = kept
    for expectation in step.expect:
        reason = unmet(expectation, kept, progress.variables)
        if reason is not None:
            raise _ScriptError("EXPECTATION_FAILED", f"expected otherwise of {step.tool}: {reason}.")
    if script.title is not None and result.is_error and not step.tolerates_errors:
        raise _ScriptError("TOOL_ERROR", f"{step.tool or 'approval'}: {text[:1000]}")


def _report(script: Script, step: Step, result: ToolResult) -> str:
    text = result_text(result)
    if script.title is None:
        limit, head = _SHOWN_CHARACTERS, "The tool failed: " if result.is_error else ""
    else:
        mark = "✗" if result.is_error else "✓"
        limit, head = _SHOWN_IN_PLAYBOOK, f"{mark} {step.tool or 'approval'} ({result.duration_ms} ms)\n"
    shown = text if len(text) <= limit else text[:limit] + "\n… (the whole result is with the tool execution)"
    return (head + shown).strip() or "The tool gave no output."


def _name(index: int, step: Step) -> str:
    work = step.tool or ("approve" if step.approve is not None else "say")
    return f"{index + 1}. {work}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


async def _speak(text: str) -> AsyncIterator[RuntimeEvent]:
    """A message in pieces, as a model would send it."""
    message_id = uuid4().hex
    yield TextStarted(message_id)
    size = min(max(len(text) // 8, 24), 2000)
    for start in range(0, len(text), size):
        yield TextDelta(message_id, text[start : start + size])
    yield TextEnded(message_id)


def _ended(outcome: Outcome, *, code: str | None = None, message: str | None = None) -> RunEnded:
    return RunEnded(outcome, _NOTHING, Usage(), error_code=code, error_message=message)
