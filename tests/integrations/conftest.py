"""Fixtures for the outside world: a sandbox, a workspace, MCP servers that behave as asked."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core import processes
from core.settings import Settings
from integrations.agents.base import McpServerSpec
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import Sandbox
from integrations.sandbox.detect import detect
from integrations.sandbox.plain import PlainSandbox

MCP_SERVER = Path(__file__).parent.parent / "fakes" / "mcp_server.py"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "data",
        allow_private_networks=True,
        max_tool_result_bytes=64 * 1024,
    )


@pytest.fixture
def workspace(settings: Settings) -> Path:
    folder = settings.workspaces / "one"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def sandbox(settings: Settings) -> Sandbox:
    return detect(settings).sandbox


@pytest.fixture(params=["bubblewrap", "none"])
def each_sandbox(request: pytest.FixtureRequest, settings: Settings) -> Sandbox:
    if request.param == "none":
        return PlainSandbox()
    report = detect(settings)
    if not report.works:
        pytest.skip(report.reason)
    return report.sandbox


@pytest.fixture
async def pool(settings: Settings, sandbox: Sandbox) -> AsyncIterator[ServerPool]:
    servers = ServerPool(settings, sandbox)
    yield servers
    await servers.close()


@pytest.fixture
def spec() -> Callable[..., McpServerSpec]:
    """Make the registration of the test server: `spec("--start", "hang", name="t")`."""

    def make(*options: str, **fields: Any) -> McpServerSpec:
        given: dict[str, Any] = {"id": uuid4(), "name": "test", "transport": "stdio", "timeout_seconds": 30.0, **fields}
        if given["transport"] == "stdio":
            given.setdefault("command", [sys.executable, str(MCP_SERVER), *options])
        return McpServerSpec(**given)

    return make


@pytest.fixture
def http_mcp_server() -> Callable[[], Any]:
    """A context manager that runs the test server over HTTP and yields (URL, function that kills it)."""
    return _http_mcp_server


@asynccontextmanager
async def _http_mcp_server(
    port: int | None = None,
) -> AsyncIterator[tuple[str, Callable[[], Any]]]:
    port = port or free_port()
    process = await processes.spawn(
        [sys.executable, str(MCP_SERVER), "--http", str(port)],
        environment={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        directory=Path("/"),
        merge_stderr=True,
    )
    drain = asyncio.create_task(process.stdout.read() if process.stdout else asyncio.sleep(0))
    try:
        await wait_for_port(port)
        yield f"http://127.0.0.1:{port}/mcp", lambda: processes.end(process)
    finally:
        await processes.end(process)
        drain.cancel()


async def eventually(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until something has become true."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def wait_for_port(port: int, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
