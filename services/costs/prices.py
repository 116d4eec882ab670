"""Which rates a price table has for the models that were used, and the SQL that prices usage with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from core import db
from core.errors import IllegalTransition, NotFound
from core.ids import new_id
from core.permissions import Actor
from models.base import Query
from models.costs import ModelPriceRow, ModelPriceTable, ModelPriceTableRow
from services.costs import built_in
from services.costs.rates import KINDS, Rate, load_rate, within

Pair = tuple[str | None, str | None]
"""Provider and model as usage names them."""

_ENSURE = """
INSERT INTO model_price_tables (id, built_in, number, based_on, note, created_at, published_at)
VALUES ($1, $2, NULL, 0, $3, now(), now()) ON CONFLICT DO NOTHING
"""
_NEWEST = """
SELECT * FROM model_price_tables WHERE organization_id = $1 AND published_at IS NOT NULL ORDER BY number DESC LIMIT 1
"""
_BUILT_IN = "SELECT * FROM model_price_tables WHERE built_in = $1"

# The tables of built-in prices that this process has written down already.
_written: set[tuple[UUID, str, str]] = set()
_MOST_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Tokens:
    """How many tokens of each kind some usage has; None where it is not known."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None

    def known(self) -> dict[str, int]:
        """By kind, without those that are not known."""
        return {kind: count for kind in KINDS if (count := getattr(self, kind)) is not None}


async def built_in_table() -> ModelPriceTableRow:
    """The built-in table of this version of the product, made where it is not there yet."""
    found = await db.fetchrow(_BUILT_IN, built_in.NAME, row=ModelPriceTableRow)
    if found is None:
        note = "The prices of the library that comes with the product."
        await db.execute(_ENSURE, new_id(), built_in.NAME, note)
        found = await db.fetchrow(_BUILT_IN, built_in.NAME, row=ModelPriceTableRow)
    assert found is not None
    return found


async def price_table(actor: Actor, table_id: UUID | None, *, field: str) -> ModelPriceTableRow:
    """A published table; without an id the organisation's newest one, and the built-in one where it has none.

    Raises NotFound, IllegalTransition for a draft.
    """
    if table_id is None:
        newest = await db.fetchrow(_NEWEST, actor.organization_id, row=ModelPriceTableRow)
        return newest or await built_in_table()
    query = Query()
    found = await db.fetchrow(
        f"SELECT * FROM model_price_tables WHERE id = {query.arg(table_id)} "
        f"AND {query.scope(ModelPriceTable.visible_to(actor))}",
        *query.args,
        row=ModelPriceTableRow,
    )
    if found is None:
        raise NotFound("There is no such price table, or you may not see it.", field=field)
    if found["published_at"] is None:
        raise IllegalTransition("This price table is a draft: publish it first (publishPriceTable).", field=field)
    return found


async def rates_of(table: ModelPriceTableRow, pairs: Collection[Pair]) -> dict[Pair, list[Rate]]:
    """The rates of models in a table: of each pair those that hold at some time, and none where it is not known."""
    names = {pair: built_in.split_name(pair[1], pair[0]) for pair in pairs if pair[1] is not None}
    if table["built_in"] is not None:
        base = await _built_in_rates(table["id"], table["built_in"], set(names.values()))
        return {pair: base[name] for pair, name in names.items()}
    library = await db.fetchval("SELECT built_in FROM model_price_tables WHERE id = $1", table["base_id"])
    base = await _built_in_rates(table["base_id"], library, set(names.values()))
    rows = await db.fetch(
        "SELECT * FROM model_prices WHERE table_id = $1 ORDER BY position", table["id"], row=ModelPriceRow
    )
    return {pair: _over(base[name], rows, *name) for pair, name in names.items()}


async def newest_table(organization_id: UUID) -> ModelPriceTableRow:
    """The table that an organisation's usage is priced with as it happens."""
    return await db.fetchrow(_NEWEST, organization_id, row=ModelPriceTableRow) or await built_in_table()


async def price_of(organization_id: UUID, pair: Pair, tokens: Tokens, requests: int, at: Any) -> Decimal | None:
    """What some usage costs by the organisation's newest table; None where that is not known."""
    rates = await rates_of(await newest_table(organization_id), [pair])
    return price_by(rates.get(pair, ()), tokens, requests, at)


def price_by(rates: Sequence[Rate], tokens: Tokens, requests: int, at: Any) -> Decimal | None:
    """What some usage costs by the rates of its model; None where that is not known. Of no requests nobody knows how
    many there were, nor how large: they have the price of small ones."""
    known = tokens.known()
    read = sum(count for kind, count in known.items() if kind != "output")
    size = -(-read // requests) if requests else 0
    for rate in rates:
        if known and rate.holds(at, size):
            return rate.cost(known)
    return None


def matches(pattern: str | None, name: str | None) -> bool:
    """Whether a name fits a pattern, in which `*` stands for any characters. No pattern fits everything."""
    return pattern is None or (name is not None and _expression(pattern).fullmatch(name) is not None)


@lru_cache(4096)
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.IGNORECASE | re.DOTALL)


def rates_sql(query: Query, rates: Mapping[Pair, Sequence[Rate]]) -> str:
    """A SELECT of rates with a number each, for a CTE. `tiered_from` is where a model's price begins to depend on the
    size of requests."""
    rows = [
        (
            number,
            provider or "",
            model or "",
            rate,
            min((one.up_to for one in found if one.up_to is not None), default=None),
        )
        for number, (provider, model, rate, found) in enumerate(
            (provider, model, rate, found) for (provider, model), found in rates.items() for rate in found
        )
    ]
    columns = [
        ("int", [row[0] for row in rows]),
        ("text", [row[1] for row in rows]),
        ("text", [row[2] for row in rows]),
        ("bigint", [row[4] for row in rows]),
        *(
            (kind, [getattr(row[3], name) for row in rows])
            for name, kind in (
                ("start", "timestamptz"),
                ("end", "timestamptz"),
                ("daily_from", "time"),
                ("daily_to", "time"),
                ("above", "bigint"),
                ("up_to", "bigint"),
                *((kind, "numeric") for kind in KINDS),
            )
        ),
    ]
    arrays = ", ".join(f"{query.arg(values)}::{kind}[]" for kind, values in columns)
    return (
        "SELECT number, provider, model, tiered_from, coalesce(starts, '-infinity') AS starts, "
        "coalesce(ends, 'infinity') AS ends, coalesce(daily_from, '00:00') AS daily_from, "
        "coalesce(daily_to, '24:00') AS daily_to, above, up_to, input, output, cache_read, cache_write "
        f"FROM unnest({arrays}) AS given (number, provider, model, tiered_from, starts, ends, daily_from, daily_to, "
        "above, up_to, input, output, cache_read, cache_write)"
    )


READS = (
    "(coalesce(facts.input_tokens, 0) + coalesce(facts.cache_read_tokens, 0) + coalesce(facts.cache_write_tokens, 0))"
)
"""Tokens that a fact's requests read: what prices by size go by."""

_SIZED = f"CASE facts.requests WHEN 0 THEN 0 ELSE {READS} END"

# Facts of several requests do not say which read how much: their average decides (`estimated` says where it matters).
# Those of none, which metrics make, do not even say how many there were: they have the price of small ones.
# A kind that has tokens and no price leaves the whole fact without one.
JOIN_RATES = f"""
LEFT JOIN rates ON rates.model = coalesce(facts.model, '') AND rates.provider = coalesce(facts.provider, '')
    AND facts.at >= rates.starts AND facts.at < rates.ends
    AND (facts.at AT TIME ZONE 'UTC')::time >= rates.daily_from AND (facts.at AT TIME ZONE 'UTC')::time < rates.daily_to
    AND {_SIZED} > rates.above * greatest(facts.requests, 1)
    AND (rates.up_to IS NULL OR {_SIZED} <= rates.up_to * greatest(facts.requests, 1))
    AND {" AND ".join(f"(rates.{kind} IS NOT NULL OR coalesce(facts.{kind}_tokens, 0) = 0)" for kind in KINDS)}
"""
ESTIMATED = f"coalesce(facts.requests <> 1 AND {READS} > rates.tiered_from, false)"


async def _built_in_rates(
    table_id: UUID, library: str, names: Collection[tuple[str | None, str]]
) -> dict[tuple[str | None, str], list[Rate]]:
    """Of the library itself where it has this version; else what it said when these models were priced with it."""
    if library == built_in.NAME:
        found = {name: list(built_in.library_rates(*name)) for name in names}
        await _write_down(table_id, found)
        return found
    kept = {
        (row["provider"] or None, row["model"]): [load_rate(rate) for rate in row["rates"]]
        for row in await db.fetch(
            "SELECT provider, model, rates FROM built_in_prices WHERE table_id = $1 AND model = ANY($2)",
            table_id,
            list({model for _, model in names}),
        )
    }
    return {name: kept.get(name, []) for name in names}


async def _write_down(table_id: UUID, found: Mapping[tuple[str | None, str], Sequence[Rate]]) -> None:
    """So that figures of today can be had again after the library has changed."""
    fresh: list[dict[str, Any]] = [
        {"provider": provider or "", "model": model, "rates": [rate.stored() for rate in rates]}
        for (provider, model), rates in found.items()
        if rates and (table_id, provider or "", model) not in _written
    ]
    if not fresh:
        return
    await db.execute(
        "INSERT INTO built_in_prices (table_id, provider, model, rates) SELECT $1, given.* "
        "FROM jsonb_to_recordset($2) AS given (provider text, model text, rates jsonb) ON CONFLICT DO NOTHING",
        table_id,
        fresh,
    )
    if len(_written) > _MOST_REMEMBERED:
        _written.clear()
    _written.update((table_id, row["provider"], row["model"]) for row in fresh)


def _over(base: Sequence[Rate], rows: Sequence[ModelPriceRow], provider: str | None, model: str) -> list[Rate]:
    """The rows that fit lie over what is built in: at each time the first of them, and the built-in price where there
    is none."""
    fitting = [row for row in rows if matches(row["provider"], provider) and matches(row["model"], model)]
    edges = sorted(
        {edge for row in fitting for edge in (row["effective_from"], row["effective_to"]) if edge is not None}
    )
    found: list[Rate] = []
    for start, end in zip([None, *edges], [*edges, None], strict=True):
        row = next((row for row in fitting if _covers(row, start, end)), None)
        found += within(base if row is None else _rates_of_row(row), start, end)
    return found


def _covers(row: ModelPriceRow, start: Any, end: Any) -> bool:
    return (row["effective_from"] is None or (start is not None and row["effective_from"] <= start)) and (
        row["effective_to"] is None or (end is not None and end <= row["effective_to"])
    )


def _rates_of_row(row: ModelPriceRow) -> list[Rate]:
    prices = [(-1, {kind: row[kind] for kind in KINDS})]
    prices += [
        (tier["above"], {kind: None if tier[kind] is None else Decimal(tier[kind]) for kind in KINDS})
        for tier in row["tiers"]
    ]
    edges = [above for above, _ in prices]
    found = []
    for (above, given), up_to in zip(prices, [*edges[1:], None], strict=True):
        for kind in ("cache_read", "cache_write"):
            given[kind] = given[kind] if given[kind] is not None else given["input"]
        found.append(Rate(**given, above=above, up_to=up_to))
    return found
