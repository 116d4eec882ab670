"""Reads requests of OTLP in JSON. What is not wanted is taken away before anything is made of it: that takes long."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from integrations.otlp.base import Budget, MalformedTelemetry

_RESOURCE = frozenset({"resource", "scopeSpans", "scopeMetrics", "schemaUrl"})
_SCOPE = frozenset({"scope", "spans", "metrics", "schemaUrl"})
_SPAN = frozenset({"traceId", "spanId", "name", "startTimeUnixNano", "endTimeUnixNano", "status", "attributes"})
_METRIC = frozenset({"name", "gauge", "sum", "histogram", "exponentialHistogram", "summary"})
_DATA = frozenset({"dataPoints", "aggregationTemporality"})
_POINT = frozenset({"attributes", "startTimeUnixNano", "timeUnixNano", "asDouble", "asInt", "count", "sum"})
_IDS = ("traceId", "spanId")


def read_json(body: bytes, request: Message, wanted: Collection[str] | None) -> None:
    """Fill a request from JSON, with the attributes that are wanted, or all. Raises MalformedTelemetry,
    TooMuchTelemetry."""
    try:
        given = orjson.loads(body)
        if not isinstance(given, dict):
            raise MalformedTelemetry("The request is not a JSON object.")
        _prune(given, wanted)
        json_format.ParseDict(given, request, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise MalformedTelemetry(f"The request is not the JSON that this path takes: {str(error)[:300]}") from None
    except (orjson.JSONDecodeError, RecursionError):
        raise MalformedTelemetry("The request is not JSON, or nested too deeply.") from None


def _prune(request: dict[str, Any], wanted: Collection[str] | None) -> None:
    """Leave what is read: spans where attributes are chosen, and else metrics."""
    budget = Budget()
    signal, within = ("resourceSpans", "scopeSpans") if wanted is not None else ("resourceMetrics", "scopeMetrics")
    _only(request, {signal})
    for of_resource in _dicts(request.get(signal)):
        budget.take_group()
        _only(of_resource, _RESOURCE)
        for resource in _dicts([of_resource.get("resource")]):
            _only(resource, {"attributes"})
            _prune_attributes(resource, wanted, budget)
        for of_scope in _dicts(of_resource.get(within)):
            budget.take_group()
            _only(of_scope, _SCOPE)
            for scope in _dicts([of_scope.get("scope")]):
                _only(scope, {"name"})
            for span in _dicts(of_scope.get("spans")):
                budget.take()
                _prune_span(span, wanted, budget)
            for metric in _dicts(of_scope.get("metrics")):
                budget.take_group()
                _prune_metric(metric, budget)


def _prune_span(span: dict[str, Any], wanted: Collection[str] | None, budget: Budget) -> None:
    _only(span, _SPAN)
    for status in _dicts([span.get("status")]):
        _only(status, {"code"})
    # OTLP's JSON has ids in hexadecimal, where protobuf's has base64.
    for name in _IDS:
        if isinstance(text := span.get(name), str):
            span[name] = _base64_of_hex(text)
    _prune_attributes(span, wanted, budget)


def _prune_metric(metric: dict[str, Any], budget: Budget) -> None:
    _only(metric, _METRIC)
    for kind, data in metric.items():
        for of_kind in _dicts([data]):
            _only(of_kind, _DATA)
            for point in _dicts(of_kind.get("dataPoints")):
                budget.take()
                _only(point, _POINT if kind in ("gauge", "sum", "histogram") else ())
                _prune_attributes(point, None, budget)


def _prune_attributes(owner: dict[str, Any], wanted: Collection[str] | None, budget: Budget) -> None:
    pairs = owner.get("attributes")
    if not isinstance(pairs, list):
        return
    if wanted is not None:
        pairs = owner["attributes"] = [
            pair
            for pair in pairs
            if not isinstance(pair, dict) or (isinstance(key := pair.get("key"), str) and key in wanted)
        ]
    budget.take_values(sum(map(_containers, pairs)))


def _containers(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_containers, value.values()))
    return 1 + sum(map(_containers, value)) if isinstance(value, list) else 0


def _only(found: dict[str, Any], names: Collection[str]) -> None:
    for name in [name for name in found if name not in names]:
        del found[name]


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _base64_of_hex(text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError):
        raise MalformedTelemetry(f"{text[:40]!r} is no id: ids are hexadecimal in JSON.") from None
