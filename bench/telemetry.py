"""Telemetry: the same spans sent to the product and to Phoenix, and the same questions asked of both.

Phoenix (arize-phoenix, from PyPI, in an environment of its own) stores spans in SQLite where it is given no database,
as most do who try it. Both are asked over GraphQL. A batch counts as stored when a question sees it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from bench.processes import ROOT, Running, free_port, started

PHOENIX_VERSION = "20.26.1"
TRACES = 2_000
"""Sent in each round; a trace is a run with a request to a model and a call of a tool, three spans."""
SPANS_OF_TRACE = 3
TRACES_OF_REQUEST = 170
"""About the 512 spans that exporters send at once."""
CONNECTIONS = 4
DAYS = 30
START_SECONDS = 120.0
STORED_SECONDS = 900.0

_MODELS = ("claude-sonnet-4-5", "gpt-4o", "gpt-4o-mini", "gemini-2.5-pro")
_ENVIRONMENT = ROOT / ".tools" / "phoenix"


@dataclass
class Telemetry:
    """What was measured: spans stored a second, and seconds of each question, of the product and of Phoenix."""

    spans: int
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    questions: list[tuple[str, list[float], list[float]]] = field(default_factory=list)

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
        for title, ours, theirs in self.questions:
            found.append(
                (
                    f"{title}, of {self.spans:,} spans",
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
    "tokens by model": "topModelsByTokenCount(timeRange: $range) { name }",
}
_OURS = {
    "tokens by hour": {"metric": "tokens.total", "bucket": "HOUR"},
    "p95 of runs by day": {"metric": "runs.duration_p95", "bucket": "DAY"},
    "tokens by model": {"metric": "tokens.total", "bucket": "MONTH", "groupBy": ["model"]},
}


async def measure(port: int, token: str, folder: Path, rounds: int, say: Callable[[str], None]) -> Telemetry:
    """Send spans to both by turns, then ask both by turns. The product is a web process at this port, with a worker."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    result = Telemetry(spans=rounds * TRACES * SPANS_OF_TRACE)
    headers = {"authorization": f"Bearer {token}"}
    with _phoenix(folder, say) as phoenix:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as ours,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{phoenix.port}", timeout=600) as theirs,
        ):
            for number in range(rounds):
                bodies = list(_requests(start, end, Random(number)))
                wanted = (number + 1) * TRACES
                say(f"Sending {TRACES * SPANS_OF_TRACE:,} spans to both ({number + 1} of {rounds}) …")
                result.ours.append(await _stored(ours, bodies, lambda: _our_runs(ours, start, end), wanted))
                result.theirs.append(await _stored(theirs, bodies, lambda: _their_runs(theirs), wanted))
            await _rested(ours, start, end)
            for title, question in _OURS.items():
                say(f"Asking for {title} …")
                mine: list[float] = []
                other: list[float] = []
                for _ in range(rounds + 1):
                    mine.append(await _asked(ours, _SERIES, {**question, "from": _text(start), "to": _text(end)}))
                    other.append(await _asked(theirs, _of_phoenix(title), {"range": _range(start, end)}))
                # The first of each warms caches.
                result.questions.append((title, mine[1:], other[1:]))
    return result


def _requests(start: datetime, end: datetime, random: Random) -> Iterator[bytes]:
    """Export requests, compressed, as exporters send them."""
    resource = Resource(attributes=_attributes({"service.name": "agent"}))
    begin, width = start.timestamp(), (end - start).total_seconds()
    moments = sorted(begin + random.random() * (width - 60) for _ in range(TRACES))
    for first in range(0, TRACES, TRACES_OF_REQUEST):
        request = ExportTraceServiceRequest()
        of_resource = request.resource_spans.add(resource=resource)
        of_scope = of_resource.scope_spans.add()
        of_scope.scope.name = "openinference.instrumentation.bench"
        for moment in moments[first : first + TRACES_OF_REQUEST]:
            trace, root = random.randbytes(16), random.randbytes(8)
            model_took, tool_took = random.lognormvariate(7, 0.6), random.lognormvariate(4, 1)
            at = int(moment * 1e9)
            prompt, answer = random.randrange(200, 8000), random.randrange(10, 900)
            model = {
                "openinference.span.kind": "LLM",
                "llm.model_name": random.choice(_MODELS),
                "llm.token_count.prompt": prompt,
                "llm.token_count.completion": answer,
                "llm.token_count.total": prompt + answer,
            }
            tool = {"openinference.span.kind": "TOOL", "tool.name": f"tool-{random.randrange(20)}"}
            spans = (
                ("agent", root, b"", model_took + tool_took, {"openinference.span.kind": "AGENT"}),
                ("model", random.randbytes(8), root, model_took, model),
                ("tool", random.randbytes(8), root, tool_took, tool),
            )
            for name, span, parent, took, attributes in spans:
                of_scope.spans.add(
                    trace_id=trace,
                    span_id=span,
                    parent_span_id=parent,
                    name=name,
                    start_time_unix_nano=at,
                    end_time_unix_nano=at + int(took * 1e6),
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
    """Spans a second, from the first request until a question sees all of them."""
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
    return TRACES * SPANS_OF_TRACE / (time.perf_counter() - began)


async def _our_runs(client: httpx.AsyncClient, start: datetime, end: datetime) -> int:
    asked = {"metric": "runs.count", "bucket": "MONTH", "from": _text(start), "to": _text(end + timedelta(hours=2))}
    [group] = (await _answer(client, _SERIES, asked))["metricSeries"]["groups"] or [{"total": 0}]
    return int(group["total"] or 0)


async def _their_runs(client: httpx.AsyncClient) -> int:
    body = await _answer(client, "{ projects(first: 5) { edges { node { name traceCount } } } }", {})
    return max((edge["node"]["traceCount"] for edge in body["projects"]["edges"]), default=0)


async def _rested(client: httpx.AsyncClient, start: datetime, end: datetime) -> None:
    """Wait until what was sent has been counted, as it has been seconds after it came."""
    await asyncio.sleep(5)
    await _our_runs(client, start, end)


async def _asked(client: httpx.AsyncClient, document: str, variables: dict[str, object]) -> float:
    began = time.perf_counter()
    await _answer(client, document, variables)
    return time.perf_counter() - began


async def _answer(client: httpx.AsyncClient, document: str, variables: dict[str, object]) -> dict[str, object]:
    response = await client.post("/graphql", json={"query": document, "variables": variables})
    response.raise_for_status()
    body = response.json()
    if body.get("errors"):
        raise AssertionError(json.dumps(body["errors"])[:2000])
    return body["data"]  # type: ignore[no-any-return]


def _of_phoenix(title: str) -> str:
    return f"query ($range: TimeRange!) {{ projects(first: 1) {{ edges {{ node {{ {_PHOENIX[title]} }} }} }} }}"


def _range(start: datetime, end: datetime) -> dict[str, str]:
    return {"start": _text(start), "end": _text(end)}


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


@contextmanager
def _phoenix(folder: Path, say: Callable[[str], None]) -> Iterator[Running]:
    """A Phoenix of its own environment and data, until the context is left."""
    program = _ENVIRONMENT / "bin" / "phoenix"
    if not program.exists():
        say("Installing Phoenix …")
        subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
        pip = [str(_ENVIRONMENT / "bin" / "pip"), "install", "-q", f"arize-phoenix=={PHOENIX_VERSION}"]
        subprocess.run(pip, check=True)
    port = free_port()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    (folder / "phoenix").mkdir()
    with started("phoenix", [str(program), "serve"], os.environ.copy() | environment, folder, port) as running:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                    break
            except (URLError, OSError):
                if time.monotonic() > deadline or running.process.poll() is not None:
                    raise RuntimeError(running.log.read_text(errors="replace")[-2000:]) from None
                time.sleep(0.5)
        yield running
