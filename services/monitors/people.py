"""Whom a monitor may tell apart: what the organisation lets its owner be told of people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from core.errors import BadInput, Forbidden
from core.permissions import Actor, Permission, Role
from models.base import Query
from models.costs import Budget, BudgetSubject
from models.monitors import MonitorRow
from services.identity.actors import active_actor
from services.metrics.contributors import of_days
from services.metrics.engine import read, scope_of
from services.metrics.people import PEOPLE_DIMENSIONS, permitted

BUDGETS_OF_PEOPLE = frozenset({BudgetSubject.USER, BudgetSubject.EACH_USER, BudgetSubject.TEAM})
"""What is spent of these is what one person spent, or few did."""
HIDDEN = (
    "Your organisation's analytics policy does not show everybody: only some are watched one by one. An admin can "
    "change that by updateAnalyticsPolicy."
)

Range = tuple[datetime, datetime]


TOO_FEW = "Too few people are behind the figure in this window: it is not shown."


@dataclass(frozen=True, slots=True)
class Shown:
    """The labels that may be shown; None for all of them."""

    labels: Set[str] | None = None
    explanation: str | None = None
    """What to say of those that are not."""
    at_all: Set[str] | None = None
    """The labels that may be watched, whoever is behind the figures of one window; None for all of them."""
    nothing: bool = False
    """Whether nothing of what the filter names is shown in this window."""

    def may_show(self, label: str | None) -> bool:
        """Whether a group's figures may be looked at in this window."""
        return not self.nothing and (self.labels is None or label in self.labels)

    def may_watch(self, label: str | None) -> bool:
        """Whether a group may be one of the monitor's, if not in this window then in another."""
        return self.at_all is None or label in self.at_all


def is_about_people(filters: Collection[str], group_by: str | None) -> bool:
    """Whether a monitor tells people or teams apart."""
    return bool(PEOPLE_DIMENSIONS & {*filters, *([] if group_by is None else [group_by])})


async def owner_of(monitor: MonitorRow) -> Actor | str:
    """Whose eyes the monitor sees with, as they are now, and no wider than it was made; or why it cannot see any more.

    One that was made for its owner's own facts stays so when they become an admin; one of the organisation does not
    turn into one of their own when they are an admin no more."""
    owner = await active_actor(monitor["owner_id"])
    if owner is None:
        return "Its owner has been deactivated."
    if not owner.may(Permission.MONITORS_MANAGE) or not owner.may(Permission.METRICS_READ):
        return "Its owner may not have monitors any more."
    if monitor["organization_wide"]:
        return owner if owner.is_admin else "It watches all of the organisation, and its owner is no admin any more."
    return replace(owner, role=Role.MEMBER) if owner.is_admin else owner


async def shown_to(owner: Actor, monitor: MonitorRow, ranges: Sequence[Range]) -> Shown:
    """What the owner may be shown of the monitor's groups, of figures over these times. Raises Forbidden where they may
    not ask at all, whoever is behind the figures."""
    group_by, filters = monitor["group_by"], monitor["filters"]
    if not is_about_people(filters, group_by):
        return Shown()
    try:
        people = await permitted(owner, filter=filters, group_by=[] if group_by is None else [group_by])
    except BadInput as problem:
        # It was a question when the monitor was made: a team in it is gone since.
        raise Forbidden(problem.message) from problem
    if not owner.is_admin:
        # Of their own facts alone, whatever the team.
        own = {str(id_) for id_ in people.own} if group_by == "user" else None
        return Shown(own, at_all=own)
    cells = [cell for range_ in ranges for cell in await _contributors(owner, monitor, range_)]
    days: list[Set[UUID]] = []
    if people.depends_on_cells:
        for start, end in ranges:
            days += await of_days(scope_of(owner), monitor["metric"], start, end, people=len(people.names))
    named, teams = people.named([*cells, *days]), people.shown_teams(cells)
    named_at_all, teams_at_all = named | people.named(), teams | people.shown_teams()
    users_in_filter = {UUID(value) for value in filters.get("user", ()) if value}
    teams_in_filter = {UUID(value) for value in filters.get("team", ()) if value}
    if not users_in_filter <= named_at_all:
        raise Forbidden("You may not see the figures of somebody in this filter any more.")
    if not teams_in_filter <= teams_at_all:
        raise Forbidden("This team is not shown: too few people are in it, or it would give away a group of fewer.")
    nothing = not (users_in_filter <= named and teams_in_filter <= teams)
    if group_by == "user":
        told = None if len(named) == len(people.names) else HIDDEN
        return Shown({str(id_) for id_ in named}, told, {str(id_) for id_ in named_at_all}, nothing)
    if group_by == "team":
        told = None if len(teams) == len(people.teams) else HIDDEN
        return Shown({str(id_) for id_ in teams}, told, {str(id_) for id_ in teams_at_all}, nothing)
    return Shown(nothing=nothing)


async def seen_budget(fetchval: Callable[..., Awaitable[Any]], actor: Actor, budget_id: UUID) -> BudgetSubject | None:
    """Whose spending a budget is about; None where there is none that the actor may see."""
    query = Query()
    condition = f"id = {query.arg(budget_id)} AND removed_at IS NULL AND {query.scope(Budget.visible_to(actor))}"
    found = await fetchval(f"SELECT subject FROM budgets WHERE {condition}", *query.args)
    return None if found is None else BudgetSubject(found)


async def _contributors(owner: Actor, monitor: MonitorRow, range_: Range) -> list[Set[UUID]]:
    """Who is behind each figure: for each value of a dimension that is no people's, the users with facts."""
    other = monitor["group_by"] if monitor["group_by"] not in (None, *PEOPLE_DIMENSIONS) else None
    rows = await read(
        scope_of(owner),
        monitor["metric"],
        start=range_[0],
        end=range_[1],
        filter=monitor["filters"],
        group_by=("user", other) if other else ("user",),
    )
    found: dict[str | None, set[UUID]] = {}
    for row in rows.rows:
        if row.labels[0] is not None:
            found.setdefault(row.labels[1] if other else None, set()).add(UUID(row.labels[0]))
    return list(found.values())
