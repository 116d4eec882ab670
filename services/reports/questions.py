"""What a report tells: checked where it is asked for, stored as JSON, checked again when it is made."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from core.errors import BadInput
from models.metrics import FACTS
from models.reports import ReportFormat, ReportKind
from services.costs.questions import CostQuestion
from services.metrics.calendar import BucketName, RangeName, range_of
from services.metrics.labels import to_table
from services.metrics.questions import Question, check, check_range, checked_filter
from services.runs.storable import check_storable

MOST_METRICS = 12

_FITTING = {
    ReportKind.METRICS: frozenset(ReportFormat),
    ReportKind.COSTS: frozenset(ReportFormat),
    ReportKind.FACTS: frozenset({ReportFormat.CSV, ReportFormat.JSON}),
    ReportKind.FOCUS: frozenset({ReportFormat.CSV, ReportFormat.JSON}),
}
_USED = {
    ReportKind.METRICS: {"metrics", "bucket", "group_by", "filter", "top"},
    ReportKind.COSTS: {"group_by", "filter", "price_table"},
    ReportKind.FACTS: {"fact", "filter"},
    ReportKind.FOCUS: {"filter", "price_table"},
}


class ReportQuestion(BaseModel):
    """What is asked, whatever the kind of report; values of dimensions are as the graph has them, ids as TypeIDs."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    range: RangeName | None = None
    start: datetime | None = None
    end: datetime | None = None
    metrics: tuple[str, ...] = Field((), max_length=MOST_METRICS)
    fact: str | None = None
    bucket: BucketName | None = None
    group_by: tuple[str, ...] = Field((), max_length=3)
    filter: dict[str, tuple[str | None, ...]] = Field(default_factory=dict, max_length=10)
    top: int | None = None
    price_table: UUID | None = None

    def stored(self) -> dict[str, Any]:
        """The JSON to store."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def span(self, zone: ZoneInfo, at: datetime) -> tuple[datetime, datetime]:
        """The range that is meant at a moment. Raises BadInput."""
        if (self.range is None) == (self.start is None and self.end is None):
            raise BadInput("Name a range, or give both `from` and `to`.", field="range")
        if self.range is not None:
            return range_of(self.range, zone, at)
        if self.start is None or self.end is None:
            raise BadInput("Give both `from` and `to`, or name a range.", field="to")
        if wrong := check_range(self.start, self.end):
            raise BadInput.of_fields(wrong)
        return self.start, self.end

    def series(self, metric: str, start: datetime, end: datetime, zone: str) -> Question:
        """The question for one metric's series."""
        return Question(
            metric,
            start,
            end,
            bucket=self.bucket,
            timezone=zone,
            filter=self.filter,
            group_by=self.group_by,
            top=self.top,
        )

    def costs(self, start: datetime, end: datetime, *, group_by: tuple[str, ...] | None = None) -> CostQuestion:
        """The question for a breakdown of costs, by these dimensions or by the report's own."""
        return CostQuestion(
            start,
            end,
            self.group_by if group_by is None else group_by,
            self._filter_of_costs(),
            self.price_table,
        )

    def _filter_of_costs(self) -> dict[str, list[str | None]]:
        return {
            name: [None if value is None else to_table(name, value, field="filter") for value in values]
            for name, values in self.filter.items()
        }


def load_question(stored: dict[str, Any]) -> ReportQuestion:
    """A question as it was stored."""
    return ReportQuestion.model_validate(stored)


def check_question(
    given: dict[str, Any], kind: ReportKind, format_: ReportFormat, zone: ZoneInfo, now: datetime
) -> ReportQuestion:
    """A question from a client's input (snake_case). Raises BadInput with all that is wrong."""
    check_storable(given, field="question")
    try:
        question = ReportQuestion.model_validate(given)
    except ValidationError as error:
        raise BadInput.of_fields(
            [
                (".".join(to_camel(str(part)) for part in item["loc"]) or "question", item["msg"])
                for item in error.errors()
            ]
        ) from None
    problems: list[tuple[str, str]] = []
    if format_ not in _FITTING[kind]:
        problems.append(("format", f"{kind} reports are written as {' or '.join(sorted(_FITTING[kind]))}."))
    unused = sorted(question.model_fields_set - _USED[kind] - {"range", "start", "end"})
    problems += [
        (to_camel(name), f"{kind} reports do not take this.")
        for name in unused
        if getattr(question, name) not in (None, (), {})
    ]
    if kind is ReportKind.METRICS and not question.metrics:
        problems.append(("metrics", "Name at least one metric; `metrics` lists them all."))
    if kind is ReportKind.FACTS and question.fact not in FACTS:
        problems.append(("fact", f"Name a kind of fact: {', '.join(FACTS)}."))
    if problems:
        raise BadInput.of_fields(problems)
    start, end = question.span(zone, now)
    match kind:
        case ReportKind.METRICS:
            for metric in question.metrics:
                check(question.series(metric, start, end, zone.key), now)
        case ReportKind.COSTS | ReportKind.FOCUS:
            question.costs(start, end)
        case ReportKind.FACTS:
            assert question.fact is not None
            checked_filter(question.fact, question.filter)
    return question
