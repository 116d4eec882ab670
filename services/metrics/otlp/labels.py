"""How many different names an organisation's telemetry may bring: a name made of an id would be one for each call.

The first names of each dimension are kept; what comes when there is no room is counted under one name, and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core import db

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

_MOST_KEPT = 200_000
_known: dict[UUID, set[tuple[str, str]]] = {}
"""What this process knows to be there. Names are never taken away, so this can't be wrong."""


async def limit_labels(
    tx: db.Transaction, organization_id: UUID, facts: Mapping[str, Sequence[dict[str, Any]]]
) -> set[tuple[str, str]]:
    """Replace, in the facts, names for which there is no room; returns those that are there now, for `remember` once
    the transaction has committed."""
    known = _known.get(organization_id, set())
    unknown = {
        (dimension, row[dimension])
        for table, rows in facts.items()
        for dimension in BOUNDED.get(table, ())
        for row in rows
        if row.get(dimension) not in (None, OTHER) and (dimension, row[dimension]) not in known
    }
    if not unknown:
        return set()
    kept = await _keep(tx, organization_id, unknown)
    if refused := unknown - kept:
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


def remember(organization_id: UUID, names: set[tuple[str, str]]) -> None:
    """These names are there for good."""
    if sum(map(len, _known.values())) > _MOST_KEPT:
        _known.clear()
    _known.setdefault(organization_id, set()).update(names)


async def _keep(tx: db.Transaction, organization_id: UUID, names: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the names that are there or for which there is room."""
    given = sorted(names)
    dimensions, values = [name[0] for name in given], [name[1] for name in given]
    # One at a time for an organisation, so that two do not take the same last place.
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('metric_labels:' || $1::uuid::text, 0))", organization_id
    )
    await tx.execute(
        """
        INSERT INTO metric_labels (organization_id, dimension, value)
        SELECT $1, given.dimension, given.value FROM (
            SELECT dimension, value, row_number() OVER (PARTITION BY dimension ORDER BY value) AS place
            FROM unnest($2::text[], $3::text[]) AS asked (dimension, value)
            WHERE NOT EXISTS (
                SELECT FROM metric_labels WHERE metric_labels.organization_id = $1
                AND metric_labels.dimension = asked.dimension AND metric_labels.value = asked.value)
        ) AS given
        WHERE given.place <= $4 - (
            SELECT count(*) FROM metric_labels
            WHERE metric_labels.organization_id = $1 AND metric_labels.dimension = given.dimension)
        """,
        organization_id,
        dimensions,
        values,
        MOST,
    )
    rows = await tx.fetch(
        "SELECT dimension, value FROM metric_labels WHERE organization_id = $1 "
        "AND (dimension, value) IN (SELECT * FROM unnest($2::text[], $3::text[]))",
        organization_id,
        dimensions,
        values,
    )
    return {(row["dimension"], row["value"]) for row in rows}
