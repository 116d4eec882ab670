"""Questions about metrics in SQL: from rollups with what waits to be counted, and from facts.

All that is pasted is of our own definitions; every value is a parameter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from services.metrics.definitions import DERIVED, METRICS
from services.metrics.families import Dimensions, Level
from services.metrics.rollups import bin_of, count_of, packed


class Piece(NamedTuple):
    """A part of the range, and what it is read from."""

    level: Level
    dimensions: Dimensions
    is_cut: bool
    """Whether the buckets of the level are those that are asked for: a row of it begins where its bucket does."""


class Asked(NamedTuple):
    """What a statement depends on, but for its values: one for all questions of the same shape."""

    metric: str
    group_by: tuple[str, ...]
    filter: tuple[tuple[str, bool], ...]
    """Dimensions, and whether what has none is among the values."""
    top: bool
    whole: bool
    """Whether the figures of the whole range are wanted besides those of its buckets."""
    pieces: tuple[Piece, ...]
    cut: Literal["whole", "even", "edges"]


class Statement(NamedTuple):
    """A question in SQL: rows of (edge, l0, l1, …, [rest,] value[, count]) by edge and labels; those of the whole range
    are last, and their edge is null."""

    sql: str
    has_count: bool
    """Not where it is the value."""
    is_bin: bool
    """The value is a bin: that of a percentile."""
    is_packed: bool
    """The value is a histogram, with which a group may come in several rows. There are no others of the whole range."""


@lru_cache(2000)
def statement(asked: Asked) -> Statement:
    """The statement of a question."""
    made = _Statement(asked)
    return Statement(made.sql, made.has_count, made.metric.quantile is not None and not made.is_packed, made.is_packed)


class _Statement:
    """A question in SQL. Values are numbered in the order in which the engine gives them."""

    def __init__(self, asked: Asked) -> None:
        self._number = 0
        metric = METRICS[asked.metric]
        self.metric, self.family, self.asked = metric, metric.family, asked
        said = f"{metric.value} {metric.count}"
        self.measures = [name for name in metric.family.measures if re.search(rf"\b{name}\b", said)]
        self.bases = tuple(base(name) for name in asked.group_by)
        self.keys = [f"l{place}" for place in range(len(self.bases))]
        # Where what is kept has a histogram of each point, its bins need not be sorted and added up here.
        self.is_packed = (
            metric.quantile is not None
            and not asked.top
            and not DERIVED.keys() & {*asked.group_by}
            and any(piece.is_cut and {*piece.dimensions} == {*self.bases} for piece in asked.pieces)
        )
        self.has_count = not self.is_packed and metric.value != metric.count
        self.organization = self._arg()
        if asked.cut == "even":
            self.edge = f"date_bin({self._arg()}::interval, at, {self._arg()}::timestamptz)"
        elif asked.cut == "edges":
            self.edge = f"width_bucket(at, {self._arg()}::timestamptz[])"
        else:
            self.edge = "1"
        times = [(self._arg(), self._arg()) for _ in asked.pieces]
        self.values = {name: f"{self._arg()}::text[]" for name, _ in asked.filter}
        parts = " UNION ALL ".join(
            self._piece(piece, f"at >= {start} AND at < {end}")
            for piece, (start, end) in zip(asked.pieces, times, strict=True)
        )
        self.sql = self._outer(parts)

    def _arg(self) -> str:
        self._number += 1
        return f"${self._number}"

    # -- pieces: (edge, labels, measures), (edge, labels, bin, n), or (edge, labels, histogram)

    def _piece(self, piece: Piece, times: str) -> str:
        if piece.level is Level.RAW:
            return self._packed(self._of_facts(self.family.table, times))
        pending = self._packed(self._of_facts(self.family.pending, times))
        if self.is_packed and piece.is_cut and {*piece.dimensions} == {*self.bases}:
            return f"{self._of_rollup(piece, times, unpacked=False)} UNION ALL {pending}"
        return f"{self._packed(self._of_rollup(piece, times))} UNION ALL {pending}"

    def _packed(self, part: str) -> str:
        """A part with its bins put together, where histograms are what is asked for."""
        if not self.is_packed:
            return part
        keys = ", ".join(["edge", *self.keys])
        return (
            f"SELECT {keys}, array_agg({packed('bin', 'n')} ORDER BY bin) AS histogram "
            f"FROM (SELECT {keys}, bin, sum(n)::bigint AS n FROM ({part}) AS part GROUP BY {keys}, bin) AS bins "
            f"GROUP BY {keys}"
        )

    def _of_facts(self, table: str, times: str) -> str:
        family = self.family
        where = [f"organization_id = {self.organization}", times]
        for name, has_none in self.asked.filter:
            dimension = family.dimensions[base(name)]
            where.append(self._among(name, dimension.column, has_none, is_id=dimension.is_id))
        keys = {"edge": self.edge} | {
            key: family.dimensions[name].label for key, name in zip(self.keys, self.bases, strict=True)
        }
        if self.metric.quantile is None:
            counted = family.counted(table, " AND ".join(where), keys)
            return f"SELECT {', '.join([*keys, *self.measures])} FROM ({counted}) AS counted"
        where.append(f"{family.histogram_of} IS NOT NULL")
        grouped = ", ".join(str(place + 1) for place in range(len(keys) + 1))
        return (
            f"SELECT {', '.join(f'{sql} AS {name}' for name, sql in keys.items())}, {family.bin} AS bin, count(*) AS n "
            f"FROM {table} WHERE {' AND '.join(where)} GROUP BY {grouped}"
        )

    def _of_rollup(self, piece: Piece, times: str, *, unpacked: bool = True) -> str:
        dimensions = piece.dimensions
        place = {name: f"labels[{index + 1}]" for index, name in enumerate(dimensions)}
        # Names of ours, so that plans are made for each set.
        where = [f"organization_id = {self.organization}", f"dimensions = '{','.join(dimensions)}'", times]
        for name, has_none in self.asked.filter:
            where.append(self._among(name, place[base(name)], has_none, is_id=False))
        keys = [f"{'at' if piece.is_cut else self.edge} AS edge"] + [
            f"{place[name]} AS {key}" for key, name in zip(self.keys, self.bases, strict=True)
        ]
        table = self.family.rollup(piece.level)
        if self.metric.quantile is None:
            return f"SELECT {', '.join([*keys, *self.measures])} FROM {table} WHERE {' AND '.join(where)}"
        if not unpacked:
            where.append("histogram IS NOT NULL")
            return f"SELECT {', '.join([*keys, 'histogram'])} FROM {table} WHERE {' AND '.join(where)}"
        return (
            f"SELECT {', '.join(keys)}, {bin_of('packed')} AS bin, {count_of('packed')} AS n "
            f"FROM {table} CROSS JOIN LATERAL unnest(histogram) AS packed WHERE {' AND '.join(where)}"
        )

    def _among(self, name: str, column: str, has_none: bool, *, is_id: bool) -> str:
        values, type_ = self.values[name], "uuid" if is_id else "text"
        if name in DERIVED:
            condition = (
                f"{column} IN (SELECT base::{type_} FROM ({DERIVED[name][1]}) AS looked_up "
                f"WHERE derived = ANY({values}))"
            )
        else:
            condition = f"{column} = ANY({values}::{type_}[])"
        return f"({condition} OR {column} IS NULL)" if has_none else condition

    # -- what is made of them

    def _outer(self, parts: str) -> str:
        labels = self.keys
        if self.is_packed:
            names = ", ".join(["edge", *labels])
            return f"SELECT {names}, histogram FROM ({parts}) AS parts ORDER BY {names}"
        for label, name in zip(labels, self.asked.group_by, strict=True):
            if name in DERIVED:
                others = ", ".join(f"source.{each}" for each in self._columns if each != label)
                parts = (
                    f"SELECT {others}, looked_up.derived AS {label} FROM ({parts}) AS source "
                    f"LEFT JOIN ({DERIVED[name][1]}) AS looked_up ON looked_up.base = source.{label}"
                )
        source = f"({parts}) AS parts"
        with_ = ""
        if self.asked.top:
            with_, source = self._ranked(source, labels)
            labels = [*labels, "rest"]
        return with_ + (
            self._sums(source, labels) if self.metric.quantile is None else self._percentile(source, labels)
        )

    def _grouped(self, labels: list[str], *more: str) -> str:
        by = ", ".join(["edge", *labels, *more])
        return f"GROUPING SETS (({by}), ({', '.join([*labels, *more])}))" if self.asked.whole else by

    @property
    def _columns(self) -> list[str]:
        measures = ["bin", "n"] if self.metric.quantile is not None else self.measures
        return ["edge", *self.keys, *measures]

    def _ranked(self, source: str, labels: list[str]) -> tuple[str, str]:
        """The groups that `top` keeps, and the source with the labels of the others gone."""
        by = "sum(n)" if self.metric.quantile is not None else self.metric.count
        if self.metric.adds_up:
            by = self.metric.value
        names = ", ".join(labels)
        same = " AND ".join(f"kept.{each} IS NOT DISTINCT FROM parts.{each}" for each in labels)
        left = [each for each in self._columns if each not in labels]
        keys = ["edge", *labels, *(["bin"] if self.metric.quantile is not None else [])]
        sums = [f"sum({each}) AS {each}" for each in self._columns if each not in keys]
        if self.asked.cut == "whole" and self.metric.quantile is None:
            # A row is a group: there is nothing to look up.
            most = self._arg()
            chosen = ", ".join(f"CASE WHEN place <= {most} THEN {each} END AS {each}" for each in labels)
            ranked = ", ".join([*keys, *sums])
            return "", (
                f"(SELECT {', '.join(left)}, {chosen}, place > {most} AS rest FROM (SELECT {ranked}, "
                f"row_number() OVER (ORDER BY {by} DESC NULLS LAST, {names}) AS place "
                f"FROM {source} GROUP BY {', '.join(keys)}) AS ranked) AS parts"
            )
        with_ = (
            f"WITH parts AS MATERIALIZED (SELECT {', '.join([*keys, *sums])} FROM {source} "
            f"GROUP BY {', '.join(keys)}), "
            f"kept AS (SELECT {names}, true AS kept FROM parts GROUP BY {names} "
            f"ORDER BY {by} DESC NULLS LAST, {names} LIMIT {self._arg()}) "
        )
        chosen = ", ".join(f"CASE WHEN kept.kept THEN parts.{each} END AS {each}" for each in labels)
        source = (
            f"(SELECT {', '.join(f'parts.{each}' for each in left)}, {chosen}, kept.kept IS NULL AS rest "
            f"FROM parts LEFT JOIN kept ON {same}) AS parts"
        )
        return with_, source

    def _sums(self, source: str, labels: list[str]) -> str:
        # Rates are divided by the seconds of their buckets when they are read. Sums are numbers of any length, which
        # Python would make floats of as well, only slower.
        value, count = self.metric.value.replace("{seconds}", "1"), self.metric.count
        figures = f"({value})::float8 AS value, ({count})::bigint AS count"
        if not self.has_count:
            figures = f"({count})::bigint AS value"
        if self.asked.cut == "whole":
            # One bucket, which is nothing to tell rows apart by.
            names = ", ".join(labels)
            grouped, ordered = (f"GROUP BY {names}", f"ORDER BY {names}") if labels else ("", "")
            edge = "1 AS edge"
        else:
            names = ", ".join(["edge", *labels])
            grouped, ordered, edge = f"GROUP BY {self._grouped(labels)}", f"ORDER BY {names}", "edge"
        return f"SELECT {', '.join([edge, *labels])}, {figures} FROM {source} {grouped} HAVING {count} > 0 {ordered}"

    def _percentile(self, source: str, labels: list[str]) -> str:
        # Counts stay whole numbers as float8, up to 2^53, and are added up quicker.
        names = ", ".join(["edge", *labels])
        return (
            f"SELECT DISTINCT ON ({names}) {names}, bin AS value, total::bigint AS count FROM ("
            f"SELECT {names}, bin, sum(sum(n::float8)) OVER (PARTITION BY {names} ORDER BY bin) AS up_to, "
            f"sum(sum(n::float8)) OVER (PARTITION BY {names}) AS total FROM {source} "
            f"GROUP BY {self._grouped(labels, 'bin')}) AS bins "
            f"WHERE up_to >= {self._arg()}::float8 * total ORDER BY {names}, bin"
        )


def base(name: str) -> str:
    """The dimension that facts have, which another one follows from, or it itself."""
    return DERIVED[name][0] if name in DERIVED else name
