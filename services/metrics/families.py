"""Families of measures: what is counted of which facts, by which dimensions, and kept by minute, hour and day.

Durations are kept as histograms of bins that grow by a tenth, so that they can be added up at any level: a percentile
read from them is off by 5 % at most (√1.1 = 1.049), and the same at every level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path

_SQL = Path(__file__).parent / "sql"

GROWTH = 1.1
_ZERO_BIN = 64
"""The bin of 1 ms; everything below 1.1^-63 ms (2.5 µs) is in bin 0 and read as 0."""
_MOST_BIN = 1000

Dimensions = tuple[str, ...]


class Level(StrEnum):
    """What figures are read from: facts one by one, or what is counted of them by minute, hour or day (in UTC)."""

    RAW = "RAW"
    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"

    @property
    def width(self) -> timedelta:
        return _WIDTHS[self]

    @property
    def suffix(self) -> str:
        """Of its tables' names."""
        return f"{self.value.lower()}s"


_WIDTHS = {
    Level.RAW: timedelta(0),
    Level.MINUTE: timedelta(minutes=1),
    Level.HOUR: timedelta(hours=1),
    Level.DAY: timedelta(days=1),
}
ROLLED = (Level.DAY, Level.HOUR, Level.MINUTE)

_UUIDS = {"user": "user_id", "template_version": "template_version_id", "session": "session_id"}
"""Dimensions that are ids: their columns. Their labels are uuids as text."""
_COMMON = {"source": "source", "service": "service", "runtime": "runtime"}


@dataclass(frozen=True, slots=True)
class Dimension:
    """What facts are told apart by: a column of text, or of ids."""

    name: str
    column: str
    is_id: bool

    @property
    def label(self) -> str:
        """SQL of its value as text."""
        return f"{self.column}::text" if self.is_id else self.column


@dataclass(frozen=True)
class Family:
    """What is counted of a kind of facts. Its statement is sql/NAME.sql."""

    name: str
    facts: str
    measures: tuple[str, ...]
    columns: Mapping[str, str]
    """Its own dimensions and their columns."""
    sets: tuple[Dimensions, ...]
    """What is kept by hour and day. All else is counted anew from the facts."""
    minute_sets: tuple[Dimensions, ...]
    """What is kept by minute: little, for a minute has few facts."""
    histogram_of: str | None = None
    """The column of milliseconds that percentiles are read from."""
    binned: str | None = None
    """The measure that counts the facts of a bin."""

    @property
    def table(self) -> str:
        return f"{self.facts}_facts"

    @property
    def pending(self) -> str:
        """Facts that are stored and not counted yet."""
        return f"{self.facts}_pending"

    def rollup(self, level: Level) -> str:
        """The table of a level."""
        return self.table if level is Level.RAW else f"{self.name}_{level.suffix}"

    def sets_of(self, level: Level) -> tuple[Dimensions, ...]:
        return self.minute_sets if level is Level.MINUTE else self.sets

    def covering(self, level: Level, wanted: frozenset[str]) -> Dimensions | None:
        """The smallest set of a level that has all these dimensions."""
        fitting = [each for each in self.sets_of(level) if wanted <= frozenset(each)]
        return min(fitting, key=len, default=None)

    @cached_property
    def dimensions(self) -> Mapping[str, Dimension]:
        """By name: all that its facts have."""
        ids = {name: Dimension(name, column, True) for name, column in _UUIDS.items()}
        return ids | {name: Dimension(name, column, False) for name, column in (_COMMON | dict(self.columns)).items()}

    @cached_property
    def statement(self) -> str:
        """What is counted, with places for the facts, the condition and what they are grouped by."""
        return "\n".join(
            line for line in (_SQL / f"{self.name}.sql").read_text().splitlines() if not line.startswith("--")
        )

    def counted(self, facts: str, where: str, keys: Mapping[str, str], grouped: str | None = None) -> str:
        """The measures of the facts that fulfil a condition, by keys (name: SQL): by all of them, or as `grouped`."""
        return (
            self.statement.replace("/* keys */", ", ".join(f"{sql} AS {name}" for name, sql in keys.items()))
            .replace("/* facts */", facts)
            .replace("/* condition */", where)
            .replace("/* grouped */", grouped or ", ".join(str(place + 1) for place in range(len(keys))))
        )

    @property
    def bin(self) -> str:
        """SQL of the bin that a fact is in; null without a duration."""
        assert self.histogram_of is not None
        milliseconds = f"greatest({self.histogram_of}, 1e-9)"
        return (
            f"CASE WHEN {self.histogram_of} IS NOT NULL THEN "
            f"least(greatest(floor(ln({milliseconds}) / {_LN}) + {_ZERO_BIN}, 0), {_MOST_BIN})::bigint END"
        )


_LN = "0.09531017980432493"
"""ln 1.1"""


def middle_of(bin_: int) -> float:
    """The milliseconds that stand for a bin: no value in it is further off than 5 %."""
    return 0.0 if bin_ == 0 else float(GROWTH ** (bin_ - _ZERO_BIN + 0.5))


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "tool",
            "tool",
            ("calls", "failed", "timed", "duration_ms"),
            {"tool": "tool", "server": "server", "outcome": "outcome", "model": "model", "error": "error_kind"},
            (
                (),
                ("tool",),
                ("server",),
                ("outcome",),
                ("user",),
                ("template_version",),
                ("model",),
                ("source",),
                ("tool", "outcome"),
                ("user", "tool"),
                ("user", "template_version"),
            ),
            ((), ("tool",)),
            "duration_ms",
            "timed",
        ),
        Family(
            "usage",
            "usage",
            (
                "uses",
                "requests",
                "input_tokens",
                "output_tokens",
                "cache_read_tokens",
                "cache_write_tokens",
                "priced",
                "cost_usd",
            ),
            {"model": "model", "provider": "provider"},
            (
                (),
                ("model",),
                ("provider",),
                ("user",),
                ("template_version",),
                ("source",),
                ("user", "model"),
                ("user", "template_version"),
                ("template_version", "model"),
            ),
            ((), ("model",)),
        ),
        Family(
            "run",
            "run",
            ("runs", "failed", "timed", "duration_ms"),
            {"model": "model", "outcome": "outcome", "error": "error_code"},
            (
                (),
                ("outcome",),
                ("error",),
                ("user",),
                ("template_version",),
                ("model",),
                ("user", "outcome"),
                ("user", "template_version"),
            ),
            ((), ("outcome",)),
            "duration_ms",
            "timed",
        ),
        Family(
            "wait",
            "run",
            ("runs", "queue_ms"),
            {"model": "model", "outcome": "outcome", "error": "error_code"},
            ((), ("user",), ("template_version",)),
            ((),),
            "queue_ms",
            "runs",
        ),
        Family(
            "message",
            "message",
            ("messages", "characters"),
            {"role": "role"},
            ((), ("role",), ("user",), ("template_version",), ("user", "role")),
            ((), ("role",)),
        ),
        Family(
            "session",
            "session",
            ("changes", "created", "timed", "duration_ms"),
            {"change": "change"},
            ((), ("change",), ("user",), ("template_version",), ("user", "change")),
            ((),),
        ),
        Family(
            "resource",
            "resource",
            ("samples", "total"),
            {"resource": "resource", "host": "host"},
            (("resource",), ("resource", "user")),
            (("resource",),),
        ),
    )
}
