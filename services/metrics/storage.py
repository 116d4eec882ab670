"""What is kept of facts and figures: how long, since when, and what it takes on disk.

How many rows there are, and how large they are, is what PostgreSQL's statistics say: nothing is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import db
from core.permissions import Actor, Permission
from models.metrics import FACTS
from services.metrics.families import FAMILIES, Level
from services.metrics.retention import kept, setting_of, tables_of


@dataclass(frozen=True, slots=True)
class Stored:
    """A kind of facts at a level: of all organisations, but for `since`."""

    fact: str
    level: str
    kept_days: int | None
    """None for ever."""
    setting: str
    """The environment variable that says so."""
    since: datetime | None
    """When the first that is there was, of the actor's organisation."""
    dropped_before: datetime | None
    """Everything from before this is gone; None where nothing has been dropped."""
    rows: int
    """By PostgreSQL's statistics: not exact, and a moment late."""
    bytes: int
    """With indexes."""
    chunks: int | None
    """None for a plain table."""
    compressed_chunks: int | None
    compresses: bool
    """Whether chunks are compressed when they are old enough."""
    uncounted: int
    """Facts of the actor's organisation that are missing at this level, as they could not be counted."""


@dataclass(slots=True)
class _Size:
    rows: int
    bytes: int
    chunks: int | None = None
    compressed: int | None = None
    compresses: bool = False


async def stored(actor: Actor) -> list[Stored]:
    """Each kind of facts at each level. Raises Forbidden."""
    actor.require(Permission.MEMBERS_MANAGE)
    tables = {(facts, level): tables_of(facts, level) for facts in FACTS for level in Level}
    sizes = await _sizes([table for names in tables.values() for table in names])
    dropped = {
        (row["facts"], Level(row["level"])): row["dropped_before"]
        for row in await db.fetch("SELECT * FROM metric_retention WHERE dropped_before > '-infinity'")
    }
    since = await _since(actor.organization_id)
    uncounted = {
        row["facts"]: row["number"]
        for row in await db.fetch(
            "SELECT facts, count(*) AS number FROM metric_set_aside WHERE organization_id = $1 GROUP BY facts",
            actor.organization_id,
        )
    }
    found = []
    for (facts, level), names in tables.items():
        age, of = kept(level), [sizes[name] for name in names]
        plain = of[0].chunks is None
        found.append(
            Stored(
                facts,
                level,
                None if age is None else age.days,
                setting_of(level),
                since[facts, level],
                dropped.get((facts, level)),
                sum(size.rows for size in of),
                sum(size.bytes for size in of),
                None if plain else sum(size.chunks or 0 for size in of),
                None if plain else sum(size.compressed or 0 for size in of),
                any(size.compresses for size in of),
                0 if level is Level.RAW else uncounted.get(facts, 0),
            )
        )
    return found


_ROWS = """(
    CASE WHEN pg_stat_get_live_tuples({0}.oid) > 0 THEN pg_stat_get_live_tuples({0}.oid)
    ELSE greatest({0}.reltuples, 0) END)::bigint"""
"""Live rows as they are counted by the way; as they were last analysed where that was lost in a crash."""
_PLAIN = f"""
SELECT relname AS name, {_ROWS.format("tables")} AS rows, pg_total_relation_size(tables.oid) AS bytes
FROM pg_class tables JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = 'public'
WHERE relname = ANY($1) AND relkind = 'r'
"""
_HYPER = f"""
SELECT hypertable_name AS name, compression_enabled AS compresses, hypertable_size(tables.oid::regclass) AS bytes,
    chunks.number AS chunks, chunks.compressed, chunks.rows
FROM timescaledb_information.hypertables
JOIN pg_class tables ON relname = hypertable_name AND relkind = 'r'
JOIN pg_namespace ON pg_namespace.oid = relnamespace AND nspname = hypertable_schema
CROSS JOIN LATERAL (
    SELECT count(*) AS number, count(*) FILTER (WHERE is_compressed) AS compressed,
        coalesce(sum({_ROWS.format("parts")}), 0)::bigint AS rows
    FROM timescaledb_information.chunks
    JOIN pg_namespace ON nspname = chunk_schema
    JOIN pg_class parts ON parts.relname = chunk_name AND parts.relnamespace = pg_namespace.oid
    WHERE chunks.hypertable_schema = 'public' AND chunks.hypertable_name = hypertables.hypertable_name
) AS chunks
WHERE hypertables.hypertable_schema = 'public' AND hypertables.hypertable_name = ANY($1)
"""


async def _sizes(tables: list[str]) -> dict[str, _Size]:
    found = {row["name"]: _Size(row["rows"], row["bytes"]) for row in await db.fetch(_PLAIN, tables)}
    if await db.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"):
        for row in await db.fetch(_HYPER, tables):
            found[row["name"]] = _Size(
                row["rows"], row["bytes"] or 0, row["chunks"], row["compressed"], row["compresses"]
            )
    return found


async def _since(organization_id: UUID) -> dict[tuple[str, Level], datetime | None]:
    """The first of an organisation, by an index of each table."""
    wanted: dict[tuple[str, Level], str] = {}
    for family in FAMILIES.values():
        for level in Level:
            # Every set is filled from the same facts, so one of them says it for all.
            only = "" if level is Level.RAW else f"AND dimensions = '{','.join(family.sets_of(level)[0])}'"
            wanted.setdefault(
                (family.facts, level),
                f"(SELECT min(at) FROM {family.rollup(level)} WHERE organization_id = $1 {only})",
            )
    row = await db.fetchrow(
        f"SELECT {', '.join(f'{sql} AS c{n}' for n, sql in enumerate(wanted.values()))}", organization_id
    )
    return dict(zip(wanted, row, strict=True))
