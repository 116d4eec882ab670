"""What an organisation lets be told of people's use of the product, and who wants not to be named."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.permissions import Actor
from models.base import Row, Scope
from models.sharing import Allowance


class Individuals(StrEnum):
    """Who is shown the figures of single people."""

    SELF_ONLY = "SELF_ONLY"
    ADMINS = "ADMINS"


class AnalyticsPolicyRow(Row):
    __slots__ = ()


class AnalyticsPolicy(Model):
    """One organisation's rules; one without a row has the defaults of services.metrics.policy."""

    organization_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations: Tortoise's state of a one-to-one primary key never settles."""
    floor = fields.IntField()
    """How many people a group has at least that is shown."""
    individuals = fields.CharEnumField(Individuals, max_length=20)
    ranking = fields.CharEnumField(Allowance, max_length=20)
    """Whether people and teams may be ordered by their figures."""
    updated_at = fields.DatetimeField()

    class Meta:
        table = "analytics_policies"


class AnalyticsOptOut(Model):
    """Somebody who is counted, and never named."""

    user_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations, as above."""
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "analytics_opt_outs"
        indexes = [("organization_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("analytics_opt_outs.user_id = {}", (actor.user_id,))
