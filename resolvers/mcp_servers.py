"""Reads of MCP servers."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from core.paging import Page
from core.permissions import Actor
from models.base import Query
from models.mcp_servers import McpServer, McpServerRow, McpTransport
from resolvers import reading


@dataclass(frozen=True, slots=True)
class McpServerFilter:
    """Which servers a list has. None takes everything; removed ones are never listed."""

    transport: McpTransport | None = None
    text: str | None = None
    """In the name or description, in any case."""
    usable: bool | None = None
    """Whether the last check went well; servers that were never checked are neither."""

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = ["mcp_servers.removed_at IS NULL"]
        if self.transport is not None:
            found.append(f"mcp_servers.transport = {query.arg(self.transport.value)}")
        if self.text:
            wanted = query.arg(self.text.replace("\0", "").lower())
            found.append(
                f"(strpos(mcp_servers.name, {wanted}) > 0 OR strpos(lower(mcp_servers.description), {wanted}) > 0)"
            )
        if self.usable is not None:
            found.append(f"mcp_servers.checked_at IS NOT NULL AND (check_error IS NULL) = {query.arg(self.usable)}")
        return found


async def mcp_server(actor: Actor, id_: UUID) -> McpServerRow | None:
    """A server, also a removed one; None where it is not the actor's organisation's."""
    return await reading.find("mcp_servers", McpServerRow, McpServer.visible_to(actor), id_)  # type: ignore[no-any-return]


async def mcp_servers(
    actor: Actor, filter_: McpServerFilter, *, first: int | None, after: str | None
) -> Page[McpServerRow]:
    """The servers of the organisation, the oldest first."""
    return await reading.page(
        "mcp_servers",
        McpServerRow,
        lambda query: [query.scope(McpServer.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
        descending=False,
    )
