"""What an organisation lets its members share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core import clock
from core.errors import BadInput, Forbidden
from core.permissions import Actor, Permission
from models.sessions import Visibility
from models.sharing import Allowance, SharingPolicyRow
from services.sharing.access import Fetch
from services.work import Work, announce_access, write

LONGEST_DAYS = 3650


@dataclass(frozen=True, slots=True)
class SharingPolicy:
    """The rules of one organisation; these are those of one that has made none."""

    organization_visibility: Allowance = Allowance.ALLOWED
    default_visibility: Visibility = Visibility.PRIVATE
    links: Allowance = Allowance.ALLOWED
    longest_grant_days: int | None = None
    """None for without limit."""

    def check_visibility(self, wanted: Visibility) -> None:
        """Raises Forbidden where a session may not be open to the organisation."""
        if wanted is Visibility.ORGANIZATION and self.organization_visibility is Allowance.FORBIDDEN:
            raise Forbidden(
                "Your organisation does not let sessions be open to everybody in it. Share it with people and teams.",
                field="visibility",
            )

    def check_links(self) -> None:
        """Raises Forbidden where links may not be used."""
        if self.links is Allowance.FORBIDDEN:
            raise Forbidden("Your organisation does not allow links. Share with people and teams instead.")

    def end_of_grant(self, expires_at: datetime | None) -> datetime | None:
        """When a grant ends that is given now: at the asked time, which must be within the policy, or else at the
        latest that the policy lets. Raises BadInput."""
        now = clock.now()
        latest = None if self.longest_grant_days is None else now + timedelta(days=self.longest_grant_days)
        if expires_at is None:
            return latest
        if expires_at.tzinfo is None or expires_at <= now:
            raise BadInput("Access ends in the future, at a time with a time zone.", field="expiresAt")
        if latest is not None and expires_at > latest:
            raise BadInput(
                f"Your organisation lets access last for {self.longest_grant_days} days at most. "
                "Take an earlier end, or leave it out for the latest one.",
                field="expiresAt",
            )
        return expires_at


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """What to change; None leaves a thing as it is, and a longest of 0 days takes the limit away."""

    organization_visibility: Allowance | None = None
    default_visibility: Visibility | None = None
    links: Allowance | None = None
    longest_grant_days: int | None = None


async def policies(fetch: Fetch, organization_ids: Sequence[UUID]) -> dict[UUID, SharingPolicy]:
    """The policy of each organisation, in one statement."""
    found = dict.fromkeys(organization_ids, SharingPolicy())
    for row in await fetch(
        "SELECT * FROM sharing_policies WHERE organization_id = ANY($1)", list(found), row=SharingPolicyRow
    ):
        found[row["organization_id"]] = SharingPolicy(
            Allowance(row["organization_visibility"]),
            Visibility(row["default_visibility"]),
            Allowance(row["links"]),
            row["longest_grant_days"],
        )
    return found


async def policy_in(work: Work) -> SharingPolicy:
    """The policy of the actor's organisation, read in a write."""
    organization_id = work.actor.organization_id
    return (await policies(work.tx.fetch, [organization_id]))[organization_id]


async def visibility_of_new(work: Work, asked: Visibility | None) -> Visibility:
    """The visibility of a session that is made now; None takes the organisation's default. Raises Forbidden."""
    if asked is Visibility.PRIVATE:
        return asked
    policy = await policy_in(work)
    wanted = asked or policy.default_visibility
    policy.check_visibility(wanted)
    return wanted


async def update_sharing_policy(actor: Actor, changes: PolicyChanges) -> None:
    """Change what the members of the actor's organisation may share. It holds at once: sessions that were open to the
    organisation are so no longer where that is forbidden, and links that are forbidden cannot be used. A shorter
    longest time holds for what is given from now on. Raises Forbidden, BadInput."""
    days = changes.longest_grant_days
    if days is not None and not 0 <= days <= LONGEST_DAYS:
        raise BadInput(f"The longest time is 1 to {LONGEST_DAYS} days, or 0 for no limit.", field="longestGrantDays")
    async with write(actor, "sharing_policy.update") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        name = await work.tx.fetchval(
            "SELECT name FROM organizations WHERE id = $1 FOR NO KEY UPDATE", actor.organization_id
        )
        work.target("Organization", actor.organization_id, name)
        before = await policy_in(work)
        after = replace(
            before,
            organization_visibility=changes.organization_visibility or before.organization_visibility,
            default_visibility=changes.default_visibility or before.default_visibility,
            links=changes.links or before.links,
            longest_grant_days=before.longest_grant_days if days is None else days or None,
        )
        if after.default_visibility is Visibility.ORGANIZATION and after.organization_visibility is Allowance.FORBIDDEN:
            raise BadInput(
                "New sessions cannot be open to the organisation where that is forbidden. "
                "Set defaultVisibility to PRIVATE as well.",
                field="defaultVisibility",
            )
        await work.tx.execute(
            "INSERT INTO sharing_policies (organization_id, organization_visibility, default_visibility, links, "
            "longest_grant_days, updated_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (organization_id) DO UPDATE "
            "SET organization_visibility = $2, default_visibility = $3, links = $4, longest_grant_days = $5, "
            "updated_at = $6",
            actor.organization_id,
            after.organization_visibility,
            after.default_visibility,
            after.links,
            after.longest_grant_days,
            work.at,
        )
        work.changed(before=_public(before), after=_public(after))
        work.after_commit(lambda: announce_access(actor.organization_id))


def _public(policy: SharingPolicy) -> dict[str, Any]:
    return {
        "organizationVisibility": policy.organization_visibility,
        "defaultVisibility": policy.default_visibility,
        "links": policy.links,
        "longestGrantDays": policy.longest_grant_days,
    }
