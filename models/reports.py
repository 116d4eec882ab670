"""Reports: what is asked for, when, by whom, and what was made of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import JsonField, Row, Scope, UuidArrayField


class ReportKind(StrEnum):
    """What a report tells."""

    METRICS = "METRICS"
    COSTS = "COSTS"
    FACTS = "FACTS"
    FOCUS = "FOCUS"


class ReportFormat(StrEnum):
    """What a report is written as."""

    CSV = "CSV"
    JSON = "JSON"
    PDF = "PDF"


class ReportSchedule(StrEnum):
    """How often a report is made by itself."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"


class ReportStatus(StrEnum):
    """Where the making of a report is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


class ReportDefinitionRow(Row):
    __slots__ = ()


class ReportRunRow(Row):
    __slots__ = ()


class ReportDefinition(Model):
    """A report that is made again and again: by hand, or by its schedule."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    """In whose name it is made: it tells what they may see then."""
    name = fields.CharField(200)
    kind = fields.CharEnumField(ReportKind, max_length=20)
    format = fields.CharEnumField(ReportFormat, max_length=20)
    timezone = fields.CharField(64)
    question = JsonField(default=dict)
    """In the shape of services.reports.questions.ReportQuestion."""
    schedule = fields.CharEnumField(ReportSchedule, max_length=20, null=True)
    schedule_hour = fields.IntField(default=6)
    """Of the day, in the report's time zone."""
    schedule_day = fields.IntField(default=1)
    """1 for Monday to 7 where it is weekly; of the month, 1 to 28, where it is monthly."""
    next_at = fields.DatetimeField(null=True)
    recipients = UuidArrayField(default=list)
    """Users who are told of it, and may download it."""
    problem = fields.TextField(null=True)
    """Why its schedule has been stopped."""
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "report_definitions"
        indexes = [("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """One's own; all of the organisation's for its admins."""
        if actor.is_admin:
            return Scope("report_definitions.organization_id = {}", (actor.organization_id,))
        return Scope(
            "report_definitions.organization_id = {} AND report_definitions.owner_id = {}",
            (actor.organization_id, actor.user_id),
        )


class ReportRun(Model):
    """A report that is being made, or was."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    definition: Any = fields.ForeignKeyField(
        "models.ReportDefinition", related_name=False, null=True, on_delete=fields.SET_NULL
    )
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(200)
    kind = fields.CharEnumField(ReportKind, max_length=20)
    format = fields.CharEnumField(ReportFormat, max_length=20)
    timezone = fields.CharField(64)
    question = JsonField(default=dict)
    start = fields.DatetimeField()
    end = fields.DatetimeField()
    recipients = UuidArrayField(default=list)
    scheduled_for = fields.DatetimeField(null=True)
    status = fields.CharEnumField(ReportStatus, max_length=20, default=ReportStatus.QUEUED)
    attempt = fields.IntField(default=0)
    """Counts who has taken it up: whoever is not the last may not write to it any more."""
    lease_until = fields.DatetimeField(null=True)
    rows = fields.BigIntField(null=True)
    size = fields.BigIntField(null=True)
    """Bytes."""
    sha256 = fields.CharField(64, null=True)
    error_code = fields.CharField(60, null=True)
    error_message = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    started_at = fields.DatetimeField(null=True)
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "report_runs"
        unique_together = (("definition_id", "scheduled_for"),)
        indexes = [("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """One's own, and those that one is a recipient of; all of the organisation's for its admins."""
        if actor.is_admin:
            return Scope("report_runs.organization_id = {}", (actor.organization_id,))
        return Scope(
            "report_runs.organization_id = {} "
            "AND (report_runs.owner_id = {} OR report_runs.recipients @> ARRAY[{}::uuid])",
            (actor.organization_id, actor.user_id, actor.user_id),
        )
