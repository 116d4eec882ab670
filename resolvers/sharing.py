"""Reads of grants, links and policies, and of what somebody may do in a session and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from core import db
from core.errors import Forbidden, NotFound
from core.paging import SharedCount, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission, Role
from models.base import Query, Row, Scope
from models.identity import Team, TeamRow, User, UserRow
from models.sessions import Session, SessionRow
from models.sharing import SESSION, TEMPLATE, AccessLevel, Grant, GrantRow, ShareLink, ShareLinkRow, living
from models.templates import SessionTemplate, TemplateLevel, TemplateRow
from resolvers import reading
from resolvers import sessions as sessions_reads
from resolvers.reading import Batch, needing, parent
from services.sharing.access import SessionAccess, Somebody, accesses
from services.sharing.links import COLUMNS
from services.sharing.policy import policies
from services.templates.access import accesses as template_accesses


async def grant(actor: Actor, id_: UUID) -> GrantRow | None:
    """A grant, or None where the actor may not see it."""
    row: GrantRow | None = await reading.find("grants", GrantRow, Grant.visible_to(actor), id_)
    if row is not None and row["resource_kind"] == TEMPLATE:
        actor.require(Permission.TEMPLATES_READ)
    return row


async def share_link(actor: Actor, id_: UUID) -> ShareLinkRow | None:
    """A link, or None where the actor does not manage its session."""
    query = Query()
    return await db.fetchrow(
        f"SELECT {COLUMNS} FROM share_links WHERE share_links.id = {query.arg(id_)} "
        f"AND {query.scope(ShareLink.visible_to(actor))}",
        *query.args,
        row=ShareLinkRow,
    )


async def accesses_to_sessions(actor: Actor, sessions: Sequence[Any], args: dict[str, Any]) -> list[SessionAccess]:
    """What the actor may do in sessions, and why."""
    return await accesses(db.fetch, Somebody.acting(actor), sessions)


async def session_access(actor: Actor, session_id: UUID, user_id: UUID | None) -> SessionAccess:
    """What somebody of the organisation may do in a session; others than oneself take ADMIN access to it.

    Raises NotFound, Forbidden.
    """
    session = await seen_session(actor, session_id, managing=user_id not in (None, actor.user_id))
    if user_id is None or user_id == actor.user_id:
        somebody = Somebody.acting(actor)
    else:
        user: UserRow | None = await reading.find("users", UserRow, User.visible_to(actor), user_id)
        if user is None:
            raise NotFound("There is no such user in your organisation.", field="userId")
        # Whoever is deactivated has nothing that they could use.
        if user["deactivated_at"] is not None:
            return SessionAccess(None, [])
        somebody = Somebody(user["id"], Role(user["role"]))
    [found] = await accesses(db.fetch, somebody, [session])
    return found


async def seen_session(actor: Actor, session_id: UUID, *, managing: bool) -> SessionRow:
    """A session that the actor sees and, where they have to, manages. Raises NotFound, Forbidden."""
    session = await sessions_reads.session(actor, session_id)
    if session is None:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    if managing:
        [access] = await accesses(db.fetch, Somebody.acting(actor), [session])
        if access.level is not AccessLevel.ADMIN:
            raise Forbidden(
                "This is for the session's owner and those who have ADMIN access to it. Ask its owner.",
                field="sessionId",
            )
    return session


async def _managed(actor: Actor, sessions: Sequence[Any]) -> dict[UUID, bool]:
    """Whether the actor manages sessions; nothing is asked of the database for one's own."""
    if actor.is_admin:
        return {session["id"]: True for session in sessions}
    found = {session["id"]: session["owner_id"] == actor.user_id for session in sessions}
    others = [session for session in sessions if not found[session["id"]]]
    if others:
        for session, access in zip(others, await accesses_to_sessions(actor, others, {}), strict=True):
            found[session["id"]] = access.level is AccessLevel.ADMIN
    return found


async def _managed_templates(actor: Actor, templates: Sequence[Any]) -> dict[UUID, bool]:
    """Whether the actor manages templates."""
    found = await template_accesses(db.fetch, Somebody.acting(actor), templates)
    return {
        template["id"]: access.level is TemplateLevel.ADMIN for template, access in zip(templates, found, strict=True)
    }


_Managed = Callable[[Actor, Sequence[Any]], Awaitable[dict[UUID, bool]]]


def _of_resources(
    kind: str, are_managed: _Managed, table: str, row: type[Row], columns: str, condition: str, own: Scope | None
) -> Batch:
    """A batch function for what hangs on sessions or templates in grants or links, by id. Args: `first`, `after`.

    Who manages one sees all that meets the condition, others what `own` takes as well: it takes their id."""

    async def batch(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        size, after = page_size(args.get("first")), args.get("after")
        managed = await are_managed(actor, list({parent["id"]: parent for parent in parents}.values()))

        def where(query: Query, parent: str) -> str:
            mine = query.scope(Scope(own.condition, (actor.user_id,) * len(own.args))) if own else "false"
            return (
                f"{table}.resource_kind = '{kind}' AND {table}.resource_id = {parent}.id AND {condition} "
                f"AND ({parent}.managed OR {mine})"
            )

        def of(query: Query) -> str:
            ids, flags = query.arg(list(managed)), query.arg(list(managed.values()))
            return f"unnest({ids}::uuid[], {flags}::bool[]) AS parent(id, managed)"

        async def count() -> Mapping[UUID, int]:
            query = Query()
            rows = await db.fetch(
                f"SELECT parent.id, count(*) AS n FROM {of(query)} JOIN {table} ON {where(query, 'parent')} "
                "GROUP BY parent.id",
                *query.args,
                row=Row,
            )
            return {row["id"]: row["n"] for row in rows}

        query = Query()
        source, wanted = of(query), where(query, "parent")
        if after is not None:
            [value] = decode_cursor(after, 1)
            if not isinstance(value, str):
                raise not_a_cursor()
            wanted += f" AND {table}.id > {query.arg(value)}::text::uuid"
        try:
            rows = await db.fetch(
                f"SELECT child.* FROM {source} CROSS JOIN LATERAL (SELECT {columns} FROM {table} WHERE {wanted} "
                f"ORDER BY {table}.id LIMIT {size + 1}) AS child",
                *query.args,
                row=row,
            )
        except asyncpg.DataError:
            raise not_a_cursor() from None
        found: dict[UUID, list[Any]] = {id_: [] for id_ in managed}
        for child in rows:
            found[child["resource_id"]].append(child)
        counts = SharedCount(count)
        return [
            cut(found[p["id"]], size, lambda r: encode_cursor(str(r["id"])), partial(counts.of, p["id"]), after=after)
            for p in parents
        ]

    return batch


_OWN = Scope(
    "grants.user_id = {} OR grants.team_id IN (SELECT team_members.team_id FROM team_members "
    "WHERE team_members.user_id = {})",
    (None, None),
)
grants_of_sessions = _of_resources(SESSION, _managed, "grants", GrantRow, "*", living("grants"), _OWN)
grants_of_templates = _of_resources(TEMPLATE, _managed_templates, "grants", GrantRow, "*", living("grants"), _OWN)
links_of_sessions = _of_resources(
    SESSION, _managed, "share_links", ShareLinkRow, COLUMNS, "share_links.revoked_at IS NULL", None
)

session_of = needing(Permission.SESSIONS_READ, parent("sessions", SessionRow, "resource_id", Session.visible_to))
template_of = needing(
    Permission.TEMPLATES_READ, parent("session_templates", TemplateRow, "resource_id", SessionTemplate.visible_to)
)
team_of = needing(Permission.MEMBERS_READ, parent("teams", TeamRow, "team_id", Team.visible_to))
grant_of = parent("grants", GrantRow, "grant_id", Grant.visible_to)
link_of = parent("share_links", ShareLinkRow, "via_link_id", ShareLink.visible_to, columns=COLUMNS)


async def policies_of_organizations(actor: Actor, organizations: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What organisations let their members share."""
    found = await policies(db.fetch, [each["id"] for each in organizations])
    return [found[each["id"]] for each in organizations]
