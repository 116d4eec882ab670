"""The tables of a bench, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import rooms
from bench.measure import Result, StreamResult, quantile, ratio


@dataclass
class Growth:
    """How one kind of request grows: the rows or subscribers, and what each contestant did with them."""

    title: str
    unit: str
    steps: list[tuple[int, list[Result]]] = field(default_factory=list)


@dataclass
class Report:
    """What was measured."""

    machine: str
    data: str
    requests: list[tuple[str, str, list[Result]]] = field(default_factory=list)
    """Key, title, and results; the product's first."""
    growths: list[Growth] = field(default_factory=list)
    streams: list[tuple[int, list[StreamResult]]] = field(default_factory=list)
    statements: list[tuple[str, int, int]] = field(default_factory=list)
    """What was asked, in its small and in its large form, and the statements of each."""
    rooms: list[rooms.Together] = field(default_factory=list)
    work: dict[str, float] = field(default_factory=dict)
    """Runs a second of one worker, and its CPU milliseconds a run."""

    def markdown(self) -> str:
        """The tables."""
        parts = [f"{self.machine} {self.data}"]
        if self.requests:
            parts.append(self._requests())
        if self.streams:
            parts.append(self._streams())
        if self.rooms:
            parts.append(_table(rooms.HEAD, [rooms.row(result) for result in self.rooms]))
        parts += [self._growth(growth) for growth in self.growths]
        if self.statements:
            parts.append(self._statements())
        if self.work:
            parts.append(
                f"One worker, web idle: {self.work['per_second']:.0f} runs/s from the queue to the answer, "
                f"{self.work['worker_ms']:.1f} ms of CPU in the worker and {self.work['database_ms']:.1f} ms in the "
                "database each."
            )
        return "\n\n".join(parts) + "\n"

    def plain(self) -> dict[str, Any]:
        """The numbers, for programs."""
        return {
            "requests": {
                key: {
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
                for key, _, results in self.requests
            },
            "streams": {
                str(subscribers): {
                    result.contestant: {
                        "perSecond": result.per_second,
                        "paced": [len(paced.latencies) / paced.seconds for paced in result.paced],
                        "p99": quantile(_paced_latencies(result), 0.99),
                        "bytesPerConnection": result.saturated[0].bytes_per_connection,
                    }
                    for result in results
                }
                for subscribers, results in self.streams
            },
            "rooms": {result.stream: result.plain() for result in self.rooms},
            "statements": [list(found) for found in self.statements],
            "work": self.work,
        }

    def _requests(self) -> str:
        rows = []
        for key, title, results in self.requests:
            ours = results[0]
            for result in results:
                of_it = "—" if result is ours else f"**{ratio(ours, result):.2f}**"
                rows.append(
                    (
                        f"{key} {title}" if result is ours else "",
                        result.contestant,
                        of_it,
                        f"{result.per_second:,.0f}" + (" (client)" if result.client_bound else ""),
                        f"{result.latency(0.5) * 1000:.1f} / {result.latency(0.99) * 1000:.1f}",
                        f"{result.server_cpu_each * 1000:.2f}",
                        f"{result.database_cpu_each * 1000:.2f}",
                    )
                )
        head = (
            "request",
            "served by",
            "Quarterdeck ÷ it",
            "requests/s",
            "p50 / p99 ms",
            "server CPU ms",
            "database CPU ms",
        )
        return _table(head, rows)

    def _streams(self) -> str:
        rows = []
        for subscribers, results in self.streams:
            ours = results[0]
            for result in results:
                first = result.saturated[0]
                latencies = [value for streamed in result.saturated for value in streamed.latencies]
                paced = _paced_latencies(result)
                delivered = sum(streamed.delivered for streamed in result.saturated)
                cpu = sum(streamed.server_cpu_seconds for streamed in result.saturated)
                client = sum(streamed.client_cpu_seconds / streamed.seconds for streamed in result.saturated)
                bound = client / len(result.saturated) >= 0.9
                pace = sum(s.per_second for s in result.paced) / len(result.paced)
                rows.append(
                    (
                        f"{subscribers:,} subscribers of one session" if result is ours else "",
                        result.contestant,
                        "—" if result is ours else f"**{ours.per_second / result.per_second:.2f}**",
                        f"{result.per_second:,.0f}" + (" (client)" if bound else ""),
                        f"{quantile(latencies, 0.5) * 1000:.0f} / {quantile(latencies, 0.99) * 1000:.0f}",
                        f"{quantile(paced, 0.5) * 1000:.0f} / {quantile(paced, 0.99) * 1000:.0f} at {pace:,.0f}/s",
                        f"{cpu / delivered * 1e6:.0f}",
                        f"{first.bytes_per_connection / 1024:.0f}",
                        f"{first.subscribe_seconds:.1f}",
                    )
                )
        head = (
            "stream",
            "served by",
            "Quarterdeck ÷ it",
            "delivered/s",
            "p50 / p99 ms at full speed",
            "p50 / p99 ms at a pace",
            "server CPU µs each",
            "KiB a connection",
            "s to subscribe all",
        )
        return _table(head, rows)

    def _growth(self, growth: Growth) -> str:
        names = [result.contestant for result in growth.steps[0][1]]
        head = (growth.title, *(f"{name}: requests/s, CPU ms (server + database)" for name in names))
        rows = [
            (
                f"{size:,} {growth.unit}",
                *(
                    f"{result.per_second:,.0f}, {result.server_cpu_each * 1000:.2f} + "
                    f"{result.database_cpu_each * 1000:.2f}"
                    for result in results
                ),
            )
            for size, results in growth.steps
        ]
        return _table(head, rows)

    def _statements(self) -> str:
        rows = [(what, str(small), str(large)) for what, small, large in self.statements]
        return _table(("SQL statements of one request", "small", "large"), rows)


def _paced_latencies(result: StreamResult) -> list[float]:
    return [value for streamed in result.paced for value in streamed.latencies]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
