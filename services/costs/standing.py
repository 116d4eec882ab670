"""How budgets stand: what was spent of them in their window, and when there is room again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from core import db
from models.base import Query, Row
from models.costs import BudgetRow, BudgetWindow
from services.costs.ledger import NOBODY, Subject, spent_sql

Fetch = Callable[..., Awaitable[list[Any]]]

ALL = Decimal(1)
"""The threshold at which a budget is used up."""

_START = """
CASE budgets.window_kind
    WHEN 'HOURS' THEN {at}::timestamptz - budgets.window_length * interval '1 hour'
    WHEN 'DAYS' THEN {at}::timestamptz - budgets.window_length * interval '24 hours'
    ELSE date_trunc('month', {at}::timestamptz, budgets.timezone)
END
"""
# Whose entries count: of a team, those of its members now.
_MEMBERS = "ANY(ARRAY(SELECT user_id FROM team_members WHERE team_id = budgets.team_id))"
SUBJECTS = (
    Subject(
        "budgets.subject = 'ORGANIZATION'",
        "spent.subject_id = budgets.organization_id",
        "spent.organization_id = budgets.organization_id",
    ),
    Subject(
        "budgets.subject IN ('USER', 'EACH_USER')",
        "spent.subject_id = whose.spender",
        "spent.user_id = whose.spender",
    ),
    Subject("budgets.subject = 'TEAM'", f"spent.subject_id = {_MEMBERS}", f"spent.user_id = {_MEMBERS}"),
    Subject(
        "budgets.subject = 'TEMPLATE'",
        "spent.subject_id = budgets.template_id",
        # As the index has it.
        f"spent.template_id = budgets.template_id AND spent.template_id <> '{NOBODY}'",
    ),
)
_ROOM = (
    "(budgets.limit_usd IS NULL OR whose.spent_usd - {0}.usd < budgets.limit_usd) "
    "AND (budgets.limit_tokens IS NULL OR whose.spent_tokens - {0}.tokens < budgets.limit_tokens)"
)


def _each(table: str, columns: str, where: str) -> str:
    """What was spent by whichever subject a budget has."""
    return " UNION ALL ".join(
        f"SELECT {columns} FROM {table} AS spent WHERE {subject.applies} "
        f"AND {subject.hours if table == 'spend_hours' else subject.entries} AND {where}"
        for subject in SUBJECTS
    )


_HOUR = "date_trunc('hour', spent.at, 'UTC')"
_FIRST_HOUR = "date_trunc('hour', whose.window_start, 'UTC')"
# The hour in which enough has left, and then the entry in it: a window may have a million entries, and has few hours.
_LEAVING = f"""
SELECT whose.number, entry.at
FROM unnest({{given}}) AS whose (number, budget_id, spender, window_start, spent_usd, spent_tokens)
JOIN budgets ON budgets.id = whose.budget_id
CROSS JOIN LATERAL (
    SELECT hour, usd - own_usd AS usd_before, tokens - own_tokens AS tokens_before FROM (
        SELECT hour, sum(usd) AS own_usd, sum(tokens) AS own_tokens, sum(sum(usd)) OVER (ORDER BY hour) AS usd,
            sum(sum(tokens)) OVER (ORDER BY hour) AS tokens
        FROM (
            {
    _each(
        "spend_entries",
        f"{_HOUR} AS hour, coalesce(spent.cost_usd, 0) AS usd, spent.tokens",
        f"spent.at >= whose.window_start AND spent.at < {_FIRST_HOUR} + interval '1 hour'",
    )
}
            UNION ALL
            {_each("spend_hours", "spent.hour, spent.cost_usd, spent.tokens", f"spent.hour > {_FIRST_HOUR}")}
        ) AS each_hour GROUP BY hour
    ) AS hours WHERE {_ROOM.format("hours")} ORDER BY hour LIMIT 1
) AS hour
CROSS JOIN LATERAL (
    SELECT at FROM (
        SELECT at, hour.usd_before + sum(usd) OVER past AS usd, hour.tokens_before + sum(tokens) OVER past AS tokens
        FROM (
            {
    _each(
        "spend_entries",
        "spent.at, coalesce(spent.cost_usd, 0) AS usd, spent.tokens, spent.run_id, spent.segment",
        "spent.at >= greatest(whose.window_start, hour.hour) AND spent.at < hour.hour + interval '1 hour'",
    )
}
        ) AS entries WINDOW past AS (ORDER BY at, run_id, segment)
    ) AS entries WHERE {_ROOM.format("entries")} ORDER BY at LIMIT 1
) AS entry
"""
_COLUMNS = {
    "spent_usd": "coalesce(sum(spent.cost_usd), 0)",
    "spent_tokens": "coalesce(sum(spent.tokens), 0)::bigint",
    "unpriced": "coalesce(sum(spent.unpriced), 0)::int",
}


# What happens in another process, whose clock may be ahead, counts too.
_FOR_EVER = "timestamptz 'infinity'"


class _StandingRow(Row):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget at a moment. `user_id` is whose spending it is of an EACH_USER budget, NOBODY for others."""

    budget: BudgetRow
    user_id: UUID
    at: datetime
    window_start: datetime
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
    local = at.astimezone(ZoneInfo(budget["timezone"])).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return month_end(local, budget["timezone"]) - local.astimezone(at.tzinfo)


def month_end(start: datetime, timezone: str) -> datetime:
    """The beginning of the month after the one that begins at `start`."""
    local = start.astimezone(ZoneInfo(timezone))
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return datetime(year, month, 1, tzinfo=ZoneInfo(timezone)).astimezone(start.tzinfo)


async def standings_of_run(
    fetch: Fetch, organization_id: UUID, user_id: UUID, template_id: UUID | None, at: datetime
) -> list[Standing]:
    """All budgets that a run of this user from this template is paid from: one statement, and a short one before it:
    most organisations have none."""
    if not await fetch(
        "SELECT 1 FROM budgets WHERE organization_id = $1 AND removed_at IS NULL LIMIT 1", organization_id
    ):
        return []
    query = Query()
    moment, spender = query.arg(at), query.arg(user_id)
    where = (
        f"budgets.organization_id = {query.arg(organization_id)} AND budgets.removed_at IS NULL "
        f"AND (budgets.subject IN ('ORGANIZATION', 'EACH_USER') OR budgets.user_id = {spender} "
        f"OR budgets.team_id IN (SELECT team_id FROM team_members WHERE user_id = {spender}) "
        f"OR budgets.template_id = {query.arg(template_id or NOBODY)})"
    )
    return await _standings(fetch, query, where, moment, spender, at)


async def standings(budget_ids: Sequence[UUID], user_id: UUID | None, at: datetime) -> dict[UUID, Standing]:
    """How budgets stand; those for each user, how they stand for this one."""
    query = Query()
    moment, spender = query.arg(at), query.arg(user_id or NOBODY)
    where = f"budgets.id = ANY({query.arg(list(budget_ids))})"
    found = await _standings(db.fetch, query, where, moment, spender, at)
    return {standing.budget["id"]: standing for standing in found}


async def frees_at(fetch: Fetch, found: Sequence[Standing]) -> list[datetime | None]:
    """When each has room again if nothing more is spent: as soon as enough has left the window, or the month is over.

    None for those that have room now. One statement for all.
    """
    moving = [standing for standing in found if standing.used_up and standing.window_end is None]
    left: dict[int, datetime] = {}
    if moving:
        query = Query()
        columns = [
            ("int", list(range(len(moving)))),
            ("uuid", [standing.budget["id"] for standing in moving]),
            ("uuid", [standing.budget["user_id"] or standing.user_id for standing in moving]),
            ("timestamptz", [standing.window_start for standing in moving]),
            ("numeric", [standing.spent_usd for standing in moving]),
            ("bigint", [standing.spent_tokens for standing in moving]),
        ]
        given = ", ".join(f"{query.arg(values)}::{kind}[]" for kind, values in columns)
        rows = await fetch(_LEAVING.format(given=given), *query.args)
        # What leaves the window leaves it when it is older than the window, by however little.
        left = {
            id(moving[row["number"]]): row["at"]
            + period_of(moving[row["number"]].budget, moving[row["number"]].at)
            + timedelta(microseconds=1)
            for row in rows
        }
    return [None if not standing.used_up else standing.window_end or left.get(id(standing)) for standing in found]


async def _standings(fetch: Fetch, query: Query, where: str, moment: str, spender: str, at: datetime) -> list[Standing]:
    each = "budgets.subject = 'EACH_USER'"
    rows = await fetch(
        f"SELECT budgets.*, starts.at AS window_start, sums.*, "
        f"CASE WHEN {each} THEN whose.spender ELSE '{NOBODY}' END AS spender, "
        "ARRAY(SELECT threshold FROM budget_alerts WHERE budget_alerts.budget_id = budgets.id "
        f"AND budget_alerts.user_id = CASE WHEN {each} THEN whose.spender ELSE '{NOBODY}' END "
        "AND budget_alerts.told_at >= starts.at) AS told FROM budgets "
        f"CROSS JOIN LATERAL (SELECT {_START.format(at=moment)}) AS starts (at) "
        f"CROSS JOIN LATERAL (SELECT coalesce(budgets.user_id, {spender}::uuid)) AS whose (spender) "
        f"CROSS JOIN LATERAL ({spent_sql(SUBJECTS, 'starts.at', _FOR_EVER, _COLUMNS)}) AS sums "
        f"WHERE {where} ORDER BY budgets.id",
        *query.args,
        row=_StandingRow,
    )
    return [
        Standing(
            budget=row,
            user_id=row["spender"],
            at=at,
            window_start=row["window_start"],
            spent_usd=row["spent_usd"],
            spent_tokens=row["spent_tokens"],
            unpriced=row["unpriced"],
            told=frozenset(row["told"]),
        )
        for row in rows
    ]
