"""The sessions that tests of templates run in, and what is said in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core import db
from core.permissions import Actor
from models.sessions import SessionPurpose, SessionRow
from services.templates.spec import TemplateSpec
from services.templates.starting import start_session
from services.templates.texts import messages_for, rendered
from services.templates.validation import runtime_of


async def session_of_test(
    actor: Actor, template_id: UUID, spec: TemplateSpec, parameters: Mapping[str, Any], session_id: UUID
) -> SessionRow:
    """A session with exactly this configuration and its first messages; the one with this id, where it is there."""
    found = await db.fetchrow("SELECT * FROM sessions WHERE id = $1", session_id, row=SessionRow)
    if found is not None:
        return found
    return await start_session(
        actor,
        spec,
        parameters,
        template_id=template_id,
        purpose=SessionPurpose.TEMPLATE_TEST,
        session_id=session_id,
    )


def opening_messages(spec: TemplateSpec) -> Sequence[str]:
    """What a test's session begins with."""
    return [text for _, text in messages_for(spec, _runtime(spec))]


def planned_messages(spec: TemplateSpec, parameters: Mapping[str, Any]) -> Sequence[str]:
    """What the plan sends after that, with the values. Raises BadInput for what cannot be sent."""
    plan = TemplateSpec(messages=spec.test.messages, parameters=spec.parameters)
    return rendered(plan, _runtime(spec), parameters).messages


def _runtime(spec: TemplateSpec) -> str:
    return spec.test.runtime or runtime_of(spec)
