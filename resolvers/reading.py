"""The two shapes of reads that every domain has: a scoped list, and the children of many parents at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

import asyncpg

from core import db
from core.paging import Page, SharedCount, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Permission
from models.base import Query, Row, Scope

Batch = Callable[[Actor, Sequence[Any], dict[str, Any]], Awaitable[list[Any]]]


async def find(table: str, row: type[Row], scope: Scope, id_: UUID) -> Any:
    """The row with this id, or None."""
    condition, args = scope.of_row
    return await db.fetchrow(_find(table, condition, len(args)), id_, *args, row=row)


@lru_cache(512)
def _find(table: str, condition: str, args: int) -> str:
    placeholders = [f"${number}" for number in range(2, 2 + args)]
    return f"SELECT * FROM {table} WHERE {table}.id = $1 AND {condition.format(*placeholders)}"


async def page(
    table: str,
    row: type[Row],
    conditions: Callable[[Query], Sequence[str]],
    *,
    first: int | None,
    after: str | None,
    order: str = "id",
    descending: bool = True,
    columns: str = "*",
    joins: str = "",
    search: bool = False,
) -> Page[Any]:
    """A page of a list by keyset on (`order`, id), or on `order` alone where that is unique (`id`, `seq`). A `search`
    has conditions that many rows fulfil, or none, as it happens.

    `conditions` writes the WHERE, the scope first of all; it is called anew for the count.
    """
    size = page_size(first)
    unique = order in ("id", "seq")
    key = f"{table}.{order}" if unique else f"{table}.{order}, {table}.id"
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    query = Query()
    where = list(conditions(query))
    if after is not None:
        values = decode_cursor(after, 1 if unique else 2)
        casts = [_CASTS[order]] if unique else [_CASTS[order], "uuid"]
        placeholders = ", ".join(
            f"{query.arg(_text(value))}::text::{cast}" for value, cast in zip(values, casts, strict=True)
        )
        where.append(f"({key}) {beyond} ({placeholders})")
    statement = (
        f"SELECT {columns} FROM {table} {joins} WHERE {' AND '.join(where)} "
        f"ORDER BY {key.replace(',', f' {direction},')} {direction} LIMIT {size + 1}"
    )
    try:
        rows = await (db.fetch_by_its_own_plan if search else db.fetch)(statement, *query.args, row=row)
    except asyncpg.DataError:
        # The cursor is the one value that goes to the database as the client sent it.
        raise not_a_cursor() from None
    cursor_of = (
        (lambda r: encode_cursor(str(r[order])))
        if unique
        else (lambda r: encode_cursor(_moment(r[order]), str(r["id"])))
    )
    return cut(rows, size, cursor_of, partial(_count, table, conditions), after=after)


async def _count(table: str, conditions: Callable[[Query], Sequence[str]]) -> int:
    query = Query()
    where = " AND ".join(conditions(query))
    return await db.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *query.args)  # type: ignore[no-any-return]


def children(
    table: str,
    row: type[Row],
    parent_column: str,
    *,
    order: str = "seq",
    where: str = "true",
    columns: str = "*",
    filtered: Callable[[Actor, dict[str, Any], Query], Sequence[str]] | None = None,
) -> Batch:
    """A batch function for a connection of children. Args: `first`, `after`, `newest_first`, and those that `filtered`
    makes conditions of.

    One statement for all parents: the first n + 1 rows of each by LATERAL, along the index (parent, order).
    Children are as visible as their parents, which the caller has read through their scope.
    """

    async def batch(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        size = page_size(args.get("first"))
        after = args.get("after")
        descending = bool(args.get("newest_first"))
        ids = list({parent["id"] for parent in parents})
        query = Query()
        wanted = query.arg(ids)
        beyond = ""
        if after is not None:
            [value] = decode_cursor(after, 1)
            beyond = (
                f"AND {table}.{order} {'<' if descending else '>'} {query.arg(_text(value))}::text::{_CASTS[order]}"
            )
        narrow = partial(filtered, actor, args) if filtered else _all_of_them
        statement = (
            f"SELECT child.* FROM unnest({wanted}::uuid[]) AS parent(id) CROSS JOIN LATERAL ("
            f"SELECT {columns} FROM {table} WHERE {table}.{parent_column} = parent.id "
            f"AND {' AND '.join([where, *narrow(query)])} {beyond} "
            f"ORDER BY {table}.{order} {'DESC' if descending else 'ASC'} LIMIT {size + 1}) AS child"
        )
        try:
            rows = await db.fetch(statement, *query.args, row=row)
        except asyncpg.DataError:
            raise not_a_cursor() from None
        found: dict[UUID, list[Any]] = {id_: [] for id_ in ids}
        for child in rows:
            found[child[parent_column]].append(child)
        counts = SharedCount(partial(_count_children, table, parent_column, where, narrow, ids))
        return [
            cut(
                found[parent["id"]],
                size,
                lambda r: encode_cursor(str(r[order])),
                partial(counts.of, parent["id"]),
                after=after,
            )
            for parent in parents
        ]

    return batch


def _all_of_them(query: Query) -> Sequence[str]:
    return ()


async def _count_children(
    table: str, column: str, where: str, narrow: Callable[[Query], Sequence[str]], ids: list[UUID]
) -> Mapping[UUID, int]:
    query = Query()
    statement = (
        f"SELECT {table}.{column} AS parent, count(*) AS n FROM {table} WHERE {table}.{column} = ANY({query.arg(ids)}) "
        f"AND {' AND '.join([where, *narrow(query)])} GROUP BY 1"
    )
    return {row["parent"]: row["n"] for row in await db.fetch(statement, *query.args)}


def parent(table: str, row: type[Row], column: str, scope: Callable[[Actor], Scope], *, columns: str = "*") -> Batch:
    """A batch function for the one row that a column points at; None where there is none or it may not be seen."""

    async def batch(actor: Actor, rows: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        ids = {id_ for r in rows if (id_ := value_of(r, column)) is not None}
        found = await by_ids(table, row, scope(actor), ids, columns=columns)
        return [found.get(value_of(r, column)) for r in rows]

    return batch


def needing(permission: Permission, batch: Batch) -> Batch:
    """The same batch for those who have a permission of their own for it: what a token's scopes leave out is not
    to be had through a field of something else."""

    async def checked(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        actor.require(permission)
        return await batch(actor, parents, args)

    return checked


async def by_ids(table: str, row: type[Row], scope: Scope, ids: set[UUID], *, columns: str = "*") -> dict[UUID, Any]:
    """The rows with these ids that the scope has, by id."""
    if not ids:
        return {}
    query = Query()
    rows = await db.fetch(
        f"SELECT {columns} FROM {table} WHERE {table}.id = ANY({query.arg(list(ids))}) "
        f"AND {query.scope(scope, by_row=True)}",
        *query.args,
        row=row,
    )
    return {r["id"]: r for r in rows}


# What a cursor's text is read as, by the column it orders.
_CASTS = {
    "id": "uuid",
    "seq": "bigint",
    "number": "int",
    "position": "int",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "at": "timestamptz",
}


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 64 or not value.isascii():
        raise not_a_cursor()
    return value


def _moment(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def value_of(source: Any, column: str) -> Any:
    """A row's column, or the attribute of an event that stands for it."""
    return source[column] if isinstance(source, Row) else getattr(source, column)
