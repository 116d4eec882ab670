"""The MCP servers of one process: who shares which, and when they end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from core.processes import to_the_end
from core.settings import Settings
from integrations.agents.base import McpServerSpec
from integrations.mcp.base import McpInspection, McpServer, McpUnavailable
from integrations.mcp.client import SupervisedServer
from integrations.sandbox.base import Sandbox

PoolKey = tuple[UUID, str, str]


class ServerPool:
    """McpServers over supervised processes and connections.

    A server is shared only where its registration says that it is stateless, and only between sessions
    of one organisation that would start it in just the same way: same program and arguments, same
    environment and headers.
    """

    def __init__(self, settings: Settings, sandbox: Sandbox) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._own: dict[McpServer, SupervisedServer] = {}
        self._shared: dict[PoolKey, _Shared] = {}

    async def lease(
        self,
        spec: McpServerSpec,
        *,
        organization_id: UUID,
        workspace: Path,
        environment: Mapping[str, str],
    ) -> McpServer:
        if not spec.stateless:
            server = self._server(spec, workspace, environment)
            self._own[server] = server
            return server
        key = _key(spec, organization_id, environment)
        shared = self._shared.get(key)
        if shared is None:
            folder = tempfile.TemporaryDirectory(prefix="quarterdeck-mcp-")
            shared = _Shared(self._server(spec, Path(folder.name).resolve(), environment), folder)
            self._shared[key] = shared
        shared.leases += 1
        return shared.server

    async def release(self, server: McpServer) -> None:
        own = self._own.pop(server, None)
        if own is not None:
            await own.close()
        for key, shared in list(self._shared.items()):
            if shared.server is server:
                shared.leases -= 1
                if shared.leases == 0:
                    del self._shared[key]
                    await shared.close()

    async def inspect(
        self,
        spec: McpServerSpec,
        *,
        organization_id: UUID,
        environment: Mapping[str, str],
    ) -> McpInspection:
        with tempfile.TemporaryDirectory(prefix="quarterdeck-mcp-") as folder:
            server = self._server(spec, Path(folder).resolve(), environment)
            started = time.perf_counter()
            try:
                tools = await server.list_tools()
                took = time.perf_counter() - started
                version, info = server.protocol_version, server.server_info
            finally:
                await server.close()
        if version is None:
            raise McpUnavailable(
                "server_died",
                f"The MCP server {spec.name!r} ended while it was being looked at.",
            )
        return McpInspection(
            protocol_version=version,
            server_name=info.name if info is not None else None,
            server_version=info.version if info is not None else None,
            tools=tools,
            latency_ms=round(took * 1000),
        )

    async def close(self) -> None:
        own, shared = list(self._own.values()), list(self._shared.values())
        self._own.clear()
        self._shared.clear()
        await to_the_end(_close_all([*own, *shared]))

    def _server(self, spec: McpServerSpec, workspace: Path, environment: Mapping[str, str]) -> SupervisedServer:
        return SupervisedServer(
            spec,
            settings=self._settings,
            sandbox=self._sandbox,
            workspace=workspace,
            environment=environment,
        )


@dataclass(slots=True)
class _Shared:
    server: SupervisedServer
    folder: tempfile.TemporaryDirectory[str]
    leases: int = 0

    async def close(self) -> None:
        try:
            await self.server.close()
        finally:
            self.folder.cleanup()


async def _close_all(servers: Sequence[SupervisedServer | _Shared]) -> None:
    await asyncio.gather(*(server.close() for server in servers))


def _key(spec: McpServerSpec, organization_id: UUID, environment: Mapping[str, str]) -> PoolKey:
    program = [
        spec.transport,
        list(spec.command),
        spec.url,
        spec.protocol_version,
        spec.timeout_seconds,
    ]
    secrets = [dict(environment), dict(spec.env), dict(spec.headers)]
    return organization_id, _digest(program), _digest(secrets)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
