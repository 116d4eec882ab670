"""Who owns templates when their owner goes, and grants that owners have no use for."""

from __future__ import annotations

from uuid import UUID

from core.ids import encode
from models.base import Row
from models.sharing import TEMPLATE, GrantRow
from services import audit
from services.sharing import giving
from services.work import Work


async def succeed_in_templates(work: Work, from_id: UUID, to_id: UUID, to_name: str) -> int:
    """Give all templates of a user to another one, each with its record; returns how many."""
    moved = await work.tx.fetch(
        "UPDATE session_templates SET owner_id = $2, updated_at = $3 WHERE owner_id = $1 AND removed_at IS NULL "
        "RETURNING id, title",
        from_id,
        to_id,
        work.at,
        row=Row,
    )
    for row in moved:
        entry = audit.Entry.of(work.actor, "template.succeed")
        entry.target_kind, entry.target_id, entry.target_name = "SessionTemplate", row["id"], row["title"]
        entry.before, entry.after = {"ownerId": encode("usr", from_id)}, {"ownerId": encode("usr", to_id)}
        work.also(entry)
    await end_grants(work, [row["id"] for row in moved], to_id, to_name)
    return len(moved)


async def end_grants(work: Work, template_ids: list[UUID], user_id: UUID, name: str) -> None:
    """End a user's own grants to templates that are theirs now: they would come to life again when these move on."""
    for grant in await work.tx.fetch(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = ANY($2) AND user_id = $3 "
        "AND revoked_at IS NULL ORDER BY id FOR UPDATE",
        TEMPLATE,
        template_ids,
        user_id,
        row=GrantRow,
    ):
        await giving.end(work, grant, name)
