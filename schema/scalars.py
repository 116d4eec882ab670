"""Scalars of our own."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from operator import methodcaller
from typing import NewType

import strawberry
from graphql import GraphQLError, IntValueNode

from core.errors import ErrorCode

BigInt = NewType("BigInt", int)
Cursor = NewType("Cursor", str)

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(9000, 1, 1, tzinfo=UTC)


def _whole_number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise GraphQLError("BigInt is a whole number of 64 bits.", extensions={"code": ErrorCode.BAD_INPUT.value})
    return value


def _moment(value: object) -> datetime:
    """RFC 3339. Without a zone a time means something else to every reader, so it is refused."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise GraphQLError(
            "A time is given as 2026-01-31T12:00:00Z, with its zone.", extensions={"code": ErrorCode.BAD_INPUT.value}
        )
    # The ends of the calendar overflow in arithmetic, and the driver takes the first year for minus infinity.
    if not EARLIEST <= moment <= LATEST:
        raise GraphQLError(
            f"A time lies between the years {EARLIEST.year} and {LATEST.year}.",
            extensions={"code": ErrorCode.BAD_INPUT.value},
        )
    return moment.astimezone(UTC)


def _decimal(value: object) -> Decimal:
    """A number in decimal, as text or as a JSON number; neither NaN nor infinite, and of a length that makes sense."""
    try:
        number = Decimal(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not -40 <= number.adjusted() <= 40 or len(str(value)) > 100:
        raise GraphQLError('A decimal is given as "0.25".', extensions={"code": ErrorCode.BAD_INPUT.value})
    return number


def _text(value: object) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 4000:
        raise GraphQLError(
            "A cursor is a text that an event or a page gave.", extensions={"code": ErrorCode.BAD_INPUT.value}
        )
    return value


SCALARS = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A time with its zone, as RFC 3339 has it: `2026-01-31T12:00:00Z`. Given out in UTC.",
        serialize=methodcaller("isoformat"),
        parse_value=_moment,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number of up to 64 bits, as a JSON number.",
        serialize=int,
        parse_value=_whole_number,
        parse_literal=lambda node, variables=None: _whole_number(
            int(node.value) if isinstance(node, IntValueNode) else None
        ),
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description='An exact number in decimal, as text: `"0.25"`. Given out without an exponent.',
        serialize=lambda value: format(value, "f"),
        parse_value=_decimal,
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description="A place in a stream. Opaque: keep the last one, and pass it as `after` to go on from there.",
        serialize=str,
        parse_value=_text,
    ),
}

PLAIN = {"DateTime": datetime, "BigInt": int, "Cursor": str}
"""Scalars whose values of these classes are written into JSON as they are."""
