"""The audit log's writing side: who did what, on what, with what outcome, in the transaction that does it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self
from uuid import UUID

from core import clock, db
from core.errors import QuarterdeckError, Unavailable
from core.ids import new_id
from core.permissions import Actor, ActorKind
from models.audit import CONTENT_COLUMNS, INSTALLATION, AuditOutcome
from models.base import Query
from services.audit_chain import digest_of, record_seal
from services.audit_redaction import plain_text, redact
from services.parts import parts

logger = logging.getLogger(__name__)

CHANNEL = "audit"
"""The bus channel that wakes the sequencers."""

_MAX_NAME_BYTES = 400
_MAX_MESSAGE_BYTES = 2000
_COLUMNS = (*CONTENT_COLUMNS, "digest", "seal")
_AT_ONCE = 1000
"""Records of one statement, which takes at most 32,767 values."""


@dataclass
class Entry:
    """An audit record while it is put together."""

    action: str
    """Domain and verb: `session.create`, `token.revoke`, `sign_in.password`, `tool.execute`."""
    organization_id: UUID | None
    """None only where it is unknown, as with a failed sign-in to an unknown account."""
    actor_kind: ActorKind | None = None
    """None where nobody was signed in."""
    actor_id: UUID | None = None
    actor_name: str | None = None
    on_behalf_of: UUID | None = None
    credential_id: UUID | None = None
    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    target_kind: str | None = None
    target_id: UUID | None = None
    target_name: str | None = None
    session_id: UUID | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    details: dict[str, Any] | None = None
    outcome: AuditOutcome = AuditOutcome.SUCCEEDED
    error_code: str | None = None
    error_message: str | None = None

    @classmethod
    def of(cls, actor: Actor | None, action: str) -> Self:
        """What this actor does; None for somebody who is not signed in."""
        if actor is None:
            return cls(action, None)
        return cls(
            action,
            actor.organization_id,
            actor_kind=actor.kind,
            actor_id=actor.user_id,
            actor_name=actor.name or None,
            on_behalf_of=actor.on_behalf_of,
            credential_id=actor.credential_id,
            ip=actor.origin.ip,
            user_agent=actor.origin.user_agent,
            request_id=actor.origin.request_id,
        )


async def record(tx: db.Transaction, *entries: Entry) -> None:
    """Write records inside the caller's transaction, in one statement unless they are very many. They get their
    numbers after it commits."""
    for start in range(0, len(entries), _AT_ONCE):
        query = Query()
        some = entries[start : start + _AT_ONCE]
        values = ", ".join(f"({', '.join(query.arg(value) for value in _row(entry))})" for entry in some)
        await tx.execute(f"INSERT INTO audit_records ({', '.join(_COLUMNS)}) VALUES {values}", *query.args)


async def refused(entry: Entry, error: QuarterdeckError) -> None:
    """Record, in a transaction of its own, that something was refused and why.

    Never raises: the caller has an error to report already. A record that cannot be written is logged instead.
    """
    kept = replace(entry, outcome=AuditOutcome.REFUSED, error_code=error.code.value, error_message=error.message)
    # Shielded, so that hanging up does not spare a client the record.
    await asyncio.shield(asyncio.ensure_future(_record_alone(kept)))


async def announce() -> None:
    """Wake the sequencers, after a commit. Without it they find new records by themselves in half a second."""
    with suppress(Unavailable):
        await parts().bus.publish(CHANNEL, {})


async def _record_alone(entry: Entry) -> None:
    try:
        async with db.transaction() as tx:
            await record(tx, entry)
        await announce()
    except Exception:
        logger.exception(
            "An audit record could not be written: %s by %s in organisation %s, %s %s",
            entry.action,
            entry.actor_id,
            entry.organization_id,
            entry.outcome.value,
            entry.error_code,
        )


def _row(entry: Entry) -> list[Any]:
    before, after, details = redact(entry.before, entry.after, entry.details)
    content = {
        "id": new_id(),
        "organization_id": entry.organization_id or INSTALLATION,
        "at": clock.now(),
        "action": entry.action,
        "outcome": entry.outcome.value,
        "actor_kind": entry.actor_kind.value if entry.actor_kind else None,
        "actor_id": entry.actor_id,
        "actor_name": plain_text(entry.actor_name, _MAX_NAME_BYTES),
        "on_behalf_of": entry.on_behalf_of,
        "credential_id": entry.credential_id,
        "ip": plain_text(entry.ip, _MAX_NAME_BYTES),
        "user_agent": plain_text(entry.user_agent, _MAX_NAME_BYTES),
        "request_id": plain_text(entry.request_id, _MAX_NAME_BYTES),
        "target_kind": entry.target_kind,
        "target_id": entry.target_id,
        "target_name": plain_text(entry.target_name, _MAX_NAME_BYTES),
        "session_id": entry.session_id,
        "before": before,
        "after": after,
        "details": details,
        "error_code": entry.error_code,
        "error_message": plain_text(entry.error_message, _MAX_MESSAGE_BYTES),
    }
    digest = digest_of(content)
    return [*(content[column] for column in CONTENT_COLUMNS), digest, record_seal(digest)]


__all__ = ["CHANNEL", "AuditOutcome", "Entry", "announce", "record", "refused"]
