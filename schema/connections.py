"""Relay connections over pages (GraphQL Cursor Connections Specification)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import strawberry

from core.paging import Page

T = TypeVar("T")

First = Annotated[int | None, strawberry.argument(description="How many, 1 to 100; 25 where it is left out.")]
After = Annotated[str | None, strawberry.argument(description="Continue after this cursor (`pageInfo.endCursor`).")]


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(
        description="Whether there are some before; true where `after` was given."
    )
    start_cursor: str | None = strawberry.field(description="Cursor of the first edge.")
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last edge: pass it as `after` for the next page."
    )


@strawberry.type(description="One element of a page, with its place in the list.")
class Edge(Generic[T]):
    cursor: str = strawberry.field(description="The element's place in the list.")
    node: T = strawberry.field(description="The element.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    @strawberry.field(description="The elements with their cursors.")
    def edges(self) -> list[Edge[T]]:
        page = _page(self)
        return [Edge(cursor=page.cursor_of(row), node=row) for row in page.rows]

    @strawberry.field(description="The elements.")
    def nodes(self) -> list[T]:
        return _page(self).rows

    @strawberry.field(description="Where the page stands in the list.")
    def page_info(self) -> PageInfo:
        page = _page(self)
        return PageInfo(
            has_next_page=page.has_next_page,
            has_previous_page=page.has_previous_page,
            start_cursor=page.cursor_of(page.rows[0]) if page.rows else None,
            end_cursor=page.cursor_of(page.rows[-1]) if page.rows else None,
        )

    @strawberry.field(description="How many there are in the whole list; counted only when asked for.")
    async def total_count(self) -> int:
        return await _page(self).count()


def whole(rows: Sequence[Any]) -> Page[Any]:
    """A short list as one page."""

    async def count() -> int:
        return len(rows)

    return Page(rows, False, lambda row: str(row["id"]), count)


def _page(source: Any) -> Page[Any]:
    assert isinstance(source, Page)
    return source
