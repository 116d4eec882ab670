"""Who does which test of a template: one worker at a time, a bounded number, and none that is lost for ever."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.ids import new_id
from core.permissions import Role
from models.base import Row
from models.templates import TemplateTestRow
from services.templates import tester, testing
from services.templates.drafts import NewTemplate, create_template
from services.templates.reports import Check, CheckKind, Lost, Report
from services.templates.sessions_of_tests import session_of_test
from services.templates.spec import TemplateSpec
from services.templates.tester import OF_ORGANIZATION, Tester
from services.templates.testing import cancel_test, start_test
from tests.services.identity_help import House, a_house
from tests.talking import eventually

pytestmark = pytest.mark.anyio
SPEC = TemplateSpec(runtime="script", messages=("/tool list_files {}",))
LOOK = Check("look", CheckKind.SESSION, "It is so")


async def queued(house: House, count: int) -> list[UUID]:
    actor = house.actor(Role.MEMBER)
    template = await create_template(actor, NewTemplate(f"t-{count}", "T", "development", SPEC))
    return [(await start_test(actor, template["id"]))["id"] for _ in range(count)]


async def claimed(executor: str) -> list[TemplateTestRow]:
    """Claims are taken one worker after the other."""
    while True:
        if found := await tester._claimed(executor, 10):
            return found
        held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $1::bigint::oid"
        if not await db.fetchval(held, tester._CLAIM_LOCK):
            return []


async def test_an_organisation_s_tests_are_bounded_and_each_is_one_worker_s(database: Program) -> None:
    ours, theirs = await a_house("Ours"), await a_house("Theirs")
    tests = set(await queued(ours, OF_ORGANIZATION + 3))
    others = set(await queued(theirs, 2))
    one, two, three = await asyncio.gather(*(claimed(name) for name in ("a", "b", "c")))
    together = [row["id"] for row in [*one, *two, *three]]
    assert len(together) == len(set(together)) == OF_ORGANIZATION + 2
    assert others <= set(together)
    assert await claimed("d") == []
    # Those whose worker is gone are another's, in the room that they have.
    await db.execute("UPDATE template_tests SET lease_until = now() - interval '1 second' WHERE status = 'RUNNING'")
    again = {row["id"]: row for row in await claimed("e")}
    assert set(again) == set(together)
    assert all(row["executor"] == "e" and row["attempt"] == 1 for row in again.values())
    # The former worker, which was only slow, writes nothing any more.
    [late, *_] = [*one, *two, *three]
    with pytest.raises(Lost):
        await Report(late).begin(LOOK)
    assert (await db.fetchrow("SELECT checks FROM template_tests WHERE id = $1", late["id"], row=Row))["checks"] == []
    await Report(again[late["id"]]).begin(LOOK)
    assert len(tests - set(together)) == 3


async def test_what_was_cancelled_is_written_to_no_more_and_nothing_of_it_waits(database: Program) -> None:
    house = await a_house()
    first, second = await queued(house, 2)
    [running, _] = await claimed("a")
    await cancel_test(house.actor(Role.MEMBER), running["id"])
    with pytest.raises(Lost):
        await Report(running).passed(LOOK, "It is so.")
    await db.execute("UPDATE template_tests SET status = 'QUEUED', lease_until = NULL WHERE id = $1", second)
    await cancel_test(house.actor(Role.ADMIN), second)
    assert first == running["id"]
    left = await db.fetch("SELECT lease_until FROM template_tests ORDER BY id", row=Row)
    assert left[0]["lease_until"] is not None
    assert left[1]["lease_until"] is None


async def test_a_session_that_nobody_put_away_is_found_by_another_worker(database: Program) -> None:
    house = await a_house()
    [test] = await queued(house, 1)
    [row] = await claimed("gone")
    session_id = new_id()
    session = await session_of_test(house.actor(Role.MEMBER), row["template_id"], SPEC, {}, session_id)
    same = await session_of_test(house.actor(Role.MEMBER), row["template_id"], SPEC, {}, session_id)
    assert same["id"] == session["id"] == session_id
    await Report(row).link(session_id)
    await cancel_test(house.actor(Role.MEMBER), test)
    await db.execute("UPDATE template_tests SET lease_until = now() - interval '1 second'")
    other = Tester()
    other.start()
    try:

        async def tidy() -> bool:
            return await db.fetchval("SELECT lease_until FROM template_tests WHERE id = $1", test) is None

        await eventually(tidy)
    finally:
        await other.stop()
    assert await db.fetchval("SELECT status FROM sessions WHERE id = $1", session_id) == "ARCHIVED"
    assert await db.fetchval("SELECT status FROM runs WHERE session_id = $1", session_id) == "INTERRUPTED"


async def test_too_many_tests_at_once_are_refused(database: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "MOST_OPEN", 2)
    house = await a_house()
    with pytest.raises(testing.LimitExceeded, match="wait already"):
        await queued(house, 3)
