"""Starting sessions from templates in the graph: the form, the mutation, and what a session was started from."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.errors import BadInput
from core.ids import decode
from core.permissions import Permission
from resolvers import template_starting as reads
from schema.fields import Info, column, decode_ids, enum_type, input_type, mutation, object_type, query
from schema.session_options import SessionOptionsInput
from schema.sessions import LabelInput, PermissionMode, Session, Visibility
from schema.template_specs import TemplateBudgetInput, TemplateOverridable
from schema.templates import SessionTemplate, SessionTemplateVersion, TemplateId
from services.templates import form, starting

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."

TemplateFieldKind = enum_type(
    form.FieldKind,
    {
        "TEXT": "A text on one line.",
        "MULTILINE": "A text of several lines.",
        "NUMBER": "A number.",
        "INTEGER": "A whole number.",
        "BOOLEAN": "Yes or no.",
        "CHOICE": "One of `choices`.",
        "MULTI_CHOICE": "Some of `choices`, as a list.",
        "LIST": "A list of values of `itemKind`.",
        "SECRET": "The name of one of the organisation's environment variables. Tools get the variable; the model is "
        "never told its value.",
    },
)


@object_type
class TemplateChoice:
    """A value to choose."""

    value: JSON = column("The value to send.")
    title: str = column("What it is called.")
    description: str | None = column("What it means.")


@object_type
class TemplateLimits:
    """What a value has to keep to. Null where there is no limit."""

    min_length: int | None = column("Least characters.")
    max_length: int | None = column("Most characters.")
    pattern: str | None = column("A regular expression that some part of the text must fit.")
    format: str | None = column("date, date-time, email, ipv4, ipv6, time, uri or uuid.")
    minimum: float | None = column("The least value.")
    maximum: float | None = column("The largest value.")
    exclusive_minimum: float | None = column("What the value must be more than.")
    exclusive_maximum: float | None = column("What the value must be less than.")
    multiple_of: float | None = column("What the value must be a multiple of.")
    min_items: int | None = column("Least items of a list.")
    max_items: int | None = column("Most items of a list.")
    unique_items: bool = column("Whether each item may be there only once.")


@object_type
class TemplateField:
    """One parameter, as a form asks for it."""

    name: str = column("Its name in `parameters`.")
    title: str = column("What it is called.")
    description: str | None = column("What it is for.")
    kind: TemplateFieldKind = column("How to ask for it.")
    required: bool = column("Whether it has to be given: it has no default.")
    default: JSON | None = column("Its value where none is given.")
    choices: list[TemplateChoice] = column("What can be chosen; for a secret the names of environment variables.")
    limits: TemplateLimits = column("What the value has to keep to.")
    item_kind: TemplateFieldKind | None = column("What a list consists of.")
    items: TemplateLimits | None = column("What each item of a list has to keep to.")
    deprecated: bool = column("Whether it should not be used any more.")


@object_type
class TemplateOverride:
    """What may be given instead of what the template says."""

    name: TemplateOverridable = column("What.")
    value: JSON | None = column("What the template says, as its files have it.")


@object_type
class SessionTemplateForm:
    """All that a client needs to ask for what a session is started with."""

    template: SessionTemplate = column("The template.")
    version: SessionTemplateVersion = column("The version that the form is of.")
    fields: list[TemplateField] = column("The parameters, in order.")
    overrides: list[TemplateOverride] = column("What may be overridden.")
    schema: JSON = column("The parameters as JSON Schema (2020-12), `{}` where there are none.")


@object_type
class SessionTemplateUse:
    """What a session was started from. It stays with its version, whatever is published later."""

    template: SessionTemplate | None = column("The template; null where you may not see it.")
    version: SessionTemplateVersion | None = column("The version; null where you may not see it.")
    parameters: JSON = column("The values it was started with, defaults filled in. A secret is a variable's name.")
    newer_version: SessionTemplateVersion | None = column(
        "The newest version, where there is a newer one than the session's."
    )


@object_type
class SessionServerTools:
    """A server of which a session may use some tools only."""

    server: str = column("The server's name.")
    tools: list[str] = column("The tools that may be used, by the server's own names.")


@input_type
class SessionOverridesInput:
    """What to take instead of what the template says. What the template does not let be overridden is refused."""

    title: str | None = strawberry.field(default=None, description="The session's title.")
    labels: list[LabelInput] | None = strawberry.field(
        default=None, description="Added to the template's labels; those of the same name replace them."
    )
    visibility: Visibility | None = strawberry.field(default=None, description="Who may read the session.")
    model: str | None = strawberry.field(default=None, description="The model, as the runtime spells it.")
    runtime: str | None = strawberry.field(default=None, description="`script`, `pydantic_ai` or `claude`.")
    system_prompt: str | None = strawberry.field(
        default=None, description="What the agent is told first, as it is: without values of parameters."
    )
    permission_mode: PermissionMode | None = strawberry.field(
        default=None, description="Which tool calls need a decision."
    )
    options: SessionOptionsInput | None = strawberry.field(
        default=None, description="Further options: each that is given replaces the template's."
    )
    mcp_server_ids: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="Replaces all MCP servers. What the template allows of a server's tools holds on.",
    )
    messages: list[str] | None = strawberry.field(
        default=None, description="Sent instead of the template's messages, as they are; at most 20."
    )
    budget: TemplateBudgetInput | None = strawberry.field(default=None, description="What the session may use.")

    def checked(self) -> starting.Overrides:
        """What the services take."""
        return starting.Overrides(
            title=self.title,
            labels=None if self.labels is None else {label.name: label.value for label in self.labels},
            visibility=self.visibility,
            model=self.model,
            runtime=self.runtime,
            system_prompt=self.system_prompt,
            permission_mode=self.permission_mode,
            options=None if self.options is None else self.options.checked(field="overrides.options"),
            mcp_server_ids=decode_ids("McpServer", self.mcp_server_ids, "overrides.mcpServerIds"),
            messages=self.messages,
            max_cost_usd=_within(self.budget and self.budget.max_cost_usd, 100_000, "maxCostUsd"),
            max_turns=_within(self.budget and self.budget.max_turns, 1000, "maxTurns"),
        )


@input_type
class StartSessionInput:
    """A session from a template."""

    template_id: strawberry.ID = strawberry.field(description="The template, `tpl_…`.")
    version: int | None = strawberry.field(default=None, description="Which version; left out, the newest.")
    parameters: JSON | None = strawberry.field(
        default=None, description="Values of the template's parameters, as an object; `sessionTemplateForm` lists them."
    )
    overrides: SessionOverridesInput | None = strawberry.field(
        default=None, description="What to take instead of what the template says."
    )
    message: str | None = strawberry.field(
        default=None, description="A message to send after the template's own, as it is."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@object_type
class StartSessionPayload:
    """What was started."""

    session: Session = strawberry.field(description="The session. Its first messages are queued.")
    warnings: list[str] = strawberry.field(
        description="What you should know, as that the template or its version is deprecated, and what to use instead."
    )


@strawberry.type
class TemplateStartingQuery:
    @query(Permission.TEMPLATES_READ)
    async def session_template_form(
        info: Info,
        template_id: TemplateId,
        version: Annotated[int | None, strawberry.argument(description="Which version; left out, the newest.")] = None,
    ) -> SessionTemplateForm | None:
        """What to ask for before a session is started from a template; null where there is none that you may use."""
        return await reads.template_form(info.context.actor, decode("tpl", template_id, field="templateId"), version)


@strawberry.type
class TemplateStartingMutation:
    @mutation(Permission.SESSIONS_WRITE)
    async def start_session(info: Info, input: StartSessionInput) -> StartSessionPayload:
        """Start a session of your own from a template. It takes USE of the template."""
        parameters: Any = input.parameters
        if parameters is not None and not isinstance(parameters, dict):
            raise BadInput("Give parameters as an object of names and values.", field="parameters")
        started = await starting.start_from_template(
            info.context.actor,
            starting.Start(
                template_id=decode("tpl", input.template_id, field="templateId"),
                version=input.version,
                parameters=parameters,
                overrides=input.overrides.checked() if input.overrides else starting.Overrides(),
                message=input.message,
            ),
            key=input.idempotency_key,
        )
        return StartSessionPayload(session=started.session, warnings=list(started.warnings))


def _within(value: Any, most: int, name: str) -> Any:
    """Decimal or integer over 0 and up to `most`; None where it is left out."""
    if value is not None and not Decimal(0) < Decimal(value) <= most:
        raise BadInput(f"It is more than 0, and at most {most:,}.", field=f"overrides.budget.{name}")
    return value
