"""What models cost, what may be spent, and what was said of it: price tables, budgets, and dismissed recommendations.

What was spent is in `spend_entries` and `spend_sums`, which migrations make: services/costs/ledger.py writes them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor, Permission
from models.base import JsonField, Row, Scope


class BudgetSubject(StrEnum):
    """Whose spending a budget is about."""

    ORGANIZATION = "ORGANIZATION"
    TEAM = "TEAM"
    USER = "USER"
    EACH_USER = "EACH_USER"
    TEMPLATE = "TEMPLATE"


class BudgetWindow(StrEnum):
    """Over what time spending is added up."""

    HOURS = "HOURS"
    DAYS = "DAYS"
    MONTH = "MONTH"


class BudgetAction(StrEnum):
    """What happens when a budget is used up."""

    WARN = "WARN"
    REFUSE = "REFUSE"


class BudgetEventKind(StrEnum):
    """What happened to a budget."""

    CREATED = "CREATED"
    CHANGED = "CHANGED"
    REMOVED = "REMOVED"
    WARNED = "WARNED"
    USED_UP = "USED_UP"
    REFUSED = "REFUSED"


class ModelPriceTableRow(Row):
    __slots__ = ()


class ModelPriceRow(Row):
    __slots__ = ()


class BudgetRow(Row):
    __slots__ = ()


class BudgetEventRow(Row):
    __slots__ = ()


class ModelPriceTable(Model):
    """Prices of models. A draft until it is published, and for ever the same after that.

    Without an organisation it is a built-in one: what a version of the library genai-prices says. An organisation's
    table lies on top of one of these.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField(
        "models.Organization", related_name=False, null=True, on_delete=fields.RESTRICT
    )
    built_in = fields.CharField(60, null=True, unique=True)
    """The name and version of the library."""
    base: Any = fields.ForeignKeyField(
        "models.ModelPriceTable", related_name=False, null=True, on_delete=fields.RESTRICT
    )
    """The built-in table under it, since it was published."""
    number = fields.IntField(null=True)
    """1, 2, … within the organisation, in the order of publication."""
    based_on = fields.IntField(default=0)
    """The number that was the newest when the draft was last written: publishing makes sure that it still is."""
    note = fields.CharField(2000, default="")
    author: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    published_at = fields.DatetimeField(null=True)

    class Meta:
        table = "model_price_tables"
        unique_together = (("organization_id", "number"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """The built-in ones and the organisation's; drafts only to those who write them."""
        drafts = "" if actor.may(Permission.BUDGETS_MANAGE) else " AND model_price_tables.published_at IS NOT NULL"
        return Scope(
            "(model_price_tables.organization_id IS NULL OR model_price_tables.organization_id = {})" + drafts,
            (actor.organization_id,),
        )


class ModelPrice(Model):
    """One row of an organisation's table. The first row that fits a model at a time is its price then."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    table: Any = fields.ForeignKeyField("models.ModelPriceTable", related_name=False, on_delete=fields.CASCADE)
    position = fields.IntField()
    provider = fields.CharField(100, null=True)
    """A pattern with `*`; None for any."""
    model = fields.CharField(200)
    """A pattern with `*`."""
    effective_from = fields.DatetimeField(null=True)
    effective_to = fields.DatetimeField(null=True)
    input = fields.DecimalField(18, 9)
    """US dollars per million tokens, as those that follow."""
    output = fields.DecimalField(18, 9)
    cache_read = fields.DecimalField(18, 9, null=True)
    """None: these tokens cost what input does."""
    cache_write = fields.DecimalField(18, 9, null=True)
    tiers = JsonField(default=list)
    """[{above, input, output, cacheRead, cacheWrite}], decimals as texts: prices of requests that read more tokens."""

    class Meta:
        table = "model_prices"
        unique_together = (("table_id", "position"),)


class Budget(Model):
    """How much may be spent over a time."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(200)
    subject = fields.CharEnumField(BudgetSubject, max_length=20)
    team: Any = fields.ForeignKeyField("models.Team", related_name=False, null=True, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.CASCADE)
    template: Any = fields.ForeignKeyField(
        "models.SessionTemplate", related_name=False, null=True, on_delete=fields.CASCADE
    )
    window_kind = fields.CharEnumField(BudgetWindow, max_length=20)
    window_length = fields.IntField(default=1)
    """How many hours or days of 24 hours; 1 for a month."""
    timezone = fields.CharField(64, default="UTC")
    """Of a month: where it begins."""
    limit_usd = fields.DecimalField(18, 9, null=True)
    limit_tokens = fields.BigIntField(null=True)
    warn_at = JsonField(default=list)
    """Shares of the limit as texts, ascending: ["0.5", "0.8"]."""
    action = fields.CharEnumField(BudgetAction, max_length=20)
    created_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "budgets"
        indexes = [("organization_id", "created_at", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Admins see their organisation's; others those that are about nobody's spending but their own."""
        living = "budgets.organization_id = {} AND budgets.removed_at IS NULL"
        if actor.is_admin:
            return Scope(living, (actor.organization_id,))
        return Scope(
            f"{living} AND (budgets.subject = 'EACH_USER' OR budgets.subject = 'USER' AND budgets.user_id = {{}})",
            (actor.organization_id, actor.user_id),
        )


class BudgetAlert(Model):
    """When a threshold of a budget was last told of. `user_id` is of an EACH_USER budget, and nil for others.

    One row of each, so that two workers cannot both be the first.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    budget: Any = fields.ForeignKeyField("models.Budget", related_name=False, on_delete=fields.CASCADE)
    user_id = fields.UUIDField()
    threshold = fields.DecimalField(4, 3)
    """A share of the limit; 1 for all of it."""
    told_at = fields.DatetimeField()

    class Meta:
        table = "budget_alerts"
        unique_together = (("budget_id", "user_id", "threshold"),)


class BudgetEvent(Model):
    """What happened to a budget, and what was spent then."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    budget: Any = fields.ForeignKeyField("models.Budget", related_name=False, on_delete=fields.CASCADE)
    kind = fields.CharEnumField(BudgetEventKind, max_length=20)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.SET_NULL)
    """Whose spending it was of an EACH_USER budget, or who changed it."""
    run_id = fields.UUIDField(null=True)
    threshold = fields.DecimalField(4, 3, null=True)
    spent_usd = fields.DecimalField(18, 9, null=True)
    spent_tokens = fields.BigIntField(null=True)
    window_start = fields.DatetimeField(null=True)
    at = fields.DatetimeField()

    class Meta:
        table = "budget_events"
        indexes = [("budget_id", "id"), ("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Admins see all of their organisation's, also of budgets that were removed; others what is about them."""
        if actor.is_admin:
            return Scope("budget_events.organization_id = {}", (actor.organization_id,))
        return Scope(
            "budget_events.organization_id = {} AND (budget_events.user_id = {} OR budget_events.budget_id IN "
            "(SELECT own.id FROM budgets own WHERE own.subject = 'USER' AND own.user_id = {}))",
            (actor.organization_id, actor.user_id, actor.user_id),
        )


class RecommendationDismissal(Model):
    """That somebody wants to hear no more of a recommendation, for a while or for good."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    key = fields.CharField(300)
    reason = fields.CharField(500)
    until = fields.DatetimeField(null=True)
    dismissed_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "recommendation_dismissals"
        unique_together = (("organization_id", "key"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Those of the organisation."""
        return Scope("recommendation_dismissals.organization_id = {}", (actor.organization_id,))
