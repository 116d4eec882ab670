"""What an organisation lets its members share, in the graph."""

from __future__ import annotations

import strawberry

from core.permissions import Permission
from models import sharing as models
from resolvers import identity as reads
from schema.fields import Info, column, enum_type, input_type, mutation, object_type
from schema.identity import Organization
from schema.sessions import Visibility
from services.sharing import policy

Allowance = enum_type(
    models.Allowance, {"ALLOWED": "Members may do it.", "FORBIDDEN": "Nobody may, and what was made so has no effect."}
)


@object_type
class SharingPolicy:
    """What the members of an organisation may share."""

    organization_visibility: Allowance = column("Whether sessions may be open to everybody in the organisation.")
    default_visibility: Visibility = column("Who may read a session whose maker says nothing of it.")
    links: Allowance = column("Whether sessions may be shared by links.")
    longest_grant_days: int | None = column("How long access lasts at most, in days; null for any time.")


@input_type
class UpdateSharingPolicyInput:
    """What to change of your organisation's policy. What is left out stays."""

    organization_visibility: Allowance | None = strawberry.field(
        default=None,
        description="Whether sessions may be open to everybody in the organisation. FORBIDDEN closes those that are.",
    )
    default_visibility: Visibility | None = strawberry.field(
        default=None, description="Who may read a session whose maker says nothing of it."
    )
    links: Allowance | None = strawberry.field(
        default=None,
        description="Whether sessions may be shared by links. FORBIDDEN makes those that are there useless.",
    )
    longest_grant_days: int | None = strawberry.field(
        default=None,
        description="How long access lasts at most that is given from now on, 1 to 3,650 days; 0 for any time.",
    )


@object_type
class SharingPolicyPayload:
    """The organisation whose policy was changed."""

    organization: Organization = strawberry.field(description="It, with the policy as it is now.")


@strawberry.type
class SharingPolicyMutation:
    @mutation(Permission.MEMBERS_MANAGE)
    async def update_sharing_policy(info: Info, input: UpdateSharingPolicyInput) -> SharingPolicyPayload:
        """Change what the members of your organisation may share. It holds at once."""
        actor = info.context.actor
        await policy.update_sharing_policy(
            actor,
            policy.PolicyChanges(
                organization_visibility=input.organization_visibility,
                default_visibility=input.default_visibility,
                links=input.links,
                longest_grant_days=input.longest_grant_days,
            ),
        )
        return SharingPolicyPayload(organization=await reads.organization(actor, actor.organization_id))
