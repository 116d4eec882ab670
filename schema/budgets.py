"""Budgets in the graph."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import costs as models
from resolvers import costs as reads
from resolvers import sharing
from resolvers.identity import user_in
from resolvers.templates import template_of
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    Node,
    column,
    entity,
    enum_type,
    id_column,
    input_type,
    mutation,
    nested,
    object_type,
    query,
)
from schema.scalars import BigInt
from schema.sessions import LazyUser
from schema.sharing import LazyTeam
from schema.templates import SessionTemplate
from services.costs import budgets as writes

BudgetSubject = enum_type(
    models.BudgetSubject,
    {
        "ORGANIZATION": "All that is spent in the organisation.",
        "TEAM": "What is spent by those who are in the team now.",
        "USER": "What one user spends.",
        "EACH_USER": "What each user spends: everybody has the whole limit for themselves.",
        "TEMPLATE": "What is spent in sessions that were started from the template.",
    },
)
BudgetWindow = enum_type(
    models.BudgetWindow,
    {
        "HOURS": "The last hours, at every moment anew.",
        "DAYS": "The last days, of 24 hours each, at every moment anew.",
        "MONTH": "The calendar month in the budget's time zone.",
    },
)
BudgetAction = enum_type(
    models.BudgetAction,
    {
        "WARN": "People are told, and nothing is refused.",
        "REFUSE": "Messages are refused with LIMIT_EXCEEDED, and runs that wait already end with BUDGET_EXCEEDED.",
    },
)
BudgetEventKind = enum_type(
    models.BudgetEventKind,
    {
        "CREATED": "It was made.",
        "CHANGED": "It was changed.",
        "REMOVED": "It was removed.",
        "WARNED": "A threshold was passed, and people were told.",
        "USED_UP": "The limit was reached, and people were told.",
        "REFUSED": "A run that waited was refused.",
    },
)


@object_type
class BudgetStatus:
    """How a budget stands at the moment. Spending counts as soon as the stretch of work that it is for has ended."""

    window_start: datetime = column("Since when spending counts.", name="standing", show=attrgetter("window_start"))
    window_end: datetime | None = column(
        "When the month is over; null for a window that moves.", name="standing", show=attrgetter("window_end")
    )
    spent_usd: Decimal = column("Spent since then.", name="standing", show=attrgetter("spent_usd"))
    spent_tokens: BigInt = column("Tokens of all kinds since then.", name="standing", show=attrgetter("spent_tokens"))
    remaining_usd: Decimal | None = column("What is left of `limitUsd`; null where there is none.")
    remaining_tokens: BigInt | None = column("What is left of `limitTokens`; null where there is none.")
    used_up: bool = column("Whether a limit is reached.", name="standing", show=attrgetter("used_up"))
    frees_at: datetime | None = column("When there is room again if nothing more is spent; null where there is room.")
    unpriced: int = column(
        "Stretches of work whose cost nobody knows: they are not in `spentUsd`.",
        name="standing",
        show=attrgetter("unpriced"),
    )

    @nested(user_in("user_id"))
    def user(self) -> LazyUser | None:
        """Whose spending it is, of a budget for each user."""


@object_type
class BudgetEvent:
    """Something that happened to a budget."""

    kind: BudgetEventKind = column("What it was.")
    at: datetime = column("When it was.")
    budget_id: strawberry.ID = id_column("Budget", "Which budget: it may have been removed since.", name="budget_id")
    threshold: Decimal | None = column("The share of the limit that was passed, for WARNED and USED_UP.")
    spent_usd: Decimal | None = column("What was spent then, for WARNED, USED_UP and REFUSED.")
    spent_tokens: BigInt | None = column("The tokens then, for WARNED, USED_UP and REFUSED.")
    window_start: datetime | None = column("Since when that was counted.")
    run_id: strawberry.ID | None = id_column("Run", "The run that was refused.", name="run_id")

    @nested(reads.budget_of)
    def budget(self) -> Budget | None:
        """The budget; null where it was removed."""

    @nested(user_in("user_id"))
    def user(self) -> LazyUser | None:
        """Whose spending it was, of a budget for each user; who made, changed or removed it."""


@entity(models.BudgetRow)
class Budget(Node):
    """How much may be spent over a time."""

    name: str = column("What it is called.")
    subject: BudgetSubject = column("Whose spending it is about.")
    window: BudgetWindow = column("Over what time spending is added up.", name="window_kind", show=models.BudgetWindow)
    window_length: int = column("How many hours, or days of 24 hours; 1 for a month.")
    timezone: str = column("Where the month begins; UTC for other windows.")
    limit_usd: Decimal | None = column("How many US dollars may be spent; null for any.")
    limit_tokens: BigInt | None = column("How many tokens of all kinds may be used; null for any.")
    warn_at: list[Decimal] = column(
        "Shares of the limit at which people are told, once in a window; they are told in any case when it is used up.",
        name="warn_at",
        show=lambda shares: [Decimal(share) for share in shares],
    )
    action: BudgetAction = column("What happens when it is used up.")
    created_at: datetime = column("When it was made.")
    updated_at: datetime = column("When it was last changed.")

    @nested(sharing.team_of)
    def team(self) -> LazyTeam | None:
        """The team, for TEAM."""

    @nested(user_in("user_id"))
    def user(self) -> LazyUser | None:
        """The user, for USER."""

    @nested(template_of)
    def template(self) -> SessionTemplate | None:
        """The template, for TEMPLATE."""

    @nested(user_in("created_by_id"))
    def created_by(self) -> LazyUser | None:
        """Who made it."""

    @nested(reads.statuses_of_budgets)
    def status(
        self,
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Whose, for a budget for each user: yours, where it is left out."),
        ] = None,
    ) -> BudgetStatus:
        """How it stands at the moment."""


@input_type
class CreateBudgetInput:
    """A new budget. It holds at once, also for what was spent in its window before."""

    name: str = strawberry.field(description="What it is called, in 1 to 200 characters.")
    subject: BudgetSubject = strawberry.field(description="Whose spending it is about.")
    team_id: strawberry.ID | None = strawberry.field(default=None, description="The team, for TEAM.")
    user_id: strawberry.ID | None = strawberry.field(default=None, description="The user, for USER.")
    template_id: strawberry.ID | None = strawberry.field(default=None, description="The template, for TEMPLATE.")
    window: BudgetWindow = strawberry.field(description="Over what time spending is added up.")
    window_length: int = strawberry.field(
        default=1, description="How many hours, up to 8,784, or days of 24 hours, up to 366."
    )
    timezone: str = strawberry.field(default="UTC", description="Where a MONTH begins, as Europe/Berlin.")
    limit_usd: Decimal | None = strawberry.field(
        default=None, description="How many US dollars may be spent. Give this, `limitTokens`, or both."
    )
    limit_tokens: BigInt | None = strawberry.field(
        default=None, description="How many tokens of all four kinds may be used."
    )
    warn_at: list[Decimal] | None = strawberry.field(
        default=None,
        description='Shares of the limit at which people are told, as "0.8", at most 10; none where left out.',
    )
    action: BudgetAction = strawberry.field(description="What happens when it is used up.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Repeat the mutation with the same key, and you get the first result instead of doing it twice.",
    )


@input_type
class UpdateBudgetInput:
    """What to change of a budget. What is left out stays; whom it is about, and its window, always do."""

    budget_id: strawberry.ID = strawberry.field(description="The budget, `bud_…`.")
    name: str | None = strawberry.field(default=None, description="What it is called.")
    limit_usd: Decimal | None = strawberry.field(default=None, description="US dollars; 0 takes this limit away.")
    limit_tokens: BigInt | None = strawberry.field(default=None, description="Tokens; 0 takes this limit away.")
    warn_at: list[Decimal] | None = strawberry.field(default=None, description="All thresholds anew.")
    action: BudgetAction | None = strawberry.field(default=None, description="What happens when it is used up.")


@input_type
class RemoveBudgetInput:
    """A budget to end."""

    budget_id: strawberry.ID = strawberry.field(description="The budget, `bud_…`.")


@object_type
class BudgetPayload:
    """The budget as it now is."""

    budget: Budget = strawberry.field(description="The budget.")


@object_type
class RemoveBudgetPayload:
    """What was removed."""

    budget_id: strawberry.ID = strawberry.field(description="The budget. Its history stays.")


@strawberry.type
class BudgetQuery:
    @query(Permission.METRICS_READ)
    async def budgets(
        info: Info,
        first: First = None,
        after: After = None,
        subjects: Annotated[list[BudgetSubject] | None, strawberry.argument(description="About one of these.")] = None,
    ) -> Connection[Budget]:
        """The budgets of your organisation, the newest first; for others than admins those about their own spending."""
        return await reads.budgets(info.context.actor, first=first, after=after, subjects=subjects)

    @query(Permission.METRICS_READ)
    async def budget_history(
        info: Info,
        budget_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Of this budget; left out, of all.")
        ] = None,
        first: First = None,
        after: After = None,
    ) -> Connection[BudgetEvent]:
        """What happened to budgets, the latest first, also to those that were removed."""
        id_ = None if budget_id is None else decode("bud", budget_id, field="budgetId")
        return await reads.budget_history(info.context.actor, id_, first=first, after=after)


@strawberry.type
class BudgetMutation:
    @mutation(Permission.BUDGETS_MANAGE)
    async def create_budget(info: Info, input: CreateBudgetInput) -> BudgetPayload:
        """Say how much may be spent, by whom and over what time. It is looked at before each stretch of a run's work,
        and kept but for what is under way at that moment."""
        new = writes.NewBudget(
            name=input.name,
            subject=input.subject,
            window=input.window,
            action=input.action,
            window_length=input.window_length,
            timezone=input.timezone,
            limit_usd=input.limit_usd,
            limit_tokens=input.limit_tokens,
            warn_at=input.warn_at or (),
            team_id=_decoded("team", input.team_id, "teamId"),
            user_id=_decoded("usr", input.user_id, "userId"),
            template_id=_decoded("tpl", input.template_id, "templateId"),
        )
        return BudgetPayload(budget=await writes.create_budget(info.context.actor, new, key=input.idempotency_key))

    @mutation(Permission.BUDGETS_MANAGE)
    async def update_budget(info: Info, input: UpdateBudgetInput) -> BudgetPayload:
        """Change a budget. A new limit holds at once, and its thresholds are told of anew."""
        changes = writes.BudgetChanges(
            name=input.name,
            limit_usd=input.limit_usd,
            limit_tokens=input.limit_tokens,
            warn_at=input.warn_at,
            action=input.action,
        )
        budget_id = decode("bud", input.budget_id, field="budgetId")
        return BudgetPayload(budget=await writes.update_budget(info.context.actor, budget_id, changes))

    @mutation(Permission.BUDGETS_MANAGE)
    async def remove_budget(info: Info, input: RemoveBudgetInput) -> RemoveBudgetPayload:
        """End a budget: it refuses and warns no more."""
        await writes.remove_budget(info.context.actor, decode("bud", input.budget_id, field="budgetId"))
        return RemoveBudgetPayload(budget_id=input.budget_id)


def _decoded(prefix: str, id_: strawberry.ID | None, field: str) -> Any:
    return None if id_ is None else decode(prefix, id_, field=field)
