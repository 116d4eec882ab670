"""A started `claude` runtime: one run of Claude Code for each segment, resumed from its transcripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

from claude_agent_sdk import (
    AgentDefinition,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    HookMatcher,
    ResultMessage,
    StreamEvent,
)

from core.processes import to_the_end
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    Hooks,
    Outcome,
    RunEnded,
    RuntimeConfig,
    RuntimeEvent,
    StepStarted,
    TextDelta,
    TextEnded,
    TextStarted,
    Usage,
    UserInput,
)
from integrations.agents.claude import ClaudeMemory
from integrations.agents.claude_gate import Gate
from integrations.agents.claude_options import ClaudeOptions
from integrations.agents.claude_process import ClaudeProcess
from integrations.agents.claude_tools import UNUSABLE, BridgedTools
from integrations.agents.redaction import redacted
from integrations.agents.tools.toolbox import Toolbox
from integrations.sandbox.base import Sandbox

_MAX_LINE_BYTES = 64 * 1024 * 1024
_INTERRUPT_SECONDS = 5.0
_BUDGET_USED = "The session's budget is used up."


class ClaudeSession:
    """Each segment starts the program anew: between messages, sessions hold no process."""

    def __init__(
        self,
        config: RuntimeConfig,
        hooks: Hooks,
        toolbox: Toolbox,
        memory: ClaudeMemory,
        *,
        settings: Settings,
        sandbox: Sandbox,
        options: ClaudeOptions,
    ) -> None:
        self._config = config
        self._hooks = hooks
        self._toolbox = toolbox
        self._memory = memory
        self._settings = settings
        self._sandbox = sandbox
        self._options = options
        self._client: ClaudeSDKClient | None = None
        self._gate: Gate | None = None
        self._interrupted = asyncio.Event()
        self._process: ClaudeProcess | None = None
        self._idle = asyncio.Event()

    async def send(self, content: UserInput) -> AsyncIterator[RuntimeEvent]:
        async for event in self._segment(content.text, {}):
            yield event

    async def resume(self, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        async for event in self._segment(None, decisions):
            yield event

    async def interrupt(self) -> None:
        self._interrupted.set()
        if self._client is not None:
            with suppress(ClaudeSDKError, TimeoutError):
                async with asyncio.timeout(_INTERRUPT_SECONDS):
                    await self._client.interrupt()

    async def close(self) -> None:
        self._interrupted.set()
        process = self._process
        if process is not None:
            process.kill()
            # The segment sees the end of the program and cleans up, if anybody still reads it.
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERRUPT_SECONDS):
                    await self._idle.wait()
            process.end()
        await self._toolbox.close()

    async def _segment(self, prompt: str | None, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        budget = self._config.max_budget_usd
        if budget is not None and self._memory.total >= budget:
            yield RunEnded(Outcome.FAILED, None, Usage(), "MAX_BUDGET", _BUDGET_USED)
            return
        self._interrupted.clear()
        self._idle.clear()
        speech = _Speech()
        result: ResultMessage | None = None
        trouble = ""
        process = self._process = ClaudeProcess(self._config, self._settings, self._sandbox)
        try:
            process.restore(self._memory.transcripts)
            bridged = BridgedTools(await self._toolbox.tools())
            gate = self._gate = Gate(self._hooks, bridged, decisions, self._settings.max_tool_result_bytes)
            self._client = client = ClaudeSDKClient(self._claude_options(process, bridged, gate))
            try:
                await client.connect()
                if prompt is not None:
                    await client.query(prompt)
                async for message in self._messages(client):
                    if isinstance(message, StreamEvent):
                        for told in speech.hear(message):
                            yield told
                    elif isinstance(message, ResultMessage):
                        result = message
            except ClaudeSDKError as error:
                trouble = redacted(str(error)[:1000], self._settings)
            finally:
                self._client = None
                await to_the_end(client.disconnect())
                await to_the_end(gate.abandon())
            for told in speech.finish():
                yield told
            self._remember(process, result)
        finally:
            process.end()
            self._process = None
            self._idle.set()
        yield self._ended(result, gate, speech.requests, trouble)

    async def _messages(self, client: ClaudeSDKClient) -> AsyncIterator[Any]:
        """The messages of one answer; after an interruption, those that come within a few seconds."""
        messages = client.receive_response().__aiter__()
        interrupted: asyncio.Future[Any] = asyncio.ensure_future(self._interrupted.wait())
        pending: asyncio.Future[Any] | None = None
        try:
            while True:
                pending = asyncio.ensure_future(cast(Any, messages.__anext__()))
                await asyncio.wait({pending, interrupted}, return_when=asyncio.FIRST_COMPLETED)
                if not pending.done():
                    await asyncio.wait({pending}, timeout=_INTERRUPT_SECONDS)
                if not pending.done():
                    return
                try:
                    message = pending.result()
                except StopAsyncIteration:
                    return
                yield message
        finally:
            interrupted.cancel()
            if pending is not None and not pending.done():
                pending.cancel()
                await asyncio.wait({pending})

    def _claude_options(self, process: ClaudeProcess, bridged: BridgedTools, gate: Gate) -> ClaudeAgentOptions:
        config, extra = self._config, self._options
        prompt: Any = config.system_prompt
        if prompt is None:
            prompt = {"type": "preset", "preset": "claude_code"}
            if extra.append_system_prompt is not None:
                prompt["append"] = extra.append_system_prompt
        elif extra.append_system_prompt is not None:
            prompt = f"{prompt}\n\n{extra.append_system_prompt}"
        agents = extra.agents or {}
        every = HookMatcher(hooks=[cast(Any, gate.before)], timeout=600)
        after = HookMatcher(hooks=[cast(Any, gate.after)], timeout=600)
        return ClaudeAgentOptions(
            **extra.arguments(),
            agents={name: AgentDefinition(**agent.model_dump(exclude_none=True)) for name, agent in agents.items()}
            or None,
            system_prompt=prompt,
            model=config.model.removeprefix("anthropic:") if config.model is not None else None,
            cwd=config.working_directory.resolve(),
            cli_path=process.launcher,
            # The hooks are told the session's mode; to the program everything it is unsure of is a question to us.
            permission_mode="default",
            # A resumed call is not shown to the hook. Asking about its tool brings it to `permit`, whatever it is.
            settings=json.dumps({"permissions": {"ask": [self._memory.waiting] if self._memory.waiting else []}}),
            can_use_tool=gate.permit,
            hooks=cast(Any, {"PreToolUse": [every], "PostToolUse": [after], "PostToolUseFailure": [after]}),
            # Our servers' tools are left out before they get here.
            disallowed_tools=[*UNUSABLE, *config.disallowed_tools],
            max_turns=config.max_turns,
            # The program counts anew at each start.
            max_budget_usd=None if config.max_budget_usd is None else float(config.max_budget_usd - self._memory.total),
            mcp_servers=cast(Any, bridged.servers()),
            strict_mcp_config=True,
            resume=self._memory.session_id,
            include_partial_messages=True,
            max_buffer_size=_MAX_LINE_BYTES,
            stderr=lambda line: None,
        )

    def _remember(self, process: ClaudeProcess, result: ResultMessage | None) -> None:
        transcripts = process.transcripts()
        mains = [name.removesuffix(".jsonl") for name in transcripts if "/" not in name and name.endswith(".jsonl")]
        session_id = result.session_id if result is not None else self._memory.session_id
        if session_id is None and mains:
            session_id = mains[0]
        if session_id in mains:
            deferred = result.deferred_tool_use if result is not None else None
            waiting = deferred.name if deferred is not None else None
            self._memory = ClaudeMemory(session_id, transcripts, waiting, self._memory.total)

    def _ended(self, result: ResultMessage | None, gate: Gate, requests: int, trouble: str) -> RunEnded:
        usage = self._usage(result, requests)
        state = self._memory.state() if self._memory.session_id is not None else None
        if result is not None and result.deferred_tool_use is not None:
            return RunEnded(Outcome.WAITING, state, usage)
        if self._interrupted.is_set() and (result is None or result.is_error or result.terminal_reason != "completed"):
            return RunEnded(Outcome.INTERRUPTED, state, usage)
        if result is None:
            message = trouble or "Claude Code ended without an answer."
            return RunEnded(Outcome.FAILED, state, usage, "RUNTIME_ERROR", message)
        if not result.is_error and result.subtype == "success":
            return RunEnded(Outcome.FINISHED, state, usage)
        code, message = _explain(result)
        return RunEnded(Outcome.FAILED, state, usage, code, redacted(message, self._settings))

    def _usage(self, result: ResultMessage | None, requests: int) -> Usage:
        if result is None or result.usage is None:
            return Usage(requests=requests)
        cost = None
        if result.total_cost_usd is not None:
            total = Decimal(str(result.total_cost_usd))
            # The total is carried over resumptions by the transcript; where it was not, it begins again at zero.
            cost = total - self._memory.total if total >= self._memory.total else total
            self._memory.total = total
        return Usage(
            input_tokens=result.usage.get("input_tokens"),
            output_tokens=result.usage.get("output_tokens"),
            cache_read_tokens=result.usage.get("cache_read_input_tokens"),
            cache_write_tokens=result.usage.get("cache_creation_input_tokens"),
            requests=requests,
            cost_usd=cost,
            cost_source=None if cost is None else "price_table",
        )


class _Speech:
    """Turns Claude Code's stream into messages."""

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self.requests = 0

    def hear(self, message: StreamEvent) -> list[RuntimeEvent]:
        event = message.event
        if event["type"] == "message_start":
            self.requests += 1
        if message.parent_tool_use_id is not None:
            # A subagent talks to the agent, not to the session.
            return []
        match event:
            case {"type": "message_start"}:
                return [*self.finish(), StepStarted(f"turn {self.requests}")]
            case {
                "type": "content_block_start",
                "index": index,
                "content_block": {"type": "text" | "thinking" as kind},
            }:
                self._open[index] = uuid4().hex
                return [TextStarted(self._open[index], reasoning=kind == "thinking")]
            case {"type": "content_block_delta", "index": index, "delta": delta} if index in self._open:
                text = delta.get("text") or delta.get("thinking")
                return [TextDelta(self._open[index], text)] if text else []
            case {"type": "content_block_stop", "index": index} if index in self._open:
                return [TextEnded(self._open.pop(index))]
        return []

    def finish(self) -> list[RuntimeEvent]:
        """End what a failure or an interruption left open."""
        told: list[RuntimeEvent] = [TextEnded(message_id) for message_id in self._open.values()]
        self._open.clear()
        return told


def _explain(result: ResultMessage) -> tuple[str, str]:
    """Code and words for a failed run."""
    said = (result.result or "; ".join(result.errors or []))[:1000]
    if result.subtype == "error_max_turns":
        return "MAX_TURNS", "The model took as many turns as the session allows for one message."
    if result.subtype == "error_max_budget_usd":
        return "MAX_BUDGET", _BUDGET_USED
    if "too long" in said.lower():
        return "CONTEXT_OVERFLOW", (
            "The conversation is longer than the model can read. Fork the session from an earlier message, start a "
            "new one, or choose a model with a larger context."
        )
    match result.api_error_status:
        case 429:
            return "RATE_LIMITED", "The provider limits requests, also after several attempts. Try again later."
        case 401 | 403:
            return "NOT_CONFIGURED", "The provider refuses the key that is configured for it."
        case 404:
            return "NOT_CONFIGURED", f"The provider does not know the model. {said}"
        case 529 | 503:
            return "MODEL_ERROR", "The provider is overloaded or unavailable. Try again later."
    return "MODEL_ERROR", f"The provider reported an error: {said}" if said else "The run failed without saying why."
