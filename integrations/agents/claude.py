"""The runtime `claude`: Claude Code, by claude-agent-sdk, confined and with every tool call decided by our hooks.

The SDK is an optional extra of 365 MB, so it is imported when a session starts and not before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

from core.errors import BadInput, Unavailable
from core.settings import Settings
from integrations.agents.base import Hooks, ModelCheck, RuntimeConfig, RuntimeSession, RuntimeState
from integrations.agents.claude_options import ClaudeOptions
from integrations.agents.tools.toolbox import Toolbox
from integrations.mcp.base import McpServers
from integrations.sandbox.base import Sandbox

_VERSION = 1


class ClaudeRuntime:
    """Runtime `claude`."""

    name = "claude"

    def __init__(self, settings: Settings, servers: McpServers, sandbox: Sandbox) -> None:
        self._settings = settings
        self._servers = servers
        self._sandbox = sandbox

    def available(self) -> tuple[bool, str]:
        if find_spec("claude_agent_sdk") is None:
            return False, "The optional extra is not installed: pip install claude-agent-sdk (365 MB)."
        if self._settings.anthropic_api_key is None:
            return False, "There is no key for it: set QUARTERDECK_ANTHROPIC_API_KEY."
        confined = "confined" if self._sandbox.name == "bubblewrap" else "not confined, for lack of bubblewrap"
        return True, f"Claude Code runs {confined}."

    def validate(self, text: str) -> None:
        if not text.strip():
            raise BadInput("A message to a model needs some text.", field="text")

    def validate_options(self, extra: Mapping[str, Any]) -> None:
        ClaudeOptions.read(extra)

    def built_in_tools(self) -> frozenset[str] | None:
        # Claude Code has its own, other ones with each version.
        return None

    async def check_model(self, name: str | None) -> ModelCheck | None:
        # Claude Code knows its models and their prices, and has a default.
        return ModelCheck()

    def with_values(self, text: str, values: Mapping[str, Any]) -> str | None:
        return None

    async def start(self, config: RuntimeConfig, hooks: Hooks, state: RuntimeState | None) -> RuntimeSession:
        works, reason = self.available()
        if not works:
            raise Unavailable(reason)
        from integrations.agents.claude_session import ClaudeSession

        toolbox = Toolbox(config, hooks, servers=self._servers, sandbox=self._sandbox, settings=self._settings)
        return ClaudeSession(
            config,
            hooks,
            toolbox,
            ClaudeMemory.load(state),
            settings=self._settings,
            sandbox=self._sandbox,
            options=ClaudeOptions.read(config.extra),
        )

    async def fork(self, state: RuntimeState, keep_user_messages: int) -> RuntimeState | None:
        memory = ClaudeMemory.load(state)
        main = f"{memory.session_id}.jsonl"
        if keep_user_messages < 1 or main not in memory.transcripts:
            return None
        kept = "".join(_first_turns(memory.transcripts[main], keep_user_messages))
        return ClaudeMemory(memory.session_id, {**memory.transcripts, main: kept}).state()


@dataclass(slots=True)
class ClaudeMemory:
    """What survives between segments: the transcripts Claude Code writes, and what they have cost."""

    session_id: str | None = None
    transcripts: dict[str, str] = field(default_factory=dict)
    """Text of the files below Claude Code's folder for the project, by relative path."""
    waiting: str | None = None
    """Claude Code's name of the tool whose call waits for a decision."""
    total: Decimal = Decimal(0)
    """What Claude Code last said the conversation has cost, in US dollars: it adds up over resumptions."""

    def state(self) -> RuntimeState:
        payload = {
            "session_id": self.session_id,
            "transcripts": self.transcripts,
            "waiting": self.waiting,
            "total": str(self.total),
        }
        return RuntimeState(ClaudeRuntime.name, _VERSION, json.dumps(payload).encode())

    @classmethod
    def load(cls, state: RuntimeState | None) -> ClaudeMemory:
        if state is None:
            return cls()
        if state.version != _VERSION:
            raise BadInput(f"The session's state has version {state.version}; this program reads {_VERSION}.")
        found = json.loads(state.payload)
        return cls(found["session_id"], found["transcripts"], found["waiting"], Decimal(found["total"]))


def _first_turns(transcript: str, keep: int) -> Iterator[str]:
    """The lines of a transcript before the prompt that follows the first `keep` ones."""
    seen = 0
    for line in transcript.splitlines(keepends=True):
        entry = json.loads(line)
        seen += _is_prompt(entry)
        if seen > keep:
            return
        # What the parent has cost is not the fork's to pay.
        if entry.get("type") != "cost-state":
            yield line


def _is_prompt(entry: Mapping[str, Any]) -> bool:
    """Whether a transcript's entry is what the user wrote, and no tool result or note of the program."""
    if entry.get("type") != "user" or entry.get("isMeta") or entry.get("isSidechain"):
        return False
    content = entry["message"]["content"]
    return isinstance(content, str) or not any(block["type"] == "tool_result" for block in content)
