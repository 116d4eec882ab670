"""Reads around starting sessions from templates: the form, and what sessions were started from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core import db
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.mcp_servers import EnvironmentVariable
from models.templates import (
    SessionTemplate,
    SessionTemplateVersion,
    TemplateLevel,
    TemplateRow,
    TemplateVersionRow,
)
from resolvers import reading
from resolvers.reading import needing
from resolvers.templates import COLUMNS, VERSION_COLUMNS
from services.templates import form
from services.templates.spec import load_spec


@dataclass(frozen=True, slots=True)
class TemplateForm:
    """What a session can be started with."""

    template: TemplateRow
    version: TemplateVersionRow
    fields: Sequence[form.Field]
    overrides: Sequence[form.OverrideOption]
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """What a session was started from; None for what the reader may not see."""

    template: TemplateRow | None
    version: TemplateVersionRow | None
    parameters: dict[str, Any]
    newer_version: TemplateVersionRow | None


class _Allowed(Row):
    __slots__ = ()


async def template_form(actor: Actor, template_id: UUID, number: int | None) -> TemplateForm | None:
    """The form of a version, the newest one by default; None where there is none that the actor may use."""
    query = Query()
    template = await db.fetchrow(
        f"SELECT {COLUMNS} FROM session_templates WHERE id = {query.arg(template_id)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(actor, TemplateLevel.USE), by_row=True)}",
        *query.args,
        row=TemplateRow,
    )
    if template is None:
        return None
    wanted = template["latest_version"] if number is None else number
    if not 0 < wanted < 2**31:
        return None
    version = await db.fetchrow(
        "SELECT * FROM session_template_versions WHERE template_id = $1 AND number = $2",
        template_id,
        wanted,
        row=TemplateVersionRow,
    )
    if version is None:
        return None
    spec = load_spec(version["spec"])
    fields = form.fields_of(spec, await _variables(actor))
    return TemplateForm(template, version, fields, form.overrides_of(spec), spec.parameters)


async def _variables(actor: Actor) -> list[str]:
    """The names of the organisation's environment variables, for those who may read them."""
    if Permission.TOOLS_READ not in actor.permissions:
        return []
    query = Query()
    rows = await db.fetch(
        f"SELECT name FROM environment_variables WHERE {query.scope(EnvironmentVariable.visible_to(actor))} "
        "ORDER BY name LIMIT 1000",
        *query.args,
    )
    return [row["name"] for row in rows]


async def _uses_of_sessions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateUse | None]:
    """What sessions were started from; None for those that were not started from a template."""
    versions = await reading.by_ids(
        "session_template_versions",
        TemplateVersionRow,
        SessionTemplateVersion.visible_to(actor),
        {each["template_version_id"] for each in parents if each["template_version_id"] is not None},
        columns=VERSION_COLUMNS,
    )
    templates = await reading.by_ids(
        "session_templates",
        TemplateRow,
        SessionTemplate.visible_to(actor),
        {version["template_id"] for version in versions.values()},
        columns=COLUMNS,
    )
    newest = {
        row["template_id"]: row
        for row in await db.fetch(
            f"SELECT {VERSION_COLUMNS} FROM session_template_versions WHERE (template_id, number) IN "
            "(SELECT * FROM unnest($1::uuid[], $2::int[]))",
            list(templates),
            [template["latest_version"] for template in templates.values()],
            row=TemplateVersionRow,
        )
    }
    return [
        None if each["template_version_id"] is None else _use(each, versions, templates, newest) for each in parents
    ]


def _use(session: Any, versions: dict[UUID, Any], templates: dict[UUID, Any], newest: dict[UUID, Any]) -> TemplateUse:
    version = versions.get(session["template_version_id"])
    template = None if version is None else templates.get(version["template_id"])
    newer = None if template is None else newest.get(template["id"])
    if newer is not None and version is not None and newer["number"] <= version["number"]:
        newer = None
    return TemplateUse(template, version, session["template_parameters"] or {}, newer)


async def _servers_of_sessions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[list[_Allowed]]:
    """The servers of sessions of which not all tools may be used, in order."""
    rows = await db.fetch(
        "SELECT links.session_id, links.allowed_tools AS tools, mcp_servers.name AS server "
        "FROM session_mcp_servers AS links JOIN mcp_servers ON mcp_servers.id = links.mcp_server_id "
        "WHERE links.session_id = ANY($1) AND links.allowed_tools IS NOT NULL ORDER BY links.position",
        list({each["id"] for each in parents}),
        row=_Allowed,
    )
    found: dict[UUID, list[_Allowed]] = {}
    for row in rows:
        found.setdefault(row["session_id"], []).append(row)
    return [found.get(each["id"], []) for each in parents]


template_uses_of_sessions = needing(Permission.TEMPLATES_READ, _uses_of_sessions)
allowed_tools_of_sessions = needing(Permission.TOOLS_READ, _servers_of_sessions)
