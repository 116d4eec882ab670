"""Reports in the graph."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.errors import NotFound
from core.ids import decode
from core.permissions import Permission
from models import reports as models
from resolvers import reports as reads
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, enum_type, input_type, mutation, nested, object_type, query
from schema.identity import User
from schema.metrics import MetricBucket, MetricConditionInput, MetricRange
from services.reports import definitions
from services.reports.making import expires_at

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."

ReportKind = enum_type(
    models.ReportKind,
    {
        "METRICS": "Series of metrics with their totals: what `metricSeries` gives.",
        "COSTS": "What was spent on what: what `costBreakdown` gives.",
        "FACTS": "The facts themselves, one row each: what `metricRows` gives.",
        "FOCUS": "Costs by day, provider, model and kind of token, as FOCUS 1.2 has cloud bills.",
    },
)
ReportFormat = enum_type(
    models.ReportFormat,
    {
        "CSV": "Comma-separated values in UTF-8, with a head row.",
        "JSON": "One object with `rows`; exact decimals are text.",
        "PDF": "Pages with charts and tables; for METRICS and COSTS.",
    },
)
ReportSchedule = enum_type(
    models.ReportSchedule,
    {"DAILY": "Every day.", "WEEKLY": "On one day of each week.", "MONTHLY": "On one day of each month."},
)
ReportStatus = enum_type(
    models.ReportStatus,
    {
        "QUEUED": "Waits for a worker.",
        "RUNNING": "Is being made.",
        "READY": "Can be downloaded.",
        "FAILED": "Could not be made: `errorMessage` says why.",
    },
)


@entity(models.ReportDefinitionRow)
class ReportDefinition(Node):
    """A report that is made again and again."""

    name: str = column("What it is called.")
    kind: ReportKind = column("What it tells.")
    format: ReportFormat = column("What it is written as.")
    timezone: str = column("The time zone of its range, buckets and timetable.")
    question: JSON = column("What it asks for.")
    schedule: ReportSchedule | None = column("How often it is made by itself; null where only by hand.")
    schedule_hour: int = column("At which hour of the day, in its time zone.")
    schedule_day: int = column("On which day: 1 (Monday) to 7 of the week, or 1 to 28 of the month.")
    next_at: datetime | None = column("When it is made by itself next.")
    problem: str | None = column("Why it is not made by itself any more.")
    created_at: datetime = column("When it was defined.")
    updated_at: datetime = column("When it was changed last.")

    @nested(reads.owner_of_report)
    def owner(self) -> User:
        """In whose name it is made: it tells what they may see."""


@entity(models.ReportRunRow)
class Report(Node):
    """A report that is being made, or was. It is kept for 90 days."""

    name: str = column("What it is called.")
    kind: ReportKind = column("What it tells.")
    format: ReportFormat = column("What it is written as.")
    timezone: str = column("Its time zone.")
    start: datetime = column("Where its range begins.")
    end: datetime = column("Where its range ends; not in it any more.")
    status: ReportStatus = column("Where its making is.")
    scheduled_for: datetime | None = column("The moment of the timetable that it is for; null where made by hand.")
    rows: int | None = column("Rows of its tables.")
    size: int | None = column("Bytes.")
    sha256: str | None = column("SHA-256 of its bytes, hexadecimal.")
    error_code: str | None = column("Why it could not be made, as a code.")
    error_message: str | None = column("Why it could not be made.")
    created_at: datetime = column("When it was asked for.")
    ended_at: datetime | None = column("When it was ready, or had failed.")

    @strawberry.field(description="When it will be removed; null while it is being made.")
    def expires_at(root: Any) -> datetime | None:
        return None if root["ended_at"] is None else expires_at(root["ended_at"])

    @nested(reads.owner_of_report)
    def owner(self) -> User:
        """In whose name it is made."""

    @nested(reads.definition_of_report)
    def definition(self) -> ReportDefinition | None:
        """What it was made by; null where that was removed or is not yours to see."""

    @nested(reads.download_urls)
    def download_url(self) -> str | None:
        """A link that downloads it for 15 minutes without further credentials; null where it is not ready."""


@input_type
class ReportQuestionInput:
    """What a report asks for. Which of these are used depends on its kind."""

    range: MetricRange | None = strawberry.field(
        default=None, description="A range by its name, as of when it is made."
    )
    start: datetime | None = strawberry.field(default=None, name="from", description="Where a fixed range begins.")
    end: datetime | None = strawberry.field(default=None, name="to", description="Where it ends; not in it any more.")
    metrics: list[str] = strawberry.field(default_factory=list, description="METRICS: names of 1 to 12 metrics.")
    fact: str | None = strawberry.field(default=None, description="FACTS: which kind, as in `metricRows`.")
    bucket: MetricBucket | None = strawberry.field(
        default=None, description="METRICS: the width of buckets; null for one that suits the range."
    )
    group_by: list[str] = strawberry.field(
        default_factory=list, description="METRICS and COSTS: up to 3 dimensions, by the names that a filter has."
    )
    filter: list[MetricConditionInput] = strawberry.field(
        default_factory=list, description="Only facts that fulfil all of these."
    )
    top: int | None = strawberry.field(default=None, description="METRICS: only so many groups, the greatest.")
    price_table_id: strawberry.ID | None = strawberry.field(
        default=None, description="COSTS and FOCUS: the prices, `mpt_…`; null for the newest of the organisation."
    )

    def plain(self) -> dict[str, Any]:
        """As the services take it."""
        return {
            "range": self.range,
            "start": self.start,
            "end": self.end,
            "metrics": self.metrics,
            "fact": self.fact,
            "bucket": self.bucket,
            "group_by": self.group_by,
            "filter": {condition.dimension: condition.values for condition in self.filter},
            "top": self.top,
            "price_table": None
            if self.price_table_id is None
            else decode("mpt", self.price_table_id, field="question.priceTableId"),
        }


@input_type
class TimetableInput:
    """When a report is made by itself."""

    schedule: ReportSchedule = strawberry.field(description="How often.")
    hour: int = strawberry.field(default=6, description="At which hour of the day, 0 to 23, in the report's time zone.")
    day: int = strawberry.field(
        default=1, description="WEEKLY: 1 (Monday) to 7. MONTHLY: 1 to 28. DAILY: not looked at."
    )


@input_type
class DefineReportInput:
    """A report to be kept."""

    name: str = strawberry.field(description="What it is called, 1 to 200 characters.")
    kind: ReportKind = strawberry.field(description="What it tells.")
    format: ReportFormat = strawberry.field(description="What it is written as.")
    question: ReportQuestionInput = strawberry.field(description="What it asks for.")
    timezone: str = strawberry.field(default="UTC", description="An IANA time zone, such as Europe/Berlin.")
    timetable: TimetableInput | None = strawberry.field(
        default=None, description="When it is made by itself; null for only by hand."
    )
    recipient_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Users who are told when it is ready, and may download it."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)

    def checked(self) -> definitions.NewReport:
        """What the service takes."""
        return _new_report(self)


@input_type
class ChangeReportInput:
    """A report, defined anew: what is left out is as if it had never been said."""

    report_definition_id: strawberry.ID = strawberry.field(description="The report, `rep_…`.")
    name: str = strawberry.field(description="What it is called, 1 to 200 characters.")
    kind: ReportKind = strawberry.field(description="What it tells.")
    format: ReportFormat = strawberry.field(description="What it is written as.")
    question: ReportQuestionInput = strawberry.field(description="What it asks for.")
    timezone: str = strawberry.field(default="UTC", description="An IANA time zone, such as Europe/Berlin.")
    timetable: TimetableInput | None = strawberry.field(
        default=None, description="When it is made by itself; null for only by hand."
    )
    recipient_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Users who are told when it is ready, and may download it."
    )


@input_type
class ReportDefinitionInput:
    """A definition."""

    report_definition_id: strawberry.ID = strawberry.field(description="Its id, `rep_…`.")


@input_type
class RunReportInput:
    """A report to be made now."""

    report_definition_id: strawberry.ID = strawberry.field(description="Its id, `rep_…`.")
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@object_type
class ReportDefinitionPayload:
    """The definition as it now is."""

    report_definition: ReportDefinition = strawberry.field(description="The definition.")


@object_type
class ReportPayload:
    """A report that is being made."""

    report: Report = strawberry.field(description="The report: ask for it again until it is READY.")


@strawberry.type
class ReportQuery:
    @query(Permission.METRICS_READ)
    async def report_definitions(info: Info, first: First = None, after: After = None) -> Connection[ReportDefinition]:
        """Your reports, the newest first; for admins all of the organisation's."""
        return await reads.definitions(info.context.actor, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def reports(
        info: Info,
        first: First = None,
        after: After = None,
        definition_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only of this definition, `rep_…`.")
        ] = None,
    ) -> Connection[Report]:
        """Reports that were made or are being made, of yours and for you, the newest first."""
        id_ = None if definition_id is None else decode("rep", definition_id, field="definitionId")
        return await reads.reports(info.context.actor, id_, first=first, after=after)


@strawberry.type
class ReportMutation:
    @mutation(Permission.REPORTS_MANAGE)
    async def define_report(info: Info, input: DefineReportInput) -> ReportDefinitionPayload:
        """Keep a report, to be made by its timetable or by `runReport`."""
        row = await definitions.define_report(info.context.actor, input.checked(), key=input.idempotency_key)
        return ReportDefinitionPayload(report_definition=row)

    @mutation(Permission.REPORTS_MANAGE)
    async def change_report(info: Info, input: ChangeReportInput) -> ReportDefinitionPayload:
        """Define a report anew. What was made of it stays."""
        id_ = decode("rep", input.report_definition_id, field="reportDefinitionId")
        return ReportDefinitionPayload(
            report_definition=await definitions.change_report(info.context.actor, id_, _new_report(input))
        )

    @mutation(Permission.REPORTS_MANAGE)
    async def remove_report(info: Info, input: ReportDefinitionInput) -> ReportDefinitionPayload:
        """Make a report no more. What was made of it stays until its time is over."""
        id_ = decode("rep", input.report_definition_id, field="reportDefinitionId")
        return ReportDefinitionPayload(report_definition=await definitions.remove_report(info.context.actor, id_))

    @mutation(Permission.REPORTS_MANAGE)
    async def run_report(info: Info, input: RunReportInput) -> ReportPayload:
        """Make a report now. A worker does it; you are told when it is ready."""
        actor = info.context.actor
        id_ = decode("rep", input.report_definition_id, field="reportDefinitionId")
        row = await reads.report(actor, await definitions.run_report(actor, id_, key=input.idempotency_key))
        if row is None:
            raise NotFound("The report is not there any more.")
        return ReportPayload(report=row)


def _new_report(input: DefineReportInput | ChangeReportInput) -> definitions.NewReport:
    timetable = input.timetable
    return definitions.NewReport(
        name=input.name,
        kind=input.kind,
        format=input.format,
        question=input.question.plain(),
        timezone=input.timezone,
        timetable=None
        if timetable is None
        else definitions.Timetable(timetable.schedule, timetable.hour, timetable.day),
        recipients=[decode("usr", id_, field="recipientIds") for id_ in input.recipient_ids],
    )
