"""Reads metrics: from days, hours and minutes that are counted already as far as a question allows, else from facts.
What comes from where does not change what comes out.

A question is one statement. Of the rollups it reads what lies between full buckets, with what waits in line to be
counted; of the facts what is left at both ends. Buckets are cut by the edges that calendar.py gives, so days have 23
and 25 hours where they should.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple
from uuid import UUID

from core import db
from core.clock import moment
from core.errors import BadInput
from core.permissions import Actor
from models.base import Row
from services.metrics.calendar import Bucket, edges, floor, zone_of
from services.metrics.definitions import DERIVED, METRICS, Metric, MetricKind
from services.metrics.families import FAMILIES, ROLLED, Dimensions, Family, Level, middle_of
from services.metrics.rollups import added_up, quantile_in
from services.metrics.statements import Asked, Piece, Statement, base, statement

REST = "\0rest"
"""The label of what `top` leaves out. PostgreSQL stores no such text, so no label is like it."""

MOST_POINTS = 20_000
MOST_GROUPED_BY = 4

Filter = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class MetricScope:
    """Whose facts are read: an organisation's, or of some of its users."""

    organization_id: UUID
    user_ids: Sequence[UUID] | None = None


def scope_of(actor: Actor) -> MetricScope:
    """Admins read all of their organisation's, all others their own."""
    if actor.is_admin:
        return MetricScope(actor.organization_id)
    return MetricScope(actor.organization_id, [] if actor.user_id is None else [actor.user_id])


class MetricPoint(NamedTuple):
    """A figure. `at` is where its bucket begins; `count` is how many facts it is made of."""

    at: datetime
    labels: tuple[str | None, ...]
    value: float | None
    count: int  # type: ignore[assignment]  # tuples have a method of this name


_point = partial(tuple.__new__, MetricPoint)
"""Of a tuple, in half of the time."""


@dataclass(frozen=True, slots=True)
class MetricRows:
    """Figures by time and labels. There are none where there are no facts."""

    level: Level
    """The widest buckets that were read."""
    rows: Sequence[MetricPoint]
    whole: Sequence[MetricPoint] = ()
    """Those of the whole range, by labels, where they were asked for."""


def metric_of(name: str, *, field: str = "metric") -> Metric:
    """The metric of a name; BadInput, with those that are spelt alike, where there is none."""
    if name in METRICS:
        return METRICS[name]
    near = get_close_matches(name[:60], METRICS, 3, 0.5)
    advice = f" Did you mean {', '.join(near)}?" if near else ""
    raise BadInput(f"There is no metric {name[:60]!r}.{advice} `metrics` lists them all.", field=field)


async def read(
    scope: MetricScope,
    metric: str,
    *,
    start: datetime,
    end: datetime,
    bucket: Bucket | None = None,
    timezone: str = "UTC",
    filter: Filter | None = None,
    group_by: Sequence[str] = (),
    top: int | None = None,
    whole: bool = False,
) -> MetricRows:
    """A metric from `start` to before `end`, by buckets (None: one for all of it) and by dimensions.

    `top` keeps the so many groups with the most, over all of the range, and puts the others together as REST. `whole`
    reads the figures of the whole range, too. Labels and filters of users, teams, templates and their versions are
    uuids as text; None is the label of what has none.

    Raises BadInput for a metric, a dimension or a zone that does not exist, for an empty range, for too many points,
    and where what it would be made of has been dropped.
    """
    found = metric_of(metric)
    filter = filter or {}
    _check(found, start, end, filter, group_by)
    cuts = _Cuts.of(start, end, bucket, timezone)
    question = _Question(found, scope, tuple(group_by), filter, top, whole)
    level, said, args = question.statement(cuts, await _kept_since(found.family.facts))
    if level is Level.RAW:
        # What is best depends on how long the range is.
        rows = await db.fetch_by_its_own_plan(said.sql, *args, row=Row)
    else:
        rows = await db.fetch(said.sql, *args)
    return question.points(level, said, rows, cuts)


async def value(
    scope: MetricScope, metric: str, *, start: datetime, end: datetime, filter: Filter | None = None
) -> float | None:
    """A metric over all of a range; None where there is nothing to make it of (a count is 0 then)."""
    rows = (await read(scope, metric, start=start, end=end, filter=filter)).rows
    if rows:
        return rows[0].value
    return 0.0 if METRICS[metric].kind is MetricKind.COUNT else None


@dataclass(frozen=True, slots=True)
class _Cuts:
    """How a range is cut into buckets: not at all, evenly from `first` on, or at edges that a calendar gives."""

    start: datetime
    end: datetime
    kind: Literal["whole", "even", "edges"] = "whole"
    width: timedelta = timedelta(0)
    first: datetime = datetime.min
    edges: Sequence[datetime] = ()

    @classmethod
    def of(cls, start: datetime, end: datetime, bucket: Bucket | None, timezone: str) -> _Cuts:
        """Raises BadInput for too many points, and for a zone that does not exist."""
        start, end, zone = start.astimezone(UTC), end.astimezone(UTC), zone_of(timezone)
        if bucket is None:
            return cls(start, end)
        most = BadInput(
            f"That is more than {MOST_POINTS:,} points. Take a wider bucket, or a shorter range.", field="bucket"
        )
        if bucket.width is not None and (not bucket.is_of_days or timezone == "UTC"):
            if (end - start) / bucket.width > MOST_POINTS:
                raise most
            return cls(start, end, "even", bucket.width, floor(start, bucket, zone).astimezone(UTC))
        try:
            return cls(start, end, "edges", edges=edges(start, end, bucket, zone, most=MOST_POINTS))
        except ValueError:
            raise most from None

    def fits(self, level: Level) -> bool:
        """Whether no bucket of a level is cut in two, but for those at both ends."""
        if self.kind == "even":
            return not self.width % level.width and _down(self.first, level) == self.first
        return all(_down(edge, level) == edge for edge in self.edges[1:-1])

    def is_of(self, level: Level) -> bool:
        """Whether the buckets are those of a level."""
        return self.kind == "even" and self.width == level.width and _down(self.first, level) == self.first

    def begins(self, edges: list[Any]) -> list[datetime]:
        """Where the buckets begin of a statement's rows, given in their order."""
        if self.kind == "whole":
            return [self.start] * len(edges)
        if self.kind == "edges":
            return [self.edges[edge - 1] for edge in edges]
        if not edges or edges[0] >= self.start:
            return edges
        return [edge if edge > self.start else self.start for edge in edges]

    def seconds(self, at: datetime) -> float:
        """How long the bucket is that begins there."""
        if self.kind == "whole":
            end = self.end
        elif self.kind == "even":
            end = min(at + self.width - (at - self.first) % self.width, self.end)
        else:
            end = self.edges[bisect_right(self.edges, at)]
        return (end - at).total_seconds()


def _levels(
    family: Family, wanted: frozenset[str], cuts: _Cuts, kept: Mapping[Level, datetime]
) -> Iterator[tuple[Level, Dimensions]]:
    """What can be read for a question, widest first: the levels whose buckets are cut by no edge and that are kept by
    the dimensions that are wanted, and for so long; up to one that leaves nothing at the ends."""
    for level, dimensions in _covering(family.name, wanted):
        first, last = _up(cuts.start, level), _down(cuts.end, level)
        if first < last and kept.get(level, _ALWAYS) <= first and cuts.fits(level):
            yield level, dimensions
            if first == cuts.start and last == cuts.end:
                return


@lru_cache(1000)
def _covering(family: str, wanted: frozenset[str]) -> Sequence[tuple[Level, Dimensions]]:
    """The levels that are kept by some dimensions, widest first, and what else they are kept by."""
    found = [(level, FAMILIES[family].covering(level, wanted)) for level in ROLLED]
    return [(level, dimensions) for level, dimensions in found if dimensions is not None]


def _segments(
    start: datetime, end: datetime, usable: Sequence[tuple[Level, Dimensions]]
) -> Iterator[tuple[Level, Dimensions, datetime, datetime]]:
    """The range in pieces, each of the widest level that fits."""
    if start >= end:
        return
    if not usable:
        yield Level.RAW, (), start, end
        return
    level, dimensions = usable[0]
    first, last = _up(start, level), _down(end, level)
    if first >= last:
        yield from _segments(start, end, usable[1:])
        return
    yield from _segments(start, first, usable[1:])
    yield level, dimensions, first, last
    yield from _segments(last, end, usable[1:])


class _Question:
    """What is asked."""

    def __init__(
        self,
        metric: Metric,
        scope: MetricScope,
        group_by: tuple[str, ...],
        filter: Filter,
        top: int | None,
        whole: bool,
    ) -> None:
        self.metric, self.scope, self.group_by, self.whole = metric, scope, group_by, whole
        self.top = top if group_by else None
        self.filter = dict(filter) | dict(metric.only)
        if scope.user_ids is not None:
            users = [str(id_) for id_ in scope.user_ids]
            if "user" in self.filter:
                users = [user for user in users if user in self.filter["user"]]
            self.filter["user"] = users
        self.wanted = frozenset(base(name) for name in (*group_by, *self.filter))

    def statement(self, cuts: _Cuts, kept: Mapping[Level, datetime]) -> tuple[Level, Statement, list[Any]]:
        """The widest level that is read, and the statement with its values."""
        usable = list(_levels(self.metric.family, self.wanted, cuts, kept))
        pieces = list(_segments(cuts.start, cuts.end, usable))
        _check_kept(pieces, kept)
        asked = Asked(
            self.metric.name,
            self.group_by,
            tuple((name, None in values) for name, values in self.filter.items()),
            self.top is not None,
            self.whole and cuts.kind != "whole",
            tuple(Piece(level, dimensions, cuts.is_of(level)) for level, dimensions, _, _ in pieces),
            cuts.kind,
        )
        # In the order in which statements.py numbers them.
        args: list[Any] = [self.scope.organization_id]
        if cuts.kind == "even":
            args += [cuts.width, cuts.first]
        elif cuts.kind == "edges":
            args.append(list(cuts.edges[:-1]))
        for _, _, start, end in pieces:
            args += [start, end]
        for name, values in self.filter.items():
            known = [each for each in values if each is not None]
            is_id = name not in DERIVED and self.metric.family.dimensions[name].is_id
            args.append(_uuids(known) if is_id else known)
        if self.top is not None:
            args.append(self.top)
        said = statement(asked)
        if said.is_bin:
            args.append(self.metric.quantile)
        return min((piece.level for piece in asked.pieces), key=_WIDEST.index), said, args

    def points(self, level: Level, said: Statement, rows: Sequence[Any], cuts: _Cuts) -> MetricRows:
        """What a statement's rows come to."""
        if said.is_packed:
            return self._unpacked(level, rows, cuts)
        of_buckets = len(rows)
        while of_buckets and rows[of_buckets - 1][0] is None:
            of_buckets -= 1
        found = self._points(said, rows[:of_buckets], cuts)
        if not self.whole or cuts.kind == "whole":
            return MetricRows(level, found, found if self.whole else ())
        return MetricRows(level, found, self._points(said, rows[of_buckets:], _Cuts(cuts.start, cuts.end)))

    def _points(self, said: Statement, rows: Sequence[Any], cuts: _Cuts) -> list[MetricPoint]:
        # Column by column: a row of many costs half of what it does one by one.
        begins = cuts.begins([row[0] for row in rows])
        labels = self._labels(rows)
        if self.top is not None:
            rest = (REST,) * len(self.group_by)
            labels = [rest if row["rest"] else each for row, each in zip(rows, labels, strict=True)]
        values = [row["value"] for row in rows]
        counts = [row["count"] for row in rows] if said.has_count else values
        if not said.has_count:
            values = list(map(float, values))
        elif said.is_bin:
            values = [middle_of(value) for value in values]
        elif "{seconds}" in self.metric.value:
            values = [
                None if value is None else value / cuts.seconds(at) for at, value in zip(begins, values, strict=True)
            ]
        return list(map(_point, zip(begins, labels, values, counts, strict=True)))

    def _unpacked(self, level: Level, rows: Sequence[Any], cuts: _Cuts) -> MetricRows:
        """The percentiles of histograms."""
        begins: list[datetime] = []
        groups: list[tuple[str | None, ...]] = []
        histograms: list[list[int]] = []
        last: tuple[datetime | None, tuple[str | None, ...]] = (None, ())
        for at, labels, row in zip(cuts.begins([row[0] for row in rows]), self._labels(rows), rows, strict=True):
            if at == last[0] and labels == last[1]:
                histograms[-1] = added_up((histograms[-1], row["histogram"]))
            else:
                last = at, labels
                begins.append(at)
                groups.append(labels)
                histograms.append(row["histogram"])
        found = self._percentiles(begins, groups, histograms)
        if not self.whole:
            return MetricRows(level, found)
        by_labels: dict[tuple[str | None, ...], list[list[int]]] = {}
        for labels, histogram in zip(groups, histograms, strict=True):
            by_labels.setdefault(labels, []).append(histogram)
        over_all = [added_up(each) for each in by_labels.values()]
        return MetricRows(level, found, self._percentiles([cuts.start] * len(over_all), by_labels, over_all))

    def _percentiles(
        self, begins: Iterable[datetime], labels: Iterable[tuple[str | None, ...]], histograms: Sequence[Sequence[int]]
    ) -> list[MetricPoint]:
        quantile = self.metric.quantile
        assert quantile is not None
        found = [quantile_in(histogram, quantile) for histogram in histograms]
        values = [middle_of(bin_) for bin_, _ in found]
        return list(map(_point, zip(begins, labels, values, [count for _, count in found], strict=True)))

    def _labels(self, rows: Sequence[Any]) -> list[tuple[str | None, ...]]:
        end = 1 + len(self.group_by)
        return [row[1:end] for row in rows] if end > 1 else [()] * len(rows)


_WIDEST = [*ROLLED, Level.RAW]
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _down(at: datetime, level: Level) -> datetime:
    return _EPOCH + (at - _EPOCH) // level.width * level.width


def _up(at: datetime, level: Level) -> datetime:
    return _EPOCH - (_EPOCH - at) // level.width * level.width


def _uuids(texts: Sequence[str]) -> list[str]:
    found = []
    for text in texts:
        try:
            found.append(str(UUID(text)))
        except ValueError:
            continue  # nothing has such an id
    return found


def _check(metric: Metric, start: datetime, end: datetime, filter: Filter, group_by: Sequence[str]) -> None:
    if end <= start:
        raise BadInput("The range is empty: its end must be later than its start.", field="range")
    problems = []
    for field, names in (("filter", list(filter)), ("groupBy", list(group_by))):
        for name in names:
            if name not in metric.dimensions:
                known = ", ".join(metric.dimensions)
                problems.append((field, f"{metric.name} has no dimension {name[:60]!r}; it has {known}."))
    if len(set(group_by)) != len(group_by) or len(group_by) > MOST_GROUPED_BY:
        problems.append(("groupBy", f"Group by at most {MOST_GROUPED_BY} dimensions, each once."))
    if problems:
        raise BadInput.of_fields(problems)


def _check_kept(pieces: Iterable[tuple[Level, Dimensions, datetime, datetime]], kept: Mapping[Level, datetime]) -> None:
    """What has been dropped would be missing without a word."""
    since = max((kept[level] for level, _, start, _ in pieces if start < kept.get(level, _ALWAYS)), default=None)
    if since is not None:
        said = moment(since, timespec="minutes")
        raise BadInput(
            f"What this would be made of is kept from {said} on, and the range, or the one that it is compared with, "
            "begins earlier. Take a later `from`, a wider bucket, fewer dimensions, or no filter.",
            field="from",
            keptSince=said,
        )


_KEPT_SECONDS = 30.0
_kept: tuple[object, float, dict[str, dict[Level, datetime]]] | None = None


async def _kept_since(facts: str) -> Mapping[Level, datetime]:
    """From when on each level has everything; looked up now and then."""
    global _kept
    if _kept is None or _kept[0] is not db.pool() or time.monotonic() - _kept[1] > _KEPT_SECONDS:
        found: dict[str, dict[Level, datetime]] = {}
        for row in await db.fetch("SELECT * FROM metric_retention WHERE dropped_before > '-infinity'", row=Row):
            found.setdefault(row["facts"], {})[Level(row["level"])] = row["dropped_before"]
        _kept = (db.pool(), time.monotonic(), found)
    return _kept[2].get(facts, {})
