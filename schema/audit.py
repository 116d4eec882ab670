"""The audit log in the graph: its records, and the check of its chain."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.ids import PREFIXES, decode, encode, split
from core.permissions import Permission
from models import audit as models
from resolvers import audit as reads
from resolvers.identity import user_in
from schema.actors import ActorKind
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, enum_type, id_column, input_type, nested, object_type, query
from schema.scalars import BigInt

if TYPE_CHECKING:
    from schema.identity import User

UserRef = Annotated["User", strawberry.lazy("schema.identity")]

AuditOutcome = enum_type(
    models.AuditOutcome,
    {
        "SUCCEEDED": "It was done.",
        "REFUSED": "It was not allowed, and nothing was changed.",
        "FAILED": "It was tried, and went wrong.",
    },
)


@entity(models.AuditRow)
class AuditEvent(Node):
    """One record of the audit log: who did what, on what, and what became of it. Nothing and nobody changes it."""

    at: datetime = column("When it happened.")
    action: str = column("What was done, as domain and verb: `session.create`, `tool.execute`, `sign_in.password`.")
    outcome: AuditOutcome = column("What became of it.")
    actor_kind: ActorKind | None = column("What acted; null where nobody was signed in.")
    actor_name: str | None = column("The actor's name at that time.")
    ip: str | None = column("The address the request came from.")
    user_agent: str | None = column("The program the request came from, as it called itself.")
    request_id: str | None = column("The request's id, which is also in the service's own log.")
    target_kind: str | None = column("The kind of what was acted on, a type of this graph: `Session`.")
    target_name: str | None = column("Its name or title at that time.")
    session_id: strawberry.ID | None = id_column("Session", "The session it happened in.", name="session_id")
    before: JSON | None = column(
        "What was changed, as it was. Secrets read `[redacted]`, and `[cut]` what is too long."
    )
    after: JSON | None = column("What was changed, as it became.")
    details: JSON | None = column("What else is to be known, such as a tool's arguments.")
    error_code: str | None = column("The code of the error that the actor was given.")
    error_message: str | None = column("The message of that error.")
    number: BigInt | None = column("Its place in the organisation's log, without gaps; null for up to a second.")
    hash: str | None = column(
        "Its link in the hash chain, SHA-256 in hex; null until it has a number.", name="hash", show=bytes.hex
    )
    previous_hash: str | None = column(
        "The link of the record before it; zeros for number 1.", name="previous_hash", show=bytes.hex
    )

    @nested(user_in("actor_id"))
    def actor(self) -> UserRef | None:
        """Who acted; for an agent see `onBehalfOf`."""

    @nested(user_in("on_behalf_of"))
    def on_behalf_of(self) -> UserRef | None:
        """The person whose message made an agent act."""

    @strawberry.field(description="The id of what was acted on.")
    def target_id(self) -> strawberry.ID | None:
        row: Any = self
        if row.target_id is None or row.target_kind not in PREFIXES:
            return row.target_id and strawberry.ID(str(row.target_id))
        return strawberry.ID(encode(PREFIXES[row.target_kind], row.target_id))

    @strawberry.field(
        description="All that the record says, as canonical JSON (RFC 8785). `hash` is made of it; docs/audit.md has a "
        "program that checks this. Null only where somebody got at the record."
    )
    def canonical(self) -> str | None:
        row: Any = self
        return reads.canonical_text(row)


@object_type
class AuditVerification:
    """What checking a whole log has found."""

    intact: bool = column("Whether all is in order.")
    verified: BigInt = column("Numbers 1 to this one are in order.")
    pending: BigInt = column("Records in order that wait for their number.")
    head_hash: str | None = column(
        "The hash of number `verified`. Keep both elsewhere: a later log must still have it there.",
        name="head_hash",
        show=bytes.hex,
    )
    broken_number: BigInt | None = column("The first number that is not in order.")
    broken_id: strawberry.ID | None = id_column("AuditEvent", "The record in question.", name="broken_record_id")
    problem: str | None = column("What is wrong; null where all is in order.")


@input_type
class AuditEventFilter:
    """Which records. Conditions that are left out take everything."""

    action: str | None = strawberry.field(default=None, description="This action, or all that begin so: `session.`.")
    actor_id: strawberry.ID | None = strawberry.field(default=None, description="Done by this user.")
    target_id: strawberry.ID | None = strawberry.field(default=None, description="Done to this, whatever its kind.")
    session_id: strawberry.ID | None = strawberry.field(default=None, description="Done in this session.")
    outcome: AuditOutcome | None = strawberry.field(default=None, description="With this outcome.")
    since: datetime | None = strawberry.field(default=None, description="At or after this time.")
    until: datetime | None = strawberry.field(default=None, description="Before this time.")

    def checked(self) -> reads.AuditFilter:
        """What the reads take."""
        return reads.AuditFilter(
            action=self.action,
            actor_id=decode("usr", self.actor_id, field="filter.actorId") if self.actor_id is not None else None,
            target_id=split(self.target_id, field="filter.targetId")[1] if self.target_id is not None else None,
            session_id=decode("ses", self.session_id, field="filter.sessionId")
            if self.session_id is not None
            else None,
            outcome=self.outcome,
            since=self.since,
            until=self.until,
        )


@strawberry.type
class AuditQuery:
    @query(Permission.AUDIT_READ)
    async def audit_events(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[AuditEventFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[AuditEvent]:
        """The organisation's audit log, newest first. Reading it is itself recorded there."""
        wanted = filter.checked() if filter else reads.AuditFilter()
        return await reads.audit_events(info.context.actor, wanted, first=first, after=after)

    @query(Permission.AUDIT_READ)
    async def verify_audit_log(info: Info) -> AuditVerification:
        """Check the organisation's whole audit log: every record, number and link. Takes a while for long ones."""
        return await reads.verify_audit_log(info.context.actor)
