"""Reads of organisations, users, teams, access tokens and web sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page, SharedCount, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission, Role
from models.base import Query, Row, Scope
from models.identity import (
    AccessToken,
    AccessTokenRow,
    Organization,
    OrganizationRow,
    Team,
    TeamRow,
    User,
    UserKind,
    UserRow,
    WebSession,
    WebSessionRow,
)
from resolvers import reading
from resolvers.reading import Batch, needing, parent, value_of


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users a list has. None takes everything."""

    kinds: Sequence[UserKind] | None = None
    roles: Sequence[Role] | None = None
    active: bool | None = None
    text: str | None = None

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = []
        if self.kinds is not None:
            found.append(f"users.kind = ANY({query.arg([kind.value for kind in self.kinds])})")
        if self.roles is not None:
            found.append(f"users.role = ANY({query.arg([role.value for role in self.roles])})")
        if self.active is not None:
            found.append(f"(users.deactivated_at IS NULL) = {query.arg(self.active)}")
        if self.text:
            wanted = query.arg(self.text.lower())
            found.append(f"(strpos(lower(users.name), {wanted}) > 0 OR strpos(users.email, {wanted}) > 0)")
        return found


@dataclass(frozen=True, slots=True)
class TokenFilter:
    """Which access tokens a list has."""

    user_ids: Sequence[UUID] | None = None
    include_revoked: bool = False

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = [] if self.include_revoked else ["access_tokens.revoked_at IS NULL"]
        if self.user_ids is not None:
            found.append(f"access_tokens.user_id = ANY({query.arg(list(self.user_ids))})")
        return found


async def organization(actor: Actor, id_: UUID) -> OrganizationRow | None:
    """An organisation, or None where it is not the actor's."""
    return await reading.find("organizations", OrganizationRow, Organization.visible_to(actor), id_)  # type: ignore[no-any-return]


async def user(actor: Actor, id_: UUID) -> UserRow | None:
    """A user, or None where the actor may not see them."""
    return await reading.find("users", UserRow, User.visible_to(actor), id_)  # type: ignore[no-any-return]


async def team(actor: Actor, id_: UUID) -> TeamRow | None:
    """A team, or None where the actor may not see it."""
    return await reading.find("teams", TeamRow, Team.visible_to(actor), id_)  # type: ignore[no-any-return]


async def access_token(actor: Actor, id_: UUID) -> AccessTokenRow | None:
    """An access token, or None where the actor may not see it."""
    return await reading.find("access_tokens", AccessTokenRow, AccessToken.visible_to(actor), id_)  # type: ignore[no-any-return]


async def web_session(actor: Actor, id_: UUID) -> WebSessionRow | None:
    """A web session, or None where it is not the actor's own."""
    return await reading.find("web_sessions", WebSessionRow, WebSession.visible_to(actor), id_)  # type: ignore[no-any-return]


async def users(
    actor: Actor, filter_: UserFilter, *, first: int | None, after: str | None, descending: bool
) -> Page[UserRow]:
    """The users of the actor's organisation, by creation."""
    return await reading.page(
        "users",
        UserRow,
        lambda query: [query.scope(User.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
        descending=descending,
    )


async def teams(actor: Actor, *, first: int | None, after: str | None) -> Page[TeamRow]:
    """The teams of the actor's organisation, the oldest first."""
    return await reading.page(
        "teams",
        TeamRow,
        lambda query: [query.scope(Team.visible_to(actor))],
        first=first,
        after=after,
        descending=False,
    )


async def access_tokens(
    actor: Actor, filter_: TokenFilter, *, first: int | None, after: str | None
) -> Page[AccessTokenRow]:
    """The actor's own tokens; for admins all of the organisation. The newest first."""
    return await reading.page(
        "access_tokens",
        AccessTokenRow,
        lambda query: [query.scope(AccessToken.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
    )


async def web_sessions(actor: Actor, *, first: int | None, after: str | None) -> Page[WebSessionRow]:
    """Where the actor is signed in with a browser now, the newest first."""
    return await reading.page(
        "web_sessions",
        WebSessionRow,
        lambda query: [
            query.scope(WebSession.visible_to(actor)),
            "web_sessions.revoked_at IS NULL AND web_sessions.expires_at > now()",
        ],
        first=first,
        after=after,
    )


def user_in(column: str) -> Batch:
    """A batch function for the user that a column points at. Others than oneself take MEMBERS_READ."""
    read = parent("users", UserRow, column, User.visible_to)

    async def batch(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        if any(value_of(each, column) not in (None, actor.user_id) for each in parents):
            actor.require(Permission.MEMBERS_READ)
        return await read(actor, parents, args)

    return batch


async def users_by_ids(actor: Actor, ids: Sequence[UUID]) -> list[UserRow]:
    """These users in order, as far as the actor may see them. Others than oneself take MEMBERS_READ."""
    if set(ids) - {actor.user_id}:
        actor.require(Permission.MEMBERS_READ)
    found = await reading.by_ids("users", UserRow, User.visible_to(actor), set(ids))
    return [found[id_] for id_ in ids if id_ in found]


user_of = user_in("user_id")
organization_of = parent("organizations", OrganizationRow, "organization_id", Organization.visible_to)


def _of_team_members(
    table: str, row: type[Row], scope: Callable[[Actor], Scope], *, own: str, parents_column: str
) -> Batch:
    """A batch function for what `team_members` joins to its parents, by creation. Args: `first`, `after`."""

    async def batch(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        size = page_size(args.get("first"))
        after = args.get("after")
        ids = list({parent["id"] for parent in parents})
        query = Query()
        wanted, visible = query.arg(ids), query.scope(scope(actor))
        beyond = f"AND team_members.{own} > {query.arg(_cursor_id(after))}" if after is not None else ""
        rows = await db.fetch(
            f"SELECT parent.id AS of_parent, child.* FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
            f"SELECT {table}.* FROM team_members JOIN {table} ON {table}.id = team_members.{own} "
            f"WHERE team_members.{parents_column} = parent.id AND {visible} {beyond} "
            f"ORDER BY team_members.{own} LIMIT {size + 1}) AS child",
            *query.args,
            row=row,
        )
        found: dict[UUID, list[Any]] = {id_: [] for id_ in ids}
        for child in rows:
            found[child["of_parent"]].append(child)
        counts = SharedCount(partial(_count, parents_column, ids))
        return [
            cut(found[p["id"]], size, lambda r: encode_cursor(str(r["id"])), partial(counts.of, p["id"]), after=after)
            for p in parents
        ]

    return batch


async def _count(parents_column: str, ids: list[UUID]) -> Mapping[UUID, int]:
    rows = await db.fetch(
        f"SELECT {parents_column} AS parent, count(*) AS n FROM team_members "
        f"WHERE {parents_column} = ANY($1) GROUP BY 1",
        ids,
        row=Row,
    )
    return {row["parent"]: row["n"] for row in rows}


members_of_teams = needing(
    Permission.MEMBERS_READ,
    _of_team_members("users", UserRow, User.visible_to, own="user_id", parents_column="team_id"),
)
teams_of_users = needing(
    Permission.MEMBERS_READ,
    _of_team_members("teams", TeamRow, Team.visible_to, own="team_id", parents_column="user_id"),
)


def _cursor_id(cursor: str) -> UUID:
    [value] = decode_cursor(cursor, 1)
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise not_a_cursor() from None
