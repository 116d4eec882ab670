"""Making templates, working on their drafts, handing them on and removing them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.ids import encode
from core.permissions import Actor, Permission, Role, permissions_of
from models.base import Row
from models.identity import UserRow
from models.notifications import NotificationKind
from models.templates import SessionTemplate, TemplateLevel, TemplateRow
from services import idempotency
from services.sessions.options import check_labels, check_title
from services.templates.access import lock_template
from services.templates.catalogue import index
from services.templates.categories import check_category
from services.templates.parameters import check_schema
from services.templates.spec import NAME, TemplateSpec
from services.templates.succession import end_grants
from services.work import Work, write

PUBLIC = ("name", "title", "summary", "icon", "category", "labels", "organization_level")
"""What of a template goes into the audit log as it is; of its draft, the digest does."""


@dataclass(frozen=True, slots=True)
class NewTemplate:
    """What a template is made from; `spec` has been checked (services.templates.spec.check_spec)."""

    name: str
    title: str
    category: str
    spec: TemplateSpec
    summary: str = ""
    icon: str | None = None
    labels: dict[str, str] | None = None
    owner_team_id: UUID | None = None
    organization_level: TemplateLevel | None = None


@dataclass(frozen=True, slots=True)
class TemplateChanges:
    """What to change; None leaves a thing as it is. A new `spec` replaces all of the old one."""

    name: str | None = None
    title: str | None = None
    summary: str | None = None
    icon: str | None = None
    """Empty takes it away."""
    category: str | None = None
    labels: dict[str, str] | None = None
    spec: TemplateSpec | None = None


async def create_template(actor: Actor, new: NewTemplate, *, key: str | None = None) -> TemplateRow:
    """A template of the actor's own, with a draft and no version yet.

    Raises BadInput with all problems, NotFound for a team that the actor is not in, Conflict for a name that is taken.
    """
    async with write(actor, "template.create") as work:
        asked = {name: getattr(new, name) for name in NewTemplate.__slots__} | {"spec": new.spec.stored()}
        found = await idempotency.claim(work, "createSessionTemplate", key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return await read_in(work, found.earlier)
        return await create_in(work, new, found.result_id)


async def update_template(
    actor: Actor, template_id: UUID, changes: TemplateChanges, *, expected_revision: int | None = None
) -> TemplateRow:
    """Change what a template is called and its draft; takes EDIT. Versions stay as they are.

    Raises NotFound, Forbidden, BadInput, and Conflict for a name that is taken and for a revision that is not the
    template's any more.
    """
    async with write(actor, "template.update") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.EDIT)
        fresh = await update_in(work, row, changes, expected_revision=expected_revision)
        if fresh is row:
            work.entry.action = ""  # nothing is different
        return fresh


async def remove_template(actor: Actor, template_id: UUID) -> TemplateRow:
    """Remove a template; takes ADMIN. Its versions stay for the sessions that were started from them, and its name is
    free again."""
    async with write(actor, "template.remove") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
        await work.tx.execute(
            "UPDATE session_templates SET replaced_by_id = NULL WHERE replaced_by_id = $1 AND removed_at IS NULL",
            row["id"],
        )
        await work.tx.execute(
            "UPDATE session_templates SET removed_at = $2, listed_at = NULL, updated_at = $2 WHERE id = $1",
            row["id"],
            work.at,
        )
        work.changed(before=public(row))
        return await index(work, row["id"])


async def transfer_template(
    actor: Actor,
    template_id: UUID,
    *,
    owner_id: UUID | None = None,
    owner_team_id: UUID | None = None,
    without_team: bool = False,
) -> TemplateRow:
    """Give a template to another owner, or to another team or none. Only for its owner and the organisation's admins.

    Raises NotFound, Forbidden, BadInput. A grant that the new owner had ends: it would come to life again later.
    """
    if owner_id is None and owner_team_id is None and not without_team:
        raise BadInput("Say whom to give it to: ownerId, ownerTeamId, or withoutTeam.", field="ownerId")
    if owner_team_id is not None and without_team:
        raise BadInput("Name a team, or take it away; not both.", field="withoutTeam")
    async with write(actor, "template.transfer") as work:
        # Users are held before what they own, as when somebody is deactivated.
        new = None if owner_id is None else await _possible_owner(work, owner_id)
        row = await lock_template(work, template_id, needs=TemplateLevel.VIEW)
        if row["owner_id"] != actor.user_id and not actor.is_admin:
            raise Forbidden(
                "Only the template's owner and the organisation's admins give it to somebody else.", field="templateId"
            )
        values: dict[str, Any] = {}
        if new is not None and new["id"] != row["owner_id"]:
            values["owner_id"] = new["id"]
            await end_grants(work, [row["id"]], new["id"], new["name"])
            work.notify(
                NotificationKind.SHARE,
                [new["id"]],
                f"{actor.name or 'Somebody'} gave you the template “{row['title']}”",
                subject=("SessionTemplate", row["id"]),
            )
        if without_team:
            values["owner_team_id"] = None
        elif owner_team_id is not None:
            await _check_team(work, owner_team_id)
            values["owner_team_id"] = owner_team_id
        values = {name: value for name, value in values.items() if row[name] != value}
        if not values:
            work.entry.action = ""  # nothing is different
            return row
        await SessionTemplate.filter(id=row["id"]).using_db(work.tx.orm).update(**values, updated_at=work.at)
        work.changed(
            before={name: _id(name, row[name]) for name in values}, after={n: _id(n, v) for n, v in values.items()}
        )
        return await read_in(work, row["id"])


async def create_in(work: Work, new: NewTemplate, template_id: UUID) -> TemplateRow:
    """`create_template` within a write that is under way."""
    values = _checked(
        name=new.name,
        title=new.title,
        summary=new.summary,
        icon=new.icon,
        labels=new.labels or {},
    )
    check_organization_level(new.organization_level)
    check_schema(new.spec.parameters, "spec.parameters")
    await check_category(work, new.category)
    if new.owner_team_id is not None:
        await _check_team(work, new.owner_team_id)
    try:
        await SessionTemplate.create(
            using_db=work.tx.orm,
            id=template_id,
            organization_id=work.actor.organization_id,
            category=new.category,
            owner_id=work.actor.user_id,
            owner_team_id=new.owner_team_id,
            organization_level=new.organization_level,
            draft=new.spec.stored(),
            draft_digest=new.spec.digest(),
            draft_updated_by_id=work.actor.user_id,
            draft_updated_at=work.at,
            created_by_id=work.actor.user_id,
            created_at=work.at,
            updated_at=work.at,
            **values,
        )
    except Exception as error:
        raise _name_taken(error, new.name) from None
    row = await read_in(work, template_id)
    work.target("SessionTemplate", row["id"], row["title"])
    work.changed(after=public(row))
    return row


async def update_in(
    work: Work, row: TemplateRow, changes: TemplateChanges, *, expected_revision: int | None = None
) -> TemplateRow:
    """`update_template` within a write that holds the template; gives the very same row where nothing is different."""
    values = _checked(
        **{
            name: value
            for name in ("name", "title", "summary", "icon", "labels")
            if (value := getattr(changes, name)) is not None
        }
    )
    if changes.spec is not None:
        check_schema(changes.spec.parameters, "spec.parameters")
    await _check_revision(work, row, expected_revision)
    if changes.category is not None:
        await check_category(work, changes.category)
        values["category"] = changes.category
    if changes.spec is not None and (digest := changes.spec.digest()) != row["draft_digest"]:
        values |= {
            "draft": changes.spec.stored(),
            "draft_digest": digest,
            "draft_updated_by_id": work.actor.user_id,
            "draft_updated_at": work.at,
        }
    values = {name: value for name, value in values.items() if row[name] != value}
    return await change(work, row, values) if values else row


async def change(work: Work, row: TemplateRow, values: dict[str, Any]) -> TemplateRow:
    """Change columns of the held template: another revision, and the audit record of what is different."""
    try:
        await (
            SessionTemplate.filter(id=row["id"])
            .using_db(work.tx.orm)
            .update(**values, draft_revision=row["draft_revision"] + 1, updated_at=work.at)
        )
    except Exception as error:
        raise _name_taken(error, values.get("name", "")) from None
    fresh = await index(work, row["id"])
    before, after = public(row), public(fresh)
    different = [name for name in after if before[name] != after[name]]
    work.target("SessionTemplate", fresh["id"], fresh["title"])
    work.changed(before={name: before[name] for name in different}, after={name: after[name] for name in different})
    return fresh


async def read_in(work: Work, template_id: UUID) -> TemplateRow:
    """The template as it now is inside the transaction."""
    row = await work.tx.fetchrow("SELECT * FROM session_templates WHERE id = $1", template_id, row=TemplateRow)
    assert row is not None
    return row


def public(row: TemplateRow) -> dict[str, Any]:
    """A template as the audit log has it."""
    return {name: row[name] for name in PUBLIC} | {"draftDigest": row["draft_digest"]}


def check_organization_level(level: TemplateLevel | None) -> None:
    """Raises BadInput for ADMIN: not everybody shares and removes what is somebody's."""
    if level is TemplateLevel.ADMIN:
        raise BadInput(
            "Everybody of the organisation may VIEW, USE or EDIT a template. Give ADMIN to people and teams.",
            field="organizationLevel",
        )


def _checked(**given: Any) -> dict[str, Any]:
    """Columns of a client's values; BadInput with all problems at once."""
    problems: list[tuple[str, str]] = []
    found = dict(given)
    for name, check in _CHECKS.items():
        if name in given:
            try:
                found[name] = check(given[name])
            except BadInput as error:
                problems.append((name, error.message))
    if problems:
        raise BadInput.of_fields(problems)
    return found


def _check_name(name: str) -> str:
    if not NAME.match(name):
        raise BadInput("A name has 1 to 64 lower-case letters, digits and hyphens inside: code-review.")
    return name


def _check_summary(summary: str) -> str:
    cleaned = summary.strip()
    if len(cleaned) > 500 or "\0" in cleaned:
        raise BadInput("A summary has at most 500 characters.")
    return cleaned


def _check_icon(icon: str | None) -> str | None:
    if not icon:
        return None
    if len(icon) > 64 or not icon.isprintable():
        raise BadInput("An icon is an emoji or a name, of at most 64 characters.")
    return icon


def _check_title(title: str) -> str:
    if "\0" in title:
        raise BadInput("A title has no NUL characters.")
    return check_title(title, default="")


_CHECKS: dict[str, Any] = {
    "name": _check_name,
    "title": _check_title,
    "summary": _check_summary,
    "icon": _check_icon,
    "labels": check_labels,
}


def _name_taken(error: Exception, name: str) -> Exception:
    """A Conflict for what the index of names refused; everything else stays what it is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, asyncpg.UniqueViolationError) and cause.constraint_name == "session_templates_name":
            return Conflict(f"There is a template {name!r} already in your organisation.", field="name")
        cause = cause.__cause__ or (cause.args[0] if cause.args and isinstance(cause.args[0], Exception) else None)
    return error


async def _check_revision(work: Work, row: TemplateRow, expected: int | None) -> None:
    if expected is None or expected == row["draft_revision"]:
        return
    raise Conflict(
        f"{await name_of_editor(work, row)} has changed the template since: it is at revision "
        f"{row['draft_revision']}, and you saw {expected}. Read it again, and make your changes anew.",
        field="expectedRevision",
        revision=row["draft_revision"],
        digest=row["draft_digest"],
    )


async def name_of_editor(work: Work, row: TemplateRow) -> str:
    """What whoever last changed the draft is called."""
    name = await work.tx.fetchval("SELECT name FROM users WHERE id = $1", row["draft_updated_by_id"])
    return name or "Somebody"


async def _check_team(work: Work, team_id: UUID) -> None:
    """Raises NotFound for a team of another organisation, Forbidden for one that the actor is not in."""
    team = await work.tx.fetchrow(
        "SELECT name, EXISTS (SELECT FROM team_members WHERE team_id = teams.id AND user_id = $3) AS mine "
        "FROM teams WHERE id = $1 AND organization_id = $2",
        team_id,
        work.actor.organization_id,
        work.actor.user_id,
        row=Row,
    )
    if team is None:
        raise NotFound(f"There is no {encode('team', team_id)} in your organisation.", field="ownerTeamId")
    if not team["mine"] and not work.actor.is_admin:
        raise Forbidden(
            f"You are not in the team {team['name']}. Name one of yours, or share the template with it.",
            field="ownerTeamId",
        )


async def _possible_owner(work: Work, user_id: UUID) -> UserRow:
    """Somebody who can own templates, held so that they stay so. Raises BadInput, NotFound."""
    row = await work.tx.fetchrow(
        "SELECT id, name, role, deactivated_at FROM users WHERE id = $1 AND organization_id = $2 FOR SHARE",
        user_id,
        work.actor.organization_id,
        row=UserRow,
    )
    if row is None:
        raise NotFound("There is no such user in your organisation.", field="ownerId")
    if row["deactivated_at"] is not None:
        raise BadInput(f"{row['name']} has been deactivated. Name somebody who is active.", field="ownerId")
    if Permission.TEMPLATES_WRITE not in permissions_of(Role(row["role"])):
        raise BadInput(f"{row['name']} is {row['role']} and cannot own templates.", field="ownerId")
    return row


def _id(name: str, value: UUID | None) -> str | None:
    return None if value is None else encode("usr" if name == "owner_id" else "team", value)
