"""Questions for series of metrics: what may be asked, and what is said where it may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from zoneinfo import ZoneInfo

from core.errors import BadInput, QuarterdeckError
from services.metrics import calendar
from services.metrics.calendar import BUCKETS, Bucket, BucketName, RangeName
from services.metrics.definitions import METRICS, Metric
from services.metrics.families import Level
from services.metrics.labels import to_table
from services.metrics.retention import kept

MOST_POINTS = 1500
MOST_POINTS_OF_GROUPS = 30_000
GROUPS = 10
MOST_GROUPS = 50
MOST_DIMENSIONS = 3
MOST_VALUES = 100
LONGEST_VALUE = 400
LONGEST = timedelta(days=3660)


class Fill(StrEnum):
    """What stands where nothing was."""

    NULL = "NULL"
    ZERO = "ZERO"
    PREVIOUS = "PREVIOUS"


class Compare(StrEnum):
    """What a series is compared with."""

    NONE = "NONE"
    PREVIOUS_PERIOD = "PREVIOUS_PERIOD"


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it is asked: values of dimensions as the graph has them, ids as TypeIDs."""

    metric: str
    start: datetime | None = None
    end: datetime | None = None
    range: RangeName | None = None
    bucket: BucketName | None = None
    """None for one that suits the range."""
    timezone: str = "UTC"
    filter: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """None among the values stands for facts that have none."""
    group_by: Sequence[str] = ()
    fill: Fill | None = None
    """None for zero where values are added up, and for null elsewhere."""
    top: int | None = None
    compare: Compare = Compare.NONE


@dataclass(frozen=True, slots=True)
class Range:
    """A range with its buckets: `edges` are one more than there are."""

    start: datetime
    end: datetime
    edges: Sequence[datetime]


@dataclass(frozen=True, slots=True)
class Checked:
    """A question that can be answered."""

    metric: Metric
    current: Range
    previous: Range | None
    bucket: BucketName
    zone: ZoneInfo
    filter: Mapping[str, Sequence[str | None]]
    """Values as the tables have them."""
    group_by: tuple[str, ...]
    fill: Fill
    top: int
    ranked: bool
    """Whether the greatest were asked for."""

    @property
    def is_additive(self) -> bool:
        """Whether the values of buckets add up to that of the range."""
        return self.metric.adds_up


def check(question: Question, now: datetime) -> Checked:
    """The question, checked. Raises BadInput with all that is wrong at once."""
    problems: list[tuple[str, str]] = []
    metric = METRICS.get(question.metric)
    if metric is None:
        problems.append(("metric", f"There is no metric {_shown(question.metric)}.{_near(question.metric, METRICS)}"))
    zone = ZoneInfo("UTC")
    try:
        zone = calendar.zone_of(question.timezone)
    except BadInput as error:
        problems.append(("timezone", error.message))
    found = _range(question, zone, now, problems)
    _check_dimensions(metric, question, problems)
    filter_ = _filter(question.filter, problems)
    top = question.top if question.top is not None else GROUPS
    if not 1 <= top <= MOST_GROUPS:
        problems.append(("top", f"`top` is 1 to {MOST_GROUPS}."))
    if metric is None or found is None or problems:
        raise _refusal(problems)
    start, end = found
    bucket = question.bucket or calendar.automatic(start, end)
    current = _cut(start, end, bucket, zone)
    if (points := len(current.edges) - 1) * (top if question.group_by else 1) > MOST_POINTS_OF_GROUPS:
        raise BadInput(
            f"{top} groups of {points} points are more than {MOST_POINTS_OF_GROUPS}. Ask for fewer by `top`, or "
            "take a wider bucket.",
            field="top",
        )
    _check_kept(start, bucket, question, now)
    previous = None
    if question.compare is Compare.PREVIOUS_PERIOD:
        name = question.range
        previous = _cut(*calendar.previous(start, end, BUCKETS[bucket], zone, name), bucket, zone)
    fill = question.fill or (Fill.ZERO if metric.adds_up else Fill.NULL)
    return Checked(
        metric, current, previous, bucket, zone, filter_, tuple(question.group_by), fill, top, question.top is not None
    )


def checked_filter(fact: str, asked: Mapping[str, Sequence[str | None]]) -> dict[str, list[str | None]]:
    """A filter of the rows of one kind of fact, as the tables have it. Raises BadInput."""
    known = dimensions_of(fact)
    problems = [
        ("filter", f"{fact} has no dimension {_shown(name)}.{_near(name, known)}")
        for name in asked
        if name not in known
    ]
    filter_ = _filter(asked, problems)
    if problems:
        raise _refusal(problems)
    return filter_


def dimensions_of(fact: str) -> list[str]:
    """All dimensions of a kind of fact."""
    return sorted({name for metric in METRICS.values() if metric.family.facts == fact for name in metric.dimensions})


def check_range(start: datetime, end: datetime) -> list[tuple[str, str]]:
    """What is wrong with a range."""
    if end <= start:
        return [("to", "`to` must be later than `from`.")]
    if end - start > LONGEST:
        return [("from", f"That is {(end - start).days:,} days; at most {LONGEST.days:,} can be asked for.")]
    return []


def _range(
    question: Question, zone: ZoneInfo, now: datetime, problems: list[tuple[str, str]]
) -> tuple[datetime, datetime] | None:
    if question.range is not None:
        if question.start is not None or question.end is not None:
            problems.append(("range", "Give either `range`, or `from` and `to`."))
            return None
        return calendar.range_of(question.range, zone, now)
    if question.start is None:
        problems.append(("from", "Give `from` and `to`, or a `range` such as LAST_7_DAYS."))
        return None
    start, end = question.start.astimezone(UTC), (question.end or max(now, question.start)).astimezone(UTC)
    wrong = check_range(start, end)
    problems.extend(wrong)
    return None if wrong else (start, end)


def _check_dimensions(metric: Metric | None, question: Question, problems: list[tuple[str, str]]) -> None:
    if len(question.group_by) > MOST_DIMENSIONS or len(set(question.group_by)) < len(question.group_by):
        problems.append(("groupBy", f"Group by at most {MOST_DIMENSIONS} different dimensions."))
    if metric is None:
        return
    for where, names in (("groupBy", question.group_by), ("filter", question.filter)):
        for name in names:
            if name not in metric.dimensions:
                said = f"{metric.name} has no dimension {_shown(name)}.{_near(name, metric.dimensions)}"
                problems.append((where, f"{said} It has {', '.join(sorted(metric.dimensions))}."))


def _filter(asked: Mapping[str, Sequence[str | None]], problems: list[tuple[str, str]]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for dimension, values in asked.items():
        if not 1 <= len(values) <= MOST_VALUES:
            problems.append(("filter", f"Give 1 to {MOST_VALUES} values of {_shown(dimension)}."))
        elif any(value is not None and len(value) > LONGEST_VALUE for value in values):
            problems.append(("filter", f"A value of {_shown(dimension)} has at most {LONGEST_VALUE} characters."))
        else:
            try:
                found[dimension] = [
                    None if value is None else to_table(dimension, value, field="filter") for value in values
                ]
            except QuarterdeckError as error:
                problems.append(("filter", error.message))
    return found


def _cut(start: datetime, end: datetime, bucket: BucketName, zone: ZoneInfo) -> Range:
    """The range in buckets; raises BadInput where there are too many, with the bucket that would do."""
    wanted = BUCKETS[bucket]
    points = _points(start, end, wanted)
    if points > MOST_POINTS:
        fits = next(name for name in BucketName if _points(start, end, BUCKETS[name]) <= MOST_POINTS)
        raise BadInput(
            f"That is {points:,} points; at most {MOST_POINTS:,} are given. Take `bucket: {fits}` or wider.",
            field="bucket",
            points=points,
            suggestedBucket=fits.value,
        )
    return Range(start, end, calendar.edges(start, end, wanted, zone))


def _points(start: datetime, end: datetime, bucket: Bucket) -> int:
    return -(-(end - start) // bucket.longest)


def _check_kept(start: datetime, bucket: BucketName, question: Question, now: datetime) -> None:
    """Raises BadInput where what is fine enough for the bucket is not kept any more."""
    widest = BUCKETS[bucket].longest
    raw_only = "session" in {*question.filter, *question.group_by}
    longest = timedelta(0)
    for level in Level:
        if level.width <= widest and not (raw_only and level is not Level.RAW):
            lasts = kept(level)
            if lasts is None:
                return
            longest = max(longest, lasts)
    if start < now - longest - timedelta(days=1):
        raise BadInput(
            f"What is fine enough for this is kept for {longest.days} days, and `from` is earlier. "
            f"Take a later `from`{'' if raw_only else ', or a wider bucket'}.",
            field="from" if raw_only else "bucket",
            keptDays=longest.days,
        )


def _near(name: str, known: Mapping[str, object] | Sequence[str] | frozenset[str]) -> str:
    near = get_close_matches(name[:60], list(known), 3, 0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "…")


def _refusal(problems: Sequence[tuple[str, str]]) -> BadInput:
    if len(problems) == 1:
        return BadInput(problems[0][1], field=problems[0][0])
    return BadInput.of_fields(problems)


def unknown_metric(name: str, *, field: str) -> BadInput:
    """The refusal of a metric that is none."""
    return BadInput(f"There is no metric {_shown(name)}.{_near(name, METRICS)}", field=field)


def without(checked: Checked, *dimensions: str) -> Checked:
    """The same question without conditions on some dimensions."""
    return replace(checked, filter={name: values for name, values in checked.filter.items() if name not in dimensions})
