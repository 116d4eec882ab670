"""Relay connections over pages (GraphQL Cursor Connections Specification)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import strawberry

from core.paging import Page
from core.permissions import Actor
from schema.fields import nested

T = TypeVar("T")

First = Annotated[int | None, strawberry.argument(description="How many, 1 to 100; 25 where it is left out.")]
After = Annotated[str | None, strawberry.argument(description="Continue after this cursor (`pageInfo.endCursor`).")]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(
        description="Whether there are some before; true where `after` was given."
    )

    @strawberry.field(description="Cursor of the first edge.")
    def start_cursor(self) -> str | None:
        page = _page(self)
        return page.cursor_of(page.rows[0]) if page.rows else None

    @strawberry.field(description="Cursor of the last edge: pass it as `after` for the next page.")
    def end_cursor(self) -> str | None:
        page = _page(self)
        return page.cursor_of(page.rows[-1]) if page.rows else None


class _Place(NamedTuple):
    """A row in its page: what an edge is made of. Its cursor is made only where it is asked for."""

    node: Any
    page: Page[Any]


@strawberry.type(description="One element of a page, with its place in the list.")
class Edge(Generic[T]):
    @strawberry.field(description="The element's place in the list.")
    def cursor(self) -> str:
        place: Any = self
        return place.page.cursor_of(place.node)  # type: ignore[no-any-return]

    @strawberry.field(description="The element.")
    def node(self) -> T:
        place: Any = self
        return place.node  # type: ignore[no-any-return]


async def _counts(actor: Actor, pages: Sequence[Page[Any]], args: dict[str, Any]) -> list[Any]:
    """The whole lists' lengths. Those of siblings are counted together by the first (core.paging.SharedCount)."""
    counts: list[Any] = []
    for page in pages:
        try:
            counts.append(await page.count())
        except Exception as error:
            counts.append(error)
    return counts


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    @strawberry.field(description="The elements with their cursors.")
    def edges(self) -> list[Edge[T]]:
        page = _page(self)
        return [_Place(row, page) for row in page.rows]

    @strawberry.field(description="The elements.")
    def nodes(self) -> list[T]:
        return _page(self).rows

    @strawberry.field(description="Where the page stands in the list.")
    def page_info(self) -> PageInfo:
        return self

    @nested(_counts, common=True)
    def total_count(self) -> int:
        """How many there are in the whole list; counted only when asked for."""


def _page(source: Any) -> Page[Any]:
    assert isinstance(source, Page)
    return source
