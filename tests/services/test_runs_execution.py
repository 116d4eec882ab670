"""What a worker does with a run, also when jobs come twice, workers die, and people decide at awkward moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from app.wiring import Program
from core import db
from core.errors import Conflict, NotFound, TooLarge
from core.permissions import Actor, Role
from integrations.agents.base import (
    Decision,
    Outcome,
    RuntimeEvent,
    RuntimeState,
    TextDelta,
    TextEnded,
    TextStarted,
    ToolCall,
    ToolResult,
    Verdict,
)
from integrations.durable.base import Job
from services.parts import install, parts
from services.runs.endings import interrupt_run
from services.runs.executor import RunExecutor, unfinished_jobs
from services.runs.queue import job_of
from services.sessions import lifecycle
from services.sessions.approvals import decide_approval, expire_approvals
from services.sessions.forking import fork_session
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from services.sessions.options import SessionOptions
from tests.fakes.puppet import Puppet, Strings, end, wait_for
from tests.services.identity_help import a_house

pytestmark = pytest.mark.anyio


@pytest.fixture
async def puppet(database: Program) -> Puppet:
    puppet = Puppet()
    database.parts.runtimes[puppet.name] = puppet  # type: ignore[index]
    return puppet


@pytest.fixture
async def actor(database: Program) -> Actor:
    return (await a_house()).actor(Role.MEMBER)


@pytest.fixture
async def executor(puppet: Puppet) -> AsyncIterator[RunExecutor]:
    """Hears interrupts; jobs are given to it by the test."""

    async def sweep(jobs: Any) -> int:
        return 0

    executor = RunExecutor(sweep)
    executor.start()
    yield executor
    await executor.stop()


async def a_run(actor: Actor, **more: Any) -> tuple[UUID, UUID, Job]:
    """A session with a queued run: their ids, and the run's job."""
    session = await create_session(actor, NewSession(runtime="puppet", message="go", **more))
    run = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1", session["id"])
    return session["id"], run["id"], job_of(run["id"], run["organization_id"], run["segment"])


async def run_of(run: UUID) -> Any:
    return await db.fetchrow("SELECT * FROM runs WHERE id = $1", run)


async def events_of(session: UUID) -> list[Any]:
    return await db.fetch("SELECT * FROM session_events WHERE session_id = $1 ORDER BY seq", session)


def call(id_: str = "c1", tool: str = "shell", **arguments: Any) -> ToolCall:
    return ToolCall(id_, tool, arguments)


async def asking(strings: Strings) -> AsyncIterator[RuntimeEvent]:
    """Wants one tool, whose decision it waits for."""
    if strings.text is not None:
        assert (await strings.hooks.before_tool(call(command="ls"))).verdict is Verdict.ASK
        yield end(Outcome.WAITING)
        return
    decision = strings.decisions["c1"]
    if decision.verdict is Verdict.ALLOW:
        run = replace(call(command="ls"), arguments=decision.arguments or {"command": "ls"})
        await strings.hooks.after_tool(run, ToolResult([{"type": "text", "text": f"did {run.arguments}"}]))
    yield end()


async def pending(session: UUID) -> UUID:
    return await db.fetchval(  # type: ignore[no-any-return]
        "SELECT id FROM approvals WHERE session_id = $1 AND status = 'PENDING'", session
    )


# -- claiming


async def test_a_job_of_an_earlier_segment_leaves_the_run_alone(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    """A pause and its end make a new job while the first is still in the queue: it may come to another worker."""
    started = asyncio.Event()

    async def slow(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        started.set()
        await asyncio.sleep(0.2)
        yield end()

    puppet.segment = slow
    session, run, stale = await a_run(actor)
    await lifecycle.pause_session(actor, session)
    await lifecycle.resume_session(actor, session)
    fresh = replace(stale, key=f"{run}:2", segment=2)
    working = asyncio.create_task(executor.execute(fresh))
    await started.wait()
    await executor.execute(stale)
    await RunExecutor(executor._sweep_queue).execute(stale)
    await working
    assert (await run_of(run))["status"] == "FINISHED"


async def test_the_job_that_counts_is_executed_while_a_stale_one_is_looked_at(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    session, run, stale = await a_run(actor)
    await lifecycle.pause_session(actor, session)
    await lifecycle.resume_session(actor, session)
    await asyncio.gather(executor.execute(stale), executor.execute(replace(stale, key=f"{run}:2", segment=2)))
    assert (await run_of(run))["status"] == "FINISHED"


async def test_a_job_that_comes_again_means_that_its_worker_is_lost(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    """What a dead worker had begun is not done again; what it writes when it wakes up is refused."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def dying(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        yield TextDelta("m", "half a sen")
        reached.set()
        await go_on.wait()
        yield TextDelta("m", "tence")
        yield TextEnded("m")
        yield end()

    puppet.segment = dying
    session, run, job = await a_run(actor)
    asleep = asyncio.create_task(executor.execute(job))
    await reached.wait()
    await wait_for(lambda: db.fetchval("SELECT 1 FROM message_progress"))
    await RunExecutor(executor._sweep_queue).execute(replace(job, attempt=2))
    found = await run_of(run)
    assert (found["status"], found["error_code"]) == ("INTERRUPTED", "WORKER_LOST")
    go_on.set()
    await asleep
    message = await db.fetchrow("SELECT * FROM messages WHERE session_id = $1 AND role = 'ASSISTANT'", session)
    assert (message["status"], message["text"]) == ("INTERRUPTED", "half a sen")
    assert [event["type"] for event in await events_of(session)][-2:] == ["TEXT_MESSAGE_END", "RUN_ERROR"]
    assert puppet.closed == 1
    # The next message works.
    puppet.segment = Puppet().segment
    await send_message(actor, session, "again")
    again = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1 AND number = 2", session)
    await executor.execute(job_of(again["id"], again["organization_id"], 1))
    assert (await run_of(again["id"]))["status"] == "FINISHED"


async def test_runs_wait_for_those_before_them(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    session, first, job = await a_run(actor)
    await send_message(actor, session, "second")
    second = await db.fetchrow("SELECT * FROM runs WHERE session_id = $1 AND number = 2", session)
    early = job_of(second["id"], second["organization_id"], 1)
    await executor.execute(early)
    assert (await run_of(second["id"]))["status"] == "QUEUED"
    await executor.execute(job)
    await executor.execute(early)
    assert (await run_of(first))["ended_at"] <= (await run_of(second["id"]))["started_at"]


async def test_what_was_committed_and_not_queued_is_found(puppet: Puppet, actor: Actor) -> None:
    """The process died between the two: the workers' sweep goes by the tables."""
    session, run, job = await a_run(actor)
    assert await unfinished_jobs() == [job]
    await lifecycle.pause_session(actor, session)
    assert await unfinished_jobs() == []
    await lifecycle.resume_session(actor, session)
    [again] = await unfinished_jobs()
    assert (again.run_id, again.segment) == (run, 2)
    # A worker may be lost in a session that was paused meanwhile.
    await db.execute("UPDATE runs SET status = 'RUNNING', executor = 'gone' WHERE id = $1", run)
    await lifecycle.pause_session(actor, session)
    assert await unfinished_jobs() == [again]
    await db.execute("UPDATE runs SET status = 'WAITING' WHERE id = $1", run)
    assert await unfinished_jobs() == []


# -- interrupts


async def test_an_interrupt_stops_what_a_worker_executes(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    started = asyncio.Event()

    async def endless(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        yield TextDelta("m", "Let me th")
        started.set()
        await strings.interrupted.wait()
        yield end(Outcome.INTERRUPTED)

    puppet.segment = endless
    session, run, job = await a_run(actor)
    working = asyncio.create_task(executor.execute(job))
    await started.wait()
    assert (await interrupt_run(actor, run))["status"] == "RUNNING"
    await asyncio.wait_for(working, 10)
    assert (await run_of(run))["status"] == "INTERRUPTED"
    last = (await events_of(session))[-1]
    assert (last["type"], last["data"]["outcome"]) == ("RUN_FINISHED", "cancelled")
    message = await db.fetchrow("SELECT * FROM messages WHERE session_id = $1 AND role = 'ASSISTANT'", session)
    assert (message["status"], message["text"]) == ("INTERRUPTED", "Let me th")


async def test_an_interrupt_whose_notice_is_lost_is_found_in_the_row(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    started = asyncio.Event()

    async def endless(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        started.set()
        await strings.interrupted.wait()
        yield end(Outcome.INTERRUPTED)

    puppet.segment = endless
    _, run, job = await a_run(actor)
    working = asyncio.create_task(executor.execute(job))
    await started.wait()
    await db.execute("UPDATE runs SET interrupt_requested_at = now() WHERE id = $1", run)
    # Others' notices must not keep it from looking.
    for _ in range(30):
        await parts().bus.publish("interrupts", {"run": str(UUID(int=7))})
        await asyncio.sleep(0.05)
    await asyncio.wait_for(working, 10)
    assert (await run_of(run))["status"] == "INTERRUPTED"


async def test_a_run_that_was_stopped_does_not_come_to_wait(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def deaf(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        await strings.hooks.before_tool(call())
        asked.set()
        await go_on.wait()
        yield end(Outcome.WAITING)

    puppet.segment = deaf
    session, run, job = await a_run(actor)
    working = asyncio.create_task(executor.execute(job))
    await asked.wait()
    await interrupt_run(actor, run)
    go_on.set()
    await working
    assert (await run_of(run))["status"] == "INTERRUPTED"
    assert await db.fetchval("SELECT status FROM approvals WHERE run_id = $1", run) == "CANCELLED"
    assert await db.fetchval("SELECT status FROM tool_executions WHERE run_id = $1", run) == "INTERRUPTED"
    assert await db.fetchval("SELECT status FROM sessions WHERE id = $1", session) == "ACTIVE"


async def test_what_is_queued_or_waits_stops_at_once(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    puppet.segment = asking
    session, run, job = await a_run(actor)
    await executor.execute(job)
    await send_message(actor, session, "next")
    queued = await db.fetchval("SELECT id FROM runs WHERE session_id = $1 AND number = 2", session)
    assert (await interrupt_run(actor, queued))["status"] == "INTERRUPTED"
    assert (await interrupt_run(actor, run))["status"] == "INTERRUPTED"
    with pytest.raises(Conflict, match="has ended already"):
        await interrupt_run(actor, run)


# -- decisions


async def test_a_decision_may_come_while_the_run_still_executes(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow_to_wait(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        async for event in asking(strings):
            if strings.text is not None:
                asked.set()
                await go_on.wait()
            yield event

    puppet.segment = slow_to_wait
    session, run, job = await a_run(actor)
    working = asyncio.create_task(executor.execute(job))
    await asked.wait()
    await decide_approval(actor, await pending(session), approve=True, note=None, arguments={"command": "id"})
    assert (await run_of(run))["status"] == "RUNNING"
    go_on.set()
    await working
    found = await run_of(run)
    assert (found["status"], found["segment"]) == ("QUEUED", 2)
    await executor.execute(replace(job, key=f"{run}:2", segment=2))
    assert (await run_of(run))["status"] == "FINISHED"
    tool = await db.fetchrow("SELECT * FROM tool_executions WHERE run_id = $1", run)
    assert (tool["status"], tool["arguments"]) == ("SUCCEEDED", {"command": "id"})
    assert tool["result"][0]["text"] == "did {'command': 'id'}"


async def test_of_two_decisions_at_once_the_second_learns_of_the_first(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    puppet.segment = asking
    session, run, job = await a_run(actor)
    await executor.execute(job)
    approval = await pending(session)
    both = await asyncio.gather(
        decide_approval(actor, approval, approve=True, note=None, arguments=None),
        decide_approval(actor, approval, approve=False, note="no", arguments=None),
        return_exceptions=True,
    )
    [late] = [one for one in both if isinstance(one, Conflict)]
    [first] = [one for one in both if not isinstance(one, BaseException)]
    assert actor.name in late.message
    assert late.details["status"] == first["status"]
    assert (await run_of(run))["segment"] == 2


async def test_a_denial_reaches_the_agent_with_its_reason(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    heard: list[Decision] = []

    async def listening(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        heard.extend(strings.decisions.values())
        async for event in asking(strings):
            yield event

    puppet.segment = listening
    session, run, job = await a_run(actor)
    await executor.execute(job)
    await decide_approval(actor, await pending(session), approve=False, note="not today", arguments=None)
    await executor.execute(replace(job, key=f"{run}:2", segment=2))
    assert [(one.verdict, one.reason) for one in heard] == [(Verdict.DENY, "A human refused this call: not today")]
    assert await db.fetchval("SELECT status FROM tool_executions WHERE run_id = $1", run) == "DENIED"
    assert (
        await db.fetchval("SELECT count(*) FROM audit_records WHERE action = 'tool.execute' AND outcome = 'REFUSED'")
        == 1
    )


async def test_nobody_decides_in_time(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    puppet.segment = asking
    session, run, job = await a_run(actor)
    await executor.execute(job)
    assert await expire_approvals() == 0
    approval = await pending(session)
    await db.execute("UPDATE approvals SET expires_at = now() - interval '1 second'")
    assert await expire_approvals() == 1
    with pytest.raises(Conflict, match="expired already"):
        await decide_approval(actor, approval, approve=True, note=None, arguments=None)
    await executor.execute(replace(job, key=f"{run}:2", segment=2))
    assert (await run_of(run))["status"] == "FINISHED"
    assert await db.fetchval("SELECT status FROM tool_executions WHERE run_id = $1", run) == "DENIED"


async def test_a_decision_in_a_paused_session_is_kept_for_later(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    puppet.segment = asking
    session, run, job = await a_run(actor)
    await executor.execute(job)
    await lifecycle.pause_session(actor, session)
    await decide_approval(actor, await pending(session), approve=True, note=None, arguments=None)
    await executor.execute(replace(job, key=f"{run}:2", segment=2))
    assert (await run_of(run))["status"] == "QUEUED"
    assert (await lifecycle.resume_session(actor, session))["status"] == "ACTIVE"
    await executor.execute(replace(job, key=f"{run}:3", segment=3))
    assert (await run_of(run))["status"] == "FINISHED"


async def test_edited_arguments_have_the_size_of_any(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    puppet.segment = asking
    session, _, job = await a_run(actor)
    await executor.execute(job)
    approval = await pending(session)
    with pytest.raises(TooLarge):
        await decide_approval(actor, approval, approve=True, note=None, arguments={"x": "y" * 300_000})
    with pytest.raises(TooLarge):
        await decide_approval(actor, approval, approve=False, note="y" * 2001, arguments=None)
    with pytest.raises(NotFound):
        await decide_approval((await a_house("B")).actor(Role.OWNER), approval, approve=True, note=None, arguments=None)
    assert await pending(session) == approval


# -- tools


async def test_a_call_id_that_is_used_again_runs_nothing(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    """Else a harmless call would open the door to any other."""
    verdicts = []

    async def sly(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        harmless = ToolCall("same", "list_files", {}, annotations={"readOnlyHint": True})
        verdicts.append(await strings.hooks.before_tool(harmless))
        verdicts.append(await strings.hooks.before_tool(harmless))
        await strings.hooks.after_tool(harmless, ToolResult([]))
        verdicts.append(await strings.hooks.before_tool(call("same", command="rm -rf .")))
        yield end()

    puppet.segment = sly
    _, run, job = await a_run(actor)
    await executor.execute(job)
    assert [one.verdict for one in verdicts] == [Verdict.ALLOW, Verdict.DENY, Verdict.DENY]
    assert await db.fetchval("SELECT count(*) FROM tool_executions WHERE run_id = $1", run) == 1


async def test_tools_may_give_back_what_json_cannot_hold(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]

    async def odd(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        odd_call = call(command="cat /dev/urandom")
        await strings.hooks.before_tool(odd_call)
        await strings.hooks.after_tool(
            odd_call,
            ToolResult([{"type": "text", "text": "a\0b \ud800 c"}], structured={"n": 10**30, "d": deep, "\0": None}),
        )
        yield TextStarted("m")
        yield TextDelta("m", "NUL \0 and \udfff")
        yield TextEnded("m")
        yield end()

    puppet.segment = odd
    session, run, job = await a_run(actor, options=SessionOptions(allowed_tools=("shell",)))
    await executor.execute(job)
    assert (await run_of(run))["status"] == "FINISHED"
    tool = await db.fetchrow("SELECT * FROM tool_executions WHERE run_id = $1", run)
    assert tool["result"] == [{"type": "text", "text": "a\ufffdb \ufffd c"}]
    assert tool["structured_result"]["n"] == str(10**30)
    text = await db.fetchval("SELECT text FROM messages WHERE session_id = $1 AND role = 'ASSISTANT'", session)
    assert text == "NUL \ufffd and \ufffd"


async def test_arguments_that_cannot_be_recorded_exactly_do_not_run(
    executor: RunExecutor, puppet: Puppet, actor: Actor
) -> None:
    said = []

    async def odd(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        for number, arguments in enumerate(({"a": "\0"}, {"a": 10**30}, {"a": float("nan")}, {"a": "x" * 300_000})):
            said.append(await strings.hooks.before_tool(ToolCall(f"c{number}", "shell", arguments)))
        yield end()

    puppet.segment = odd
    _, _, job = await a_run(actor, options=SessionOptions(allowed_tools=("shell",)))
    await executor.execute(job)
    assert [one.verdict for one in said] == [Verdict.DENY] * 4
    assert "over 262144 bytes" in (said[3].reason or "")


async def test_a_playbook_that_wants_a_human_gets_one(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    """Also for a tool that reads only, and where everything else may run."""
    said = []

    async def careful(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        wants = {"readOnlyHint": True, "requiresApproval": True, "question": "May I?"}
        said.append(await strings.hooks.before_tool(ToolCall("c1", "list_files", {}, annotations=wants)))
        yield end(Outcome.WAITING)

    puppet.segment = careful
    session, _, job = await a_run(actor, options=SessionOptions(allowed_tools=("*",)))
    await executor.execute(job)
    assert said[0].verdict is Verdict.ASK
    assert await db.fetchval("SELECT reason FROM approvals WHERE session_id = $1", session) == "May I?"


async def test_a_runtime_that_breaks_ends_its_run_and_nothing_else(
    executor: RunExecutor, puppet: Puppet, actor: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        yield TextDelta("m", "So far")
        raise ZeroDivisionError("secret detail")

    puppet.segment = broken
    session, run, job = await a_run(actor)
    await executor.execute(job)
    found = await run_of(run)
    assert (found["status"], found["error_code"]) == ("FAILED", "RUNTIME_ERROR")
    assert "secret detail" not in found["error_message"]
    assert "secret detail" in caplog.text
    assert found["error_message"].rpartition(" ")[2].rstrip(".") in caplog.text
    message = await db.fetchrow("SELECT * FROM messages WHERE session_id = $1 AND role = 'ASSISTANT'", session)
    assert (message["status"], message["text"]) == ("INTERRUPTED", "So far")
    assert await db.fetchval("SELECT status FROM sessions WHERE id = $1", session) == "FAILED"
    assert puppet.closed == 1


async def test_a_worker_that_stops_says_so(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    started = asyncio.Event()

    async def endless(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        started.set()
        await asyncio.sleep(3600)
        yield end()

    puppet.segment = endless
    _, run, job = await a_run(actor)
    working = asyncio.create_task(executor.execute(job))
    await started.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    found = await run_of(run)
    assert (found["status"], found["error_code"]) == ("INTERRUPTED", "WORKER_STOPPED")


async def test_the_bus_may_be_away_while_a_run_goes_on(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    async def talking(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        await parts().bus.close()
        yield TextDelta("m", "Nobody hears this now")
        await asyncio.sleep(0.1)
        yield TextEnded("m")
        yield end()

    puppet.segment = talking
    session, run, job = await a_run(actor)
    with pytest.raises(Exception):  # noqa: B017  (telling the end fails too; the end stands)
        await executor.execute(job)
    assert await db.fetchval("SELECT text FROM messages WHERE session_id = $1 AND role = 'ASSISTANT'", session)
    assert (await run_of(run))["executor"] == parts().executor_id


# -- forks


async def test_a_fork_has_the_conversation_in_its_order(executor: RunExecutor, puppet: Puppet, actor: Actor) -> None:
    """Messages that were sent while another was being answered come after that answer."""

    async def answering(strings: Strings) -> AsyncIterator[RuntimeEvent]:
        yield TextStarted("m")
        yield TextDelta("m", f"answer to {strings.text}")
        yield TextEnded("m")
        yield end(state=RuntimeState("puppet", 1, b"all"))

    puppet.segment = answering
    session, _, _ = await a_run(actor)
    await send_message(actor, session, "second")
    runs = await db.fetch("SELECT * FROM runs WHERE session_id = $1 ORDER BY number", session)
    for run in runs:
        await executor.execute(job_of(run["id"], run["organization_id"], 1))
    await send_message(actor, session, "third")
    messages = {
        row["text"]: row["id"] for row in await db.fetch("SELECT id, text FROM messages WHERE session_id = $1", session)
    }

    async def fork(at: str | None) -> tuple[list[str], bytes | None]:
        made = await fork_session(actor, session, message_id=messages[at] if at else None, title=None)
        rows = await db.fetch("SELECT text FROM messages WHERE session_id = $1 ORDER BY seq", made["id"])
        payload = await db.fetchval("SELECT payload FROM runtime_states WHERE session_id = $1", made["id"])
        return [row["text"] for row in rows], payload

    first, second = ["go", "answer to go"], ["second", "answer to second"]
    assert await fork(None) == (first + second, b"2")
    assert await fork("answer to second") == (first + second, b"2")
    assert await fork("answer to go") == (first, b"1")
    assert await fork("second") == ([*first, "second"], b"1")
    assert await fork("third") == (first + second + ["third"], b"2")


@pytest.fixture(autouse=True)
def parts_stay(database: Program) -> None:
    install(database.parts)
