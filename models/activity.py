"""What sessions did, by time. The table is made by SQL: a hypertable has no primary key."""

from __future__ import annotations

from core.permissions import Actor
from models.base import Row, Scope
from models.sessions import in_visible_session


class ActivityPointRow(Row):
    __slots__ = ()


def visible_to(actor: Actor) -> Scope:
    """Facts are as visible as the sessions they come from; an admin's index needs no look at the sessions."""
    if actor.is_admin:
        return Scope("activity_facts.organization_id = {}", (actor.organization_id,))
    sessions = in_visible_session("activity_facts", actor)
    return Scope(
        f"activity_facts.organization_id = {{}} AND {sessions.condition}", (actor.organization_id, *sessions.args)
    )
