"""Spans and points of metrics as the services see them: plain, and nothing of protobuf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Temporality(StrEnum):
    """Whether a sum's value is what came since the last one, or all since its start."""

    DELTA = "DELTA"
    CUMULATIVE = "CUMULATIVE"


@dataclass(frozen=True, slots=True)
class Origin:
    """What spans or points have in common: the resource and the instrumentation that they come from."""

    resource: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""
    schema_url: str = ""
    """Of the instrumentation, or else of the resource: names the version of the semantic conventions."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times are nanoseconds since 1970; ids are as they came, and may be of any length."""

    origin: Origin
    trace_id: bytes
    span_id: bytes
    name: str
    start: int
    end: int
    failed: bool
    """Its status is an error."""
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sum, a gauge or a histogram; of a histogram, `value` is the sum and `count` how many values."""

    origin: Origin
    metric: str
    temporality: Temporality | None
    """None for a gauge."""
    start: int
    at: int
    value: float
    count: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class Read(Generic[T]):
    """What was read of a request, and what was not: why, and how many."""

    found: list[T] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


class MalformedTelemetry(Exception):
    """The bytes are not what they should be; the message says what is wrong."""


class TooMuchTelemetry(MalformedTelemetry):
    """There is more in the request than is taken at once; the message says of what."""


MOST = 10_000
"""Spans or points of a request."""
_MOST_GROUPS = 10_000
_MOST_VALUES = 250_000
_MOST_FIELDS = 500_000
"""Of protobuf, which are walked through one by one."""


class Budget:
    """How much more of a request is taken. Raises TooMuchTelemetry where it is used up."""

    def __init__(self) -> None:
        self._items, self._groups, self._values, self._fields = MOST, _MOST_GROUPS, _MOST_VALUES, _MOST_FIELDS

    def take(self) -> None:
        """A span or a point."""
        self._items -= 1
        if self._items < 0:
            raise TooMuchTelemetry(f"A request has at most {MOST} spans or points: send smaller batches.")

    def take_group(self) -> None:
        """A resource, a scope, or a metric: something that spans or points are in."""
        self._groups -= 1
        if self._groups < 0:
            raise TooMuchTelemetry(
                f"A request has at most {_MOST_GROUPS} resources, scopes and metrics: send smaller batches."
            )

    def take_values(self, number: int) -> None:
        """Attributes, and values within them."""
        self._values -= number
        if self._values < 0:
            raise TooMuchTelemetry(f"A request has at most {_MOST_VALUES} attributes: send smaller batches.")

    def take_fields(self, number: int) -> None:
        """Fields of the messages that spans and points are in, and of spans that are large."""
        self._fields -= number
        if self._fields < 0:
            raise TooMuchTelemetry(
                f"The messages of a request have at most {_MOST_FIELDS} fields: send smaller batches."
            )
