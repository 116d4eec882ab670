"""Downloads of reports by signed links, sent piece by piece as they are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

from core import db
from core.errors import NotFound
from core.permissions import Actor, Origin, Permission
from models.base import Query
from models.reports import ReportFormat, ReportKind, ReportRun, ReportRunRow
from services import audit
from services.identity.links import actor_of_link, claims_of
from services.parts import parts

LINK_SECONDS = 15 * 60
"""How long a download link is good."""

_PURPOSE = "report"
_TYPES = {
    ReportFormat.CSV: "text/csv; charset=utf-8",
    ReportFormat.JSON: "application/json",
    ReportFormat.PDF: "application/pdf",
}


@dataclass(frozen=True, slots=True)
class ReportDownload:
    """A report to be sent. `pieces` come one after the other, from the database."""

    name: str
    media_type: str
    size: int
    pieces: AsyncIterator[bytes]


def report_url(actor: Actor, run_id: UUID) -> str:
    """A link that downloads a report for 15 minutes without further credentials, as long as the actor may read it."""
    claims = {"report": str(run_id)} | claims_of(actor)
    token = parts().vault.sign(claims, seconds=LINK_SECONDS, purpose=_PURPOSE)
    return f"{parts().settings.base_url}/reports/{token}"


async def open_report(token: str, origin: Origin) -> ReportDownload:
    """The report of a link. The download is audited in the name of whoever made the link. Raises NotFound."""
    claims = parts().vault.verify(token, purpose=_PURPOSE)
    actor = await actor_of_link(claims, origin)
    actor.require(Permission.METRICS_READ)
    query = Query()
    run = await db.fetchrow(
        f"SELECT * FROM report_runs WHERE id = {query.arg(UUID(claims['report']))} "
        f"AND status = 'READY' AND {query.scope(ReportRun.visible_to(actor))}",
        *query.args,
        row=ReportRunRow,
    )
    if run is None:
        raise NotFound("The report is not there any more, or you may not read it.")
    entry = audit.Entry.of(actor, "report.download")
    entry.target_kind, entry.target_id, entry.target_name = "Report", run["id"], run["name"]
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    await audit.announce()
    format_ = ReportFormat(run["format"])
    kind = "focus" if run["kind"] == ReportKind.FOCUS else run["kind"].lower()
    return ReportDownload(
        f"{run['name']} {run['start']:%Y-%m-%d} {kind}.{format_.value.lower()}",
        _TYPES[format_],
        run["size"],
        _pieces(run),
    )


async def _pieces(run: ReportRunRow) -> AsyncIterator[bytes]:
    number = 0
    while True:
        piece = await db.fetchval(
            "SELECT content FROM report_pieces WHERE run_id = $1 AND attempt = $2 AND number = $3",
            run["id"],
            run["attempt"],
            number,
        )
        if piece is None:
            return
        yield piece
        number += 1
