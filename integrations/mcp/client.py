"""MCP servers, supervised: connected when needed, restarted when they died, killed when they hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.client import InputRequiredRoundsExceededError
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from core.errors import QuarterdeckError
from core.processes import to_the_end
from core.settings import Settings
from integrations.agents.base import McpServerSpec, ToolResult
from integrations.mcp.base import FaultKind, McpTool, McpUnavailable
from integrations.mcp.connection import Connection, HttpTransport
from integrations.mcp.results import failure, to_result
from integrations.mcp.stdio import StdioTransport
from integrations.sandbox.base import Sandbox

MAX_STARTS = 4
"""How often one server is started for one session before it counts as broken."""


class SupervisedServer:
    """An McpServer. `close` ends its process and connections, always."""

    def __init__(
        self,
        spec: McpServerSpec,
        *,
        settings: Settings,
        sandbox: Sandbox,
        workspace: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._sandbox = sandbox
        self._workspace = workspace
        self._environment = environment
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._retired: list[Connection] = []
        self._starts = 0
        self._tools: Sequence[McpTool] | None = None
        self._last_fault = ""

    @property
    def protocol_version(self) -> str | None:
        return self._connection.client.protocol_version if self._connection is not None else None

    @property
    def server_info(self) -> types.Implementation | None:
        """Name and version of the server's program, where it says."""
        return self._connection.client.server_info if self._connection is not None else None

    async def list_tools(self) -> Sequence[McpTool]:
        connection = await self._connected()
        if self._tools is None or connection.tools_changed:
            connection.tools_changed = False
            try:
                async with asyncio.timeout(self._spec.timeout_seconds):
                    listed = await connection.use(connection.all_tools)
            except TimeoutError:
                self._retire(connection)
                raise self._unavailable("timeout", "it did not list its tools in time.") from None
            except Exception as error:
                kind, message = connection.explain(error)
                self._retire(connection)
                raise self._unavailable(kind, message) from error
            self._tools = [_tool(tool) for tool in listed]
        return self._tools

    async def call(self, tool: str, arguments: Mapping[str, Any], *, timeout_seconds: float) -> ToolResult:
        try:
            connection = await self._connected()
        except McpUnavailable as error:
            return failure(error.kind, error.message)
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await connection.use(lambda client: client.call_tool(tool, dict(arguments)))
        except TimeoutError:
            # MCP's cancellation has been sent, but a hanging tool may ignore it: nothing may be left running.
            self._retire(connection)
            return failure(
                "timeout",
                f"{self._spec.name}.{tool} did not finish within {timeout_seconds:g} s.",
            )
        except InputRequiredRoundsExceededError:
            return failure(
                "tool",
                f"{self._spec.name}.{tool} asks for input that nobody can give here.",
            )
        except Exception as error:
            if isinstance(error, MCPError) and _is_refusal(error) and not connection.broken:
                return failure(
                    "tool",
                    f"{self._spec.name} refused the call: {error.message[:2000]}",
                )
            kind, message = connection.explain(error)
            self._last_fault = message
            self._retire(connection)
            return failure(kind, f"{self._spec.name}: {message}")
        return to_result(answer, max_bytes=self._settings.max_tool_result_bytes)

    async def close(self) -> None:
        self._starts = MAX_STARTS
        connections = [
            *self._retired,
            *([self._connection] if self._connection is not None else []),
        ]
        self._connection = None
        await to_the_end(_all(connection.close() for connection in connections))

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.broken:
                self._retire(self._connection)
            if self._connection is None:
                if self._starts >= MAX_STARTS:
                    raise self._unavailable(
                        "server_died",
                        f"it failed {MAX_STARTS} times and is not started again. {self._last_fault}",
                    )
                self._starts += 1
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        try:
            connection = Connection(self._spec, self._transport(), self._workspace)
        except QuarterdeckError as error:
            raise self._unavailable("server_died", error.message) from error
        try:
            async with asyncio.timeout(self._spec.timeout_seconds):
                await connection.open()
        except TimeoutError:
            words = connection.last_words()
            await connection.close()
            said = f" Its last words: {words}" if words else ""
            raise self._unavailable(
                "timeout",
                f"it did not start within {self._spec.timeout_seconds:g} s.{said}",
            ) from None
        except BaseException as error:
            await connection.close()
            if not isinstance(error, Exception):
                raise
            raise self._unavailable(*connection.explain(error)) from error
        return connection

    def _transport(self) -> StdioTransport | HttpTransport:
        limit = 4 * self._settings.max_tool_result_bytes + 1024 * 1024
        if self._spec.transport == "streamable_http":
            return HttpTransport(
                self._spec,
                allow_private=self._settings.allow_private_networks,
                max_bytes=limit,
            )
        command = self._sandbox.wrap(
            self._spec.command,
            workspace=self._workspace,
            environment={**self._environment, **self._spec.env},
            # Servers exist to reach other systems; what one may not reach is for the firewall to say.
            network=True,
        )
        return StdioTransport(command, max_line_bytes=limit)

    def _retire(self, connection: Connection) -> None:
        """Use it no more; it ends once the calls that others have in it are done."""
        if self._connection is connection:
            self._connection = None
        connection.retire()
        self._retired = [
            *(other for other in self._retired if not other.ended),
            connection,
        ]

    def _unavailable(self, kind: FaultKind, message: str) -> McpUnavailable:
        self._last_fault = message
        return McpUnavailable(kind, f"The MCP server {self._spec.name!r} cannot be used: {message}")


async def _all(work: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*work)


def _is_refusal(error: MCPError) -> bool:
    """The server is well and said no; a lost HTTP session is the one refusal that a new connection mends."""
    return error.code != CONNECTION_CLOSED and error.message != "Session terminated"


def _tool(tool: types.Tool) -> McpTool:
    annotations = tool.annotations
    return McpTool(
        name=tool.name,
        title=tool.title or (annotations.title if annotations is not None else None),
        description=tool.description or "",
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        annotations={} if annotations is None else annotations.model_dump(by_alias=True, exclude_none=True),
    )
