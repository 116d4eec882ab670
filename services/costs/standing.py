"""How budgets stand: what was spent of them in their window, and when there is room again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from core import db
from models.base import Query, Row
from models.costs import BudgetRow, BudgetSubject, BudgetWindow
from services.costs.windows import FOR_EVER, NOBODY, Excess, Fetch, Spender, Window, gone_with, spent_in

ALL = Decimal(1)
"""The threshold at which a budget is used up."""


class _StandingRow(Row):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget at a moment. `user_id` is whose spending it is of an EACH_USER budget, NOBODY for others."""

    budget: BudgetRow
    user_id: UUID
    at: datetime
    window: Window
    spent_usd: Decimal
    spent_tokens: int
    unpriced: int
    """Stretches of work in the window whose cost nobody knows: they are not in `spent_usd`."""
    told: frozenset[Decimal]
    """The thresholds that were told of in this window."""

    @property
    def used_up(self) -> bool:
        """Whether nothing is left."""
        return self.over(ALL)

    def over(self, share: Decimal) -> bool:
        """Whether this share of the limit, or of one of the two, is spent."""
        usd, tokens = self.budget["limit_usd"], self.budget["limit_tokens"]
        return (usd is not None and self.spent_usd >= share * usd) or (
            tokens is not None and self.spent_tokens >= share * tokens
        )

    def fresh(self) -> list[Decimal]:
        """The thresholds that are passed and were not told of yet, the lowest first."""
        shares = sorted({*(Decimal(share) for share in self.budget["warn_at"]), ALL})
        return [share for share in shares if share not in self.told and self.over(share)]

    @property
    def window_start(self) -> datetime:
        """From when on spending counts."""
        return self.window.start

    @property
    def window_end(self) -> datetime | None:
        """When a month is over; None for a window that moves."""
        return month_end(self.window_start, self.budget["timezone"]) if self._is_month else None

    @property
    def _is_month(self) -> bool:
        return bool(self.budget["window_kind"] == BudgetWindow.MONTH)


def period_of(budget: BudgetRow, at: datetime) -> timedelta:
    """How long the budget's window is; of a month, the one that `at` is in."""
    if budget["window_kind"] == BudgetWindow.HOURS:
        return timedelta(hours=budget["window_length"])
    if budget["window_kind"] == BudgetWindow.DAYS:
        return timedelta(hours=24 * budget["window_length"])
    start = _month_start(at, budget["timezone"])
    return month_end(start, budget["timezone"]) - start


def month_end(start: datetime, timezone: str) -> datetime:
    """The beginning of the month after the one that begins at `start`."""
    local = start.astimezone(ZoneInfo(timezone))
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return datetime(year, month, 1, tzinfo=ZoneInfo(timezone)).astimezone(start.tzinfo)


async def standings_of_runs(
    fetch: Fetch, organization_id: UUID, user_ids: Sequence[UUID], template_id: UUID | None, at: datetime
) -> list[Standing]:
    """All budgets that runs of these users from this template are paid from, each once: a statement for the budgets,
    of which most organisations have none, and one for what was spent of all of them."""
    query = Query()
    where = (
        f"budgets.organization_id = {query.arg(organization_id)} AND budgets.removed_at IS NULL "
        "AND (budgets.subject IN ('ORGANIZATION', 'EACH_USER') OR budgets.user_id = spending.user_id "
        "OR budgets.team_id IN (SELECT team_id FROM team_members WHERE user_id = spending.user_id) "
        f"OR budgets.template_id = {query.arg(template_id or NOBODY)})"
    )
    return await _standings(fetch, query, where, user_ids, at)


async def standings(budget_ids: Sequence[UUID], user_id: UUID | None, at: datetime) -> dict[UUID, Standing]:
    """How budgets stand; those for each user, how they stand for this one."""
    query = Query()
    where = f"budgets.id = ANY({query.arg(list(budget_ids))})"
    found = await _standings(db.fetch, query, where, [user_id or NOBODY], at)
    return {standing.budget["id"]: standing for standing in found}


async def frees_at(fetch: Fetch, found: Sequence[Standing]) -> list[datetime | None]:
    """When each has room again if nothing more is spent: as soon as enough has left the window, or the month is over.

    None for those that have room now.
    """
    moving = [standing for standing in found if standing.used_up and standing.window_end is None]
    gone = await gone_with(fetch, [_excess(standing) for standing in moving])
    # What leaves the window leaves it when it is older than the window, by however little.
    left = {
        id(standing): at + period_of(standing.budget, standing.at) + timedelta(microseconds=1)
        for standing, at in zip(moving, gone, strict=True)
        if at is not None
    }
    return [None if not standing.used_up else standing.window_end or left.get(id(standing)) for standing in found]


def window_of(budget: BudgetRow, members: Sequence[UUID], user_id: UUID, start: datetime, end: datetime) -> Window:
    """The spending that a budget is about; `members` are those of its team now, `user_id` is of one for each user."""
    match BudgetSubject(budget["subject"]):
        case BudgetSubject.ORGANIZATION:
            return Window(Spender.ORGANIZATION, [budget["organization_id"]], start, end)
        case BudgetSubject.TEMPLATE:
            return Window(Spender.TEMPLATE, [budget["template_id"]], start, end)
        case BudgetSubject.TEAM:
            return Window(Spender.USER, members, start, end)
        case BudgetSubject.USER:
            return Window(Spender.USER, [budget["user_id"]], start, end)
        case BudgetSubject.EACH_USER:
            return Window(Spender.USER, [user_id], start, end)


async def _standings(fetch: Fetch, query: Query, where: str, user_ids: Sequence[UUID], at: datetime) -> list[Standing]:
    whose = f"CASE WHEN budgets.subject = 'EACH_USER' THEN spending.user_id ELSE '{NOBODY}' END"
    alerts = f"FROM budget_alerts WHERE budget_id = budgets.id AND user_id = {whose} ORDER BY threshold"
    rows = await fetch(
        f"SELECT DISTINCT ON (budgets.id, {whose}) budgets.*, {whose} AS spender, "
        "ARRAY(SELECT user_id FROM team_members WHERE team_id = budgets.team_id) AS members, "
        f"ARRAY(SELECT threshold {alerts}) AS thresholds, ARRAY(SELECT told_at {alerts}) AS told_at "
        f"FROM budgets CROSS JOIN unnest({query.arg(list(user_ids))}::uuid[]) AS spending (user_id) "
        f"WHERE {where} ORDER BY budgets.id, {whose}",
        *query.args,
        row=_StandingRow,
    )
    if not rows:
        return []
    windows = [window_of(row, row["members"], row["spender"], _start_of(row, at), FOR_EVER) for row in rows]
    return [
        Standing(
            budget=row,
            user_id=row["spender"],
            at=at,
            window=window,
            spent_usd=spent.usd,
            spent_tokens=spent.tokens,
            unpriced=spent.unpriced,
            told=frozenset(
                share for share, told in zip(row["thresholds"], row["told_at"], strict=True) if told >= window.start
            ),
        )
        for row, window, spent in zip(rows, windows, await spent_in(fetch, windows), strict=True)
    ]


def _start_of(budget: BudgetRow, at: datetime) -> datetime:
    if budget["window_kind"] == BudgetWindow.MONTH:
        return _month_start(at, budget["timezone"])
    return at - period_of(budget, at)


def _month_start(at: datetime, timezone: str) -> datetime:
    local = at.astimezone(ZoneInfo(timezone)).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    return local.astimezone(UTC)


def _excess(standing: Standing) -> Excess:
    usd, tokens = standing.budget["limit_usd"], standing.budget["limit_tokens"]
    return Excess(
        standing.window,
        None if usd is None else standing.spent_usd - usd,
        None if tokens is None else standing.spent_tokens - tokens,
    )
