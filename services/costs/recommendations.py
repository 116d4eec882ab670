"""Recommendations: what the rules find, and what somebody does not want to hear of any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from core import clock, db
from core.errors import BadInput, NotFound
from core.ids import new_id
from core.permissions import Actor, Permission
from models.base import Row
from models.costs import ModelPriceTableRow
from services.costs.behind import facts_of
from services.costs.findings import Finding, Ground, RecommendationKind
from services.costs.model_rules import cheaper_models, unused_caches
from services.costs.prices import price_table, rates_of
from services.costs.questions import LONGEST_RANGE
from services.costs.session_rules import failed_runs, idle_sessions, large_prompts
from services.metrics.series import RowsBehind
from services.work import write

SHORTEST_RANGE = timedelta(days=1)
KEYS = ("cheaper-model:", "unused-cache:", "system-prompt:", "failed-runs:", "idle-sessions")
LONGEST_KEY = 300
LONGEST_REASON = 500


class DismissalRow(Row):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A finding, and who dismissed it."""

    finding: Finding
    table: ModelPriceTableRow
    start: datetime
    end: datetime
    dismissal: DismissalRow | None

    @property
    def rows(self) -> RowsBehind | None:
        """What finds the facts that it was found in; None for sessions without any."""
        finding = self.finding
        if finding.kind is RecommendationKind.IDLE_SESSIONS:
            return None
        fact = "run" if finding.kind is RecommendationKind.FAILED_RUNS else "usage"
        return facts_of(fact, self.start, self.end, finding.filter)


async def recommendations(
    actor: Actor, start: datetime, end: datetime, *, table_id: UUID | None, with_dismissed: bool
) -> list[Recommendation]:
    """What could be cheaper, by what was used between two moments; what saves most first."""
    if not SHORTEST_RANGE <= end - start <= LONGEST_RANGE:
        raise BadInput(
            f"A range is {SHORTEST_RANGE.days} to {LONGEST_RANGE.days} days long: a saving in 30 days is worked out of "
            "it.",
            field="to",
        )
    table = await price_table(actor, table_id, field="priceTable")
    dismissed = {
        row["key"]: row
        for row in await db.fetch(
            "SELECT * FROM recommendation_dismissals WHERE organization_id = $1 AND (until IS NULL OR until > $2)",
            actor.organization_id,
            clock.now(),
            row=DismissalRow,
        )
    }
    found = [
        Recommendation(finding, table, start, end, dismissed.get(finding.key))
        for finding in await _find(actor, start, end, table)
    ]
    return [each for each in found if with_dismissed or each.dismissal is None]


async def dismiss(actor: Actor, key: str, *, reason: str, until: datetime | None) -> str:
    """Show a recommendation no more to the organisation, for good or until some time. The same key again gives the new
    reason and time."""
    reason = " ".join(reason.split())
    problems = []
    if not key.startswith(KEYS) or len(key) > LONGEST_KEY or "\0" in key:
        problems.append(("key", "is the key of a recommendation, as `costRecommendations` gives it"))
    if not 1 <= len(reason) <= LONGEST_REASON or "\0" in reason:
        problems.append(("reason", f"has 1 to {LONGEST_REASON} characters"))
    if until is not None and until <= clock.now():
        problems.append(("until", "lies in the future"))
    if problems:
        raise BadInput.of_fields(problems)
    async with write(actor, "recommendation.dismiss") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        await work.tx.execute(
            "INSERT INTO recommendation_dismissals (id, organization_id, key, reason, until, dismissed_by_id, "
            "created_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (organization_id, key) DO UPDATE SET "
            "reason = excluded.reason, until = excluded.until, dismissed_by_id = excluded.dismissed_by_id, "
            "created_at = excluded.created_at",
            new_id(),
            actor.organization_id,
            key,
            reason,
            until,
            actor.user_id,
            work.at,
        )
        work.changed(after={"key": key, "reason": reason, "until": until.isoformat() if until else None})
    return key


async def restore(actor: Actor, key: str) -> str:
    """Show a dismissed recommendation again. Raises NotFound."""
    async with write(actor, "recommendation.restore") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        before = await work.tx.fetchrow(
            "DELETE FROM recommendation_dismissals WHERE organization_id = $1 AND key = $2 RETURNING reason",
            actor.organization_id,
            key,
        )
        if before is None:
            raise NotFound("Nobody has dismissed this recommendation.", field="key")
        work.changed(before={"key": key, "reason": before["reason"]})
    return key


async def _find(actor: Actor, start: datetime, end: datetime, table: ModelPriceTableRow) -> list[Finding]:
    """All that the rules find, what saves most first."""
    used = await db.fetch(
        "SELECT provider, model FROM usage_facts WHERE organization_id = $1 AND at >= $2 AND at < $3 GROUP BY 1, 2",
        actor.organization_id,
        start,
        end,
    )
    rates = await rates_of(table, [(row["provider"], row["model"]) for row in used])
    ground = Ground(actor, start, end, table, rates)
    found: list[Finding] = []
    for rule in (cheaper_models, unused_caches, large_prompts, failed_runs, idle_sessions):
        found += await rule(ground)
    return sorted(found, key=lambda finding: (-finding.saving, finding.key))
