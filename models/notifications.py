"""What people are told of, and how they want to be told."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor, ActorKind
from models.base import Row, Scope


class NotificationKind(StrEnum):
    """Why somebody is told."""

    MENTION = "MENTION"
    REPLY = "REPLY"
    SHARE = "SHARE"
    HANDOFF = "HANDOFF"
    APPROVAL_WANTED = "APPROVAL_WANTED"
    RUN_FINISHED = "RUN_FINISHED"
    REPORT = "REPORT"
    BUDGET = "BUDGET"
    MONITOR = "MONITOR"


class EmailMode(StrEnum):
    """Whether, and when, a notification also comes by e-mail."""

    OFF = "OFF"
    IMMEDIATE = "IMMEDIATE"
    DIGEST = "DIGEST"


class DeliveryStatus(StrEnum):
    """What became of what was to be sent."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


DEFAULT_EMAIL = {
    NotificationKind.MENTION: EmailMode.IMMEDIATE,
    NotificationKind.REPLY: EmailMode.DIGEST,
    NotificationKind.SHARE: EmailMode.IMMEDIATE,
    NotificationKind.HANDOFF: EmailMode.IMMEDIATE,
    NotificationKind.APPROVAL_WANTED: EmailMode.IMMEDIATE,
    NotificationKind.RUN_FINISHED: EmailMode.OFF,
    NotificationKind.REPORT: EmailMode.IMMEDIATE,
    NotificationKind.BUDGET: EmailMode.IMMEDIATE,
    NotificationKind.MONITOR: EmailMode.IMMEDIATE,
}
"""For those who have said nothing of a kind. In the inbox they have everything."""


class NotificationRow(Row):
    __slots__ = ()


class Notification(Model):
    """One person told of one thing.

    The migration adds `changed_xid` and `changed_seq`, which Tortoise has no words for: the row's place in the live
    feed, given anew when it is read.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    kind = fields.CharEnumField(NotificationKind, max_length=20)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, null=True, on_delete=fields.CASCADE)
    subject_kind = fields.CharField(40, null=True)
    subject_id = fields.UUIDField(null=True)
    """What it is about: a type of the graph, and the id of one."""
    actor_kind = fields.CharEnumField(ActorKind, max_length=20)
    actor: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.SET_NULL)
    title = fields.CharField(300)
    body = fields.TextField()
    in_app = fields.BooleanField(default=True)
    """False for what its user wants by other ways only; their inbox does not have it."""
    created_at = fields.DatetimeField(auto_now_add=True)
    read_at = fields.DatetimeField(null=True)

    class Meta:
        table = "notifications"
        indexes = [("user_id", "id"), ("session_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """One's own, as far as they are in the inbox. Nobody sees another's, no admin either."""
        return Scope("notifications.user_id = {} AND notifications.in_app", (actor.user_id,))


class NotificationPreference(Model):
    """How a user wants to be told of a kind. Without a row, DEFAULT_EMAIL."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    kind = fields.CharEnumField(NotificationKind, max_length=20)
    in_app = fields.BooleanField()
    email = fields.CharEnumField(EmailMode, max_length=20)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "notification_preferences"
        unique_together = (("user_id", "kind"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("notification_preferences.user_id = {}", (actor.user_id,))


class NotificationDelivery(Model):
    """A notification on its way out of the house by one channel; written in the transaction of what it tells."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    notification: Any = fields.ForeignKeyField("models.Notification", related_name=False, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    channel = fields.CharField(20)
    """The name of a Notifier: `email`."""
    digest = fields.BooleanField()
    """Whether it goes out together with the user's others."""
    status = fields.CharEnumField(DeliveryStatus, max_length=20, default=DeliveryStatus.PENDING)
    attempts = fields.IntField(default=0)
    next_attempt_at = fields.DatetimeField()
    claimed_until = fields.DatetimeField(null=True)
    """Until then it is in a worker's hands; afterwards that worker is taken for dead."""
    last_error = fields.TextField(null=True)
    sent_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "notification_deliveries"
        indexes = [("notification_id",)]
