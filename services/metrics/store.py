"""Storing facts, each once. What is new is also put in line to be counted, in the same transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import isfinite
from typing import Any

from core import db
from models.metrics import COMMON_COLUMNS, FACTS

COLUMNS = {f"{fact}_facts": (*COMMON_COLUMNS, *own) for fact, own in FACTS.items()}
"""The columns that are given for a row of each table, in this order."""

_MAY_BE_NEGATIVE = frozenset({"value"})
_LARGEST = {"requests": 2**31 - 1, "characters": 2**31 - 1}
_LARGEST_BIGINT = 2**63 - 1

_ADD = {
    table: (
        f"WITH added AS (INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns)} FROM {table}_new "
        f"ON CONFLICT DO NOTHING RETURNING *) INSERT INTO {table.removesuffix('_facts')}_pending SELECT * FROM added"
    )
    for table, columns in COLUMNS.items()
}


async def store(tx: db.Transaction, facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """Store facts by their tables (`tool_facts`, …), columns that are missing as null; returns how many of each were
    new.

    Left out are facts that are there already, those of a time of which facts have been dropped, as nobody can tell any
    more whether they were counted, and those with numbers that are none: negative, infinite, NaN.
    """
    stored = {}
    for table, rows in facts.items():
        columns = COLUMNS[table]
        since = await _dropped_before(tx, table)
        fitting = [row for row in rows if row["at"] >= since and _are_numbers(row)]
        stored[table] = await _add(tx, table, [tuple(_value(row.get(name)) for name in columns) for row in fitting])
    return stored


async def store_found(tx: db.Transaction, table: str, statement: str, *args: Any) -> int:
    """As `store`, for what a statement finds in the database itself, in the order of COLUMNS: nothing of it leaves the
    server, and none of it passes through Python."""
    since = f"${len(args) + 1}"
    columns = ", ".join(COLUMNS[table])
    done = await tx.execute(
        f"WITH found AS ({statement}), added AS ("
        f"INSERT INTO {table} ({columns}) SELECT * FROM found WHERE at >= {since} ON CONFLICT DO NOTHING RETURNING *) "
        f"INSERT INTO {table.removesuffix('_facts')}_pending SELECT * FROM added",
        *args,
        await _dropped_before(tx, table),
    )
    return int(done.rpartition(" ")[2])


async def _add(tx: db.Transaction, table: str, rows: Sequence[Sequence[Any]]) -> int:
    if not rows:
        return 0
    await tx.execute(
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {table}_new (LIKE {table} INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    await tx.execute(f"DELETE FROM {table}_new")
    await tx.copy(f"{table}_new", COLUMNS[table], rows)
    return int((await tx.execute(_ADD[table])).rpartition(" ")[2])


async def _dropped_before(tx: db.Transaction, table: str) -> datetime:
    """Locked against the dropping of facts until the end of the transaction, so that it cannot move meanwhile."""
    found = await tx.fetchval(
        "SELECT nullif(dropped_before, '-infinity') FROM metric_retention WHERE facts = $1 AND level = 'RAW' FOR SHARE",
        table.removesuffix("_facts"),
    )
    return found or datetime.min.replace(tzinfo=UTC)


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
