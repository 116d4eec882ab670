"""The contract for MCP servers: what the rest of Quarterdeck knows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

from core.errors import Unavailable
from integrations.agents.base import McpServerSpec, ToolResult

FaultKind = Literal["timeout", "server_died", "protocol", "too_large"]


class McpUnavailable(Unavailable):
    """A server that cannot be used now; `kind` is why, the message has its own last words."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as its server lists it. `annotations` has MCP's hints (`readOnlyHint`, `destructiveHint`, …)."""

    name: str
    title: str | None
    description: str
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpInspection:
    """What a health check saw. `protocol_version` is worth storing: pinned, it saves a probe at each start."""

    protocol_version: str
    server_name: str | None
    server_version: str | None
    tools: Sequence[McpTool]
    latency_ms: int
    """From the start of the connection to its list of tools."""


class McpServer(Protocol):
    """One server as a session uses it: connected when first needed, restarted when it died."""

    @property
    def protocol_version(self) -> str | None:
        """The version spoken, once it is connected."""
        ...

    async def list_tools(self) -> Sequence[McpTool]:
        """Its tools. Raises McpUnavailable."""
        ...

    async def call(self, tool: str, arguments: Mapping[str, Any], *, timeout_seconds: float) -> ToolResult:
        """Run a tool. Faults of tool and server are results with `error_kind`; only cancellation is raised."""
        ...


class McpServers(Protocol):
    """The servers of one process."""

    async def lease(
        self,
        spec: McpServerSpec,
        *,
        organization_id: UUID,
        workspace: Path,
        environment: Mapping[str, str],
    ) -> McpServer:
        """A server for one session; nothing is started yet. Stateless ones may be shared in an organisation."""
        ...

    async def release(self, server: McpServer) -> None:
        """The session needs it no longer; with the last one its process and connections end."""
        ...

    async def inspect(
        self,
        spec: McpServerSpec,
        *,
        organization_id: UUID,
        environment: Mapping[str, str],
    ) -> McpInspection:
        """Start it for itself, list its tools, stop it. Raises McpUnavailable, BadInput."""
        ...

    async def close(self) -> None:
        """End every server, leased or not."""
        ...
