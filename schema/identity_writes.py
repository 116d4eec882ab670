"""Identity in the graph: mutations."""

from __future__ import annotations

from datetime import datetime

import strawberry

from core import permissions
from core.ids import decode
from schema.context import Info
from schema.fields import input_type, mutation, object_type
from schema.identity import AccessToken, Permission, Role, Team, User, WebSession
from services.identity import accounts, sign_in, teams, tokens

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."


@input_type
class CreateAccessTokenInput:
    """A new access token."""

    name: str = strawberry.field(description="What it is for, 1 to 200 characters.")
    scopes: list[Permission] | None = strawberry.field(
        default=None, description="What it may do, none of it beyond your own; left out for all that you may."
    )
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends by itself; left out for never, or when the token you use ends."
    )
    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="A service account whose token it is, for admins; left out for your own."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description=f"{_KEY} The secret is only in the first answer."
    )


@object_type
class CreateAccessTokenPayload:
    """The token that was made."""

    access_token: AccessToken = strawberry.field(description="All but its secret.")
    secret: str | None = strawberry.field(
        description="What to send as `Authorization: Bearer …`. Keep it: it is shown this once. "
        "Null where an idempotency key found a token that was made before."
    )


@input_type
class RevokeAccessTokenInput:
    """Which access token to revoke."""

    access_token_id: strawberry.ID = strawberry.field(description="Its id, `pat_…`.")


@object_type
class RevokeAccessTokenPayload:
    """The token that was revoked."""

    access_token: AccessToken = strawberry.field(description="It, with `revokedAt`.")


@input_type
class CreateUserInput:
    """A new user."""

    name: str = strawberry.field(description="What they are called, 1 to 200 characters.")
    email: str = strawberry.field(description="What they sign in with. Case does not count.")
    role: Role = strawberry.field(
        default=permissions.Role.MEMBER, description="What they may do; at most your own role."
    )
    password: str | None = strawberry.field(
        default=None, description="12 to 256 characters. Left out, they need a sign-in link from the operator."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class CreateServiceAccountInput:
    """A new service account."""

    name: str = strawberry.field(description="What it is called, 1 to 200 characters.")
    role: Role = strawberry.field(
        default=permissions.Role.MEMBER, description="What it may do; at most your own role, and never OWNER."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateUserInput:
    """What to change of a user. What is left out stays."""

    user_id: strawberry.ID = strawberry.field(description="Their id, `usr_…`.")
    name: str | None = strawberry.field(default=None, description="What they are called, 1 to 200 characters.")
    role: Role | None = strawberry.field(default=None, description="What they may do; at most your own role.")
    active: bool | None = strawberry.field(
        default=None,
        description="false signs them out everywhere and revokes their tokens for good; true lets them sign in again.",
    )
    successor_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="With `active: false`: who gets their sessions. Left out, the successor that was named before; "
        "where there is none, the sessions stay, and admins can hand them off.",
    )


@input_type
class SetSuccessorInput:
    """Who is to get somebody's sessions."""

    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="Whose sessions, for admins; left out for your own."
    )
    successor_id: strawberry.ID | None = strawberry.field(
        default=None, description="Who gets them should that user be deactivated; left out for nobody."
    )


@input_type
class SetPasswordInput:
    """A new password."""

    user_id: strawberry.ID | None = strawberry.field(
        default=None, description="Whose, for admins; left out for your own."
    )
    password: str = strawberry.field(description="12 to 256 characters, and not among the common ones.")
    current_password: str | None = strawberry.field(
        default=None, description="Your present one, needed to change your own where you have one."
    )


@object_type
class UserPayload:
    """The user that was made or changed."""

    user: User = strawberry.field(description="They, as they are now.")


@input_type
class CreateTeamInput:
    """A new team."""

    name: str = strawberry.field(description="What it is called, 1 to 200 characters.")
    slug: str | None = strawberry.field(
        default=None, description="Lower-case letters, digits and hyphens; made of the name where it is left out."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class TeamMemberInput:
    """A user and a team."""

    team_id: strawberry.ID = strawberry.field(description="The team's id, `team_…`.")
    user_id: strawberry.ID = strawberry.field(description="The user's id, `usr_…`.")


@object_type
class TeamPayload:
    """The team that was made or changed."""

    team: Team = strawberry.field(description="It, as it is now.")


@input_type
class RevokeWebSessionInput:
    """Which of your browsers to sign out."""

    web_session_id: strawberry.ID = strawberry.field(description="Its id, `web_…`.")


@object_type
class RevokeWebSessionPayload:
    """The web session that was ended."""

    web_session: WebSession = strawberry.field(description="It, with `revokedAt`.")


@strawberry.type
class IdentityMutation:
    @mutation(permissions.Permission.TOKENS_MANAGE)
    async def create_access_token(info: Info, input: CreateAccessTokenInput) -> CreateAccessTokenPayload:
        """Make an access token of your own or, as an admin, of a service account."""
        made = await tokens.create_access_token(
            info.context.actor,
            name=input.name,
            scopes=input.scopes,
            expires_at=input.expires_at,
            user_id=decode("usr", input.user_id, field="userId") if input.user_id else None,
            key=input.idempotency_key,
        )
        return CreateAccessTokenPayload(access_token=made.row, secret=made.secret)

    @mutation(permissions.Permission.TOKENS_MANAGE)
    async def revoke_access_token(info: Info, input: RevokeAccessTokenInput) -> RevokeAccessTokenPayload:
        """End an access token of your own or, as an admin, any. Sockets and streams that use it end within a second."""
        token_id = decode("pat", input.access_token_id, field="accessTokenId")
        row = await tokens.revoke_access_token(info.context.actor, token_id)
        return RevokeAccessTokenPayload(access_token=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def create_user(info: Info, input: CreateUserInput) -> UserPayload:
        """Add a person to the organisation."""
        row = await accounts.create_user(
            info.context.actor,
            name=input.name,
            email=input.email,
            role=input.role,
            password=input.password,
            key=input.idempotency_key,
        )
        return UserPayload(user=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def create_service_account(info: Info, input: CreateServiceAccountInput) -> UserPayload:
        """Add an account for a program. Give it a token with `createAccessToken(userId)`."""
        row = await accounts.create_service_account(
            info.context.actor, name=input.name, role=input.role, key=input.idempotency_key
        )
        return UserPayload(user=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def update_user(info: Info, input: UpdateUserInput) -> UserPayload:
        """Rename a user or service account, change its role, deactivate or reactivate it."""
        row = await accounts.update_user(
            info.context.actor,
            decode("usr", input.user_id, field="userId"),
            name=input.name,
            role=input.role,
            active=input.active,
            successor_id=decode("usr", input.successor_id, field="successorId") if input.successor_id else None,
        )
        return UserPayload(user=row)

    @mutation(permissions.Permission.SESSIONS_WRITE)
    async def set_successor(info: Info, input: SetSuccessorInput) -> UserPayload:
        """Name who gets your sessions, or, as an admin, another's, when the account is deactivated."""
        actor = info.context.actor
        user_id = decode("usr", input.user_id, field="userId") if input.user_id else actor.user_id
        assert user_id is not None
        row = await accounts.set_successor(
            actor,
            user_id,
            decode("usr", input.successor_id, field="successorId") if input.successor_id else None,
        )
        return UserPayload(user=row)

    @mutation(permissions.Permission.TOKENS_MANAGE)
    async def set_password(info: Info, input: SetPasswordInput) -> UserPayload:
        """Set your password or, as an admin, somebody else's. Their other browsers are signed out."""
        actor = info.context.actor
        user_id = decode("usr", input.user_id, field="userId") if input.user_id else actor.user_id
        assert user_id is not None
        row = await accounts.set_password(actor, user_id, input.password, current_password=input.current_password)
        return UserPayload(user=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def create_team(info: Info, input: CreateTeamInput) -> TeamPayload:
        """Make a team."""
        row = await teams.create_team(info.context.actor, name=input.name, slug=input.slug, key=input.idempotency_key)
        return TeamPayload(team=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def add_team_member(info: Info, input: TeamMemberInput) -> TeamPayload:
        """Put a user into a team; again has no effect."""
        row = await teams.add_team_member(
            info.context.actor,
            decode("team", input.team_id, field="teamId"),
            decode("usr", input.user_id, field="userId"),
        )
        return TeamPayload(team=row)

    @mutation(permissions.Permission.MEMBERS_MANAGE)
    async def remove_team_member(info: Info, input: TeamMemberInput) -> TeamPayload:
        """Take a user out of a team; again has no effect."""
        row = await teams.remove_team_member(
            info.context.actor,
            decode("team", input.team_id, field="teamId"),
            decode("usr", input.user_id, field="userId"),
        )
        return TeamPayload(team=row)

    @mutation(permissions.Permission.TOKENS_MANAGE)
    async def revoke_web_session(info: Info, input: RevokeWebSessionInput) -> RevokeWebSessionPayload:
        """Sign out one of your browsers. Its sockets end within a second."""
        web_session_id = decode("web", input.web_session_id, field="webSessionId")
        row = await sign_in.revoke_web_session(info.context.actor, web_session_id)
        return RevokeWebSessionPayload(web_session=row)
