"""What the tests of the audit log share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from core import db
from core.permissions import Actor, ActorKind, Origin, Permission, Role
from models.base import Row
from services import audit
from services.audit_sequencer import sequence_once


def an_actor(organization_id: UUID | None = None) -> Actor:
    return Actor(
        kind=ActorKind.HUMAN,
        organization_id=organization_id or uuid4(),
        role=Role.ADMIN,
        user_id=uuid4(),
        permissions=frozenset(Permission),
        name="Demo Admin",
        credential_id=uuid4(),
        origin=Origin(ip="192.0.2.7", user_agent="tests", request_id="req-1"),
    )


async def write(organization_id: UUID | None, *actions: str) -> None:
    """Commit one record of each action."""
    async with db.transaction() as tx:
        await audit.record(tx, *(audit.Entry(action, organization_id) for action in actions))


async def sequence_all() -> int:
    linked = 0
    while batch := await sequence_once():
        linked += batch
    return linked


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until the condition holds, for 30 seconds at most."""
    async with asyncio.timeout(30):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def links(organization_id: UUID) -> list[Row]:
    """The chain, with the action of each record."""
    return await db.fetch(
        "SELECT audit_links.*, action, at, outcome, target_id, details FROM audit_links "
        "LEFT JOIN audit_records ON audit_records.id = record_id "
        "WHERE audit_links.organization_id = $1 ORDER BY number",
        organization_id,
        row=Row,
    )


@asynccontextmanager
async def superuser() -> AsyncIterator[db.Transaction]:
    """A transaction of the database's superuser."""
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL ROLE NONE")
        yield tx


@asynccontextmanager
async def intruder() -> AsyncIterator[db.Transaction]:
    """A superuser who has switched the guards off."""
    async with superuser() as tx:
        for table in ("audit_records", "audit_links", "audit_pending"):
            await tx.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield tx
        await tx.execute("ALTER TABLE audit_records ENABLE ALWAYS TRIGGER audit_records_witness")
