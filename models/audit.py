"""The audit log. Its tables are made by SQL (append-only, written by the sequencer), so there is no Tortoise model."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from core.permissions import Actor
from models.base import Row, Scope

INSTALLATION = UUID(int=0)
"""Stands for the organisation of records that belong to none, such as a sign-in to an unknown account."""

CONTENT_COLUMNS = (
    "id",
    "organization_id",
    "at",
    "action",
    "outcome",
    "actor_kind",
    "actor_id",
    "actor_name",
    "on_behalf_of",
    "credential_id",
    "ip",
    "user_agent",
    "request_id",
    "target_kind",
    "target_id",
    "target_name",
    "session_id",
    "before",
    "after",
    "details",
    "error_code",
    "error_message",
)
"""What a record says: all columns of `audit_records` but its digest and seal, which are made of these."""


class AuditOutcome(StrEnum):
    """What became of what was tried."""

    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"


class AuditRow(Row):
    """A row of `audit_records`, where it was read for a list with its link's `number`, `previous_hash` and `hash`."""

    __slots__ = ()


def visible_to(actor: Actor) -> Scope:
    """The audit log of the actor's organisation; the permission AUDIT_READ is asked for at the door."""
    return Scope("audit_records.organization_id = {}", (actor.organization_id,))
