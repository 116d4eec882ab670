"""Offers to take a session over, and what became of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import Row, Scope
from models.sessions import in_visible_session


class HandoffStatus(StrEnum):
    """Where a handoff is. It begins OFFERED; of the others only ACCEPTED can change once more, to UNDONE."""

    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    DECLINED = "DECLINED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNDONE = "UNDONE"


class HandoffRow(Row):
    __slots__ = ()


class Handoff(Model):
    """One offer. A session has at most one open (a partial unique index of the migration)."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    session_title = fields.CharField(200)
    """As it was when the offer was made: the receiver reads it without access to the session."""
    giver: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    """The session's owner."""
    receiver: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    offered_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    """The owner, or an admin in their place."""
    note = fields.TextField()
    reply = fields.TextField(null=True)
    """What the receiver said when they declined."""
    keep_access = fields.BooleanField(default=True)
    status = fields.CharEnumField(HandoffStatus, max_length=20, default=HandoffStatus.OFFERED)
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)
    """When it was accepted, declined, cancelled, or expired."""
    undo_until = fields.DatetimeField(null=True)
    undone_at = fields.DatetimeField(null=True)

    class Meta:
        table = "handoffs"
        indexes = [("session_id", "id"), ("receiver_id", "id"), ("giver_id", "id"), ("offered_by_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Its parties, also those who do not see the session; and whoever sees the session."""
        session = in_visible_session("handoffs", actor)
        return Scope(
            "handoffs.organization_id = {} AND (handoffs.receiver_id = {} OR handoffs.giver_id = {} "
            f"OR handoffs.offered_by_id = {{}} OR {session.condition})",
            (actor.organization_id, actor.user_id, actor.user_id, actor.user_id, *session.args),
        )
