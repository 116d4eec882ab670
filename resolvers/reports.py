"""Reads of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.paging import Page
from core.permissions import Actor
from models.reports import ReportDefinition, ReportDefinitionRow, ReportRun, ReportRunRow
from resolvers import reading
from resolvers.identity import user_in
from services.reports.downloads import report_url

definition_of_report = reading.parent(
    "report_definitions", ReportDefinitionRow, "definition_id", scope=ReportDefinition.visible_to
)
owner_of_report = user_in("owner_id")


async def definition(actor: Actor, id_: UUID) -> ReportDefinitionRow | None:
    """A definition; None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "report_definitions", ReportDefinitionRow, ReportDefinition.visible_to(actor), id_
    )


async def report(actor: Actor, id_: UUID) -> ReportRunRow | None:
    """A report that is being made or was; None where the actor may not see it."""
    return await reading.find("report_runs", ReportRunRow, ReportRun.visible_to(actor), id_)  # type: ignore[no-any-return]


async def definitions(actor: Actor, *, first: int | None, after: str | None) -> Page[ReportDefinitionRow]:
    """The definitions that the actor may see, the newest first."""
    return await reading.page(
        "report_definitions",
        ReportDefinitionRow,
        lambda query: [query.scope(ReportDefinition.visible_to(actor)), "report_definitions.removed_at IS NULL"],
        first=first,
        after=after,
    )


async def reports(
    actor: Actor, definition_id: UUID | None, *, first: int | None, after: str | None
) -> Page[ReportRunRow]:
    """The reports that the actor may see, the newest first; of one definition, or of all."""
    return await reading.page(
        "report_runs",
        ReportRunRow,
        lambda query: [
            query.scope(ReportRun.visible_to(actor)),
            *([f"report_runs.definition_id = {query.arg(definition_id)}"] if definition_id is not None else []),
        ],
        first=first,
        after=after,
    )


async def download_urls(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[str | None]:
    """Links of reports that are ready."""
    return [report_url(actor, row["id"]) if row["status"] == "READY" else None for row in parents]
