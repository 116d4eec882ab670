"""Sharing sessions and templates with users and teams, and taking that back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from core import db
from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.ids import encode
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.sharing import SESSION, TEMPLATE, AccessLevel, Grant, GrantRow
from models.templates import TemplateLevel, TemplateRow
from services import idempotency
from services.identity.actors import system_actor
from services.sharing.giving import MOST_TEAMS, MOST_USERS, Terms, affects, change, end, give, name_of
from services.sharing.policy import policy_in
from services.sharing.resources import Resource, level_in_kind
from services.templates.access import lock_template
from services.work import Work, write

logger = logging.getLogger(__name__)

LONGEST_NOTE = 500


async def share_session(
    actor: Actor,
    session_id: UUID,
    terms: Terms,
    *,
    users: Sequence[UUID] = (),
    teams: Sequence[UUID] = (),
    key: str | None = None,
) -> list[GrantRow]:
    """Give users and teams access to a session. Whoever has a grant already gets these terms instead.

    Raises Forbidden for all but the session's admins and for a team that the actor is in, where they neither own the
    session nor administer the organisation; NotFound and BadInput for whom it cannot be shared with and for
    terms that the organisation's policy does not allow, LimitExceeded over 500 users or 50 teams.
    """
    async with write(actor, "session.share") as work:
        actor.require(Permission.SESSIONS_SHARE)
        session = Resource.session(await work.lock_session(session_id, needs=AccessLevel.ADMIN))
        return await _share(work, "shareSession", session, terms, users, teams, key)


async def share_template(
    actor: Actor,
    template_id: UUID,
    terms: Terms,
    *,
    users: Sequence[UUID] = (),
    teams: Sequence[UUID] = (),
    key: str | None = None,
) -> list[GrantRow]:
    """Let users and teams do something with a template: as `share_session`, with the same errors."""
    async with write(actor, "template.share") as work:
        actor.require(Permission.TEMPLATES_SHARE)
        template = Resource.template(await lock_template(work, template_id, needs=TemplateLevel.ADMIN))
        return await _share(work, "shareSessionTemplate", template, terms, users, teams, key)


async def _share(
    work: Work,
    operation: str,
    resource: Resource,
    terms: Terms,
    users: Sequence[UUID],
    teams: Sequence[UUID],
    key: str | None,
) -> list[GrantRow]:
    users, teams = list(dict.fromkeys(users)), list(dict.fromkeys(teams))
    _check_numbers(resource, users, teams)
    terms = replace(terms, note=check_note(terms.note))
    asked = {
        resource.noun: resource.id,
        "users": users,
        "teams": teams,
        "level": terms.level,
        "note": terms.note,
        "expiresAt": terms.expires_at,
    }
    found = await idempotency.claim(work, operation, key, asked)
    if found.earlier is not None:
        work.entry.action = ""  # nothing happens a second time
        return await _living(work, resource, users, teams)
    names = await _names(work, resource, users, teams)
    await _check_not_own(work, resource, teams, "teamIds")
    terms = replace(terms, expires_at=(await policy_in(work)).end_of_grant(terms.expires_at))
    given = await give(work, resource, names, terms, users=users, teams=teams)
    work.entry.details = {"users": len(users), "teams": len(teams), "level": terms.level}
    return given


async def update_grant(
    actor: Actor,
    grant_id: UUID,
    *,
    level: str | None = None,
    note: str | None = None,
    expires_at: datetime | None = None,
) -> GrantRow:
    """Other terms for a grant; None leaves a thing as it is. One that is raised ends by what the policy allows now.

    Raises NotFound, Forbidden for all but those who administer what it is to and for a grant to a team of the actor's
    as in sharing, BadInput for one's own grant and bad terms, Conflict for one that has ended.
    """
    async with write(actor, "grant.update") as work:
        resource, grant = await _lock_grant(work, grant_id)
        if grant["user_id"] == actor.user_id:
            raise BadInput(
                f"You cannot change your own access. Ask another who manages the {resource.noun}.", field="grantId"
            )
        await _check_not_own(work, resource, [grant["team_id"]] if grant["team_id"] is not None else [], "grantId")
        if _is_over(work, grant):
            raise Conflict(f"This access has ended already. Share the {resource.noun} anew.", field="grantId")
        now, ends = level_in_kind(resource.kind, grant["level"]), grant["expires_at"]
        wanted = now if level is None else level_in_kind(resource.kind, level)
        if expires_at is not None:
            ends = (await policy_in(work)).end_of_grant(expires_at)
        elif not now.includes(wanted):  # type: ignore[arg-type]
            # More is given than before, and so it is given now.
            latest = (await policy_in(work)).end_of_grant(None)
            ends = min((end for end in (ends, latest) if end is not None), default=None)
        terms = Terms(wanted, grant["note"] if note is None else check_note(note), ends)
        work.entry.action = ""  # the grant's own record says it
        if terms == Terms(now, grant["note"], grant["expires_at"]):
            return grant
        changed = await change(work, grant, await name_of(work, grant), terms)
        await affects(work, resource, [changed], notify=True)
    return changed


async def revoke_grant(actor: Actor, grant_id: UUID) -> GrantRow:
    """End a grant; again has no effect. Streams that it gave end within a second. Raises NotFound, Forbidden."""
    async with write(actor, "grant.revoke") as work:
        resource, grant = await _lock_grant(work, grant_id)
        work.entry.action = ""  # the grant's own record says it
        if grant["revoked_at"] is not None:
            return grant
        ended = await end(work, grant, await name_of(work, grant))
        await affects(work, resource, [ended])
    return ended


async def leave_session(actor: Actor, session_id: UUID) -> GrantRow:
    """Give up the access that one has been given oneself. Raises NotFound, and Conflict where there is none: what a
    team, the organisation or ownership gives cannot be left by one alone."""
    async with write(actor, "session.leave") as work:
        session = Resource.session(await work.lock_session(session_id, needs=AccessLevel.READ))
        own = await _living(work, session, [actor.user_id] if actor.user_id else [], [])
        if not own:
            raise Conflict(
                "You have no access of your own to give up here: yours comes from a team, from the organisation, or "
                "from owning the session.",
                field="sessionId",
            )
        work.entry.action = ""  # the grant's own record says it
        ended = await end(work, own[0], actor.name)
        await affects(work, session, [ended])
    return ended


async def expire_grants() -> int:
    """End the grants whose time is over, each once, with its event and record; returns how many. Called by workers.

    They give nothing any more from their time on: this is what tells of it. What somebody holds is left to the next
    sweep.
    """
    due = await db.fetch(
        "SELECT DISTINCT resource_kind, resource_id, organization_id FROM grants "
        f"WHERE revoked_at IS NULL AND expires_at <= now() AND resource_kind IN ('{SESSION}', '{TEMPLATE}') LIMIT 100",
        row=Row,
    )
    expired = 0
    for row in due:
        try:
            expired += await _expire(row["resource_kind"], row["resource_id"], row["organization_id"])
        except Exception:
            logger.exception("Grants of %s could not expire; it is tried again.", row["resource_id"])
    return expired


async def _expire(kind: str, id_: UUID, organization_id: UUID) -> int:
    async with write(system_actor(organization_id), None) as work:
        table = "sessions" if kind == SESSION else "session_templates"
        if not await work.tx.fetchval(f"SELECT 1 FROM {table} WHERE id = $1 FOR UPDATE SKIP LOCKED", id_):
            return 0
        if kind == SESSION:
            resource = Resource.session(await work.hold_session(id_))
        else:
            row = await work.tx.fetchrow("SELECT * FROM session_templates WHERE id = $1", id_, row=TemplateRow)
            assert row is not None
            resource = Resource.template(row)
        due = await work.tx.fetch(
            "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
            "AND expires_at <= $3 ORDER BY id FOR UPDATE",
            kind,
            id_,
            work.at,
            row=GrantRow,
        )
        ended = [await end(work, grant, await name_of(work, grant)) for grant in due]
        await affects(work, resource, ended)
    return len(ended)


def check_note(note: str | None) -> str | None:
    """A note without the spaces around it, None for an empty one; raises BadInput for a long one."""
    if note is None or not note.strip():
        return None
    if len(note.strip()) > LONGEST_NOTE:
        raise BadInput(f"A note has at most {LONGEST_NOTE} characters.", field="note")
    return note.strip()


def _check_numbers(resource: Resource, users: Sequence[UUID], teams: Sequence[UUID]) -> None:
    if not users and not teams:
        raise BadInput("Say with whom to share: userIds, teamIds, or both.", field="userIds")
    if len(users) > MOST_USERS:
        raise BadInput(f"A {resource.noun} is shared with at most {MOST_USERS} people.", field="userIds")
    if len(teams) > MOST_TEAMS:
        raise BadInput(f"A {resource.noun} is shared with at most {MOST_TEAMS} teams.", field="teamIds")


async def _names(work: Work, resource: Resource, users: Sequence[UUID], teams: Sequence[UUID]) -> dict[UUID, str]:
    """What users and teams of the organisation are called. Raises for those whom it cannot be shared with."""
    if work.actor.user_id in users:
        raise BadInput("You cannot give access to yourself.", field="userIds")
    if resource.owner_id in users:
        raise BadInput(f"The {resource.noun}'s owner has all access already.", field="userIds")
    organization_id, names = resource.organization_id, {}
    for row in await work.tx.fetch(
        "SELECT id, name, deactivated_at FROM users WHERE id = ANY($1) AND organization_id = $2",
        list(users),
        organization_id,
        row=Row,
    ):
        if row["deactivated_at"] is not None:
            raise BadInput(f"{encode('usr', row['id'])} is deactivated.", field="userIds")
        names[row["id"]] = row["name"]
    for row in await work.tx.fetch(
        "SELECT id, name FROM teams WHERE id = ANY($1) AND organization_id = $2", list(teams), organization_id, row=Row
    ):
        names[row["id"]] = row["name"]
    for prefix, ids, field in (("usr", users, "userIds"), ("team", teams, "teamIds")):
        for id_ in ids:
            if id_ not in names:
                raise NotFound(f"There is no {encode(prefix, id_)} in your organisation.", field=field)
    return names


async def _check_not_own(work: Work, resource: Resource, teams: Sequence[UUID], field: str) -> None:
    """Raises Forbidden for a team that the actor is in: by it they would change their own access. The owner and the
    organisation's admins have all of it anyway."""
    if not teams or work.actor.user_id == resource.owner_id or work.actor.is_admin:
        return
    name = await work.tx.fetchval(
        "SELECT name FROM teams JOIN team_members ON team_members.team_id = teams.id "
        "WHERE teams.id = ANY($1) AND team_members.user_id = $2 LIMIT 1",
        list(teams),
        work.actor.user_id,
    )
    if name is not None:
        raise Forbidden(
            f"You are in the team {name}, and cannot give access to yourself or change your own. "
            f"Ask the {resource.noun}'s owner.",
            field=field,
        )


async def _living(work: Work, resource: Resource, users: Sequence[UUID], teams: Sequence[UUID]) -> list[GrantRow]:
    return await work.tx.fetch(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > $5) AND (user_id = ANY($3) OR team_id = ANY($4)) ORDER BY id",
        resource.kind,
        resource.id,
        list(users),
        list(teams),
        work.at,
        row=GrantRow,
    )


async def _lock_grant(work: Work, grant_id: UUID) -> tuple[Resource, GrantRow]:
    """A grant and what it is to, held, for somebody who manages that."""
    query = Query()
    seen = await work.tx.fetchrow(
        f"SELECT resource_kind, resource_id FROM grants WHERE grants.id = {query.arg(grant_id)} "
        f"AND {query.scope(Grant.visible_to(work.actor))}",
        *query.args,
        row=GrantRow,
    )
    if seen is None:
        raise NotFound("There is no such grant, or you may not see it.", field="grantId")
    if seen["resource_kind"] == TEMPLATE:
        work.actor.require(Permission.TEMPLATES_SHARE)
        template = await lock_template(work, seen["resource_id"], needs=TemplateLevel.ADMIN, field="grantId")
        resource = Resource.template(template)
    else:
        work.actor.require(Permission.SESSIONS_SHARE)
        resource = Resource.session(await work.lock_session(seen["resource_id"], needs=AccessLevel.ADMIN))
    grant = await work.tx.fetchrow("SELECT * FROM grants WHERE id = $1 FOR UPDATE", grant_id, row=GrantRow)
    assert grant is not None
    return resource, grant


def _is_over(work: Work, grant: GrantRow) -> bool:
    return grant["revoked_at"] is not None or (grant["expires_at"] is not None and grant["expires_at"] <= work.at)
