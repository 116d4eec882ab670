"""How quickly a budget is being used up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from core import db
from models.costs import BudgetRow, BudgetSubject
from services.costs.standing import period_of, standings, window_of
from services.costs.windows import NOBODY, spent_in

_SECONDS_OF_HOUR = Decimal(3600)
_CENTURY = timedelta(days=36_525)


@dataclass(frozen=True, slots=True)
class Burn:
    """What was spent of a budget between two moments: US dollars where it has such a limit, else tokens."""

    spent: Decimal
    limit: Decimal
    period: timedelta
    """How long the budget's own window is."""
    rate_per_hour: Decimal
    exhausted_at: datetime | None
    """When the budget is used up if it goes on like this, counted from `end` and from what its own window holds then;
    None where it does not go on, or not within a century."""


async def burn(budget_id: UUID, *, start: datetime, end: datetime, user_id: UUID | None = None) -> Burn | None:
    """How a budget burnt from `start` to `end`; None where it is gone.

    Of a budget for each user it is this user's part, or that of whoever has spent most in this time.
    """
    budget = await db.fetchrow("SELECT * FROM budgets WHERE id = $1 AND removed_at IS NULL", budget_id, row=BudgetRow)
    if budget is None or start >= end:
        return None
    in_usd = budget["limit_usd"] is not None
    if budget["subject"] == BudgetSubject.EACH_USER and user_id is None:
        user_id = await _heaviest(budget, start, end, in_usd)
    spent = await _spent(budget, user_id or NOBODY, start, end, in_usd)
    limit = Decimal(budget["limit_usd"] if in_usd else budget["limit_tokens"])
    rate = spent * _SECONDS_OF_HOUR / Decimal(str((end - start).total_seconds()))
    period = period_of(budget, end)
    return Burn(spent, limit, period, rate, await _exhausted(budget, user_id, end, limit, rate, in_usd))


async def _exhausted(
    budget: BudgetRow, user_id: UUID | None, at: datetime, limit: Decimal, rate: Decimal, in_usd: bool
) -> datetime | None:
    standing = (await standings([budget["id"]], user_id, at))[budget["id"]]
    left = limit - (standing.spent_usd if in_usd else standing.spent_tokens)
    if left <= 0:
        return at.astimezone(UTC)
    if rate <= 0 or left / rate > _CENTURY / timedelta(hours=1):
        return None
    return at.astimezone(UTC) + timedelta(hours=float(left / rate))


async def _heaviest(budget: BudgetRow, start: datetime, end: datetime, in_usd: bool) -> UUID | None:
    return await db.fetchval(  # type: ignore[no-any-return]
        "SELECT user_id FROM spend_entries WHERE organization_id = $1 AND at >= $2 AND at < $3 "
        f"AND user_id <> '{NOBODY}' GROUP BY user_id "
        f"ORDER BY sum({'coalesce(cost_usd, 0)' if in_usd else 'tokens'}) DESC, user_id LIMIT 1",
        budget["organization_id"],
        start,
        end,
    )


async def _spent(budget: BudgetRow, user_id: UUID, start: datetime, end: datetime, in_usd: bool) -> Decimal:
    members = await db.fetch("SELECT user_id FROM team_members WHERE team_id = $1", budget["team_id"])
    window = window_of(budget, [row["user_id"] for row in members], user_id, start, end)
    [spent] = await spent_in(db.fetch, [window])
    return spent.usd if in_usd else Decimal(spent.tokens)
