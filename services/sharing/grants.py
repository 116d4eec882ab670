"""Sharing sessions with users and teams, and taking that back."""

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
from models.sessions import SessionRow
from models.sharing import SESSION, AccessLevel, Grant, GrantRow
from services import idempotency
from services.identity.actors import system_actor
from services.sharing.giving import MOST_TEAMS, MOST_USERS, Terms, affects, change, end, give, name_of
from services.sharing.policy import policy_in
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
    users, teams = list(dict.fromkeys(users)), list(dict.fromkeys(teams))
    _check_numbers(users, teams)
    terms = replace(terms, note=check_note(terms.note))
    async with write(actor, "session.share") as work:
        actor.require(Permission.SESSIONS_SHARE)
        session = await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        asked = {
            "session": session_id,
            "users": users,
            "teams": teams,
            "level": terms.level,
            "note": terms.note,
            "expiresAt": terms.expires_at,
        }
        found = await idempotency.claim(work, "shareSession", key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return await _living(work, session, users, teams)
        names = await _names(work, session, users, teams)
        await _check_not_own(work, session, teams, "teamIds")
        terms = replace(terms, expires_at=(await policy_in(work)).end_of_grant(terms.expires_at))
        given = await give(work, session, names, terms, users=users, teams=teams)
        work.entry.details = {"users": len(users), "teams": len(teams), "level": terms.level}
    return given


async def update_grant(
    actor: Actor,
    grant_id: UUID,
    *,
    level: AccessLevel | None = None,
    note: str | None = None,
    expires_at: datetime | None = None,
) -> GrantRow:
    """Other terms for a grant; None leaves a thing as it is. One that is raised ends by what the policy allows now.

    Raises NotFound, Forbidden for all but the session's admins and for a grant to a team of the actor's as in sharing,
    BadInput for one's own grant and bad terms, Conflict for one that has ended.
    """
    async with write(actor, "grant.update") as work:
        session, grant = await _lock_grant(work, grant_id)
        if grant["user_id"] == actor.user_id:
            raise BadInput("You cannot change your own access. Ask another who manages the session.", field="grantId")
        await _check_not_own(work, session, [grant["team_id"]] if grant["team_id"] is not None else [], "grantId")
        if _is_over(work, grant):
            raise Conflict("This access has ended already. Share the session anew.", field="grantId")
        now, ends = AccessLevel(grant["level"]), grant["expires_at"]
        if expires_at is not None:
            ends = (await policy_in(work)).end_of_grant(expires_at)
        elif level is not None and not now.includes(level):
            # More is given than before, and so it is given now.
            latest = (await policy_in(work)).end_of_grant(None)
            ends = min((end for end in (ends, latest) if end is not None), default=None)
        terms = Terms(level or now, grant["note"] if note is None else check_note(note), ends)
        work.entry.action = ""  # the grant's own record says it
        if terms == Terms(now, grant["note"], grant["expires_at"]):
            return grant
        changed = await change(work, grant, await name_of(work, grant), terms)
        await affects(work, session, [changed], notify=True)
    return changed


async def revoke_grant(actor: Actor, grant_id: UUID) -> GrantRow:
    """End a grant; again has no effect. Streams that it gave end within a second. Raises NotFound, Forbidden."""
    async with write(actor, "grant.revoke") as work:
        session, grant = await _lock_grant(work, grant_id)
        work.entry.action = ""  # the grant's own record says it
        if grant["revoked_at"] is not None:
            return grant
        ended = await end(work, grant, await name_of(work, grant))
        await affects(work, session, [ended])
    return ended


async def leave_session(actor: Actor, session_id: UUID) -> GrantRow:
    """Give up the access that one has been given oneself. Raises NotFound, and Conflict where there is none: what a
    team, the organisation or ownership gives cannot be left by one alone."""
    async with write(actor, "session.leave") as work:
        session = await work.lock_session(session_id, needs=AccessLevel.READ)
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

    They give nothing any more from their time on: this is what tells of it. A session that somebody holds is left to
    the next sweep.
    """
    due = await db.fetch(
        "SELECT DISTINCT resource_id, organization_id FROM grants WHERE revoked_at IS NULL AND expires_at <= now() "
        f"AND resource_kind = '{SESSION}' LIMIT 100",
        row=Row,
    )
    expired = 0
    for row in due:
        try:
            expired += await _expire(row["resource_id"], row["organization_id"])
        except Exception:
            logger.exception("Grants of %s could not expire; it is tried again.", encode("ses", row["resource_id"]))
    return expired


async def _expire(session_id: UUID, organization_id: UUID) -> int:
    async with write(system_actor(organization_id), None) as work:
        if not await work.tx.fetchval("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE SKIP LOCKED", session_id):
            return 0
        session = await work.hold_session(session_id)
        due = await work.tx.fetch(
            "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
            "AND expires_at <= $3 ORDER BY id FOR UPDATE",
            SESSION,
            session_id,
            work.at,
            row=GrantRow,
        )
        ended = [await end(work, grant, await name_of(work, grant)) for grant in due]
        await affects(work, session, ended)
    return len(ended)


def check_note(note: str | None) -> str | None:
    """A note without the spaces around it, None for an empty one; raises BadInput for a long one."""
    if note is None or not note.strip():
        return None
    if len(note.strip()) > LONGEST_NOTE:
        raise BadInput(f"A note has at most {LONGEST_NOTE} characters.", field="note")
    return note.strip()


def _check_numbers(users: Sequence[UUID], teams: Sequence[UUID]) -> None:
    if not users and not teams:
        raise BadInput("Say with whom to share: userIds, teamIds, or both.", field="userIds")
    if len(users) > MOST_USERS:
        raise BadInput(f"A session is shared with at most {MOST_USERS} people.", field="userIds")
    if len(teams) > MOST_TEAMS:
        raise BadInput(f"A session is shared with at most {MOST_TEAMS} teams.", field="teamIds")


async def _names(work: Work, session: SessionRow, users: Sequence[UUID], teams: Sequence[UUID]) -> dict[UUID, str]:
    """What users and teams of the organisation are called. Raises for those whom a session cannot be shared with."""
    if work.actor.user_id in users:
        raise BadInput("You cannot give access to yourself.", field="userIds")
    if session["owner_id"] in users:
        raise BadInput("The session's owner has all access already.", field="userIds")
    organization_id, names = session["organization_id"], {}
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


async def _check_not_own(work: Work, session: SessionRow, teams: Sequence[UUID], field: str) -> None:
    """Raises Forbidden for a team that the actor is in: by it they would change their own access. The session's owner
    and the organisation's admins have all of it anyway."""
    if not teams or work.actor.user_id == session["owner_id"] or work.actor.is_admin:
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
            "Ask the session's owner.",
            field=field,
        )


async def _living(work: Work, session: SessionRow, users: Sequence[UUID], teams: Sequence[UUID]) -> list[GrantRow]:
    return await work.tx.fetch(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > $5) AND (user_id = ANY($3) OR team_id = ANY($4)) ORDER BY id",
        SESSION,
        session["id"],
        list(users),
        list(teams),
        work.at,
        row=GrantRow,
    )


async def _lock_grant(work: Work, grant_id: UUID) -> tuple[SessionRow, GrantRow]:
    """A grant and its session, held, for somebody who manages the session."""
    query = Query()
    session_id = await work.tx.fetchval(
        f"SELECT resource_id FROM grants WHERE grants.id = {query.arg(grant_id)} "
        f"AND grants.resource_kind = '{SESSION}' AND {query.scope(Grant.visible_to(work.actor))}",
        *query.args,
    )
    if session_id is None:
        raise NotFound("There is no such grant, or you may not see it.", field="grantId")
    work.actor.require(Permission.SESSIONS_SHARE)
    session = await work.lock_session(session_id, needs=AccessLevel.ADMIN)
    grant = await work.tx.fetchrow("SELECT * FROM grants WHERE id = $1 FOR UPDATE", grant_id, row=GrantRow)
    assert grant is not None
    return session, grant


def _is_over(work: Work, grant: GrantRow) -> bool:
    return grant["revoked_at"] is not None or (grant["expires_at"] is not None and grant["expires_at"] <= work.at)
