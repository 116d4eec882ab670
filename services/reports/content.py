"""What reports tell, as tables: the same figures that the graph gives, by the same functions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from core import db
from core.clock import moment
from core.errors import BadInput
from core.ids import encode
from core.permissions import Actor
from models.base import Query
from models.metrics import COMMON_COLUMNS, FACTS
from models.reports import ReportKind
from services.costs.breakdown import Breakdown, CostGroup, break_down
from services.costs.rates import KINDS
from services.costs.whose import HIDDEN
from services.metrics import rows as fact_rows
from services.metrics.labels import Names
from services.metrics.people import PEOPLE_DIMENSIONS, people_of
from services.metrics.series import Group, Series, series
from services.reports.focus import focus_table
from services.reports.questions import ReportQuestion
from services.reports.tables import Table

BATCH = 2000
_IDS = {
    "session_id": "ses",
    "run_id": "run",
    "user_id": "usr",
    "template_version_id": "tpv",
}


async def table_of(
    actor: Actor, kind: ReportKind, question: ReportQuestion, start: datetime, end: datetime, zone: ZoneInfo
) -> Table:
    """The report as a table, made as it is read. Raises what the questions raise, and BadInput where facts that it
    would be made of have been dropped: a bill shall not look complete when it is not."""
    if kind is not ReportKind.METRICS:
        await _check_kept(actor, "usage" if question.fact is None else question.fact, start)
    match kind:
        case ReportKind.METRICS:
            return _metrics_table(question, await metrics_of(actor, question, start, end, zone), start, end, zone)
        case ReportKind.COSTS:
            found = await break_down(actor, question.costs(start, end))
            return await _costs_table(actor, question, found)
        case ReportKind.FOCUS:
            return await focus_table(actor, question, start, end)
        case ReportKind.FACTS:
            return await _facts_table(actor, question, start, end)


async def _check_kept(actor: Actor, facts: str, start: datetime) -> None:
    # Days are kept for longer: they tell whether the organisation had any of what has been dropped for all.
    dropped = await db.fetchval(
        "SELECT dropped_before FROM metric_retention raw WHERE facts = $1 AND level = 'RAW' AND dropped_before > $2 "
        "AND (EXISTS (SELECT FROM metric_retention WHERE facts = $1 AND level = 'DAY' AND dropped_before > $2) "
        f"OR EXISTS (SELECT FROM {facts}_days WHERE organization_id = $3 AND at < raw.dropped_before "
        "AND at >= date_bin('1 day', $2, '2000-01-01T00:00:00Z')))",
        facts,
        start,
        actor.organization_id,
    )
    if dropped is not None:
        raise BadInput(
            f"Facts from before {moment(dropped)} have been dropped, and the range begins earlier. "
            "Take one that begins then or later.",
            field="question.from",
            completeSince=moment(dropped),
        )


async def metrics_of(
    actor: Actor, question: ReportQuestion, start: datetime, end: datetime, zone: ZoneInfo
) -> list[Series]:
    """The series of a report, in the order in which its metrics are named."""
    return [await series(actor, question.series(metric, start, end, zone.key)) for metric in question.metrics]


def head_of(kind: ReportKind, start: datetime, end: datetime, zone: str) -> dict[str, Any]:
    """What a report is of."""
    return {"kind": kind.value, "from": moment(start), "to": moment(end), "timezone": zone}


def _metrics_table(
    question: ReportQuestion, found: Sequence[Series], start: datetime, end: datetime, zone: ZoneInfo
) -> Table:
    labels = [column for name in question.group_by for column in (name, f"{name}_name")]

    async def batches() -> AsyncIterator[Sequence[Sequence[Any]]]:
        for one in found:
            groups = [*one.groups, *([one.rest] if one.rest is not None else [])]
            for group in groups:
                yield [
                    ["BUCKET", one.metric.name, one.metric.unit, point.at, point.end, *_labels(one, group), point.value]
                    for point in group.points
                ]
            yield [
                ["TOTAL", one.metric.name, one.metric.unit, one.start, one.end, *_labels(one, group), group.total]
                for group in groups
            ]

    columns = ["row", "metric", "unit", "from", "to", *labels, "value"]
    return Table(columns, batches(), head_of(ReportKind.METRICS, start, end, zone.key))


def _labels(one: Series, group: Group) -> list[str | None]:
    if group is one.rest:
        return ["(others)", None] * len(one.group_by)
    return [cell for label in group.labels for cell in (label.value, label.name)]


def _named(names: Names, dimension: str, label: str | None) -> tuple[str | None, str | None]:
    """A label of costs with its name. All who may not be told apart have one together."""
    if label == HIDDEN and dimension in PEOPLE_DIMENSIONS:
        return "(others)", None
    found = names.label(dimension, label)
    return found.value, found.name


async def _costs_table(actor: Actor, question: ReportQuestion, found: Breakdown) -> Table:
    dimensions = question.group_by
    names = await Names.of(actor, dimensions, [group.labels for group in found.groups])
    usd = [f"{kind}_usd" for kind in KINDS]
    tokens = [f"{kind}_tokens" for kind in KINDS]
    columns = [
        "row",
        *(column for name in dimensions for column in (name, f"{name}_name")),
        *usd,
        "total_usd",
        *tokens,
        "requests",
        "unpriced_tokens",
        "recorded_usd",
    ]

    def row(what: str, group: CostGroup, labels: Sequence[str | None]) -> list[Any]:
        amounts = group.amounts
        return [
            what,
            *labels,
            *(amounts.usd[kind] for kind in KINDS),
            amounts.total,
            *(group.tokens[kind] for kind in KINDS),
            group.requests,
            amounts.unpriced_tokens,
            group.recorded_usd,
        ]

    async def batches() -> AsyncIterator[Sequence[Sequence[Any]]]:
        for begin in range(0, len(found.groups), BATCH):
            rows = []
            for group in found.groups[begin : begin + BATCH]:
                cells = [_named(names, *each) for each in zip(dimensions, group.labels, strict=True)]
                rows.append(row("GROUP", group, [cell for both in cells for cell in both]))
            yield rows
        none = [None] * (2 * len(dimensions))
        if found.count > len(found.groups):
            yield [row("OTHERS", found.total.minus(found.groups), none)]
        yield [row("TOTAL", found.total, none)]

    head = head_of(ReportKind.COSTS, found.question.start, found.question.end, "UTC")
    return Table(columns, batches(), head | {"priceTable": encode("mpt", found.table["id"])})


async def _facts_table(actor: Actor, question: ReportQuestion, start: datetime, end: datetime) -> Table:
    """The facts themselves, read by a cursor. Whoever may not be named is left out of the column, not of the rows."""
    assert question.fact is not None
    fact = question.fact
    asked = fact_rows.RowsQuestion(fact, start, end, question.filter)
    filter_ = await fact_rows.checked(actor, asked)
    named = (await people_of(actor)).named()
    columns = [*COMMON_COLUMNS, *FACTS[fact]]
    query = Query()
    where = " AND ".join(fact_rows.conditions(actor, asked, filter_, query))
    table = f"{fact}_facts"
    statement = f"SELECT {', '.join(columns)} FROM {table} WHERE {where} ORDER BY {table}.at, {table}.id"

    def cell(name: str, value: Any) -> Any:
        if value is None or (name == "user_id" and value not in named):
            return None
        return encode(_IDS[name], value) if name in _IDS else value

    async def batches() -> AsyncIterator[Sequence[Sequence[Any]]]:
        async with db.acquire() as connection, connection.transaction(readonly=True):
            # A million rows take longer than a request may.
            await connection.execute("SET LOCAL statement_timeout = 0")
            cursor = await connection.cursor(statement, *query.args)
            while rows := await cursor.fetch(BATCH):
                yield [[cell(name, row[name]) for name in columns] for row in rows]

    return Table(columns, batches(), head_of(ReportKind.FACTS, start, end, "UTC") | {"fact": fact})
