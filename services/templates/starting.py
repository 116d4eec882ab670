"""Starting sessions from templates: values into the texts, what may be overridden, and the session with all it has."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput, Conflict, Forbidden, NotFound, QuarterdeckError
from core.ids import encode, new_id
from core.permissions import Actor, Permission
from models.base import Query
from models.mcp_servers import McpServer, McpServerRow
from models.sessions import PermissionMode, SessionPurpose, SessionRow, Visibility
from models.templates import SessionTemplate, TemplateLevel, TemplateRow, TemplateVersionRow
from services import idempotency
from services.parts import parts
from services.sessions.lifecycle import (
    NewSession,
    Origins,
    check_new,
    fresh,
    insert_session,
    make_directory,
    public,
    read_in,
    runtime_for,
)
from services.sessions.messages import add_message, check_message
from services.sessions.options import SessionOptions
from services.sharing.policy import policy_in
from services.templates.parameters import check_values, secrets_of
from services.templates.seeding import plant
from services.templates.spec import Overridable, TemplateSpec, load_spec
from services.templates.texts import Texts, rendered
from services.work import Work, write

logger = logging.getLogger(__name__)

MOST_MESSAGES = 20


@dataclass(frozen=True, slots=True)
class Overrides:
    """What whoever starts a session gives instead of what the template says; None takes the template's."""

    title: str | None = None
    labels: Mapping[str, str] | None = None
    """Added to the template's; those of the same name replace them."""
    visibility: Visibility | None = None
    model: str | None = None
    runtime: str | None = None
    system_prompt: str | None = None
    permission_mode: PermissionMode | None = None
    options: SessionOptions | None = None
    """Each that differs from its default replaces the template's."""
    mcp_server_ids: Sequence[UUID] | None = None
    messages: Sequence[str] | None = None
    """Sent as they are instead of the template's messages or playbook."""
    max_cost_usd: Decimal | None = None
    max_turns: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """What a session is started from."""

    template_id: UUID
    version: int | None = None
    """None for the newest."""
    parameters: Mapping[str, Any] | None = None
    overrides: Overrides = Overrides()
    message: str | None = None
    """Sent after the template's own messages, as it is."""


@dataclass(frozen=True, slots=True)
class Started:
    """The session, and what whoever started it should know."""

    session: SessionRow
    warnings: Sequence[str]


async def start_from_template(actor: Actor, start: Start, *, key: str | None = None) -> Started:
    """Start a session from a version of a template; takes USE.

    Raises NotFound without USE and for a version that is not there, BadInput with all that is wrong with parameters
    and overrides, Conflict where what the template needs is not there (any more).
    """
    async with write(actor, "session.start") as work:
        found = await idempotency.claim(work, "startSession", key, _as_json(start))
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            work.target("Session", found.earlier)
            return Started(await read_in(work, found.earlier), ())
        actor.require(Permission.TEMPLATES_READ)
        template = await _usable(work, start.template_id)
        version = await _version(work, template, start.version)
        warnings = list(_warnings(template, version))
        origins = Origins(version["id"], told={"template": encode("tpl", template["id"]), "version": version["number"]})
        await _start(
            work,
            found.result_id,
            load_spec(version["spec"]),
            start,
            origins,
            details={"template": encode("tpl", template["id"]), "version": version["number"]},
            title=template["title"],
            warnings=warnings,
        )
        work.after_commit(lambda: _count_use(template["id"], version["id"]))
    return Started(await fresh(actor, found.result_id), warnings)


async def start_session(
    actor: Actor,
    spec: TemplateSpec,
    parameters: Mapping[str, Any],
    overrides: Overrides | None = None,
    *,
    template_id: UUID,
    purpose: SessionPurpose = SessionPurpose.TEMPLATE_TEST,
    messages: Sequence[str] = (),
    session_id: UUID | None = None,
) -> SessionRow:
    """Start a session from a configuration that is no version (yet): a test, whose runtime is the one that the
    configuration says for tests. `messages` are sent after the template's own."""
    given = overrides or Overrides()
    if purpose is SessionPurpose.TEMPLATE_TEST and given.runtime is None and spec.test.runtime is not None:
        given = replace(given, runtime=spec.test.runtime)
        spec = spec.model_copy(update={"model": None if given.runtime == "script" else spec.model})
    session_id = session_id or new_id()
    async with write(actor, "session.start") as work:
        await _start(
            work,
            session_id,
            spec.model_copy(update={"overridable": tuple(Overridable)}),
            Start(template_id, parameters=parameters, overrides=given),
            Origins(purpose=purpose),
            details={"template": encode("tpl", template_id), "purpose": purpose.value},
            further=messages,
        )
    return await fresh(actor, session_id)


async def _start(
    work: Work,
    session_id: UUID,
    spec: TemplateSpec,
    start: Start,
    origins: Origins,
    *,
    details: dict[str, Any],
    title: str | None = None,
    further: Sequence[str] = (),
    warnings: list[str] | None = None,
) -> None:
    given = start.overrides
    values = _checked(spec, start)
    if spec.visibility is not None and given.visibility is None:
        given = replace(given, visibility=await _visibility(work, spec.visibility, warnings))
    runtime = runtime_for(given.runtime or spec.runtime, given.model or spec.model)
    texts = rendered(spec, runtime, values)
    texts = replace(texts, title=texts.title or title)
    if given.messages is not None:
        texts = replace(texts, messages=_sendable(given.messages, runtime, "overrides.messages"))
    if start.message is not None:
        further = [*_sendable([start.message], runtime, "message"), *further]
    messages = [*texts.messages, *further]
    secrets = [values[name] for name in secrets_of(spec.parameters) if name in values]
    options = _options(spec, given, secrets)
    await _check_variables(work, spec, values, options)
    servers, allowed = await _servers(work, spec, given)
    new = _new(spec, given, texts, runtime, options, servers)
    check_new(new)
    row = await insert_session(
        work, session_id, new, runtime, replace(origins, parameters=values, allowed_tools=allowed)
    )
    for message in messages:
        await add_message(work, row, message, message_id=new_id())
    work.changed(after=public(row, servers) | details | {"parameters": sorted(values), "messages": len(messages)})
    make_directory(row["organization_id"], row["id"])
    await plant(work, row, spec.seed)


def _new(
    spec: TemplateSpec, given: Overrides, texts: Texts, runtime: str, options: SessionOptions, servers: Sequence[UUID]
) -> NewSession:
    return NewSession(
        title=given.title if given.title is not None else texts.title,
        runtime=runtime,
        model=given.model or spec.model,
        system_prompt=given.system_prompt if given.system_prompt is not None else texts.system_prompt,
        permission_mode=given.permission_mode or spec.permission_mode,
        options=options,
        visibility=given.visibility,
        labels=dict(texts.labels) | dict(given.labels or {}),
        mcp_server_ids=servers,
    )


# -- what is given


_OVERRIDDEN = {
    "title": (Overridable.TITLE, "title"),
    "labels": (Overridable.LABELS, "labels"),
    "visibility": (Overridable.VISIBILITY, "visibility"),
    "model": (Overridable.MODEL, "model"),
    "runtime": (Overridable.RUNTIME, "runtime"),
    "system_prompt": (Overridable.SYSTEM_PROMPT, "systemPrompt"),
    "permission_mode": (Overridable.PERMISSION_MODE, "permissionMode"),
    "options": (Overridable.OPTIONS, "options"),
    "mcp_server_ids": (Overridable.MCP_SERVERS, "mcpServerIds"),
    "messages": (Overridable.MESSAGES, "messages"),
    "max_cost_usd": (Overridable.BUDGET, "budget.maxCostUsd"),
    "max_turns": (Overridable.BUDGET, "budget.maxTurns"),
}


def _checked(spec: TemplateSpec, start: Start) -> dict[str, Any]:
    """The values with defaults; BadInput with all that is wrong with parameters and overrides, at once."""
    problems = list(_forbidden(spec, start.overrides))
    values: dict[str, Any] = {}
    try:
        values = check_values(spec.parameters, start.parameters or {}, "parameters")
    except BadInput as error:
        fields_ = error.details.get("fields") or [{"field": error.field or "parameters", "message": error.message}]
        problems = [(each["field"], each["message"]) for each in fields_] + problems
    if problems:
        raise BadInput.of_fields(problems)
    return values


def _forbidden(spec: TemplateSpec, given: Overrides) -> Iterator[tuple[str, str]]:
    for each in fields(given):
        which, field = _OVERRIDDEN[each.name]
        if getattr(given, each.name) is not None and which not in spec.overridable:
            yield f"overrides.{field}", "The template does not let this be overridden."
    if given.options is not None and Overridable.OPTIONS in spec.overridable:
        if given.options.approval_rules:
            yield "overrides.options.approvalRules", "The rules of a template cannot be overridden."
        if Overridable.BUDGET not in spec.overridable:
            for name, field in (("max_turns", "maxTurns"), ("max_budget_usd", "maxBudgetUsd")):
                if getattr(given.options, name) is not None:
                    yield f"overrides.options.{field}", "The template does not let its budget be overridden."


def _sendable(messages: Sequence[str], runtime: str, field: str) -> Sequence[str]:
    """The messages, where each of them can be sent as it is."""
    problems = []
    for index, text in enumerate(messages):
        try:
            check_message(text)
            parts().runtimes[runtime].validate(text)
        except QuarterdeckError as error:
            problems.append((field if field == "message" else f"{field}.{index}", error.message))
    if len(messages) > MOST_MESSAGES:
        problems.append((field, f"A session is started with at most {MOST_MESSAGES} messages."))
    if problems:
        raise BadInput.of_fields(problems)
    return messages


def _options(spec: TemplateSpec, given: Overrides, secrets: Sequence[str]) -> SessionOptions:
    budget = {
        "max_turns": spec.budget.max_turns or spec.options.max_turns,
        "max_budget_usd": spec.budget.max_cost_usd or spec.options.max_budget_usd,
    }
    theirs: dict[str, Any] = {}
    if given.options is not None:
        theirs = {name: getattr(given.options, name) for name in given.options.stored()}
    if given.max_turns is not None:
        theirs["max_turns"] = given.max_turns
    if given.max_cost_usd is not None:
        theirs["max_budget_usd"] = given.max_cost_usd
    found = spec.options.model_copy(update=budget | theirs)
    return found.model_copy(
        update={
            "approval_rules": (*spec.approval_rules, *spec.options.approval_rules),
            "environment": tuple(dict.fromkeys([*found.environment, *secrets])),
        }
    )


async def _visibility(work: Work, wanted: Visibility, warnings: list[str] | None) -> Visibility | None:
    """The template's visibility, where the organisation's policy lets it be."""
    try:
        (await policy_in(work)).check_visibility(wanted)
    except Forbidden as error:
        if warnings is not None:
            warnings.append(f"The session is not open to the organisation as the template says. {error.message}")
        return None
    return wanted


# -- what is there


async def _usable(work: Work, template_id: UUID) -> TemplateRow:
    """The template, which is not held: those who start sessions do not wait for each other."""
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM session_templates WHERE id = {query.arg(template_id)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(work.actor, TemplateLevel.USE), by_row=True)}",
        *query.args,
        row=TemplateRow,
    )
    if row is None:
        raise NotFound("There is no such template, or you may not use it.", field="templateId")
    work.target("SessionTemplate", row["id"], row["title"])
    return row


async def _version(work: Work, template: TemplateRow, number: int | None) -> TemplateVersionRow:
    if not template["latest_version"]:
        raise Conflict("This template has no version yet: publish its draft first.", field="templateId")
    row = await work.tx.fetchrow(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = $2",
        template["id"],
        template["latest_version"] if number is None else number,
        row=TemplateVersionRow,
    )
    if row is None:
        raise NotFound(f"There is no version {number}; there are 1 to {template['latest_version']}.", field="version")
    return row


def _warnings(template: TemplateRow, version: TemplateVersionRow) -> Iterator[str]:
    if template["deprecated_at"] is not None:
        instead = ""
        if template["replaced_by_id"] is not None:
            instead = f" Use {encode('tpl', template['replaced_by_id'])} instead."
        yield f"The template is deprecated. {template['deprecation_note'] or ''}".strip() + instead
    if version["deprecated_at"] is not None:
        instead = "" if version["replacement_version"] is None else f" Use version {version['replacement_version']}."
        yield f"Version {version['number']} is deprecated. {version['deprecation_note'] or ''}".strip() + instead


async def _servers(
    work: Work, spec: TemplateSpec, given: Overrides
) -> tuple[list[UUID], dict[UUID, Sequence[str] | None]]:
    """The servers' ids in order, and which of their tools may be used."""
    query = Query()
    rows = await work.tx.fetch(
        f"SELECT id, name FROM mcp_servers WHERE name = ANY({query.arg([each.server for each in spec.mcp_servers])}) "
        f"AND removed_at IS NULL AND {query.scope(McpServer.visible_to(work.actor))}",
        *query.args,
        row=McpServerRow,
    )
    found = {row["name"]: row["id"] for row in rows}
    allowed: dict[UUID, Sequence[str] | None] = {
        found[each.server]: each.tools for each in spec.mcp_servers if each.server in found
    }
    if given.mcp_server_ids is not None:
        return list(given.mcp_server_ids), allowed
    if missing := [each.server for each in spec.mcp_servers if each.server not in found]:
        raise Conflict(
            f"The template uses MCP servers that your organisation does not have (any more): {', '.join(missing)}. "
            "An admin can register them with registerMcpServer.",
            field="templateId",
            servers=missing,
        )
    return [found[each.server] for each in spec.mcp_servers], allowed


async def _check_variables(work: Work, spec: TemplateSpec, values: Mapping[str, Any], options: SessionOptions) -> None:
    if not options.environment:
        return
    rows = await work.tx.fetch(
        "SELECT name FROM environment_variables WHERE organization_id = $1 AND name = ANY($2)",
        work.actor.organization_id,
        list(options.environment),
    )
    missing = set(options.environment) - {row["name"] for row in rows}
    if problems := [
        (f"parameters.{name}", "There is no environment variable of this name. An admin can set it.")
        for name in secrets_of(spec.parameters)
        if values.get(name) in missing
    ]:
        raise BadInput.of_fields(problems)
    if missing:
        names = sorted(missing)
        raise Conflict(
            f"The session needs environment variables that are not set: {', '.join(names)}. "
            "An admin can set them with setEnvironmentVariable.",
            field="templateId",
            variables=names,
        )


async def _count_use(template_id: UUID, version_id: UUID) -> None:
    """After the commit, so that nobody who starts a session waits for others who do; a count that is lost with its
    process is one too few."""
    try:
        await db.execute("UPDATE session_templates SET use_count = use_count + 1 WHERE id = $1", template_id)
        await db.execute("UPDATE session_template_versions SET use_count = use_count + 1 WHERE id = $1", version_id)
    except Exception:
        logger.exception("A use of template %s was not counted.", encode("tpl", template_id))


def _as_json(start: Start) -> dict[str, Any]:
    given = start.overrides
    return {
        "template": str(start.template_id),
        "version": start.version,
        "parameters": start.parameters,
        "message": start.message,
        "overrides": {each.name: getattr(given, each.name) for each in fields(given) if each.name != "options"}
        | {"options": None if given.options is None else given.options.stored()},
    }
