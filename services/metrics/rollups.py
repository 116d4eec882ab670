"""Counts what is in line: facts are moved from there into the rollups, by adding to the rows that are there.

Facts that wait in line are read besides the rollups by whoever asks, so figures are right at any moment. A round is one
transaction: killed, it has not happened. As nothing is counted anew, late facts need no care, and the facts themselves
may be gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from core import db
from services.metrics.families import FAMILIES, ROLLED, Dimensions, Family, Level

BATCH = 20_000
_LOCK = 0x726F6C6C
"""The first half of our advisory locks; the second is made of the kind of facts."""

_COUNT_BITS = 40
_COUNT = (1 << _COUNT_BITS) - 1
KEYS = ("organization_id", "dimensions", "at", "labels")


async def roll(*, batch: int = BATCH) -> int:
    """One round: count what is in line, at most `batch` facts of each kind; returns how many were counted."""
    return sum([await _roll(facts, batch) for facts in STATEMENTS])


async def _roll(facts: str, batch: int) -> int:
    async with db.transaction() as tx:
        # One at a time: two that add to the same rows would wait for each other, or worse.
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCK, facts):
            return 0
        if not await tx.fetchval(f"SELECT EXISTS (SELECT FROM {facts}_pending)"):
            return 0
        return await tx.fetchval(STATEMENTS[facts], batch)  # type: ignore[no-any-return]


def bucket_of(level: Level, column: str = "at") -> str:
    """SQL of the bucket that a time is in."""
    return f"date_bin('1 {level.value.lower()}', {column}, '2000-01-01T00:00:00Z')"


def _statement(facts: str) -> str:
    parts = [
        f"batch AS (DELETE FROM {facts}_pending WHERE ctid = ANY(ARRAY(SELECT ctid FROM {facts}_pending LIMIT $1)) "
        "RETURNING *)"
    ]
    for family in FAMILIES.values():
        if family.facts == facts:
            # A day is counted from what was counted by hour.
            parts.append(f"{family.name}_hour AS ({_counted(family, Level.HOUR)})")
            parts.append(f"{family.name}_minute AS ({_counted(family, Level.MINUTE)})")
            parts += [f"added_to_{family.name}_{level.suffix} AS ({_upsert(family, level)})" for level in ROLLED]
    return f"WITH {', '.join(parts)} SELECT count(*) FROM batch"


def _counted(family: Family, level: Level) -> str:
    kept = ", ".join(
        f"('{','.join(dimensions)}', {_labels(family, dimensions)})" for dimensions in family.sets_of(level)
    )
    keys = {"organization_id": "organization_id", "dimensions": "kept.dimensions", "at": bucket_of(level)}
    keys["labels"] = "kept.labels"
    if family.histogram_of is not None:
        keys["bin"] = family.bin
    return family.counted(f"batch CROSS JOIN LATERAL (VALUES {kept}) AS kept (dimensions, labels)", "true", keys)


def _labels(family: Family, dimensions: Dimensions) -> str:
    return f"ARRAY[{', '.join(family.dimensions[name].label for name in dimensions)}]::text[]"


def _upsert(family: Family, level: Level) -> str:
    source = f"{family.name}_{'minute' if level is Level.MINUTE else 'hour'}"
    at = bucket_of(level) if level is Level.DAY else "at"
    columns = list(family.measures)
    sums = [f"sum({measure})" for measure in family.measures]
    sets = [f"{name} = coalesce(kept.{name} + excluded.{name}, kept.{name}, excluded.{name})" for name in columns]
    inner = f"SELECT organization_id, dimensions, {at} AS at, labels, {', '.join(family.measures)} FROM {source}"
    if family.histogram_of is not None:
        columns.append("histogram")
        inner = (
            f"SELECT organization_id, dimensions, {at} AS at, labels, bin, "
            + ", ".join(f"sum({measure}) AS {measure}" for measure in family.measures)
            + f" FROM {source} GROUP BY 1, 2, 3, 4, 5"
        )
        sums.append(
            f"array_agg(bin << {_COUNT_BITS} | {family.binned}::bigint ORDER BY bin) FILTER (WHERE bin IS NOT NULL)"
        )
        sets.append(
            f"histogram = (SELECT array_agg(bin << {_COUNT_BITS} | n ORDER BY bin) FROM ("
            f"SELECT {bin_of('packed')} AS bin, sum({count_of('packed')})::bigint AS n "
            "FROM unnest(kept.histogram || excluded.histogram) AS packed GROUP BY 1) AS bins)"
        )
    return (
        f"INSERT INTO {family.rollup(level)} AS kept ({', '.join((*KEYS, *columns))}) "
        f"SELECT organization_id, dimensions, at, labels, {', '.join(sums)} FROM ({inner}) AS counted "
        f"GROUP BY 1, 2, 3, 4 ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET {', '.join(sets)}"
    )


def bin_of(packed: str) -> str:
    """SQL of the bin of an element of a histogram."""
    return f"{packed} >> {_COUNT_BITS}"


def count_of(packed: str) -> str:
    """SQL of the count of an element of a histogram."""
    return f"{packed} & {(1 << _COUNT_BITS) - 1}"


def packed(bin_: str, count: str) -> str:
    """SQL of an element of a histogram."""
    return f"{bin_} << {_COUNT_BITS} | {count}"


def added_up(histograms: Iterable[Iterable[int]]) -> list[int]:
    """One histogram of several."""
    found: dict[int, int] = {}
    for histogram in histograms:
        for element in histogram:
            bin_ = element >> _COUNT_BITS
            found[bin_] = found.get(bin_, 0) + (element & _COUNT)
    return [bin_ << _COUNT_BITS | count for bin_, count in sorted(found.items())]


def quantile_in(histogram: Sequence[int], quantile: float) -> tuple[int, int]:
    """The first bin up to which there are so many of all, and how many there are at all; of elements in order."""
    if len(histogram) == 1:
        return histogram[0] >> _COUNT_BITS, histogram[0] & _COUNT
    up_to = list(accumulate(map(_COUNT.__and__, histogram)))
    return histogram[bisect_left(up_to, quantile * up_to[-1])] >> _COUNT_BITS, up_to[-1]


STATEMENTS = {facts: _statement(facts) for facts in dict.fromkeys(family.facts for family in FAMILIES.values())}
