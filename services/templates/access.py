"""What a user may do with templates, and why; and finding and holding them for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import db
from core.errors import Forbidden, NotFound, QuarterdeckError
from core.permissions import Actor
from models.base import Query, Row
from models.templates import TEMPLATE, SessionTemplate, TemplateLevel, TemplateRow
from services.sharing.access import AccessReasonKind, Fetch, Somebody
from services.work import Work


@dataclass(frozen=True, slots=True)
class TemplateAccessReason:
    """One of the things that let somebody do something with a template, with the level that it gives."""

    kind: AccessReasonKind
    level: TemplateLevel
    expires_at: datetime | None = None
    grant_id: UUID | None = None
    team_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TemplateAccess:
    """What somebody may do with a template, and all that lets them, the strongest first."""

    level: TemplateLevel | None
    """None where they may not even see it."""
    via: Sequence[TemplateAccessReason]

    @classmethod
    def of(cls, reasons: Iterable[TemplateAccessReason]) -> TemplateAccess:
        """What these reasons give together."""
        via = sorted(reasons, key=lambda reason: _STRENGTH[reason.level], reverse=True)
        return cls(via[0].level if via else None, via)


_STRENGTH = {level: strength for strength, level in enumerate(TemplateLevel)}

# The time of the statement and not of the transaction: a write may have waited for the template for a while.
_LIVING = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())"
_TEAMS = "ARRAY(SELECT team_members.team_id FROM team_members WHERE team_members.user_id = $2)"
_GIVEN = f"""
SELECT resource_id, id AS grant_id, NULL::uuid AS team_id, level, expires_at FROM grants
WHERE resource_kind = '{TEMPLATE}' AND resource_id = ANY($1) AND user_id = $2 AND {_LIVING}
UNION ALL
SELECT resource_id, id, team_id, level, expires_at FROM grants
WHERE resource_kind = '{TEMPLATE}' AND resource_id = ANY($1) AND {_LIVING} AND team_id = ANY({_TEAMS})
UNION ALL
SELECT session_templates.id, NULL, owner_team_id, '{TemplateLevel.ADMIN}', NULL FROM session_templates
WHERE session_templates.id = ANY($1) AND owner_team_id = ANY({_TEAMS})
UNION ALL
SELECT session_templates.id, NULL, NULL, organization_level, NULL FROM session_templates
WHERE session_templates.id = ANY($1) AND organization_level IS NOT NULL
"""


async def find_template(
    actor: Actor, template_id: UUID, *, needs: TemplateLevel = TemplateLevel.VIEW, field: str = "templateId"
) -> TemplateRow:
    """A template that is not removed, for somebody who may do with it what they need.

    Raises NotFound where they may not see it or, for USE, not use it; Forbidden where their level is not enough else.
    """
    query = Query()
    row = await db.fetchrow(
        f"SELECT * FROM session_templates WHERE id = {query.arg(template_id)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(actor), by_row=True)}",
        *query.args,
        row=TemplateRow,
    )
    if row is None:
        raise _not_found(field)
    if needs is not TemplateLevel.VIEW:
        _check(await level_of(db.fetch, actor, row), needs, field)
    return row


async def lock_template(
    work: Work, template_id: UUID, *, needs: TemplateLevel, field: str = "templateId"
) -> TemplateRow:
    """A template that is not removed, held until the end of the transaction; errors as `find_template`.

    What somebody may do is read again once the template is held: who takes that away holds it too, and this write may
    have waited for that.
    """
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM session_templates WHERE id = {query.arg(template_id)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(work.actor), by_row=True)} FOR UPDATE",
        *query.args,
        row=TemplateRow,
    )
    level = None if row is None else await level_of(work.tx.fetch, work.actor, row)
    if row is None or level is None:
        raise _not_found(field)
    if work.entry.target_id is None:
        work.target("SessionTemplate", row["id"], row["title"])
    _check(level, needs, field)
    return row


async def level_of(fetch: Fetch, actor: Actor, template: TemplateRow) -> TemplateLevel | None:
    """What the actor may do with a template; asks nothing of the database for its owner and the admins."""
    somebody = Somebody.acting(actor)
    if _standing(somebody, template):
        return TemplateLevel.ADMIN
    [access] = await accesses(fetch, somebody, [template])
    return access.level


async def accesses(fetch: Fetch, somebody: Somebody, templates: Sequence[TemplateRow]) -> list[TemplateAccess]:
    """What a user may do with templates of their organisation, in the templates' order; one statement for all."""
    found = {template["id"]: _standing(somebody, template) for template in templates}
    for row in await fetch(_GIVEN, list(found), somebody.user_id, row=Row):
        found[row["resource_id"]].append(
            TemplateAccessReason(
                _kind_of(row), TemplateLevel(row["level"]), row["expires_at"], row["grant_id"], row["team_id"]
            )
        )
    return [TemplateAccess.of(found[template["id"]]) for template in templates]


def _standing(somebody: Somebody, template: TemplateRow) -> list[TemplateAccessReason]:
    """What nobody has to give: the owner's access and the admins'."""
    reasons = []
    if somebody.user_id is not None and template["owner_id"] == somebody.user_id:
        reasons.append(TemplateAccessReason(AccessReasonKind.OWNER, TemplateLevel.ADMIN))
    if somebody.is_admin:
        reasons.append(TemplateAccessReason(AccessReasonKind.ORGANIZATION_ADMIN, TemplateLevel.ADMIN))
    return reasons


def _kind_of(row: Row) -> AccessReasonKind:
    if row["grant_id"] is None:
        return AccessReasonKind.ORGANIZATION if row["team_id"] is None else AccessReasonKind.OWNER_TEAM
    return AccessReasonKind.GRANT if row["team_id"] is None else AccessReasonKind.TEAM_GRANT


def _check(level: TemplateLevel | None, needs: TemplateLevel, field: str) -> None:
    if level is not None and level.includes(needs):
        return
    if level is None or needs is TemplateLevel.USE:
        raise _not_found(field)
    raise Forbidden(
        f"You may {level.value} this template; this takes {needs.value}. Ask its owner.",
        field=field,
        level=level.value,
        needs=needs.value,
    )


def _not_found(field: str) -> QuarterdeckError:
    return NotFound("There is no such template, or you may not see or use it.", field=field)
