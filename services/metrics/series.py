"""Series of a metric: values by time and by labels, over a range and the one before it.

Which level of rollups is read is the engine's choice; what is shown of people is decided by services.metrics.people.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import NamedTuple
from uuid import UUID

from core import clock
from core.errors import BadInput, Forbidden
from core.permissions import Actor
from services.metrics import engine
from services.metrics.calendar import BUCKETS
from services.metrics.contributors import of_days
from services.metrics.definitions import Metric
from services.metrics.engine import REST, MetricRows, MetricScope, scope_of
from services.metrics.freshness import known_lately
from services.metrics.labels import Label, Names, to_graph
from services.metrics.merged import Merged, merged_in
from services.metrics.people import PEOPLE_DIMENSIONS, People, permitted
from services.metrics.questions import Checked, Compare, Fill, Question, Range, check, without

__all__ = ["Compare", "Fill", "Group", "Point", "Question", "RowsBehind", "Series", "series"]

MOST_CELLS = 300_000
"""Of people by buckets: above this a question about people is too much."""
_DIGITS = 9
"""Of a rest that is what others leave: below is noise of floating point."""

Key = tuple[str | None, ...]
Values = list[float | None]


@dataclass(frozen=True, slots=True)
class Condition:
    """A dimension's values; None for facts that have none."""

    dimension: str
    values: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class RowsBehind:
    """What finds the facts that a point was made of."""

    fact: str
    start: datetime
    end: datetime
    filter: Sequence[Condition]


class Point(NamedTuple):
    """A value of one bucket, within the range."""

    at: datetime
    end: datetime
    value: float | None
    previous: float | None
    fact: str
    filter: Sequence[Condition] | None

    @property
    def rows(self) -> RowsBehind | None:
        """None for the rest, which no filter finds."""
        return None if self.filter is None else RowsBehind(self.fact, self.at, self.end, self.filter)


_point = partial(tuple.__new__, Point)
"""Of a tuple, in half of the time."""


@dataclass(frozen=True, slots=True)
class Group:
    """The values of those with the same labels."""

    labels: Sequence[Label]
    points: Sequence[Point]
    total: float | None
    previous_total: float | None


@dataclass(frozen=True, slots=True)
class Series:
    """The answer to a question."""

    metric: Metric
    level: str
    bucket: str
    timezone: str
    start: datetime
    end: datetime
    previous_start: datetime | None
    previous_end: datetime | None
    group_by: Sequence[str]
    groups: Sequence[Group]
    rest: Group | None
    omitted_groups: int
    """Teams that have values, and are neither shown nor in the rest."""
    watermark: datetime | None
    """Up to when everything of our own sessions is counted; None where nothing has been yet."""
    merged: Sequence[Merged]
    """Dimensions of the question of which names were put together."""
    filter: Sequence[Condition] | None
    """What the facts of all groups, and of the rest, have; None where there can be none."""


@dataclass(slots=True)
class _Figures:
    """What one range came to."""

    level: str = "RAW"
    values: dict[Key, Values] = field(default_factory=dict)
    totals: dict[Key, float | None] = field(default_factory=dict)
    rest: Values | None = None
    rest_total: float | None = None
    omitted: int = 0


async def series(actor: Actor, question: Question) -> Series:
    """The series that a question asks for, of what the actor may see. Raises BadInput, Forbidden, NotFound."""
    now = clock.now()
    asked = check(question, now)
    known = await known_lately()  # before the figures, which may have more
    reader = await _Reader.of(actor, asked, ranked=question.top is not None)
    current = await reader.over(asked.current)
    chosen = _in_order(current, current.values, asked, reader.people)
    previous = None
    if asked.previous is not None:
        previous = await reader.over(asked.previous, chosen=chosen)
    names = await Names.of(actor, asked.group_by, chosen)
    groups = [
        Group(
            [names.label(*each) for each in zip(asked.group_by, key, strict=True)],
            _points(
                asked, current.values[key], _values_of(previous, asked.previous, key), now, _conditions(asked, key)
            ),
            _total(asked, current, key),
            _total(asked, previous, key) if previous else None,
        )
        for key in chosen
    ]
    rest = None
    if current.rest is not None:
        points = _points(asked, current.rest, previous.rest if previous else None, now, None)
        rest = Group((), points, current.rest_total, previous.rest_total if previous else None)
    return Series(
        asked.metric,
        current.level,
        asked.bucket,
        asked.zone.key,
        asked.current.start,
        asked.current.end,
        asked.previous.start if asked.previous else None,
        asked.previous.end if asked.previous else None,
        asked.group_by,
        groups,
        rest,
        current.omitted,
        known,
        await merged_in(reader.scope, asked),
        _conditions(asked, None),
    )


class _Reader:
    """Reads a question's figures over ranges."""

    def __init__(self, asked: Checked, scope: MetricScope, people: People | None) -> None:
        self.asked, self.scope, self.people = asked, scope, people
        self._named: Set[UUID] = frozenset()
        self._teams: Set[UUID] = frozenset()

    @classmethod
    async def of(cls, actor: Actor, asked: Checked, *, ranked: bool) -> _Reader:
        """The reader of a question, once it is known whom it may show."""
        people = None
        if PEOPLE_DIMENSIONS & {*asked.filter, *asked.group_by}:
            people = await permitted(actor, filter=asked.filter, group_by=asked.group_by, ranked=ranked)
        reader = cls(asked, scope_of(actor), people)
        if people is not None:
            await reader._decide(people)
        return reader

    async def over(self, range_: Range, *, chosen: Collection[Key] | None = None) -> _Figures:
        """The figures of a range: those of its greatest groups, or those of the groups that are chosen."""
        asked = self.asked
        if not asked.group_by:
            return await self._plain(range_)
        if self.people is not None and PEOPLE_DIMENSIONS & {*asked.group_by}:
            return await self._of_people(range_, chosen)
        return await self._of_greatest(range_) if chosen is None else await self._of_chosen(range_, chosen)

    async def _plain(self, range_: Range) -> _Figures:
        found = _Figures()
        self._take(found, range_, await self._read(range_))
        found.values.setdefault((), [None] * (len(range_.edges) - 1))
        return found

    async def _of_greatest(self, range_: Range) -> _Figures:
        found = _Figures()
        self._take(found, range_, await self._read(range_, top=self.asked.top))
        rest = tuple(REST for _ in self.asked.group_by)
        if rest in found.values:
            found.rest = found.values.pop(rest)
            found.rest_total = _sum(found.rest) if self.asked.is_additive else found.totals.pop(rest, None)
        return found

    async def _of_chosen(self, range_: Range, chosen: Collection[Key]) -> _Figures:
        """The chosen groups; the rest is what they leave of the whole, where that can be said."""
        narrowed = dict(self.asked.filter)
        for place, dimension in enumerate(self.asked.group_by):
            narrowed[dimension] = sorted({key[place] for key in chosen}, key=str)
        found = _Figures()
        self._take(found, range_, await self._read(range_, filter_=narrowed))
        found.values = {key: values for key, values in found.values.items() if key in chosen}
        if not self.asked.is_additive:
            return found
        whole = _Figures()
        self._take(whole, range_, await self._read(range_, group_by=()))
        found.rest = _left(whole.values.get((), [None] * (len(range_.edges) - 1)), found.values.values())
        found.rest_total = _sum(found.rest)
        return found

    async def _of_people(self, range_: Range, chosen: Collection[Key] | None) -> _Figures:
        """Those who may be shown, and of users the rest, which has those who may not."""
        asked, people = self.asked, self.people
        assert people is not None
        found = _Figures()
        rows = await self._read(range_)
        self._take(found, range_, rows)
        may_be_shown = [key for key in found.values if self._may_show(key)]
        if chosen is None:
            chosen = _in_order(found, may_be_shown, asked, people)[: asked.top]
        left = {key: values for key, values in found.values.items() if key not in chosen}
        found.values = {key: values for key, values in found.values.items() if key in chosen}
        if "team" in asked.group_by:
            place = asked.group_by.index("team")
            found.omitted = len({key[place] for key in left} - {None})
        elif left:
            await self._rest_of_users(found, range_, rows, left, is_secret=len(may_be_shown) < len(left) + len(chosen))
        return found

    async def _rest_of_users(
        self, found: _Figures, range_: Range, rows: MetricRows, left: Mapping[Key, Values], *, is_secret: bool
    ) -> None:
        """The others together; where some of them may not be shown, only in buckets in which they are enough."""
        asked, people = self.asked, self.people
        assert people is not None
        place = asked.group_by.index("user")
        if asked.is_additive:
            found.rest = [_sum(values) for values in zip(*left.values(), strict=True)]
        else:
            ids = sorted({user for key in left if (user := key[place]) is not None})
            others = dict(asked.filter) | {"user": ids}
            whole = _Figures()
            self._take(whole, range_, await self._read(range_, filter_=others, group_by=()))
            found.rest = whole.values.get((), [None] * (len(range_.edges) - 1))
            found.rest_total = whole.totals.get(())
        if not is_secret:
            found.rest_total = _sum(found.rest) if asked.is_additive else found.rest_total
            return
        crowds: list[set[str]] = [set() for _ in found.rest]
        for row in rows.rows:
            if row.labels in left and row.count and (user := row.labels[place]):
                crowds[_bucket_of(range_, row.at)].add(user)
        floor = people.policy.floor
        found.rest = [None if 0 < len(c) < floor else v for c, v in zip(crowds, found.rest, strict=True)]
        if asked.is_additive:
            found.rest_total = _sum(found.rest)
        elif any(0 < len(crowd) < floor for crowd in crowds):
            found.rest_total = None

    def _may_show(self, key: Key) -> bool:
        for dimension, value in zip(self.asked.group_by, key, strict=True):
            if dimension == "team" and value not in self.asked.filter.get("team", (value,)):
                return False  # of the members of the teams in the filter: those who are in this one, too
            if dimension == "user" and value is not None and UUID(value) not in self._named:
                return False
            if dimension == "team" and (value is None or UUID(value) not in self._teams):
                return False
        return True

    async def _decide(self, people: People) -> None:
        """Whom the answer may show, by who contributed to each of its figures, those of the range before included."""
        asked = self.asked
        if not people.actor.is_admin:
            # All that they see are their own facts.
            self._named, self._teams = people.own, frozenset(people.teams)
            return
        ranges = [asked.current, *([asked.previous] if asked.previous else [])]
        if len(people.names) * sum(len(range_.edges) - 1 for range_ in ranges) > MOST_CELLS:
            raise BadInput("That is too much of too many people. Take a wider bucket.", field="bucket")
        cells: list[Set[UUID]] = []
        if people.depends_on_cells or "team" in {*asked.filter, *asked.group_by}:
            for range_ in ranges:
                cells += await self._contributors(range_)
        days: list[Set[UUID]] = []
        if people.depends_on_cells:
            count = len(people.names)
            for range_ in ranges:
                days += await of_days(self.scope, asked.metric.name, range_.start, range_.end, people=count)
        self._named, self._teams = people.named([*cells, *days]), people.shown_teams(cells)
        if not {UUID(value) for value in _texts(asked.filter).get("user", ())} <= self._named:
            raise Forbidden("You may not see the figures of somebody in this filter.", field="filter")
        if not {UUID(value) for value in _texts(asked.filter).get("team", ())} <= self._teams:
            raise Forbidden(
                f"This team is not shown: too few people are behind a figure ({people.policy.floor} are needed), or "
                "it would give away a group of fewer. Take a wider bucket, or a longer range.",
                field="filter",
            )

    async def _contributors(self, range_: Range) -> list[Set[UUID]]:
        """Who contributed to each bucket of each combination of the other labels."""
        others = tuple(name for name in self.asked.group_by if name not in PEOPLE_DIMENSIONS)
        filter_ = without(self.asked, *PEOPLE_DIMENSIONS).filter
        found: dict[tuple[datetime, Key], set[UUID]] = {}
        for row in (await self._read(range_, filter_=filter_, group_by=(*others, "user"), whole=False)).rows:
            if row.count and (user := row.labels[-1]) is not None:
                found.setdefault((row.at, row.labels[:-1]), set()).add(UUID(user))
        return list(found.values())

    async def _read(
        self,
        range_: Range,
        *,
        filter_: Mapping[str, Sequence[str | None]] | None = None,
        group_by: Sequence[str] | None = None,
        top: int | None = None,
        whole: bool = True,
    ) -> MetricRows:
        """With the figures of the whole range, where those of the buckets do not add up to them."""
        asked = self.asked
        return await engine.read(
            self.scope,
            asked.metric.name,
            start=range_.start,
            end=range_.end,
            bucket=BUCKETS[asked.bucket],
            timezone=asked.zone.key,
            filter=asked.filter if filter_ is None else filter_,
            group_by=asked.group_by if group_by is None else group_by,
            top=top,
            whole=whole and not asked.is_additive,
        )

    def _take(self, found: _Figures, range_: Range, rows: MetricRows) -> None:
        found.level = rows.level
        found.totals = {row.labels: row.value for row in rows.whole}
        ends, bucket, last = range_.edges[1:], 0, len(range_.edges) - 2
        for at, labels, value, _ in rows.rows:
            # They come by time.
            while bucket < last and ends[bucket] <= at:
                bucket += 1
            values = found.values.get(labels)
            if values is None:
                values = found.values[labels] = [None] * (last + 1)
            values[bucket] = value


def _bucket_of(range_: Range, at: datetime) -> int:
    return min(max(bisect_right(range_.edges, at) - 1, 0), len(range_.edges) - 2)


def _in_order(found: _Figures, keys: Collection[Key], asked: Checked, people: People | None) -> list[Key]:
    """The groups, the greatest first; people and teams by name, unless they are to be ranked."""
    if people is not None and PEOPLE_DIMENSIONS & {*asked.group_by} and not asked.ranked:
        known: dict[str | None, str] = {str(id_): name for id_, name in people.names.items()}
        known |= {str(id_): team.name for id_, team in people.teams.items()}
        return sorted(keys, key=lambda key: [(known.get(part, part or ""), part or "") for part in key])
    return sorted(keys, key=lambda key: (-(_total(asked, found, key) or 0), [part or "" for part in key]))


def _points(
    asked: Checked,
    values: Values,
    before: Values | None,
    now: datetime,
    filter_: Sequence[Condition] | None,
) -> list[Point]:
    edges = asked.current.edges
    filled = _filled(values, asked.fill, bisect_right(edges, now, hi=len(edges) - 1))
    then: Values = [None] * len(values)
    if asked.previous is not None and before is not None:
        then = [*_filled(before, asked.fill, len(before)), *then][: len(values)]
    columns = edges[:-1], edges[1:], filled, then, repeat(asked.metric.family.facts), repeat(filter_)
    return list(map(_point, zip(*columns, strict=False)))


def _values_of(found: _Figures | None, range_: Range | None, key: Key) -> Values | None:
    if found is None or range_ is None:
        return None
    return found.values.get(key) or [None] * (len(range_.edges) - 1)


def _filled(values: Values, fill: Fill, until: int) -> Values:
    """Gaps filled, up to the bucket that it is now."""
    if fill is Fill.NULL:
        return values
    if fill is Fill.ZERO:
        return [0.0 if value is None else value for value in values[:until]] + values[until:]
    found: Values = []
    for number, value in enumerate(values):
        found.append(found[-1] if value is None and found and number < until else value)
    return found


def _total(asked: Checked, found: _Figures, key: Key) -> float | None:
    """The value of the whole range: of what adds up, the sum of the buckets."""
    if not asked.is_additive:
        return found.totals.get(key)
    total = _sum(found.values.get(key, ()))
    return 0.0 if total is None and asked.fill is Fill.ZERO else total


def _sum(values: Collection[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) if there else None


def _left(whole: Values, parts: Collection[Values]) -> Values:
    found: Values = []
    for number, value in enumerate(whole):
        taken = _sum([part[number] for part in parts]) or 0
        found.append(None if value is None else max(round(value - taken, _DIGITS), 0.0))
    return found


def _texts(filter_: Mapping[str, Sequence[str | None]]) -> dict[str, list[str]]:
    return {name: [value for value in values if value is not None] for name, values in filter_.items()}


def _conditions(asked: Checked, key: Key | None) -> list[Condition] | None:
    """What all facts behind a group, or behind all of them, have: by its labels, the question's filter and the metric's
    own, as the graph has them, each dimension once; None where no fact has all of it."""
    found: dict[str, Sequence[str | None]] = {}
    for conditions in (
        {} if key is None else {name: [to_graph(name, value)] for name, value in zip(asked.group_by, key, strict=True)},
        {name: [to_graph(name, value) for value in values] for name, values in asked.filter.items()},
        asked.metric.rows,
    ):
        for name, values in conditions.items():
            found[name] = [value for value in found.get(name, values) if value in values]
    return [Condition(*each) for each in found.items()] if all(found.values()) else None
