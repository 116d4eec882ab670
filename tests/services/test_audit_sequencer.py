from __future__ import annotations

import asyncio
import logging
from uuid import UUID, uuid4

import pytest

from core import db
from core.errors import Forbidden
from models.base import Row
from services import audit
from services.audit_chain import digest_of
from services.audit_sequencer import _LOCKS, Sequencer, sequence_once
from services.audit_verification import verify
from tests.services.audit_help import eventually, intruder, links, sequence_all, superuser, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


async def pending() -> int:
    return int(await db.fetchval("SELECT count(*) FROM audit_pending"))


async def all_linked(organization_id: UUID, count: int) -> None:
    async def linked() -> bool:
        return len(await links(organization_id)) >= count

    await eventually(linked)


async def test_twenty_writers_get_numbers_without_gaps() -> None:
    organization_id = uuid4()

    async def writer(name: int) -> None:
        for turn in range(10):
            try:
                async with db.transaction() as tx:
                    await audit.record(tx, audit.Entry(f"test.{name}.{turn}", organization_id))
                    if turn % 3 == 0:
                        raise Forbidden("a rolled back write takes no number")
            except Forbidden:
                pass

    sequencer = Sequencer()
    sequencer.start()
    await asyncio.gather(*(writer(name) for name in range(20)))
    await all_linked(organization_id, 120)
    await sequencer.stop()
    chain = await links(organization_id)
    assert [link.number for link in chain] == list(range(1, 121))
    assert len({link.record_id for link in chain}) == 120
    assert (await verify(organization_id)).intact
    assert await pending() == 0


async def test_many_sequencers_at_once_share_the_work() -> None:
    organizations = [uuid4() for _ in range(5)]
    for organization_id in organizations:
        for _ in range(3):
            await write(organization_id, *(f"test.{n}" for n in range(100)))
    for _ in range(10):
        await asyncio.gather(*(sequence_once() for _ in range(6)))
    assert await sequence_all() == 0
    for organization_id in organizations:
        report = await verify(organization_id)
        assert report.intact
        assert report.verified == 300


async def test_running_sequencers_are_woken_and_do_not_step_on_each_other() -> None:
    organization_id = uuid4()
    sequencers = [Sequencer() for _ in range(3)]
    for sequencer in sequencers:
        sequencer.start()
    for _ in range(20):
        await write(organization_id, "a.b", "a.c")
        await audit.announce()
    await all_linked(organization_id, 40)
    for sequencer in sequencers:
        await sequencer.stop()
    assert (await verify(organization_id)).verified == 40


async def test_a_record_that_is_committed_late_gets_the_next_number() -> None:
    organization_id = uuid4()
    written, release = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with db.transaction() as tx:
            await audit.record(tx, audit.Entry("test.slow", organization_id))
            written.set()
            await release.wait()

    task = asyncio.create_task(slow())
    await written.wait()
    await write(organization_id, "test.quick")
    assert await sequence_all() == 1
    release.set()
    await task
    assert await sequence_all() == 1
    chain = await links(organization_id)
    assert [(link.number, link.action) for link in chain] == [(1, "test.quick"), (2, "test.slow")]
    assert chain[1].at < chain[0].at
    assert (await verify(organization_id)).intact


async def test_an_open_write_holds_up_nobody() -> None:
    """Neither another writer of the organisation nor the sequencer waits for a transaction that stays open."""
    organization_id = uuid4()
    opened, release = asyncio.Event(), asyncio.Event()

    async def open_write() -> None:
        async with db.transaction() as tx:
            await audit.record(tx, audit.Entry("test.open", organization_id))
            opened.set()
            await release.wait()

    task = asyncio.create_task(open_write())
    await opened.wait()
    async with asyncio.timeout(30):
        await write(organization_id, "test.other")
        assert await sequence_all() == 1
    release.set()
    await task
    assert await sequence_all() == 1


async def test_an_organization_in_hand_is_left_and_the_others_go_on() -> None:
    busy, free = uuid4(), uuid4()
    await write(busy, "a.b")
    await write(free, "a.b")
    held, release = asyncio.Event(), asyncio.Event()

    async def other_worker() -> None:
        async with db.transaction() as tx:
            await tx.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _LOCKS, str(busy))
            held.set()
            await release.wait()

    task = asyncio.create_task(other_worker())
    await held.wait()
    async with asyncio.timeout(30):
        assert await sequence_all() == 1
    assert len(await links(free)) == 1
    assert await links(busy) == []
    release.set()
    await task
    assert await sequence_all() == 1


async def test_what_was_committed_before_a_crash_is_linked_after_it() -> None:
    organization_id = uuid4()
    await write(organization_id, "a.b", "a.c")
    # A sequencer dies in the middle: it waits for the table, and its server process is ended.
    held, release = asyncio.Event(), asyncio.Event()

    async def hold_table() -> None:
        async with superuser() as tx:
            await tx.execute("LOCK TABLE audit_links IN SHARE MODE")
            held.set()
            await release.wait()

    async def end_who_waits() -> bool:
        async with superuser() as tx:
            ended = await tx.fetchval(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO audit_links%'"
            )
            return bool(ended)

    holding = asyncio.create_task(hold_table())
    await held.wait()
    dying = asyncio.create_task(sequence_once())
    await eventually(end_who_waits)
    assert await dying == 0
    release.set()
    await holding
    assert await pending() == 2
    assert await sequence_all() == 2
    assert (await verify(organization_id)).verified == 2


async def test_stopping_in_the_middle_loses_and_repeats_nothing() -> None:
    organization_id = uuid4()
    for round_ in range(10):
        for _ in range(3):
            await write(organization_id, *(f"test.{n}" for n in range(100)))
        sequencer = Sequencer()
        sequencer.start()
        await asyncio.sleep(0.005 * round_)
        await sequencer.stop()
    await sequence_all()
    report = await verify(organization_id)
    assert report.intact
    assert report.verified == 3000


async def test_records_are_linked_soon_under_load() -> None:
    organizations = [uuid4() for _ in range(10)]
    sequencer = Sequencer()
    sequencer.start()

    async def load(organization_id: UUID) -> None:
        for n in range(40):
            await write(organization_id, f"test.{n}")

    await asyncio.gather(*(load(organization_id) for organization_id in organizations))
    for organization_id in organizations:
        await all_linked(organization_id, 40)
    await sequencer.stop()
    slowest = await db.fetchval("SELECT max(linked_at - at) FROM audit_links JOIN audit_records ON id = record_id")
    assert slowest.total_seconds() < 10


async def test_a_sequencer_survives_trouble_with_the_database(caplog: pytest.LogCaptureFixture) -> None:
    organization_id = uuid4()
    async with superuser() as tx:
        await tx.execute("ALTER TABLE audit_pending RENAME TO elsewhere")
    sequencer = Sequencer()

    async def noticed() -> bool:
        return "not being numbered" in caplog.text

    with caplog.at_level(logging.ERROR):
        sequencer.start()
        await eventually(noticed)
    async with superuser() as tx:
        await tx.execute("ALTER TABLE elsewhere RENAME TO audit_pending")
    await write(organization_id, "a.b")
    await all_linked(organization_id, 1)
    await sequencer.stop()


# -- between commit and link


async def alarm(organization_id: UUID, caplog: pytest.LogCaptureFixture) -> tuple[UUID, str]:
    """Link, and give what the alarm says: which record, and what is wrong with it."""
    with caplog.at_level(logging.CRITICAL):
        await sequence_all()
    assert "was tampered with" in caplog.text
    chain = await links(organization_id)
    found = [link for link in chain if link.action == "audit.tamper_detected"]
    assert len(found) == 1
    assert found[0].outcome == "FAILED"
    assert found[0].number == len(chain)
    assert chain[found[0].details["number"] - 1].record_id == found[0].target_id
    return found[0].target_id, found[0].details["problem"]


async def test_a_record_deleted_before_it_is_linked_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    organization_id = uuid4()
    await write(organization_id, "a.b", "a.c", "a.d")
    async with intruder() as tx:
        victim = await tx.fetchval("DELETE FROM audit_records WHERE action = 'a.c' RETURNING id")
    assert (await verify(organization_id)).broken_record_id == victim
    assert await alarm(organization_id, caplog) == (victim, "the record is missing")
    report = await verify(organization_id)
    assert (report.broken_number, report.broken_record_id) == (2, victim)
    assert [link.number for link in await links(organization_id)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        "action = 'a.x'",
        "at = at + interval '1 microsecond'",
        "actor_name = 'somebody else'",
        "after = '{\"n\": 99999999999999999999}'",
        "outcome = 'REFUSED'",
        "digest = sha256('x')",
    ],
)
async def test_a_record_changed_before_it_is_linked_is_noticed(change: str, caplog: pytest.LogCaptureFixture) -> None:
    organization_id = uuid4()
    await write(organization_id, "a.b", "a.c", "a.d")
    async with intruder() as tx:
        victim = await tx.fetchval(f"UPDATE audit_records SET {change} WHERE action = 'a.c' RETURNING id")
    assert await alarm(organization_id, caplog) == (victim, "the record was changed")
    assert (await verify(organization_id)).broken_number == 2


async def test_a_change_that_covers_its_digests_lacks_the_key(caplog: pytest.LogCaptureFixture) -> None:
    organization_id = uuid4()
    await write(organization_id, "a.b")
    async with intruder() as tx:
        await tx.execute("UPDATE audit_records SET action = 'a.x'")
        row = await tx.fetchrow("SELECT * FROM audit_records", row=Row)
        assert row is not None
        await tx.execute("UPDATE audit_records SET digest = $1", digest_of(row))
        await tx.execute("UPDATE audit_pending SET digest = $1", digest_of(row))
    _, problem = await alarm(organization_id, caplog)
    assert problem.startswith("the record's seal is not this installation's")


async def test_a_witness_removed_is_noticed() -> None:
    organization_id = uuid4()
    await write(organization_id, "a.b")
    async with intruder() as tx:
        await tx.execute("DELETE FROM audit_pending")
    assert await sequence_all() == 0
    report = await verify(organization_id)
    assert not report.intact
    assert "neither a number nor a witness" in (report.problem or "")
