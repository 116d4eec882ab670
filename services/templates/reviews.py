"""What people who used a template say of it."""

from __future__ import annotations

from uuid import UUID

from core.errors import BadInput, Forbidden, NotFound
from core.ids import new_id
from core.permissions import Actor
from models.templates import TemplateLevel, TemplateReviewRow, TemplateRow
from services.runs.storable import check_storable
from services.templates.access import lock_template
from services.work import Work, write

LONGEST_TEXT = 4000

_NEWEST_USED = """
SELECT max(versions.number) FROM session_template_versions versions
JOIN sessions ON sessions.template_version_id = versions.id
WHERE versions.template_id = $1 AND sessions.creator_id = $2 AND sessions.purpose = 'WORK'
    AND sessions.forked_from_id IS NULL
"""


async def review(actor: Actor, template_id: UUID, *, rating: int, text: str) -> TemplateReviewRow:
    """Say how good a template is, or say it anew: each author has one review. For those who started a session from it.

    Raises NotFound, BadInput, Forbidden.
    """
    problems = []
    if not 1 <= rating <= 5:
        problems.append(("rating", f"A rating is 1 to 5; it is {rating}."))
    text = text.strip()
    if len(text) > LONGEST_TEXT:
        problems.append(("text", f"A review has at most {LONGEST_TEXT} characters."))
    if problems:
        raise BadInput.of_fields(problems)
    check_storable(text, field="text")
    async with write(actor, "template.review") as work:
        row = await lock_template(work, template_id, needs=TemplateLevel.VIEW)
        version = await work.tx.fetchval(_NEWEST_USED, row["id"], actor.user_id)
        if version is None:
            raise Forbidden(
                "Only those review a template who started a session from it. Start one first (startSession).",
                field="templateId",
            )
        before = await _own(work, row["id"])
        after = await work.tx.fetchrow(
            "INSERT INTO template_reviews (id, organization_id, template_id, author_id, version, rating, text, "
            "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) "
            "ON CONFLICT (template_id, author_id) DO UPDATE SET version = $5, rating = $6, text = $7, updated_at = $8 "
            "RETURNING *",
            new_id(),
            row["organization_id"],
            row["id"],
            actor.user_id,
            version,
            rating,
            text,
            work.at,
            row=TemplateReviewRow,
        )
        assert after is not None
        await _count(work, row, before, after)
        work.changed(before=_public(before), after=_public(after))
    return after


async def remove_review(actor: Actor, review_id: UUID) -> TemplateRow:
    """Take back a review of one's own; admins of the organisation remove anybody's. Raises NotFound, Forbidden."""
    async with write(actor, "template.remove_review") as work:
        template_id = await work.tx.fetchval(
            "SELECT template_id FROM template_reviews WHERE id = $1 AND organization_id = $2",
            review_id,
            actor.organization_id,
        )
        if template_id is None:
            raise NotFound("There is no such review, or you may not see it.", field="reviewId")
        row = await lock_template(work, template_id, needs=TemplateLevel.VIEW, field="reviewId")
        found = await work.tx.fetchrow("SELECT * FROM template_reviews WHERE id = $1", review_id, row=TemplateReviewRow)
        if found is None:
            raise NotFound("There is no such review, or you may not see it.", field="reviewId")
        if found["author_id"] != actor.user_id and not actor.is_admin:
            raise Forbidden("This is somebody else's review. Its author and admins remove it.", field="reviewId")
        await work.tx.execute("DELETE FROM template_reviews WHERE id = $1", review_id)
        await _count(work, row, found, None)
        work.changed(before=_public(found))
        fresh = await work.tx.fetchrow("SELECT * FROM session_templates WHERE id = $1", row["id"], row=TemplateRow)
        assert fresh is not None
        return fresh


async def _own(work: Work, template_id: UUID) -> TemplateReviewRow | None:
    return await work.tx.fetchrow(
        "SELECT * FROM template_reviews WHERE template_id = $1 AND author_id = $2",
        template_id,
        work.actor.user_id,
        row=TemplateReviewRow,
    )


async def _count(
    work: Work, row: TemplateRow, before: TemplateReviewRow | None, after: TemplateReviewRow | None
) -> None:
    """Keep the held template's count and sum of ratings what its reviews say."""
    await work.tx.execute(
        "UPDATE session_templates SET rating_count = rating_count + $2, rating_sum = rating_sum + $3 WHERE id = $1",
        row["id"],
        (after is not None) - (before is not None),
        (after["rating"] if after else 0) - (before["rating"] if before else 0),
    )


def _public(row: TemplateReviewRow | None) -> dict[str, object] | None:
    return None if row is None else {"rating": row["rating"], "text": row["text"], "version": row["version"]}
