"""What the rules of recommendations look at, and what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from uuid import UUID

from core.permissions import Actor
from models.base import Query
from models.costs import ModelPriceTableRow
from services.costs.prices import Pair
from services.costs.rates import KINDS, Rate

LEAST_SAVING = Decimal(1)
"""US dollars in 30 days: what saves less is not worth anybody's time."""
SAMPLES = 10

_FINEST = Decimal("0.000001")
USD = " + ".join(f"coalesce(facts.{kind}_tokens * rates.{kind} * 0.000001, 0)" for kind in KINDS)
_RANGE = "organization_id = {} AND at >= {} AND at < {}"


class RecommendationKind(StrEnum):
    """What a recommendation is about."""

    CHEAPER_MODEL = "CHEAPER_MODEL"
    UNUSED_CACHE = "UNUSED_CACHE"
    LARGE_SYSTEM_PROMPT = "LARGE_SYSTEM_PROMPT"
    IDLE_SESSIONS = "IDLE_SESSIONS"
    FAILED_RUNS = "FAILED_RUNS"


class Confidence(StrEnum):
    """How sure the saving is."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the arithmetic."""

    label: str
    formula: str
    value: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that could be cheaper. `key` is the same whenever the same is found again."""

    kind: RecommendationKind
    key: str
    title: str
    explanation: str
    steps: Sequence[Step]
    saving: Decimal
    """US dollars in 30 days."""
    confidence: Confidence
    filter: Mapping[str, Sequence[str]]
    sessions: Sequence[UUID]
    """Some of those that it is about."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the rules look at."""

    actor: Actor
    start: datetime
    end: datetime
    table: ModelPriceTableRow
    rates: Mapping[Pair, Sequence[Rate]]
    days: Decimal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "days", Decimal((self.end - self.start) // timedelta(seconds=1)) / 86_400)

    def range(self, query: Query) -> str:
        """The condition on facts."""
        return _RANGE.format(query.arg(self.actor.organization_id), query.arg(self.start), query.arg(self.end))

    def of_30_days(self, saving: Decimal) -> Step:
        """The last line of each arithmetic."""
        shown = self.days.normalize()
        value = (saving * 30 / self.days).quantize(_FINEST, ROUND_HALF_EVEN)
        return Step("In 30 days", f"{plain(saving)} * 30 / {shown:f} days", value, "USD")


def plain(value: Decimal) -> str:
    """For people: without exponent, and without zeros at the end."""
    return f"{value.normalize():f}"


def worthwhile(found: Sequence[Finding]) -> list[Finding]:
    """Those that save enough."""
    return [finding for finding in found if finding.saving >= LEAST_SAVING]
