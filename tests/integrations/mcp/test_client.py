"""Servers that behave, die, hang, flood and lie: results are bounded, and nothing is left running."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.settings import Settings
from integrations.agents.base import McpServerSpec, ToolResult
from integrations.mcp.base import McpServer, McpUnavailable
from integrations.mcp.client import MAX_STARTS
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from tests.integrations.conftest import free_port

MakeSpec = Callable[..., McpServerSpec]
ORGANIZATION = uuid4()


async def lease(
    pool: ServerPool,
    spec: McpServerSpec,
    workspace: Path,
    *,
    organization_id: UUID = ORGANIZATION,
    **environment: str,
) -> McpServer:
    return await pool.lease(
        spec,
        organization_id=organization_id,
        workspace=workspace,
        environment=environment,
    )


def text(result: ToolResult) -> str:
    return "".join(str(block.get("text", "")) for block in result.content)


async def call(server: McpServer, tool: str, *, within: float = 30, **arguments: Any) -> ToolResult:
    return await server.call(tool, arguments, timeout_seconds=within)


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, "2026-07-28", "2025-11-25"])
async def test_stdio_in_every_version(pool: ServerPool, spec: MakeSpec, workspace: Path, version: str | None) -> None:
    server = await lease(pool, spec(protocol_version=version), workspace)
    tools = {tool.name: tool for tool in await server.list_tools()}
    assert server.protocol_version == (version or "2026-07-28")
    assert tools["echo"].annotations["readOnlyHint"] is True
    assert tools["echo"].input_schema["required"] == ["text"]
    answer = await call(server, "echo", text="hello")
    assert (text(answer), answer.is_error, answer.error_kind) == ("hello", False, None)
    assert (await call(server, "fail", message="no")).error_kind == "tool"
    assert (await call(server, "no_such_tool")).is_error


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, "2026-07-28", "2025-11-25"])
async def test_http_in_every_version(
    pool: ServerPool,
    spec: MakeSpec,
    workspace: Path,
    http_mcp_server: Callable[[], Any],
    version: str | None,
) -> None:
    async with http_mcp_server() as (url, _):
        server = await lease(
            pool,
            spec(transport="streamable_http", url=url, protocol_version=version),
            workspace,
        )
        assert "echo" in {tool.name for tool in await server.list_tools()}
        assert server.protocol_version == (version or "2026-07-28")
        assert text(await call(server, "echo", text="over http")) == "over http"
        cut = await call(server, "huge", size=200_000)
        assert cut.truncated
        late = await call(server, "sleep", seconds=600, within=0.5)
        assert late.error_kind == "timeout"
        assert text(await call(server, "echo", text="still there")) == "still there"
        await pool.release(server)


@pytest.mark.anyio
async def test_http_server_that_goes_away_and_comes_back(
    pool: ServerPool,
    spec: MakeSpec,
    workspace: Path,
    http_mcp_server: Callable[..., Any],
) -> None:
    port = free_port()
    registered = spec(
        transport="streamable_http",
        url=f"http://127.0.0.1:{port}/mcp",
        protocol_version="2025-11-25",
        timeout_seconds=5,
    )
    server = await lease(pool, registered, workspace)
    with pytest.raises(McpUnavailable, match="cannot be reached"):
        await server.list_tools()
    async with http_mcp_server(port) as (_, kill):
        assert text(await call(server, "echo", text="one")) == "one"
        await kill()
        assert (await call(server, "echo", text="two")).error_kind == "server_died"
    async with http_mcp_server(port):
        assert text(await call(server, "echo", text="three")) == "three"


@pytest.mark.anyio
async def test_death_in_a_call_is_told_and_the_next_call_gets_a_new_process(
    pool: ServerPool, spec: MakeSpec, workspace: Path
) -> None:
    server = await lease(pool, spec(), workspace)
    await call(server, "remember", key="a", value="b")
    died = await call(server, "die", code=7)
    assert died.error_kind == "server_died"
    assert "status 7" in text(died)
    assert "about to die" in text(died)
    assert text(await call(server, "recall", key="a")) == "nothing"


@pytest.mark.anyio
async def test_a_server_that_keeps_dying_is_given_up(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    server = await lease(pool, spec(), workspace)
    for _ in range(MAX_STARTS):
        assert (await call(server, "die")).error_kind == "server_died"
    refused = await call(server, "echo", text="x")
    assert refused.error_kind == "server_died"
    assert "not started again" in text(refused)


@pytest.mark.anyio
async def test_a_hanging_tool_is_killed(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    server = await lease(pool, spec(), workspace, MARK="hanging-tool")
    hung = await call(server, "hang", within=1)
    assert hung.error_kind == "timeout"
    await gone("hanging-tool")
    assert text(await call(server, "echo", text="again")) == "again"


@pytest.mark.anyio
async def test_a_timeout_spares_the_other_calls(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    server = await lease(pool, spec(), workspace)
    await server.list_tools()
    slow = asyncio.create_task(call(server, "sleep", seconds=2))
    late = await call(server, "sleep", seconds=600, within=0.3)
    assert late.error_kind == "timeout"
    assert text(await slow) == "slept 2.0"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tool", "arguments", "kind"),
    [
        ("nonsense", {"lines": 500}, "protocol"),
        ("flood", {}, "too_large"),
        ("flood_notifications", {}, "protocol"),
    ],
)
async def test_floods_and_nonsense_end_the_server(
    pool: ServerPool,
    spec: MakeSpec,
    workspace: Path,
    tool: str,
    arguments: dict[str, Any],
    kind: str,
) -> None:
    server = await lease(pool, spec(), workspace, MARK=f"flooding-{tool}")
    answer = await server.call(tool, arguments, timeout_seconds=60)
    assert answer.error_kind == kind
    await gone(f"flooding-{tool}")
    assert text(await call(server, "echo", text="fresh")) == "fresh"


@pytest.mark.anyio
async def test_a_little_nonsense_is_borne(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    server = await lease(pool, spec(), workspace)
    await server.list_tools()
    noise = asyncio.create_task(call(server, "nonsense", lines=3, within=2))
    assert (await noise).error_kind == "timeout"


@pytest.mark.anyio
async def test_results_are_cut(pool: ServerPool, spec: MakeSpec, workspace: Path, settings: Settings) -> None:
    server = await lease(pool, spec(), workspace)
    whole = await call(server, "huge", size=1000)
    assert not whole.truncated
    cut = await call(server, "huge", size=300_000)
    assert cut.truncated
    assert not cut.is_error
    assert len(text(cut)) <= settings.max_tool_result_bytes
    assert cut.structured is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("start", "kind", "words"),
    [
        ("hang", "timeout", "thinking"),
        ("die", "server_died", "no configuration"),
        ("nonsense", "protocol", "not MCP"),
    ],
)
async def test_servers_that_never_start(pool: ServerPool, spec: MakeSpec, start: str, kind: str, words: str) -> None:
    seconds = 3.0 if start == "hang" else 30.0
    with pytest.raises(McpUnavailable, match=words) as refused:
        await pool.inspect(
            spec("--start", start, timeout_seconds=seconds),
            organization_id=ORGANIZATION,
            environment={"MARK": f"start-{start}"},
        )
    assert refused.value.kind == kind
    await gone(f"start-{start}")


@pytest.mark.anyio
async def test_a_program_that_does_not_exist(pool: ServerPool, spec: MakeSpec) -> None:
    with pytest.raises(McpUnavailable, match="no-such-server"):
        await pool.inspect(
            spec(command=["no-such-server"]),
            organization_id=ORGANIZATION,
            environment={},
        )


@pytest.mark.anyio
async def test_inspection(pool: ServerPool, spec: MakeSpec) -> None:
    seen = await pool.inspect(spec(), organization_id=ORGANIZATION, environment={"MARK": "inspected"})
    assert (seen.protocol_version, seen.server_name, seen.server_version) == (
        "2026-07-28",
        "quarterdeck-test",
        "1.2.3",
    )
    assert "echo" in {tool.name for tool in seen.tools}
    assert seen.latency_ms > 0
    await gone("inspected")


@pytest.mark.anyio
async def test_stateful_servers_are_never_shared(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    registered = spec()
    one, two = (
        await lease(pool, registered, workspace),
        await lease(pool, registered, workspace),
    )
    await call(one, "remember", key="k", value="mine")
    assert text(await call(two, "recall", key="k")) == "nothing"


@pytest.mark.anyio
async def test_stateless_servers_are_shared_within_an_organisation(
    pool: ServerPool, spec: MakeSpec, workspace: Path
) -> None:
    registered = spec(stateless=True)
    one = await lease(pool, registered, workspace, MARK="shared-server")
    two = await lease(pool, registered, workspace, MARK="shared-server")
    foreign = await lease(pool, registered, workspace, organization_id=uuid4(), MARK="shared-server")
    other_secret = await lease(pool, registered, workspace, MARK="shared-server", TOKEN="other")
    await call(one, "remember", key="k", value="ours")
    assert text(await call(two, "recall", key="k")) == "ours"
    assert text(await call(foreign, "recall", key="k")) == "nothing"
    assert text(await call(other_secret, "recall", key="k")) == "nothing"
    await pool.release(one)
    assert text(await call(two, "recall", key="k")) == "ours"
    for server in (two, foreign, other_secret):
        await pool.release(server)
    await gone("shared-server")


@pytest.mark.anyio
async def test_release_ends_children_too(pool: ServerPool, spec: MakeSpec, workspace: Path) -> None:
    server = await lease(pool, spec(), workspace, MARK="with-children")
    await call(server, "spawn_child")
    assert running("with-children") >= 2
    await pool.release(server)
    await gone("with-children")


@pytest.mark.anyio
async def test_cancelling_a_call_or_a_start_leaves_nothing(
    settings: Settings, sandbox: Sandbox, spec: MakeSpec, workspace: Path
) -> None:
    pool = ServerPool(settings, sandbox)
    server = await lease(pool, spec(), workspace, MARK="cancelled-call")
    await server.list_tools()
    for task in (
        asyncio.create_task(call(server, "sleep", seconds=600)),
        asyncio.create_task(
            (await lease(pool, spec("--start", "hang"), workspace, MARK="cancelled-call")).list_tools()
        ),
    ):
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert text(await call(server, "echo", text="well")) == "well"
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await gone("cancelled-call")


def running(mark: str) -> int:
    """Living processes that were started with MARK=mark in their environment."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += f"MARK={mark}".encode() in entry.read_bytes().split(b"\0")
        except OSError:
            continue
    return found


async def gone(mark: str) -> None:
    deadline = time.monotonic() + 15
    while running(mark):
        assert time.monotonic() < deadline, f"processes marked {mark} still run"
        await asyncio.sleep(0.05)
