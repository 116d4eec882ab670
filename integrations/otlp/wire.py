"""Reads requests of OTLP, from protobuf and JSON, and writes the answers.

Source: the OpenTelemetry Protocol specification 1.9, "OTLP/HTTP".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Container, Iterator
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from integrations.otlp.base import MalformedTelemetry, Origin, Point, Span, Temporality

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
DEEPEST = 8
"""Values within values of an attribute; what is deeper is left out."""

_IDS = ("traceId", "spanId", "parentSpanId")
_TEMPORALITIES = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: Temporality.DELTA,
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: Temporality.CUMULATIVE,
}


def read_spans(body: bytes, content_type: str, wanted: Container[str]) -> list[Span]:
    """The spans of an export request, with those of their attributes that are wanted: prompts and answers, which
    others put into attributes, are not read at all. Raises MalformedTelemetry."""
    request = ExportTraceServiceRequest()
    _parse(request, body, content_type)
    found = []
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes, wanted)
        for of_scope in of_resource.scope_spans:
            origin = Origin(resource, of_scope.scope.name, of_scope.schema_url or of_resource.schema_url)
            found += [
                Span(
                    origin,
                    span.trace_id,
                    span.span_id,
                    span.name,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
                    _attributes(span.attributes, wanted),
                )
                for span in of_scope.spans
            ]
    return found


def read_points(body: bytes, content_type: str) -> tuple[list[Point], int]:
    """The points of an export request, and how many there are of kinds that are not read (exponential histograms,
    summaries, and sums without a temporality). Raises MalformedTelemetry."""
    request = ExportMetricsServiceRequest()
    _parse(request, body, content_type)
    found: list[Point] = []
    other = 0
    for of_resource in request.resource_metrics:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_metrics:
            origin = Origin(resource, of_scope.scope.name, of_scope.schema_url or of_resource.schema_url)
            for metric in of_scope.metrics:
                points = list(_points(origin, metric))
                found += points
                kind = metric.WhichOneof("data")
                other += (len(getattr(metric, kind).data_points) if kind else 0) - len(points)
    return found, other


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


def _parse(request: Message, body: bytes, content_type: str) -> None:
    try:
        if content_type == PROTOBUF:
            request.ParseFromString(body)
        else:
            given = orjson.loads(body)
            if not isinstance(given, dict):
                raise MalformedTelemetry("The request is not a JSON object.")
            json_format.ParseDict(_with_binary_ids(given), request, ignore_unknown_fields=True)
    except DecodeError:
        raise MalformedTelemetry("The request is not the protobuf message that this path takes.") from None
    except json_format.ParseError as error:
        raise MalformedTelemetry(f"The request is not the JSON that this path takes: {str(error)[:300]}") from None
    except (orjson.JSONDecodeError, RecursionError):
        raise MalformedTelemetry("The request is not JSON, or nested too deeply.") from None


def _with_binary_ids(request: dict[str, Any]) -> dict[str, Any]:
    """OTLP's JSON has ids in hexadecimal, where protobuf's has base64."""
    for of_resource in _dicts(request.get("resourceSpans")):
        for of_scope in _dicts(of_resource.get("scopeSpans")):
            for span in _dicts(of_scope.get("spans")):
                for name in _IDS:
                    if isinstance(text := span.get(name), str):
                        span[name] = _base64_of_hex(text)
                span.pop("links", None)
                span.pop("events", None)
    for of_resource in _dicts(request.get("resourceMetrics")):
        for of_scope in _dicts(of_resource.get("scopeMetrics")):
            for metric in _dicts(of_scope.get("metrics")):
                for data in metric.values():
                    for point in _dicts(data.get("dataPoints") if isinstance(data, dict) else None):
                        point.pop("exemplars", None)
    return request


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _base64_of_hex(text: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError):
        raise MalformedTelemetry(f"{text[:40]!r} is no id: ids are hexadecimal in JSON.") from None


def _points(origin: Origin, metric: Metric) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind == "gauge":
        for point in metric.gauge.data_points:
            yield _number(origin, metric.name, None, point)
    elif kind == "sum" and (temporality := _TEMPORALITIES.get(metric.sum.aggregation_temporality)):
        for point in metric.sum.data_points:
            yield _number(origin, metric.name, temporality, point)
    elif kind == "histogram" and (temporality := _TEMPORALITIES.get(metric.histogram.aggregation_temporality)):
        for histogram in metric.histogram.data_points:
            yield Point(
                origin,
                metric.name,
                temporality,
                histogram.start_time_unix_nano,
                histogram.time_unix_nano,
                histogram.sum,
                histogram.count,
                _attributes(histogram.attributes),
            )


def _number(origin: Origin, metric: str, temporality: Temporality | None, point: NumberDataPoint) -> Point:
    value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
    return Point(
        origin,
        metric,
        temporality,
        point.start_time_unix_nano,
        point.time_unix_nano,
        float(value),
        1,
        _attributes(point.attributes),
    )


def _attributes(pairs: Any, wanted: Container[str] | None = None) -> dict[str, Any]:
    return {pair.key: _value(pair.value, 0) for pair in pairs if wanted is None or pair.key in wanted}


def _value(value: Any, level: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or level > DEEPEST:
        return None
    if kind == "array_value":
        return [_value(item, level + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value, level + 1) for pair in value.kvlist_value.values}
    return getattr(value, kind)
