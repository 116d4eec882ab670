"""Keeping budgets: refusing what goes beyond them, and telling people in time.

Spending is known when a stretch of work ends, and looked at before each one begins. So a budget is overshot by what is
under way when it is used up: at most one stretch of each run that executes at that moment.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from core import clock, db
from core.errors import LimitExceeded
from core.ids import encode, new_id
from core.permissions import Actor
from models.costs import BudgetAction, BudgetEventKind, BudgetRow, BudgetSubject, BudgetWindow
from models.notifications import NotificationKind
from models.sessions import RunRow, SessionRow
from services import audit
from services.costs.budgets import note_event
from services.costs.rates import text
from services.costs.standing import ALL, Standing, frees_at, standings_of_runs
from services.identity.actors import system_actor
from services.work import Work, write

logger = logging.getLogger(__name__)

BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
"""The error code of runs that were refused."""

_TELL = """
INSERT INTO budget_alerts (id, budget_id, user_id, threshold, told_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::numeric[], $5::timestamptz[])
ON CONFLICT (budget_id, user_id, threshold) DO UPDATE SET told_at = excluded.told_at WHERE budget_alerts.told_at < $6
RETURNING threshold
"""
_ADMINS = "SELECT id FROM users WHERE organization_id = $1 AND role IN ('OWNER', 'ADMIN') AND deactivated_at IS NULL"


async def refuse_message(work: Work, session: SessionRow) -> None:
    """Raises LimitExceeded where a budget that the actor's run would be paid from is used up."""
    actor = work.actor
    if actor.user_id is None:
        return
    for standing in await _standings(work, actor.organization_id, actor.user_id, session):
        if _refuses(standing):
            [free] = await frees_at(work.tx.fetch, [standing])
            budget = standing.budget
            raise LimitExceeded(
                explain(standing, free),
                budgetId=encode("bud", budget["id"]),
                budget=budget["name"],
                freesAt=free.isoformat() if free else None,
                **_amounts(actor, standing),
            )


async def refused_by(work: Work, agent: Actor, run: RunRow, session: SessionRow) -> str | None:
    """Why a run may not begin its next stretch of work, or None where it may. Notes the refusal in the budget's
    history and in the audit log, and tells of thresholds that nobody was told of."""
    refusal = None
    for standing in await _standings(work, run["organization_id"], run["started_by_id"], session):
        await _tell(work, standing)
        if refusal is None and _refuses(standing):
            [free] = await frees_at(work.tx.fetch, [standing])
            refusal = explain(standing, free)
            await _note(work, standing, BudgetEventKind.REFUSED, run_id=run["id"], threshold=ALL)
            entry = audit.Entry.of(agent, "run.start")
            entry.target_kind, entry.target_id = "Run", run["id"]
            entry.session_id, entry.outcome, entry.error_message = session["id"], audit.AuditOutcome.REFUSED, refusal
            work.also(entry)
    return refusal


async def watch(organization_id: UUID, user_ids: Sequence[UUID], template_id: UUID | None) -> None:
    """After spending of these users was committed: tell of the thresholds that it passed. Whoever commits last sees
    all of it.

    A failure is logged: the next run that is paid from the budget tells of them.
    """
    try:
        at = clock.now()
        found = await standings_of_runs(db.fetch, organization_id, user_ids, template_id, at)
        if any(standing.fresh() for standing in found):
            async with write(system_actor(organization_id), None) as work:
                for standing in found:
                    await _tell(work, standing)
    except Exception:
        logger.exception("Thresholds of budgets were not looked at; the next run makes up for it.")


def explain(standing: Standing, free: datetime | None) -> str:
    """A sentence for whoever is refused. How much others have spent is not in it."""
    budget = standing.budget
    whose = {
        BudgetSubject.ORGANIZATION: "The organisation's budget",
        BudgetSubject.TEAM: "Your team's budget",
        BudgetSubject.USER: "Your budget",
        BudgetSubject.EACH_USER: "Your budget",
        BudgetSubject.TEMPLATE: "The template's budget",
    }[BudgetSubject(budget["subject"])]
    when = f"It has room again at {free:%Y-%m-%d %H:%M:%S} UTC" if free else "It has no room"
    return (
        f"{whose} “{budget['name']}” {_window(budget)} is used up, and refuses what goes beyond it. "
        f"{when}, if nothing more is spent; an admin can raise it."
    )


def _refuses(standing: Standing) -> bool:
    return standing.used_up and bool(standing.budget["action"] == BudgetAction.REFUSE)


async def _standings(work: Work, organization_id: UUID, user_id: UUID, session: SessionRow) -> list[Standing]:
    template_id = None
    if session["template_version_id"] is not None:
        template_id = await work.tx.fetchval(
            "SELECT template_id FROM session_template_versions WHERE id = $1", session["template_version_id"]
        )
    return await standings_of_runs(work.tx.fetch, organization_id, [user_id], template_id, work.at)


async def _tell(work: Work, standing: Standing) -> None:
    """Tell of the thresholds that are passed: each once in a window, whichever worker comes first."""
    fresh = standing.fresh()
    if not fresh:
        return
    budget = standing.budget
    count = len(fresh)
    won = [
        row["threshold"]
        for row in await work.tx.fetch(
            _TELL,
            [new_id() for _ in fresh],
            [budget["id"]] * count,
            [standing.user_id] * count,
            fresh,
            [work.at] * count,
            standing.window_start,
        )
    ]
    for threshold in won:
        kind = BudgetEventKind.USED_UP if threshold == ALL else BudgetEventKind.WARNED
        await _note(work, standing, kind, threshold=threshold)
    if won:
        await _notify(work, standing, max(won))


async def _notify(work: Work, standing: Standing, threshold: Decimal) -> None:
    budget = standing.budget
    admins = [row["id"] for row in await work.tx.fetch(_ADMINS, budget["organization_id"])]
    spender = budget["user_id"] or (standing.user_id if budget["subject"] == BudgetSubject.EACH_USER else None)
    who = ""
    if budget["subject"] == BudgetSubject.EACH_USER:
        who = f" of {await work.tx.fetchval('SELECT name FROM users WHERE id = $1', standing.user_id)}"
    used = "is used up" if threshold == ALL else f"is at {_percent(threshold)} of its limit"
    what = "Further runs are refused." if budget["action"] == BudgetAction.REFUSE else "Nothing is refused."
    work.notify(
        NotificationKind.BUDGET,
        [*admins, *([spender] if spender else [])],
        f"The budget “{budget['name']}”{who} {used}",
        body=f"Spent {_window(budget)}: {_spent(standing)}. {what if threshold == ALL else ''}".strip(),
        subject=("Budget", budget["id"]),
    )


async def _note(work: Work, standing: Standing, kind: BudgetEventKind, **columns: object) -> None:
    await note_event(
        work,
        standing.budget,
        kind,
        user_id=standing.user_id if standing.budget["subject"] == BudgetSubject.EACH_USER else None,
        spent_usd=standing.spent_usd,
        spent_tokens=standing.spent_tokens,
        window_start=standing.window_start,
        **columns,
    )


def _amounts(actor: Actor, standing: Standing) -> dict[str, Any]:
    """What was spent of what, for those who may know it."""
    budget = standing.budget
    if not actor.is_admin and budget["subject"] not in (BudgetSubject.USER, BudgetSubject.EACH_USER):
        return {}
    return {
        "spentUsd": text(standing.spent_usd),
        "limitUsd": text(budget["limit_usd"]),
        "spentTokens": standing.spent_tokens,
        "limitTokens": budget["limit_tokens"],
    }


def _window(budget: BudgetRow) -> str:
    length = budget["window_length"]
    match BudgetWindow(budget["window_kind"]):
        case BudgetWindow.MONTH:
            return "for this month"
        case BudgetWindow.HOURS:
            return "for the last hour" if length == 1 else f"for the last {length} hours"
        case BudgetWindow.DAYS:
            return "for the last day" if length == 1 else f"for the last {length} days"


def _spent(standing: Standing) -> str:
    budget = standing.budget
    parts = []
    if budget["limit_usd"] is not None:
        parts.append(f"${text(standing.spent_usd)} of ${text(budget['limit_usd'])}")
    if budget["limit_tokens"] is not None:
        parts.append(f"{standing.spent_tokens} of {budget['limit_tokens']} tokens")
    return " and ".join(parts)


def _percent(share: Decimal) -> str:
    return f"{text(share * 100)}%"
