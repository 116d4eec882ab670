"""Spans and points of metrics as the services see them: plain, and nothing of protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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


class MalformedTelemetry(Exception):
    """The bytes are not what they should be; the message says what is wrong."""
