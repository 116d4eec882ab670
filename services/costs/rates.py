"""Rates: what the tokens of one model cost, when, and for requests of which size. Decimals throughout, never floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, TypeVar

T = TypeVar("T")

KINDS = ("input", "output", "cache_read", "cache_write")
"""The four kinds of tokens; each token is of one of them."""

PER = Decimal("0.000001")
"""Prices are in US dollars per million tokens. Multiplying with this is exact, where dividing would not be."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Prices in US dollars per million tokens, None where there is none for that kind.

    They hold from `start` (None: since ever) up to `end` (None: for ever), between two times of the UTC day (None: its
    beginning, its end), for requests that read more than `above` and at most `up_to` tokens (None: any more), cached
    ones included.
    """

    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None
    start: datetime | None = None
    end: datetime | None = None
    daily_from: time | None = None
    daily_to: time | None = None
    above: int = -1
    up_to: int | None = None

    def holds(self, at: datetime, context: int) -> bool:
        """Whether it is the rate of a request at this moment that reads this many tokens."""
        at = at.astimezone(UTC)
        return (
            (self.start is None or self.start <= at)
            and (self.end is None or at < self.end)
            and (self.daily_from is None or self.daily_from <= at.time())
            and (self.daily_to is None or at.time() < self.daily_to)
            and self.above < context
            and (self.up_to is None or context <= self.up_to)
        )

    def cost(self, tokens: Mapping[str, int]) -> Decimal | None:
        """What these tokens, by kind, cost; None where one of the kinds that there are has no price."""
        total = Decimal(0)
        for kind in KINDS:
            count = tokens.get(kind) or 0
            price = getattr(self, kind)
            if count and price is None:
                return None
            total += count * (price or 0) * PER
        return total

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = {kind: text(getattr(self, kind)) for kind in KINDS}
        for name in ("start", "end", "daily_from", "daily_to"):
            value = getattr(self, name)
            found[name] = None if value is None else value.isoformat()
        return found | {"above": self.above, "up_to": self.up_to}


def load_rate(stored: Mapping[str, Any]) -> Rate:
    """A rate as it was stored."""
    return Rate(
        input=_read(Decimal, stored["input"]),
        output=_read(Decimal, stored["output"]),
        cache_read=_read(Decimal, stored["cache_read"]),
        cache_write=_read(Decimal, stored["cache_write"]),
        start=_read(datetime.fromisoformat, stored["start"]),
        end=_read(datetime.fromisoformat, stored["end"]),
        daily_from=_read(time.fromisoformat, stored["daily_from"]),
        daily_to=_read(time.fromisoformat, stored["daily_to"]),
        above=stored["above"],
        up_to=stored["up_to"],
    )


def _read(parse: Callable[[str], T], stored: str | None) -> T | None:
    return None if stored is None else parse(stored)


def within(rates: Sequence[Rate], start: datetime | None, end: datetime | None) -> list[Rate]:
    """The rates, cut to what of them lies between two moments."""
    found = []
    for rate in rates:
        first = max((moment for moment in (rate.start, start) if moment is not None), default=None)
        last = min((moment for moment in (rate.end, end) if moment is not None), default=None)
        if first is None or last is None or first < last:
            found.append(_cut(rate, first, last))
    return found


def text(value: Decimal | None) -> str | None:
    """A decimal without exponent and without zeros at its end."""
    if value is None:
        return None
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _cut(rate: Rate, start: datetime | None, end: datetime | None) -> Rate:
    return rate if (start, end) == (rate.start, rate.end) else replace(rate, start=start, end=end)
