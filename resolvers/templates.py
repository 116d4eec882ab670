"""Reads of templates, their versions, and what one may do with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core import db
from core.errors import NotFound
from core.paging import Page
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.identity import Team, TeamRow
from models.templates import (
    SessionTemplate,
    SessionTemplateVersion,
    TemplateCategory,
    TemplateCategoryRow,
    TemplateLevel,
    TemplateReview,
    TemplateReviewRow,
    TemplateRow,
    TemplateVersionRow,
)
from resolvers import reading
from resolvers.reading import children, needing, parent
from services.sharing.access import Somebody
from services.templates import categories
from services.templates.access import TemplateAccess, accesses
from services.templates.difference import MOST_CHANGES, Change, difference
from services.templates.spec import TemplateSpec, load_spec

COLUMNS = (
    "id, organization_id, name, title, summary, icon, category, labels, owner_id, owner_team_id, organization_level, "
    "draft_digest, draft_revision, draft_updated_by_id, draft_updated_at, latest_version, deprecated_at, "
    "deprecation_note, replaced_by_id, listed_at, use_count, rating_count, rating_sum, created_by_id, created_at, "
    "updated_at, removed_at"
)
"""All of a template but its draft, which may be large."""
VERSION_COLUMNS = (
    "id, organization_id, template_id, number, digest, message, author_id, created_at, rolled_back_to, test_id, "
    "untested_reason, deprecated_at, deprecation_note, replacement_version, use_count"
)
"""All of a version but its configuration."""


@dataclass(frozen=True, slots=True)
class TemplateFilter:
    """Which templates to list; None takes everything."""

    categories: Sequence[str] | None = None
    owner_ids: Sequence[UUID] | None = None
    labels: dict[str, str] | None = None
    title_contains: str | None = None
    deprecated: bool | None = None
    level: TemplateLevel = TemplateLevel.VIEW
    """What the actor may do with them."""

    def conditions(self, query: Query) -> list[str]:
        """The WHERE of it, without the scope."""
        found = ["session_templates.removed_at IS NULL"]
        if self.categories is not None:
            found.append(f"session_templates.category = ANY({query.arg(list(self.categories))})")
        if self.owner_ids is not None:
            found.append(f"session_templates.owner_id = ANY({query.arg(list(self.owner_ids))})")
        if self.labels:
            found.append(f"session_templates.labels @> {query.arg(self.labels)}")
        if self.title_contains:
            pattern = query.arg(self.title_contains)
            found.append(
                f"(position(lower({pattern}) IN lower(session_templates.title)) > 0 "
                f"OR position(lower({pattern}) IN session_templates.name) > 0)"
            )
        if self.deprecated is not None:
            found.append(f"session_templates.deprecated_at IS {'NOT ' if self.deprecated else ''}NULL")
        return found


async def template(actor: Actor, id_: UUID) -> TemplateRow | None:
    """A template, also one that has been removed; None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "session_templates", TemplateRow, SessionTemplate.visible_to(actor), id_
    )


async def version(actor: Actor, id_: UUID) -> TemplateVersionRow | None:
    """A version, or None where the actor may not see its template."""
    return await reading.find(  # type: ignore[no-any-return]
        "session_template_versions", TemplateVersionRow, SessionTemplateVersion.visible_to(actor), id_
    )


async def review(actor: Actor, id_: UUID) -> TemplateReviewRow | None:
    """A review, or None where the actor may not see its template."""
    return await reading.find(  # type: ignore[no-any-return]
        "template_reviews", TemplateReviewRow, TemplateReview.visible_to(actor), id_
    )


@dataclass(frozen=True, slots=True)
class Category:
    """A category; `own_id` is None for those that are always there."""

    key: str
    title: str
    own_id: UUID | None


async def categories_of_organization(actor: Actor) -> list[Category]:
    """All categories of the actor's organisation, at most 204."""
    query = Query()
    rows = await db.fetch(
        f"SELECT * FROM template_categories WHERE {query.scope(TemplateCategory.visible_to(actor))} "
        "ORDER BY title, key",
        *query.args,
        row=TemplateCategoryRow,
    )
    always = [Category(key, title, None) for key, title in categories.ALWAYS.items()]
    return always + [Category(row["key"], row["title"], row["id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is different between two configurations."""

    from_digest: str
    to_digest: str
    changes: Sequence[Change]
    truncated: bool


async def difference_between(actor: Actor, template_id: UUID, from_: int | None, to: int | None) -> Difference:
    """Two versions of a template compared; None is the draft. Raises NotFound."""
    row = await template(actor, template_id)
    if row is None:
        raise NotFound("There is no such template, or you may not see it.", field="templateId")
    before, after = await _numbered(row, from_, "from"), await _numbered(row, to, "to")
    # Long texts take a while to compare.
    changes = await asyncio.to_thread(difference, before[1], after[1])
    return Difference(before[0], after[0], changes[:MOST_CHANGES], len(changes) > MOST_CHANGES)


async def _numbered(row: TemplateRow, number: int | None, field: str) -> tuple[str, dict[str, Any]]:
    """Digest and configuration of a version, or of the draft."""
    if number is None:
        return row["draft_digest"], row["draft"]
    found = await db.fetchrow(
        "SELECT digest, spec FROM session_template_versions WHERE template_id = $1 AND number = $2",
        row["id"],
        number,
        row=Row,
    )
    if found is None:
        raise NotFound(f"The template has no version {number}; it has {row['latest_version']}.", field=field)
    return found["digest"], found["spec"]


async def own_reviews(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What the actor says of templates."""
    rows = await db.fetch(
        "SELECT * FROM template_reviews WHERE template_id = ANY($1) AND author_id = $2",
        [each["id"] for each in parents],
        actor.user_id,
        row=TemplateReviewRow,
    )
    found = {row["template_id"]: row for row in rows}
    return [found.get(each["id"]) for each in parents]


async def template_by_name(actor: Actor, name: str) -> TemplateRow | None:
    """The template of this name that is not removed, or None."""
    query = Query()
    return await db.fetchrow(
        f"SELECT * FROM session_templates WHERE session_templates.name = {query.arg(name)} AND removed_at IS NULL "
        f"AND {query.scope(SessionTemplate.visible_to(actor), by_row=True)}",
        *query.args,
        row=TemplateRow,
    )


async def templates(
    actor: Actor, wanted: TemplateFilter, *, first: int | None, after: str | None, order: str, descending: bool
) -> Page[TemplateRow]:
    """A page of those that the actor may see, without their drafts."""

    def conditions(query: Query) -> list[str]:
        return [query.scope(SessionTemplate.visible_to(actor, wanted.level)), *wanted.conditions(query)]

    return await reading.page(
        "session_templates",
        TemplateRow,
        conditions,
        first=first,
        after=after,
        order=order,
        descending=descending,
        columns=COLUMNS,
    )


async def accesses_to_templates(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateAccess]:
    """What the actor may do with templates, and why."""
    return await accesses(db.fetch, Somebody.acting(actor), parents)


async def drafts_of_templates(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateSpec]:
    """The configurations that are worked on."""
    return await _specs("session_templates", "draft", parents)


async def specs_of_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[TemplateSpec]:
    """The configurations of versions."""
    return await _specs("session_template_versions", "spec", parents)


async def draft_json_of_templates(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The same as files have it."""
    return [spec.stored() for spec in await drafts_of_templates(actor, parents, args)]


async def spec_json_of_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The same as files have it."""
    return [spec.stored() for spec in await specs_of_versions(actor, parents, args)]


async def _specs(table: str, column: str, parents: Sequence[Any]) -> list[TemplateSpec]:
    ids = list({each["id"] for each in parents})
    rows = await db.fetch(f"SELECT id, {column} AS spec FROM {table} WHERE id = ANY($1)", ids, row=Row)
    found = {row["id"]: load_spec(row["spec"]) for row in rows}
    return [found[each["id"]] for each in parents]


async def numbered_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The version with a number, of each template. Args: `number`."""
    return await _by_number([(each["id"], args["number"]) for each in parents])


async def published_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The newest version of each template."""
    return await _by_number([(each["id"], each["latest_version"]) for each in parents])


async def replacements_of_versions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The version to use instead of each version."""
    return await _by_number([(each["template_id"], each["replacement_version"] or 0) for each in parents])


async def rolled_back_to(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The version that each version publishes again."""
    return await _by_number([(each["template_id"], each["rolled_back_to"] or 0) for each in parents])


async def _by_number(wanted: Sequence[tuple[UUID, int]]) -> list[Any]:
    """Versions of templates that the actor has read through their scope; None where there is none."""
    asked = [(id_, number) for id_, number in set(wanted) if 0 < number < 2**31]
    rows = await db.fetch(
        f"SELECT {VERSION_COLUMNS} FROM session_template_versions WHERE (template_id, number) IN "
        "(SELECT * FROM unnest($1::uuid[], $2::int[]))",
        [id_ for id_, _ in asked],
        [number for _, number in asked],
        row=TemplateVersionRow,
    )
    found = {(row["template_id"], row["number"]): row for row in rows}
    return [found.get(each) for each in wanted]


async def category_titles(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[str]:
    """What the categories of templates are called."""
    titles = await categories.titles(db.fetch, actor.organization_id)
    return [titles.get(each["category"], each["category"]) for each in parents]


versions_of_templates = children(
    "session_template_versions", TemplateVersionRow, "template_id", order="number", columns=VERSION_COLUMNS
)
reviews_of_templates = children("template_reviews", TemplateReviewRow, "template_id", order="id")
template_of = parent("session_templates", TemplateRow, "template_id", SessionTemplate.visible_to, columns=COLUMNS)
replacement_of = parent("session_templates", TemplateRow, "replaced_by_id", SessionTemplate.visible_to, columns=COLUMNS)
team_of = needing(Permission.MEMBERS_READ, parent("teams", TeamRow, "owner_team_id", Team.visible_to))
