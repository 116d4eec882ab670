"""How long facts and figures are kept, and dropping what is older.

Whole chunks go where TimescaleDB is, and rows elsewhere, by the day. Up to when a table's rows are gone is written down
in the same transaction: facts of before are not stored any more, as nobody could tell whether they were counted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core import clock, db
from core.settings import Settings
from models.metrics import FACTS
from services.metrics.families import FAMILIES, Level
from services.parts import parts

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_SETTINGS = {
    Level.RAW: "metrics_raw_days",
    Level.MINUTE: "metrics_minute_days",
    Level.HOUR: "metrics_hour_days",
    Level.DAY: "metrics_day_days",
}


@dataclass(frozen=True, slots=True)
class Drop:
    """What goes of a table, or would go."""

    table: str
    facts: str
    level: Level
    before: datetime
    """Everything from before this."""
    rows: int
    chunks: int | None
    """None for a plain table."""
    first: datetime | None
    last: datetime | None
    """Times of the first and the last row that goes."""


def kept(level: Level) -> timedelta | None:
    """How long a level is kept; None for ever."""
    days: int | None = getattr(parts().settings, _SETTINGS[level])
    return None if days is None else timedelta(days=days)


def setting_of(level: Level) -> str:
    """The environment variable that says how long a level is kept."""
    return f"{Settings.model_config['env_prefix']}{_SETTINGS[level]}".upper()


def tables_of(facts: str, level: Level) -> list[str]:
    """The tables of a kind of facts at a level."""
    if level is Level.RAW:
        return [f"{facts}_facts"]
    return [family.rollup(level) for family in FAMILIES.values() if family.facts == facts]


async def drop_old(*, dry_run: bool = False, now: datetime | None = None) -> list[Drop]:
    """Drop what is older than it is kept, or only say what would go; of each table that anything goes of."""
    now = now or clock.now()
    done = []
    for facts in FACTS:
        for level in Level:
            if (age := kept(level)) is None:
                continue
            for table in tables_of(facts, level):
                drop = await _planned(table, facts, level, _midnight(now - age))
                if drop is None:
                    continue
                if not dry_run:
                    await _drop(drop)
                done.append(drop)
    return done


async def forget_set_aside() -> None:
    """Remove what could not be counted, once its facts are not kept any more."""
    if (age := kept(Level.RAW)) is not None:
        await db.execute("DELETE FROM metric_set_aside WHERE at < $1", clock.now() - age)


async def compress() -> None:
    """Have chunks compressed a week after, where TimescaleDB's licence allows it. Safe to repeat."""
    if trouble := await db.fetchval("SELECT compress_metric_facts()"):
        logger.warning("Facts of metrics are not compressed: %s", trouble)


async def _planned(table: str, facts: str, level: Level, before: datetime) -> Drop | None:
    chunks = None
    if await _is_hypertable(table):
        row = await db.fetchrow(
            "SELECT count(*) AS chunks, max(range_end) AS before FROM timescaledb_information.chunks "
            "WHERE hypertable_schema = 'public' AND hypertable_name = $1 AND range_end <= $2",
            table,
            before,
        )
        if not row["chunks"]:
            return None
        chunks, before = row["chunks"], row["before"]
    row = await db.fetchrow(
        f"SELECT count(*) AS rows, min(at) AS first, max(at) AS last FROM {table} WHERE at < $1", before
    )
    if not row["rows"] and not chunks:
        return None
    return Drop(table, facts, level, before, row["rows"], chunks, row["first"], row["last"])


async def _drop(drop: Drop) -> None:
    if drop.chunks is not None:
        async with db.transaction() as tx:
            await _note(tx, drop, drop.before)
            await tx.fetchval("SELECT drop_metric_chunks($1, $2)", drop.table, drop.before)
        return
    # Day by day: no statement takes long, and what was done is done.
    assert drop.first is not None
    until = _midnight(drop.first)
    while until < drop.before:
        until = min(until + _DAY, drop.before)
        async with db.transaction() as tx:
            await _note(tx, drop, until)
            await tx.execute(f"DELETE FROM {drop.table} WHERE at < $1", until)


async def _note(tx: Any, drop: Drop, until: datetime) -> None:
    await tx.execute(
        "UPDATE metric_retention SET dropped_before = greatest(dropped_before, $3) WHERE facts = $1 AND level = $2",
        drop.facts,
        drop.level.value,
        until,
    )


async def _is_hypertable(table: str) -> bool:
    if not await db.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"):
        return False
    return bool(
        await db.fetchval(
            "SELECT EXISTS (SELECT FROM timescaledb_information.hypertables "
            "WHERE hypertable_schema = 'public' AND hypertable_name = $1)",
            table,
        )
    )


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)
