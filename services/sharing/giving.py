"""Giving, changing and ending access, inside a write that holds what it is to: rows, events and records together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from core.errors import LimitExceeded
from core.ids import encode, new_id
from core.permissions import Actor
from models.base import Row
from models.notifications import NotificationKind
from models.sharing import SESSION, GrantRow
from services import audit
from services.sharing.resources import Level, Resource, details_of, level_in_kind
from services.work import Work, announce_access

MOST_USERS = 500
MOST_TEAMS = 50


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant gives."""

    level: Level
    note: str | None = None
    expires_at: datetime | None = None


async def give(
    work: Work,
    resource: Resource,
    names: dict[UUID, str],
    terms: Terms,
    *,
    users: Sequence[UUID] = (),
    teams: Sequence[UUID] = (),
    via_link: UUID | None = None,
    notify: bool = True,
) -> list[GrantRow]:
    """Access for these users and teams, who are known to be there; `names` has what they are called. Who has a grant
    already gets the new terms. They are notified unless the caller tells them more than that. Raises LimitExceeded
    over the most that one session or template may have."""
    known = await _known(work, resource, users, teams)
    added = [("user_id", id_) for id_ in users if id_ not in known] + [
        ("team_id", id_) for id_ in teams if id_ not in known
    ]
    await _check_room(work, resource, added)
    ids = [new_id() for _ in added]
    await work.tx.executemany(
        "INSERT INTO grants (id, organization_id, resource_kind, resource_id, user_id, team_id, level, note, "
        "expires_at, granted_by_id, via_link_id, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        [
            (
                id_,
                resource.organization_id,
                resource.kind,
                resource.id,
                grantee if column == "user_id" else None,
                grantee if column == "team_id" else None,
                terms.level,
                terms.note,
                terms.expires_at,
                work.actor.user_id,
                via_link,
                work.at,
            )
            for id_, (column, grantee) in zip(ids, added, strict=True)
        ],
    )
    told = []
    for grant in await work.tx.fetch("SELECT * FROM grants WHERE id = ANY($1) ORDER BY id", ids, row=GrantRow):
        _tell(work, "granted", grant, names[_grantee(grant)], action="grant.create", after=public(grant))
        told.append(grant)
    kept = []
    for grant in known.values():
        if _terms(grant) == terms:
            kept.append(grant)
        else:
            told.append(await change(work, grant, names[_grantee(grant)], terms, via_link=via_link))
    await affects(work, resource, told, notify=notify)
    return [*told, *kept]


async def change(
    work: Work, grant: GrantRow, name: str | None, terms: Terms, *, via_link: UUID | None = None
) -> GrantRow:
    """Other terms for a living grant. The former ones stay, as a row of their own that has ended."""
    await work.tx.execute(
        "INSERT INTO grants (id, organization_id, resource_kind, resource_id, user_id, team_id, level, note, "
        "expires_at, granted_by_id, via_link_id, created_at, revoked_at, revoked_by_id, replaced_by_id) "
        "SELECT $2, organization_id, resource_kind, resource_id, user_id, team_id, level, note, expires_at, "
        "granted_by_id, via_link_id, created_at, $3, $4, id FROM grants WHERE id = $1",
        grant["id"],
        new_id(),
        work.at,
        work.actor.user_id,
    )
    changed = await work.tx.fetchrow(
        "UPDATE grants SET level = $2, note = $3, expires_at = $4, granted_by_id = $5, via_link_id = $6, "
        "created_at = $7 WHERE id = $1 RETURNING *",
        grant["id"],
        terms.level,
        terms.note,
        terms.expires_at,
        work.actor.user_id,
        via_link,
        work.at,
        row=GrantRow,
    )
    assert changed is not None
    _tell(
        work,
        "changed",
        changed,
        name,
        action="grant.update",
        before=public(grant),
        after=public(changed),
        previous=grant["level"],
    )
    return changed


async def end(work: Work, grant: GrantRow, name: str | None) -> GrantRow:
    """End a grant that has not ended: by the actor now, or by itself where its time is over."""
    expired = grant["expires_at"] is not None and grant["expires_at"] <= work.at
    ended = await work.tx.fetchrow(
        "UPDATE grants SET revoked_at = $2, revoked_by_id = $3 WHERE id = $1 RETURNING *",
        grant["id"],
        grant["expires_at"] if expired else work.at,
        None if expired else work.actor.user_id,
        row=GrantRow,
    )
    assert ended is not None
    _tell(
        work,
        "expired" if expired else "revoked",
        ended,
        name,
        action="grant.expire" if expired else "grant.revoke",
        before=public(grant),
    )
    return ended


async def affects(work: Work, resource: Resource, grants: Sequence[GrantRow], *, notify: bool = False) -> None:
    """Tell lists, streams and people of changed grants of what is held."""
    if not grants:
        return
    people = await people_of(work, grants)
    if resource.kind == SESSION:
        work.session_changed("UPDATED")
        work.after_commit(lambda: announce_access(resource.organization_id, sessions=[resource.id], users=people))
    else:
        # Who edits a template follows the sessions of its tests, whichever these are.
        work.after_commit(lambda: announce_access(resource.organization_id, users=people))
    if notify:
        work.notify(
            NotificationKind.SHARE,
            people,
            f"{work.actor.name or 'Somebody'} lets you {resource.verb(grants[0]['level'])} “{resource.title}”",
            body=grants[0]["note"] or "",
            subject=resource.subject,
        )


async def people_of(work: Work, grants: Sequence[GrantRow]) -> list[UUID]:
    """Whom grants are for: their users, and who is in their teams now."""
    people = [grant["user_id"] for grant in grants if grant["user_id"] is not None]
    if teams := [grant["team_id"] for grant in grants if grant["team_id"] is not None]:
        rows = await work.tx.fetch("SELECT user_id FROM team_members WHERE team_id = ANY($1)", teams, row=Row)
        people += [row["user_id"] for row in rows]
    return list(dict.fromkeys(people))


async def name_of(work: Work, grant: GrantRow) -> str | None:
    """What the user or team of a grant is called."""
    table, id_ = ("users", grant["user_id"]) if grant["user_id"] is not None else ("teams", grant["team_id"])
    return await work.tx.fetchval(f"SELECT name FROM {table} WHERE id = $1", id_)  # type: ignore[no-any-return]


def public(grant: GrantRow) -> dict[str, Any]:
    """A grant as the audit log has it."""
    return {
        "grantee": _encoded(grant),
        "level": grant["level"],
        "note": grant["note"],
        "expiresAt": grant["expires_at"],
    }


def event_of(grant: GrantRow) -> dict[str, Any]:
    """What every event of a grant says of it."""
    user = grant["user_id"] is not None
    return {
        "grantId": encode("gra", grant["id"]),
        "granteeKind": "USER" if user else "TEAM",
        "userId" if user else "teamId": _encoded(grant),
        "level": grant["level"],
    }


def entry_of(
    actor: Actor,
    action: str,
    grant: GrantRow,
    name: str | None,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> audit.Entry:
    """The audit record of a grant; `name` is what its user or team is called."""
    entry = audit.Entry.of(actor, action)
    entry.target_kind, entry.target_id, entry.target_name = "Grant", grant["id"], name
    entry.session_id = grant["resource_id"] if grant["resource_kind"] == SESSION else None
    entry.before, entry.after = before, after
    entry.details = details_of(grant) or None
    if grant["via_link_id"] is not None:
        entry.details = {"viaLinkId": encode("lnk", grant["via_link_id"])}
    return entry


async def _known(work: Work, resource: Resource, users: Sequence[UUID], teams: Sequence[UUID]) -> dict[UUID, GrantRow]:
    """The living grants of these, by user or team. Those whose time is over end here: nobody has swept them yet."""
    found = {}
    for grant in await work.tx.fetch(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
        "AND (user_id = ANY($3) OR team_id = ANY($4)) ORDER BY id FOR UPDATE",
        resource.kind,
        resource.id,
        list(users),
        list(teams),
        row=GrantRow,
    ):
        if grant["expires_at"] is not None and grant["expires_at"] <= work.at:
            await end(work, grant, await name_of(work, grant))
        else:
            found[_grantee(grant)] = grant
    return found


async def _check_room(work: Work, resource: Resource, added: Sequence[tuple[str, UUID]]) -> None:
    for column, most, what in (("user_id", MOST_USERS, "people"), ("team_id", MOST_TEAMS, "teams")):
        new = sum(column == its for its, _ in added)
        if not new:
            continue
        there = await work.tx.fetchval(
            f"SELECT count({column}) FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL",
            resource.kind,
            resource.id,
        )
        if there + new > most:
            raise LimitExceeded(
                f"A {resource.noun} is shared with at most {most} {what}; this one is with {there} already. "
                f"Make a team of them, or open the {resource.noun} to the organisation.",
                field="userIds" if column == "user_id" else "teamIds",
            )


def _tell(
    work: Work,
    what: str,
    grant: GrantRow,
    name: str | None,
    *,
    action: str,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    previous: str | None = None,
) -> None:
    """The audit record of one grant, and the event of its session."""
    work.also(entry_of(work.actor, action, grant, name, before=before, after=after))
    if grant["resource_kind"] != SESSION:
        return
    data = event_of(grant)
    if previous is not None:
        data["previousLevel"] = previous
    if what == "granted" and grant["via_link_id"] is not None:
        data["viaLinkId"] = encode("lnk", grant["via_link_id"])
    work.emit("CUSTOM", data, name=f"quarterdeck.access.{what}")


def _terms(grant: GrantRow) -> Terms:
    return Terms(level_in_kind(grant["resource_kind"], grant["level"]), grant["note"], grant["expires_at"])


def _grantee(grant: GrantRow) -> UUID:
    return grant["user_id"] or grant["team_id"]  # type: ignore[no-any-return]


def _encoded(grant: GrantRow) -> str:
    return encode("team", grant["team_id"]) if grant["user_id"] is None else encode("usr", grant["user_id"])
