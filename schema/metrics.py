"""Metrics in the graph: what there is, series, the facts behind them, and figures of now, live."""

from __future__ import annotations

from collections.abc import AsyncIterable
from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.errors import BadInput
from core.permissions import Permission
from models import metrics as models
from resolvers import metrics as reads
from resolvers import sessions
from schema.connections import After, Connection, First
from schema.fields import Info, column, enum_type, input_type, nested, object_type, query, subscription
from schema.scalars import Cursor
from schema.sessions import Run, Session, ToolExecution
from services.metrics import calendar, definitions, live, questions
from services.metrics.charts import ChartKind as _ChartKind
from services.metrics.charts import chart
from services.metrics.engine import scope_of
from services.metrics.questions import Question
from services.metrics.rows import RowsQuestion
from services.metrics.series import series
from subscriptions.metrics_live import LiveMetrics

MetricKind = enum_type(
    definitions.MetricKind,
    {
        "COUNT": "How many. The values of buckets add up to that of the range.",
        "SUM": "How much. The values of buckets add up to that of the range; null where nothing is known.",
        "RATE": "How much in a second or an hour, on the average of the bucket.",
        "RATIO": "A part of the whole, 0 to 1; null where there is no whole.",
        "PERCENTILE": "What so many of all values do not exceed, within 5 %; null where there are none.",
        "MEAN": "The average of what was measured; null where nothing was.",
        "GAUGE": "How much there was, on the average of the bucket's samples.",
    },
)
MetricBucket = enum_type(
    calendar.BucketName,
    {
        "MINUTE": "60 seconds.",
        "FIVE_MINUTES": "5 minutes.",
        "FIFTEEN_MINUTES": "15 minutes.",
        "HOUR": "60 minutes, from the zone's full hour.",
        "DAY": "From one midnight of the zone to the next: 23 or 25 hours where clocks are changed.",
        "WEEK": "From Monday to Monday, at midnight of the zone.",
        "MONTH": "A month of the calendar, at midnight of the zone.",
    },
    name="MetricBucket",
)
MetricRange = enum_type(
    calendar.RangeName,
    {
        "LAST_HOUR": "60 minutes, with the one that it is now.",
        "LAST_24_HOURS": "24 full hours, with the one that it is now.",
        "LAST_7_DAYS": "7 days of the zone, with today.",
        "LAST_30_DAYS": "30 days of the zone, with today.",
        "LAST_90_DAYS": "90 days of the zone, with today.",
        "TODAY": "From midnight of the zone until now.",
        "THIS_WEEK": "From Monday until now.",
        "THIS_MONTH": "From the first of the month until now.",
        "LAST_MONTH": "The month before this one.",
    },
    name="MetricRange",
)
MetricFill = enum_type(
    questions.Fill,
    {
        "NULL": "Null.",
        "ZERO": "0. Buckets that have not begun stay null.",
        "PREVIOUS": "The value before; null until there is one. Totals are those of the values that there are.",
    },
    name="MetricFill",
)
MetricCompare = enum_type(
    questions.Compare,
    {"NONE": "With nothing.", "PREVIOUS_PERIOD": "With as many buckets before; with the month before for months."},
    name="MetricCompare",
)
ChartKind = enum_type(
    _ChartKind,
    {
        "AUTO": "What suits: columns for what adds up, lines for the rest, bars without time for one bucket.",
        "LINE": "A line for each group.",
        "COLUMN": "Columns by time, with the groups on top of each other.",
        "BAR": "The totals, a bar for each group.",
    },
)
MetricSource = enum_type(
    models.FactSource,
    {"QUARTERDECK": "From the log of sessions.", "OTLP": "From outside, by OpenTelemetry."},
    name="MetricSource",
)


@object_type
class MetricLevel:
    """What figures are read from. Those of wider levels are counted of the same facts, and come to the same."""

    level: str = column("`RAW` for facts one by one, or `MINUTE`, `HOUR`, `DAY` for what is counted of them.")
    kept_days: int | None = column("How many days it is kept; null for ever.")


@object_type
class Metric:
    """Something that is counted or measured."""

    name: str = column("What it is asked for by.")
    title: str = column("What to write above it.")
    description: str = column("What it is.")
    unit: str = column("Its unit, as UCUM has it: `ms`, `{token}`, `1` for a part of a whole; and `USD`.")
    kind: MetricKind = column("How its values come about.")
    dimensions: list[str] = column("What it can be filtered and grouped by.")

    @strawberry.field(description="What it is read from, and how long that is kept.")
    def levels(root: Any) -> list[MetricLevel]:
        return reads.levels_of(root)

    @strawberry.field(description="The kind of facts that it is made of: `fact` of `metricRows`.")
    def fact(root: Any) -> str:
        return root.family.facts  # type: ignore[no-any-return]


@object_type
class MetricLabel:
    """A value of a dimension."""

    dimension: str = column("Which dimension.")
    value: str | None = column("The value; an id for users, teams, templates and sessions; null where there is none.")
    name: str | None = column("What to show for it; null where there is none, or you may not see it.")


@object_type
class MetricCondition:
    """Values of a dimension, as a filter takes them."""

    dimension: str = column("Which dimension.")
    values: list[str | None] = column("The values; null for facts that have none.")


@object_type
class MetricRowsBehind:
    """What `metricRows` takes to list the facts that a value was made of."""

    fact: str = column("The kind of facts.")
    from_: datetime = column("Begin of the range.", name="start", field="from")
    to: datetime = column("End of the range; not in it any more.", name="end")
    filter: list[MetricCondition] = column("Their labels.")


@object_type
class MetricPoint:
    """The value of one bucket, or of what the range has of it."""

    at: datetime = column("When it begins.")
    end: datetime = column("When it ends.")
    value: float | None = column("The value; null where there is none, or too few people are behind it.")
    previous: float | None = column(
        "The value of the bucket in this place of the range before, where it was asked for."
    )
    rows: MetricRowsBehind | None = column("What lists the facts behind it; null for the rest of the groups.")


@object_type
class MetricGroup:
    """The values of those with the same labels."""

    labels: list[MetricLabel] = column("Their labels, in the order of `groupBy`; none for the rest, and for the whole.")
    points: list[MetricPoint] = column("By time.")
    total: float | None = column(
        "The value of the whole range: the sum of the points where they add up, else computed of all of it."
    )
    previous_total: float | None = column("The same of the range before, where it was asked for.")


@object_type
class MetricMergedLabels:
    """Names of a dimension for which there was no room (`labelDimensions`) are put together under one label: a group
    with this label is of many names, and a figure of one name may lack what was counted under it."""

    dimension: str = column("Which dimension of the question.")
    label: str = column("What they are counted under.")
    facts: int = column("How many facts of the range have it, of those that fulfil the filter; people left aside.")


@object_type
class MetricSeries:
    """A metric by time, and by labels."""

    metric: Metric = column("What it is.")
    level: str = column("What was read: the widest of `RAW`, `MINUTE`, `HOUR` and `DAY`.")
    bucket: MetricBucket = column("The width of the points.")
    timezone: str = column("The zone of days.")
    from_: datetime = column("Begin of the range.", name="start", field="from")
    to: datetime = column("End of the range; not in it any more.", name="end")
    previous_from: datetime | None = column("Begin of the range before.", name="previous_start")
    previous_to: datetime | None = column("End of the range before.", name="previous_end")
    groups: list[MetricGroup] = column(
        "The greatest first; users and teams by name. One, without labels, where it is not grouped."
    )
    rest: MetricGroup | None = column("All other groups together; null where there are none, or it cannot be said.")
    omitted_groups: int = column("Teams that have values, and are neither shown nor in the rest.")
    watermark: datetime | None = column(
        "Everything of sessions before this moment is in here; null before there is any."
    )
    merged_labels: list[MetricMergedLabels] = column(
        "Of which dimensions that it filters or groups by names were put together; none where each stands for itself.",
        name="merged",
    )


@object_type
class MetricMeasure:
    """An amount of a fact."""

    name: str = column("What: `duration_ms`, `input_tokens`, …")
    value: float = column("How much.")


@object_type
class MetricFact:
    """One fact that metrics are made of: a tool call, a run, a model's use, … that ended."""

    fact: str = column("Its kind.")
    at: datetime = column("When it was.")
    source: MetricSource = column("Where it is from.")
    recorded_at: datetime = column("When it was stored.")
    conventions: str | None = column("The version of OpenTelemetry's semantic conventions that it came by.")

    @nested(reads.labels_of_rows)
    def labels(self) -> list[MetricLabel]:
        """What it is told apart by; not whose it is."""

    @strawberry.field(description="Its amounts, as far as they are known.")
    def measures(root: Any) -> list[MetricMeasure]:
        return reads.measures_of(root)

    @nested(sessions.session_of)
    def session(self) -> Session | None:
        """The session it happened in; null where it is from outside."""

    @nested(sessions.run_of)
    def run(self) -> Run | None:
        """The run it was part of."""

    @nested(sessions.tool_execution_of)
    def tool_execution(self) -> ToolExecution | None:
        """The tool execution that it tells of; null for other facts."""


@object_type
class MetricValue:
    """A figure at an instant."""

    metric: str = column("Of which metric.")
    unit: str = column("Its unit.")
    value: float | None = column("The figure; null where there is nothing to make it of.")


@object_type
class MetricSnapshot:
    """Figures of one instant."""

    at: datetime = column("The instant.")
    window_seconds: int = column("How long before it is counted, in seconds.")
    values: list[MetricValue] = column("One for each metric, in the order they were asked for.")


@object_type
class MetricTick:
    """Figures of now, live."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    at: datetime = column("The instant.")
    window_seconds: int = column("How long before it is counted, in seconds.")
    values: list[MetricValue] = column("One for each metric, in the order they were asked for.")


@input_type
class MetricConditionInput:
    """Facts with one of these values of a dimension."""

    dimension: str = strawberry.field(description="Which dimension: one of the metric's `dimensions`.")
    values: list[str | None] = strawberry.field(
        description="1 to 100 values: ids for users, teams, templates and sessions; null for facts that have none."
    )


Name = Annotated[str, strawberry.argument(description="Which metric: one of `metrics`.")]
Filter = Annotated[
    list[MetricConditionInput] | None, strawberry.argument(description="Only facts that fulfil all of these.")
]
GroupBy = Annotated[
    list[str] | None, strawberry.argument(description="A series for each of these: up to 3 dimensions.")
]
BucketOf = Annotated[
    MetricBucket | None, strawberry.argument(description="The width of the points; left out for one that suits.")
]
From = Annotated[
    datetime | None,
    strawberry.argument(name="from", description="Begin of the range, with its time zone; or give `range`."),
]
To = Annotated[
    datetime | None, strawberry.argument(description="End of the range, not in it any more; left out for now.")
]
RangeOf = Annotated[MetricRange | None, strawberry.argument(description="A range by its name, instead of `from`.")]
Zone = Annotated[
    str, strawberry.argument(description="The IANA name of the zone that days begin in, such as `Europe/Berlin`.")
]
FillBy = Annotated[
    MetricFill | None,
    strawberry.argument(description="What stands in gaps; left out for zero where values add up, else null."),
]
Top = Annotated[
    int | None,
    strawberry.argument(description="How many groups to give, 1 to 50, the greatest; 10 where it is left out."),
]
CompareWith = Annotated[MetricCompare, strawberry.argument(description="What to compare with.")]
Metrics = Annotated[
    list[str] | None,
    strawberry.argument(
        description="Up to 20 of `metrics`, or `runs.running`; left out for what a dashboard shows. `sessions.active` "
        "and `queue.depth` are what there was at the instant."
    ),
]
Window = Annotated[int, strawberry.argument(description="How many seconds before the instant are counted, 1 to 3,600.")]


def conditions(given: list[MetricConditionInput] | None) -> dict[str, list[str | None]]:
    """A filter by its dimensions. Raises BadInput where one comes twice."""
    found = {each.dimension: each.values for each in given or ()}
    if len(found) < len(given or ()):
        raise BadInput("Name each dimension once, with all its values.", field="filter")
    return found


@strawberry.type
class MetricQuery:
    @query(Permission.METRICS_READ)
    async def metrics(info: Info) -> list[Metric]:
        """What is counted and measured, by name."""
        return reads.metrics()

    @query(Permission.METRICS_READ)
    async def metric_series(
        info: Info,
        metric: Name,
        filter: Filter = None,
        group_by: GroupBy = None,
        bucket: BucketOf = None,
        from_: From = None,
        to: To = None,
        range: RangeOf = None,
        timezone: Zone = "UTC",
        fill: FillBy = None,
        top: Top = None,
        compare: CompareWith = questions.Compare.NONE,
    ) -> MetricSeries:
        """A metric by time: of your own sessions; for admins of the organisation. At most 1,500 points."""
        asked = Question(
            metric, from_, to, range, bucket, timezone, conditions(filter), group_by or (), fill, top, compare
        )
        return await series(info.context.actor, asked)

    @query(Permission.METRICS_READ)
    async def metric_chart(
        info: Info,
        metric: Name,
        filter: Filter = None,
        group_by: GroupBy = None,
        bucket: BucketOf = None,
        from_: From = None,
        to: To = None,
        range: RangeOf = None,
        timezone: Zone = "UTC",
        fill: FillBy = None,
        top: Top = None,
        compare: CompareWith = questions.Compare.NONE,
        kind: Annotated[ChartKind, strawberry.argument(description="How to draw it.")] = _ChartKind.AUTO,
    ) -> JSON:
        """The same as a Vega-Lite specification with its data, for any program that draws these: the dashboard and the
        reports draw it, too."""
        asked = Question(
            metric, from_, to, range, bucket, timezone, conditions(filter), group_by or (), fill, top, compare
        )
        return chart(await series(info.context.actor, asked), kind=kind)

    @query(Permission.METRICS_READ)
    async def metric_rows(
        info: Info,
        fact: Annotated[str, strawberry.argument(description="The kind of facts: a metric's `fact`.")],
        from_: Annotated[datetime, strawberry.argument(name="from", description="Begin of the range.")],
        to: Annotated[datetime, strawberry.argument(description="End of the range; not in it any more.")],
        filter: Filter = None,
        first: First = None,
        after: After = None,
    ) -> Connection[MetricFact]:
        """The facts behind a value, the latest first: those that your figures are made of, in sessions that you may
        see. A point's `rows` says what to pass."""
        asked = RowsQuestion(fact, from_, to, conditions(filter))
        return await reads.metric_rows(info.context.actor, asked, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def metrics_now(
        info: Info,
        metrics: Metrics = None,
        at: Annotated[
            datetime | None, strawberry.argument(description="The instant; left out for the latest that is known.")
        ] = None,
        window_seconds: Window = live.WINDOW_SECONDS,
    ) -> MetricSnapshot:
        """How things stand: what `metricsLive` tells, at one instant."""
        chosen = live.check(metrics if metrics is not None else live.USUAL, window_seconds)
        return await live.snapshot(scope_of(info.context.actor), chosen, at or await live.newest(), window_seconds)


@strawberry.type
class MetricSubscription:
    @subscription(Permission.METRICS_READ)
    def metrics_live(
        info: Info,
        metrics: Metrics = None,
        every: Annotated[int, strawberry.argument(description="How many seconds apart, 1 to 300.")] = 1,
        window_seconds: Window = live.WINDOW_SECONDS,
        after: Annotated[
            Cursor | None, strawberry.argument(description="Go on after this cursor; what was missed is not told.")
        ] = None,
    ) -> AsyncIterable[MetricTick]:
        """How things stand, again and again: of your own sessions; for admins of the organisation. All who ask for the
        same share one computation."""
        return LiveMetrics(info.context.actor, metrics, every, window_seconds, after)
