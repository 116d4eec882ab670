"""A table that is written while it is made: as CSV or as JSON, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from core.clock import moment

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula, full-width signs included."""
_QUOTED = '"{}"'


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and batches of rows. Cells are text, numbers, exact decimals, times, or None."""

    columns: Sequence[str]
    batches: AsyncIterator[Sequence[Sequence[Any]]]
    head: dict[str, Any]
    """What the report is of, for formats that have a place for it."""


class Written:
    """A report as bytes while it is made, and how many rows it has come to."""

    def __init__(self) -> None:
        self.rows = 0
        self.chunks: AsyncIterator[bytes] = _nothing()

    @classmethod
    def of(cls, table: Table, write: Callable[[Table, Written], AsyncIterator[bytes]]) -> Written:
        """A table, written by `as_csv` or `as_json`."""
        written = cls()
        written.chunks = write(table, written)
        return written


async def as_csv(table: Table, written: Written) -> AsyncIterator[bytes]:
    """RFC 4180, UTF-8, with a head row. Text that a spreadsheet would take for a formula gets an apostrophe."""
    yield _lines([table.columns])
    async for batch in table.batches:
        written.rows += len(batch)
        yield _lines(batch)


async def as_json(table: Table, written: Written) -> AsyncIterator[bytes]:
    """One object: what the report is of, and `rows`, one object each. Exact decimals are text."""
    yield orjson.dumps(table.head)[:-1] + b',"rows":['
    first = True
    async for batch in table.batches:
        written.rows += len(batch)
        objects = b",\n".join(
            orjson.dumps({name: _value(value) for name, value in zip(table.columns, row, strict=True)}) for row in batch
        )
        if objects:
            yield (b"\n" if first else b",\n") + objects
            first = False
    yield b"\n]}\n"


def plain(value: Decimal) -> str:
    """A decimal without an exponent and without zeros at its end."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    return "".join([f"{','.join(map(_cell, row))}\r\n" for row in rows]).encode()


def _cell(value: Any) -> str:
    """Text is in quotes, whatever is in it: in countries where a semicolon separates, a part of it would be a cell of
    its own. What is nothing is not, and so it is told from empty text."""
    match value:
        case None:
            return ""
        case str():
            is_formula = value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA)
            return _QUOTED.format(("'" if is_formula else "") + value.replace('"', '""'))
        case _:
            return str(_value(value))


def _value(value: Any) -> Any:
    match value:
        case Decimal():
            return plain(value)
        case datetime():
            return moment(value)
        case UUID():
            return str(value)
        case _:
            return value
