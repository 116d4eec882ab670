"""Reads of who sends telemetry, and of the names that it brought."""

from __future__ import annotations

from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor
from models.base import Query
from models.telemetry import LabelDimensionRow, TelemetryServiceRow, labels_visible_to, visible_to
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
        f"SELECT dimension, count(*) AS names, min(overflow.facts) AS overflowed, min(overflow.example) AS example "
        "FROM metric_labels LEFT JOIN metric_label_overflows overflow USING (organization_id, dimension) "
        f"WHERE {query.scope(labels_visible_to(actor))} GROUP BY dimension ORDER BY dimension",
        *query.args,
        row=LabelDimensionRow,
    )
