"""The options of sessions in the graph: as they are shown, and as they are given."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import strawberry
from strawberry.scalars import JSON

from schema.fields import column, enum_type, input_type, object_type
from services.sessions.options import SessionOptions as CheckedOptions
from services.sessions.options import check_options


class RuleDecision(StrEnum):
    """What a rule says of a tool call."""

    ALLOW = "ALLOW"
    ASK = "ASK"
    DENY = "DENY"


enum_type(
    RuleDecision,
    {"ALLOW": "It runs at once.", "ASK": "It waits for a human's decision.", "DENY": "It does not run."},
)


@object_type
class Subagent:
    """A subagent that the runtime may call by name."""

    name: str = column("What it is called by.")
    description: str = column("When to use it.")
    prompt: str = column("Its system prompt.")
    tools: list[str] | None = column("Its tools; null for all of the session's.")
    model: str | None = column("Its model; null for the session's.")


@object_type
class ApprovalRule:
    """What happens when a tool is called."""

    tool: str = column("A tool's name, or a pattern with `*`.")
    decision: RuleDecision = column("What happens.")
    reason: str | None = column("Why: for whoever decides, or for the agent that is refused.")


@object_type
class SessionOptions:
    """What a session was started with, defaults filled in. Names follow the Claude Agent SDK."""

    allowed_tools: list[str] = column("Tools that run without a decision; `*` matches any text.")
    disallowed_tools: list[str] = column("Tools that never run.")
    approval_rules: list[ApprovalRule] = column(
        "What happens when tools are called, of which the first that fits decides. Where none fits, `allowedTools` and "
        "the permission mode do."
    )
    max_turns: int | None = column("Most turns of the model in one run.")
    max_budget_usd: Decimal | None = column("Most US dollars one run may cost.")
    environment: list[str] = column("Names of the organisation's environment variables that tools get.")
    working_directory: str = column("Where tools start, within the session's directory.")
    fallback_model: str | None = column("Model to use when the first one is overloaded.")
    effort: str | None = column("How hard the model thinks: low, medium, high, xhigh or max.")
    max_thinking_tokens: int | None = column("Most tokens of thinking per request.")
    task_budget_tokens: int | None = column("Tokens that the model is told it has for the task.")
    output_schema: JSON | None = column("JSON Schema that the final answer must fit.")
    subagents: list[Subagent] = column("Subagents that the runtime may call.")
    skills: list[str] | None = column("Skills that are loaded; null for the runtime's default.")
    setting_sources: list[str] | None = column(
        "Which of Claude Code's settings files of the working directory are read: project, local."
    )
    betas: list[str] = column("Beta features of the provider.")
    extra: JSON = column("Further options of the runtime.")


@input_type
class SubagentInput:
    """A subagent that the runtime may call by name."""

    name: str = strawberry.field(description="Lower-case letters, digits and hyphens.")
    description: str = strawberry.field(description="When to use it.")
    prompt: str = strawberry.field(description="Its system prompt.")
    tools: list[str] | None = strawberry.field(
        default=None, description="Its tools; all of the session's where left out."
    )
    model: str | None = strawberry.field(default=None, description="Its model; the session's where left out.")


@input_type
class ApprovalRuleInput:
    """What happens when a tool is called."""

    tool: str = strawberry.field(description="A tool's name, or a pattern with `*` as in `git.*`.")
    decision: RuleDecision = strawberry.field(description="What happens.")
    reason: str | None = strawberry.field(
        default=None, description="Why: for whoever decides, or for the agent that is refused. Up to 500 characters."
    )


@input_type
class SessionOptionsInput:
    """What a session is started with. Names and meaning follow the Claude Agent SDK; other runtimes use what they
    can."""

    allowed_tools: list[str] = strawberry.field(
        default_factory=list,
        description="Tools that run without a decision: names, or patterns with `*` as in `git.*`.",
    )
    disallowed_tools: list[str] = strawberry.field(
        default_factory=list, description="Tools that never run; patterns too."
    )
    approval_rules: list[ApprovalRuleInput] = strawberry.field(
        default_factory=list,
        description="What happens when tools are called; the first that fits decides, before `allowedTools` and the "
        "permission mode.",
    )
    max_turns: int | None = strawberry.field(
        default=None, description="Most turns of the model in one run, 1 to 1,000."
    )
    max_budget_usd: Decimal | None = strawberry.field(default=None, description="Most US dollars one run may cost.")
    environment: list[str] = strawberry.field(
        default_factory=list, description="Names of the organisation's environment variables that tools get."
    )
    working_directory: str = strawberry.field(
        default=".", description="Where tools start, as a relative path in the session's own directory."
    )
    fallback_model: str | None = strawberry.field(
        default=None, description="Model to use when the first one is overloaded."
    )
    effort: str | None = strawberry.field(
        default=None, description="How hard the model thinks: low, medium, high, xhigh, max."
    )
    max_thinking_tokens: int | None = strawberry.field(default=None, description="Most tokens of thinking per request.")
    task_budget_tokens: int | None = strawberry.field(
        default=None, description="Tokens that the model is told it has for the task."
    )
    output_schema: JSON | None = strawberry.field(
        default=None, description="JSON Schema that the final answer must fit."
    )
    subagents: list[SubagentInput] = strawberry.field(
        default_factory=list, description="Subagents that the runtime may call."
    )
    skills: list[str] | None = strawberry.field(default=None, description="Skills to load.")
    setting_sources: list[str] | None = strawberry.field(
        default=None,
        description="Which of Claude Code's settings files of the working directory to read: project, local.",
    )
    betas: list[str] = strawberry.field(default_factory=list, description="Beta features of the provider.")
    extra: JSON | None = strawberry.field(
        default=None, description="Further options of the runtime as an object; docs/runtimes.md lists them."
    )

    def checked(self, *, field: str = "options") -> CheckedOptions:
        """What the services take; BadInput with every problem's place."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        rules = [vars(rule) | {"decision": rule.decision.value} for rule in self.approval_rules]
        return check_options(
            given | {"subagents": [vars(agent) for agent in self.subagents], "approval_rules": rules}, field=field
        )
