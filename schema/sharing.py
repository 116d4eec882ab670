"""Sharing in the graph: grants, links, and what somebody may do in a session and why."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from models import sharing as models
from resolvers import sharing as reads
from resolvers.identity import user_in
from schema.fields import Node, column, entity, enum_type, nested, object_type
from services.sharing import access

if TYPE_CHECKING:
    from schema.identity import Team, User
    from schema.sessions import Session
    from schema.templates import SessionTemplate

LazyUser = Annotated["User", strawberry.lazy("schema.identity")]
LazyTeam = Annotated["Team", strawberry.lazy("schema.identity")]
LazySession = Annotated["Session", strawberry.lazy("schema.sessions")]
LazyTemplate = Annotated["SessionTemplate", strawberry.lazy("schema.templates")]

AccessLevel = enum_type(
    models.AccessLevel,
    {
        "READ": "Read all that is in it, follow it live, and fork it.",
        "WRITE": "READ, and send messages, decide on tool calls, interrupt, pause and complete it, change its title, "
        "labels, options and servers.",
        "ADMIN": "WRITE, and share it, change who may read it, put it away and end it for good.",
    },
)


class GrantLevel(StrEnum):
    """What a grant gives: READ, WRITE and ADMIN of sessions; VIEW, USE, EDIT and ADMIN of templates."""

    READ = "READ"
    WRITE = "WRITE"
    VIEW = "VIEW"
    USE = "USE"
    EDIT = "EDIT"
    ADMIN = "ADMIN"


enum_type(
    GrantLevel,
    {
        "READ": "Of a session: read all that is in it.",
        "WRITE": "Of a session: READ, and work in it.",
        "VIEW": "Of a template: see it.",
        "USE": "Of a template: VIEW, and start sessions from it.",
        "EDIT": "Of a template: USE, and change, test and publish it.",
        "ADMIN": "All of these, and share it and end it.",
    },
)
AccessReasonKind = enum_type(
    access.AccessReasonKind,
    {
        "OWNER": "It is theirs.",
        "OWNER_TEAM": "It is a template that a team of theirs owns.",
        "ORGANIZATION_ADMIN": "They are owner or admin of the organisation.",
        "GRANT": "It was shared with them.",
        "TEAM_GRANT": "It was shared with a team that they are in.",
        "ORGANIZATION": "It is open to the organisation.",
    },
)


@entity(models.ShareLinkRow)
class ShareLink(Node):
    """A link that gives whoever of the organisation redeems it access to a session. For those who manage it."""

    hint: str = column("The last four characters of its secret.")
    level: AccessLevel = column("What it gives.")
    expires_at: datetime | None = column("When it can no longer be redeemed; null for never.")
    max_uses: int | None = column("How many people may redeem it; null for any number.")
    use_count: int = column("How many people have got access by it.")
    created_at: datetime = column("When it was made.")
    revoked_at: datetime | None = column("When it was revoked; null where it was not.")

    @nested(user_in("created_by_id"))
    def created_by(self) -> LazyUser | None:
        """Who made it."""

    @nested(reads.session_of)
    def session(self) -> LazySession | None:
        """The session it leads to."""


@entity(models.GrantRow)
class Grant(Node):
    """Access to a session or a template that somebody gave to a user or to a team."""

    level: GrantLevel = column("What it gives, as far as the permissions of the user's role go.")
    note: str | None = column("Why, as whoever gave it says.")
    created_at: datetime = column("Since when it has these terms.")
    expires_at: datetime | None = column("When it ends by itself; null for never.")
    revoked_at: datetime | None = column("When it ended, also by itself or by other terms; null while it holds.")

    @nested(user_in("user_id"))
    def user(self) -> LazyUser | None:
        """Whom it is for; null where it is for a team."""

    @nested(reads.team_of)
    def team(self) -> LazyTeam | None:
        """The team whose members it is for; null where it is for a user."""

    @nested(user_in("granted_by_id"))
    def granted_by(self) -> LazyUser | None:
        """Who gave it these terms. Where it came by a link, its user themself."""

    @nested(user_in("revoked_by_id"))
    def revoked_by(self) -> LazyUser | None:
        """Who ended it; null where it expired, or holds."""

    @nested(reads.link_of)
    def via_link(self) -> ShareLink | None:
        """The link it came by; null where it came by none, or you do not manage the session."""

    @nested(reads.session_of)
    def session(self) -> LazySession | None:
        """The session that it gives access to; null for templates, and where you may not see it any more."""

    @nested(reads.template_of)
    def template(self) -> LazyTemplate | None:
        """The template that it gives access to; null for sessions, and where you may not see it any more."""


@object_type
class AccessReason:
    """One of the things that give somebody access to a session."""

    kind: AccessReasonKind = column("What it is.")
    level: AccessLevel = column("What it gives.")
    expires_at: datetime | None = column("When it ends by itself; null for not at all.")

    @nested(reads.grant_of)
    def grant(self) -> Grant | None:
        """The grant, for GRANT and TEAM_GRANT."""

    @nested(reads.team_of)
    def team(self) -> LazyTeam | None:
        """The team, for TEAM_GRANT."""


@object_type
class SessionAccess:
    """What somebody may do in a session, and why."""

    level: AccessLevel | None = column(
        "The most that any of the reasons gives, as far as the permissions of their role go; null for no access."
    )
    via: list[AccessReason] = column("All that gives access, the strongest first.")
