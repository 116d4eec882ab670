"""Teams of an organisation and who is in them."""

from __future__ import annotations

from uuid import UUID

from core.errors import Conflict, NotFound
from core.ids import new_id
from core.permissions import Actor, Permission
from models.base import Query
from models.identity import Team, TeamRow
from services import idempotency
from services.identity.accounts import lock_user
from services.identity.checks import check_name, check_slug, slug_of
from services.work import Work, announce_access, write


async def create_team(actor: Actor, *, name: str, slug: str | None = None, key: str | None = None) -> TeamRow:
    """A team without members. Raises BadInput, Forbidden, Conflict."""
    name = check_name(name)
    slug = check_slug(slug) if slug else slug_of(name)
    async with write(actor, "team.create") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        found = await idempotency.claim(work, "createTeam", key, {"name": name, "slug": slug})
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return await _lock_team(work, found.earlier)
        row = await work.tx.fetchrow(
            "INSERT INTO teams (id, organization_id, name, slug, created_at) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (organization_id, slug) DO NOTHING RETURNING *",
            found.result_id,
            actor.organization_id,
            name,
            slug,
            work.at,
            row=TeamRow,
        )
        if row is None:
            raise Conflict(f"There is a team {slug!r} already.", field="slug")
        work.target("Team", row["id"], name)
        work.changed(after={"name": name, "slug": slug})
    return row


async def add_team_member(actor: Actor, team_id: UUID, user_id: UUID) -> TeamRow:
    """Again has no effect. Raises Forbidden, NotFound."""
    async with write(actor, "team.add_member") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        user = await lock_user(work, user_id)
        team = await _lock_team(work, team_id)
        await work.tx.execute(
            "INSERT INTO team_members (id, team_id, user_id, created_at) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (team_id, user_id) DO NOTHING",
            new_id(),
            team_id,
            user_id,
            work.at,
        )
        work.changed(after={"userId": str(user_id), "name": user["name"]})
        # What is shared with the team is shared with who is in it.
        work.after_commit(lambda: announce_access(actor.organization_id, users=[user_id]))
    return team


async def remove_team_member(actor: Actor, team_id: UUID, user_id: UUID) -> TeamRow:
    """Again has no effect. Raises Forbidden, NotFound."""
    async with write(actor, "team.remove_member") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        user = await lock_user(work, user_id)
        team = await _lock_team(work, team_id)
        await work.tx.execute("DELETE FROM team_members WHERE team_id = $1 AND user_id = $2", team_id, user_id)
        work.changed(before={"userId": str(user_id), "name": user["name"]})
        # What is shared with the team is shared with who is in it.
        work.after_commit(lambda: announce_access(actor.organization_id, users=[user_id]))
    return team


async def _lock_team(work: Work, team_id: UUID) -> TeamRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM teams WHERE id = {query.arg(team_id)} AND {query.scope(Team.visible_to(work.actor))} "
        "FOR NO KEY UPDATE",
        *query.args,
        row=TeamRow,
    )
    if row is None:
        raise NotFound("There is no such team in your organisation.", field="teamId")
    work.target("Team", row["id"], row["name"])
    return row
