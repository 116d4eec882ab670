"""What a session is started with: checked here, stored as JSON, handed to the runtime."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from core.errors import BadInput
from services.runs.storable import check_storable

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_LABEL_NAME = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?\Z")

ToolPattern = str
"""A tool's name, or a pattern with `*`: `shell`, `git.*`, `*.read_*`."""


_CLAUDE_ONLY = (
    "fallback_model",
    "effort",
    "max_thinking_tokens",
    "task_budget_tokens",
    "output_schema",
    "subagents",
    "skills",
    "setting_sources",
    "betas",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Subagent(_Strict):
    """A subagent that the runtime may call by name."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")
    description: str = Field(min_length=1, max_length=2000)
    prompt: str = Field(min_length=1, max_length=100_000)
    tools: tuple[ToolPattern, ...] | None = None
    model: str | None = Field(None, max_length=200)


class ApprovalRule(_Strict):
    """What happens when a tool is called; the first rule whose pattern fits decides."""

    tool: ToolPattern = Field(min_length=1, max_length=200)
    decision: Literal["ALLOW", "ASK", "DENY"]
    reason: str | None = Field(None, max_length=500)


class SessionOptions(_Strict):
    """Options that have no column of their own. Names and meaning follow `ClaudeAgentOptions`."""

    allowed_tools: tuple[ToolPattern, ...] = Field((), max_length=500)
    disallowed_tools: tuple[ToolPattern, ...] = Field((), max_length=500)
    approval_rules: tuple[ApprovalRule, ...] = Field((), max_length=400)
    max_turns: int | None = Field(None, ge=1, le=1000)
    max_budget_usd: Decimal | None = Field(None, gt=0, le=100_000)
    environment: tuple[str, ...] = Field((), max_length=200)
    working_directory: str = Field(".", max_length=400)
    fallback_model: str | None = Field(None, max_length=200)
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    max_thinking_tokens: int | None = Field(None, ge=0, le=1_000_000)
    task_budget_tokens: int | None = Field(None, ge=1)
    output_schema: dict[str, Any] | None = None
    subagents: tuple[Subagent, ...] = Field((), max_length=50)
    skills: tuple[str, ...] | None = Field(None, max_length=200)
    setting_sources: tuple[Literal["project", "local"], ...] | None = None
    betas: tuple[str, ...] = Field((), max_length=20)
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("environment")
    @classmethod
    def _environment_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _ENVIRONMENT_NAME.match(name):
                raise ValueError(f"{name!r} is not a name of an environment variable")
        return names

    @field_validator("working_directory")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in path:
            raise ValueError("must be a relative path inside the session's directory")
        return str(parts)

    def for_claude_only(self) -> list[str]:
        """The options given that only Claude Code knows, as the graph spells them."""
        return [to_camel(name) for name in _CLAUDE_ONLY if getattr(self, name) != type(self).model_fields[name].default]

    def claude_options(self) -> dict[str, Any]:
        """The options that only Claude Code knows, by their names in `ClaudeAgentOptions`."""
        agents = {agent.name: agent.model_dump(exclude={"name"}, exclude_none=True) for agent in self.subagents}
        named = {
            "fallback_model": self.fallback_model,
            "effort": self.effort,
            "max_thinking_tokens": self.max_thinking_tokens,
            "task_budget": None if self.task_budget_tokens is None else {"total": self.task_budget_tokens},
            "output_format": None
            if self.output_schema is None
            else {"type": "json_schema", "schema": self.output_schema},
            "agents": agents or None,
            "skills": None if self.skills is None else list(self.skills),
            "setting_sources": None if self.setting_sources is None else list(self.setting_sources),
            "betas": list(self.betas) or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def runtime_extra(self) -> dict[str, Any]:
        """What goes to the runtime beyond the fields that every runtime knows."""
        return self.claude_options() | self.extra

    def stored(self) -> dict[str, Any]:
        """The JSON to store: only what differs from the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)


def check_options(given: dict[str, Any], *, field: str = "options") -> SessionOptions:
    """Options from a client's input (snake_case); BadInput with all problems at once, each with its place."""
    for name, value in given.items():
        check_storable(value, field=f"{field}.{to_camel(name)}")
    try:
        return SessionOptions.model_validate(given)
    except ValidationError as error:
        raise BadInput.of_fields(
            [
                (
                    ".".join(
                        [field, *(to_camel(part) if isinstance(part, str) else str(part) for part in item["loc"])]
                    ),
                    item["msg"].removeprefix("Value error, "),
                )
                for item in error.errors()
            ]
        ) from None


def load_options(stored: dict[str, Any]) -> SessionOptions:
    """Options as they were stored."""
    return SessionOptions.model_validate(stored)


def check_title(title: str | None, *, default: str) -> str:
    """A title of 1 to 200 characters on one line."""
    if title is None:
        return default
    cleaned = " ".join(title.split())
    if not cleaned or len(cleaned) > 200:
        raise BadInput("A title has 1 to 200 characters.", field="title")
    return cleaned


def check_labels(labels: dict[str, str], *, field: str = "labels") -> dict[str, str]:
    """At most 32 labels; names like `team` or `app.example/tier`, values up to 200 characters."""
    if len(labels) > 32:
        raise BadInput("A session has at most 32 labels.", field=field)
    for name, value in labels.items():
        if not _LABEL_NAME.match(name):
            raise BadInput(
                f"{name[:80]!r} is not a label name: lower-case letters, digits, and . _ / - inside.", field=field
            )
        if len(value) > 200:
            raise BadInput(f"The value of label {name} is over 200 characters.", field=field)
    return labels
