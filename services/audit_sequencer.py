"""Gives committed audit records their gap-free number and their link in the chain of their organisation.

Any number of workers run it. One at a time works on an organisation, by an advisory lock that the transaction holds,
so those who write records never wait for each other nor for it. What is left to do stands in `audit_pending`, which
a trigger fills in the transaction that writes the record: a transaction that commits late is found like any other.
"""

from __future__ import annotations

import asyncio
import logging
import random
from uuid import UUID

from core import db
from core.bus import BusSubscription
from core.errors import SlowConsumer, Unavailable
from core.permissions import ActorKind
from models.audit import INSTALLATION, AuditOutcome
from models.base import Row
from services import audit
from services.audit_chain import BEGINNING, flaw, link_hash, link_seal
from services.parts import parts

logger = logging.getLogger(__name__)

_LOCKS = 0x61756474
"""The first half of our advisory locks; the second is made of the organisation's id."""
_BATCH = 200
_POLL_SECONDS = 0.5
_GATHER_SECONDS = 0.05
"""Time given to a burst of records to be linked together."""
_RETRY_SECONDS = 2.0


async def sequence_once() -> int:
    """Link what waits, at most 200 records of each organisation; returns how many were linked.

    Organisations that another worker has in hand are left to it.
    """
    rows = await db.fetch("SELECT DISTINCT organization_id FROM audit_pending", row=Row)
    waiting = [row["organization_id"] for row in rows]
    # Workers that start together should not queue up at the same organisation.
    random.shuffle(waiting)
    linked = 0
    for organization_id in waiting:
        try:
            linked += await _sequence(organization_id)
        except Exception:
            # One organisation's trouble is not the others'.
            logger.exception("The audit log of organisation %s could not be continued", organization_id)
    return linked


class Sequencer:
    """Runs in every worker, from `start` to `stop`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, as a task of the running loop. The database must be connected and the parts installed."""
        assert self._task is None, "it runs already"
        self._task = asyncio.create_task(self._run(), name="audit sequencer")

    async def stop(self) -> None:
        """End, and roll back what is not linked yet: another worker, or the next start, will do it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        failed = False
        while True:
            try:
                async with parts().bus.subscribe(audit.CHANNEL) as notices:
                    while True:
                        linked = await sequence_once()
                        if failed:
                            logger.info("The audit log is being numbered again")
                            failed = False
                        if not linked:
                            await _woken(notices)
            except SlowConsumer:
                continue  # so many notices say no more than one
            except Exception:
                if not failed:
                    logger.exception("The audit log is not being numbered; trying on")
                failed = True
                await asyncio.sleep(_RETRY_SECONDS)


async def _woken(notices: BusSubscription) -> None:
    try:
        if await notices.next(timeout=_POLL_SECONDS) is None:
            return
        await asyncio.sleep(_GATHER_SECONDS)
        while await notices.next(timeout=0) is not None:
            pass
    except Unavailable:
        # The bus is gone before us; the log is not.
        await asyncio.sleep(_POLL_SECONDS)


async def _sequence(organization_id: UUID) -> int:
    async with db.transaction() as tx:
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1, hashtext($2))", _LOCKS, str(organization_id)):
            return 0
        # A statement of its own, so that it sees what the lock's last holder committed.
        last = await tx.fetchrow(
            "SELECT number, hash FROM audit_links WHERE organization_id = $1 ORDER BY number DESC LIMIT 1",
            organization_id,
            row=Row,
        )
        pending = await tx.fetch(
            "SELECT audit_pending.record_id, audit_pending.digest AS witnessed, audit_records.* "
            "FROM audit_pending LEFT JOIN audit_records ON audit_records.id = audit_pending.record_id "
            "WHERE audit_pending.organization_id = $1 ORDER BY audit_pending.record_id LIMIT $2",
            organization_id,
            _BATCH,
            row=Row,
        )
        if not pending:
            return 0
        number, previous = (last["number"], last["hash"]) if last else (0, BEGINNING)
        links: list[tuple[int, UUID, bytes, bytes, bytes, bytes]] = []
        for row in pending:
            number += 1
            hash_ = link_hash(previous, number, row["witnessed"])
            links.append((number, row["record_id"], row["witnessed"], previous, hash_, link_seal(hash_)))
            previous = hash_
        await tx.execute(
            "INSERT INTO audit_links (organization_id, number, record_id, record_digest, previous_hash, hash, seal) "
            "SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[])",
            organization_id,
            *(list(column) for column in zip(*links, strict=True)),
        )
        await tx.execute(
            "DELETE FROM audit_pending WHERE organization_id = $1 AND record_id = ANY($2::uuid[])",
            organization_id,
            [link[1] for link in links],
        )
        alarms = [
            _alarm(organization_id, link[0], link[1], problem)
            for row, link in zip(pending, links, strict=True)
            if (problem := flaw(row, row["witnessed"])) is not None
        ]
        await audit.record(tx, *alarms)
    return len(links)


def _alarm(organization_id: UUID, number: int, record_id: UUID, problem: str) -> audit.Entry:
    """The number is given to what was witnessed, and a record of its own says what became of it."""
    logger.critical(
        "The audit log of organisation %s was tampered with: record %s, number %d: %s",
        "(none)" if organization_id == INSTALLATION else organization_id,
        record_id,
        number,
        problem,
    )
    return audit.Entry(
        "audit.tamper_detected",
        organization_id,
        actor_kind=ActorKind.SYSTEM,
        target_kind="AuditEvent",
        target_id=record_id,
        details={"number": number, "problem": problem},
        outcome=AuditOutcome.FAILED,
    )
