"""Validation for somebody: of a template that they may see, or of what they have."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput, NotFound
from core.permissions import Actor
from services.templates.access import find_template
from services.templates.validation import Validation, servers_asked_now, specification, validate_given


async def validate_for(
    actor: Actor,
    *,
    template_id: UUID | None,
    version: int | None,
    given: dict[str, Any] | None,
    several: bool,
    check_servers: bool,
) -> Validation:
    """What is wrong with a template's draft or version, or with a configuration that is given. Nothing is written.

    Raises BadInput where not exactly one of them is named, NotFound.
    """
    if several or (template_id is None) == (given is None):
        raise BadInput("Give one of templateId, spec and specJson.", field="templateId")
    if template_id is None and version is not None:
        raise BadInput("A version is one of a template: give templateId, too.", field="version")
    if template_id is not None:
        given = await _stored(actor, template_id, version)
    assert given is not None
    spec = specification(given) if check_servers else None
    servers = None if spec is None else await servers_asked_now(actor.organization_id, spec)
    return await validate_given(actor.organization_id, given, servers=servers)


async def _stored(actor: Actor, template_id: UUID, version: int | None) -> dict[str, Any]:
    template = await find_template(actor, template_id)
    if version is None:
        return dict(template["draft"])
    spec = await db.fetchval(
        "SELECT spec FROM session_template_versions WHERE template_id = $1 AND number = $2", template_id, version
    )
    if spec is None:
        raise NotFound(f"The template has no version {version}.", field="version")
    return dict(spec)
