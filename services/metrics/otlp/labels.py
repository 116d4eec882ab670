"""How many different names an organisation's telemetry may bring: a name made of an id would be one for each call.

The first names of each dimension are kept, and of one service at most a half of them, so that one that makes up names
leaves room for the others'. What comes when there is no room is counted under one name, and told. Names that nobody has
brought for a month make room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from core import clock, db

MOST = 1000
"""Names of one dimension of one organisation."""
OTHER = "(other)"

BOUNDED = {
    "tool_facts": ("tool", "server", "model", "error_kind", "service"),
    "usage_facts": ("model", "provider", "service"),
    "run_facts": ("model", "error_code", "service"),
    "session_facts": ("service",),
    "resource_facts": ("resource", "host", "service"),
}
"""The columns of each table whose names are bounded; the service comes last, as it is told by."""

Merged = Counter[tuple[str, str, str]]
"""How many facts had a name for which there was no room: by service, dimension and name."""

SHARE = 2
"""One service has at most this part of them: a half."""
FORGOTTEN_AFTER = timedelta(days=30)

Name = tuple[str, str]
"""A dimension and a value."""

_MOST_KEPT = 200_000
_known: dict[UUID, set[Name]] = {}
"""What this process knows to be there, and to be written down as seen on `_known_on`: so nobody forgets it."""
_known_on = date.min


async def limit_labels(
    tx: db.Transaction, organization_id: UUID, facts: Mapping[str, Sequence[dict[str, Any]]]
) -> set[Name]:
    """Replace, in the facts, names for which there is no room; returns those that are there now, for `remember` once
    the transaction has committed."""
    known = _known_today().get(organization_id, set())
    unknown: dict[Name, str] = {}
    for table, rows in facts.items():
        for dimension in BOUNDED.get(table, ()):
            for row in rows:
                value = row.get(dimension)
                if value not in (None, OTHER) and (dimension, value) not in known:
                    unknown.setdefault((dimension, value), row["service"])
    if not unknown:
        return set()
    kept = await _keep(tx, organization_id, unknown)
    if refused := unknown.keys() - kept:
        merged: Merged = Counter()
        for table, rows in facts.items():
            for dimension in BOUNDED.get(table, ()):
                for row in rows:
                    if (dimension, row.get(dimension)) in refused:
                        merged[row["service"], dimension, row[dimension]] += 1
                        row[dimension] = OTHER
        await tell(tx, organization_id, merged)
    return kept


async def tell(tx: db.Transaction, organization_id: UUID, merged: Merged) -> None:
    """Count what had no room, by service and dimension, with an example."""
    counts: Counter[tuple[str, str]] = Counter()
    for (service, dimension, _), count in merged.items():
        counts[dimension, service] += count
    examples = {(dimension, service): name for service, dimension, name in sorted(merged, reverse=True)}
    await tx.executemany(
        "INSERT INTO metric_label_overflows (organization_id, dimension, service, facts, example, first_at, last_at) "
        "VALUES ($1, $2, $3, $4, $5, now(), now()) ON CONFLICT (organization_id, dimension, service) DO UPDATE SET "
        "facts = metric_label_overflows.facts + excluded.facts, example = excluded.example, last_at = excluded.last_at",
        [(organization_id, *key, count, examples[key]) for key, count in sorted(counts.items())],
    )


def remember(organization_id: UUID, names: set[Name]) -> None:
    """These names are there today."""
    known = _known_today()
    if sum(map(len, known.values())) > _MOST_KEPT:
        known.clear()
    known.setdefault(organization_id, set()).update(names)


def _known_today() -> dict[UUID, set[Name]]:
    global _known_on
    if _known_on != (today := clock.now().date()):
        _known.clear()
        _known_on = today
    return _known


async def _keep(tx: db.Transaction, organization_id: UUID, names: Mapping[Name, str]) -> set[Name]:
    """Those of the names (and of which service they are) that are there or for which there is room."""
    # One at a time for an organisation, so that two do not take the same last place.
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('metric_labels:' || $1::uuid::text, 0))", organization_id
    )
    kept = await _seen(tx, organization_id, names)
    if missing := {name: service for name, service in names.items() if name not in kept}:
        kept |= await _added(tx, organization_id, missing)
    if missing := {name: service for name, service in missing.items() if name not in kept}:
        forgotten = await tx.execute(
            "DELETE FROM metric_labels WHERE organization_id = $1 AND dimension = ANY($2) AND seen_on < $3",
            organization_id,
            list({dimension for dimension, _ in missing}),
            clock.now().date() - FORGOTTEN_AFTER,
        )
        if forgotten != "DELETE 0":
            kept |= await _added(tx, organization_id, missing)
    return kept


async def _seen(tx: db.Transaction, organization_id: UUID, names: Iterable[Name]) -> set[Name]:
    """Those of the names that are there; they are, as of today."""
    rows = await tx.fetch(
        "UPDATE metric_labels SET seen_on = greatest(seen_on, $4) WHERE organization_id = $1 "
        "AND (dimension, value) IN (SELECT * FROM unnest($2::text[], $3::text[])) RETURNING dimension, value",
        organization_id,
        [dimension for dimension, _ in names],
        [value for _, value in names],
        clock.now().date(),
    )
    return {(row["dimension"], row["value"]) for row in rows}


async def _added(tx: db.Transaction, organization_id: UUID, names: Mapping[Name, str]) -> set[Name]:
    """Those of the names, none of which is there, for which there is room."""
    rows = await tx.fetch(
        """
        WITH there AS (
            SELECT dimension, service, count(*) AS names FROM metric_labels WHERE organization_id = $1 GROUP BY 1, 2
        ), given AS (
            SELECT *, row_number() OVER (PARTITION BY dimension, service ORDER BY value) AS of_service
            FROM unnest($2::text[], $3::text[], $4::text[]) AS asked (dimension, value, service)
        ), fitting AS (
            SELECT *, row_number() OVER (PARTITION BY dimension ORDER BY value) AS place FROM given
            WHERE of_service <= $6 - coalesce((
                SELECT names FROM there WHERE there.dimension = given.dimension AND there.service = given.service), 0)
        )
        INSERT INTO metric_labels (organization_id, dimension, value, service, seen_on)
        SELECT $1, dimension, value, service, $7 FROM fitting
        WHERE place <= $5 - coalesce((SELECT sum(names) FROM there WHERE there.dimension = fitting.dimension), 0)
        RETURNING dimension, value
        """,
        organization_id,
        [dimension for dimension, _ in names],
        [value for _, value in names],
        list(names.values()),
        MOST,
        MOST // SHARE,
        clock.now().date(),
    )
    return {(row["dimension"], row["value"]) for row in rows}
