"""The tables of a bench, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import live_metrics, rooms, telemetry
from bench.measure import Result, StreamResult, ratio, stream_ratio
from bench.metrics import IngestFigures, MetricFigures

_MEBIBYTE = 1024 * 1024

Row = tuple[str, ...]


@dataclass
class Streams:
    """One kind of audience, in some sizes: what its subscribers follow, and the paces it was sent to at."""

    title: str
    paces: Sequence[float]
    steps: list[tuple[int, list[StreamResult]]] = field(default_factory=list)


@dataclass
class Documents:
    """One request in so many documents that are asked in turn, and the memory of each server at rest after them."""

    memory_before: dict[str, int]
    steps: list[tuple[int, list[Result], dict[str, int]]] = field(default_factory=list)


@dataclass
class Report:
    """What was measured. In lists of results the product's are the first."""

    machine: str
    data: str
    requests: list[tuple[str, str, list[Result]]] = field(default_factory=list)
    """Key, title, and results."""
    streams: list[Streams] = field(default_factory=list)
    growth: list[tuple[int, list[Result]]] = field(default_factory=list)
    """Rows of a page, and results."""
    documents: Documents | None = None
    statements: list[tuple[str, int, int]] = field(default_factory=list)
    """What was asked, in its small and in its large form, and the statements of each."""
    rooms: list[rooms.Together] = field(default_factory=list)
    annotations: list[tuple[str, list[Result]]] = field(default_factory=list)
    """What was looked for, and results."""
    templates: list[tuple[str, list[Result]]] = field(default_factory=list)
    live_metrics: list[live_metrics.Watched] = field(default_factory=list)
    metrics: list[MetricFigures] = field(default_factory=list)
    ingest: IngestFigures | None = None
    work: dict[str, float] = field(default_factory=dict)
    """Runs a second of one worker, and its CPU milliseconds a run."""
    telemetry: telemetry.Telemetry | None = None
    notes: list[str] = field(default_factory=list)
    """What could not be measured here, and why."""

    def markdown(self) -> str:
        """The tables."""
        parts = [f"{self.machine} {self.data}", *self.notes]
        if self.requests:
            rows = [row for key, title, results in self.requests for row in _requests(f"{key} {title}", results)]
            parts.append(_table(("request", *_REQUESTS), rows))
        parts += [_streams(streams) for streams in self.streams]
        if self.rooms:
            parts.append(_table(rooms.HEAD, [rooms.row(result) for result in self.rooms]))
        if self.annotations:
            rows = [row for title, results in self.annotations for row in _requests(title, results)]
            parts.append(_table(("annotations searched while others write", *_REQUESTS), rows))
        if self.templates:
            rows = [row for title, results in self.templates for row in _requests(title, results)]
            parts.append(_table(("templates", *_REQUESTS), rows))
        if self.live_metrics:
            parts.append(_table(live_metrics.HEAD, [live_metrics.row(result) for result in self.live_metrics]))
        if self.telemetry is not None:
            parts.append(_table(telemetry.HEAD, self.telemetry.rows()))
        if self.growth:
            rows = [row for number, results in self.growth for row in _requests(f"{number:,}", results)]
            parts.append(_table(("messages, 6 fields", *_REQUESTS), rows))
        if self.documents is not None:
            parts.append(_documents(self.documents))
        if self.statements:
            rows = [(what, str(small), str(large)) for what, small, large in self.statements]
            parts.append(_table(("SQL statements of one request", "small", "large"), rows))
        parts += [_metrics(figures) for figures in self.metrics]
        if self.ingest is not None:
            share = self.ingest.ingested / self.ingest.copied
            parts.append(
                f"Facts of the event log: {self.ingest.ingested:,.0f}/s, {share:.2f} of a bare COPY of the same rows "
                f"({self.ingest.copied:,.0f}/s)."
            )
        if self.work:
            parts.append(
                f"One worker, web idle: {self.work['per_second']:.0f} runs/s from the queue to the answer, "
                f"{self.work['worker_ms']:.1f} ms of CPU in the worker and {self.work['database_ms']:.1f} ms in the "
                "database each."
            )
        return "\n\n".join(parts) + "\n"

    def plain(self) -> dict[str, Any]:
        """The numbers, for programs. Times in seconds, memory in bytes."""
        return {
            "notes": self.notes,
            "requests": {key: _numbers(results) for key, _, results in self.requests},
            "streams": {
                streams.title: {str(size): _stream_numbers(results) for size, results in streams.steps}
                for streams in self.streams
            },
            "annotations": {title: _numbers(results) for title, results in self.annotations},
            "templates": {title: _numbers(results) for title, results in self.templates},
            "growth": {str(number): _numbers(results) for number, results in self.growth},
            "documents": {
                str(number): {name: {**found, "memory": memory[name]} for name, found in _numbers(results).items()}
                for number, results, memory in (self.documents.steps if self.documents else ())
            },
            "rooms": {result.stream: result.plain() for result in self.rooms},
            "liveMetrics": {result.how: result.plain() for result in self.live_metrics},
            "statements": [list(found) for found in self.statements],
            "metrics": {str(figures.calls): asdict(figures) for figures in self.metrics},
            "ingest": self.ingest and asdict(self.ingest),
            "work": self.work,
        }


_REQUESTS = ("served by", "Quarterdeck ÷ it", "requests/s", "p50 / p99 ms", "server CPU ms", "database CPU ms")


def _requests(title: str, results: list[Result]) -> list[Row]:
    return [
        (
            title if result is results[0] else "",
            result.contestant,
            "—" if result is results[0] else f"**{ratio(results[0], result):.2f}**",
            _rate(result.per_second, result.client_bound),
            f"{result.latency(0.5) * 1000:.1f} / {result.latency(0.99) * 1000:.1f}",
            f"{result.server_cpu_each * 1000:.2f}",
            f"{result.database_cpu_each * 1000:.2f}",
        )
        for result in results
    ]


def _streams(streams: Streams) -> str:
    head = (
        streams.title,
        "served by",
        "Quarterdeck ÷ it",
        "delivered/s",
        "p50 / p99 ms at full speed",
        *(f"at {pace:,.0f}/s" for pace in streams.paces),
        "server CPU µs each",
        "database CPU µs each",
        "KiB a connection",
        "s to subscribe all",
    )
    rows = [
        (f"{size:,}" if result is results[0] else "", result.contestant, *_streamed(results[0], result, streams.paces))
        for size, results in streams.steps
        for result in results
    ]
    return _table(head, rows)


def _streamed(ours: StreamResult, result: StreamResult, paces: Sequence[float]) -> Row:
    if result.problem is not None:
        return ("", "failed", *[""] * (5 + len(paces)))
    comparable = result is not ours and ours.problem is None
    return (
        f"**{stream_ratio(ours, result):.2f}**" if comparable else "—",
        _rate(result.per_second, result.client_bound),
        f"{result.latency(0.5) * 1000:.0f} / {result.latency(0.99) * 1000:.0f}",
        *(_paced(result, pace) for pace in paces),
        f"{result.server_cpu_each * 1e6:.1f}",
        f"{result.database_cpu_each * 1e6:.1f}",
        f"{result.bytes_per_connection / 1024:.1f}",
        f"{result.subscribe_seconds:.2f}",
    )


def _paced(result: StreamResult, pace: float) -> str:
    if pace not in result.paced:
        return "—"
    if not result.keeps(pace):
        return "cannot keep up"
    return f"{result.paced_latency(pace, 0.5) * 1000:.0f} / {result.paced_latency(pace, 0.99) * 1000:.0f}"


def _documents(documents: Documents) -> str:
    head = ("documents in turn", *_REQUESTS, "MiB at rest, since the start")
    rows = []
    for number, results, memory in documents.steps:
        for row, result in zip(_requests(f"{number:,}", results), results, strict=True):
            now, before = memory[result.contestant], documents.memory_before[result.contestant]
            rows.append((*row, f"{now / _MEBIBYTE:.0f}, {(now - before) / _MEBIBYTE:+.0f}"))
    return _table(head, rows)


def _metrics(figures: MetricFigures) -> str:
    rows = [
        (title, f"{engine * 1000:.1f}", f"{hand * 1000:.1f}", f"**{engine / hand:.2f}**", f"{facts * 1000:.1f}")
        for title, engine, hand, facts in figures.questions
    ]
    rows.append(("12 panels of a dashboard, 24 h, one after the other", f"{figures.dashboard * 1000:.1f}", "", "", ""))
    head = (f"{figures.calls:,} tool calls", "ms", "by hand, ms", "it ÷ by hand", "by hand of the facts, ms")
    return f"{_table(head, rows)}\n\nCounted into the rollups: {figures.rolled_per_second:,.0f} facts/s."


def _rate(per_second: float, client_bound: bool) -> str:
    return f"{per_second:,.0f}" + (" (client)" if client_bound else "")


def _numbers(results: list[Result]) -> dict[str, dict[str, Any]]:
    return {
        result.contestant: {
            "perSecond": result.per_second,
            "ratio": ratio(results[0], result),
            "p50": result.latency(0.5),
            "p99": result.latency(0.99),
            "serverCpu": result.server_cpu_each,
            "databaseCpu": result.database_cpu_each,
            "clientBound": result.client_bound,
        }
        for result in results
    }


def _stream_numbers(results: list[StreamResult]) -> dict[str, dict[str, Any]]:
    return {
        result.contestant: {
            "perSecond": result.per_second,
            "p50": result.latency(0.5),
            "p99": result.latency(0.99),
            "paced": {
                f"{pace:.0f}": {
                    "keepsUp": result.keeps(pace),
                    "p50": result.paced_latency(pace, 0.5),
                    "p99": result.paced_latency(pace, 0.99),
                }
                for pace in result.paced
            },
            "serverCpu": result.server_cpu_each,
            "databaseCpu": result.database_cpu_each,
            "clientBound": result.client_bound,
            "bytesPerConnection": result.bytes_per_connection,
            "subscribe": result.subscribe_seconds,
        }
        for result in results
        if result.problem is None
    }


def _table(head: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
