"""Reads requests of OTLP, from protobuf and JSON, and writes the answers.

Source: the OpenTelemetry Protocol specification 1.9, "OTLP/HTTP".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as pb_trace
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from integrations.otlp import protobuf
from integrations.otlp.base import Budget, Origin, Point, Read, Span, Temporality
from integrations.otlp.of_json import read_json

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
DEEPEST = 8
"""Values within values of an attribute; what is deeper is left out."""

_TEMPORALITIES: Mapping[int, Temporality] = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: Temporality.DELTA,
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: Temporality.CUMULATIVE,
}
_POINTS: Mapping[str, type[Any]] = {"gauge": NumberDataPoint, "sum": NumberDataPoint, "histogram": HistogramDataPoint}
"""The kinds of metrics that are read."""
_KINDS = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential_histogram", 11: "summary"}
"""Fields of a metric in protobuf."""
_LEFT_OUT = (3, 11, 13)
"""Of spans in protobuf: trace state, events, links."""


def read_spans(body: bytes, content_type: str, wanted: Collection[str]) -> Read[Span]:
    """The spans of an export request, with those of their attributes that are wanted: prompts and answers, which
    others put into attributes, are not read at all. Raises MalformedTelemetry, TooMuchTelemetry."""
    read: Read[Span] = Read()
    budget = Budget()
    if content_type == PROTOBUF:
        spans = _spans_of_protobuf(body, budget, wanted, read.unread)
    else:
        request = ExportTraceServiceRequest()
        read_json(body, request, wanted)
        spans = (
            (origin, span)
            for of_resource in request.resource_spans
            for origin, of_scope in _origins(of_resource, of_resource.scope_spans, budget, wanted)
            for span in of_scope.spans
        )
    read.found += [
        Span(
            origin,
            span.trace_id,
            span.span_id,
            span.name,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
            _attributes(span.attributes, budget, wanted),
        )
        for origin, span in spans
    ]
    return read


def read_points(body: bytes, content_type: str) -> Read[Point]:
    """The points of an export request; those of kinds that are not read (exponential histograms, summaries, and sums
    without a temporality) are only counted. Raises MalformedTelemetry, TooMuchTelemetry."""
    read: Read[Point] = Read()
    budget = Budget()
    if content_type == PROTOBUF:
        series = _series_of_protobuf(body, budget, read.unread)
    else:
        request = ExportMetricsServiceRequest()
        read_json(body, request, None)
        series = (
            (origin, metric.name, *_data_of(metric))
            for of_resource in request.resource_metrics
            for origin, of_scope in _origins(of_resource, of_resource.scope_metrics, budget, None)
            for metric in of_scope.metrics
        )
    for origin, name, kind, temporality, count, points in series:
        if kind == "gauge" or (kind in _POINTS and temporality is not None):
            read.found += [_point(origin, name, temporality, point, budget) for point in points]
        else:
            read.unread["it is neither a gauge, nor a sum or histogram with a temporality"] += count
    return read


def written(answer: Message, content_type: str) -> bytes:
    """An answer in the encoding of the question."""
    if content_type == JSON:
        return json_format.MessageToJson(answer, indent=None).encode()
    return answer.SerializeToString()


def answer_to_spans(rejected: int, message: str) -> Message:
    """The answer to spans: partial success where some were rejected or there is something to say."""
    answer = ExportTraceServiceResponse()
    if rejected or message:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return answer


def answer_to_points(rejected: int, message: str) -> Message:
    """The answer to points: partial success where some were rejected or there is something to say."""
    answer = ExportMetricsServiceResponse()
    if rejected or message:
        answer.partial_success.rejected_data_points = rejected
        answer.partial_success.error_message = message
    return answer


def failure(code: int, message: str, content_type: str) -> bytes:
    """A google.rpc.Status: `code` is a code of gRPC."""
    if content_type == JSON:
        return orjson.dumps({"code": code, "message": message})
    # On the wire the same as google.rpc.Status: an integer in field 1 and a string in field 2.
    return ExportTracePartialSuccess(rejected_spans=code, error_message=message).SerializeToString()


def _spans_of_protobuf(
    body: bytes, budget: Budget, wanted: Collection[str], unread: Counter[str]
) -> Iterator[tuple[Origin, pb_trace.Span]]:
    names = {name.encode() for name in wanted}
    for origin, data in _scopes(body, budget, wanted):
        budget.take()
        if len(data) > protobuf.LARGEST:
            data = protobuf.without_what_is_long(data, budget, attributes=9, dropped=_LEFT_OUT, wanted=names)
        if len(data) > protobuf.LARGEST:
            unread["it is too large"] += 1
        else:
            yield origin, protobuf.parsed(pb_trace.Span, data)


_Series = tuple[Origin, str, str, Temporality | None, int, Iterable[NumberDataPoint | HistogramDataPoint]]
"""With how many points there are. They are made one by one: all at once may be gigabytes."""


def _series_of_protobuf(body: bytes, budget: Budget, unread: Counter[str]) -> Iterator[_Series]:
    for origin, data in _scopes(body, budget, None):
        name, kind, of_kind = "", "", b""
        for number, value in protobuf.fields(data, budget):
            if number == 1:
                name = protobuf.text(value)
            elif number in _KINDS and isinstance(value, bytes):
                kind, of_kind = _KINDS[number], value
        budget.take_group()
        temporality, points = None, []
        message = _POINTS.get(kind, Empty)
        for number, value in protobuf.fields(of_kind, budget):
            if number == 2 and isinstance(value, int):
                temporality = _TEMPORALITIES.get(value)
            elif number == 1 and isinstance(value, bytes):
                budget.take()
                if message is not Empty and len(value) > protobuf.LARGEST:
                    unread["it is too large"] += 1
                else:
                    points.append(value)
        yield origin, name, kind, temporality, len(points), map(partial(protobuf.parsed, message), points)


def _scopes(body: bytes, budget: Budget, wanted: Collection[str] | None) -> Iterator[tuple[Origin, bytes]]:
    """Spans, or metrics, with their origins: both are in messages with the same numbers of fields."""
    for of_resource in protobuf.messages(body, 1, budget):
        budget.take_group()
        # Of resources and scopes that are there several times the last one counts; only that one is read.
        resource, address, scopes = b"", "", []
        for number, value in protobuf.fields(of_resource, budget):
            if number == 1:
                resource = value
            elif number == 2:
                scopes.append(value)
            elif number == 3:
                address = protobuf.text(value)
        attributes = _attributes(protobuf.parsed(Resource, resource).attributes, budget, wanted)
        for of_scope in scopes:
            budget.take_group()
            scope, own_address, items = b"", "", []
            for number, value in protobuf.fields(of_scope, budget):
                if number == 1:
                    scope = value
                elif number == 2:
                    items.append(value)
                elif number == 3:
                    own_address = protobuf.text(value)
            name = protobuf.parsed(InstrumentationScope, scope).name
            origin = Origin(attributes, name, own_address or address)
            yield from ((origin, item) for item in items)


def _origins(
    of_resource: Any, scopes: Any, budget: Budget, wanted: Collection[str] | None
) -> Iterator[tuple[Origin, Any]]:
    resource = _attributes(of_resource.resource.attributes, budget, wanted)
    for of_scope in scopes:
        yield Origin(resource, of_scope.scope.name, of_scope.schema_url or of_resource.schema_url), of_scope


def _data_of(metric: Metric) -> tuple[str, Temporality | None, int, Sequence[Any]]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return "", None, 0, ()
    data = getattr(metric, kind)
    points = data.data_points
    return kind, _TEMPORALITIES.get(getattr(data, "aggregation_temporality", 0)), len(points), points


def _point(
    origin: Origin,
    metric: str,
    temporality: Temporality | None,
    point: NumberDataPoint | HistogramDataPoint,
    budget: Budget,
) -> Point:
    if isinstance(point, HistogramDataPoint):
        value, count = point.sum, point.count
    else:
        value, count = (point.as_int if point.WhichOneof("value") == "as_int" else point.as_double), 1
    return Point(
        origin,
        metric,
        temporality,
        point.start_time_unix_nano,
        point.time_unix_nano,
        float(value),
        count,
        _attributes(point.attributes, budget, None),
    )


def _attributes(pairs: Any, budget: Budget, wanted: Collection[str] | None) -> dict[str, Any]:
    # Those that are not wanted are looked at, too, but not made anything of.
    budget.take_values(len(pairs) if wanted is None else len(pairs) // 8)
    return {pair.key: _value(pair.value, 0, budget) for pair in pairs if wanted is None or pair.key in wanted}


def _value(value: Any, level: int, budget: Budget) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or level > DEEPEST:
        return None
    if kind == "array_value":
        values = value.array_value.values
        budget.take_values(len(values))
        return [_value(item, level + 1, budget) for item in values]
    if kind == "kvlist_value":
        pairs = value.kvlist_value.values
        budget.take_values(len(pairs))
        return {pair.key: _value(pair.value, level + 1, budget) for pair in pairs}
    return getattr(value, kind)
