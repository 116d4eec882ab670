"""`/metrics`: how this process does, in Prometheus' text format. docs/metrics.md lists every one.

What is counted elsewhere is read when somebody asks; on the way of a request there are plain counters only.
Source: Prometheus' exposition formats, and its naming conventions.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.http.traffic import Traffic
from core import db
from core.settings import Settings
from models.base import Row
from schema.execution import Graph
from schema.streams import Live
from services.metrics.resources import Sampler, sockets
from services.parts import parts

LAG_EVERY_SECONDS = 0.25
RUNS_EVERY_SECONDS = 5.0
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_RUNS = "SELECT status, count(*) AS count FROM runs WHERE status IN ('QUEUED', 'RUNNING', 'WAITING') GROUP BY status"


class Metrics(Collector):
    """The metrics of one web process."""

    def __init__(self, graph: Graph, live: Live, settings: Settings) -> None:
        self._graph, self._live, self._token = graph, live, settings.metrics_token
        self.traffic = Traffic()
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._lag = Histogram(
            "quarterdeck_event_loop_lag_seconds",
            "How much later than asked for the event loop came back.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
            registry=self._registry,
        )
        self._runs: dict[str, int] | None = None
        self._runs_at = -math.inf
        self._reading_runs = asyncio.Lock()
        self._registry.register(self)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Measure the event loop's lag, and the organisations' sockets, while the context is open."""
        task = asyncio.create_task(self._watch())
        sampler = Sampler([sockets(self.traffic.sockets_of)], place=parts().executor_id)
        sampler.start()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, sampler.stop(), return_exceptions=True)

    async def answer(self, request: Request) -> Response:
        """The metrics, for whoever may read them."""
        if refusal := self._refusal(request):
            return refusal
        await self._read_runs()
        return Response(
            generate_latest(self._registry),
            headers={"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"},
        )

    def collect(self) -> Iterator[Metric]:
        """What the parts of this process say of themselves."""
        yield from self._of_graph()
        yield from self._of_streams()
        yield from self._of_doors()
        yield from self._of_bus()
        yield from self._of_database()

    def _refusal(self, request: Request) -> Response | None:
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and hmac.compare_digest(
                given.strip().encode(), self._token.get_secret_value().encode()
            ):
                return None
            return PlainTextResponse(
                "Send `Authorization: Bearer TOKEN` with the token of QUARTERDECK_METRICS_TOKEN.\n",
                401,
                {"www-authenticate": "Bearer"},
            )
        # A proxy on this machine is a client of this machine, whoever is behind it.
        if _is_loopback(request) and not any(name in request.headers for name in _FORWARDED):
            return None
        return PlainTextResponse(
            "Without QUARTERDECK_METRICS_TOKEN, metrics are for programs of the same machine only.\n", 403
        )

    async def _watch(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(LAG_EVERY_SECONDS)
            self._lag.observe(max(0.0, time.perf_counter() - started - LAG_EVERY_SECONDS))

    async def _read_runs(self) -> None:
        """At most one statement every few seconds, however many ask."""
        async with self._reading_runs:
            if time.monotonic() - self._runs_at < RUNS_EVERY_SECONDS:
                return
            self._runs_at = time.monotonic()
            try:
                async with asyncio.timeout(2):
                    rows = await db.fetch(_RUNS, row=Row)
            except Exception:
                self._runs = None  # an old number would be taken for a new one
            else:
                self._runs = {"QUEUED": 0, "RUNNING": 0, "WAITING": 0} | {row["status"]: row["count"] for row in rows}

    def _of_graph(self) -> Iterator[Metric]:
        graph = self._graph
        operations = CounterMetricFamily(
            "quarterdeck_operations",
            "Operations and events of subscriptions that were executed, by what executed them and why.",
            labels=["executor", "reason"],
        )
        operations.add_metric(["plan", ""], graph.planned + self._live.executed)
        for reason, count in sorted(graph.fallbacks.items()):
            operations.add_metric(["graphql_core", reason], count)
        yield operations
        outcomes = CounterMetricFamily(
            "quarterdeck_operation_outcomes",
            "What executions came to: ok, or with errors in the response.",
            labels=["outcome"],
        )
        for outcome in ("ok", "errors"):
            outcomes.add_metric([outcome], graph.outcomes[outcome])
        yield outcomes
        gauges = [
            GaugeMetricFamily(f"quarterdeck_{name}", words, labels=["kind"])
            for name, words in (
                ("documents_cached", "Parsed and validated documents in memory."),
                ("documents_cached_characters", "Their length, in characters."),
                ("plans_cached", "Compiled operations in memory."),
                ("plans_cached_fields", "Their weight, in fields."),
            )
        ]
        for kind, kept in graph.kept().items():
            for gauge, value in zip(gauges, (kept.documents, kept.characters, kept.plans, kept.weight), strict=True):
                gauge.add_metric([kind], value)
        yield from gauges
        ids = GaugeMetricFamily(
            "quarterdeck_document_ids_known", "Ids that stand for a document in memory.", labels=["kind"]
        )
        ids.add_metric(["registered"], len(graph.persisted.registered))
        ids.add_metric(["automatic"], len(graph.persisted.automatic))
        yield ids

    def _of_streams(self) -> Iterator[Metric]:
        live = self._live
        yield GaugeMetricFamily("quarterdeck_streams_open", "Subscriptions that are being followed.", live.open_now)
        yield GaugeMetricFamily("quarterdeck_streams_sharing", "Those of them that share an execution.", live.joined)
        yield GaugeMetricFamily("quarterdeck_stream_groups", "Executions that are shared.", live.groups)
        yield CounterMetricFamily("quarterdeck_stream_events_executed", "Events that were executed.", live.executed)
        yield CounterMetricFamily("quarterdeck_stream_events_delivered", "Events given to clients.", live.delivered)

    def _of_doors(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "quarterdeck_http_requests", "HTTP requests that have ended, by door and status.", labels=["door", "status"]
        )
        for (door, status), count in sorted(self.traffic.requests.items()):
            requests.add_metric([door, str(status) if status else "none"], count)
        yield requests
        yield GaugeMetricFamily("quarterdeck_sockets_open", "Open WebSockets.", self.traffic.sockets)

    def _of_bus(self) -> Iterator[Metric]:
        bus = parts().bus.status()
        yield GaugeMetricFamily("quarterdeck_bus_connected", "1 where the bus is connected.", int(bus.connected))
        yield CounterMetricFamily("quarterdeck_bus_reconnects", "How often it was connected again.", bus.reconnects)
        yield GaugeMetricFamily("quarterdeck_bus_channels", "Channels that somebody here listens to.", bus.channels)
        yield GaugeMetricFamily("quarterdeck_bus_subscribers", "Who listens here.", bus.subscribers)

    def _of_database(self) -> Iterator[Metric]:
        if db.is_connected():
            pool = db.pool()
            connections = GaugeMetricFamily(
                "quarterdeck_database_connections", "Connections of the pool, by state.", labels=["state"]
            )
            connections.add_metric(["idle"], pool.idle)
            connections.add_metric(["busy"], pool.size - pool.idle)
            yield connections
            yield GaugeMetricFamily("quarterdeck_database_connections_max", "Most that the pool opens.", pool.largest)
            yield GaugeMetricFamily("quarterdeck_database_waiting", "Callers that wait for a connection.", pool.waiting)
        if self._runs is not None:
            runs = GaugeMetricFamily(
                "quarterdeck_runs", "Runs of the whole installation that have not ended, by status.", labels=["status"]
            )
            for status, count in self._runs.items():
                runs.add_metric([status.lower()], count)
            yield runs


def _is_loopback(request: Request) -> bool:
    try:
        address = ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
