"""The built-in prices: those of the library genai-prices, which also prices runs.

The library says what a price was when: by date, and for some models by the time of the day and by the size of the
request. All of it becomes rates. Per-request and per-search fees are not about tokens and are left out, as is the
dearer price of caches that live for an hour: usage does not say how long a cache lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache

import genai_prices
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from services.costs.rates import Rate

NAME = f"genai-prices {genai_prices.__version__}"
"""The built-in table of this version of the product."""

# What our runtimes call the provider, where the library has another word for it.
_PROVIDERS = {"openai-chat": "openai", "openai-responses": "openai", "google-gla": "google", "google-vertex": "google"}
_MIDNIGHT = time(0)


def split_name(model: str, provider: str | None) -> tuple[str | None, str]:
    """(provider, model) of a model as sessions and telemetry name it: `anthropic:claude-…` says both."""
    if provider is None and ":" in model:
        before, _, after = model.partition(":")
        # `model:tag` is a name of its own; only a provider that the library knows is taken off.
        if after and _known_provider(_PROVIDERS.get(before, before)):
            provider, model = before, after
    if provider is not None:
        provider = provider.casefold()
        model = model.removeprefix(f"{provider}:")
        provider = _PROVIDERS.get(provider, provider)
    return provider, model


@lru_cache(4096)
def library_rates(provider: str | None, model: str) -> tuple[Rate, ...]:
    """What the library says of a model; nothing where it does not know it, or has no price of its tokens."""
    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return ()
    dates = _dates(found)
    days = [None, *dates]
    found_rates: list[Rate] = []
    for start, end in zip(days, [*dates, None], strict=True):
        for daily_from, daily_to in _parts_of_the_day(found):
            # The library itself says what holds in this cell: it decides which of several conditions goes first.
            day = start or (end or datetime(2000, 1, 1, tzinfo=UTC)) - timedelta(days=1)
            prices = found.get_prices(datetime.combine(day.date(), daily_from or _MIDNIGHT, tzinfo=UTC))
            found_rates += _by_size(prices, start, end, daily_from, daily_to)
    return tuple(found_rates)


@lru_cache(512)
def _known_provider(name: str) -> bool:
    try:
        get_snapshot().find_provider(None, name, None)
    except LookupError:
        return False
    return True


def _dates(model: ModelInfo) -> list[datetime]:
    if isinstance(model.prices, ModelPrice):
        return []
    return sorted(
        {
            datetime.combine(price.constraint.start_date, _MIDNIGHT, tzinfo=UTC)
            for price in model.prices
            if isinstance(price.constraint, StartDateConstraint)
        }
    )


def _parts_of_the_day(model: ModelInfo) -> Sequence[tuple[time | None, time | None]]:
    if isinstance(model.prices, ModelPrice):
        return [(None, None)]
    edges = sorted(
        {
            _utc(edge)
            for price in model.prices
            if isinstance(price.constraint, TimeOfDateConstraint)
            for edge in (price.constraint.start_time, price.constraint.end_time)
        }
        | {_MIDNIGHT}
    )
    if edges == [_MIDNIGHT]:
        return [(None, None)]
    return list(zip(edges, [*edges[1:], None], strict=True))


def _utc(edge: time) -> time:
    if edge.tzinfo is None:
        return edge
    return datetime.combine(datetime(2000, 1, 2).date(), edge).astimezone(UTC).time()


def _by_size(
    prices: ModelPrice,
    start: datetime | None,
    end: datetime | None,
    daily_from: time | None,
    daily_to: time | None,
) -> list[Rate]:
    given = {
        "input": prices.input_mtok,
        "output": prices.output_mtok,
        "cache_read": prices.cache_read_mtok,
        "cache_write": prices.cache_write_mtok,
    }
    if all(price is None for price in given.values()):
        return []
    # As the library has it: tokens from and to a cache that have no price of their own cost what input does.
    for kind in ("cache_read", "cache_write"):
        given[kind] = given[kind] if given[kind] is not None else given["input"]
    edges = sorted({tier.start for price in given.values() if isinstance(price, TieredPrices) for tier in price.tiers})
    return [
        Rate(
            **{kind: _at_size(price, above) for kind, price in given.items()},
            start=start,
            end=end,
            daily_from=daily_from,
            daily_to=daily_to,
            above=above,
            up_to=up_to,
        )
        for above, up_to in zip([-1, *edges], [*edges, None], strict=True)
    ]


def _at_size(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= above), price.base)
