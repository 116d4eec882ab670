"""What was spent over a time: the sum of the whole days, hours and ten minutes in it, and of the entries at its ends.

So it is exact to the moment, and the work does not grow with the number of entries: a month is some thirty days, and
at each of its ends less than a day of hours, an hour of tens of minutes, and ten minutes of entries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID

Fetch = Callable[..., Awaitable[list[Any]]]

NOBODY = UUID(int=0)
"""In place of a user or a template where there is none."""

FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)
"""The end of a window that has none: what happens in another process, whose clock may be ahead, counts too."""


MOST_TOKENS = 2**63 - 1
"""More are no number that anybody reads: a sum stops there."""


class Unit(IntEnum):
    """What spending is added up by, in UTC. A MOMENT is that of a single entry."""

    MOMENT = 0
    TEN_MINUTES = 1
    HOUR = 2
    DAY = 3


LENGTHS = {Unit.TEN_MINUTES: timedelta(minutes=10), Unit.HOUR: timedelta(hours=1), Unit.DAY: timedelta(days=1)}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Spender(StrEnum):
    """Whose spending it is."""

    ORGANIZATION = "ORGANIZATION"
    USER = "USER"
    TEMPLATE = "TEMPLATE"


@dataclass(frozen=True, slots=True)
class Window:
    """What these spent together from `start` (inclusive) to `end`."""

    spender: Spender
    ids: Sequence[UUID]
    start: datetime
    end: datetime = FOR_EVER


@dataclass(frozen=True, slots=True)
class Spent:
    """A sum. `unpriced` counts entries whose cost nobody knows: they are not in `usd`."""

    usd: Decimal
    tokens: int
    unpriced: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a window that is read as it is: whole ten minutes, hours or days, or entries one by one (MOMENT)."""

    unit: Unit
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Excess:
    """How much has to leave a window; None for any."""

    window: Window
    usd: Decimal | None
    """More than so much."""
    tokens: int | None


def pieces(start: datetime, end: datetime) -> list[Piece]:
    """The time from `start` to `end` in the largest pieces there are, in order; each is there once."""
    before, after = [], []
    for unit, length in zip(Unit, LENGTHS.values(), strict=False):
        first = min(-((_EPOCH - start) // length) * length + _EPOCH, end)
        last = max((end - _EPOCH) // length * length + _EPOCH, first)
        before.append(Piece(unit, start, first))
        after.append(Piece(unit, last, end))
        start, end = first, last
    found = [*before, Piece(Unit.DAY, start, end), *reversed(after)]
    return [piece for piece in found if piece.start < piece.end]


async def spent_in(fetch: Fetch, windows: Sequence[Window]) -> list[Spent]:
    """What was spent in each: one statement for all."""
    rows = await fetch(
        _SUMS,
        *_arrays([(number, window, pieces(window.start, window.end)) for number, window in enumerate(windows)]),
    )
    found = {row["number"]: Spent(row["usd"], row["tokens"], row["unpriced"]) for row in rows}
    return [found.get(number, Spent(Decimal(0), 0, 0)) for number in range(len(windows))]


async def gone_with(fetch: Fetch, wanted: Sequence[Excess]) -> list[datetime | None]:
    """The moment of the entry with which, if the oldest leave first, enough has left each window; None: not even all of
    it is enough.

    One statement finds the day, the next the hour in it, and so on: four at most, for all of them.
    """
    found: list[datetime | None] = [None] * len(wanted)
    looking = {
        number: (each.usd, each.tokens, pieces(each.window.start, each.window.end))
        for number, each in enumerate(wanted)
    }
    while looking:
        rows = await fetch(
            _FIRST,
            *_arrays([(number, wanted[number].window, within) for number, (_, _, within) in looking.items()]),
            list(looking),
            [usd for usd, _, _ in looking.values()],
            [tokens for _, tokens, _ in looking.values()],
        )
        was, looking = looking, {}
        for row in rows:
            number, unit, at = row["number"], Unit(row["unit"]), row["at"]
            if unit is Unit.MOMENT:
                found[number] = at
                continue
            usd, tokens, _ = was[number]
            looking[number] = (
                None if usd is None else usd - row["usd_before"],
                # Below nothing it does not matter by how much.
                None if tokens is None else max(tokens - row["tokens_before"], -1),
                [Piece(Unit(unit - 1), at, at + LENGTHS[unit])],
            )
    return found


def _arrays(given: Sequence[tuple[int, Window, Sequence[Piece]]]) -> list[list[Any]]:
    within = [
        (number, window.spender.value, piece.unit.value, piece.start, piece.end)
        for number, window, parts in given
        for piece in parts
    ]
    whose = [(number, id_) for number, window, _ in given for id_ in window.ids]
    return [[row[column] for row in within] for column in range(5)] + [
        [row[column] for row in whose] for column in (0, 1)
    ]


# By whose index entries are found. Without a template there is nothing in the index; nobody has a budget.
_ENTRIES = {
    Spender.ORGANIZATION: "spent.organization_id = ANY(whose.ids)",
    Spender.USER: f"spent.user_id = ANY(whose.ids) AND spent.user_id <> '{NOBODY}'",
    Spender.TEMPLATE: f"spent.template_id = ANY(whose.ids) AND spent.template_id <> '{NOBODY}'",
}
_PARTS = """
unnest($1::int[], $2::text[], $3::smallint[], $4::timestamptz[], $5::timestamptz[])
    AS part (number, spender, unit, first, last)
CROSS JOIN LATERAL (
    SELECT array_agg(id) AS ids FROM unnest($6::int[], $7::uuid[]) AS each_one (number, id)
    WHERE each_one.number = part.number
) AS whose
"""
_SPENT = " UNION ALL ".join(
    [
        "SELECT spent.at, spent.cost_usd AS usd, spent.tokens, spent.unpriced FROM spend_sums AS spent "
        "WHERE part.unit > 0 AND spent.spender_id = ANY(whose.ids) AND spent.unit = part.unit "
        "AND spent.at >= part.first AND spent.at < part.last",
        *(
            "SELECT spent.at, coalesce(spent.cost_usd, 0), spent.tokens, (spent.cost_usd IS NULL)::int "
            f"FROM spend_entries AS spent WHERE part.unit = 0 AND part.spender = '{spender}' AND {condition} "
            "AND spent.at >= part.first AND spent.at < part.last"
            for spender, condition in _ENTRIES.items()
        ),
    ]
)
_SUMS = f"""
SELECT part.number, coalesce(sum(sums.usd), 0) AS usd,
    least(coalesce(sum(sums.tokens), 0), {MOST_TOKENS})::bigint AS tokens,
    coalesce(sum(sums.unpriced), 0)::int AS unpriced
FROM {_PARTS} CROSS JOIN LATERAL (
    SELECT sum(usd) AS usd, sum(tokens) AS tokens, sum(unpriced) AS unpriced FROM ({_SPENT}) AS spent
) AS sums GROUP BY part.number
"""
_FIRST = f"""
SELECT DISTINCT ON (number) number, unit, at, usd_up_to - usd AS usd_before,
    least(tokens_up_to - tokens, {MOST_TOKENS})::bigint AS tokens_before
FROM (
    SELECT number, unit, at, usd, tokens, sum(usd) OVER past AS usd_up_to, sum(tokens) OVER past AS tokens_up_to
    FROM {_PARTS} CROSS JOIN LATERAL (
        SELECT at, sum(usd) AS usd, sum(tokens) AS tokens FROM ({_SPENT}) AS spent GROUP BY at
    ) AS sums WINDOW past AS (PARTITION BY number ORDER BY at)
) AS in_order
JOIN unnest($8::int[], $9::numeric[], $10::bigint[]) AS wanted (number, usd_over, tokens_over) USING (number)
WHERE (usd_over IS NULL OR usd_up_to > usd_over) AND (tokens_over IS NULL OR tokens_up_to > tokens_over)
ORDER BY number, at
"""
