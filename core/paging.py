"""Pages of lists: keyset cursors, `first` with a ceiling, and a count that is only made when asked for."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson

from core.errors import BadInput

R = TypeVar("R")

DEFAULT_PAGE = 25
LARGEST_PAGE = 100


def encode_cursor(*key: Any) -> str:
    """An opaque cursor for a row's sort key: strings, numbers, datetimes and uuids."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).rstrip(b"=").decode()


def decode_cursor(cursor: str, length: int, *, field: str = "after") -> list[Any]:
    """The sort key of a cursor, JSON values; BadInput where it is not one of this list."""
    try:
        key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(key, list) or len(key) != length:
            raise ValueError
    except (ValueError, binascii.Error):
        raise not_a_cursor(field=field) from None
    return key


def not_a_cursor(*, field: str = "after") -> BadInput:
    """The refusal of a cursor that a list did not give."""
    return BadInput("This is not a cursor of this list. Pass an endCursor, or leave it out.", field=field)


def page_size(first: int | None, *, field: str = "first") -> int:
    """`first`, checked: 1 to 100, 25 where it is left out."""
    if first is None:
        return DEFAULT_PAGE
    if not 1 <= first <= LARGEST_PAGE:
        raise BadInput(f"first must be between 1 and {LARGEST_PAGE}; it is {first}.", field=field)
    return first


class SharedCount:
    """Counts for many parents at once: the first page that is asked for its count counts for all."""

    def __init__(self, load: Callable[[], Awaitable[Mapping[UUID, int]]]) -> None:
        self._load = load
        self._task: asyncio.Future[Mapping[UUID, int]] | None = None

    async def of(self, parent: UUID) -> int:
        """The parent's count; 0 where the counting found none."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._load())
        if self._task.done():
            return self._task.result().get(parent, 0)
        return (await asyncio.shield(self._task)).get(parent, 0)


@dataclass(slots=True)
class Page(Generic[R]):
    """Some rows of a list, whether more follow, and how to count them all."""

    rows: Sequence[R]
    has_next_page: bool
    cursor_of: Callable[[R], str]
    count: Callable[[], Awaitable[int]]
    has_previous_page: bool = False


def cut(
    rows: Sequence[R],
    size: int,
    cursor_of: Callable[[R], str],
    count: Callable[[], Awaitable[int]],
    *,
    after: str | None = None,
) -> Page[R]:
    """A page from size + 1 rows read."""
    return Page(rows[:size], len(rows) > size, cursor_of, count, after is not None)
