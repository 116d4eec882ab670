"""Identity in the graph: types and queries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from core import permissions
from core.permissions import Actor
from models import identity as models
from resolvers import activity_feed as feeds
from resolvers import identity as reads
from resolvers.metrics import analytics_policies_of, is_named
from resolvers.sharing import policies_of_organizations
from resolvers.template_catalogue import most_recent, most_used
from schema.activity_filter import FeedFilter, OldestFirst, feed_by
from schema.connections import After, Connection, First
from schema.context import Info
from schema.fields import (
    Node,
    column,
    decode_ids,
    entity,
    enum_type,
    input_type,
    nested,
    object_type,
    query,
)
from schema.handoffs import Handoff, HandoffFilter, handoffs
from schema.notifications import (
    Notification,
    NotificationFilter,
    NotificationPreference,
    inbox,
    notifications_cursor,
    preferences,
    unread_count,
)
from schema.scalars import Cursor

if TYPE_CHECKING:
    from schema.activities import Activity
    from schema.people import AnalyticsPolicy
    from schema.sharing_policy import SharingPolicy
    from schema.templates import SessionTemplate

LazyActivity = Annotated["Activity", strawberry.lazy("schema.activities")]
LazyTemplate = Annotated["SessionTemplate", strawberry.lazy("schema.templates")]
MostTemplates = Annotated[int, strawberry.argument(description="At most so many, 1 to 50.")]
LazyAnalyticsPolicy = Annotated["AnalyticsPolicy", strawberry.lazy("schema.people")]
LazySharingPolicy = Annotated["SharingPolicy", strawberry.lazy("schema.sharing_policy")]

Role = enum_type(
    permissions.Role,
    {
        "OWNER": "May do everything, and make or unmake owners. There is always at least one.",
        "ADMIN": "May do everything else: members, tools, all sessions, the audit log.",
        "MEMBER": "Has sessions of their own, and uses those that are shared with them or open to the organisation.",
        "VIEWER": "Reads what is shared with them or open to the organisation.",
    },
)
UserKind = enum_type(
    models.UserKind,
    {"HUMAN": "A person.", "SERVICE": "A service account: a program that has access tokens and no password."},
)
Permission = enum_type(
    permissions.Permission,
    {
        "PROFILE_READ": "Read who one is.",
        "SESSIONS_READ": "Read sessions and all that is in them, and follow them live.",
        "SESSIONS_WRITE": "Make sessions, send messages, decide on tool calls.",
        "ANNOTATIONS_WRITE": "Annotate, comment and score what you may read.",
        "SESSIONS_SHARE": "Give others access to the sessions that one manages, and take it away.",
        "TOOLS_READ": "Read which MCP servers and tools there are.",
        "TOOLS_MANAGE": "Register, change and remove MCP servers.",
        "TOKENS_MANAGE": "Manage one's own access tokens, web sessions and password.",
        "MEMBERS_READ": "Read who is in the organisation and its teams.",
        "MEMBERS_MANAGE": "Add and change users, service accounts and teams, and the tokens of service accounts.",
        "AUDIT_READ": "Read the audit log.",
        "NOTIFICATIONS_MANAGE": "Read one's own notifications, mark them as read, and say how one wants to be told.",
        "TEMPLATES_READ": "Read session templates, their versions and the catalogue.",
        "TEMPLATES_WRITE": "Make, change, test and publish session templates, and review them.",
        "TEMPLATES_SHARE": "Give others access to the templates that one manages, and take it away.",
        "METRICS_READ": "Read metrics: one's own, or the organisation's for its admins.",
        "METRICS_INGEST": "Send telemetry of agents that run elsewhere (OTLP).",
        "MONITORS_MANAGE": "Make, change, silence and test monitors and where their alerts go.",
        "BUDGETS_MANAGE": "Set budgets and prices of models.",
        "REPORTS_MANAGE": "Define, run and download reports.",
    },
)


class UserOrder(StrEnum):
    """How a list of users is ordered."""

    CREATED_OLDEST_FIRST = "CREATED_OLDEST_FIRST"
    CREATED_NEWEST_FIRST = "CREATED_NEWEST_FIRST"


enum_type(
    UserOrder,
    {
        "CREATED_OLDEST_FIRST": "Who came first, first.",
        "CREATED_NEWEST_FIRST": "Who came last, first.",
    },
)


@entity(models.OrganizationRow)
class Organization(Node):
    """The people, sessions and tools that belong together. Nothing is seen across organisations."""

    name: str = column("What it is called.")
    slug: str = column("Its short name: lower-case letters, digits and hyphens; unique.")
    region: str = column("Where its data lives.")
    created_at: datetime = column("When it was made.")

    @nested(policies_of_organizations)
    def sharing_policy(self) -> LazySharingPolicy:
        """What its members may share."""

    @nested(analytics_policies_of)
    def analytics_policy(self) -> LazyAnalyticsPolicy:
        """What is told of its members' use of the product."""


@entity(models.TeamRow)
class Team(Node):
    """Some users of an organisation."""

    name: str = column("What it is called.")
    slug: str = column("Its short name: lower-case letters, digits and hyphens; unique in the organisation.")
    created_at: datetime = column("When it was made.")

    @nested(reads.members_of_teams)
    def members(self, first: First = None, after: After = None) -> Connection[User]:
        """Who is in it."""

    @nested(feed_by(feeds.feed_of_teams))
    def activity(
        self, first: First = None, after: After = None, filter: FeedFilter = None, oldest_first: OldestFirst = False
    ) -> Connection[LazyActivity]:
        """Who did what in the sessions of its members, as far as you may see them, the latest first."""


@entity(models.UserRow)
class User(Node):
    """A person or a service account."""

    kind: UserKind = column("Whether it is a person or a program.")
    name: str = column("What they are called.")
    email: str | None = column("Where they sign in with; null for service accounts.")
    role: Role = column("What they may do in the organisation.")
    created_at: datetime = column("When the account was made.")
    last_seen_at: datetime | None = column("When they last used the API, to about a minute; null for never.")
    deactivated_at: datetime | None = column("Since when they may not sign in; null for active users.")

    @nested(reads.user_in("successor_id"))
    def successor(self) -> User | None:
        """Who gets their sessions should they be deactivated; null where nobody is named."""

    @nested(reads.teams_of_users)
    def teams(self, first: First = None, after: After = None) -> Connection[Team]:
        """The teams they are in."""


@entity(models.AccessTokenRow)
class AccessToken(Node):
    """A token that a program sends as `Authorization: Bearer TOKEN`. Its secret is shown once, when it is made."""

    name: str = column("What it is for.")
    hint: str = column("The last four characters of its secret.")
    scopes: list[Permission] | None = column("What it may do; null for all that its user's role may.")
    created_at: datetime = column("When it was made.")
    expires_at: datetime | None = column("When it ends by itself; null for never.")
    last_used_at: datetime | None = column("When it was last used, to about a minute; null for never.")
    revoked_at: datetime | None = column("When it was revoked; null where it was not.")

    @nested(reads.user_of)
    def user(self) -> User:
        """Whom it stands for."""


@entity(models.WebSessionRow)
class WebSession(Node):
    """A browser in which you are signed in."""

    ip: str | None = column("The address it signed in from.")
    user_agent: str | None = column("What the browser calls itself.")
    created_at: datetime = column("When it signed in.")
    expires_at: datetime = column("When it must sign in again.")
    revoked_at: datetime | None = column("When it was signed out; null where it was not.")

    @strawberry.field(description="Whether it is the one this request comes from.")
    def is_current(root: Any, info: Info) -> bool:
        return bool(root["id"] == info.context.actor.credential_id)


@object_type
class Viewer:
    """Who asks."""

    @nested(reads.user_of)
    def user(self) -> User:
        """The user whose session or token this is."""

    @nested(reads.organization_of)
    def organization(self) -> Organization:
        """The organisation they belong to."""

    @strawberry.field(description="What you may do: your role's permissions, narrowed to your token's scopes.")
    def permissions(root: Any) -> list[Permission]:
        assert isinstance(root, Actor)
        return sorted(root.permissions)

    @nested(most_recent)
    def recent_session_templates(self, most: MostTemplates = 10) -> list[LazyTemplate]:
        """The templates that you started sessions from last and may use now."""

    @nested(most_used)
    def most_used_session_templates(self, most: MostTemplates = 10) -> list[LazyTemplate]:
        """The templates that you started most sessions from and may use now."""

    @nested(inbox)
    def notifications(
        self,
        first: First = None,
        after: After = None,
        filter: Annotated[NotificationFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[Notification]:
        """What you were told, the latest first."""

    @nested(unread_count)
    def unread_notification_count(self) -> int:
        """How many of your notifications are unread."""

    @nested(notifications_cursor)
    def notifications_cursor(self) -> Cursor:
        """The place to follow your inbox from: read this, then the list, then the subscription `notifications(after:)`,
        and you miss nothing."""

    @nested(preferences)
    def notification_preferences(self) -> list[NotificationPreference]:
        """How you want to be told, of every kind."""

    @nested(is_named)
    def named_in_analytics(self) -> bool:
        """Whether you let your figures be shown under your name."""

    @nested(handoffs)
    def handoffs(
        self,
        first: First = None,
        after: After = None,
        filter: Annotated[HandoffFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[Handoff]:
        """Sessions that were offered to you, or by you, the latest first."""


@input_type
class UserFilter:
    """Which users to list. Conditions that are left out take everything."""

    kind: list[UserKind] | None = strawberry.field(default=None, description="Of one of these kinds.")
    role: list[Role] | None = strawberry.field(default=None, description="In one of these roles.")
    active: bool | None = strawberry.field(default=None, description="Active ones, or deactivated ones.")
    text_contains: str | None = strawberry.field(
        default=None, description="The name or the email address has this text, in any case."
    )

    def checked(self) -> reads.UserFilter:
        """What the reads take."""
        return reads.UserFilter(kinds=self.kind, roles=self.role, active=self.active, text=self.text_contains)


@input_type
class AccessTokenFilter:
    """Which access tokens to list."""

    user_id: list[strawberry.ID] | None = strawberry.field(default=None, description="Of one of these users.")
    include_revoked: bool = strawberry.field(default=False, description="Also those that were revoked.")

    def checked(self) -> reads.TokenFilter:
        """What the reads take."""
        return reads.TokenFilter(
            user_ids=decode_ids("User", self.user_id, "filter.userId"), include_revoked=self.include_revoked
        )


@strawberry.type
class IdentityQuery:
    @query(permissions.Permission.PROFILE_READ)
    async def viewer(info: Info) -> Viewer:
        """Who you are, and what you may do."""
        return info.context.actor

    @query(permissions.Permission.PROFILE_READ)
    async def organization(info: Info) -> Organization:
        """Your organisation."""
        actor = info.context.actor
        return await reads.organization(actor, actor.organization_id)

    @query(permissions.Permission.MEMBERS_READ)
    async def users(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[UserFilter | None, strawberry.argument(description="Which ones.")] = None,
        order_by: Annotated[
            UserOrder, strawberry.argument(description="In which order.")
        ] = UserOrder.CREATED_OLDEST_FIRST,
    ) -> Connection[User]:
        """The people and service accounts of your organisation."""
        return await reads.users(
            info.context.actor,
            filter.checked() if filter else reads.UserFilter(),
            first=first,
            after=after,
            descending=order_by is UserOrder.CREATED_NEWEST_FIRST,
        )

    @query(permissions.Permission.MEMBERS_READ)
    async def teams(info: Info, first: First = None, after: After = None) -> Connection[Team]:
        """The teams of your organisation, the oldest first."""
        return await reads.teams(info.context.actor, first=first, after=after)

    @query(permissions.Permission.TOKENS_MANAGE)
    async def access_tokens(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[AccessTokenFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[AccessToken]:
        """Your access tokens; for admins all of the organisation. The newest first."""
        wanted = filter.checked() if filter else reads.TokenFilter()
        return await reads.access_tokens(info.context.actor, wanted, first=first, after=after)

    @query(permissions.Permission.TOKENS_MANAGE)
    async def web_sessions(info: Info, first: First = None, after: After = None) -> Connection[WebSession]:
        """The browsers in which you are signed in, the newest first."""
        return await reads.web_sessions(info.context.actor, first=first, after=after)
