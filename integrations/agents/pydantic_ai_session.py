"""A started pydantic_ai runtime: one conversation with a provider's model. Importing this takes a second or two."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

from pydantic_ai import Agent, AgentRunResultEvent, DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelUnavailableError,
    RunCancelled,
    UsageLimitExceeded,
    UserError,
)
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    UserPromptPart,
)
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RunUsage, UsageLimits

from core.errors import BadInput, QuarterdeckError, Unavailable
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    Outcome,
    RunEnded,
    RuntimeConfig,
    RuntimeEvent,
    RuntimeState,
    StepStarted,
    TextDelta,
    TextEnded,
    TextStarted,
    Usage,
    UserInput,
    Verdict,
)
from integrations.agents.pydantic_ai_models import OpenModel, has_price, open_model
from integrations.agents.pydantic_ai_runtime import NAME, PydanticAiOptions
from integrations.agents.pydantic_ai_tools import ToolboxToolset
from integrations.agents.redaction import redacted
from integrations.agents.tools.toolbox import Toolbox

_VERSION = 1
_DEFAULT_MAX_TURNS = 50
# The provider's SDK waits as long as `retry-after` says, up to a minute, and otherwise longer each time.
_MOST_RETRIES = 3


async def forked(state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
    """The state as it was after so many messages of the user and their answers; None for none."""
    memory = Memory.load(state)
    kept: list[ModelMessage] = []
    seen = 0
    for message in memory.messages:
        if isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts):
            seen += 1
            if seen > keep_user_messages:
                break
        kept.append(message)
    return Memory(messages=kept).state() if kept and keep_user_messages > 0 else None


@dataclass(slots=True)
class Memory:
    """What survives between segments."""

    messages: Sequence[ModelMessage] = ()
    turns: int = 0
    """Answers of the model in the run that waits for a decision; 0 between runs."""
    spent: Decimal = Decimal(0)
    """US dollars of the session so far, as far as they are known."""

    def state(self) -> RuntimeState:
        payload = {
            "messages": json.loads(ModelMessagesTypeAdapter.dump_json(list(self.messages))),
            "turns": self.turns,
            "spent": str(self.spent),
        }
        return RuntimeState(NAME, _VERSION, json.dumps(payload).encode())

    @classmethod
    def load(cls, state: RuntimeState | None) -> Memory:
        if state is None:
            return cls()
        if state.version != _VERSION:
            raise BadInput(f"The session's state has version {state.version}; this program reads {_VERSION}.")
        found = json.loads(state.payload)
        return cls(
            messages=ModelMessagesTypeAdapter.validate_python(found["messages"]),
            turns=found["turns"],
            spent=Decimal(found["spent"]),
        )


class PydanticAiSession:
    """A started pydantic_ai runtime."""

    def __init__(self, config: RuntimeConfig, settings: Settings, toolbox: Toolbox, memory: Memory) -> None:
        self._config = config
        self._settings = settings
        self._toolbox = toolbox
        self._memory = memory
        self._model: OpenModel | None = None
        self._running: AgentRunEvents[Any] | None = None
        self._interrupted = False

    async def send(self, content: UserInput) -> AsyncIterator[RuntimeEvent]:
        self._memory.turns = 0
        async for event in self._segment(content.text, None):
            yield event

    async def resume(self, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        approvals: dict[str, ToolApproved | ToolDenied] = {}
        for call_id, decision in decisions.items():
            if decision.verdict is Verdict.ALLOW:
                arguments = None if decision.arguments is None else dict(decision.arguments)
                approvals[call_id] = ToolApproved(override_args=arguments)
            else:
                approvals[call_id] = ToolDenied(f"Denied: {decision.reason or 'no reason was given'}")
        async for event in self._segment(None, DeferredToolResults(approvals=dict(approvals))):
            yield event

    async def interrupt(self) -> None:
        self._interrupted = True
        if self._running is not None:
            self._running.cancel()

    async def close(self) -> None:
        await self.interrupt()
        try:
            await self._toolbox.close()
        finally:
            if self._model is not None:
                await self._model.close()

    async def _segment(self, prompt: str | None, results: DeferredToolResults | None) -> AsyncIterator[RuntimeEvent]:
        self._interrupted = False
        speech = _Speech()
        try:
            agent, limits = self._agent()
        except QuarterdeckError as error:
            yield RunEnded(Outcome.FAILED, None, Usage(), "NOT_CONFIGURED", error.message)
            return
        run: AbstractAsyncContextManager[AgentRunEvents[Any]] = agent.run_stream_events(
            prompt,
            output_type=[str, DeferredToolRequests],
            message_history=list(self._memory.messages),
            deferred_tool_results=results,
            usage_limits=limits,
        )
        async with run as events:
            self._running = events
            try:
                if self._interrupted:
                    events.cancel()
                end: RunEnded | None = None
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        waiting = isinstance(event.result.output, DeferredToolRequests)
                        end = self._ended(events, Outcome.WAITING if waiting else Outcome.FINISHED)
                    else:
                        for told in speech.hear(event):
                            yield told
            except (AgentRunError, UserError) as error:
                end = self._failed(events, error)
            finally:
                self._running = None
        for told in speech.finish():
            yield told
        assert end is not None
        yield end

    def _agent(self) -> tuple[Agent[None, Any], UsageLimits]:
        """The agent for one segment; raises Unavailable where it cannot be had, BadInput for bad options."""
        options = PydanticAiOptions.read(self._config.extra)
        name = self._config.model or self._settings.default_model
        if name is None:
            raise Unavailable("This session names no model, and QUARTERDECK_DEFAULT_MODEL is not set.")
        if self._model is None:
            self._model = open_model(name, self._settings)
        budget = self._config.max_budget_usd
        if budget is not None and not has_price(self._model.model):
            raise Unavailable(
                f"There is no known price for {name}, so the session's budget could not be kept. "
                "Choose a model with a known price, or remove the budget."
            )
        given: Any = options.model_dump(exclude_none=True, exclude={"shell_network"})
        agent: Agent[None, Any] = Agent(
            self._model.model,
            instructions=self._config.system_prompt,
            toolsets=[ToolboxToolset(self._toolbox)],
            model_settings=cast(ModelSettings, {"max_retries": _MOST_RETRIES, **given}),
        )
        return agent, UsageLimits(
            request_limit=max((self._config.max_turns or _DEFAULT_MAX_TURNS) - self._memory.turns, 0),
            cost_limit=None if budget is None else max(budget - self._memory.spent, Decimal(0)),
        )

    def _ended(
        self, events: AgentRunEvents[Any], outcome: Outcome, *, code: str | None = None, message: str | None = None
    ) -> RunEnded:
        """Remember what was said and spent, and report it."""
        usage = _usage(events.usage)
        self._memory = Memory(
            messages=events.all_messages(),
            turns=self._memory.turns + usage.requests if outcome is Outcome.WAITING else 0,
            spent=self._memory.spent + (usage.cost_usd or 0),
        )
        return RunEnded(outcome, self._memory.state(), usage, code, message)

    def _failed(self, events: AgentRunEvents[Any], error: AgentRunError | UserError) -> RunEnded:
        try:
            answered = any(isinstance(message, ModelResponse) for message in events.new_messages())
        except UserError:
            # It did not get as far as starting.
            if isinstance(error, RunCancelled):
                return RunEnded(Outcome.INTERRUPTED, None, Usage())
            return RunEnded(Outcome.FAILED, None, Usage(), "RUNTIME_ERROR", redacted(str(error), self._settings))
        if isinstance(error, RunCancelled):
            return self._ended(events, Outcome.INTERRUPTED)
        code, message = _explain(error)
        message = redacted(message, self._settings)
        if not answered or code == "CONTEXT_OVERFLOW":
            # The session goes on from before this message, which would only fail again.
            return RunEnded(Outcome.FAILED, None, _usage(events.usage), code, message)
        return self._ended(events, Outcome.FAILED, code=code, message=message)


class _Speech:
    """Turns the parts of a model's answers into messages."""

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self._turn = 0
        self._last_index = -1

    def hear(self, event: Any) -> list[RuntimeEvent]:
        match event:
            case PartStartEvent(index=index, part=part):
                told: list[RuntimeEvent] = []
                if index == 0:
                    self._turn += 1
                    told += [*self.finish(), StepStarted(f"turn {self._turn}")]
                if isinstance(part, TextPart | ThinkingPart):
                    self._open[index] = uuid4().hex
                    told.append(TextStarted(self._open[index], reasoning=isinstance(part, ThinkingPart)))
                    if part.content:
                        told.append(TextDelta(self._open[index], part.content))
                return told
            case PartDeltaEvent(index=index, delta=TextPartDelta() | ThinkingPartDelta() as delta):
                text = delta.content_delta
                return [TextDelta(self._open[index], text)] if text and index in self._open else []
            case PartEndEvent(index=index) if index in self._open:
                return [TextEnded(self._open.pop(index))]
        return []

    def finish(self) -> list[RuntimeEvent]:
        """End what a failure or an interruption left open."""
        told: list[RuntimeEvent] = [TextEnded(message_id) for message_id in self._open.values()]
        self._open.clear()
        return told


def _usage(usage: RunUsage) -> Usage:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    unknown = usage.input_tokens == 0 and usage.output_tokens == 0
    return Usage(
        # pydantic-ai counts cached tokens among the input; here the four kinds are disjoint.
        input_tokens=None if unknown else max(usage.input_tokens - cached, 0),
        output_tokens=None if unknown else usage.output_tokens,
        cache_read_tokens=None if unknown else usage.cache_read_tokens,
        cache_write_tokens=None if unknown else usage.cache_write_tokens,
        requests=usage.requests,
        cost_usd=usage.cost,
        cost_source=None if usage.cost is None else "price_table",
    )


def _explain(error: AgentRunError | UserError) -> tuple[str, str]:
    """Code and words for a failed run."""
    match error:
        case ModelContextWindowExceededError():
            return "CONTEXT_OVERFLOW", (
                "The conversation is longer than the model can read. Fork the session from an earlier message, start a "
                "new one, or choose a model with a larger context. This message was not added to the conversation."
            )
        case ModelRateLimitError():
            wait = f" Try again in {error.retry_after:g} s." if error.retry_after else " Try again later."
            return "RATE_LIMITED", f"The provider limits requests, also after {_MOST_RETRIES} more attempts.{wait}"
        case ModelQuotaExceededError():
            return "RATE_LIMITED", "The provider's quota or credit for this key is used up."
        case ModelAuthenticationError():
            return "NOT_CONFIGURED", "The provider refuses the key that is configured for it."
        case ModelNotFoundError():
            return "NOT_CONFIGURED", f"The provider does not know the model {error.model_name!r}."
        case ModelUnavailableError():
            return "MODEL_ERROR", "The provider is overloaded or unavailable. Try again later."
        case UsageLimitExceeded() if "cost_limit" in error.message:
            return "MAX_BUDGET", "The session's budget is used up."
        case UsageLimitExceeded():
            return "MAX_TURNS", "The model took as many turns as the session allows for one message."
        case ModelAPIError():
            return "MODEL_ERROR", f"The provider reported an error: {error.message[:1000]}"
    return "MODEL_ERROR", f"The model's answer could not be used: {str(error)[:1000]}"
