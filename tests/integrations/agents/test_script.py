"""The runtime without a model: what it runs, refuses, waits for and remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import BadInput
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    McpServerSpec,
    Outcome,
    RuntimeSession,
    RuntimeState,
    StepStarted,
    TextDelta,
    Usage,
    UserInput,
    Verdict,
)
from integrations.agents.script import ScriptRuntime
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from tests.fakes.hooks import RecordingHooks, asking
from tests.integrations.agents.conftest import MakeConfig, Segment, segment
from tests.integrations.conftest import eventually

MakeSpec = Callable[..., McpServerSpec]


@pytest.fixture
def runtime(settings: Settings, pool: ServerPool, sandbox: Sandbox) -> ScriptRuntime:
    return ScriptRuntime(settings, pool, sandbox)


@pytest.fixture
def hooks() -> RecordingHooks:
    return RecordingHooks()


@pytest.fixture
async def session(
    runtime: ScriptRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec
) -> AsyncIterator[RuntimeSession]:
    started = await runtime.start(config(mcp_servers=[spec(name="test")]), hooks, None)
    yield started
    await started.close()


async def say(session: RuntimeSession, text: str) -> Segment:
    return await segment(session.send(UserInput(text)))


@pytest.mark.anyio
async def test_a_tool_call(session: RuntimeSession, hooks: RecordingHooks) -> None:
    answer = await say(session, '/tool test.echo {"text": "hello"}')
    assert answer.text == "hello"
    assert answer.end.outcome is Outcome.FINISHED
    assert answer.end.usage == Usage()
    assert answer.end.usage.cost_usd is None
    (call,) = hooks.before
    assert (call.name, call.arguments) == ("test.echo", {"text": "hello"})
    assert call.annotations["readOnlyHint"] is True
    ((after, result),) = hooks.after
    assert after.id == call.id
    assert result.duration_ms >= 0


@pytest.mark.anyio
async def test_text_is_streamed_in_pieces(session: RuntimeSession) -> None:
    answer = await say(session, json.dumps({"text": "word " * 200}).join(["/tool test.echo ", ""]))
    assert len([event for event in answer.events if isinstance(event, TextDelta)]) > 3
    assert answer.text.strip() == ("word " * 200).strip()


@pytest.mark.anyio
async def test_a_failing_tool_is_told_and_the_run_goes_well(session: RuntimeSession) -> None:
    answer = await say(session, '/tool test.fail {"message": "no"}')
    assert answer.end.outcome is Outcome.FINISHED
    assert answer.text.startswith("The tool failed:")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/tool test.nothing {}", "no tool 'test.nothing'"),
        ("/tool nothing", "no tool 'nothing'"),
        ('/tool test.echo {"txt": 1}', "'text' is a required property"),
        ('/tool test.echo {"text": 1}', "text: 1 is not of type 'string'"),
        ('/tool read_file {"path": "a", "extra": 1}', "'extra' was unexpected"),
    ],
)
async def test_calls_that_cannot_be_are_rejected_without_a_decision(
    session: RuntimeSession, hooks: RecordingHooks, text: str, reason: str
) -> None:
    answer = await say(session, text)
    assert reason in answer.text
    assert (hooks.before, hooks.after) == ([], [])
    assert len(hooks.rejected) == 1


@pytest.mark.anyio
async def test_other_text_gets_help_and_the_tools(session: RuntimeSession, hooks: RecordingHooks) -> None:
    answer = await say(session, "hello, who are you?")
    assert "/tool" in answer.text
    assert "playbook:" in answer.text
    assert "- test.echo: Give the text back." in answer.text
    assert "- shell:" in answer.text
    assert answer.end.outcome is Outcome.FINISHED
    assert hooks.before == []


@pytest.mark.anyio
async def test_servers_that_do_not_start_are_named(
    runtime: ScriptRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec
) -> None:
    session = await runtime.start(config(mcp_servers=[spec("--start", "die", name="broken")]), hooks, None)
    assert "'broken' cannot be used" in (await say(session, "help")).text
    assert "no configuration found" in (await say(session, "/tool broken.echo {}")).text
    assert (await say(session, "/tool list_files {}")).end.outcome is Outcome.FINISHED
    await session.close()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("/tool", "/tool NAME"),
        ("/tool x {", "line 1, column 2"),
        ('/tool x {"a": 1,}', "column 9"),
        ("/tool x [1]", "must be a JSON object"),
        ('/tool x {"a": NaN}', "NaN"),
        ("/tool x " + '{"a":' * 100_000, "not valid JSON"),
        ("playbook: [", "at line"),
        ("playbook: x", "steps"),
        ("playbook: x\nsteps: []", "steps"),
        ("playbook: x\nsteps: [{}]", "steps[0]"),
        ("playbook: x\nsteps: [{say: a, tool: b}]", "steps[0]: exactly one"),
        ("playbook: x\nsteps: [{tool: b, arguments: [1]}]", "steps[0].arguments"),
        ("playbook: x\nsteps: [{tool: b, argumets: {}}]", "steps[0].argumets"),
        ("playbook: x\nsteps: [{say: '{{ later }}'}, {tool: b, save: later}]", "later"),
        ("playbook: x\nsteps: [{tool: b, expect: {path: 'a[0]'}}]", "steps[0].expect.path"),
        ("playbook: x\nsteps: [{tool: b, expect: {contain: a}}]", "steps[0].expect.contain"),
        ("playbook: x\nsteps: [{tool: b, arguments: {on: 2026-01-01}}]", "quote dates"),
        ("playbook: x\nvariables: &a {b: 1}\nsteps: [{say: x}, *a]", "aliases"),
        ("playbook: " + "[" * 50_000, "nested too deeply"),
        ("playbook: x\nsteps: [" + "a, " * 50_000 + "]", "too many parts"),
    ],
)
@pytest.mark.anyio
async def test_messages_that_cannot_run_are_refused_before_a_run(runtime: ScriptRuntime, text: str, where: str) -> None:
    with pytest.raises(BadInput) as refused:
        runtime.validate(text)
    assert where in refused.value.message
    assert refused.value.field == "text"


@pytest.mark.parametrize("text", ["hello", "/tool x", "/tool x {}", "/tools", "a playbook: not one", ""])
@pytest.mark.anyio
async def test_messages_that_can_run(runtime: ScriptRuntime, text: str) -> None:
    runtime.validate(text)


@pytest.mark.anyio
async def test_a_playbook(session: RuntimeSession, hooks: RecordingHooks, workspace: Path) -> None:
    answer = await say(
        session,
        """
```yaml
playbook: Take notes
variables: {name: notes.txt}
steps:
  - say: "Writing {{ name }}"
  - tool: write_file
    arguments: {path: "{{ name }}", content: "one {{ name }}"}
  - tool: read_file
    arguments: {path: "{{ name }}"}
    save: notes
    expect: {contains: one}
  - tool: test.echo
    arguments: {text: "{{ notes }}"}
    expect:
      - equals: "{{ notes.text }}"
      - {path: $.result, contains: notes}
      - isError: false
    save: echo
  - say: "{{ echo.data.result }} / {{ echo.isError }}"
  - tool: read_file
    arguments: {path: missing}
    expect: [{isError: true}, {contains: does not exist}]
```
""",
    )
    assert answer.end.outcome is Outcome.FINISHED, answer.end
    assert (workspace / "notes.txt").read_text() == "one notes.txt"
    assert "Writing notes.txt" in answer.text
    assert "one notes.txt / false" in answer.text
    steps = [event.name for event in answer.events if isinstance(event, StepStarted)]
    assert steps[:2] == ["1. say", "2. write_file"]
    assert len(hooks.before) == len(hooks.after) == 4


@pytest.mark.anyio
async def test_a_tools_output_stays_data(session: RuntimeSession) -> None:
    answer = await say(
        session,
        """
playbook: Injection
steps:
  - tool: test.echo
    arguments: {text: '{{ secret }} "}, {"x": "'}
    save: hostile
""".replace("{{ secret }}", "{ { secret } }")
        + """
  - tool: test.echo
    arguments: {text: 'got {{ hostile }}'}
    expect: {contains: '"}, {"x": "'}
""",
    )
    assert answer.end.outcome is Outcome.FINISHED, answer.end


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("step", "code", "reason"),
    [
        ("{tool: test.echo, arguments: {text: a}, expect: {equals: b}}", "EXPECTATION_FAILED", '"a", not "b"'),
        ("{tool: test.echo, arguments: {text: a}, expect: {path: $.nope}}", "EXPECTATION_FAILED", "no $.nope"),
        ("{tool: test.echo, arguments: {text: a}, expect: {isError: true}}", "EXPECTATION_FAILED", "did not fail"),
        ("{tool: test.fail, arguments: {message: a}}", "TOOL_ERROR", "test.fail"),
        ("{tool: test.echo, arguments: {}}", "TOOL_ERROR", "required property"),
    ],
)
async def test_a_playbook_stops_where_it_goes_otherwise(
    session: RuntimeSession, step: str, code: str, reason: str
) -> None:
    answer = await say(session, f"playbook: x\nsteps:\n  - say: first\n  - {step}\n  - say: never")
    assert (answer.end.outcome, answer.end.error_code) == (Outcome.FAILED, code)
    assert "Step 2 of 3" in str(answer.end.error_message)
    assert reason in str(answer.end.error_message)
    assert "never" not in answer.text


APPROVALS = """
playbook: Ask twice
steps:
  - tool: test.echo
    arguments: {text: before}
    save: first
  - approve: "Go on after {{ first }}?"
  - tool: write_file
    arguments: {path: made, content: "{{ first }}"}
    approve: "Write {{ first }}?"
  - say: "done with {{ first }}"
"""


@pytest.mark.anyio
async def test_approvals_survive_into_another_process(
    settings: Settings, pool: ServerPool, sandbox: Sandbox, config: MakeConfig, spec: MakeSpec, workspace: Path
) -> None:
    async def process(state: RuntimeState | None) -> tuple[RuntimeSession, RecordingHooks]:
        # What the service stores is all that a new process gets.
        stored = None if state is None else RuntimeState(**json.loads(json.dumps(asdict(state) | {"payload": None})))
        if stored is not None and state is not None:
            stored = RuntimeState(stored.runtime, stored.version, bytes(state.payload))
        hooks = RecordingHooks()
        runtime = ScriptRuntime(settings, pool, sandbox)
        return await runtime.start(config(mcp_servers=[spec(name="test")]), hooks, stored), hooks

    session, hooks = await process(None)
    first = await say(session, APPROVALS)
    await session.close()
    assert first.end.outcome is Outcome.WAITING
    question = hooks.before[-1]
    assert (question.name, question.arguments) == ("approve", {"question": "Go on after before?"})

    session, hooks = await process(first.end.state)
    second = await segment(session.resume({question.id: Decision(Verdict.ALLOW)}))
    await session.close()
    assert second.end.outcome is Outcome.WAITING
    assert [call.name for call in hooks.before] == ["write_file"]
    assert hooks.after[0][0].id == question.id
    assert not (workspace / "made").exists()

    session, hooks = await process(second.end.state)
    edited = Decision(Verdict.ALLOW, arguments={"path": "made", "content": "edited"})
    call = second.end.state
    assert call is not None
    waiting = json.loads(call.payload)["call"]["id"]
    third = await segment(session.resume({waiting: edited}))
    await session.close()
    assert third.end.outcome is Outcome.FINISHED
    assert (workspace / "made").read_text() == "edited"
    assert hooks.before == []
    assert third.text.endswith("done with before")


@pytest.mark.anyio
async def test_a_denied_call_ends_a_playbook_and_is_told(session: RuntimeSession, hooks: RecordingHooks) -> None:
    waiting = await say(session, "playbook: x\nsteps:\n  - approve: Sure?\n  - say: never")
    started = session
    started._state = waiting.end.state  # type: ignore[attr-defined]
    answer = await segment(started.resume({hooks.before[0].id: Decision(Verdict.DENY, "not today")}))
    assert answer.end.outcome is Outcome.FAILED
    assert "not today" in str(answer.end.error_message)
    assert "never" not in answer.text


@pytest.mark.anyio
async def test_a_single_call_waits_too(
    runtime: ScriptRuntime, config: MakeConfig, spec: MakeSpec, workspace: Path
) -> None:
    hooks = RecordingHooks(asking("write_file"))
    session = await runtime.start(config(), hooks, None)
    waiting = await say(session, '/tool write_file {"path": "a", "content": "b"}')
    assert waiting.end.outcome is Outcome.WAITING
    again = await runtime.start(config(), hooks, waiting.end.state)
    done = await segment(again.resume({hooks.before[0].id: Decision(Verdict.ALLOW)}))
    assert done.end.outcome is Outcome.FINISHED
    assert (workspace / "a").read_text() == "b"
    lost = await segment(again.resume({"unknown": Decision(Verdict.ALLOW)}))
    assert lost.end.outcome is Outcome.FAILED


@pytest.mark.anyio
async def test_interrupt_cancels_the_running_tool(session: RuntimeSession, hooks: RecordingHooks) -> None:
    running = asyncio.create_task(say(session, '/tool test.sleep {"seconds": 600}'))
    await eventually(lambda: bool(hooks.before))
    await asyncio.sleep(0.2)
    await session.interrupt()
    answer = await asyncio.wait_for(running, 10)
    assert answer.end.outcome is Outcome.INTERRUPTED
    assert hooks.after[0][1].error_kind == "cancelled"
    assert (await say(session, '/tool test.echo {"text": "next"}')).text == "next"


@pytest.mark.anyio
async def test_interrupting_a_shell_kills_it(session: RuntimeSession, workspace: Path) -> None:
    running = asyncio.create_task(say(session, '/tool shell {"command": "touch started; sleep 2; touch finished"}'))
    await eventually((workspace / "started").exists)
    await session.interrupt()
    assert (await running).end.outcome is Outcome.INTERRUPTED
    await asyncio.sleep(2.2)
    assert not (workspace / "finished").exists()


@pytest.mark.anyio
async def test_disallowed_tools_do_not_exist(
    runtime: ScriptRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec
) -> None:
    session = await runtime.start(
        config(mcp_servers=[spec(name="test")], disallowed_tools=["shell", "test.d*"]), hooks, None
    )
    explained = (await say(session, "help")).text
    assert "- shell" not in explained
    assert "delete_everything" not in explained
    assert "- test.echo" in explained
    assert "disallowed" in (await say(session, '/tool shell {"command": "id"}')).text
    assert "disallowed" in (await say(session, "/tool test.die {}")).text
    assert hooks.before == []
    await session.close()


@pytest.mark.anyio
async def test_tools_of_a_server_that_are_not_allowed_are_neither_shown_nor_called(
    runtime: ScriptRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec
) -> None:
    session = await runtime.start(config(mcp_servers=[spec(name="test", allowed_tools=["echo"])]), hooks, None)
    explained = (await say(session, "help")).text
    assert "- test.echo" in explained
    assert "delete_everything" not in explained
    assert "no tool" in (await say(session, "/tool test.delete_everything {}")).text
    assert hooks.before == []
    await session.close()


@pytest.mark.anyio
async def test_state_of_another_version_is_refused(runtime: ScriptRuntime, config: MakeConfig) -> None:
    session = await runtime.start(config(), RecordingHooks(), RuntimeState("script", 99, b"{}"))
    with pytest.raises(BadInput, match="version 99"):
        await segment(session.resume({}))
