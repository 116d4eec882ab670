"""Telemetry: the same spans sent to the product and to Phoenix, and the same questions asked of both.

Phoenix (arize-phoenix, from PyPI, in an environment of its own) stores spans in SQLite where it is given no database,
as most do who try it. Both are asked over GraphQL. A batch counts as stored when a question sees it.

Phoenix takes hours for many spans. So what both are sent is asked first; then what Phoenix has is multiplied within its
database while it is stopped (bench.phoenix), the same copies are sent to the product, and both are asked again, once
they agree about what they have.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import asyncpg
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from bench.phoenix import Copies, multiply, phoenix

TRACES = 2_000
"""Sent in each round; a trace is a run with a request to a model and a call of a tool, three spans."""
SPANS_OF_TRACE = 3
TRACES_OF_REQUEST = 170
"""About the 512 spans that exporters send at once."""
CONNECTIONS = 4
DAYS = 30
MARGIN = timedelta(minutes=1)
"""At the end of the range: what begins before it ends within the range."""
COPIES = 10
"""So many times the spans that were sent to both are asked for at last."""
BETWEEN_COPIES = timedelta(days=DAYS) / COPIES
STORED_SECONDS = 900.0

_MODELS = ("claude-sonnet-4-5", "gpt-4o", "gpt-4o-mini", "gemini-2.5-pro")

_WAITING, _COUNTED = "EXISTS (SELECT FROM {}_pending)", ("run", "usage", "tool")


@dataclass
class Telemetry:
    """What was measured: spans stored a second, and seconds of each question, of the product and of Phoenix."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    questions: list[tuple[str, int, list[float], list[float]]] = field(default_factory=list)
    """What was asked, of how many spans; seconds."""

    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table: what, the product, Phoenix, ratio."""
        found = [
            (
                f"spans stored a second, {SPANS_OF_TRACE * TRACES:,} at a time",
                f"{median(self.ours):,.0f}",
                f"{median(self.theirs):,.0f}",
                f"{median(self.ours) / median(self.theirs):.1f}",
            )
        ]
        for title, spans, ours, theirs in self.questions:
            found.append(
                (
                    f"{title}, of {spans:,} spans",
                    f"{1000 * median(ours):.1f} ms",
                    f"{1000 * median(theirs):.1f} ms",
                    f"{median(theirs) / median(ours):.1f}",
                )
            )
        return found


HEAD = ("telemetry", "Quarterdeck", "Phoenix", "times as fast")

_SERIES = """query ($metric: String!, $groupBy: [String!], $bucket: MetricBucket, $from: DateTime, $to: DateTime) {
  metricSeries(metric: $metric, groupBy: $groupBy, bucket: $bucket, from: $from, to: $to) {
    groups { labels { value } total points { at value } }
  }
}"""
_PHOENIX = {
    "tokens by hour": "traceTokenCountTimeSeries(timeRange: $range, timeBinConfig: {scale: HOUR}) "
    "{ data { timestamp totalTokenCount } }",
    "p95 of runs by day": "traceLatencyMsPercentileTimeSeries(timeRange: $range, timeBinConfig: {scale: DAY}) "
    "{ data { timestamp p95 } }",
    "tokens by model": "topModelsByTokenCount(timeRange: $range) "
    "{ name costSummary(projectId: $project, timeRange: $range) { total { tokens } } }",
}
_WHOLE = "whole: latencyMsQuantile(probability: 0.95, timeRange: $range)"
_OURS = {
    "tokens by hour": {"metric": "tokens.total", "bucket": "HOUR"},
    "p95 of runs by day": {"metric": "runs.duration_p95", "bucket": "DAY"},
    "tokens by model": {"metric": "tokens.total", "bucket": "MONTH", "groupBy": ["model"]},
}


@dataclass(frozen=True, slots=True)
class _Trace:
    """A run with a request to a model and a call of a tool. Times are microseconds."""

    id: bytes
    at: int
    model_took: int
    tool_took: int
    model: str
    prompt: int
    answer: int
    tool: str


async def measure(port: int, token: str, dsn: str, folder: Path, rounds: int, say: Callable[[str], None]) -> Telemetry:
    """Send spans to both by turns, then ask both by turns; then the same of COPIES times as many. The product is a web
    process at this port, with a worker, on this database."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    result = Telemetry()
    sent = [list(_traces(start, end, Random(number))) for number in range(rounds)]
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as ours:
        with phoenix(folder, say) as running:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=600) as theirs:
                for number, traces in enumerate(sent):
                    wanted = (number + 1) * TRACES
                    say(f"Sending {TRACES * SPANS_OF_TRACE:,} spans to both ({number + 1} of {rounds}) …")
                    for client, count, speeds in (
                        (ours, lambda: _our_runs(ours, start, end), result.ours),
                        (theirs, lambda: _their_runs(theirs), result.theirs),
                    ):
                        seconds = await _stored(client, list(_requests(traces)), count, wanted)
                        speeds.append(len(traces) * SPANS_OF_TRACE / seconds)
                await _ask(ours, theirs, dsn, start, end, rounds, result, say)
        say(f"Making {COPIES} times as many …")
        copies = Copies(COPIES, start, end - MARGIN, BETWEEN_COPIES)
        await asyncio.to_thread(multiply, folder, copies)
        all_ = [trace for traces in sent for trace in traces]
        more = [_again(trace, copies, number) for number in range(1, COPIES) for trace in all_]
        count = lambda: _our_runs(ours, start, end)  # noqa: E731
        await _stored(ours, list(_requests(more)), count, len(all_) + len(more))
        with phoenix(folder, say) as running:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=600) as theirs:
                await _ask(ours, theirs, dsn, start, end, rounds, result, say)
    return result


async def _ask(
    ours: httpx.AsyncClient,
    theirs: httpx.AsyncClient,
    dsn: str,
    start: datetime,
    end: datetime,
    rounds: int,
    result: Telemetry,
    say: Callable[[str], None],
) -> None:
    """Ask both by turns, once they have been seen to say the same."""
    await _counted(dsn)
    spans = SPANS_OF_TRACE * await _our_runs(ours, start, end)
    [project] = (await _answer(theirs, "{ projects(first: 1) { edges { node { id } } } }", {}))["projects"]["edges"]
    asked = {"range": {"start": _text(start), "end": _text(end)}, "project": project["node"]["id"]}
    for title, question in _OURS.items():
        variables = {**question, "from": _text(start), "to": _text(end)}
        _compare(
            title, await _answer(ours, _SERIES, variables), await _answer(theirs, _of_phoenix(title, _WHOLE), asked)
        )
        say(f"Asking for {title}, of {spans:,} spans …")
        mine: list[float] = []
        other: list[float] = []
        for _ in range(max(rounds, 5)):
            mine.append(await _asked(ours, _SERIES, variables))
            other.append(await _asked(theirs, _of_phoenix(title), asked))
        result.questions.append((title, spans, mine, other))


def _compare(title: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raises AssertionError where the two do not say the same."""
    groups = ours["metricSeries"]["groups"]
    found = theirs["projects"]["edges"][0]["node"]["asked"]
    if title == "tokens by model":
        mine = {group["labels"][0]["value"]: group["total"] for group in groups}
        other = {model["name"]: model["costSummary"]["total"]["tokens"] for model in found}
        assert mine == other, (title, mine, other)
    elif title == "tokens by hour":
        other = sum(point["totalTokenCount"] or 0 for point in found["data"])
        assert groups[0]["total"] == other, (title, groups[0]["total"], other)
    else:
        # Of all runs, for those of a day are few: there it lies between two of them, which may be far apart. Ours is
        # within 5 % of a run's own.
        other = theirs["projects"]["edges"][0]["node"]["whole"]
        assert abs(groups[0]["total"] / other - 1) < 0.06, (title, groups[0]["total"], other)


def _traces(start: datetime, end: datetime, random: Random) -> Iterator[_Trace]:
    begin, width = start.timestamp(), (end - MARGIN - start).total_seconds()
    for moment in sorted(begin + random.random() * width for _ in range(TRACES)):
        yield _Trace(
            random.randbytes(16),
            int(moment * 1e6),
            int(random.lognormvariate(7, 0.6) * 1000),
            int(random.lognormvariate(4, 1) * 1000),
            random.choice(_MODELS),
            random.randrange(200, 8000),
            random.randrange(10, 900),
            f"tool-{random.randrange(20)}",
        )


def _again(trace: _Trace, copies: Copies, number: int) -> _Trace:
    """A copy as `multiply` makes it, but for its id."""
    id_ = (int.from_bytes(trace.id) ^ number).to_bytes(16)
    return replace(trace, id=id_, at=trace.at + copies.later(trace.at, number))


def _requests(traces: Sequence[_Trace]) -> Iterator[bytes]:
    """Export requests, compressed, as exporters send them."""
    resource = Resource(attributes=_attributes({"service.name": "agent"}))
    for first in range(0, len(traces), TRACES_OF_REQUEST):
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add(resource=resource)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = "openinference.instrumentation.bench"
        for trace in traces[first : first + TRACES_OF_REQUEST]:
            model: dict[str, str | int] = {
                "openinference.span.kind": "LLM",
                "llm.model_name": trace.model,
                "llm.token_count.prompt": trace.prompt,
                "llm.token_count.completion": trace.answer,
                "llm.token_count.total": trace.prompt + trace.answer,
            }
            tool: dict[str, str | int] = {"openinference.span.kind": "TOOL", "tool.name": trace.tool}
            run: dict[str, str | int] = {"openinference.span.kind": "AGENT"}
            root, of_model, of_tool = (sha256(trace.id + bytes([place])).digest()[:8] for place in range(3))
            spans = (
                ("agent", root, b"", trace.model_took + trace.tool_took, run),
                ("model", of_model, root, trace.model_took, model),
                ("tool", of_tool, root, trace.tool_took, tool),
            )
            for name, span, parent, took, attributes in spans:
                of_scope.spans.add(
                    trace_id=trace.id,
                    span_id=span,
                    parent_span_id=parent,
                    name=name,
                    start_time_unix_nano=trace.at * 1000,
                    end_time_unix_nano=(trace.at + took) * 1000,
                    attributes=_attributes(attributes),
                )
        yield gzip.compress(request.SerializeToString(), 1)


def _attributes(values: dict[str, str | int]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


async def _stored(
    client: httpx.AsyncClient, bodies: Sequence[bytes], count: Callable[[], Awaitable[int]], wanted: int
) -> float:
    """Seconds from the first request until a question sees all of them."""
    waiting = list(reversed(bodies))
    headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}

    async def send() -> None:
        while waiting:
            body = waiting.pop()
            while (answer := await client.post("/v1/traces", content=body, headers=headers)).status_code in (429, 503):
                await asyncio.sleep(0.05)
            answer.raise_for_status()

    began = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    while (found := await count()) < wanted:
        if time.perf_counter() - began > STORED_SECONDS:
            raise TimeoutError(f"{found} of {wanted} traces after {STORED_SECONDS:.0f} s")
        await asyncio.sleep(0.02)
    return time.perf_counter() - began


async def _our_runs(client: httpx.AsyncClient, start: datetime, end: datetime) -> int:
    asked = {"metric": "runs.count", "bucket": "MONTH", "from": _text(start), "to": _text(end + timedelta(hours=2))}
    [group] = (await _answer(client, _SERIES, asked))["metricSeries"]["groups"] or [{"total": 0}]
    return int(group["total"] or 0)


async def _their_runs(client: httpx.AsyncClient) -> int:
    body = await _answer(client, "{ projects(first: 5) { edges { node { name traceCount } } } }", {})
    return max((edge["node"]["traceCount"] for edge in body["projects"]["edges"]), default=0)


async def _counted(dsn: str) -> None:
    """Wait until what was sent has been counted, as it has been seconds after it came."""
    connection = await asyncpg.connect(dsn)
    try:
        while await connection.fetchval(f"SELECT {' OR '.join(map(_WAITING.format, _COUNTED))}"):
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def _asked(client: httpx.AsyncClient, document: str, variables: dict[str, object]) -> float:
    began = time.perf_counter()
    await _answer(client, document, variables)
    return time.perf_counter() - began


async def _answer(client: httpx.AsyncClient, document: str, variables: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/graphql", json={"query": document, "variables": variables})
    response.raise_for_status()
    body = response.json()
    if body.get("errors"):
        raise AssertionError(json.dumps(body["errors"])[:2000])
    return body["data"]  # type: ignore[no-any-return]


def _of_phoenix(title: str, more: str = "") -> str:
    project = ", $project: ID!" if "$project" in _PHOENIX[title] else ""
    fields = f"asked: {_PHOENIX[title]} {more}"
    return f"query ($range: TimeRange!{project}) {{ projects(first: 1) {{ edges {{ node {{ {fields} }} }} }} }}"


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
