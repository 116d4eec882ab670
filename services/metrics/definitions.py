"""The metrics that there are. Each is one expression over the measures of a family, whatever it is read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from services.metrics.families import FAMILIES, Family


class MetricKind(StrEnum):
    """How a metric's figures come about, and so whether they can be added up."""

    COUNT = "COUNT"
    """How many. Buckets add up to the whole."""
    SUM = "SUM"
    """How much. Buckets add up to the whole; null where nothing is known."""
    RATE = "RATE"
    """How much in a second or an hour, on the average of the bucket."""
    RATIO = "RATIO"
    """A part of the whole, 0 to 1; null where there is no whole."""
    PERCENTILE = "PERCENTILE"
    """A value that so many of all do not exceed, within 5 %; null without any."""
    MEAN = "MEAN"
    """The average of what was measured; null without any."""
    GAUGE = "GAUGE"
    """How much there was at a time, on the average of the bucket's samples."""


@dataclass(frozen=True)
class Metric:
    """A metric. `value` and `count` are SQL over sums of the family's measures; `{seconds}` is the bucket's length."""

    name: str
    title: str
    description: str
    unit: str
    """By UCUM, as OpenTelemetry has it: ms, By, {token}, 1, …; and USD."""
    kind: MetricKind
    family: Family
    value: str
    count: str
    """How many facts a figure is made of."""
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What the facts of `count` have in common: the filter that gives them one by one."""
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The facts that there is anything to count in; part of every question."""
    quantile: float | None = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What it can be filtered and grouped by."""
        own = [name for name in self.family.dimensions if name not in self.only]
        derived = [name for name, (base, _) in DERIVED.items() if base in own]
        return tuple(sorted([*own, *derived]))

    @property
    def fact(self) -> str:
        """The kind of facts that it is made of, as models.metrics.FACTS has it."""
        return self.family.facts

    @property
    def adds_up(self) -> bool:
        """Whether the figures of buckets and groups add up to that of the whole."""
        return self.kind in (MetricKind.COUNT, MetricKind.SUM)


SAMPLE_SECONDS = 15
"""From one sample of resources to the next."""

DERIVED = {
    "team": ("user", "SELECT user_id::text AS base, team_id::text AS derived FROM team_members"),
    "template": (
        "template_version",
        "SELECT id::text AS base, template_id::text AS derived FROM session_template_versions",
    ),
}
"""Dimensions that are looked up when they are asked for: that which they follow from, and how. Whoever is in two teams
counts in both."""

_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_ALL_TOKENS = (
    f"CASE WHEN num_nonnulls({', '.join(f'sum({each})' for each in _TOKENS)}) > 0 "
    f"THEN {' + '.join(f'coalesce(sum({each}), 0)' for each in _TOKENS)} END"
)


def _metrics() -> list[Metric]:
    tool, usage, run, wait = FAMILIES["tool"], FAMILIES["usage"], FAMILIES["run"], FAMILIES["wait"]
    message, session = FAMILIES["message"], FAMILIES["session"]
    kind = MetricKind
    failed: Mapping[str, Sequence[str]] = {"outcome": ("FAILED",)}
    found = [
        Metric(
            "sessions.created",
            "Sessions begun",
            "Sessions that were created or forked.",
            "{session}",
            kind.COUNT,
            session,
            "sum(created)",
            "sum(created)",
            rows={"change": ("CREATED",)},
        ),
        Metric(
            "sessions.duration",
            "Time to the end of sessions",
            "From a session's creation to its completion, failure or termination, on the average.",
            "ms",
            kind.MEAN,
            session,
            "sum(duration_ms) / nullif(sum(timed), 0)",
            "sum(timed)",
            rows={"change": ("COMPLETED", "FAILED", "TERMINATED")},
        ),
        Metric("runs.count", "Runs", "Runs that ended.", "{run}", kind.COUNT, run, "sum(runs)", "sum(runs)"),
        Metric(
            "runs.failed",
            "Failed runs",
            "Runs that ended as FAILED. Those that were interrupted are not among them.",
            "{run}",
            kind.COUNT,
            run,
            "sum(failed)",
            "sum(failed)",
            rows=failed,
        ),
        Metric(
            "runs.error_rate",
            "Share of failed runs",
            "Failed runs among all that ended.",
            "1",
            kind.RATIO,
            run,
            "sum(failed)::float8 / nullif(sum(runs), 0)",
            "sum(runs)",
        ),
        Metric(
            "tools.calls",
            "Tool calls",
            "Tool calls that came to an end, denied and interrupted ones included.",
            "{call}",
            kind.COUNT,
            tool,
            "sum(calls)",
            "sum(calls)",
        ),
        Metric(
            "tools.failed",
            "Failed tool calls",
            "Tool calls that ended as FAILED.",
            "{call}",
            kind.COUNT,
            tool,
            "sum(failed)",
            "sum(failed)",
            rows=failed,
        ),
        Metric(
            "tools.error_rate",
            "Share of failed tool calls",
            "Failed tool calls among all that ended.",
            "1",
            kind.RATIO,
            tool,
            "sum(failed)::float8 / nullif(sum(calls), 0)",
            "sum(calls)",
        ),
        Metric(
            "messages.count",
            "Messages",
            "Messages of people and agents.",
            "{message}",
            kind.COUNT,
            message,
            "sum(messages)",
            "sum(messages)",
        ),
        Metric(
            "requests.count",
            "Requests to models",
            "Requests that were made to providers of models.",
            "{request}",
            kind.COUNT,
            usage,
            "sum(requests)",
            "sum(uses)",
        ),
        *(
            Metric(
                f"tokens.{name}",
                f"{title} tokens",
                f"Tokens that were {what}; null where no provider says.",
                "{token}",
                kind.SUM,
                usage,
                f"sum({name}_tokens)",
                "sum(uses)",
            )
            for name, title, what in (
                ("input", "Input", "sent to models, neither read from a cache nor written to one"),
                ("output", "Output", "made by models"),
                ("cache_read", "Cache read", "read from a provider's cache"),
                ("cache_write", "Cache write", "written to a provider's cache"),
            )
        ),
        Metric(
            "tokens.total",
            "Tokens",
            "Tokens of all four kinds; null where no provider says.",
            "{token}",
            kind.SUM,
            usage,
            _ALL_TOKENS,
            "sum(uses)",
        ),
        Metric(
            "tokens.per_second",
            "Tokens in a second",
            "Tokens of all four kinds in a second, on the average of the bucket.",
            "{token}/s",
            kind.RATE,
            usage,
            f"({_ALL_TOKENS})::float8 / {{seconds}}",
            "sum(uses)",
        ),
        Metric(
            "cost.usd",
            "Cost",
            "What models cost as recorded when they were used; null where no price was known.",
            "USD",
            kind.SUM,
            usage,
            "sum(cost_usd)",
            "sum(uses)",
        ),
        Metric(
            "cost.per_hour",
            "Cost in an hour",
            "What models cost in an hour, on the average of the bucket.",
            "USD/h",
            kind.RATE,
            usage,
            "sum(cost_usd) * 3600 / {seconds}::numeric",
            "sum(uses)",
        ),
    ]
    for prefix, what, family in (
        ("runs.duration", "Duration of runs", run),
        ("tools.duration", "Duration of tool calls", tool),
    ):
        found += [_percentile(f"{prefix}_p{percent}", what, family, percent) for percent in (50, 95, 99)]
    found.append(_percentile("runs.queue_p95", "Time of runs in the queue", wait, 95))
    found += [
        _gauge(
            "sessions.active",
            "Active sessions",
            "Sessions that work or wait for somebody.",
            "{session}",
            "sessions_active",
        ),
        _gauge("queue.depth", "Queue", "Runs that wait for a worker.", "{run}", "queue_depth"),
        _gauge("sockets.open", "Open sockets", "WebSockets of clients, at all web processes.", "{socket}", "sockets"),
        _resource(
            "sandbox.cpu_seconds",
            "Processor time",
            "Processor time of what runs in sandboxes.",
            "s",
            kind.SUM,
            "cpu_seconds",
            "sum(total)",
        ),
        _resource(
            "sandbox.memory_bytes",
            "Memory",
            "Memory of what runs in a sandbox, on the average of the samples.",
            "By",
            kind.MEAN,
            "memory_bytes",
            "sum(total) / nullif(sum(samples), 0)",
        ),
        _resource(
            "sandbox.disk_bytes",
            "Disk",
            "What a session keeps in its directory, on the average of the samples.",
            "By",
            kind.MEAN,
            "disk_bytes",
            "sum(total) / nullif(sum(samples), 0)",
        ),
    ]
    return found


def _percentile(name: str, what: str, family: Family, percent: int) -> Metric:
    return Metric(
        name,
        f"{what}, {percent} %",
        f"{what}: {percent} % take at most so long, within 5 %.",
        "ms",
        MetricKind.PERCENTILE,
        family,
        "",
        f"sum({family.binned})",
        quantile=percent / 100,
    )


def _gauge(name: str, title: str, description: str, unit: str, resource: str) -> Metric:
    # A sample stands for the time to the next one, and there is none where there is nothing: so hosts add up.
    value = f"sum(total) * {SAMPLE_SECONDS} / {{seconds}}"
    return _resource(name, title, description, unit, MetricKind.GAUGE, resource, value)


def _resource(
    name: str, title: str, description: str, unit: str, kind: MetricKind, resource: str, value: str
) -> Metric:
    return Metric(
        name,
        title,
        description,
        unit,
        kind,
        FAMILIES["resource"],
        value,
        "sum(samples)",
        rows={"resource": (resource,)},
        only={"resource": (resource,)},
    )


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _metrics()}
"""By name."""
