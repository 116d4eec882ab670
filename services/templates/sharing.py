"""What everybody in the organisation may do with a template. Grants are services.sharing.grants'."""

from __future__ import annotations

from uuid import UUID

from core.permissions import Actor, Permission
from models.templates import TemplateLevel, TemplateRow
from services.templates.access import lock_template
from services.templates.catalogue import index
from services.templates.drafts import check_organization_level
from services.work import announce_access, write


async def set_visibility(actor: Actor, template_id: UUID, level: TemplateLevel | None) -> TemplateRow:
    """Let everybody in the organisation do this, or nothing; takes ADMIN. Raises NotFound, Forbidden, BadInput."""
    check_organization_level(level)
    async with write(actor, "template.set_visibility") as work:
        actor.require(Permission.TEMPLATES_SHARE)
        row = await lock_template(work, template_id, needs=TemplateLevel.ADMIN)
        if row["organization_level"] == level:
            work.entry.action = ""  # nothing is different
            return row
        await work.tx.execute(
            "UPDATE session_templates SET organization_level = $2, updated_at = $3 WHERE id = $1",
            row["id"],
            level,
            work.at,
        )
        work.changed(before={"organizationLevel": row["organization_level"]}, after={"organizationLevel": level})
        work.after_commit(lambda: announce_access(row["organization_id"]))
        return await index(work, row["id"])
