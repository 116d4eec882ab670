"""Categories of templates: four that are always there, and those that an organisation makes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.errors import BadInput, Conflict, NotFound
from core.permissions import Actor
from models.templates import TemplateCategoryRow
from services import idempotency
from services.sessions.options import check_title
from services.sharing.access import Fetch
from services.templates.spec import NAME
from services.work import Work, write

ALWAYS = {
    "development": "Development",
    "production-analysis": "Production Analysis",
    "security-audit": "Security Audit",
    "performance-testing": "Performance Testing",
}
"""The keys of the categories that every organisation has, and what they are called, in the order in which they are
shown."""

MOST_CATEGORIES = 200


async def create_category(actor: Actor, *, key: str, title: str, idempotency_key: str | None = None) -> UUID:
    """A category of the organisation's own; returns its id. Raises BadInput, and Conflict where there is one."""
    check_key(key)
    title = check_title(title, default="")
    if len(title) > 100:
        raise BadInput("A category's title has at most 100 characters.", field="title")
    async with write(actor, "template_category.create") as work:
        asked = {"key": key, "title": title}
        found = await idempotency.claim(work, "createTemplateCategory", idempotency_key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return found.earlier
        if key in ALWAYS:
            raise Conflict(f"There is always a category {key!r}.", field="key")
        # One row to hold, so that two at once do not go over the most.
        await work.tx.execute("SELECT 1 FROM organizations WHERE id = $1 FOR UPDATE", actor.organization_id)
        there = await work.tx.fetchval(
            "SELECT count(*) FROM template_categories WHERE organization_id = $1", actor.organization_id
        )
        if there >= MOST_CATEGORIES:
            raise Conflict(f"An organisation has at most {MOST_CATEGORIES} categories of its own.", field="key")
        made = await work.tx.fetchval(
            "INSERT INTO template_categories (id, organization_id, key, title, created_at) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT (organization_id, key) DO NOTHING RETURNING id",
            found.result_id,
            actor.organization_id,
            key,
            title,
            work.at,
        )
        if made is None:
            raise Conflict(f"There is a category {key!r} already.", field="key")
        work.target("TemplateCategory", made, title)
        work.changed(after=asked)
    return found.result_id


async def remove_category(actor: Actor, category_id: UUID) -> TemplateCategoryRow:
    """Remove one of the organisation's own. Raises NotFound, and Conflict while templates are in it."""
    async with write(actor, "template_category.remove") as work:
        row = await work.tx.fetchrow(
            "SELECT * FROM template_categories WHERE id = $1 AND organization_id = $2 FOR UPDATE",
            category_id,
            actor.organization_id,
            row=TemplateCategoryRow,
        )
        if row is None:
            raise NotFound("There is no such category in your organisation.", field="categoryId")
        work.target("TemplateCategory", row["id"], row["title"])
        used = await work.tx.fetchval(
            "SELECT count(*) FROM session_templates WHERE organization_id = $1 AND category = $2 "
            "AND removed_at IS NULL",
            actor.organization_id,
            row["key"],
        )
        if used:
            raise Conflict(
                f"{used} template{'s are' if used > 1 else ' is'} in this category. "
                "Give them another one first (updateSessionTemplate).",
                field="categoryId",
                templates=used,
            )
        await work.tx.execute("DELETE FROM template_categories WHERE id = $1", category_id)
        work.changed(before={"key": row["key"], "title": row["title"]})
    return row


async def check_category(work: Work, key: str) -> None:
    """Raises BadInput where the organisation has no such category. It is held: it cannot be removed meanwhile."""
    if key in ALWAYS:
        return
    found = await work.tx.fetchval(
        "SELECT 1 FROM template_categories WHERE organization_id = $1 AND key = $2 FOR SHARE",
        work.actor.organization_id,
        key,
    )
    if found is None:
        own = await titles(work.tx.fetch, work.actor.organization_id)
        raise BadInput(
            f"There is no category {key[:64]!r}. There are {', '.join(own)}; "
            "an admin makes further ones with createTemplateCategory.",
            field="category",
        )


async def titles(fetch: Fetch, organization_id: UUID) -> dict[str, str]:
    """What all categories of an organisation are called, by key, those that are always there first."""
    rows: Sequence[TemplateCategoryRow] = await fetch(
        "SELECT * FROM template_categories WHERE organization_id = $1 ORDER BY title, key",
        organization_id,
        row=TemplateCategoryRow,
    )
    return ALWAYS | {row["key"]: row["title"] for row in rows}


def check_key(key: str, *, field: str = "key") -> None:
    """Raises BadInput for what is no key of a category."""
    if not NAME.match(key):
        raise BadInput("A key has 1 to 64 lower-case letters, digits and hyphens inside.", field=field)
