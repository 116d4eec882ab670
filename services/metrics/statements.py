"""Questions about metrics in SQL: from rollups with what waits to be counted, and from facts.

All that is pasted is of our own definitions; every value is a parameter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from services.metrics.definitions import DERIVED, METRICS
from services.metrics.families import Dimensions, Level
from services.metrics.rollups import bin_of, count_of


class Asked(NamedTuple):
    """What a statement depends on, but for its values: one for all questions of the same shape."""

    metric: str
    group_by: tuple[str, ...]
    filter: tuple[tuple[str, bool], ...]
    """Dimensions, and whether what has none is among the values."""
    top: bool
    pieces: tuple[tuple[Level, Dimensions], ...]
    cut: Literal["whole", "even", "edges"]


@lru_cache(2000)
def sql(asked: Asked) -> str:
    """The statement of a question: rows of (edge, l0, l1, …, value, count), `value` a bin where it is a percentile."""
    return _Statement(asked).sql


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
            self._piece(level, dimensions, f"at >= {start} AND at < {end}")
            for (level, dimensions), (start, end) in zip(asked.pieces, times, strict=True)
        )
        self.sql = self._outer(parts)

    def _arg(self) -> str:
        self._number += 1
        return f"${self._number}"

    # -- pieces: (edge, labels, measures) or (edge, labels, bin, n)

    def _piece(self, level: Level, dimensions: Dimensions, times: str) -> str:
        if level is Level.RAW:
            return self._of_facts(self.family.table, times)
        return f"{self._of_rollup(level, dimensions, times)} UNION ALL {self._of_facts(self.family.pending, times)}"

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

    def _of_rollup(self, level: Level, dimensions: Dimensions, times: str) -> str:
        place = {name: f"labels[{index + 1}]" for index, name in enumerate(dimensions)}
        # Names of ours, so that plans are made for each set.
        where = [f"organization_id = {self.organization}", f"dimensions = '{','.join(dimensions)}'", times]
        for name, has_none in self.asked.filter:
            where.append(self._among(name, place[base(name)], has_none, is_id=False))
        keys = [f"{self.edge} AS edge"] + [
            f"{place[name]} AS {key}" for key, name in zip(self.keys, self.bases, strict=True)
        ]
        table = self.family.rollup(level)
        if self.metric.quantile is None:
            return f"SELECT {', '.join([*keys, *self.measures])} FROM {table} WHERE {' AND '.join(where)}"
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
        for label, name in zip(labels, self.asked.group_by, strict=True):
            if name in DERIVED:
                others = ", ".join(f"source.{each}" for each in self._columns if each != label)
                parts = (
                    f"SELECT {others}, looked_up.derived AS {label} FROM ({parts}) AS source "
                    f"LEFT JOIN ({DERIVED[name][1]}) AS looked_up ON looked_up.base = source.{label}"
                )
        source = f"({parts}) AS parts"
        rest: list[str] = []
        with_ = ""
        if self.asked.top:
            with_, source = self._ranked(source, labels)
            rest = ["rest"]
        names = ", ".join(["edge", *labels, *rest])
        return with_ + (self._sums(source, names) if self.metric.quantile is None else self._percentile(source, names))

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

    def _sums(self, source: str, names: str) -> str:
        # Rates are divided by the seconds of their buckets when they are read.
        value = self.metric.value.replace("{seconds}", "1")
        return (
            f"SELECT {names}, {value} AS value, coalesce({self.metric.count}, 0) AS count "
            f"FROM {source} GROUP BY {names} HAVING coalesce({self.metric.count}, 0) > 0 ORDER BY {names}"
        )

    def _percentile(self, source: str, names: str) -> str:
        return (
            f"SELECT DISTINCT ON ({names}) {names}, bin AS value, total AS count FROM ("
            f"SELECT {names}, bin, sum(sum(n)) OVER (PARTITION BY {names} ORDER BY bin) AS up_to, "
            f"sum(sum(n)) OVER (PARTITION BY {names}) AS total FROM {source} GROUP BY {names}, bin) AS bins "
            f"WHERE up_to >= {self._arg()}::float8 * total ORDER BY {names}, bin"
        )


def base(name: str) -> str:
    """The dimension that facts have, which another one follows from, or it itself."""
    return DERIVED[name][0] if name in DERIVED else name
