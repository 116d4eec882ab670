"""Which options of Claude Code a session may set in `extra`: the one list.

The names are those of `ClaudeAgentOptions` (claude-agent-sdk 0.2.187). What the session has fields for
(model, system_prompt, permission_mode, allowed_tools, disallowed_tools, max_turns, max_budget_usd, mcp_servers,
cwd, env) is not among them, nor is what belongs to the service: how the program is started and confined
(cli_path, extra_args, settings, sandbox, add_dirs, plugins, user), how its conversation is kept (resume,
session_store, …) and who decides on tools (hooks, can_use_tool, permission_prompt_tool_name).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from integrations.agents.options import StrictOptions


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AgentOptions(_Part):
    """A subagent (`AgentDefinition`)."""

    description: str
    prompt: str
    tools: list[str] | None = None
    disallowedTools: list[str] | None = None
    model: str | None = None
    maxTurns: int | None = Field(None, ge=1)


class ThinkingOptions(_Part):
    """How much the model reasons first (`ThinkingConfig`)."""

    type: Literal["adaptive", "enabled", "disabled"]
    budget_tokens: int | None = Field(None, ge=1024)


class TaskBudgetOptions(_Part):
    """Tokens that the model knows it should keep to (`TaskBudget`)."""

    total: int = Field(ge=1)


class OutputFormatOptions(_Part):
    """The shape of the final answer, as a JSON Schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class ClaudeOptions(StrictOptions):
    """What `extra` may hold for the runtime `claude`."""

    tools: list[str] | None = Field(None, description="Claude Code's own tools to offer; default all, [] none.")
    append_system_prompt: str | None = Field(
        None, description="Added to Claude Code's own system prompt, which is used where the session has none."
    )
    fallback_model: str | None = Field(None, description="Model to use while the first is unavailable.")
    betas: list[str] | None = Field(None, description="Beta features of the API to switch on.")
    agents: dict[str, AgentOptions] | None = Field(None, description="Subagents, by name.")
    setting_sources: list[Literal["project", "local"]] | None = Field(
        None, description="Settings files of the working directory to read (CLAUDE.md needs project); default none."
    )
    skills: list[str] | Literal["all"] | None = Field(None, description="Skills to offer, by name.")
    thinking: ThinkingOptions | None = Field(None, description="Reasoning before the answer.")
    max_thinking_tokens: int | None = Field(None, ge=0, description="Older way to bound reasoning.")
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(None, description="Depth of reasoning.")
    output_format: OutputFormatOptions | None = Field(None, description="Structured final answer.")
    task_budget: TaskBudgetOptions | None = Field(None, description="Token budget the model is told of.")
    verbatim_prompts: bool = Field(False, description="Take messages as written: no @file mentions, no slash commands.")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `ClaudeAgentOptions`, but for the system prompt and the agents' own type."""
        given = self.model_dump(exclude_none=True, by_alias=True, exclude={"append_system_prompt", "agents"})
        given.setdefault("setting_sources", [])
        return given
