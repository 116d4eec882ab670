"""Reads of who sends telemetry, and of the names that it brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor
from models.base import Query
from models.telemetry import LabelDimensionRow, MergedLabelsRow, TelemetryServiceRow, labels_visible_to, visible_to
from resolvers import reading


async def telemetry_service(actor: Actor, id_: UUID) -> TelemetryServiceRow | None:
    """A service; None where it is not the actor's organisation's."""
    return await reading.find("telemetry_services", TelemetryServiceRow, visible_to(actor), id_)  # type: ignore[no-any-return]


async def telemetry_services(actor: Actor, *, first: int | None, after: str | None) -> Page[TelemetryServiceRow]:
    """The services that send to the organisation, the first known first."""
    return await reading.page(
        "telemetry_services",
        TelemetryServiceRow,
        lambda query: [query.scope(visible_to(actor))],
        first=first,
        after=after,
        descending=False,
    )


async def label_dimensions(actor: Actor) -> list[LabelDimensionRow]:
    """How many names each dimension has, and what had no room, by dimension."""
    query = Query()
    return await db.fetch(
        "SELECT dimension, count(*) AS names, min(overflow.facts) AS overflowed, min(overflow.example) AS example, "
        "min(overflow.since) AS since FROM metric_labels LEFT JOIN LATERAL ("
        "SELECT sum(facts)::bigint AS facts, min(example) AS example, min(first_at) AS since "
        "FROM metric_label_overflows WHERE metric_label_overflows.organization_id = metric_labels.organization_id "
        "AND metric_label_overflows.dimension = metric_labels.dimension) AS overflow ON true "
        f"WHERE {query.scope(labels_visible_to(actor))} GROUP BY dimension ORDER BY dimension",
        *query.args,
        row=LabelDimensionRow,
    )


async def merged_labels_of(
    actor: Actor, parents: Sequence[TelemetryServiceRow], args: dict[str, Any]
) -> list[list[MergedLabelsRow]]:
    """Of each service, the dimensions whose names had no room."""
    rows = await db.fetch(
        "SELECT * FROM metric_label_overflows WHERE organization_id = $1 AND service = ANY($2) ORDER BY dimension",
        actor.organization_id,
        [parent["name"] for parent in parents],
        row=MergedLabelsRow,
    )
    return [[row for row in rows if row["service"] == parent["name"]] for parent in parents]
