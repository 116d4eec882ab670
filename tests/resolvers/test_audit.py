from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from core import clock, db
from core.errors import BadInput
from core.permissions import Actor
from models.audit import AuditOutcome, AuditRow
from models.base import Row
from resolvers.audit import AuditFilter, audit_event, audit_events, verify_audit_log
from services import audit
from tests.services.audit_help import an_actor, sequence_all, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

ALL = AuditFilter()


@pytest.fixture
def actor() -> Actor:
    return an_actor()


async def actions(actor: Actor, filter: AuditFilter = ALL) -> list[str]:
    return [row.action for row in (await audit_events(actor, filter)).rows]


async def own_reads(actor: Actor) -> list[Row]:
    return await db.fetch(
        "SELECT * FROM audit_records WHERE actor_id = $1 AND action = 'audit.read' ORDER BY at", actor.user_id, row=Row
    )


async def test_the_newest_come_first_and_with_their_numbers_once_they_have_them(actor: Actor) -> None:
    await write(actor.organization_id, "a.1")
    await write(actor.organization_id, "a.2")
    await sequence_all()
    await write(actor.organization_id, "a.3")
    rows = (await audit_events(actor, ALL)).rows
    assert [(row.action, row.number) for row in rows] == [("a.3", None), ("a.2", 2), ("a.1", 1)]
    assert rows[1].previous_hash == rows[2].hash


async def test_another_organizations_log_is_not_seen(actor: Actor) -> None:
    await write(uuid4(), "a.1")
    await write(None, "a.2")
    (other,) = await db.fetch("SELECT id FROM audit_records WHERE action = 'a.1'", row=Row)
    assert await actions(actor) == []
    assert await audit_event(actor, other.id) is None


async def test_pages_continue_where_they_ended(actor: Actor) -> None:
    # Records of one statement may share their time, and are told apart by their ids.
    await write(actor.organization_id, *(f"a.{n}" for n in range(25)))
    found: list[AuditRow] = []
    after = None
    filter = AuditFilter(action="a.")
    while True:
        page = await audit_events(actor, filter, first=10, after=after)
        found += page.rows
        assert await page.count() == 25
        if not page.has_next_page:
            break
        after = page.cursor_of(page.rows[-1])
    assert [row.action for row in found] == [f"a.{n}" for n in reversed(range(25))]


@pytest.mark.parametrize("cursor", ["nonsense", "WzFd", "WzEsMl0", "WyJhIiwiYiJd", "W251bGwsbnVsbF0"])
async def test_a_cursor_of_something_else_is_refused(actor: Actor, cursor: str) -> None:
    with pytest.raises(BadInput, match="cursor"):
        await audit_events(actor, ALL, after=cursor)


async def test_filters(actor: Actor) -> None:
    target, session = uuid4(), uuid4()
    start = clock.now()
    async with db.transaction() as tx:
        await audit.record(
            tx,
            audit.Entry.of(actor, "session.create"),
            audit.Entry("session.delete", actor.organization_id, target_id=target),
            audit.Entry("tool.execute", actor.organization_id, session_id=session, outcome=AuditOutcome.FAILED),
        )
    for filter, expected in (
        (AuditFilter(action="session."), ["session.delete", "session.create"]),
        (AuditFilter(action="session.create"), ["session.create"]),
        (AuditFilter(action="%"), []),
        (AuditFilter(target_id=target), ["session.delete"]),
        (AuditFilter(session_id=session), ["tool.execute"]),
        (AuditFilter(outcome=AuditOutcome.FAILED), ["tool.execute"]),
        (AuditFilter(actor_id=actor.user_id, action="s"), ["session.create"]),
        (AuditFilter(until=start), []),
        (AuditFilter(since=start, action="tool."), ["tool.execute"]),
        (AuditFilter(since=clock.now() + timedelta(hours=1)), []),
        (AuditFilter(action="session.", outcome=AuditOutcome.FAILED), []),
    ):
        assert await actions(actor, filter) == expected, filter


async def test_a_time_without_its_offset_is_refused(actor: Actor) -> None:
    with pytest.raises(BadInput) as refusal:
        await audit_events(actor, AuditFilter(since=clock.now().replace(tzinfo=None)))
    assert refusal.value.field == "filter.since"


async def test_reading_is_recorded_with_what_was_asked_for(actor: Actor) -> None:
    session = uuid4()
    await write(actor.organization_id, "a.1", "a.2")
    page = await audit_events(actor, AuditFilter(action="a.", session_id=None), first=1)
    await audit_events(actor, AuditFilter(session_id=session))
    await audit_event(actor, page.rows[0].id)
    first, second, third = await own_reads(actor)
    assert first.details == {"filter": {"action": "a."}, "first": 1, "after": None, "records": 1}
    assert second.details["filter"] == {"session_id": str(session)}
    assert second.session_id == session
    assert (third.target_kind, third.target_id) == ("AuditEvent", page.rows[0].id)


async def test_a_reading_does_not_list_or_count_itself_but_the_next_one_does(actor: Actor) -> None:
    page = await audit_events(actor, ALL)
    assert list(page.rows) == []
    assert await page.count() == 0
    assert await actions(actor) == ["audit.read"]


async def test_a_page_takes_two_statements(actor: Actor) -> None:
    await write(actor.organization_id, *(f"a.{n}" for n in range(20)))
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        await audit_events(actor, ALL)
    finally:
        db.queries_seen.reset(mark)
    assert len(seen) == 2


async def test_verifying_is_recorded(actor: Actor) -> None:
    await write(actor.organization_id, "a.1")
    await sequence_all()
    report = await verify_audit_log(actor)
    assert report.intact
    assert report.verified == 1
    assert await actions(actor) == ["audit.verify", "a.1"]
