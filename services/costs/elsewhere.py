"""Spending of agents that run elsewhere, as telemetry tells it: put into the ledger in the transaction of its facts.

It cannot be refused, as it has happened; it uses budgets up like any other, in the windows that its own time lies in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from core import db
from services.costs.ledger import Entry, enter
from services.costs.prices import Pair, Tokens, newest_table, price_by, rates_of
from services.costs.rates import KINDS, Rate
from services.costs.windows import NOBODY

Usage = Mapping[str, Any]
"""A row of `usage_facts`. It may have `priced_requests`, where it is known of how many requests these tokens are and
another row counts them: prices that depend on the size of a request go by it."""


class Prices:
    """What models cost by the newest prices of an organisation. Read it before the transaction begins."""

    def __init__(self, rates: Mapping[Pair, Sequence[Rate]]) -> None:
        self._rates = rates

    @classmethod
    async def of(cls, organization_id: UUID, models: Collection[Pair]) -> Prices:
        """Of these models, as (provider, model)."""
        return cls(await rates_of(await newest_table(organization_id), models) if models else {})

    def price(self, usage: Usage) -> Decimal | None:
        """None where that is not known."""
        tokens = Tokens(*(usage.get(f"{kind}_tokens") for kind in KINDS))
        rates = self._rates.get((usage.get("provider"), usage.get("model")), ())
        return price_by(rates, tokens, usage.get("priced_requests", usage["requests"]), usage["at"])


def entries(organization_id: UUID, facts: Sequence[tuple[UUID, Usage]], prices: Prices, *, told: bool) -> list[Entry]:
    """Entries of a service's facts, each under the id that names it. Where its costs are `told`, tokens have none of
    their own: what they cost is in the facts that tell it."""
    found = []
    for usage_id, usage in facts:
        cost = usage.get("cost_usd")
        if cost is None:
            cost = Decimal(0) if told else prices.price(usage)
        found.append(
            Entry(
                usage_id=usage_id,
                part=0,
                organization_id=organization_id,
                user_id=usage.get("user_id") or NOBODY,
                template_id=NOBODY,
                at=usage["at"],
                cost_usd=cost,
                tokens=sum(usage.get(f"{kind}_tokens") or 0 for kind in KINDS),
            )
        )
    return found


async def spend(tx: db.Transaction, found: Sequence[Entry]) -> set[UUID]:
    """Enter what was used; returns whose it is, NOBODY among them, where any is new."""
    return {entry.user_id for entry in found} if await enter(tx, found) else set()
