"""Whether a series has facts whose names were put together, as telemetry may bring only so many of them."""

from __future__ import annotations

from dataclasses import dataclass

from core import db
from services.metrics import engine
from services.metrics.engine import MetricScope
from services.metrics.otlp.labels import BOUNDED, OTHER
from services.metrics.people import PEOPLE_DIMENSIONS
from services.metrics.questions import Checked, without


@dataclass(frozen=True, slots=True)
class Merged:
    """A dimension of a question of which names were put together."""

    dimension: str
    label: str
    facts: int


async def merged_in(scope: MetricScope, asked: Checked) -> list[Merged]:
    """The dimensions that a question filters or groups by, and of which facts of its range have lost their names.

    People in the filter are left aside: how many facts are somebody's is not told beside the rules for people.
    """
    family = asked.metric.family
    columns = {
        name: family.dimensions[name].column
        for name in dict.fromkeys([*asked.group_by, *asked.filter])
        if name in family.dimensions and family.dimensions[name].column in BOUNDED.get(family.table, ())
    }
    if not columns:
        return []
    overflowed = await db.fetch(
        "SELECT DISTINCT dimension FROM metric_label_overflows WHERE organization_id = $1 AND dimension = ANY($2)",
        scope.organization_id,
        list(columns.values()),
    )
    found = []
    for name in (name for name, column in columns.items() if column in {row["dimension"] for row in overflowed}):
        rows = await engine.read(
            scope,
            asked.metric.name,
            start=asked.current.start,
            end=asked.current.end,
            filter={**without(asked, *PEOPLE_DIMENSIONS).filter, name: [OTHER]},
        )
        if count := sum(row.count for row in rows.rows):
            found.append(Merged(name, OTHER, count))
    return found
