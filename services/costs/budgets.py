"""Budgets: making and changing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from core.errors import BadInput, LimitExceeded, NotFound
from core.ids import new_id
from core.permissions import Actor, Permission
from models.base import Query
from models.costs import Budget, BudgetAction, BudgetEventKind, BudgetRow, BudgetSubject, BudgetWindow
from models.templates import SessionTemplate
from services import idempotency
from services.costs.rates import text
from services.work import Work, write

MOST_BUDGETS = 200
MOST_THRESHOLDS = 10
LONGEST_WINDOW = {BudgetWindow.HOURS: 366 * 24, BudgetWindow.DAYS: 366, BudgetWindow.MONTH: 1}
LARGEST_USD = Decimal(100_000_000)
LARGEST_TOKENS = 10**15
_FINEST_USD = Decimal("0.000000001")
_FINEST_SHARE = Decimal("0.001")

# Of which subjects a budget names one, and by which of these.
_NAMED = {BudgetSubject.TEAM: "team_id", BudgetSubject.USER: "user_id", BudgetSubject.TEMPLATE: "template_id"}
_FIELDS = {"team_id": "teamId", "user_id": "userId", "template_id": "templateId"}


@dataclass(frozen=True, slots=True)
class NewBudget:
    """What may be spent by whom over what time. `window_length` counts hours, or days of 24 hours."""

    name: str
    subject: BudgetSubject
    window: BudgetWindow
    action: BudgetAction
    window_length: int = 1
    timezone: str = "UTC"
    limit_usd: Decimal | None = None
    limit_tokens: int | None = None
    warn_at: Sequence[Decimal] = ()
    team_id: UUID | None = None
    user_id: UUID | None = None
    template_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class BudgetChanges:
    """What to change; what is None stays. A limit of 0 takes that limit away."""

    name: str | None = None
    limit_usd: Decimal | None = None
    limit_tokens: int | None = None
    warn_at: Sequence[Decimal] | None = None
    action: BudgetAction | None = None


async def create_budget(actor: Actor, new: NewBudget, *, key: str | None = None) -> BudgetRow:
    """A new budget, which holds at once, also for what was spent before it. Raises BadInput with all that is wrong,
    NotFound for a subject that is not there."""
    name = _check(new)
    async with write(actor, "budget.create") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        found = await idempotency.claim(work, "createBudget", key, asdict(new))
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return await _budget(work, found.earlier)
        await _check_subject(work, new)
        await work.tx.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"budgets:{actor.organization_id}"
        )
        if await work.tx.fetchval(_COUNT, actor.organization_id) >= MOST_BUDGETS:
            raise LimitExceeded(f"There are {MOST_BUDGETS} budgets already: remove one that is not needed.")
        await work.tx.execute(
            "INSERT INTO budgets (id, organization_id, name, subject, team_id, user_id, template_id, window_kind, "
            "window_length, timezone, limit_usd, limit_tokens, warn_at, action, created_by_id, created_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16)",
            found.result_id,
            actor.organization_id,
            name,
            new.subject.value,
            new.team_id,
            new.user_id,
            new.template_id,
            new.window.value,
            new.window_length,
            new.timezone,
            new.limit_usd,
            new.limit_tokens,
            _shares(new.warn_at),
            new.action.value,
            actor.user_id,
            work.at,
        )
        budget = await _budget(work, found.result_id)
        work.target("Budget", budget["id"], name)
        work.changed(after=_facts(budget))
        await note_event(work, budget, BudgetEventKind.CREATED)
        return budget


async def update_budget(actor: Actor, budget_id: UUID, changes: BudgetChanges) -> BudgetRow:
    """Change a budget's name, limits, thresholds or action. Whom it is about, and its window, are what it is: make
    another one for another. A new limit holds at once; thresholds that it brings out of reach can be told of again."""
    async with write(actor, "budget.update") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        before = await _budget(work, budget_id)
        work.target("Budget", budget_id, before["name"])
        new = NewBudget(
            name=before["name"] if changes.name is None else changes.name,
            subject=BudgetSubject(before["subject"]),
            window=BudgetWindow(before["window_kind"]),
            action=changes.action or BudgetAction(before["action"]),
            window_length=before["window_length"],
            timezone=before["timezone"],
            limit_usd=_changed(before["limit_usd"], changes.limit_usd),
            limit_tokens=_changed(before["limit_tokens"], changes.limit_tokens),
            warn_at=[Decimal(share) for share in before["warn_at"]] if changes.warn_at is None else changes.warn_at,
            team_id=before["team_id"],
            user_id=before["user_id"],
            template_id=before["template_id"],
        )
        name = _check(new)
        await work.tx.execute(
            "UPDATE budgets SET name = $2, limit_usd = $3, limit_tokens = $4, warn_at = $5, action = $6, "
            "updated_at = $7 WHERE id = $1",
            budget_id,
            name,
            new.limit_usd,
            new.limit_tokens,
            _shares(new.warn_at),
            new.action.value,
            work.at,
        )
        if (new.limit_usd, new.limit_tokens) != (before["limit_usd"], before["limit_tokens"]):
            await work.tx.execute("DELETE FROM budget_alerts WHERE budget_id = $1", budget_id)
        budget = await _budget(work, budget_id)
        work.changed(before=_facts(before), after=_facts(budget))
        await note_event(work, budget, BudgetEventKind.CHANGED)
        return budget


async def remove_budget(actor: Actor, budget_id: UUID) -> BudgetRow:
    """End a budget: it refuses and warns no more. Its history stays in the audit log. The budget as it was."""
    async with write(actor, "budget.remove") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        budget = await _budget(work, budget_id)
        work.target("Budget", budget_id, budget["name"])
        await work.tx.execute("UPDATE budgets SET removed_at = $2 WHERE id = $1", budget_id, work.at)
        work.changed(before=_facts(budget))
        await note_event(work, budget, BudgetEventKind.REMOVED)
        return budget


async def note_event(work: Work, budget: Any, kind: BudgetEventKind, **columns: Any) -> None:
    """Add to a budget's history."""
    given = {"user_id": work.actor.user_id} | columns
    await work.tx.execute(
        "INSERT INTO budget_events (id, organization_id, budget_id, kind, user_id, run_id, threshold, spent_usd, "
        "spent_tokens, window_start, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        new_id(),
        budget["organization_id"],
        budget["id"],
        kind.value,
        *(given.get(name) for name in ("user_id", "run_id", "threshold", "spent_usd", "spent_tokens", "window_start")),
        work.at,
    )


_COUNT = "SELECT count(*) FROM budgets WHERE organization_id = $1 AND removed_at IS NULL"


def _check(new: NewBudget) -> str:
    problems: list[tuple[str, str]] = []
    name = " ".join(new.name.split())
    if not 1 <= len(name) <= 200 or "\0" in name:
        problems.append(("name", "has 1 to 200 characters"))
    for subject, column in _NAMED.items():
        given = getattr(new, column) is not None
        if given and new.subject is not subject:
            problems.append((_FIELDS[column], f"belongs to a budget of a {subject.value} only"))
        elif not given and new.subject is subject:
            problems.append((_FIELDS[column], f"is needed for a budget of a {subject.value}"))
    longest = LONGEST_WINDOW[new.window]
    if not 1 <= new.window_length <= longest:
        problems.append(("windowLength", f"is 1 to {longest} for {new.window.value}"))
    if new.timezone not in available_timezones():
        problems.append(("timezone", "is a name of the time zone database, as Europe/Berlin"))
    elif new.window is not BudgetWindow.MONTH and new.timezone != "UTC":
        problems.append(("timezone", "belongs to a window of a MONTH only: others have no calendar"))
    if new.limit_usd is None and new.limit_tokens is None:
        problems.append(("limitUsd", "or limitTokens is needed: a budget has a limit"))
    if new.limit_usd is not None and not (
        new.limit_usd.is_finite()
        and 0 < new.limit_usd <= LARGEST_USD
        and new.limit_usd == new.limit_usd.quantize(_FINEST_USD)
    ):
        problems.append(("limitUsd", f"is over 0 and at most {LARGEST_USD}, with at most 9 digits after the point"))
    if new.limit_tokens is not None and not 0 < new.limit_tokens <= LARGEST_TOKENS:
        problems.append(("limitTokens", f"is 1 to {LARGEST_TOKENS}"))
    if len(new.warn_at) > MOST_THRESHOLDS:
        problems.append(("warnAt", f"has at most {MOST_THRESHOLDS} thresholds"))
    elif any(
        not share.is_finite() or not 0 < share <= 1 or share != share.quantize(_FINEST_SHARE) for share in new.warn_at
    ):
        problems.append(("warnAt", "are shares of the limit, over 0 and at most 1, as 0.8, in steps of 0.001"))
    elif len(set(new.warn_at)) != len(new.warn_at):
        problems.append(("warnAt", "has each threshold once"))
    if problems:
        raise BadInput.of_fields(problems)
    return name


async def _check_subject(work: Work, new: NewBudget) -> None:
    organization = work.actor.organization_id
    if new.team_id is not None:
        found = await work.tx.fetchval(
            "SELECT 1 FROM teams WHERE id = $1 AND organization_id = $2", new.team_id, organization
        )
        if not found:
            raise NotFound("There is no such team.", field="teamId")
    if new.user_id is not None:
        found = await work.tx.fetchval(
            "SELECT 1 FROM users WHERE id = $1 AND organization_id = $2", new.user_id, organization
        )
        if not found:
            raise NotFound("There is no such user.", field="userId")
    if new.template_id is not None:
        query = Query()
        found = await work.tx.fetchval(
            f"SELECT 1 FROM session_templates WHERE id = {query.arg(new.template_id)} AND removed_at IS NULL "
            f"AND {query.scope(SessionTemplate.visible_to(work.actor))}",
            *query.args,
        )
        if not found:
            raise NotFound("There is no such template.", field="templateId")


async def _budget(work: Work, budget_id: UUID) -> BudgetRow:
    query = Query()
    found = await work.tx.fetchrow(
        f"SELECT * FROM budgets WHERE id = {query.arg(budget_id)} AND {query.scope(Budget.visible_to(work.actor))} "
        "FOR UPDATE",
        *query.args,
        row=BudgetRow,
    )
    if found is None:
        raise NotFound("There is no such budget, or you may not see it.", field="budgetId")
    return found


def _changed(before: Any, after: Any) -> Any:
    return before if after is None else after or None


def _shares(shares: Sequence[Decimal]) -> list[str | None]:
    return [text(share) for share in sorted(shares)]


def _facts(budget: BudgetRow) -> dict[str, Any]:
    return {
        "name": budget["name"],
        "subject": budget["subject"],
        "window": f"{budget['window_length']} {budget['window_kind']}",
        "limitUsd": text(budget["limit_usd"]),
        "limitTokens": budget["limit_tokens"],
        "warnAt": budget["warn_at"],
        "action": budget["action"],
    }
