"""Reads of price tables, costs and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from core import clock, db
from core.errors import BadInput, Forbidden
from core.ids import decode, encode
from core.paging import Page, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.costs import (
    Budget,
    BudgetEvent,
    BudgetEventRow,
    BudgetRow,
    BudgetSubject,
    ModelPriceRow,
    ModelPriceTable,
    ModelPriceTableRow,
)
from models.identity import Team, User
from models.sessions import Session
from models.templates import SessionTemplate, SessionTemplateVersion
from resolvers import reading
from resolvers.reading import children, parent
from services.costs.behind import facts_of_group
from services.costs.breakdown import (
    Amounts,
    Breakdown,
    CostGroup,
    UnpricedModel,
    break_down,
    unpriced_models,
)
from services.costs.prices import built_in_table, price_table, rates_of
from services.costs.questions import CostQuestion
from services.costs.rates import Rate
from services.costs.standing import Standing, frees_at, standings
from services.costs.whose import HIDDEN
from services.metrics.series import RowsBehind

MOST_OTHERS = 1000

_READABLE: dict[str, tuple[str, str, str, Any, Permission]] = {
    "user": ("usr", "users", "name", User, Permission.MEMBERS_READ),
    "team": ("team", "teams", "name", Team, Permission.MEMBERS_READ),
    "session": ("ses", "sessions", "title", Session, Permission.SESSIONS_READ),
    "template": ("tpl", "session_templates", "title", SessionTemplate, Permission.TEMPLATES_READ),
    "template_version": (
        "tpv",
        "session_template_versions",
        "'v' || number",
        SessionTemplateVersion,
        Permission.TEMPLATES_READ,
    ),
}


class _NameRow(Row):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class GroupInBreakdown:
    """A group of costs, and the whole that it is a part of."""

    breakdown: Breakdown
    group: CostGroup

    @property
    def compared(self) -> Amounts | None:
        return self.group.compared

    @property
    def difference_usd(self) -> Decimal | None:
        """What more the other table would have cost; None where one of the two does not know."""
        own, other = self.group.amounts.total, self.group.compared.total if self.group.compared is not None else None
        return None if own is None or other is None else other - own

    @property
    def share(self) -> float | None:
        """Of the total, 0 to 1."""
        own, total = self.group.amounts.total, self.breakdown.total.amounts.total
        return float(own / total) if total and own is not None else None

    @property
    def rows(self) -> RowsBehind | None:
        """What finds the facts behind it; None for the rest of the groups."""
        if not self.group.labels and self.group is not self.breakdown.total:
            return None
        return facts_of_group(self.breakdown.question, self.group.labels)


@dataclass(frozen=True, slots=True)
class CostKey:
    """One of the labels of a group."""

    dimension: str
    value: str | None
    name: str | None
    hidden: bool


@dataclass(frozen=True, slots=True)
class UnpricedModels:
    """Models without a price, and the table that has none."""

    table: ModelPriceTableRow
    models: Sequence[UnpricedModel]


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands, and when it has room again."""

    standing: Standing
    user_id: UUID | None
    frees_at: datetime | None

    @property
    def remaining_usd(self) -> Decimal | None:
        limit = self.standing.budget["limit_usd"]
        return None if limit is None else max(limit - self.standing.spent_usd, Decimal(0))

    @property
    def remaining_tokens(self) -> int | None:
        limit = self.standing.budget["limit_tokens"]
        return None if limit is None else max(limit - self.standing.spent_tokens, 0)


# -- price tables


async def price_tables(actor: Actor, *, first: int | None, after: str | None) -> Page[ModelPriceTableRow]:
    """The built-in tables and the organisation's, the newest first."""
    await built_in_table()
    return await reading.page(
        "model_price_tables",
        ModelPriceTableRow,
        lambda query: [query.scope(ModelPriceTable.visible_to(actor))],
        first=first,
        after=after,
        order="created_at",
    )


async def price_table_by_id(actor: Actor, id_: UUID) -> ModelPriceTableRow | None:
    """A price table, or None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "model_price_tables", ModelPriceTableRow, ModelPriceTable.visible_to(actor), id_
    )


async def model_rates(actor: Actor, model: str, provider: str | None, table_id: UUID | None) -> list[Rate]:
    """What a model costs by a table, over time."""
    if not 1 <= len(model) <= 200 or "\0" in model:
        raise BadInput("A model's name has 1 to 200 characters.", field="model")
    if provider is not None and (not 1 <= len(provider) <= 100 or "\0" in provider):
        raise BadInput("A provider's name has 1 to 100 characters.", field="provider")
    table = await price_table(actor, table_id, field="priceTable")
    return (await rates_of(table, [(provider, model)]))[(provider, model)]


prices_of_tables = children("model_prices", ModelPriceRow, "table_id", order="position")
base_of = parent("model_price_tables", ModelPriceTableRow, "base_id", ModelPriceTable.visible_to)


# -- costs


async def cost_breakdown(actor: Actor, question: CostQuestion) -> Breakdown:
    """What was spent on what."""
    return await break_down(actor, question)


async def models_without_price(actor: Actor, question: CostQuestion) -> UnpricedModels:
    """Models that were used and have no price."""
    return UnpricedModels(*await unpriced_models(actor, question))


async def groups_of_breakdowns(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The groups, the dearest first. A cursor is the place in this order: the amount and the labels."""
    size = page_size(args.get("first"))
    after = args.get("after")
    return [_page_of_groups(breakdown, size, after) for breakdown in parents]


async def others_of_breakdowns(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What is left of each total without its first groups; None where nothing is."""
    top = args["top"]
    if not 0 <= top <= MOST_OTHERS:
        raise BadInput(f"top is 0 to {MOST_OTHERS}.", field="top")
    return [
        GroupInBreakdown(breakdown, breakdown.total.minus(breakdown.groups[:top])) if breakdown.count > top else None
        for breakdown in parents
    ]


async def totals_of_breakdowns(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The total of each."""
    return [GroupInBreakdown(breakdown, breakdown.total) for breakdown in parents]


async def keys_of_groups(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What groups are groups of, with the names of what the actor may see: one statement for each kind of thing."""
    wanted: dict[str, set[UUID]] = {}
    for each in parents:
        for dimension, label in zip(each.breakdown.question.group_by, each.group.labels, strict=False):
            if dimension in _READABLE and label:
                wanted.setdefault(dimension, set()).add(UUID(label))
    names: dict[tuple[str, str], str] = {}
    for dimension, ids in wanted.items():
        _, table, column, model, permission = _READABLE[dimension]
        if not actor.may(permission):
            continue
        found = await reading.by_ids(
            table, _NameRow, model.visible_to(actor), ids, columns=f"{table}.id, {column} AS name"
        )
        names |= {(dimension, str(id_)): row["name"] for id_, row in found.items()}
    return [
        [
            CostKey(
                dimension,
                _shown(dimension, label),
                names.get((dimension, label or "")),
                hidden=label == HIDDEN and dimension in _READABLE,
            )
            for dimension, label in zip(each.breakdown.question.group_by, each.group.labels, strict=False)
        ]
        for each in parents
    ]


def _shown(dimension: str, label: str | None) -> str | None:
    if dimension not in _READABLE:
        return label
    return encode(_READABLE[dimension][0], UUID(label)) if label else None


def _page_of_groups(breakdown: Breakdown, size: int, after: str | None) -> Page[Any]:
    rest = list(enumerate(breakdown.groups))
    if after is not None:
        [place, labels] = decode_cursor(after, 2)
        if not isinstance(place, int) or not isinstance(labels, list):
            raise not_a_cursor()
        # Where the group still is; where it has gone meanwhile, its place.
        found = next((number for number, group in rest if list(group.labels) == labels), place)
        rest = rest[found + 1 :]
    places = {id(group): number for number, group in rest}

    async def count() -> int:
        return breakdown.count

    return cut(
        [GroupInBreakdown(breakdown, group) for _, group in rest[: size + 1]],
        size,
        lambda each: encode_cursor(places[id(each.group)], list(each.group.labels)),
        count,
        after=after,
    )


# -- budgets


async def budgets(
    actor: Actor, *, first: int | None, after: str | None, subjects: Sequence[BudgetSubject] | None
) -> Page[BudgetRow]:
    """The budgets that the actor may see, the newest first."""

    def conditions(query: Query) -> list[str]:
        found = [query.scope(Budget.visible_to(actor))]
        if subjects is not None:
            found.append(f"budgets.subject = ANY({query.arg([subject.value for subject in subjects])})")
        return found

    return await reading.page("budgets", BudgetRow, conditions, first=first, after=after, order="created_at")


async def budget(actor: Actor, id_: UUID) -> BudgetRow | None:
    """A budget, or None where the actor may not see it."""
    return await reading.find("budgets", BudgetRow, Budget.visible_to(actor), id_)  # type: ignore[no-any-return]


async def budget_history(
    actor: Actor, budget_id: UUID | None, *, first: int | None, after: str | None
) -> Page[BudgetEventRow]:
    """What happened to budgets, also to those that were removed, the latest first."""

    def conditions(query: Query) -> list[str]:
        found = [query.scope(BudgetEvent.visible_to(actor))]
        if budget_id is not None:
            found.append(f"budget_events.budget_id = {query.arg(budget_id)}")
        return found

    return await reading.page("budget_events", BudgetEventRow, conditions, first=first, after=after)


async def statuses_of_budgets(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """How budgets stand now; those for each user, how they stand for the one that is named, or for the actor."""
    given = args.get("user_id")
    user_id = actor.user_id if given is None else decode("usr", given, field="userId")
    if user_id != actor.user_id and not actor.is_admin:
        raise Forbidden("How budgets stand for others is for admins to see.", field="userId")
    found = await standings([row["id"] for row in parents], user_id, clock.now())
    standing = [found[row["id"]] for row in parents]
    free = await frees_at(db.fetch, standing)
    return [
        BudgetStatus(each, user_id if each.budget["subject"] == BudgetSubject.EACH_USER else None, when)
        for each, when in zip(standing, free, strict=True)
    ]


budget_of = parent("budgets", BudgetRow, "budget_id", Budget.visible_to)
