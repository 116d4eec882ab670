"""The MCP servers that a template names: whether they are there, whether they answer, and which tools they have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from core import db
from core.errors import QuarterdeckError
from models.mcp_servers import McpServerRow
from services.mcp_servers import ask_server

ASKED_AT_ONCE = 4
"""Servers of one template that are started at the same time."""
LONGEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server of the organisation, as it was last seen."""

    row: McpServerRow
    tools: frozenset[str] | None
    """What it listed, without its own name; None where it never did."""
    problem: str | None
    """Why it could not be used."""
    checked: bool
    """Whether it was ever asked."""
    latency_ms: int | None = None

    @property
    def name(self) -> str:
        return str(self.row["name"])


async def registered_servers(organization_id: UUID) -> dict[str, ServerState]:
    """All servers of an organisation by name, as their last checks have them."""
    rows = await db.fetch(
        "SELECT * FROM mcp_servers WHERE organization_id = $1 AND removed_at IS NULL ORDER BY name",
        organization_id,
        row=McpServerRow,
    )
    return {row["name"]: _as_last_checked(row) for row in rows}


async def ask_servers(
    servers: Mapping[str, ServerState], names: Iterable[str], environment: Mapping[str, str]
) -> dict[str, ServerState]:
    """The same, with those of these names asked now; a few at a time, each within a bounded time."""
    turn = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(state: ServerState) -> ServerState:
        async with turn:
            try:
                found = await ask_server(state.row, environment, longest_seconds=LONGEST_SECONDS)
            except QuarterdeckError as error:
                return replace(state, problem=error.message, checked=True)
            tools = frozenset(tool.name for tool in found.tools)
            return ServerState(state.row, tools, None, checked=True, latency_ms=found.latency_ms)

    wanted: Sequence[ServerState] = [servers[name] for name in dict.fromkeys(names) if name in servers]
    asked = await asyncio.gather(*(ask(state) for state in wanted))
    return dict(servers) | {state.name: state for state in asked}


def _as_last_checked(row: McpServerRow) -> ServerState:
    tools = None if row["tools"] is None else frozenset(tool["name"] for tool in row["tools"])
    return ServerState(row, tools, row["check_error"], checked=row["checked_at"] is not None)
