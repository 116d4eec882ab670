"""Reads of the organisation's catalogue: search, facets with counts, and the templates that somebody uses most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from core import db
from core.errors import BadInput
from core.paging import Page, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.templates import SessionTemplate, TemplateLevel, TemplateListing, TemplateRow
from resolvers.reading import needing
from resolvers.templates import COLUMNS
from services.templates import categories

MOST_VALUES = 100
"""Values of one facet, those with most templates first."""
LONGEST_QUERY = 1000


class TemplateCatalogueOrder(StrEnum):
    """How the catalogue is ordered."""

    RELEVANCE = "RELEVANCE"
    MOST_USED = "MOST_USED"
    BEST_RATED = "BEST_RATED"
    NEWEST = "NEWEST"
    NAME = "NAME"


@dataclass(frozen=True, slots=True)
class CatalogueFilter:
    """Which templates of the catalogue; None takes everything."""

    text: str | None = None
    categories: Sequence[str] | None = None
    labels: dict[str, str] | None = None
    tools: Sequence[str] | None = None
    servers: Sequence[str] | None = None
    owner_ids: Sequence[UUID] | None = None
    min_rating: float | None = None
    deprecated: bool | None = None

    def of_listings(self, query: Query) -> list[str]:
        """Conditions on `template_listings`."""
        found: list[str] = []
        if self.text:
            found.append(f"template_listings.search @@ {_search(query, self.text)}")
        if self.categories is not None:
            keys = [f"category:{key}" for key in self.categories]
            found.append(f"template_listings.facets && {query.arg(keys)}::text[]")
        wanted = [f"label:{name}={value}" for name, value in (self.labels or {}).items()]
        wanted += [f"tool:{tool}" for tool in self.tools or ()]
        wanted += [f"server:{server}" for server in self.servers or ()]
        if wanted:
            found.append(f"template_listings.facets @> {query.arg(wanted)}::text[]")
        return found

    def of_templates(self, query: Query) -> list[str]:
        """Conditions on `session_templates`."""
        found: list[str] = []
        if self.owner_ids is not None:
            found.append(f"session_templates.owner_id = ANY({query.arg(list(self.owner_ids))})")
        if self.min_rating is not None:
            found.append(
                "session_templates.rating_count > 0 AND "
                f"session_templates.rating_sum >= {query.arg(self.min_rating)}::float8 * session_templates.rating_count"
            )
        if self.deprecated is not None:
            found.append(f"session_templates.deprecated_at IS {'NOT ' if self.deprecated else ''}NULL")
        return found


@dataclass(frozen=True, slots=True)
class FacetValue:
    """How many templates have a value."""

    value: str
    count: int
    title: str = ""
    name: str = ""
    """Of a label."""


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that the templates found have, those with most templates first."""

    categories: list[FacetValue] = field(default_factory=list)
    labels: list[FacetValue] = field(default_factory=list)
    tools: list[FacetValue] = field(default_factory=list)
    servers: list[FacetValue] = field(default_factory=list)


@dataclass(slots=True)
class CataloguePage(Page[TemplateRow]):
    """A page of the catalogue, which knows what was asked for."""

    wanted: CatalogueFilter = CatalogueFilter()


_KEYS = {
    TemplateCatalogueOrder.MOST_USED: ("session_templates.use_count", "bigint", True),
    TemplateCatalogueOrder.BEST_RATED: ("session_templates.rating_rank", "float8", True),
    TemplateCatalogueOrder.NEWEST: ("session_templates.listed_at", "timestamptz", True),
    TemplateCatalogueOrder.NAME: ("session_templates.name", "text", False),
}


async def catalogue(
    actor: Actor, wanted: CatalogueFilter, *, order: TemplateCatalogueOrder | None, first: int | None, after: str | None
) -> CataloguePage:
    """A page of the templates of the catalogue that the actor may see. Ordered by relevance where there is a text and
    nothing else is asked for, else by use. Raises BadInput."""
    if wanted.text is not None and (len(wanted.text) > LONGEST_QUERY or "\0" in wanted.text):
        raise BadInput(f"A search has at most {LONGEST_QUERY} characters, and no NUL.", field="query")
    text = (wanted.text or "").strip()
    order = order or (TemplateCatalogueOrder.RELEVANCE if text else TemplateCatalogueOrder.MOST_USED)
    if order is TemplateCatalogueOrder.RELEVANCE and not text:
        raise BadInput("Without a query there is no relevance: order by something else.", field="orderBy")
    size, query = page_size(first), Query()
    where = [*_conditions(actor, wanted, query), *wanted.of_templates(query)]
    # For the indexes, which have the listed ones alone.
    where += ["session_templates.listed_at IS NOT NULL", _organization(actor, query)]
    if order is TemplateCatalogueOrder.RELEVANCE:
        # Rounded, so that it is the same number in a cursor.
        rank = f"round(ts_rank(template_listings.search, {_search(query, text)})::numeric, 6)"
        key, cast, descending = rank, "numeric", True
    else:
        key, cast, descending = _KEYS[order]
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    if after is not None:
        kind, value, id_ = decode_cursor(after, 3)
        if kind != order or not isinstance(value, str) or not isinstance(id_, str) or len(value) > 100:
            raise not_a_cursor()
        where.append(
            f"({key}, session_templates.id) {beyond} ({query.arg(value)}::text::{cast}, {query.arg(id_)}::text::uuid)"
        )
    columns = ", ".join(f"session_templates.{name}" for name in COLUMNS.split(", "))
    statement = (
        f"SELECT {columns}, ({key})::text AS sort_key FROM session_templates JOIN template_listings "
        f"ON template_listings.template_id = session_templates.id WHERE {' AND '.join(where)} "
        f"ORDER BY {key} {direction}, session_templates.id {direction} LIMIT {size + 1}"
    )
    try:
        rows = await db.fetch_by_its_own_plan(statement, *query.args, row=TemplateRow)
    except asyncpg.DataError:
        # The cursor is the one value that goes to the database as the client sent it.
        raise not_a_cursor() from None
    page = cut(
        rows,
        size,
        lambda row: encode_cursor(order, row["sort_key"], str(row["id"])),
        partial(_count, actor, wanted),
        after=after,
    )
    return CataloguePage(
        page.rows, page.has_next_page, page.cursor_of, page.count, page.has_previous_page, wanted=wanted
    )


async def facets_of_pages(actor: Actor, pages: Sequence[CataloguePage], args: dict[str, Any]) -> list[Any]:
    """What the templates found have, with counts of those that the actor may see."""
    return [await _facets(actor, page.wanted) for page in pages]


async def _facets(actor: Actor, wanted: CatalogueFilter) -> Facets:
    query = Query()
    counts = await db.fetch_by_its_own_plan(
        "SELECT facet, count(*) AS n FROM (SELECT unnest(template_listings.facets) AS facet FROM template_listings "
        f"WHERE {' AND '.join(_narrow(actor, wanted, query))}) AS found GROUP BY facet",
        *query.args,
        row=Row,
    )
    rows = sorted(counts, key=lambda row: (-row["n"], row["facet"]))
    titles = await categories.titles(db.fetch, actor.organization_id)
    found = Facets()
    for row in rows:
        kind, _, value = row["facet"].partition(":")
        if kind == "category":
            found.categories.append(FacetValue(value, row["n"], title=titles.get(value, value)))
        elif kind == "label" and len(found.labels) < MOST_VALUES:
            name, _, value = value.partition("=")
            found.labels.append(FacetValue(value, row["n"], name=name))
        elif kind == "tool" and len(found.tools) < MOST_VALUES:
            found.tools.append(FacetValue(value, row["n"]))
        elif kind == "server" and len(found.servers) < MOST_VALUES:
            found.servers.append(FacetValue(value, row["n"]))
    return found


async def _count(actor: Actor, wanted: CatalogueFilter) -> int:
    query = Query()
    return await db.fetchval(  # type: ignore[no-any-return]
        f"SELECT count(*) FROM template_listings WHERE {' AND '.join(_narrow(actor, wanted, query))}", *query.args
    )


def _narrow(actor: Actor, wanted: CatalogueFilter, query: Query) -> list[str]:
    """Conditions for statements on `template_listings` alone."""
    where = _conditions(actor, wanted, query)
    if of_templates := wanted.of_templates(query):
        where.append(
            "template_listings.template_id IN (SELECT session_templates.id FROM session_templates "
            f"WHERE {' AND '.join([_organization(actor, query), *of_templates])})"
        )
    return where


def _conditions(actor: Actor, wanted: CatalogueFilter, query: Query) -> list[str]:
    return [query.scope(TemplateListing.visible_to(actor)), *wanted.of_listings(query)]


def _organization(actor: Actor, query: Query) -> str:
    return f"session_templates.organization_id = {query.arg(actor.organization_id)}"


def _search(query: Query, text: str) -> str:
    return f"websearch_to_tsquery('english', {query.arg(text.strip())})"


# -- what somebody uses

_USED = """
SELECT versions.template_id, count(*) AS times, max(sessions.created_at) AS last FROM sessions
JOIN session_template_versions versions ON versions.id = sessions.template_version_id
WHERE sessions.creator_id = {user} AND sessions.template_version_id IS NOT NULL AND sessions.purpose = 'WORK'
    AND sessions.forked_from_id IS NULL
GROUP BY versions.template_id
"""


async def _most_used(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The templates that the actor may use now and started most sessions from. Args: `most`."""
    return [await _used(actor, args.get("most"), "used.times DESC, used.last DESC")] * len(parents)


async def _most_recent(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The templates that the actor may use now and started sessions from last. Args: `most`."""
    return [await _used(actor, args.get("most"), "used.last DESC")] * len(parents)


async def _used(actor: Actor, most: int | None, order: str) -> list[TemplateRow]:
    if most is None or not 1 <= most <= 50:
        raise BadInput(f"It must be between 1 and 50; it is {most}.", field="most")
    query = Query()
    columns = ", ".join(f"session_templates.{name}" for name in COLUMNS.split(", "))
    return await db.fetch(
        f"SELECT {columns} FROM ({_USED.format(user=query.arg(actor.user_id))}) AS used "
        "JOIN session_templates ON session_templates.id = used.template_id "
        f"WHERE {query.scope(SessionTemplate.visible_to(actor, TemplateLevel.USE), by_row=True)} "
        f"AND session_templates.removed_at IS NULL ORDER BY {order}, session_templates.id LIMIT {most}",
        *query.args,
        row=TemplateRow,
    )


most_used = needing(Permission.TEMPLATES_READ, _most_used)
most_recent = needing(Permission.TEMPLATES_READ, _most_recent)
