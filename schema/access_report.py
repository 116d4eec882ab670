"""The report of who had access to a session and used it, in the graph."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from core.ids import decode
from core.permissions import Permission
from resolvers import access_report as reads
from resolvers import sharing as sharing_reads
from resolvers.identity import user_in
from schema.connections import After, Connection, First
from schema.fields import Info, column, nested, object_type, query
from schema.sessions import Session
from schema.sharing import AccessLevel, AccessReasonKind, Grant, LazyTeam, LazyUser, ShareLink


@object_type
class AccessPeriod:
    """That something gave access for a while. Where its terms changed, one for each of them."""

    kind: AccessReasonKind = column("What it was.")
    level: AccessLevel = column("What it gave.")
    since: datetime = column("From when on.")
    until: datetime | None = column("When it ended; null while it holds.")
    note: str | None = column("Why, as whoever gave it said.")

    @nested(sharing_reads.grant_of)
    def grant(self) -> Grant | None:
        """The grant, for GRANT and TEAM_GRANT, as it is now."""

    @nested(sharing_reads.team_of)
    def team(self) -> LazyTeam | None:
        """The team, for TEAM_GRANT."""

    @nested(user_in("granted_by_id"))
    def granted_by(self) -> LazyUser | None:
        """Who gave it, for GRANT and TEAM_GRANT."""

    @nested(user_in("ended_by_id"))
    def ended_by(self) -> LazyUser | None:
        """Who ended or changed it; null where it holds or ended by itself."""

    @nested(sharing_reads.link_of)
    def via_link(self) -> ShareLink | None:
        """The link it came by; null where it came by none."""


@object_type
class PersonAccess:
    """How somebody had access to a session, and how they used it."""

    access: list[AccessPeriod] = column("What gave them access, and when, the earliest first.")
    views: int = column("How often they read what is in it.")
    first_view_at: datetime | None = column("When they first did; null for never.")
    last_view_at: datetime | None = column("When they last did; null for never.")
    messages_sent: int = column("How many messages they sent.")
    decisions_made: int = column("How many tool calls they decided on.")

    @nested(user_in("user_id"))
    def user(self) -> LazyUser:
        """Who it is."""


@object_type
class SessionAccessReport:
    """Who had access to a session, when and by what, and who used it."""

    session: Session = column("The session.")
    since: datetime = column("Begin of the report.")
    until: datetime = column("End of the report; not in it any more.")
    organization_visibility: list[AccessPeriod] = column("When everybody in the organisation could read it.")

    @nested(reads.people_of_reports)
    def people(self, first: First = None, after: After = None) -> Connection[PersonAccess]:
        """Everybody who had access by anything else, or used what the organisation had."""


@strawberry.type
class AccessReportQuery:
    @query(Permission.PROFILE_READ)
    async def session_access_report(
        info: Info,
        session_id: Annotated[strawberry.ID, strawberry.argument(description="The session.")],
        from_: Annotated[
            datetime | None,
            strawberry.argument(name="from", description="Begin; left out, when the session was made."),
        ] = None,
        to: Annotated[
            datetime | None, strawberry.argument(description="End, not in it any more; left out, now.")
        ] = None,
    ) -> SessionAccessReport:
        """Who had access to a session, when and by what, and who used it. For those who manage it, and those who may
        read the audit log, where asking is recorded. How often somebody read is counted by the hour."""
        return await reads.access_report(info.context.actor, decode("ses", session_id, field="sessionId"), from_, to)
