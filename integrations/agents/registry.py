"""The agent runtimes of this program, and the parts they share: the one place that names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.settings import Settings
from integrations.agents.base import Runtime
from integrations.agents.claude import ClaudeRuntime
from integrations.agents.pydantic_ai_runtime import PydanticAiRuntime
from integrations.agents.script import ScriptRuntime
from integrations.mcp.base import McpServers
from integrations.mcp.servers import ServerPool
from integrations.sandbox.base import SandboxReport
from integrations.sandbox.detect import detect


@dataclass(frozen=True, slots=True)
class Agents:
    """What a process needs to run agents. `close` ends every server and process that is left."""

    runtimes: Mapping[str, Runtime]
    servers: McpServers
    sandbox: SandboxReport

    async def close(self) -> None:
        await self.servers.close()


def agents(settings: Settings) -> Agents:
    """The runtimes by name, over one pool of MCP servers. Raises Unavailable where the sandbox asked for fails."""
    report = detect(settings)
    servers = ServerPool(settings, report.sandbox)
    found: list[Runtime] = [
        ScriptRuntime(settings, servers, report.sandbox),
        PydanticAiRuntime(settings, servers, report.sandbox),
        ClaudeRuntime(settings, servers, report.sandbox),
    ]
    return Agents({runtime.name: runtime for runtime in found}, servers, report)


def default_runtime(settings: Settings) -> str:
    """The runtime of sessions that name none: a model's where one is configured."""
    return PydanticAiRuntime.name if settings.default_model is not None else ScriptRuntime.name
