"""Price tables of an organisation: a draft that is worked on, and versions that stay what they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

from core.errors import BadInput, Conflict, IllegalTransition, LimitExceeded, NotFound
from core.ids import new_id
from core.permissions import Actor, Permission
from models.costs import ModelPriceTableRow
from services import idempotency
from services.costs.prices import built_in_table
from services.costs.rates import text
from services.work import Work, write

MOST_ROWS = 1000
MOST_TIERS = 10
MOST_DRAFTS = 100
LONGEST_NOTE = 2000
DEAREST = Decimal(1_000_000)
"""US dollars per million tokens: a dollar a token. What is dearer is a slip of the pen."""
FINEST = Decimal("0.000000001")
MOST_TOKENS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. Without a price of their own, tokens from and to a cache cost what input does."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None


@dataclass(frozen=True, slots=True)
class NewTier:
    """Prices of requests that read more tokens than `above`."""

    above: int
    prices: Prices


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A row of a table: for whom, when, how much."""

    model: str
    prices: Prices
    provider: str | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None
    tiers: Sequence[NewTier] = field(default_factory=tuple)


async def create_price_table(
    actor: Actor, *, note: str, rows: Sequence[NewPrice], key: str | None = None
) -> ModelPriceTableRow:
    """A draft. Raises BadInput with all that is wrong."""
    check_rows(rows, note)
    async with write(actor, "priceTable.create") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        given = {"note": note, "rows": [asdict(row) for row in rows]}
        found = await idempotency.claim(work, "createPriceTable", key, given)
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return await _table(work, found.earlier)
        await _hold(work)
        drafts = await work.tx.fetchval(
            "SELECT count(*) FROM model_price_tables WHERE organization_id = $1 AND published_at IS NULL",
            actor.organization_id,
        )
        if drafts >= MOST_DRAFTS:
            raise LimitExceeded(f"There are {drafts} drafts of price tables already: publish or rewrite one of them.")
        await work.tx.execute(
            "INSERT INTO model_price_tables (id, organization_id, based_on, note, author_id, created_at) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            found.result_id,
            actor.organization_id,
            await _newest(work),
            note,
            actor.user_id,
            work.at,
        )
        await _store(work, found.result_id, rows)
        work.target("ModelPriceTable", found.result_id, note[:100])
        work.changed(after={"note": note, "rows": len(rows)})
        return await _table(work, found.result_id)


async def update_price_table(
    actor: Actor, table_id: UUID, *, note: str | None, rows: Sequence[NewPrice] | None
) -> ModelPriceTableRow:
    """Write a draft anew, on the basis of what is published by now. Raises IllegalTransition where it is published."""
    check_rows(rows or (), note or "")
    async with write(actor, "priceTable.update") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        await _hold(work)
        table = await _draft(work, table_id)
        await work.tx.execute(
            "UPDATE model_price_tables SET note = $2, based_on = $3 WHERE id = $1",
            table_id,
            table["note"] if note is None else note,
            await _newest(work),
        )
        if rows is not None:
            await work.tx.execute("DELETE FROM model_prices WHERE table_id = $1", table_id)
            await _store(work, table_id, rows)
        work.changed(before={"note": table["note"]}, after={"note": note, "rows": None if rows is None else len(rows)})
        return await _table(work, table_id)


async def publish_price_table(actor: Actor, table_id: UUID) -> ModelPriceTableRow:
    """Make a draft the organisation's newest table. It never changes after this.

    Raises Conflict where somebody has published another one since the draft was last written: it takes that one's
    place as a whole, so its author should have seen it. Publishing what is published gives it as it is.
    """
    base = await built_in_table()
    async with write(actor, "priceTable.publish") as work:
        actor.require(Permission.BUDGETS_MANAGE)
        await _hold(work)
        table = await _table(work, table_id)
        if table["published_at"] is not None:
            work.target("ModelPriceTable", table_id, f"version {table['number']}")
            work.entry.details = {"repeated": True}
            return table
        newest = await _newest(work)
        if newest != table["based_on"]:
            raise Conflict(
                f"Version {newest} has been published since this draft was last written. Look at it, take over what "
                "you want (updatePriceTable), and publish then.",
                field="priceTableId",
                newest=newest,
            )
        await work.tx.execute(
            "UPDATE model_price_tables SET number = $2, base_id = $3, published_at = $4 WHERE id = $1",
            table_id,
            newest + 1,
            base["id"],
            work.at,
        )
        work.target("ModelPriceTable", table_id, f"version {newest + 1}")
        work.changed(before={"number": newest or None}, after={"number": newest + 1, "base": base["built_in"]})
        return await _table(work, table_id)


def check_rows(rows: Sequence[NewPrice], note: str) -> None:
    """Raises BadInput, naming everything that is wrong."""
    if len(note) > LONGEST_NOTE or "\0" in note:
        raise BadInput(f"A note has at most {LONGEST_NOTE} characters, and no NUL.", field="note")
    if len(rows) > MOST_ROWS:
        raise BadInput(f"A table has at most {MOST_ROWS} rows; these are {len(rows)}.", field="rows")
    problems: list[tuple[str, str]] = []
    for number, row in enumerate(rows):
        place = f"rows[{number}]"
        for name, pattern, longest in (("model", row.model, 200), ("provider", row.provider, 100)):
            if pattern is not None and not (
                1 <= len(pattern.strip()) == len(pattern) <= longest and "\0" not in pattern
            ):
                problems.append((f"{place}.{name}", f"is 1 to {longest} characters without spaces around them"))
        if row.effective_from is not None and row.effective_to is not None and row.effective_from >= row.effective_to:
            problems.append((f"{place}.effectiveTo", "lies after effectiveFrom"))
        problems += _check_prices(row.prices, place)
        if len(row.tiers) > MOST_TIERS:
            problems.append((f"{place}.tiers", f"has at most {MOST_TIERS} tiers"))
        for tier_number, tier in enumerate(row.tiers):
            below = row.tiers[tier_number - 1].above if tier_number else 0
            if not below < tier.above <= MOST_TOKENS:
                problems.append(
                    (f"{place}.tiers[{tier_number}].above", f"is over {below} and at most {MOST_TOKENS}, ascending")
                )
            problems += _check_prices(tier.prices, f"{place}.tiers[{tier_number}]")
    problems += _overlaps(rows)
    if problems:
        raise BadInput.of_fields(problems[:50])


def _check_prices(prices: Prices, place: str) -> list[tuple[str, str]]:
    found = []
    for name, value in (
        ("input", prices.input),
        ("output", prices.output),
        ("cacheRead", prices.cache_read),
        ("cacheWrite", prices.cache_write),
    ):
        if value is None:
            continue
        if not value.is_finite() or not 0 <= value <= DEAREST:
            found.append((f"{place}.{name}", f"is 0 to {DEAREST} US dollars per million tokens"))
        elif value != value.quantize(FINEST):
            found.append((f"{place}.{name}", "has at most 9 digits after the point"))
    return found


def _overlaps(rows: Sequence[NewPrice]) -> list[tuple[str, str]]:
    """Rows of the same patterns that hold at the same time: one of them would never be used."""
    same: dict[tuple[str | None, str], list[int]] = {}
    for number, row in enumerate(rows):
        same.setdefault((row.provider and row.provider.casefold(), row.model.casefold()), []).append(number)
    found = []
    for numbers in same.values():
        numbers.sort(key=lambda number: _since(rows[number]))
        for first, second in pairwise(numbers):
            if _overlap(rows[first], rows[second]):
                found.append((f"rows[{second}].effectiveFrom", f"overlaps with rows[{first}], which is for the same"))
    return found


def _since(row: NewPrice) -> datetime:
    return row.effective_from or datetime.min.replace(tzinfo=UTC)


def _overlap(one: NewPrice, other: NewPrice) -> bool:
    return (one.effective_to is None or other.effective_from is None or other.effective_from < one.effective_to) and (
        other.effective_to is None or one.effective_from is None or one.effective_from < other.effective_to
    )


async def _store(work: Work, table_id: UUID, rows: Sequence[NewPrice]) -> None:
    await work.tx.executemany(
        "INSERT INTO model_prices (id, table_id, position, provider, model, effective_from, effective_to, input, "
        "output, cache_read, cache_write, tiers) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        [
            (
                new_id(),
                table_id,
                position,
                row.provider,
                row.model,
                row.effective_from,
                row.effective_to,
                row.prices.input,
                row.prices.output,
                row.prices.cache_read,
                row.prices.cache_write,
                [_stored_tier(tier) for tier in row.tiers],
            )
            for position, row in enumerate(rows)
        ],
    )


def _stored_tier(tier: NewTier) -> dict[str, Any]:
    return {"above": tier.above} | {name: text(value) for name, value in asdict(tier.prices).items()}


async def _hold(work: Work) -> None:
    """One at a time in an organisation: two publications must not both be the next number."""
    await work.tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"prices:{work.actor.organization_id}"
    )


async def _newest(work: Work) -> int:
    return await work.tx.fetchval(  # type: ignore[no-any-return]
        "SELECT coalesce(max(number), 0) FROM model_price_tables WHERE organization_id = $1",
        work.actor.organization_id,
    )


async def _draft(work: Work, table_id: UUID) -> ModelPriceTableRow:
    table = await _table(work, table_id)
    work.target("ModelPriceTable", table_id, table["note"][:100])
    if table["published_at"] is not None:
        raise IllegalTransition(
            f"Version {table['number']} is published, and stays what it is: make a new draft (createPriceTable).",
            field="priceTableId",
        )
    return table


async def _table(work: Work, table_id: UUID) -> ModelPriceTableRow:
    found = await work.tx.fetchrow(
        "SELECT * FROM model_price_tables WHERE id = $1 AND organization_id = $2",
        table_id,
        work.actor.organization_id,
        row=ModelPriceTableRow,
    )
    if found is None:
        raise NotFound("There is no such price table of your organisation.", field="priceTableId")
    return found
