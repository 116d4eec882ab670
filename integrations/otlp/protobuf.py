"""Takes requests of OTLP in protobuf apart, down to single spans and points, before anything is made of them.

A message of a few megabytes may hold millions of empty ones, which cost seconds and gigabytes where the whole is parsed
at once. So nothing is parsed that is large, and there is a limit to how many there are.

Source: "Encoding" in the documentation of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from integrations.otlp.base import Budget, MalformedTelemetry, TooMuchTelemetry

LARGEST = 64 * 1024
"""Bytes of what is parsed at once: a resource, a scope, a point, and a span without its long attributes."""
_LONG = 1024
"""Bytes of an attribute of a large span above which it is no name and no number."""
_MOST_FIELDS = 100_000
"""Of one message."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
M = TypeVar("M", bound=Message)


def fields(data: bytes, budget: Budget) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number, and bytes or an integer. Raises MalformedTelemetry, TooMuchTelemetry."""
    return ((number, value) for number, value, _, _ in _fields(data, budget))


def messages(data: bytes, field: int, budget: Budget) -> Iterator[bytes]:
    """The messages within one, of a field."""
    return (value for number, value in fields(data, budget) if number == field and isinstance(value, bytes))


def text(value: Any) -> str:
    """A field that is a string. Raises MalformedTelemetry."""
    try:
        return bytes.decode(value)
    except (TypeError, UnicodeDecodeError):
        raise _malformed() from None


def parsed(kind: type[M], data: bytes) -> M:
    """A message of a kind. Raises MalformedTelemetry; TooMuchTelemetry for one that is too large."""
    if not isinstance(data, bytes):
        raise _malformed()
    if len(data) > LARGEST:
        raise TooMuchTelemetry(f"A {kind.DESCRIPTOR.name} has {len(data)} bytes: at most {LARGEST} are taken.")
    found = kind()
    try:
        found.ParseFromString(data)
    except DecodeError:
        raise _malformed() from None
    return found


def without_what_is_long(
    data: bytes, budget: Budget, *, attributes: int, dropped: Collection[int], wanted: Collection[bytes]
) -> bytes:
    """A message without the fields that are dropped, and with those of its attributes alone that are wanted and short;
    `attributes` is the number of their field."""
    kept = []
    for number, value, start, end in _fields(data, budget):
        if number not in dropped and (number != attributes or _is_wanted(value, budget, wanted)):
            kept.append(data[start:end])
    return b"".join(kept)


def _is_wanted(pair: Any, budget: Budget, wanted: Collection[bytes]) -> bool:
    if not isinstance(pair, bytes) or len(pair) > _LONG:
        return False
    return any(number == 1 and value in wanted for number, value in fields(pair, budget) if isinstance(value, bytes))


def _fields(data: bytes, budget: Budget) -> Iterator[tuple[int, Any, int, int]]:
    """With where the field begins and ends."""
    at, end, count = 0, len(data), 0
    while at < end:
        count += 1
        if count > _MOST_FIELDS:
            raise TooMuchTelemetry(f"A message of the request has more than {_MOST_FIELDS} fields.")
        start = at
        tag, at = _varint(data, at)
        kind = tag & 7
        value: Any
        if kind == _BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            value = None
        else:
            raise _malformed()
        if at > end or tag < 8:
            raise _malformed()
        yield tag >> 3, value, start, at
    budget.take_fields(count)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _malformed()


def _malformed() -> MalformedTelemetry:
    return MalformedTelemetry("The request is not the protobuf message that this path takes.")
