"""The life of a session: what may follow what, and that its status is true to its runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import product
from uuid import UUID

import pytest

from core import db
from core.errors import IllegalTransition
from core.permissions import Actor, Role
from models.sessions import SessionRow, SessionStatus
from services.runs.endings import end_run, interrupt_run
from services.runs.recorder import RunRow, RunStatus
from services.sessions import lifecycle
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from services.sessions.transitions import ALLOWED, change_status
from services.work import write
from tests.services.identity_help import House, a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

S = SessionStatus
MOVES: dict[SessionStatus, Callable[[Actor, UUID], Awaitable[SessionRow]]] = {
    S.PAUSED: lifecycle.pause_session,
    S.ACTIVE: lifecycle.resume_session,
    S.COMPLETED: lifecycle.complete_session,
    S.TERMINATED: lifecycle.terminate_session,
    S.ARCHIVED: lifecycle.archive_session,
}


@pytest.fixture
async def house(database: object) -> House:
    return await a_house()


@pytest.fixture
def actor(house: House) -> Actor:
    return house.actor(Role.MEMBER)


async def in_status(actor: Actor, status: SessionStatus) -> UUID:
    session = await create_session(actor, NewSession())
    await db.execute("UPDATE sessions SET status = $2 WHERE id = $1", session["id"], status.value)
    return session["id"]  # type: ignore[no-any-return]


async def status_of(session: UUID) -> str:
    return await db.fetchval("SELECT status FROM sessions WHERE id = $1", session)  # type: ignore[no-any-return]


async def moves_told(session: UUID) -> list[tuple[str, str]]:
    """The changes of status in the session's log."""
    rows = await db.fetch(
        "SELECT data FROM session_events WHERE session_id = $1 AND name = 'quarterdeck.session.status' ORDER BY seq",
        session,
    )
    return [(row["data"]["from"], row["data"]["to"]) for row in rows]


async def test_each_status_leads_where_the_rules_say_and_nowhere_else(actor: Actor) -> None:
    for current, to in product(S, S):
        session = await in_status(actor, current)

        async def attempt(session: UUID = session, to: SessionStatus = to) -> None:
            async with write(actor, "session.test") as work:
                await work.lock_session(session)
                await change_status(work, to)

        if to == current or to in ALLOWED[current]:
            await attempt()
            assert await status_of(session) == to
            assert await moves_told(session) == ([] if to == current else [(current, to)])
            archived_at = await db.fetchval("SELECT archived_at FROM sessions WHERE id = $1", session)
            assert (archived_at is not None) == (to is S.ARCHIVED and to != current)
        else:
            with pytest.raises(IllegalTransition) as refused:
                await attempt()
            assert current in refused.value.message
            assert all(other in refused.value.message for other in ALLOWED[current])
            assert refused.value.details["status"] == current
            assert await status_of(session) == current
            assert await moves_told(session) == []


async def test_every_mutation_keeps_to_the_rules(actor: Actor) -> None:
    for current, (to, move) in product(S, MOVES.items()):
        session = await in_status(actor, current)
        if to == current or to in ALLOWED[current]:
            assert (await move(actor, session))["status"] == to
        else:
            with pytest.raises(IllegalTransition):
                await move(actor, session)
            assert await status_of(session) == current
    refused = await db.fetchval("SELECT count(*) FROM audit_records WHERE outcome = 'REFUSED'")
    assert refused == sum(to != current and to not in ALLOWED[current] for current, to in product(S, MOVES))


async def test_what_runs_is_not_put_away(actor: Actor) -> None:
    session = (await create_session(actor, NewSession(message="hello")))["id"]
    for move in (lifecycle.complete_session, lifecycle.archive_session):
        with pytest.raises(IllegalTransition, match="run is still open"):
            await move(actor, session)
    run = await db.fetchval("SELECT id FROM runs WHERE session_id = $1", session)
    await interrupt_run(actor, run)
    assert (await lifecycle.archive_session(actor, session))["status"] == "ARCHIVED"


async def finish(actor: Actor, session: UUID, number: int, status: RunStatus) -> None:
    async with write(actor, None) as work:
        await work.hold_session(session)
        run = await work.tx.fetchrow(
            "SELECT * FROM runs WHERE session_id = $1 AND number = $2", session, number, row=RunRow
        )
        assert run is not None
        await end_run(work, run, status, error_code=None if status is RunStatus.FINISHED else "TEST")


async def test_a_failed_run_leaves_a_session_failed_only_when_nothing_follows(actor: Actor) -> None:
    session = (await create_session(actor, NewSession(message="one")))["id"]
    await send_message(actor, session, "two")
    await finish(actor, session, 1, RunStatus.FAILED)
    assert await status_of(session) == "ACTIVE"
    await finish(actor, session, 2, RunStatus.FAILED)
    assert await status_of(session) == "FAILED"
    await send_message(actor, session, "three")
    assert await status_of(session) == "ACTIVE"
    await finish(actor, session, 3, RunStatus.FINISHED)
    assert await status_of(session) == "ACTIVE"
    told = await moves_told(session)
    assert told == [("CREATED", "ACTIVE"), ("ACTIVE", "FAILED"), ("FAILED", "ACTIVE")]


async def test_stopping_what_is_queued_leaves_what_waits_waiting(actor: Actor) -> None:
    session = (await create_session(actor, NewSession(message="one")))["id"]
    await send_message(actor, session, "two")
    await db.execute("UPDATE runs SET status = 'WAITING' WHERE session_id = $1 AND number = 1", session)
    await db.execute("UPDATE sessions SET status = 'WAITING' WHERE id = $1", session)
    second = await db.fetchval("SELECT id FROM runs WHERE session_id = $1 AND number = 2", session)
    await interrupt_run(actor, second)
    assert await status_of(session) == "WAITING"


async def test_the_end_of_a_waiting_session_is_told_as_one_step(actor: Actor) -> None:
    session = (await create_session(actor, NewSession(message="one")))["id"]
    await db.execute("UPDATE runs SET status = 'WAITING' WHERE session_id = $1", session)
    await db.execute("UPDATE sessions SET status = 'WAITING' WHERE id = $1", session)
    assert (await lifecycle.terminate_session(actor, session))["status"] == "TERMINATED"
    assert (await moves_told(session))[-1] == ("WAITING", "TERMINATED")
    assert await db.fetchval("SELECT status FROM runs WHERE session_id = $1", session) == "INTERRUPTED"


async def test_a_pause_outlasts_what_happens_in_it(actor: Actor) -> None:
    session = (await create_session(actor, NewSession(message="one")))["id"]
    await lifecycle.pause_session(actor, session)
    for status in (RunStatus.FAILED, RunStatus.FINISHED):
        number = await db.fetchval("SELECT max(number) FROM runs WHERE session_id = $1", session)
        await finish(actor, session, number, status)
        assert await status_of(session) == "PAUSED"
        await send_message(actor, session, "more")
        assert await status_of(session) == "PAUSED"
