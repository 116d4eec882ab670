"""Reads metrics: from days, hours and minutes that are counted already as far as a question allows, else from facts.
What comes from where does not change what comes out.

A question is one statement. Of the rollups it reads what lies between full buckets, with what waits in line to be
counted; of the facts what is left at both ends. Buckets are cut by the edges that calendar.py gives, so days have 23
and 25 hours where they should.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import pairwise
from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput
from core.permissions import Actor
from models.base import Query, Row
from services.metrics.calendar import Bucket, edges, zone_of
from services.metrics.definitions import DERIVED, METRICS, Metric, MetricKind
from services.metrics.families import ROLLED, Dimensions, Family, Level, middle_of
from services.metrics.rollups import bin_of, count_of

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


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A figure. `at` is where its bucket begins; `count` is how many facts it is made of."""

    at: datetime
    labels: tuple[str | None, ...]
    value: float | None
    count: int


@dataclass(frozen=True, slots=True)
class MetricRows:
    """Figures by time and labels. There are none where there are no facts."""

    level: Level
    """The widest buckets that were read."""
    rows: Sequence[MetricPoint]


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
) -> MetricRows:
    """A metric from `start` to before `end`, by buckets (None: one for all of it) and by dimensions.

    `top` keeps the so many groups with the most, over all of the range, and puts the others together as REST. Labels
    and filters of users, teams, templates and their versions are uuids as text; None is the label of what has none.

    Raises BadInput for a metric, a dimension or a zone that does not exist, for an empty range and for too many points.
    """
    found = metric_of(metric)
    filter = filter or {}
    _check(found, start, end, filter, group_by)
    if bucket is None:
        cuts = [start.astimezone(UTC), end.astimezone(UTC)]
    else:
        try:
            cuts = edges(start, end, bucket, zone_of(timezone), most=MOST_POINTS)
        except ValueError:
            raise BadInput(
                f"That is more than {MOST_POINTS:,} points. Take a wider bucket, or a shorter range.", field="bucket"
            ) from None
    question = _Question(found, scope, tuple(group_by), filter, top)
    level, sql, args = question.statement(cuts, await _kept_since(found.family.facts))
    if level is Level.RAW:
        # What is best depends on how long the range is.
        rows = await db.fetch_by_its_own_plan(sql, *args, row=Row)
    else:
        rows = await db.fetch(sql, *args, row=Row)
    return MetricRows(level, [question.point(row, cuts) for row in rows])


async def value(
    scope: MetricScope, metric: str, *, start: datetime, end: datetime, filter: Filter | None = None
) -> float | None:
    """A metric over all of a range; None where there is nothing to make it of (a count is 0 then)."""
    rows = (await read(scope, metric, start=start, end=end, filter=filter)).rows
    if rows:
        return rows[0].value
    return 0.0 if METRICS[metric].kind is MetricKind.COUNT else None


def levels(family: Family, wanted: frozenset[str], cuts: Sequence[datetime]) -> list[tuple[Level, Dimensions]]:
    """What can be read for a question, widest first: the levels whose buckets are cut by no edge and that are kept by
    the dimensions that are wanted."""
    inner = cuts[1:-1]
    found = []
    for level in ROLLED:
        dimensions = family.covering(level, wanted)
        if dimensions is None or any(_down(edge, level) != edge for edge in inner):
            continue
        if _up(cuts[0], level) < _down(cuts[-1], level):
            found.append((level, dimensions))
    return found


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
    """What is asked, and how it is said in SQL."""

    def __init__(
        self, metric: Metric, scope: MetricScope, group_by: tuple[str, ...], filter: Filter, top: int | None
    ) -> None:
        self.metric, self.family, self.scope = metric, metric.family, scope
        self.group_by, self.top = group_by, top
        self.filter = dict(filter) | dict(metric.only)
        if scope.user_ids is not None:
            users = [str(id_) for id_ in scope.user_ids]
            if "user" in self.filter:
                users = [user for user in users if user in self.filter["user"]]
            self.filter["user"] = users
        self.bases = tuple(DERIVED[name][0] if name in DERIVED else name for name in group_by)
        """The dimensions that the facts themselves have."""
        self.wanted = frozenset(DERIVED[name][0] if name in DERIVED else name for name in (*group_by, *self.filter))
        self.keys = [f"l{place}" for place in range(len(self.bases))]

    def statement(self, cuts: Sequence[datetime], kept: Mapping[Level, datetime]) -> tuple[Level, str, list[Any]]:
        usable = [
            each
            for each in levels(self.family, self.wanted, cuts)
            if kept.get(each[0], _ALWAYS) <= _up(cuts[0], each[0])
        ]
        query = Query()
        self._organization = query.arg(self.scope.organization_id)
        cut = len(cuts) > 2
        self._edge = f"width_bucket(at, {query.arg(list(cuts[:-1]))}::timestamptz[])" if cut else "1"
        pieces = list(_segments(cuts[0], cuts[-1], usable))
        parts = " UNION ALL ".join(self._piece(query, *piece) for piece in pieces)
        level = min((piece[0] for piece in pieces), key=_WIDEST.index)
        return level, self._outer(query, parts, cuts), query.args

    def point(self, row: Row, cuts: Sequence[datetime]) -> MetricPoint:
        labels = tuple(row[f"l{place}"] for place in range(len(self.group_by)))
        if self.top is not None and labels and row["rest"]:
            labels = (REST,) * len(labels)
        value = row["value"]
        if value is not None:
            value = middle_of(value) if self.metric.quantile is not None else float(value)
        return MetricPoint(cuts[row["edge"] - 1], labels, value, int(row["count"]))

    # -- pieces: (edge, labels, measures) or (edge, labels, bin, n)

    def _piece(self, query: Query, level: Level, dimensions: Dimensions, start: datetime, end: datetime) -> str:
        times = f"at >= {query.arg(start)} AND at < {query.arg(end)}"
        if level is Level.RAW:
            return self._of_facts(query, self.family.table, times)
        counted = self._of_rollup(query, level, dimensions, times)
        return f"{counted} UNION ALL {self._of_facts(query, self.family.pending, times)}"

    def _of_facts(self, query: Query, table: str, times: str) -> str:
        family = self.family
        where = [f"organization_id = {self._organization}", times]
        for name, values in self.filter.items():
            dimension = family.dimensions[DERIVED[name][0] if name in DERIVED else name]
            column, type_ = dimension.column, "uuid" if dimension.is_id else "text"
            where.append(self._among(query, name, column, values, type_))
        keys = {"edge": self._edge} | {
            key: family.dimensions[name].label for key, name in zip(self.keys, self.bases, strict=True)
        }
        if self.metric.quantile is None:
            return family.counted(table, " AND ".join(where), keys)
        where.append(f"{family.histogram_of} IS NOT NULL")
        grouped = ", ".join(str(place + 1) for place in range(len(keys) + 1))
        return (
            f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in keys.items())}, {family.bin} AS bin, count(*) AS n "
            f"FROM {table} WHERE {' AND '.join(where)} GROUP BY {grouped}"
        )

    def _of_rollup(self, query: Query, level: Level, dimensions: Dimensions, times: str) -> str:
        place = {name: f"labels[{index + 1}]" for index, name in enumerate(dimensions)}
        where = [f"organization_id = {self._organization}", f"dimensions = {query.arg(','.join(dimensions))}", times]
        for name, values in self.filter.items():
            column = place[DERIVED[name][0] if name in DERIVED else name]
            where.append(self._among(query, name, column, values, "text"))
        keys = [f"{self._edge} AS edge"] + [
            f"{place[name]} AS {key}" for key, name in zip(self.keys, self.bases, strict=True)
        ]
        table = self.family.rollup(level)
        if self.metric.quantile is None:
            return f"SELECT {', '.join([*keys, *self.family.measures])} FROM {table} WHERE {' AND '.join(where)}"
        return (
            f"SELECT {', '.join(keys)}, {bin_of('packed')} AS bin, {count_of('packed')} AS n "
            f"FROM {table} CROSS JOIN LATERAL unnest(histogram) AS packed WHERE {' AND '.join(where)}"
        )

    def _among(self, query: Query, name: str, column: str, values: Sequence[str | None], type_: str) -> str:
        known = [each for each in values if each is not None]
        if name in DERIVED:
            found = query.arg(known)
            condition = (
                f"{column} IN (SELECT base::{type_} FROM ({DERIVED[name][1]}) AS looked_up "
                f"WHERE derived = ANY({found}::text[]))"
            )
        else:
            kept: Sequence[Any] = known if type_ == "text" else _uuids(known)
            condition = f"{column} = ANY({query.arg(kept)}::{type_}[])"
        return condition if None not in values else f"({condition} OR {column} IS NULL)"

    # -- what is made of them

    def _outer(self, query: Query, parts: str, cuts: Sequence[datetime]) -> str:
        labels = self.keys
        for label, name in zip(labels, self.group_by, strict=True):
            if name in DERIVED:
                others = ", ".join(f"source.{each}" for each in self._columns if each != label)
                parts = (
                    f"SELECT {others}, looked_up.derived AS {label} FROM ({parts}) AS source "
                    f"LEFT JOIN ({DERIVED[name][1]}) AS looked_up ON looked_up.base = source.{label}"
                )
        source = f"({parts}) AS parts"
        rest: list[str] = []
        with_ = ""
        if self.top is not None and labels:
            with_, source, rest = self._ranked(query, source, labels)
        keys = ["edge", *labels, *rest]
        if self.metric.quantile is not None:
            return with_ + self._percentile(query, source, keys)
        return with_ + self._sums(query, source, keys, cuts)

    @property
    def _columns(self) -> list[str]:
        measures = ["bin", "n"] if self.metric.quantile is not None else list(self.family.measures)
        return ["edge", *self.keys, *measures]

    def _ranked(self, query: Query, source: str, labels: list[str]) -> tuple[str, str, list[str]]:
        """The groups that `top` keeps, and the source with the labels of the others gone."""
        by = "sum(n)" if self.metric.quantile is not None else self.metric.count
        if self.metric.adds_up:
            by = self.metric.value
        names = ", ".join(labels)
        same = " AND ".join(f"kept.{each} IS NOT DISTINCT FROM parts.{each}" for each in labels)
        left = [each for each in self._columns if each not in labels]
        with_ = (
            f"WITH parts AS MATERIALIZED (SELECT * FROM {source}), "
            f"kept AS (SELECT {names}, true AS kept FROM parts GROUP BY {names} "
            f"ORDER BY {by} DESC NULLS LAST, {names} LIMIT {query.arg(self.top)}) "
        )
        chosen = ", ".join(f"CASE WHEN kept.kept THEN parts.{each} END AS {each}" for each in labels)
        source = (
            f"(SELECT {', '.join(f'parts.{each}' for each in left)}, {chosen}, kept.kept IS NULL AS rest "
            f"FROM parts LEFT JOIN kept ON {same}) AS parts"
        )
        return with_, source, ["rest"]

    def _sums(self, query: Query, source: str, keys: list[str], cuts: Sequence[datetime]) -> str:
        value = self.metric.value
        if "{seconds}" in value:
            lengths = [(after - before).total_seconds() for before, after in pairwise(cuts)]
            value = value.replace("{seconds}", f"({query.arg(lengths)}::float8[])[edge]")
        names = ", ".join(keys)
        return (
            f"SELECT * FROM (SELECT {names}, {value} AS value, coalesce({self.metric.count}, 0) AS count "
            f"FROM {source} GROUP BY {names}) AS found WHERE count > 0 ORDER BY {names}"
        )

    def _percentile(self, query: Query, source: str, keys: list[str]) -> str:
        names = ", ".join(keys)
        return (
            f"SELECT DISTINCT ON ({names}) {names}, bin AS value, total AS count FROM ("
            f"SELECT {names}, bin, sum(sum(n)) OVER (PARTITION BY {names} ORDER BY bin) AS up_to, "
            f"sum(sum(n)) OVER (PARTITION BY {names}) AS total FROM {source} GROUP BY {names}, bin) AS bins "
            f"WHERE up_to >= {query.arg(self.metric.quantile)}::float8 * total ORDER BY {names}, bin"
        )


_WIDEST = [*ROLLED, Level.RAW]
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def _down(at: datetime, level: Level) -> datetime:
    return _EPOCH + (at - _EPOCH) // level.width * level.width


def _up(at: datetime, level: Level) -> datetime:
    return _EPOCH - (_EPOCH - at) // level.width * level.width


def _uuids(texts: Sequence[str]) -> list[UUID]:
    found = []
    for text in texts:
        try:
            found.append(UUID(text))
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
