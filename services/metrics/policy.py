"""What an organisation lets be told of people's use of the product, and what each of them says to being named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from core.errors import BadInput
from core.permissions import Actor, Permission
from models.analytics import AnalyticsPolicyRow, Individuals
from models.sharing import Allowance
from services.sharing.access import Fetch
from services.work import write

LOWEST_FLOOR, HIGHEST_FLOOR = 2, 100


@dataclass(frozen=True, slots=True)
class AnalyticsPolicy:
    """The rules of one organisation; these are those of one that has made none."""

    floor: int = 5
    """How many people a group has at least that is shown."""
    individuals: Individuals = Individuals.SELF_ONLY
    ranking: Allowance = Allowance.FORBIDDEN


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """What to change; None leaves a thing as it is."""

    floor: int | None = None
    individuals: Individuals | None = None
    ranking: Allowance | None = None


async def policies(fetch: Fetch, organization_ids: Sequence[UUID]) -> dict[UUID, AnalyticsPolicy]:
    """The policy of each organisation, in one statement."""
    found = dict.fromkeys(organization_ids, AnalyticsPolicy())
    for row in await fetch(
        "SELECT * FROM analytics_policies WHERE organization_id = ANY($1)", list(found), row=AnalyticsPolicyRow
    ):
        found[row["organization_id"]] = AnalyticsPolicy(
            row["floor"], Individuals(row["individuals"]), Allowance(row["ranking"])
        )
    return found


async def update_policy(actor: Actor, changes: PolicyChanges) -> AnalyticsPolicy:
    """Change what is told of people in the actor's organisation; it holds from the next question on. Raises Forbidden,
    BadInput."""
    if changes.floor is not None and not LOWEST_FLOOR <= changes.floor <= HIGHEST_FLOOR:
        raise BadInput(f"The floor is {LOWEST_FLOOR} to {HIGHEST_FLOOR} people.", field="floor")
    async with write(actor, "analytics_policy.update") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        organization_id = actor.organization_id
        name = await work.tx.fetchval("SELECT name FROM organizations WHERE id = $1 FOR NO KEY UPDATE", organization_id)
        work.target("Organization", organization_id, name)
        before = (await policies(work.tx.fetch, [organization_id]))[organization_id]
        after = replace(
            before,
            floor=before.floor if changes.floor is None else changes.floor,
            individuals=changes.individuals or before.individuals,
            ranking=changes.ranking or before.ranking,
        )
        await work.tx.execute(
            "INSERT INTO analytics_policies (organization_id, floor, individuals, ranking, updated_at) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (organization_id) DO UPDATE "
            "SET floor = $2, individuals = $3, ranking = $4, updated_at = $5",
            organization_id,
            after.floor,
            after.individuals,
            after.ranking,
            work.at,
        )
        work.changed(before=_public(before), after=_public(after))
    return after


async def set_consent(actor: Actor, *, named: bool) -> None:
    """Whether the actor's own figures may be shown under their name to others; the same again changes nothing."""
    assert actor.user_id is not None
    async with write(actor, "analytics_consent.update") as work:
        work.target("User", actor.user_id, actor.name)
        if named:
            tag = await work.tx.execute("DELETE FROM analytics_opt_outs WHERE user_id = $1", actor.user_id)
        else:
            tag = await work.tx.execute(
                "INSERT INTO analytics_opt_outs (user_id, organization_id, created_at) VALUES ($1, $2, $3) "
                "ON CONFLICT DO NOTHING",
                actor.user_id,
                actor.organization_id,
                work.at,
            )
        was = named if tag.endswith(" 0") else not named
        work.changed(before={"named": was}, after={"named": named})


def _public(policy: AnalyticsPolicy) -> dict[str, Any]:
    return {"floor": policy.floor, "individuals": policy.individuals, "ranking": policy.ranking}
