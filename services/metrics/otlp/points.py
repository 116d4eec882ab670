"""What a point of a metric says: tokens and money used, sessions begun, and what came of them.

Sources: OpenTelemetry's semantic conventions for metrics of generative AI; "Monitoring" in Claude Code's documentation
for the names that begin with `claude_code.`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from integrations.otlp.base import Point, Temporality
from services.metrics.otlp.reading import (
    LARGEST_COUNT,
    Facts,
    Rejected,
    Source,
    fact_id,
    label,
    opentelemetry,
    text_of,
    time_of,
)

LARGEST_TOTAL = 10**15
"""Of a series since its start, and of how many values a histogram has."""
_LARGEST_TIME = 2**63 - 1
_MOST_REQUESTS = 10**9
_MOST_USD = 10**6
_MOST_SESSIONS = 100
"""That one point begins: an agent begins a few in the minute that a point is of."""

_TOKENS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cacheRead": "cache_read_tokens",
    "cacheCreation": "cache_write_tokens",
    "completion": "output_tokens",
}
_OUTCOMES = {
    "claude_code.lines_of_code.count": "lines_of_code",
    "claude_code.pull_request.count": "pull_requests",
    "claude_code.commit.count": "commits",
    "claude_code.active_time.total": "active_seconds",
}


@dataclass(frozen=True, slots=True)
class Series:
    """The series that a point belongs to, and what it has counted since its start."""

    key: bytes
    """16 bytes."""
    start: int
    at: int
    value: float
    count: int

    @property
    def stream(self) -> tuple[bytes, int]:
        """What counts for itself. Two programs may say the same of themselves: their starts tell them apart."""
        return self.key, self.start

    @classmethod
    def of(cls, point: Point) -> Series:
        """The series of a point, by resource, scope, metric and attributes."""
        origin = point.origin
        name = [origin.resource, origin.scope, point.metric, point.attributes]
        key = fact_id(orjson.dumps(name, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)).bytes
        return cls(key, point.start, point.at, point.value, point.count)


def is_read(point: Point) -> bool:
    """Whether the point's metric says something of agents."""
    return point.metric in _READERS


def tells_usage(point: Point) -> bool:
    """Whether the point's metric says what was used, as spans may do, too."""
    return point.metric in ("gen_ai.client.token.usage", "claude_code.token.usage")


def counts_from_start(point: Point) -> bool:
    """Whether its value is all since a start, and not what came since the point before."""
    return point.temporality is Temporality.CUMULATIVE


def checked(point: Point, source: Source) -> Series:
    """The point's series. Raises Rejected for a point that cannot be taken."""
    if not math.isfinite(point.value) or not 0 <= point.value <= LARGEST_TOTAL:
        raise Rejected(f"a value of {point.metric} is {point.value}: it must be a number from 0 to 10^15")
    if point.count > LARGEST_TOTAL:
        raise Rejected(f"{point.metric} has {point.count} values: it has at most 10^15")
    time_of(point.at, source.now)
    if point.start > _LARGEST_TIME:
        raise Rejected("its start is no time")
    if point.temporality is None:
        raise Rejected(f"{label(point.metric)} is a gauge here, and a sum by its definition")
    return Series.of(point)


def facts_of(point: Point, series: Series, value: float, count: int, source: Source, facts: Facts) -> None:
    """Add what the point says to the facts; `value` and `count` are what came since the one before. Raises Rejected."""
    if value <= 0:
        return
    if value > LARGEST_COUNT or count > _MOST_REQUESTS:
        raise Rejected(f"{point.metric} says that {value:g} came at once, of {count}: that is more than can be")
    if tells_usage(point) and source.usage_from_spans:
        facts.superseded += 1
        return
    at = time_of(point.at, source.now)
    common = {
        "at": at,
        "id": fact_id(series.key, point.start.to_bytes(8, "big"), point.at.to_bytes(8, "big")),
        "user_id": source.user_of(point.attributes, point.origin.resource),
        "service": source.service,
        "conventions": _conventions(point),
    }
    _READERS[point.metric](point, value, count, common, facts)


def _claude_tokens(point: Point, value: float, count: int, common: Mapping[str, Any], facts: Facts) -> None:
    column = _TOKENS.get(str(point.attributes.get("type")))
    if column is None:
        raise Rejected("claude_code.token.usage has a type that is not input, output, cacheRead or cacheCreation")
    facts.add("usage_facts", {**common, **_model(point), "requests": 0, column: round(value)})


def _claude_cost(point: Point, value: float, count: int, common: Mapping[str, Any], facts: Facts) -> None:
    if value > _MOST_USD:
        raise Rejected(f"claude_code.cost.usage says that {value:g} USD were spent at once: at most {_MOST_USD}")
    cost = {"cost_usd": Decimal(str(round(value, 9))), "cost_source": "provider"}
    facts.add("usage_facts", {**common, **_model(point), "requests": 0, **cost})


def _claude_sessions(point: Point, value: float, count: int, common: Mapping[str, Any], facts: Facts) -> None:
    number = round(value)
    if number > _MOST_SESSIONS:
        raise Rejected(f"claude_code.session.count says that {number} sessions began at once: at most {_MOST_SESSIONS}")
    facts.shared.take_sessions(number)
    for index in range(number):
        row = {**common, "change": "CREATED"}
        if index:
            row["id"] = fact_id(common["id"].bytes, index.to_bytes(4, "big"))
        facts.add("session_facts", row)


def _claude_outcomes(point: Point, value: float, count: int, common: Mapping[str, Any], facts: Facts) -> None:
    # Lines that were removed are work as well, and are told apart by nothing else.
    host = text_of(point.origin.resource, "host.name") or source_name(point)
    facts.add("resource_facts", {**common, "resource": _OUTCOMES[point.metric], "host": host, "value": value})


def _client_tokens(point: Point, value: float, count: int, common: Mapping[str, Any], facts: Facts) -> None:
    column = _TOKENS.get(str(point.attributes.get("gen_ai.token.type")))
    if column is None:
        raise Rejected("gen_ai.client.token.usage has a gen_ai.token.type that is neither input nor output")
    # Requests have input and output alike, and are counted by one of them.
    requests = count if column == "output_tokens" else 0
    row = {**common, **_model(point), "requests": requests, "priced_requests": count, column: round(value)}
    facts.add("usage_facts", row)


_READERS: Mapping[str, Callable[[Point, float, int, Mapping[str, Any], Facts], None]] = {
    "claude_code.token.usage": _claude_tokens,
    "claude_code.cost.usage": _claude_cost,
    "claude_code.session.count": _claude_sessions,
    **dict.fromkeys(_OUTCOMES, _claude_outcomes),
    "gen_ai.client.token.usage": _client_tokens,
}


def source_name(point: Point) -> str:
    """What sent it: the resource's service."""
    return text_of(point.origin.resource, "service.name") or "(unnamed)"


def model_of(point: Point) -> tuple[str | None, str]:
    """Provider and model that the point is about."""
    model = text_of(point.attributes, "model", "gen_ai.response.model", "gen_ai.request.model") or "(unknown)"
    if point.metric.startswith("claude_code."):
        return "anthropic", model
    return text_of(point.attributes, "gen_ai.provider.name", "gen_ai.system"), model


def _model(point: Point) -> dict[str, Any]:
    provider, model = model_of(point)
    return {"provider": provider, "model": model}


def _conventions(point: Point) -> str:
    if point.metric.startswith("claude_code."):
        version = text_of(point.origin.resource, "service.version") or text_of(point.attributes, "app.version")
        return f"claude_code {version[:20]}" if version else "claude_code"
    return opentelemetry(point.origin)
