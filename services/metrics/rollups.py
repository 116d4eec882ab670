"""Counts what is in line: facts are moved from there into the rollups, by adding to the rows that are there.

Facts that wait in line are read besides the rollups by whoever asks, so figures are right at any moment. A round is one
transaction: killed, it has not happened. As nothing is counted anew, late facts need no care, and the facts themselves
may be gone.

Facts that cannot be counted hold up nobody else's: where a round fails because of what is in it, each organisation is
counted apart, by halves, and the facts that are left go aside, to be looked at.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import asyncpg

from core import db
from services.metrics.families import FAMILIES, ROLLED, Family, Level

logger = logging.getLogger(__name__)

BATCH = 20_000
MOST_FAILURES = 200
"""Of one round that looks for facts that cannot be counted; the next one goes on."""
_LOCK = 0x726F6C6C
"""The first half of our advisory locks; the second is made of the kind of facts."""

_COUNT_BITS = 40
_COUNT = (1 << _COUNT_BITS) - 1
KEYS = ("organization_id", "dimensions", "at", "labels")
_VAST = frozenset({"input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"})
"""Sums of numbers that may fill their column: they stop at the largest that there is. Others cannot come near it."""
_LARGEST = 2**63 - 1

_UNCOUNTABLE = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""What comes of the facts themselves, and so again at each try."""


async def roll(*, batch: int = BATCH) -> int:
    """One round: count what is in line, at most `batch` facts of each kind; returns how many were counted."""
    return sum([await _roll(facts, batch) for facts in STATEMENTS])


async def _roll(facts: str, batch: int) -> int:
    try:
        async with db.transaction() as tx:
            if not await _alone(tx, facts):
                return 0
            return await tx.fetchval(STATEMENTS[facts], batch)  # type: ignore[no-any-return]
    except _UNCOUNTABLE:
        logger.exception("Facts (%s) cannot be counted; those of each organisation are counted apart.", facts)
    async with db.transaction() as tx:
        return await _apart(tx, facts, batch) if await _alone(tx, facts) else 0


async def _alone(tx: db.Transaction, facts: str) -> bool:
    """Whether there is something in line, and nobody else at it: two that add to the same rows would wait for each
    other, or worse."""
    if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCK, facts):
        return False
    return await tx.fetchval(f"SELECT EXISTS (SELECT FROM {facts}_pending)")  # type: ignore[no-any-return]


async def _apart(tx: db.Transaction, facts: str, batch: int) -> int:
    """Count what is in line by organisation, at most `batch` facts of each; what cannot be counted goes aside. Returns
    how many left the line."""
    rows = await tx.fetch(
        f"SELECT organization_id, array_agg(place) AS places FROM (SELECT organization_id, ctid AS place, "
        f"row_number() OVER (PARTITION BY organization_id) AS number FROM {facts}_pending) AS line "
        "WHERE number <= $1 GROUP BY 1 ORDER BY count(*), 1",
        batch,
    )
    done, failures = 0, 0
    # Each organisation as a whole first, so that none waits for another's halves; then one half after the other, so
    # that a round comes to the facts themselves however many of them fail.
    wholes: deque[list[Any]] = deque(row["places"] for row in rows)
    halves: list[list[Any]] = []
    while (wholes or halves) and failures < MOST_FAILURES:
        part = wholes.popleft() if wholes else halves.pop()
        try:
            async with tx.savepoint():
                done += await tx.fetchval(_OF_PLACES[facts], part)
        except _UNCOUNTABLE as error:
            failures += 1
            if len(part) > 1:
                halves += [part[: len(part) // 2], part[len(part) // 2 :]]
            else:
                await _set_aside(tx, facts, part, error)
                done += 1
    return done


async def _set_aside(tx: db.Transaction, facts: str, places: list[Any], error: Exception) -> None:
    reason = str(error).partition("\n")[0][:500]
    rows = await tx.fetch(
        f"WITH gone AS (DELETE FROM {facts}_pending WHERE ctid = ANY($1::tid[]) RETURNING *) "
        "INSERT INTO metric_set_aside (organization_id, facts, fact, reason) "
        "SELECT organization_id, $2, to_jsonb(gone), $3 FROM gone RETURNING id, organization_id",
        places,
        facts,
        reason,
    )
    for row in rows:
        logger.error(
            "A fact (%s) of organisation %s cannot be counted, and is in metric_set_aside as %s: %s",
            facts,
            row["organization_id"],
            row["id"],
            reason,
        )


def bucket_of(level: Level, column: str = "at") -> str:
    """SQL of the bucket that a time is in."""
    return f"date_bin('1 {level.value.lower()}', {column}, '2000-01-01T00:00:00Z')"


def _statement(facts: str, places: str) -> str:
    parts = [f"batch AS (DELETE FROM {facts}_pending WHERE ctid = ANY({places}) RETURNING *)"]
    for family in FAMILIES.values():
        if family.facts == facts:
            # A day is counted from what was counted by hour.
            parts.append(f"{family.name}_hour AS ({_counted(family, Level.HOUR)})")
            parts.append(f"{family.name}_minute AS ({_counted(family, Level.MINUTE)})")
            parts += [f"added_to_{family.name}_{level.suffix} AS ({_upsert(family, level)})" for level in ROLLED]
    return f"WITH {', '.join(parts)} SELECT count(*) FROM batch"


def _counted(family: Family, level: Level) -> str:
    """The measures of the batch by each of the family's sets of dimensions: each fact is read once, and what stands for
    a set (its name, the labels) is made of what was counted."""
    sets = family.sets_of(level)
    names = [name for name in family.dimensions if any(name in dimensions for dimensions in sets)]
    keys = {"organization_id": "organization_id", "at": bucket_of(level)}
    if family.histogram_of is not None:
        keys["bin"] = family.bin
    always = range(1, len(keys) + 1)
    place = {name: len(keys) + number for number, name in enumerate(names, 1)}
    keys |= {f"d{place[name]}": family.dimensions[name].column for name in names}
    columns = [family.dimensions[name].column for name in names]
    keys["left_out"] = f"grouping({', '.join(columns)})" if names else "0"
    grouped = ", ".join(f"({', '.join(map(str, [*always, *(place[name] for name in each)]))})" for each in sets)
    counted = family.counted("batch", "true", keys, f"GROUPING SETS ({grouped})")
    titles, labels = "", ""
    for dimensions in sets:
        left_out = sum(1 << (len(names) - 1 - number) for number, name in enumerate(names) if name not in dimensions)
        titles += f" WHEN {left_out} THEN '{','.join(dimensions)}'"
        labels += f" WHEN {left_out} THEN ARRAY[{', '.join(f'd{place[name]}::text' for name in dimensions)}]::text[]"
    return (
        f"SELECT organization_id, CASE left_out{titles} END AS dimensions, at, CASE left_out{labels} END AS labels, "
        f"{'bin, ' if family.histogram_of is not None else ''}{', '.join(family.measures)} FROM ({counted}) AS counted"
    )


def _upsert(family: Family, level: Level) -> str:
    source = f"{family.name}_{'minute' if level is Level.MINUTE else 'hour'}"
    at = bucket_of(level) if level is Level.DAY else "at"
    columns = list(family.measures)
    sums = [_held(f"sum({name})") if name in _VAST else f"sum({name})" for name in columns]
    sets = [f"{name} = coalesce({_added(name)}, kept.{name}, excluded.{name})" for name in columns]
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


def _added(name: str) -> str:
    if name in _VAST:
        return _held(f"kept.{name}::numeric + excluded.{name}")
    return f"kept.{name} + excluded.{name}"


def _held(number: str) -> str:
    """A numeric as a bigint that does not overflow; null stays null, as least() would not have it."""
    return f"CASE WHEN {number} > {_LARGEST} THEN {_LARGEST} ELSE ({number})::bigint END"


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


STATEMENTS = {
    facts: _statement(facts, f"ARRAY(SELECT ctid FROM {facts}_pending LIMIT $1)")
    for facts in dict.fromkeys(family.facts for family in FAMILIES.values())
}
_OF_PLACES = {facts: _statement(facts, "$1::tid[]") for facts in STATEMENTS}
