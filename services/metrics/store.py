"""Storing facts, each once. What is new is also put in line to be counted, in the same transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Literal

from core import db
from models.metrics import COMMON_COLUMNS, FACTS

COLUMNS = {f"{fact}_facts": (*COMMON_COLUMNS, *own) for fact, own in FACTS.items()}
"""The columns that are given for a row of each table, in this order."""

_MAY_BE_NEGATIVE = frozenset({"value"})
_LARGEST = {"requests": 2**31 - 1, "characters": 2**31 - 1}
_LARGEST_BIGINT = 2**63 - 1
_PIECE = 200
"""Rows after which others have their turn."""
_MOST_COPIED = 1000
"""At a stretch, for the same reason."""


async def store(tx: db.Transaction, facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Store facts by their tables (`tool_facts`, …), columns that are missing as null; returns how many of each were
    new.

    Left out are facts that are there already, those of a time of which facts have been dropped, as nobody can tell any
    more whether they were counted, and those with numbers that are none: negative, infinite, NaN.
    """
    stored = {}
    for (table, rows), since in zip(facts.items(), await dropped_before(tx.fetch, facts, "FOR SHARE"), strict=True):
        columns, fitting = COLUMNS[table], []
        for place, row in enumerate(rows, 1):
            if row["at"] >= since and _are_numbers(row):
                fitting.append(tuple(_value(row.get(name)) for name in columns))
            if place % _PIECE == 0:
                await asyncio.sleep(0)
        stored[table] = await _add(tx, table, fitting)
    return stored


def adding(table: str, found: str, *, new: bool = False) -> list[str]:
    """Parts of a WITH that store the facts of another part, or of a table, and put them in line to be counted.

    Facts that are there already are left out; where the caller knows that all are `new`, nobody looks, and one that is
    not raises UniqueViolationError.
    """
    columns, fact = ", ".join(COLUMNS[table]), table.removesuffix("_facts")
    insert = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {found}"
    if not new:
        found, insert = f"{fact}_added", f"{insert} ON CONFLICT DO NOTHING RETURNING {columns}"
    queue = f"INSERT INTO {fact}_pending ({columns}) SELECT {columns} FROM {found}"
    return [f"{fact}_added AS ({insert})", f"{fact}_queued AS ({queue} RETURNING 1)"]


async def dropped_before(
    fetch: Callable[..., Awaitable[list[Any]]], tables: Iterable[str], lock: Literal["", "FOR SHARE"] = ""
) -> list[datetime]:
    """Of each table, before when its facts are refused. With a lock it cannot move until the end of the transaction:
    the dropping of facts waits for that."""
    kinds = [table.removesuffix("_facts") for table in tables]
    rows = await fetch(
        "SELECT facts, nullif(dropped_before, '-infinity') AS before FROM metric_retention "
        f"WHERE facts = ANY($1) AND level = 'RAW' {lock}",
        kinds,
    )
    found = {row["facts"]: row["before"] for row in rows}
    return [found.get(kind) or datetime.min.replace(tzinfo=UTC) for kind in kinds]


async def _add(tx: db.Transaction, table: str, rows: Sequence[Sequence[Any]]) -> int:
    if not rows:
        return 0
    await tx.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {table}_new (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    await tx.execute(f"DELETE FROM {table}_new")
    for start in range(0, len(rows), _MOST_COPIED):
        await tx.copy(f"{table}_new", COLUMNS[table], rows[start : start + _MOST_COPIED])
    return await tx.fetchval(_ADD[table])  # type: ignore[no-any-return]


_ADD = {
    table: f"WITH {', '.join(adding(table, f'{table}_new'))} SELECT count(*) FROM {table.removesuffix('_facts')}_queued"
    for table in COLUMNS
}


def _are_numbers(row: Mapping[str, Any]) -> bool:
    for name, value in row.items():
        if isinstance(value, float | Decimal) and not isfinite(value):
            return False
        if isinstance(value, int | float | Decimal) and value < 0 and name not in _MAY_BE_NEGATIVE:
            return False
        if isinstance(value, int) and value > _LARGEST.get(name, _LARGEST_BIGINT):
            return False
    return True


def _value(value: Any) -> Any:
    return None if value == "" else value
