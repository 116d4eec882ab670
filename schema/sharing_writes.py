"""Sharing in the graph: mutations, and asking for somebody's access."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from core.ids import decode
from core.permissions import Permission
from resolvers import sessions as session_reads
from resolvers import sharing as reads
from schema.fields import Info, decode_ids, input_type, mutation, nested, object_type, query
from schema.sessions import Session
from schema.sharing import AccessLevel, Grant, GrantLevel, SessionAccess, ShareLink
from services.sharing import grants, links
from services.sharing.giving import Terms

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."


@input_type
class ShareSessionInput:
    """With whom to share a session. Who has a grant already gets these terms instead."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    user_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="People and service accounts of the organisation; 500 for a session."
    )
    team_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Teams: whoever is in them has access; 50 for a session."
    )
    level: AccessLevel = strawberry.field(description="What they may do.")
    note: str | None = strawberry.field(default=None, description="Why, up to 500 characters; they can read it.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends by itself; left out for never, or the latest that the policy allows."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateGrantInput:
    """What to change of a grant. What is left out stays."""

    grant_id: strawberry.ID = strawberry.field(description="Its id, `gra_…`.")
    level: GrantLevel | None = strawberry.field(default=None, description="What it gives.")
    note: str | None = strawberry.field(default=None, description="Why, up to 500 characters; empty for none.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends by itself. To take an end away, share the session or template anew."
    )


@input_type
class GrantInput:
    """A grant."""

    grant_id: strawberry.ID = strawberry.field(description="Its id, `gra_…`.")


@input_type
class CreateShareLinkInput:
    """A new link to a session."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    level: AccessLevel = strawberry.field(description="What it gives: READ or WRITE.")
    expires_at: datetime | None = strawberry.field(
        default=None,
        description="When it can no longer be redeemed; left out for never, or the latest that the policy allows.",
    )
    max_uses: int | None = strawberry.field(
        default=None, description="How many people may redeem it, 1 to 500; left out for any number."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description=f"{_KEY} The secret is only in the first answer."
    )


@input_type
class RevokeShareLinkInput:
    """Which link to revoke."""

    share_link_id: strawberry.ID = strawberry.field(description="Its id, `lnk_…`.")


@input_type
class RedeemShareLinkInput:
    """A link that you were given."""

    secret: str = strawberry.field(description="Its secret, `qdl_…`.")


@input_type
class LeaveSessionInput:
    """Which session to leave."""

    session_id: strawberry.ID = strawberry.field(description="The session.")


@object_type
class ShareSessionPayload:
    """With whom the session is shared now."""

    session: Session = strawberry.field(description="The session.")
    grants: list[Grant] = strawberry.field(description="One for each of whom you named.")


@object_type
class GrantPayload:
    """The grant that was changed or ended."""

    grant: Grant = strawberry.field(description="It, as it is now.")

    @nested(lambda actor, parents, args: reads.session_of(actor, [parent.grant for parent in parents], args))
    def session(self) -> Session | None:
        """The session; null for a template's grant, and where you may not see it any more."""


@object_type
class CreateShareLinkPayload:
    """The link that was made."""

    share_link: ShareLink = strawberry.field(description="All but its secret.")
    secret: str | None = strawberry.field(
        description="What to give to people: they pass it to `redeemShareLink`. It is shown this once. "
        "Null where an idempotency key found a link that was made before."
    )


@object_type
class ShareLinkPayload:
    """The link that was revoked."""

    share_link: ShareLink = strawberry.field(description="It, with `revokedAt`.")


@object_type
class RedeemShareLinkPayload:
    """What the link gave you."""

    session: Session = strawberry.field(description="The session it leads to.")
    grant: Grant | None = strawberry.field(description="Your access; null where you had as much already.")


@strawberry.type
class SharingQuery:
    @query(Permission.SESSIONS_READ)
    async def session_access(
        info: Info,
        session_id: Annotated[strawberry.ID, strawberry.argument(description="The session.")],
        user_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(description="Whose access; left out for your own. Another's takes ADMIN access."),
        ] = None,
    ) -> SessionAccess:
        """What somebody may do in a session, and why."""
        return await reads.session_access(
            info.context.actor,
            decode("ses", session_id, field="sessionId"),
            decode("usr", user_id, field="userId") if user_id is not None else None,
        )


@strawberry.type
class SharingMutation:
    @mutation(Permission.SESSIONS_SHARE)
    async def share_session(info: Info, input: ShareSessionInput) -> ShareSessionPayload:
        """Give people and teams access to a session that you manage, or change what they have."""
        actor, session_id = info.context.actor, decode("ses", input.session_id, field="sessionId")
        given = await grants.share_session(
            actor,
            session_id,
            Terms(input.level, input.note, input.expires_at),
            users=decode_ids("User", input.user_ids, "userIds") or (),
            teams=decode_ids("Team", input.team_ids, "teamIds") or (),
            key=input.idempotency_key,
        )
        return ShareSessionPayload(session=await session_reads.session(actor, session_id), grants=given)

    @mutation(Permission.SESSIONS_SHARE)
    async def update_grant(info: Info, input: UpdateGrantInput) -> GrantPayload:
        """Change what a grant gives to a session that you manage; to a template, with TEMPLATES_SHARE besides."""
        row = await grants.update_grant(
            info.context.actor,
            decode("gra", input.grant_id, field="grantId"),
            level=input.level,
            note=input.note,
            expires_at=input.expires_at,
        )
        return GrantPayload(grant=row)

    @mutation(Permission.SESSIONS_SHARE)
    async def revoke_grant(info: Info, input: GrantInput) -> GrantPayload:
        """Take access away, to a session that you manage, or to a template, with TEMPLATES_SHARE besides. Again has no
        effect."""
        row = await grants.revoke_grant(info.context.actor, decode("gra", input.grant_id, field="grantId"))
        return GrantPayload(grant=row)

    @mutation(Permission.SESSIONS_SHARE)
    async def create_share_link(info: Info, input: CreateShareLinkInput) -> CreateShareLinkPayload:
        """Make a link to a session that you manage. Whoever of the organisation has it can give themself access."""
        made = await links.create_share_link(
            info.context.actor,
            decode("ses", input.session_id, field="sessionId"),
            level=input.level,
            expires_at=input.expires_at,
            max_uses=input.max_uses,
            key=input.idempotency_key,
        )
        return CreateShareLinkPayload(share_link=made.row, secret=made.secret)

    @mutation(Permission.SESSIONS_SHARE)
    async def revoke_share_link(info: Info, input: RevokeShareLinkInput) -> ShareLinkPayload:
        """Make a link useless; again has no effect. The access that people got by it stays until it is revoked."""
        link_id = decode("lnk", input.share_link_id, field="shareLinkId")
        return ShareLinkPayload(share_link=await links.revoke_share_link(info.context.actor, link_id))

    @mutation(Permission.SESSIONS_READ)
    async def redeem_share_link(info: Info, input: RedeemShareLinkInput) -> RedeemShareLinkPayload:
        """Take the access that a link gives. Who has as much already uses nothing of it."""
        actor = info.context.actor
        redeemed = await links.redeem_share_link(actor, input.secret)
        session = await session_reads.session(actor, redeemed.session_id)
        return RedeemShareLinkPayload(session=session, grant=redeemed.grant)

    @mutation(Permission.SESSIONS_READ)
    async def leave_session(info: Info, input: LeaveSessionInput) -> GrantPayload:
        """Give up the access to a session that was given to yourself."""
        row = await grants.leave_session(info.context.actor, decode("ses", input.session_id, field="sessionId"))
        return GrantPayload(grant=row)
