"""Claude Code, the real program, against a fake Messages API: confined, decided by hooks, resumed and forked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.errors import BadInput, Unavailable
from core.settings import Settings
from integrations.agents.base import (
    Decision,
    McpServerSpec,
    Outcome,
    RuntimeSession,
    RuntimeState,
    StepStarted,
    TextDelta,
    TextStarted,
    UserInput,
    Verdict,
)
from integrations.agents.claude import ClaudeRuntime
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from integrations.sandbox.plain import PlainSandbox
from tests.fakes.hooks import RecordingHooks, asking
from tests.fakes.models import (
    CACHE_READ_TOKENS,
    CACHE_WRITE_TOKENS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    SECRET,
    FakeModels,
    fake_models,
)
from tests.integrations.agents.conftest import MakeConfig, Segment, segment
from tests.integrations.conftest import eventually

pytest.importorskip("claude_agent_sdk", reason="the optional extra [claude] is not installed")

MakeSpec = Callable[..., McpServerSpec]
MODEL = "claude-sonnet-4-6"


@pytest.fixture
async def models() -> AsyncIterator[FakeModels]:
    async with fake_models() as fake:
        yield fake


@pytest.fixture
def configured(settings: Settings, models: FakeModels) -> Settings:
    return settings.model_copy(update={"anthropic_base_url": models.url, "anthropic_api_key": SecretStr(SECRET)})


@pytest.fixture
async def runtime(configured: Settings, pool: ServerPool, sandbox: Sandbox) -> ClaudeRuntime:
    return ClaudeRuntime(configured, pool, sandbox)


@pytest.fixture
def hooks() -> RecordingHooks:
    return RecordingHooks()


@pytest.fixture
async def session(runtime: ClaudeRuntime, hooks: RecordingHooks, config: MakeConfig) -> AsyncIterator[RuntimeSession]:
    started = await runtime.start(config(model=MODEL), hooks, None)
    yield started
    await started.close()


async def say(session: RuntimeSession, text: str) -> Segment:
    return await segment(session.send(UserInput(text)))


def call(name: str, **arguments: object) -> str:
    return f"TOOL {name} {json.dumps(arguments)}"


@pytest.mark.anyio
async def test_text_streams_and_each_segment_has_its_own_cost(session: RuntimeSession) -> None:
    first = await say(session, "hello there you all")
    assert first.text == "echo: hello there you all"
    assert len([event for event in first.events if isinstance(event, TextDelta)]) >= 3
    assert [event.name for event in first.events if isinstance(event, StepStarted)] == ["turn 1"]
    assert first.end.outcome is Outcome.FINISHED, first.end
    second = await say(session, "again")
    assert second.text == "echo: again"
    for usage in (first.end.usage, second.end.usage):
        assert (usage.input_tokens, usage.output_tokens, usage.requests) == (INPUT_TOKENS, OUTPUT_TOKENS, 1)
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (CACHE_READ_TOKENS, CACHE_WRITE_TOKENS)
        assert usage.cost_usd == first.end.usage.cost_usd
        assert usage.cost_usd is not None
        assert usage.cost_usd > 0


@pytest.mark.anyio
async def test_the_conversation_goes_on_in_another_process(
    runtime: ClaudeRuntime, config: MakeConfig, session: RuntimeSession, models: FakeModels
) -> None:
    state = (await say(session, "remember the blue door")).end.state
    assert state is not None
    stored = RuntimeState(state.runtime, state.version, bytes(state.payload))
    later = await runtime.start(config(model=MODEL), RecordingHooks(), stored)
    assert (await say(later, "go on")).end.outcome is Outcome.FINISHED
    assert "blue door" in json.dumps(models.requests[-1]["messages"])
    await later.close()


@pytest.mark.anyio
async def test_its_own_tools_are_decided_by_hooks(
    session: RuntimeSession, hooks: RecordingHooks, workspace: Path
) -> None:
    answer = await say(session, call("Bash", command="echo made > made; cat made"))
    assert answer.end.outcome is Outcome.FINISHED, answer.end
    assert "OK made" in answer.text
    assert (workspace / "made").read_text() == "made\n"
    assert [call.name for call in hooks.before] == ["Bash"]
    ((after, result),) = hooks.after
    assert after.id == hooks.before[0].id
    assert result.content[0]["text"] == "made"


@pytest.mark.anyio
async def test_reading_is_decided_too(runtime: ClaudeRuntime, config: MakeConfig, workspace: Path) -> None:
    (workspace / "a").write_text("content of a")
    hooks = RecordingHooks(lambda call: Decision(Verdict.DENY, "not for you"))
    session = await runtime.start(config(model=MODEL), hooks, None)
    answer = await say(session, call("Read", file_path=str(workspace / "a")))
    assert "not for you" in answer.text
    assert "content of a" not in answer.text
    assert [call.name for call in hooks.before] == ["Read"]
    assert hooks.before[0].annotations["readOnlyHint"] is True
    assert hooks.after == []
    await session.close()


@pytest.mark.anyio
async def test_hooks_can_change_arguments(runtime: ClaudeRuntime, config: MakeConfig) -> None:
    hooks = RecordingHooks(lambda call: Decision(Verdict.ALLOW, arguments={"command": "echo changed"}))
    session = await runtime.start(config(model=MODEL), hooks, None)
    assert "OK changed" in (await say(session, call("Bash", command="echo original"))).text
    await session.close()


@pytest.mark.anyio
async def test_it_is_confined(
    session: RuntimeSession, settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_DATABASE_URL", "postgresql://do-not-leak")
    (settings.data / "key").write_text("sealing key")
    (settings.workspaces / "other").mkdir()
    command = f"env; ls {settings.workspaces}; cat {settings.data}/key"
    answer = await say(session, call("Bash", command=command))
    assert "do-not-leak" not in answer.text
    if sandbox.name == "bubblewrap":
        assert "sealing key" not in answer.text
        assert "other" not in answer.text
    assert SECRET not in answer.text


@pytest.mark.anyio
async def test_mcp_tools_go_through_us(
    runtime: ClaudeRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec
) -> None:
    registered = spec(name="my.server", env={"SERVER_SECRET": "hidden"})
    session = await runtime.start(config(model=MODEL, mcp_servers=[registered]), hooks, None)
    answer = await say(session, call("mcp__my_server__echo", text="through"))
    assert "OK through" in answer.text
    assert [call.name for call in hooks.before] == ["my.server.echo"]
    assert hooks.before[0].annotations["readOnlyHint"] is True
    assert hooks.after[0][1].content == [{"type": "text", "text": "through"}]
    failed = await say(session, call("mcp__my_server__die"))
    assert "exited with status" in failed.text
    assert hooks.after[1][1].is_error
    looked = await say(session, call("Bash", command="cat /proc/*/environ | tr '\\0' '\\n' | grep -c hidden; true"))
    assert "OK 0" in looked.text or runtime._sandbox.name == "none"
    await session.close()


@pytest.mark.anyio
@pytest.mark.parametrize("verdict", ["allow", "edit", "deny"])
@pytest.mark.parametrize("tool", ["Bash", "Read"])
async def test_approvals_survive_into_another_process(
    runtime: ClaudeRuntime, config: MakeConfig, workspace: Path, tool: str, verdict: str
) -> None:
    (workspace / "one").write_text("content one")
    (workspace / "two").write_text("content two")
    arguments = {
        "Bash": [{"command": "cat one; touch ran"}, {"command": "cat two"}],
        "Read": [{"file_path": str(workspace / "one")}, {"file_path": str(workspace / "two")}],
    }[tool]
    hooks = RecordingHooks(asking(tool))
    session = await runtime.start(config(model=MODEL), hooks, None)
    waiting = await say(session, call(tool, **arguments[0]))
    await session.close()
    assert waiting.end.outcome is Outcome.WAITING
    assert waiting.end.state is not None
    assert not (workspace / "ran").exists()

    later = RecordingHooks()
    state = waiting.end.state
    resumed = await runtime.start(
        config(model=MODEL), later, RuntimeState(state.runtime, state.version, bytes(state.payload))
    )
    decision = {
        "allow": Decision(Verdict.ALLOW),
        "edit": Decision(Verdict.ALLOW, arguments=arguments[1]),
        "deny": Decision(Verdict.DENY, "not this one"),
    }[verdict]
    answer = await segment(resumed.resume({hooks.before[0].id: decision}))
    assert answer.end.outcome is Outcome.FINISHED, answer.end
    assert later.before == []
    heard = json.dumps(json.loads(answer.end.state.payload)["transcripts"]) if answer.end.state else ""
    if verdict == "deny":
        assert "not this one" in heard
        assert "content one" not in heard
        assert later.after == []
    else:
        assert ("content one" if verdict == "allow" else "content two") in heard
        assert [after.id for after, _ in later.after] == [hooks.before[0].id]
    assert (await say(resumed, "and now")).text == "echo: and now"
    await resumed.close()


@pytest.mark.anyio
async def test_several_calls_of_which_two_need_a_decision(
    runtime: ClaudeRuntime, config: MakeConfig, workspace: Path
) -> None:
    hooks = RecordingHooks(asking("Write"))
    session = await runtime.start(config(model=MODEL), hooks, None)
    asked = "\n".join(
        [
            call("Bash", command="echo first"),
            call("Write", file_path=str(workspace / "a"), content="a"),
            call("Write", file_path=str(workspace / "b"), content="b"),
        ]
    )
    waiting = await say(session, asked)
    assert waiting.end.outcome is Outcome.WAITING
    assert [call.name for call in hooks.before] == ["Bash", "Write"]
    assert [call.name for call, _ in hooks.rejected] == ["Write"]
    answer = await segment(session.resume({hooks.before[1].id: Decision(Verdict.ALLOW)}))
    assert answer.end.outcome is Outcome.FINISHED, answer.end
    assert (workspace / "a").read_text() == "a"
    assert not (workspace / "b").exists()
    await session.close()


@pytest.mark.anyio
async def test_interrupting_an_answer(
    runtime: ClaudeRuntime, config: MakeConfig, session: RuntimeSession, models: FakeModels
) -> None:
    running = asyncio.create_task(say(session, "SLOW 500"))
    await eventually(lambda: bool(models.requests))
    await asyncio.sleep(1)
    await session.interrupt()
    answer = await asyncio.wait_for(running, 20)
    assert answer.end.outcome is Outcome.INTERRUPTED
    assert answer.text.startswith("w0 w1")
    assert (await say(session, "go on")).text == "echo: go on"


@pytest.mark.anyio
async def test_interrupting_a_tool_kills_it(session: RuntimeSession, hooks: RecordingHooks, workspace: Path) -> None:
    running = asyncio.create_task(say(session, call("Bash", command="touch started; sleep 4; touch late")))
    await eventually((workspace / "started").exists)
    await session.interrupt()
    answer = await asyncio.wait_for(running, 20)
    assert answer.end.outcome is Outcome.INTERRUPTED
    assert len(hooks.after) == 1
    await asyncio.sleep(4)
    assert not (workspace / "late").exists()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
async def test_closing_in_the_middle_leaves_no_process(
    configured: Settings, pool: ServerPool, sandbox: Sandbox, config: MakeConfig, models: FakeModels, kind: str
) -> None:
    if kind == "bubblewrap" and sandbox.name != "bubblewrap":
        pytest.skip("this machine has no bubblewrap")
    runtime = ClaudeRuntime(configured, pool, sandbox if kind == "bubblewrap" else PlainSandbox())
    session = await runtime.start(config(model=MODEL, environment={"MARK": f"claude-{kind}"}), RecordingHooks(), None)
    running = asyncio.create_task(say(session, "SLOW 500"))
    await eventually(lambda: bool(models.requests))
    assert _marked(f"claude-{kind}")
    await session.close()
    assert (await asyncio.wait_for(running, 20)).end.outcome is Outcome.INTERRUPTED
    await eventually(lambda: not _marked(f"claude-{kind}"))


@pytest.mark.anyio
async def test_fork_keeps_the_first_turns(
    runtime: ClaudeRuntime, config: MakeConfig, session: RuntimeSession, models: FakeModels
) -> None:
    one_answer = (await say(session, "turn one")).end.usage.cost_usd
    await say(session, call("Bash", command="echo turn two"))
    state = (await say(session, "turn three")).end.state
    assert state is not None
    assert await runtime.fork(state, 0) is None
    for keep, last in ((1, "turn one"), (2, "turn two"), (3, "turn three")):
        forked = await runtime.start(config(model=MODEL), RecordingHooks(), await runtime.fork(state, keep))
        answer = await say(forked, "forked")
        assert answer.text == "echo: forked"
        assert answer.end.usage.cost_usd == one_answer
        sent = json.dumps(models.requests[-1]["messages"])
        kept = [turn for turn in ("turn one", "turn two", "turn three") if turn in sent]
        assert kept[-1] == last
        assert len(kept) == keep
        await forked.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "code"),
    [("ERR 401", "NOT_CONFIGURED"), ("ERR 400", "MODEL_ERROR"), ("OVERFLOW", "CONTEXT_OVERFLOW")],
)
async def test_failures_are_told_without_keys_and_the_session_goes_on(
    session: RuntimeSession, text: str, code: str
) -> None:
    failed = await say(session, text)
    assert (failed.end.outcome, failed.end.error_code) == (Outcome.FAILED, code), failed.end
    assert SECRET not in str(failed.end.error_message)
    assert (await say(session, "hello")).text == "echo: hello"


@pytest.mark.anyio
async def test_rate_limits_are_waited_for(session: RuntimeSession) -> None:
    assert (await say(session, "RATE 1")).text == "after waiting"


@pytest.mark.anyio
async def test_max_turns_and_budget(runtime: ClaudeRuntime, config: MakeConfig) -> None:
    session = await runtime.start(config(model=MODEL, max_turns=2), RecordingHooks(), None)
    assert (await say(session, 'LOOP Bash {"command": "true"}')).end.error_code == "MAX_TURNS"
    await session.close()
    session = await runtime.start(config(model=MODEL, max_budget_usd=Decimal("0.001")), RecordingHooks(), None)
    spent = (await say(session, 'LOOP Bash {"command": "true"}')).end
    assert spent.error_code == "MAX_BUDGET"
    assert (await say(session, "more")).end.error_code == "MAX_BUDGET"
    await session.close()


@pytest.mark.anyio
async def test_options_arrive(runtime: ClaudeRuntime, config: MakeConfig, models: FakeModels) -> None:
    extra = {
        "tools": ["Read", "Bash"],
        "append_system_prompt": "Speak like a sailor.",
        "agents": {"scout": {"description": "looks", "prompt": "Look around."}},
        "effort": "low",
    }
    session = await runtime.start(
        config(model="anthropic:" + MODEL, system_prompt="Be brief.", extra=extra, disallowed_tools=["Bash"]),
        RecordingHooks(),
        None,
    )
    system = (await say(session, "SYSTEM")).text
    assert "Be brief." in system
    assert "Speak like a sailor." in system
    tools = (await say(session, "TOOLS")).text.split()
    assert "Read" in tools
    assert "Bash" not in tools
    assert "Write" not in tools
    assert models.requests[-1]["model"] == MODEL
    await session.close()


@pytest.mark.anyio
async def test_reasoning_is_told_apart(session: RuntimeSession) -> None:
    answer = await say(session, "THINK about it")
    started = [event.reasoning for event in answer.events if isinstance(event, TextStarted)]
    assert started == [True, False]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "extra", [{"cli_path": "/bin/sh"}, {"hooks": {}}, {"effort": "huge"}, {"agents": {"a": {"prompt": "x"}}}]
)
async def test_unknown_options_are_refused(runtime: ClaudeRuntime, extra: dict[str, object]) -> None:
    with pytest.raises(BadInput) as refused:
        runtime.validate_options(extra)
    assert refused.value.details["fields"][0]["field"].startswith(f"extra.{next(iter(extra))}")


@pytest.mark.anyio
async def test_without_a_key_it_says_so(
    settings: Settings, pool: ServerPool, sandbox: Sandbox, config: MakeConfig
) -> None:
    runtime = ClaudeRuntime(settings, pool, sandbox)
    assert runtime.available() == (False, "There is no key for it: set QUARTERDECK_ANTHROPIC_API_KEY.")
    with pytest.raises(Unavailable):
        await runtime.start(config(), RecordingHooks(), None)


def _marked(mark: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in entry.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
