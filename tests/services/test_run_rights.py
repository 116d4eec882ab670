"""Whose rights are taken away: what they had started does not go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.permissions import Role
from integrations.agents.base import Outcome, RuntimeEvent, ToolCall
from integrations.durable.base import Job
from services.identity.accounts import update_user
from services.runs.executor import RunExecutor
from services.runs.queue import job_of
from services.sessions.approvals import decide_approval
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from tests.fakes.puppet import Puppet, Strings, end
from tests.services.identity_help import House, a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def puppet(database: Program) -> Puppet:
    puppet = Puppet()
    database.parts.runtimes[puppet.name] = puppet  # type: ignore[index]
    return puppet


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
async def executor(puppet: Puppet) -> AsyncIterator[RunExecutor]:
    async def sweep(jobs: Any) -> int:
        return 0

    executor = RunExecutor(sweep)
    executor.start()
    yield executor
    await executor.stop()


async def a_run(house: House) -> tuple[UUID, Job]:
    session = await create_session(house.actor(Role.MEMBER), NewSession(runtime="puppet", message="go"))
    run = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1", session["id"])
    return session["id"], job_of(run["id"], run["organization_id"], run["segment"])


async def run_of(job: Job) -> Any:
    return await db.fetchrow("SELECT * FROM runs WHERE id = $1", job.run_id)


async def asking(strings: Strings) -> AsyncIterator[RuntimeEvent]:
    await strings.hooks.before_tool(ToolCall("c1", "shell", {"command": "ls"}))
    yield end(Outcome.WAITING)


TAKEN_AWAY = {
    "UPDATE users SET deactivated_at = now() WHERE id = $1": "has been deactivated",
    "UPDATE users SET role = 'VIEWER' WHERE id = $1": "is VIEWER now",
}
"""Straight in the table, as where the process that interrupts died in between."""


@pytest.mark.parametrize("sql", TAKEN_AWAY)
async def test_a_queued_run_of_somebody_without_rights_fails(
    executor: RunExecutor, puppet: Puppet, house: House, sql: str
) -> None:
    session, job = await a_run(house)
    await db.execute(sql, house.users[Role.MEMBER]["id"])
    await executor.execute(job)
    run = await run_of(job)
    assert (run["status"], run["error_code"], run["started_at"]) == ("FAILED", "FORBIDDEN", None)
    assert TAKEN_AWAY[sql] in run["error_message"]
    assert await db.fetchval("SELECT status FROM sessions WHERE id = $1", session) == "FAILED"
    assert puppet.closed == 0
    # An admin goes on with it.
    await send_message(house.actor(Role.ADMIN), session, "go on")
    again = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1 AND number = 2", session)
    await executor.execute(job_of(again["id"], again["organization_id"], 1))
    assert await db.fetchval("SELECT status FROM runs WHERE id = $1", again["id"]) == "FINISHED"


@pytest.mark.parametrize("sql", TAKEN_AWAY)
async def test_a_decision_does_not_let_the_run_of_somebody_without_rights_go_on(
    executor: RunExecutor, puppet: Puppet, house: House, sql: str
) -> None:
    puppet.segment = asking
    session, job = await a_run(house)
    await executor.execute(job)
    await db.execute(sql, house.users[Role.MEMBER]["id"])
    approval = await db.fetchval("SELECT id FROM approvals WHERE session_id = $1", session)
    await decide_approval(house.actor(Role.ADMIN), approval, approve=True, note=None, arguments=None)
    await executor.execute(replace(job, key=f"{job.run_id}:2", segment=2))
    run = await run_of(job)
    assert (run["status"], run["error_code"]) == ("FAILED", "FORBIDDEN")
    assert await db.fetchval("SELECT status FROM tool_executions WHERE run_id = $1", job.run_id) == "INTERRUPTED"
    assert puppet.closed == 1


@pytest.mark.parametrize("change", [{"active": False}, {"role": Role.VIEWER}])
async def test_all_that_runs_for_somebody_stops_as_their_rights_are_taken_away(
    executor: RunExecutor, puppet: Puppet, house: House, change: dict[str, Any]
) -> None:
    puppet.segment = asking
    waiting, waiting_job = await a_run(house)
    await executor.execute(waiting_job)
    await send_message(house.actor(Role.MEMBER), waiting, "next")
    by_admin = await create_session(house.actor(Role.ADMIN), NewSession(runtime="puppet", message="mine"))
    started = asyncio.Event()

    async def endless(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        started.set()
        await strings.interrupted.wait()
        yield end(Outcome.INTERRUPTED)

    puppet.segment = endless
    _, job = await a_run(house)
    working = asyncio.create_task(executor.execute(job))
    await started.wait()
    await update_user(house.actor(Role.ADMIN), house.users[Role.MEMBER]["id"], **change)
    await asyncio.wait_for(working, 20)
    statuses = await db.fetch("SELECT status FROM runs WHERE session_id <> $1", by_admin["id"])
    assert [row["status"] for row in statuses] == ["INTERRUPTED"] * 3
    assert await db.fetchval("SELECT status FROM runs WHERE session_id = $1", by_admin["id"]) == "QUEUED"
    audited = await db.fetchval("SELECT count(*) FROM audit_records WHERE action = 'run.interrupt'")
    assert audited == 3


async def test_a_change_that_leaves_the_rights_stops_nothing(house: House, puppet: Puppet) -> None:
    _, job = await a_run(house)
    await update_user(house.actor(Role.ADMIN), house.users[Role.MEMBER]["id"], name="Demo Engineer", role=Role.ADMIN)
    assert (await run_of(job))["status"] == "QUEUED"
