"""Servers that others wrote, from npm and PyPI: both transports, both protocol versions, confined."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core import processes
from integrations.agents.base import McpServerSpec, ToolResult
from integrations.mcp.base import McpServer, McpUnavailable
from integrations.mcp.servers import ServerPool
from tests.integrations.conftest import free_port, wait_for_port
from tests.tools import ROOT, node_path, npm_install

MakeSpec = Callable[..., McpServerSpec]
OLD, NEW = "2025-11-25", "2026-07-28"


@pytest.fixture
def npm() -> Callable[..., list[str]]:
    """The command of a server from npm: `npm("server-everything", "stdio")`."""
    modules = npm_install(ROOT / "tests" / "tools" / "mcp_servers")

    def command(package: str, *arguments: str) -> list[str]:
        return [str(node_path()), str(modules / "@modelcontextprotocol" / package / "dist" / "index.js"), *arguments]

    return command


async def lease(pool: ServerPool, spec: McpServerSpec, workspace: Path) -> McpServer:
    return await pool.lease(spec, organization_id=uuid4(), workspace=workspace, environment={})


def text(result: ToolResult) -> str:
    return "".join(str(block.get("text", "")) for block in result.content)


async def call(server: McpServer, tool: str, **arguments: Any) -> ToolResult:
    return await server.call(tool, arguments, timeout_seconds=30)


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, OLD])
async def test_everything_over_stdio(
    pool: ServerPool, spec: MakeSpec, workspace: Path, npm: Callable[..., list[str]], version: str | None
) -> None:
    server = await lease(
        pool, spec(command=npm("server-everything", "stdio"), protocol_version=version, env={"GIVEN": "yes"}), workspace
    )
    await everything(server)
    environment = text(await call(server, "get-env"))
    assert '"GIVEN": "yes"' in environment
    assert "VIRTUAL_ENV" not in environment


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, OLD])
async def test_everything_over_http(
    pool: ServerPool, spec: MakeSpec, workspace: Path, npm: Callable[..., list[str]], version: str | None
) -> None:
    async with serving(npm("server-everything", "streamableHttp")) as port:
        url = f"http://127.0.0.1:{port}/mcp"
        server = await lease(pool, spec(transport="streamable_http", url=url, protocol_version=version), workspace)
        await everything(server)
        await pool.release(server)


async def everything(server: McpServer) -> None:
    tools = {tool.name: tool for tool in await server.list_tools()}
    assert server.protocol_version == OLD
    assert tools["get-sum"].input_schema["required"] == ["a", "b"]
    assert text(await call(server, "echo", message="hello")) == "Echo: hello"
    assert "5" in text(await call(server, "get-sum", a=2, b=3))
    image = await call(server, "get-tiny-image")
    assert [block["mimeType"] for block in image.content if block["type"] == "image"] == ["image/png"]
    structured = await call(server, "get-structured-content", location="New York")
    assert structured.structured is not None
    assert set(structured.structured) >= {"temperature", "conditions"}
    assert (await call(server, "get-sum", a="two", b=3)).is_error


@pytest.mark.anyio
async def test_filesystem_sees_the_workspace_and_nothing_else(
    pool: ServerPool, spec: MakeSpec, workspace: Path, npm: Callable[..., list[str]]
) -> None:
    (workspace / "note.txt").write_text("inside")
    (workspace.parent / "theirs.txt").write_text("outside")
    server = await lease(pool, spec(command=npm("server-filesystem", ".")), workspace)
    assert text(await call(server, "read_text_file", path=str(workspace / "note.txt"))) == "inside"
    written = await call(server, "write_file", path=str(workspace / "made.txt"), content="by the server")
    assert not written.is_error
    assert (workspace / "made.txt").read_text() == "by the server"
    outside = await call(server, "read_text_file", path=str(workspace.parent / "theirs.txt"))
    assert outside.is_error
    tools = {tool.name: tool for tool in await server.list_tools()}
    assert tools["read_text_file"].annotations["readOnlyHint"] is True


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, NEW, OLD])
async def test_git(pool: ServerPool, spec: MakeSpec, workspace: Path, version: str | None) -> None:
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "the first commit"]):
        identity = {"GIT_AUTHOR_NAME": "Demo", "GIT_AUTHOR_EMAIL": "demo@example.org"}
        committer = {"GIT_COMMITTER_NAME": "Demo", "GIT_COMMITTER_EMAIL": "demo@example.org"}
        committing = await asyncio.create_subprocess_exec(
            "git", *arguments, cwd=workspace, env={**os.environ, **identity, **committer}
        )
        assert await committing.wait() == 0
    server = await lease(
        pool, spec(command=["mcp-server-git", "--repository", "."], protocol_version=version), workspace
    )
    log = await call(server, "git_log", repo_path=".", max_count=3)
    assert not log.is_error, text(log)
    assert "the first commit" in text(log)
    assert server.protocol_version == (version or NEW)


@pytest.mark.anyio
@pytest.mark.parametrize("version", [None, NEW, OLD])
async def test_time(pool: ServerPool, spec: MakeSpec, workspace: Path, version: str | None) -> None:
    server = await lease(pool, spec(command=["mcp-server-time"], protocol_version=version), workspace)
    assert "Asia/Tokyo" in text(await call(server, "get_current_time", timezone="Asia/Tokyo"))
    assert (await call(server, "get_current_time", timezone="Nowhere/At_All")).is_error
    assert server.protocol_version == (version or NEW)


@pytest.mark.anyio
async def test_a_pinned_version_that_the_server_does_not_speak(
    pool: ServerPool, spec: MakeSpec, npm: Callable[..., list[str]]
) -> None:
    with pytest.raises(McpUnavailable, match=f"speaks MCP {OLD}, not {NEW}"):
        await pool.inspect(
            spec(command=npm("server-everything", "stdio"), protocol_version=NEW),
            organization_id=uuid4(),
            environment={},
        )


@asynccontextmanager
async def serving(command: list[str]) -> AsyncIterator[int]:
    """Run a server on a loopback port of its own."""
    port = free_port()
    process = await processes.spawn(
        command,
        environment={"PATH": os.environ["PATH"], "PORT": str(port)},
        directory=Path("/"),
        merge_stderr=True,
    )
    assert process.stdout is not None
    drain = asyncio.create_task(process.stdout.read())
    try:
        await wait_for_port(port)
        yield port
    finally:
        await processes.end(process)
        drain.cancel()
