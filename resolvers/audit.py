"""Reads of the audit log. Each of them is itself recorded there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import rfc8785

from core import clock, db
from core.errors import BadInput
from core.paging import Page, page_size
from core.permissions import Actor
from models.audit import AuditOutcome, AuditRow, visible_to
from models.base import Query
from resolvers.reading import page
from services import audit
from services.audit_chain import canonical
from services.audit_verification import VerificationReport, verify

_COLUMNS = "audit_records.*, audit_links.number, audit_links.previous_hash, audit_links.hash"
_JOINS = "LEFT JOIN audit_links ON audit_links.record_id = audit_records.id"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which records; None for all."""

    action: str | None = None
    """The action, or how it begins: `session.`."""
    actor_id: UUID | None = None
    target_id: UUID | None = None
    session_id: UUID | None = None
    outcome: AuditOutcome | None = None
    since: datetime | None = None
    """From this time on."""
    until: datetime | None = None
    """Before this time."""


async def audit_events(
    actor: Actor, filter: AuditFilter, *, first: int | None = None, after: str | None = None
) -> Page[AuditRow]:
    """A page of the organisation's records, newest first, each with its link's columns where it has a number yet."""
    started = clock.now()

    def conditions(query: Query) -> list[str]:
        # The record of this very reading, and all that come later, are left to the next one.
        return [*_conditions(query, actor, filter), f"audit_records.at < {query.arg(started)}"]

    found: Page[AuditRow] = await page(
        "audit_records", AuditRow, conditions, first=first, after=after, order="at", columns=_COLUMNS, joins=_JOINS
    )
    entry = audit.Entry.of(actor, "audit.read")
    entry.session_id = filter.session_id
    entry.details = {
        "filter": {name: value for name, value in asdict(filter).items() if value is not None},
        "first": page_size(first),
        "after": after,
        "records": len(found.rows),
    }
    await _record(entry)
    return found


async def audit_event(actor: Actor, id_: UUID) -> AuditRow | None:
    """One record of the organisation, or None."""
    query = Query()
    row = await db.fetchrow(
        f"SELECT {_COLUMNS} FROM audit_records {_JOINS} "
        f"WHERE audit_records.id = {query.arg(id_)} AND {query.scope(visible_to(actor))}",
        *query.args,
        row=AuditRow,
    )
    if row is not None:
        entry = audit.Entry.of(actor, "audit.read")
        entry.target_kind, entry.target_id = "AuditEvent", id_
        await _record(entry)
    return row


def canonical_text(row: AuditRow) -> str | None:
    """What the record's digest is made of; None for what only somebody who changed the record can have put there."""
    try:
        return canonical(row).decode()
    except rfc8785.CanonicalizationError:
        return None


async def verify_audit_log(actor: Actor) -> VerificationReport:
    """Check the whole log of the actor's organisation."""
    report = await verify(actor.organization_id)
    entry = audit.Entry.of(actor, "audit.verify")
    entry.details = {"verified": report.verified, "number": report.broken_number, "problem": report.problem}
    await _record(entry)
    return report


async def _record(entry: audit.Entry) -> None:
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    await audit.announce()


def _conditions(query: Query, actor: Actor, filter: AuditFilter) -> list[str]:
    conditions = [query.scope(visible_to(actor))]
    if filter.action is not None:
        conditions.append(f"starts_with(audit_records.action, {query.arg(filter.action)})")
    for column in ("actor_id", "target_id", "session_id", "outcome"):
        value = getattr(filter, column)
        if value is not None:
            conditions.append(f"audit_records.{column} = {query.arg(value)}")
    if filter.since is not None:
        conditions.append(f"audit_records.at >= {query.arg(_aware(filter.since, 'filter.since'))}")
    if filter.until is not None:
        conditions.append(f"audit_records.at < {query.arg(_aware(filter.until, 'filter.until'))}")
    return conditions


def _aware(time: datetime, field: str) -> datetime:
    if time.tzinfo is None:
        raise BadInput("Give the time with its offset from UTC: 2026-01-31T12:00:00Z.", field=field)
    return time
