"""Reports that are made again and again: defined, changed, removed, and made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from core.errors import BadInput, LimitExceeded, NotFound
from core.ids import encode
from core.permissions import Actor, Permission
from models.base import Query
from models.reports import (
    ReportDefinition,
    ReportDefinitionRow,
    ReportFormat,
    ReportKind,
    ReportSchedule,
)
from services import idempotency
from services.metrics.calendar import zone_of
from services.reports.making import insert_run
from services.reports.questions import check_question, load_question
from services.reports.schedules import next_moment
from services.work import Work, write

MOST_DEFINITIONS = 200
"""Of one owner."""
MOST_WAITING = 20
"""Reports of one organisation that wait or are being made."""
MOST_RECIPIENTS = 50


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a report is made by itself: at `hour` of each day, of day 1 (Monday) to 7 of each week, or of day 1 to 28 of
    each month."""

    schedule: ReportSchedule
    hour: int = 6
    day: int = 1


@dataclass(frozen=True, slots=True)
class NewReport:
    """What a report is to be; `question` is in snake_case."""

    name: str
    kind: ReportKind
    format: ReportFormat
    question: dict[str, Any]
    timezone: str = "UTC"
    timetable: Timetable | None = None
    recipients: Sequence[UUID] = field(default_factory=tuple)


async def define_report(actor: Actor, new: NewReport, *, key: str | None = None) -> ReportDefinitionRow:
    """Keep a report, to be made by its timetable or by hand. Raises BadInput, LimitExceeded."""
    async with write(actor, "report.define") as work:
        actor.require(Permission.REPORTS_MANAGE)
        values = await _checked(work, new)
        claim = await idempotency.claim(work, "defineReport", key, values)
        if claim.earlier is not None:
            work.entry.details = {"repeated": True}
            return await _lock(work, claim.earlier)
        there = await work.tx.fetchval(
            "SELECT count(*) FROM report_definitions WHERE owner_id = $1 AND removed_at IS NULL", actor.user_id
        )
        if there >= MOST_DEFINITIONS:
            raise LimitExceeded(f"You have {there} reports, the most there can be. Remove those that nobody reads.")
        await ReportDefinition.create(
            using_db=work.tx.orm,
            id=claim.result_id,
            organization_id=actor.organization_id,
            owner_id=actor.user_id,
            created_at=work.at,
            updated_at=work.at,
            **values,
        )
        row = await _lock(work, claim.result_id)
        work.changed(after=_public(row))
        return row


async def change_report(actor: Actor, definition_id: UUID, new: NewReport) -> ReportDefinitionRow:
    """Define a report anew; what was made of it stays. Raises BadInput, NotFound."""
    async with write(actor, "report.change") as work:
        actor.require(Permission.REPORTS_MANAGE)
        before = await _lock(work, definition_id)
        values = await _checked(work, new)
        await (
            ReportDefinition.filter(id=definition_id)
            .using_db(work.tx.orm)
            .update(**values, problem=None, updated_at=work.at)
        )
        row = await _lock(work, definition_id)
        work.changed(before=_public(before), after=_public(row))
        return row


async def remove_report(actor: Actor, definition_id: UUID) -> ReportDefinitionRow:
    """Make a report no more; those that were made stay until their time is over. Raises NotFound."""
    async with write(actor, "report.remove") as work:
        actor.require(Permission.REPORTS_MANAGE)
        before = await _lock(work, definition_id)
        await work.tx.execute(
            "UPDATE report_definitions SET removed_at = $2, next_at = NULL WHERE id = $1", definition_id, work.at
        )
        work.changed(before=_public(before))
        return before


async def run_report(actor: Actor, definition_id: UUID, *, key: str | None = None) -> UUID:
    """Make a report now, in the name of its owner; returns the id of what is being made. Raises NotFound,
    LimitExceeded."""
    async with write(actor, "report.run") as work:
        actor.require(Permission.REPORTS_MANAGE)
        row = await _lock(work, definition_id)
        claim = await idempotency.claim(work, "runReport", key, {"id": str(definition_id)})
        if claim.earlier is not None:
            work.entry.details = {"repeated": True}
            return claim.earlier
        await _check_room(work)
        start, end = load_question(row["question"]).span(ZoneInfo(row["timezone"]), work.at)
        await insert_run(work.tx, row, claim.result_id, start, end, scheduled_for=None, at=work.at)
        work.entry.details = {"run": encode("rpr", claim.result_id)}
        return claim.result_id


async def _check_room(work: Work) -> None:
    waiting = await work.tx.fetchval(
        "SELECT count(*) FROM report_runs WHERE organization_id = $1 AND status IN ('QUEUED', 'RUNNING')",
        work.actor.organization_id,
    )
    if waiting >= MOST_WAITING:
        raise LimitExceeded(f"{waiting} reports of your organisation are being made. Wait until some are ready.")


async def _checked(work: Work, new: NewReport) -> dict[str, Any]:
    """The columns. Raises BadInput with all that is wrong at once."""
    problems: list[tuple[str, str]] = []
    name = new.name.strip()
    if not 1 <= len(name) <= 200 or "\0" in name:
        problems.append(("name", "A report's name has 1 to 200 characters."))
    zone = ZoneInfo("UTC")
    stored: dict[str, Any] = {}
    try:
        zone = zone_of(new.timezone)
        stored = check_question(new.question, new.kind, new.format, zone, work.at).stored()
    except BadInput as error:
        given = error.details.get("fields")
        problems += (
            [(each["field"], each["message"]) for each in given]
            if given
            else [(error.field or "question", error.message)]
        )
    next_at: datetime | None = None
    timetable = new.timetable
    if timetable is not None:
        most = {ReportSchedule.WEEKLY: 7, ReportSchedule.MONTHLY: 28}.get(timetable.schedule, 31)
        if not 0 <= timetable.hour <= 23:
            problems.append(("timetable.hour", "An hour is 0 to 23."))
        elif not 1 <= timetable.day <= most:
            problems.append(("timetable.day", f"A day is 1 to {most} here."))
        else:
            next_at = next_moment(timetable.schedule, timetable.hour, timetable.day, zone, work.at)
        if new.question.get("range") is None:
            problems.append(("range", "A report that is made by a timetable takes a named range, such as LAST_MONTH."))
    recipients = list(dict.fromkeys(new.recipients))
    if len(recipients) > MOST_RECIPIENTS:
        problems.append(("recipientIds", f"A report has at most {MOST_RECIPIENTS} recipients."))
    if problems:
        raise BadInput.of_fields(problems)
    await _check_recipients(work, recipients)
    return {
        "name": name,
        "kind": new.kind.value,
        "format": new.format.value,
        "timezone": zone.key,
        "question": stored,
        "schedule": None if timetable is None else timetable.schedule.value,
        "schedule_hour": 6 if timetable is None else timetable.hour,
        "schedule_day": 1 if timetable is None else timetable.day,
        "next_at": next_at,
        "recipients": recipients,
    }


async def _check_recipients(work: Work, recipients: Sequence[UUID]) -> None:
    found = {
        row["id"]
        for row in await work.tx.fetch(
            "SELECT id FROM users WHERE id = ANY($1) AND organization_id = $2 AND deactivated_at IS NULL",
            list(recipients),
            work.actor.organization_id,
        )
    }
    for id_ in recipients:
        if id_ not in found:
            raise NotFound(f"There is no active user {encode('usr', id_)} in your organisation.", field="recipientIds")


async def _lock(work: Work, definition_id: UUID) -> ReportDefinitionRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM report_definitions WHERE id = {query.arg(definition_id)} AND removed_at IS NULL "
        f"AND {query.scope(ReportDefinition.visible_to(work.actor))} FOR UPDATE",
        *query.args,
        row=ReportDefinitionRow,
    )
    if row is None:
        raise NotFound("There is no such report, or it was removed.", field="reportDefinitionId")
    work.target("ReportDefinition", row["id"], row["name"])
    return row


def _public(row: ReportDefinitionRow) -> dict[str, Any]:
    names = ("name", "kind", "format", "timezone", "question", "schedule", "schedule_hour", "schedule_day")
    return {name: row[name] for name in names} | {"recipients": [encode("usr", id_) for id_ in row["recipients"]]}
