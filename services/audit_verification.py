"""Checks an audit log from its first number to its last, and what has no number yet."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from uuid import UUID

from core import db
from models.audit import INSTALLATION
from models.base import Row
from services.audit_chain import BEGINNING, flaw, link_hash, link_seal

_BATCH = 200


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was found in the log of one organisation."""

    organization_id: UUID
    verified: int
    """Numbers 1 to this one are in order."""
    head_hash: bytes | None
    """Hash of that last link. Kept elsewhere, it proves later that nothing up to it was changed or cut off."""
    pending: int
    """Records in order that have no number yet."""
    broken_number: int | None = None
    """The first number that is not in order."""
    broken_record_id: UUID | None = None
    problem: str | None = None
    """What is wrong; None where all is in order."""

    @property
    def intact(self) -> bool:
        return self.problem is None


async def chains() -> list[UUID]:
    """All logs of the installation: one of each organisation, and that of records without one."""
    rows = await db.fetch("SELECT id FROM organizations ORDER BY id", row=Row)
    return [INSTALLATION, *(row["id"] for row in rows)]


async def verify(organization_id: UUID) -> VerificationReport:
    """Read the whole log of an organisation, in constant memory, up to the first thing that is wrong."""
    number, previous = 0, BEGINNING

    def report(
        problem: str | None = None, record_id: UUID | None = None, *, at: int | None = None, pending: int = 0
    ) -> VerificationReport:
        head = previous if number else None
        return VerificationReport(organization_id, number, head, pending, at, record_id, problem)

    while links := await db.fetch(
        "SELECT audit_records.*, audit_links.number, audit_links.record_id, audit_links.record_digest, "
        "audit_links.previous_hash, audit_links.hash, audit_links.seal AS link_seal "
        "FROM audit_links LEFT JOIN audit_records ON audit_records.id = audit_links.record_id "
        "WHERE audit_links.organization_id = $1 AND audit_links.number > $2 ORDER BY audit_links.number LIMIT $3",
        organization_id, number, _BATCH, row=Row,
    ):  # fmt: skip
        for link in links:
            problem = _link_flaw(link, number + 1, previous) or flaw(link, link["record_digest"])
            if problem is not None:
                missing = link["number"] != number + 1
                return report(problem, None if missing else link["record_id"], at=number + 1)
            number, previous = link["number"], link["hash"]

    pending = 0
    last = UUID(int=0)
    while waiting := await db.fetch(
        "SELECT audit_records.*, audit_pending.record_id, audit_pending.digest AS witnessed "
        "FROM audit_pending LEFT JOIN audit_records ON audit_records.id = audit_pending.record_id "
        "WHERE audit_pending.organization_id = $1 AND audit_pending.record_id > $2 "
        "ORDER BY audit_pending.record_id LIMIT $3",
        organization_id, last, _BATCH, row=Row,
    ):  # fmt: skip
        for row in waiting:
            problem = flaw(row, row["witnessed"])
            if problem is not None:
                return report(f"{problem}, before it got a number", row["record_id"], pending=pending)
            pending += 1
            last = row["record_id"]

    stray = await db.fetchval(
        "SELECT id FROM audit_records WHERE organization_id = $1 "
        "AND NOT EXISTS (SELECT FROM audit_links WHERE record_id = audit_records.id) "
        "AND NOT EXISTS (SELECT FROM audit_pending WHERE record_id = audit_records.id "
        "AND audit_pending.organization_id = audit_records.organization_id) LIMIT 1",
        organization_id,
    )
    if stray is not None:
        return report("a record has neither a number nor a witness: its link or witness was removed", stray)
    return report(pending=pending)


def _link_flaw(link: Row, number: int, previous: bytes) -> str | None:
    if link["number"] != number:
        return f"number {number} is missing"
    if link["previous_hash"] != previous:
        return "the link does not continue the one before it"
    if link["hash"] != link_hash(previous, number, link["record_digest"]):
        return "the link was changed"
    if not hmac.compare_digest(link_seal(link["hash"]), link["link_seal"]):
        return (
            "the link's seal is not this installation's: somebody without the key chained the log anew, "
            "or QUARTERDECK_SECRET_KEY is not the key it was written with"
        )
    return None
