"""The configuration of templates in the graph: what drafts and versions consist of, and the input of it."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Any

import strawberry
from strawberry.scalars import JSON

from schema.fields import column, enum_type, input_type, object_type
from schema.session_options import ApprovalRule, ApprovalRuleInput, SessionOptions, SessionOptionsInput
from schema.sessions import Label, LabelInput, PermissionMode, Visibility
from services.templates import spec as specs

TemplateOverridable = enum_type(
    specs.Overridable,
    {
        "TITLE": "The session's title.",
        "LABELS": "The session's labels.",
        "VISIBILITY": "Who may read the session.",
        "MODEL": "The model.",
        "RUNTIME": "What drives the agent.",
        "SYSTEM_PROMPT": "What the agent is told first.",
        "PERMISSION_MODE": "Which tool calls need a decision.",
        "OPTIONS": "The further options.",
        "MCP_SERVERS": "The MCP servers.",
        "MESSAGES": "The first messages.",
        "BUDGET": "What the session may use.",
    },
)


@object_type
class TemplateServer:
    """An MCP server that sessions get, and which of its tools they may call."""

    server: str = column("The server's name in the organisation.")
    tools: list[str] | None = column("The tools that may be called; null for all of them.")


@object_type
class TemplateSeedFile:
    """A file that is written into a new session's directory."""

    path: str = column("Where, relative to the directory.")
    content: str = column("What is in it.")
    encoding: str = column("`utf-8`, or `base64` for what is no text.")
    executable: bool = column("Whether it may be run.")


@object_type
class TemplateSeedRepository:
    """A git repository that is cloned into a new session's directory."""

    url: str = column("Where it is.")
    revision: str = column("Which branch, tag or commit.")
    path: str = column("Where it goes, relative to the directory.")


@object_type
class TemplateSeedArchive:
    """An archive that is unpacked into a new session's directory."""

    url: str = column("Where it is; tar or zip.")
    sha256: str = column("The SHA-256 that it must have, hexadecimal.")
    path: str = column("Where it goes, relative to the directory.")


@object_type
class TemplateSeed:
    """What is in a session's directory before anything runs: repository and archive first, then the files."""

    repository: TemplateSeedRepository | None = column("A git repository.")
    archive: TemplateSeedArchive | None = column("An archive.")
    files: list[TemplateSeedFile] = column("Files, at most 200.")


@object_type
class TemplateBudget:
    """What a session may use."""

    max_cost_usd: Decimal | None = column("Most US dollars; null for no limit.")
    max_turns: int | None = column("Most turns of the model; null for no limit.")


@object_type
class TemplateTestCheck:
    """What a test run must bring about. One of these is not null."""

    answer_contains: str | None = column("Text that the agent's last message must contain.")
    tool_called: str | None = column("A tool that must have been called, and have succeeded.")
    file_exists: str | None = column("A file that must be in the directory afterwards.")


@object_type
class TemplateTestPlan:
    """How a template is tested."""

    runtime: str | None = column("The runtime to test with; null for the template's own.")
    parameters: JSON = column("The values of the parameters.")
    messages: list[str] = column("What is sent after the template's own messages.")
    checks: list[TemplateTestCheck] = column("What must be so afterwards.")
    max_cost_usd: Decimal | None = column("Most US dollars that a test may cost.")
    timeout_seconds: int = column("How long a test may take, in seconds.")


@object_type
class SessionTemplateSpec:
    """The configuration that sessions are started with, defaults filled in. `{{ name }}` in system prompt, messages,
    title and labels stands for a parameter."""

    runtime: str | None = column("What drives the agent; null for the installation's default.")
    model: str | None = column("The model, as the runtime spells it.")
    permission_mode: PermissionMode = column("Which tool calls need a decision.")
    system_prompt: str | None = column("What the agent is told first.")
    parameters: JSON = column("What whoever starts a session gives: a JSON Schema (2020-12) of an object.")
    mcp_servers: list[TemplateServer] = column("The MCP servers, at most 50.")
    options: SessionOptions = column("Further options.")
    approval_rules: list[ApprovalRule] = column("What happens when tools are called.")
    messages: list[str] = column("What is sent at once when a session is started.")
    playbook: str | None = column("What is sent instead of the messages where the runtime is `script`.")
    seed: TemplateSeed = column("What is in the session's directory before anything runs.")
    budget: TemplateBudget = column("What a session may use.")
    title: str | None = column("The title of sessions.")
    visibility: Visibility | None = column("Who may read sessions; null for what the organisation's policy says.")
    overridable: list[TemplateOverridable] = column("What may be given instead when a session is started.")
    test: TemplateTestPlan = column("How it is tested.")

    @strawberry.field(description="The labels of sessions.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root.labels.items())]


@input_type
class TemplateServerInput:
    """An MCP server that sessions get."""

    server: str = strawberry.field(description="The server's name in the organisation.")
    tools: list[str] | None = strawberry.field(
        default=None, description="The tools that may be called; left out, all of them."
    )


@input_type
class TemplateSeedFileInput:
    """A file that is written into a new session's directory."""

    path: str = strawberry.field(description="Where, relative to the directory.")
    content: str = strawberry.field(description="What is in it.")
    encoding: str = strawberry.field(default="utf-8", description="`utf-8`, or `base64` for what is no text.")
    executable: bool = strawberry.field(default=False, description="Whether it may be run.")


@input_type
class TemplateSeedRepositoryInput:
    """A git repository that is cloned into a new session's directory."""

    url: str = strawberry.field(description="Where it is.")
    revision: str = strawberry.field(description="Which branch, tag or commit.")
    path: str = strawberry.field(default=".", description="Where it goes, relative to the directory.")


@input_type
class TemplateSeedArchiveInput:
    """An archive that is unpacked into a new session's directory."""

    url: str = strawberry.field(description="Where it is; tar or zip.")
    sha256: str = strawberry.field(description="The SHA-256 that it must have, hexadecimal.")
    path: str = strawberry.field(default=".", description="Where it goes, relative to the directory.")


@input_type
class TemplateSeedInput:
    """What is in a session's directory before anything runs."""

    repository: TemplateSeedRepositoryInput | None = strawberry.field(default=None, description="A git repository.")
    archive: TemplateSeedArchiveInput | None = strawberry.field(default=None, description="An archive.")
    files: list[TemplateSeedFileInput] = strawberry.field(default_factory=list, description="Files, at most 200.")


@input_type
class TemplateBudgetInput:
    """What a session may use."""

    max_cost_usd: Decimal | None = strawberry.field(default=None, description="Most US dollars.")
    max_turns: int | None = strawberry.field(default=None, description="Most turns of the model, 1 to 1,000.")


@input_type
class TemplateTestCheckInput:
    """What a test run must bring about, beside ending well. Give exactly one."""

    answer_contains: str | None = strawberry.field(
        default=None, description="Text that the agent's last message must contain."
    )
    tool_called: str | None = strawberry.field(
        default=None, description="A tool that must have been called, and have succeeded."
    )
    file_exists: str | None = strawberry.field(
        default=None, description="A file that must be in the directory afterwards."
    )


@input_type
class TemplateTestPlanInput:
    """How a template is tested."""

    runtime: str | None = strawberry.field(
        default=None,
        description="The runtime to test with, where it is another than the template's: `script` needs no model.",
    )
    parameters: JSON | None = strawberry.field(default=None, description="The values of the parameters, an object.")
    messages: list[str] = strawberry.field(
        default_factory=list, description="What is sent after the template's own messages, at most 20."
    )
    checks: list[TemplateTestCheckInput] = strawberry.field(
        default_factory=list, description="What must be so afterwards, at most 50."
    )
    max_cost_usd: Decimal | None = strawberry.field(
        default=None, description="Most US dollars that a test may cost, up to 1,000."
    )
    timeout_seconds: int = strawberry.field(default=300, description="How long a test may take: 5 to 3,600 seconds.")


@input_type
class SessionTemplateSpecInput:
    """The configuration that sessions are started with. Everything may be left out. `{{ name }}` in system prompt,
    messages, title and labels stands for a parameter."""

    runtime: str | None = strawberry.field(
        default=None, description="`script`, `pydantic_ai` or `claude`; left out, the one that is configured."
    )
    model: str | None = strawberry.field(default=None, description="The model, as the runtime spells it.")
    permission_mode: PermissionMode = strawberry.field(
        default=PermissionMode.DEFAULT, description="Which tool calls need a decision."
    )
    system_prompt: str | None = strawberry.field(default=None, description="What the agent is told first.")
    parameters: JSON | None = strawberry.field(
        default=None,
        description="What whoever starts a session gives: a JSON Schema (2020-12) of an object whose properties are "
        "text, numbers, booleans, and lists of these.",
    )
    mcp_servers: list[TemplateServerInput] = strawberry.field(
        default_factory=list, description="The MCP servers, at most 50."
    )
    options: SessionOptionsInput | None = strawberry.field(default=None, description="Further options.")
    approval_rules: list[ApprovalRuleInput] = strawberry.field(
        default_factory=list, description="What happens when tools are called, at most 200."
    )
    messages: list[str] = strawberry.field(
        default_factory=list, description="What is sent at once when a session is started, at most 20."
    )
    playbook: str | None = strawberry.field(
        default=None,
        description="What is sent instead of the messages where the runtime is `script`, which has no model: a "
        "playbook, or a tool call.",
    )
    seed: TemplateSeedInput | None = strawberry.field(
        default=None, description="What is in the session's directory before anything runs."
    )
    budget: TemplateBudgetInput | None = strawberry.field(default=None, description="What a session may use.")
    title: str | None = strawberry.field(default=None, description="The title of sessions.")
    labels: list[LabelInput] = strawberry.field(default_factory=list, description="The labels of sessions.")
    visibility: Visibility | None = strawberry.field(
        default=None, description="Who may read sessions; left out, what the organisation's policy says."
    )
    overridable: list[TemplateOverridable] = strawberry.field(
        default_factory=list, description="What may be given instead when a session is started."
    )
    test: TemplateTestPlanInput | None = strawberry.field(default=None, description="How it is tested.")

    def checked(self, *, field: str = "spec") -> specs.TemplateSpec:
        """What the services take; BadInput with every problem's place."""
        return specs.check_spec(self.given(), field=field)

    def given(self) -> dict[str, Any]:
        """It as JSON, unchecked."""
        given: dict[str, Any] = _plain(self)
        given["labels"] = {label.name: label.value for label in self.labels}
        return given


def _plain(value: Any) -> Any:
    """An input as plain values, without what was left out."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if hasattr(value, "__strawberry_definition__"):
        return {name: _plain(each) for name, each in vars(value).items() if each is not None}
    return value
