"""Models of two providers' APIs: streaming, tools, approvals, limits and everything that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

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
    TextStarted,
    UserInput,
    Verdict,
)
from integrations.agents.pydantic_ai_runtime import PydanticAiRuntime
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
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

MakeSpec = Callable[..., McpServerSpec]
Start = Callable[..., "asyncio.Future[RuntimeSession]"]

ANTHROPIC = "anthropic:claude-sonnet-4-6"
OPENAI = "openai:gpt-4o"


@pytest.fixture
async def models() -> AsyncIterator[FakeModels]:
    async with fake_models() as fake:
        yield fake


@pytest.fixture
async def runtime(settings: Settings, models: FakeModels, pool: ServerPool, sandbox: Sandbox) -> PydanticAiRuntime:
    configured = settings.model_copy(
        update={
            "anthropic_base_url": models.url,
            "anthropic_api_key": SecretStr(SECRET),
            "openai_base_url": models.url + "/v1",
            "openai_api_key": SecretStr(SECRET),
            "default_model": ANTHROPIC,
        }
    )
    return PydanticAiRuntime(configured, pool, sandbox)


@pytest.fixture(params=[ANTHROPIC, OPENAI])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hooks() -> RecordingHooks:
    return RecordingHooks()


@pytest.fixture
async def session(
    runtime: PydanticAiRuntime, hooks: RecordingHooks, config: MakeConfig, model: str
) -> AsyncIterator[RuntimeSession]:
    started = await runtime.start(config(model=model, system_prompt="Be brief."), hooks, None)
    yield started
    await started.close()


async def say(session: RuntimeSession, text: str) -> Segment:
    return await segment(session.send(UserInput(text)))


@pytest.mark.anyio
async def test_text_streams_and_tokens_are_the_providers(session: RuntimeSession, model: str) -> None:
    answer = await say(session, "hello there you all")
    assert answer.text == "echo: hello there you all"
    assert len([event for event in answer.events if isinstance(event, TextDelta)]) >= 3
    assert [event.name for event in answer.events if isinstance(event, StepStarted)] == ["turn 1"]
    assert answer.end.outcome is Outcome.FINISHED
    usage = answer.end.usage
    assert (usage.output_tokens, usage.requests) == (OUTPUT_TOKENS, 1)
    assert usage.cost_source == "price_table"
    assert usage.cost_usd is not None
    assert usage.cost_usd > 0
    if model == ANTHROPIC:
        assert usage.input_tokens == INPUT_TOKENS
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (CACHE_READ_TOKENS, CACHE_WRITE_TOKENS)
    else:
        assert usage.input_tokens == INPUT_TOKENS - CACHE_READ_TOKENS


@pytest.mark.anyio
async def test_system_prompt_and_conversation_arrive(session: RuntimeSession) -> None:
    assert (await say(session, "SYSTEM")).text.endswith("Be brief.")
    history = (await say(session, "HISTORY")).text
    assert history.endswith("user assistant user")


@pytest.mark.anyio
async def test_reasoning_is_told_apart(runtime: PydanticAiRuntime, config: MakeConfig) -> None:
    session = await runtime.start(config(model=ANTHROPIC), RecordingHooks(), None)
    answer = await say(session, "THINK about it")
    started = [event.reasoning for event in answer.events if isinstance(event, TextStarted)]
    assert started == [True, False]
    await session.close()


@pytest.mark.anyio
async def test_tools_run_through_the_hooks(session: RuntimeSession, hooks: RecordingHooks, workspace: Path) -> None:
    (workspace / "a.txt").write_text("content of a")
    answer = await say(session, 'TOOL read_file {"path": "a.txt"}\nTOOL list_files {}')
    assert "OK content of a" in answer.text
    assert "OK a.txt 12" in answer.text
    assert answer.end.outcome is Outcome.FINISHED
    assert answer.end.usage.requests == 2
    assert sorted(call.name for call in hooks.before) == ["list_files", "read_file"]
    assert len({call.id for call in hooks.before}) == len(hooks.after) == 2


@pytest.mark.anyio
async def test_tools_of_servers_have_names_that_models_take(
    runtime: PydanticAiRuntime, hooks: RecordingHooks, config: MakeConfig, spec: MakeSpec, model: str
) -> None:
    session = await runtime.start(config(model=model, mcp_servers=[spec(name="my.server")]), hooks, None)
    assert "my__server_echo" in (await say(session, "TOOLS")).text
    answer = await say(session, 'TOOL my__server_echo {"text": "through"}\nTOOL my__server_fail {"message": "x"}')
    assert "OK through" in answer.text
    assert {call.name for call in hooks.before} == {"my.server.echo", "my.server.fail"}
    await session.close()


@pytest.mark.anyio
async def test_what_tools_refuse_goes_to_the_model(session: RuntimeSession, hooks: RecordingHooks) -> None:
    answer = await say(session, 'TOOL read_file {"path": "../../key"}\nTOOL read_file {"nope": 1}\nTOOL nothing {}')
    assert answer.end.outcome is Outcome.FINISHED
    assert "leads out" in answer.text
    assert "required property" in answer.text
    assert len(hooks.rejected) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("verdict", ["allow", "edit", "deny"])
async def test_approvals_survive_into_another_process(
    runtime: PydanticAiRuntime, config: MakeConfig, workspace: Path, model: str, verdict: str
) -> None:
    (workspace / "read").write_text("was read")
    hooks = RecordingHooks(asking("write_file"))
    session = await runtime.start(config(model=model), hooks, None)
    waiting = await say(session, 'TOOL write_file {"path": "w", "content": "asked"}\nTOOL read_file {"path": "read"}')
    await session.close()
    assert waiting.end.outcome is Outcome.WAITING
    assert not (workspace / "w").exists()
    assert [call.name for call, _ in hooks.after] == ["read_file"]
    call = next(call for call in hooks.before if call.name == "write_file")
    assert waiting.end.state is not None

    later = RecordingHooks()
    stored = RuntimeState(waiting.end.state.runtime, waiting.end.state.version, bytes(waiting.end.state.payload))
    resumed = await runtime.start(config(model=model), later, stored)
    decision = {
        "allow": Decision(Verdict.ALLOW),
        "edit": Decision(Verdict.ALLOW, arguments={"path": "w", "content": "edited"}),
        "deny": Decision(Verdict.DENY, "not this one"),
    }[verdict]
    answer = await segment(resumed.resume({call.id: decision}))
    assert answer.end.outcome is Outcome.FINISHED, answer.end
    assert later.before == []
    assert "OK was read" in answer.text
    if verdict == "deny":
        assert "not this one" in answer.text
        assert not (workspace / "w").exists()
        assert later.after == []
    else:
        assert (workspace / "w").read_text() == ("asked" if verdict == "allow" else "edited")
        assert [after.id for after, _ in later.after] == [call.id]
    assert (await say(resumed, "and now")).text == "echo: and now"
    await resumed.close()


@pytest.mark.anyio
async def test_interrupting_an_answer_keeps_what_was_said(
    runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels, model: str
) -> None:
    session = await runtime.start(config(model=model), RecordingHooks(), None)
    running = asyncio.create_task(say(session, "SLOW 500"))
    await eventually(lambda: bool(models.requests))
    await asyncio.sleep(0.5)
    await session.interrupt()
    answer = await asyncio.wait_for(running, 10)
    assert answer.end.outcome is Outcome.INTERRUPTED
    assert answer.text.startswith("w0 w1")
    await eventually(lambda: models.aborted == 1)
    assert answer.end.state is not None
    again = await runtime.start(config(model=model), RecordingHooks(), answer.end.state)
    assert (await say(again, "go on")).text == "echo: go on"
    await session.close()
    await again.close()


@pytest.mark.anyio
async def test_interrupting_a_tool_cancels_it(
    runtime: PydanticAiRuntime, hooks: RecordingHooks, config: MakeConfig, model: str, workspace: Path
) -> None:
    session = await runtime.start(config(model=model), hooks, None)
    running = asyncio.create_task(say(session, 'TOOL shell {"command": "touch started; sleep 2; touch late"}'))
    await eventually((workspace / "started").exists)
    await session.interrupt()
    answer = await asyncio.wait_for(running, 10)
    assert answer.end.outcome is Outcome.INTERRUPTED
    assert hooks.after[0][1].error_kind == "cancelled"
    assert (await say(session, "still here")).text == "echo: still here"
    await asyncio.sleep(2)
    assert not (workspace / "late").exists()
    await session.close()


@pytest.mark.anyio
async def test_max_turns(runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels, model: str) -> None:
    session = await runtime.start(config(model=model, max_turns=3), RecordingHooks(), None)
    answer = await say(session, "LOOP list_files {}")
    assert (answer.end.outcome, answer.end.error_code) == (Outcome.FAILED, "MAX_TURNS")
    assert answer.end.usage.requests == len(models.requests) == 3
    assert (await say(session, "hello")).text == "echo: hello"
    await session.close()


@pytest.mark.anyio
async def test_max_turns_counts_across_approvals(
    runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels
) -> None:
    hooks = RecordingHooks(asking("list_files"))
    session = await runtime.start(config(max_turns=2), hooks, None)
    assert (await say(session, "LOOP list_files {}")).end.outcome is Outcome.WAITING
    waiting = await segment(session.resume({hooks.before[-1].id: Decision(Verdict.ALLOW)}))
    assert waiting.end.outcome is Outcome.WAITING
    ended = await segment(session.resume({hooks.before[-1].id: Decision(Verdict.ALLOW)}))
    assert ended.end.error_code == "MAX_TURNS"
    assert len(models.requests) == 2
    await session.close()


@pytest.mark.anyio
async def test_max_budget_holds_for_the_session(
    runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels
) -> None:
    session = await runtime.start(config(max_budget_usd=Decimal("0.0005")), RecordingHooks(), None)
    answer = await say(session, "LOOP list_files {}")
    assert (answer.end.outcome, answer.end.error_code) == (Outcome.FAILED, "MAX_BUDGET")
    asked = len(models.requests)
    assert asked < 5
    again = await runtime.start(config(max_budget_usd=Decimal("0.0005")), RecordingHooks(), answer.end.state)
    assert (await say(again, "hello")).end.error_code == "MAX_BUDGET"
    assert len(models.requests) <= asked + 1
    await session.close()
    await again.close()


@pytest.mark.anyio
async def test_a_model_without_a_price_costs_nothing_invented(runtime: PydanticAiRuntime, config: MakeConfig) -> None:
    session = await runtime.start(config(model="openai:our-own-model"), RecordingHooks(), None)
    usage = (await say(session, "hello")).end.usage
    assert (usage.cost_usd, usage.cost_source) == (None, None)
    assert usage.output_tokens == OUTPUT_TOKENS
    budgeted = await runtime.start(
        config(model="openai:our-own-model", max_budget_usd=Decimal(1)), RecordingHooks(), None
    )
    refused = (await say(budgeted, "hello")).end
    assert refused.error_code == "NOT_CONFIGURED"
    assert "no known price" in str(refused.error_message)
    await session.close()
    await budgeted.close()


@pytest.mark.anyio
async def test_rate_limits_are_waited_for(session: RuntimeSession, models: FakeModels) -> None:
    answer = await say(session, "RATE 2")
    assert answer.text == "after waiting"
    assert len(models.requests) == 3


@pytest.mark.anyio
async def test_rate_limits_that_do_not_end(session: RuntimeSession, models: FakeModels) -> None:
    answer = await say(session, "RATE 100")
    assert (answer.end.outcome, answer.end.error_code) == (Outcome.FAILED, "RATE_LIMITED")
    assert len(models.requests) == 4
    assert (await say(session, "hello")).text == "echo: hello"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("OVERFLOW", "CONTEXT_OVERFLOW"),
        ("ERR 401", "NOT_CONFIGURED"),
        ("ERR 400", "MODEL_ERROR"),
        ("ERR 404", "NOT_CONFIGURED"),
        ("MALFORMED", "MODEL_ERROR"),
        ("DROP", "MODEL_ERROR"),
    ],
)
async def test_failures_are_told_without_keys_and_the_session_goes_on(
    session: RuntimeSession, text: str, code: str
) -> None:
    failed = await say(session, text)
    assert (failed.end.outcome, failed.end.error_code) == (Outcome.FAILED, code), failed.end
    assert failed.end.error_message
    assert SECRET not in str(failed.end)
    assert (await say(session, "hello")).text == "echo: hello"


@pytest.mark.anyio
async def test_an_overloaded_provider(runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels) -> None:
    session = await runtime.start(config(), RecordingHooks(), None)
    failed = await say(session, "ERR 529")
    assert failed.end.error_code == "MODEL_ERROR"
    assert "overloaded" in str(failed.end.error_message)
    assert len(models.requests) == 4
    await session.close()


@pytest.mark.anyio
@pytest.mark.parametrize("model", ["anthropic:x", "nonsense", "no-such-provider:x", None])
async def test_models_that_are_not_configured(
    settings: Settings,
    pool: ServerPool,
    sandbox: Sandbox,
    config: MakeConfig,
    model: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    runtime = PydanticAiRuntime(settings, pool, sandbox)
    assert runtime.available()[0] is False
    session = await runtime.start(config(model=model), RecordingHooks(), None)
    failed = await say(session, "hello")
    assert (failed.end.outcome, failed.end.error_code) == (Outcome.FAILED, "NOT_CONFIGURED")
    await session.close()


@pytest.mark.anyio
async def test_fork_keeps_the_first_turns(runtime: PydanticAiRuntime, config: MakeConfig, model: str) -> None:
    session = await runtime.start(config(model=model), RecordingHooks(), None)
    await say(session, "one")
    await say(session, "TOOL list_files {}")
    state = (await say(session, "three")).end.state
    await session.close()
    assert state is not None
    assert await runtime.fork(state, 0) is None
    for keep, roles in ((1, 3), (2, 7), (3, 9)):
        forked = await runtime.start(config(model=model), RecordingHooks(), await runtime.fork(state, keep))
        heard = (await say(forked, "HISTORY")).text
        assert heard.startswith(f"{roles} messages"), heard
        await forked.close()


@pytest.mark.anyio
async def test_options_reach_the_model(runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels) -> None:
    extra = {"temperature": 0.5, "max_tokens": 77}
    session = await runtime.start(config(extra=extra), RecordingHooks(), None)
    await say(session, "hello")
    assert (models.requests[0]["temperature"], models.requests[0]["max_tokens"]) == (0.5, 77)
    assert models.headers[0]["authorization"] == f"Bearer {SECRET}"
    await session.close()


@pytest.mark.anyio
@pytest.mark.parametrize("extra", [{"nope": 1}, {"temperature": "hot"}, {"max_tokens": 0}])
async def test_unknown_options_are_refused(runtime: PydanticAiRuntime, extra: dict[str, object]) -> None:
    with pytest.raises(BadInput) as refused:
        runtime.validate_options(extra)
    assert refused.value.details["fields"][0]["field"] == f"extra.{next(iter(extra))}"


@pytest.mark.anyio
async def test_closing_in_the_middle_ends_it(
    runtime: PydanticAiRuntime, config: MakeConfig, models: FakeModels
) -> None:
    session = await runtime.start(config(), RecordingHooks(), None)
    running = asyncio.create_task(say(session, "SLOW 500"))
    await eventually(lambda: bool(models.requests))
    await asyncio.sleep(0.3)
    await session.close()
    assert (await asyncio.wait_for(running, 10)).end.outcome is Outcome.INTERRUPTED
    await eventually(lambda: models.aborted == 1)
