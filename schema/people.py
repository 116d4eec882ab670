"""What people and teams did, in the graph, and what an organisation lets be told of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from core.permissions import Permission
from models import analytics as models
from resolvers import identity
from resolvers import metrics as reads
from schema.connections import After, Connection, First
from schema.fields import Info, column, enum_type, input_type, mutation, nested, object_type, query
from schema.identity import Organization, Team, User
from schema.metrics import From, RangeOf, To, Zone
from schema.sharing_policy import Allowance
from services.metrics import activity, policy
from services.metrics.activity import ActivityQuestion

Individuals = enum_type(
    models.Individuals,
    {
        "SELF_ONLY": "Nobody but oneself.",
        "ADMINS": "Admins, too, except of those who opted out.",
    },
)
ActivityOrder = enum_type(
    activity.ActivityOrder,
    {
        "NAME": "By name.",
        "RUNS": "The most runs first; where the policy allows it, as all that follow.",
        "TOOL_CALLS": "The most tool calls first.",
        "TOKENS": "The most tokens first.",
        "COST": "The highest cost first.",
    },
)
OrderBy = Annotated[ActivityOrder, strawberry.argument(description="In which order.")]


@object_type
class AnalyticsPolicy:
    """What an organisation lets be told of people's use of the product."""

    floor: int = column("How many people a group has at least that is shown.")
    individuals: Individuals = column("Who is shown the figures of single people.")
    ranking: Allowance = column("Whether people and teams may be ordered by their figures.")


@object_type
class ActivityFigures:
    """What somebody, or a group, did. Null where too few people are behind it; cost also where it is not known."""

    sessions: float | None = column("Sessions that were begun.")
    runs: float | None = column("Runs that ended.")
    finished_runs: float | None = column("Those of them that finished.")
    failed_runs: float | None = column("Those of them that failed.")
    success_rate: float | None = column("Finished runs among those that ended, 0 to 1.")
    active_days: int | None = column("Days on which a run or a tool call ended.")
    tool_calls: float | None = column("Tool calls that ended.")
    failed_tool_calls: float | None = column("Those of them that failed.")
    tokens: float | None = column("Tokens of all kinds.")
    cost_usd: float | None = column("Cost in US dollars, as recorded when it arose.")
    approvals_decided: int | None = column("Decisions that were made on tool calls.")
    approvals_granted: int | None = column("Those of them that let the call run.")


@object_type
class UserActivity:
    """What somebody did."""

    name: str = column("Who.")
    figures: ActivityFigures = column("What they did.")

    @nested(reads.users_of)
    def user(self) -> User:
        """The user."""


@object_type
class TeamActivity:
    """What a team did, by who is in it now."""

    name: str = column("What it is called.")
    people: int | None = column("How many are in it.")
    figures: ActivityFigures = column("What they did together.")

    @nested(reads.teams_of)
    def team(self) -> Team | None:
        """The team."""


@object_type
class UserActivityReport:
    """What users did in a range."""

    from_: datetime = column("Begin of the range.", name="start", field="from")
    to: datetime = column("End of the range; not in it any more.", name="end")
    timezone: str = column("The zone of days.")
    floor: int = column("How many people a group has at least that is shown.")
    others: ActivityFigures | None = column(
        "All who are not shown, together; null where they are too few, and for those who are no admins."
    )

    @nested(reads.shown_in_activity)
    def users(self, first: First = None, after: After = None) -> Connection[UserActivity]:
        """You; for admins also the others, where the policy lets them be named and they did not opt out."""


@object_type
class TeamActivityReport:
    """What teams did in a range."""

    from_: datetime = column("Begin of the range.", name="start", field="from")
    to: datetime = column("End of the range; not in it any more.", name="end")
    timezone: str = column("The zone of days.")
    floor: int = column("How many people a group has at least that is shown.")
    omitted_teams: int = column("Teams that are too small, or would give away a group that is.", name="omitted")

    @nested(reads.shown_in_activity)
    def teams(self, first: First = None, after: After = None) -> Connection[TeamActivity]:
        """The teams that may be shown."""


@input_type
class UpdateAnalyticsPolicyInput:
    """What to change of your organisation's policy. What is left out stays."""

    floor: int | None = strawberry.field(
        default=None, description="How many people a group has at least that is shown, 2 to 100."
    )
    individuals: Individuals | None = strawberry.field(
        default=None, description="Who is shown the figures of single people."
    )
    ranking: Allowance | None = strawberry.field(
        default=None, description="Whether people and teams may be ordered by their figures."
    )


@object_type
class AnalyticsPolicyPayload:
    """The organisation whose policy was changed."""

    organization: Organization = strawberry.field(description="It, with the policy as it is now.")


@input_type
class UpdateMyAnalyticsConsentInput:
    """Whether you let your figures be shown under your name."""

    named: bool = strawberry.field(description="False: you are counted among others, and named to nobody but yourself.")


@object_type
class AnalyticsConsentPayload:
    """What you said."""

    named: bool = strawberry.field(description="Whether your figures may be shown under your name.")


@strawberry.type
class PeopleQuery:
    @query(Permission.METRICS_READ)
    async def user_activity(
        info: Info,
        from_: From = None,
        to: To = None,
        range: RangeOf = None,
        timezone: Zone = "UTC",
        order_by: OrderBy = activity.ActivityOrder.NAME,
    ) -> UserActivityReport:
        """What users did in a range of at most 400 days, as far as the organisation's policy lets it be shown."""
        asked = ActivityQuestion(from_, to, range, timezone, order_by)
        return await activity.user_activity(info.context.actor, asked)

    @query(Permission.METRICS_READ)
    async def team_activity(
        info: Info,
        from_: From = None,
        to: To = None,
        range: RangeOf = None,
        timezone: Zone = "UTC",
        order_by: OrderBy = activity.ActivityOrder.NAME,
    ) -> TeamActivityReport:
        """What teams did in a range of at most 400 days. Teams are left out that are too small, or of which together
        with other figures a group that is could be computed."""
        asked = ActivityQuestion(from_, to, range, timezone, order_by)
        return await activity.team_activity(info.context.actor, asked)


@strawberry.type
class PeopleMutation:
    @mutation(Permission.MEMBERS_MANAGE)
    async def update_analytics_policy(info: Info, input: UpdateAnalyticsPolicyInput) -> AnalyticsPolicyPayload:
        """Change what is told of people's use of the product in your organisation. It holds at once."""
        actor = info.context.actor
        await policy.update_policy(actor, policy.PolicyChanges(input.floor, input.individuals, input.ranking))
        return AnalyticsPolicyPayload(organization=await identity.organization(actor, actor.organization_id))

    @mutation(Permission.METRICS_READ)
    async def update_my_analytics_consent(info: Info, input: UpdateMyAnalyticsConsentInput) -> AnalyticsConsentPayload:
        """Say whether your figures may be shown under your name. They are counted in any case. It holds at once."""
        await policy.set_consent(info.context.actor, named=input.named)
        return AnalyticsConsentPayload(named=input.named)
