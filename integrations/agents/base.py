"""The contract between Quarterdeck and whatever drives an agent.

A runtime is started with a configuration and a state, is given input, and yields events until the
segment of work ends with `RunEnded`. It never waits for a human: a tool call that needs a decision
ends the segment as `WAITING`, and a later segment resumes from the stored state with the decisions.
Every tool call goes through `Hooks`, which the service implements.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID


class Outcome(StrEnum):
    """How a segment of work ended."""

    FINISHED = "finished"
    WAITING = "waiting"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class McpServerSpec:
    """One MCP server a session uses, with its secrets in the clear: keep it out of logs."""

    id: UUID
    name: str
    transport: Literal["stdio", "streamable_http"]
    command: Sequence[str] = ()
    url: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    protocol_version: str | None = None
    """`2026-07-28` or `2025-11-25`; None lets client and server agree."""
    stateless: bool = False
    """One process may serve several sessions of the same organisation."""
    timeout_seconds: float = 60.0
    allowed_tools: Sequence[str] | None = None
    """The tools that the session may use, by the server's own names; no others are shown or called. None for all."""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What a session asks of its runtime, resolved."""

    organization_id: UUID
    session_id: UUID
    working_directory: Path
    model: str | None
    system_prompt: str | None
    permission_mode: str
    allowed_tools: Sequence[str]
    disallowed_tools: Sequence[str]
    max_turns: int | None
    max_budget_usd: Decimal | None
    mcp_servers: Sequence[McpServerSpec]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for tools and servers, secrets in the clear."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the runtime (`ClaudeAgentOptions` that have no field above)."""


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What a runtime needs to go on later, in another process. Opaque to the service."""

    runtime: str
    version: int
    payload: bytes
    """JSON, UTF-8."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call as the model, or the script, asked for it. `name` is `server.tool` or a built-in's name."""

    id: str
    name: str
    arguments: Mapping[str, Any]
    parent_id: str | None = None
    """The tool call of the subagent this call belongs to."""
    annotations: Mapping[str, Any] = field(default_factory=dict)
    """The tool's MCP annotations (`readOnlyHint`, `destructiveHint`, …): the policy of approvals reads them. A
    playbook that itself wants a human's decision adds `requiresApproval: true` and its `question`: the answer
    is then ASK."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back. `content` is MCP content blocks (`[{"type": "text", "text": …}]`)."""

    content: Sequence[Mapping[str, Any]]
    structured: Any | None = None
    is_error: bool = False
    truncated: bool = False
    error_kind: Literal["tool", "timeout", "server_died", "protocol", "cancelled", "too_large"] | None = None
    duration_ms: int = 0


class Verdict(StrEnum):
    """What a hook says of a tool call."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a tool call may run. `arguments` replaces those asked for where a human edited them."""

    verdict: Verdict
    reason: str | None = None
    arguments: Mapping[str, Any] | None = None


class Hooks(Protocol):
    """What the service does around every tool call, whichever runtime drives it.

    A runtime calls `before_tool` once per call id. On ASK it must end the segment with `WAITING`
    (after the other calls of the same turn that need no decision); on DENY it gives the reason to
    the model as the tool's error. `after_tool` is called for every call that was allowed to run.
    """

    async def before_tool(self, call: ToolCall) -> Decision: ...

    async def after_tool(self, call: ToolCall, result: ToolResult) -> ToolResult: ...

    async def rejected_tool(self, call: ToolCall, result: ToolResult) -> None:
        """A call that never came to a decision, to be recorded: there is no such tool, it is not among the
        allowed ones, or its arguments do not fit. `before_tool` and `after_tool` are not called for it."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What one segment used. Fields are None where the provider does not say; nothing is invented.

    The four kinds of tokens are disjoint: `input_tokens` are those neither read from a cache nor written to one.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    requests: int = 0
    cost_usd: Decimal | None = None
    cost_source: Literal["provider", "price_table"] | None = None


@dataclass(frozen=True, slots=True)
class TextStarted:
    """The assistant starts a message. `message_id` is the runtime's own and unique in the segment."""

    message_id: str
    reasoning: bool = False


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of a started message."""

    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class TextEnded:
    """A started message is complete."""

    message_id: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a playbook, or a turn of a model, starts."""

    name: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last event of every segment. `state` is what to resume or continue from; None keeps the old one."""

    outcome: Outcome
    state: RuntimeState | None
    usage: Usage
    error_code: str | None = None
    """With FAILED: MODEL_ERROR, RATE_LIMITED, CONTEXT_OVERFLOW, MAX_TURNS, MAX_BUDGET, NOT_CONFIGURED, …"""
    error_message: str | None = None
    """Safe to show to the session's users."""


RuntimeEvent = TextStarted | TextDelta | TextEnded | StepStarted | RunEnded


@dataclass(frozen=True, slots=True)
class UserInput:
    """A message for the agent."""

    text: str


class RuntimeSession(Protocol):
    """A started runtime. One segment at a time; `close` frees processes and connections, always."""

    def send(self, content: UserInput) -> AsyncIterator[RuntimeEvent]:
        """A new segment from a user's message; the last event is `RunEnded`."""
        ...

    def resume(self, decisions: Mapping[str, Decision]) -> AsyncIterator[RuntimeEvent]:
        """Go on after `WAITING`; decisions by tool call id. The last event is `RunEnded`."""
        ...

    async def interrupt(self) -> None:
        """Stop the segment soon: running tools are cancelled, and it ends with INTERRUPTED."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What is known of a model before it is used."""

    problem: str | None = None
    """Why it cannot be used; None where nothing is known against it."""
    priced: bool | None = None
    """Whether its price is known, without which no budget can be kept; None where only its provider can tell."""


class Runtime(Protocol):
    """A kind of agent: `script`, `pydantic_ai`, `claude`."""

    name: str

    def available(self) -> tuple[bool, str]:
        """Whether sessions can use it here, and the reason in words a person can act on."""
        ...

    def validate(self, text: str) -> None:
        """Refuse a message that cannot work (BadInput), before a run is queued. Most accept everything."""
        ...

    def validate_options(self, extra: Mapping[str, Any]) -> None:
        """Refuse further options that the runtime does not know (BadInput with fields), before they are stored."""
        ...

    def built_in_tools(self) -> frozenset[str] | None:
        """The names of the tools that sessions have beside those of their servers; None where it cannot be known."""
        ...

    async def check_model(self, name: str | None) -> ModelCheck | None:
        """What is known of a model, or of the one that sessions use which name none; None for a runtime without."""
        ...

    def with_values(self, text: str, values: Mapping[str, Any]) -> str | None:
        """The message with values for its `{{ name }}`, where it is a program of this runtime; None where it is mere
        text. Values go in as data: nothing that they say becomes a part of the program.

        Raises BadInput for a program that cannot run, or that refers to what is neither a value nor its own.
        """
        ...

    async def start(self, config: RuntimeConfig, hooks: Hooks, state: RuntimeState | None) -> RuntimeSession: ...

    async def fork(self, state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
        """The state as it was after its first `keep_user_messages` user turns and their answers; None if empty."""
        ...
