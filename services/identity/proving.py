"""Showing that one knows an account's password: throttled, audited when refused, and as slow where there is none."""

from __future__ import annotations

from core import db
from core.errors import Forbidden, QuarterdeckError, RateLimited, Unauthenticated
from core.permissions import Origin
from models.audit import AuditOutcome
from models.base import Row
from services import audit
from services.identity import passwords, throttle


class Candidate(Row):
    """Whom somebody says to be; to `prove` also with `password_hash`, `deactivated_at` and `known_address`."""

    __slots__ = ()


async def prove(
    account: str, user: Candidate | None, password: str, origin: Origin, action: str, wrong: Unauthenticated | Forbidden
) -> throttle.Admission:
    """What `throttle.forgive` takes back in the transaction that follows. Raises RateLimited, or `wrong`."""
    known_address = user is not None and user["known_address"]
    limited = None
    async with db.transaction() as tx:
        admission = await throttle.admit(tx, account, origin.ip, known_address=known_address)
        if admission.wait_seconds > 0:
            limited = RateLimited(
                f"Too many attempts. Try again in {admission.wait_seconds} seconds.",
                retryAfterSeconds=admission.wait_seconds,
            )
            if admission.first_refusal:
                await audit.record(tx, refusal(user, origin, action, limited))
    if limited is not None:
        raise limited
    stored = None if user is None or user["deactivated_at"] is not None else user["password_hash"]
    if not await passwords.verify_password(stored, password):
        await audit.refused(refusal(user, origin, action, wrong), wrong)
        raise wrong
    return admission


def refusal(user: Row | None, origin: Origin, action: str, error: QuarterdeckError) -> audit.Entry:
    """An audit entry of nobody: who failed to be this user is not known. Never with what was typed as an account,
    for it may be a password."""
    entry = audit.Entry.of(None, action)
    if user is not None:
        entry.organization_id = user["organization_id"]
        entry.target_kind, entry.target_id, entry.target_name = "User", user["id"], user["name"]
    entry.ip, entry.user_agent, entry.request_id = origin.ip, origin.user_agent, origin.request_id
    entry.outcome, entry.error_code, entry.error_message = AuditOutcome.REFUSED, error.code, error.message
    return entry
