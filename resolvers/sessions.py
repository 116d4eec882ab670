"""Reads of sessions, messages, runs, tool executions and approvals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor, Permission
from models.base import Query, Row, Scope
from models.mcp_servers import McpServer, McpServerRow
from models.sessions import (
    ApprovalRow,
    MessageRow,
    RunRow,
    Session,
    SessionRow,
    SessionStatus,
    ToolExecutionRow,
    in_visible_session,
)
from models.sharing import GRANTED_SESSIONS
from resolvers import reading
from resolvers.reading import Batch, children, needing, parent
from services.sharing.views import note_view


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions a list has. Archived ones only where `statuses` names them."""

    statuses: Sequence[SessionStatus] | None = None
    owner_ids: Sequence[UUID] | None = None
    title_contains: str | None = None
    runtime: str | None = None
    labels: dict[str, str] | None = None
    template_ids: Sequence[UUID] | None = None
    template_version_ids: Sequence[UUID] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    shared_with: UUID | None = None
    """Those of others that this user, or a team of theirs, has been given access to."""

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = []
        if self.shared_with is not None:
            found.append(f"sessions.id IN ({query.scope(Scope(GRANTED_SESSIONS, (self.shared_with,) * 2))})")
            found.append(f"sessions.owner_id <> {query.arg(self.shared_with)}")
        if self.statuses is None:
            found.append("sessions.status <> 'ARCHIVED'")
        else:
            found.append(f"sessions.status = ANY({query.arg([status.value for status in self.statuses])})")
        if self.owner_ids is not None:
            found.append(f"sessions.owner_id = ANY({query.arg(list(self.owner_ids))})")
        if self.title_contains:
            found.append(f"sessions.title ILIKE {query.arg(f'%{_escaped(self.title_contains)}%')}")
        if self.runtime is not None:
            found.append(f"sessions.runtime = {query.arg(self.runtime)}")
        if self.labels:
            found.append(f"sessions.labels @> {query.arg(self.labels)}")
        if self.template_ids is not None:
            found.append(
                "sessions.template_version_id IN (SELECT id FROM session_template_versions "
                f"WHERE template_id = ANY({query.arg(list(self.template_ids))}))"
            )
        if self.template_version_ids is not None:
            found.append(f"sessions.template_version_id = ANY({query.arg(list(self.template_version_ids))})")
        if self.created_after is not None:
            found.append(f"sessions.created_at >= {query.arg(self.created_after)}")
        if self.created_before is not None:
            found.append(f"sessions.created_at < {query.arg(self.created_before)}")
        return found

    def matches(self, row: SessionRow) -> bool:
        """The same filter on a row at hand, for live lists."""
        return (
            (row["status"] != "ARCHIVED" if self.statuses is None else row["status"] in self.statuses)
            and (self.owner_ids is None or row["owner_id"] in self.owner_ids)
            and (not self.title_contains or self.title_contains.casefold() in row["title"].casefold())
            and (self.runtime is None or row["runtime"] == self.runtime)
            and (not self.labels or self.labels.items() <= row["labels"].items())
            and (self.template_version_ids is None or row["template_version_id"] in self.template_version_ids)
            and (self.created_after is None or row["created_at"] >= self.created_after)
            and (self.created_before is None or row["created_at"] < self.created_before)
        )


async def session(actor: Actor, id_: UUID) -> SessionRow | None:
    """A session, or None where the actor may not see it."""
    return await reading.find("sessions", SessionRow, Session.visible_to(actor), id_)  # type: ignore[no-any-return]


async def sessions(
    actor: Actor, filter_: SessionFilter, *, first: int | None, after: str | None, order: str, descending: bool
) -> Page[SessionRow]:
    """The sessions an actor may see."""
    return await reading.page(
        "sessions",
        SessionRow,
        lambda query: [query.scope(Session.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
        order=order,
        descending=descending,
    )


async def _in_session(table: str, row: Any, actor: Actor, id_: UUID) -> Any:
    found = await reading.find(table, row, in_visible_session(table, actor), id_)
    if found is not None:
        note_view(actor, (found["session_id"],), table)
    return found


message = partial(_in_session, "messages", MessageRow)
run = partial(_in_session, "runs", RunRow)
tool_execution = partial(_in_session, "tool_executions", ToolExecutionRow)
approval = partial(_in_session, "approvals", ApprovalRow)


async def pending_approvals(actor: Actor, *, first: int | None, after: str | None) -> Page[ApprovalRow]:
    """What waits for a decision in the sessions an actor may see, oldest first."""
    found = await reading.page(
        "approvals",
        ApprovalRow,
        lambda query: [query.scope(in_visible_session("approvals", actor)), "approvals.status = 'PENDING'"],
        first=first,
        after=after,
        order="created_at",
        descending=False,
    )
    note_view(actor, {row["session_id"] for row in found.rows}, "approvals")
    return found


# Without what a tool gave back, which may be a megabyte: that is read where it is asked for.
TOOL_COLUMNS = (
    "id, organization_id, session_id, run_id, seq, call_id, parent_call_id, tool, arguments, status, truncated, "
    "error_kind, error_message, created_at, started_at, ended_at, duration_ms"
)


_readable = partial(needing, Permission.SESSIONS_READ)
"""What is in a session is for those who may read sessions, by whatever field of whatever else they come to it."""


def result_of_tools(column: str) -> Batch:
    """A batch function for a large column of tool executions."""

    async def batch(actor: Actor, tools: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        rows = await db.fetch(
            f"SELECT id, {column} AS value FROM tool_executions WHERE id = ANY($1)", [tool["id"] for tool in tools]
        )
        found = {row["id"]: row["value"] for row in rows}
        return [found.get(tool["id"]) for tool in tools]

    return _readable(batch)


def _viewing(table: str, row: type[Row], parent_column: str, **more: Any) -> Batch:
    """Children that are a session's content: who reads them is noted."""
    batch = children(table, row, parent_column, **more)
    session = "id" if parent_column == "session_id" else "session_id"

    async def noting(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        found = await batch(actor, parents, args)
        note_view(actor, [parent[session] for parent in parents], table)
        return found

    return _readable(noting)


def _viewed(table: str, row: type[Row], column: str, **more: Any) -> Batch:
    """The one row of a session's content that a column points at: who reads it is noted."""
    batch = parent(table, row, column, partial(in_visible_session, table), **more)

    async def noting(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        found = await batch(actor, parents, args)
        note_view(actor, {row["session_id"] for row in found if row is not None}, table)
        return found

    return _readable(noting)


messages_of_sessions = _viewing("messages", MessageRow, "session_id")
runs_of_sessions = _readable(children("runs", RunRow, "session_id", order="number"))
queue_of_sessions = _readable(children("runs", RunRow, "session_id", order="number", where="status = 'QUEUED'"))
tools_of_sessions = _viewing("tool_executions", ToolExecutionRow, "session_id", columns=TOOL_COLUMNS)
approvals_of_sessions = _viewing("approvals", ApprovalRow, "session_id")
pending_approvals_of_sessions = _viewing("approvals", ApprovalRow, "session_id", where="status = 'PENDING'")
messages_of_runs = _viewing("messages", MessageRow, "run_id")
tools_of_runs = _viewing("tool_executions", ToolExecutionRow, "run_id", columns=TOOL_COLUMNS)
approvals_of_runs = _viewing("approvals", ApprovalRow, "run_id")


session_of = _readable(parent("sessions", SessionRow, "session_id", Session.visible_to))
run_of = _readable(parent("runs", RunRow, "run_id", partial(in_visible_session, "runs")))
message_of = _viewed("messages", MessageRow, "message_id")
tool_execution_of = _viewed("tool_executions", ToolExecutionRow, "tool_execution_id", columns=TOOL_COLUMNS)
approval_of = _viewed("approvals", ApprovalRow, "approval_id")
fork_source_of = _readable(parent("sessions", SessionRow, "forked_from_id", Session.visible_to))


async def approval_of_tool(actor: Actor, tools: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The decision that tool executions waited for, None where none was asked."""
    rows = await db.fetch(
        "SELECT * FROM approvals WHERE tool_execution_id = ANY($1)", [tool["id"] for tool in tools], row=ApprovalRow
    )
    found = {row["tool_execution_id"]: row for row in rows}
    return [found.get(tool["id"]) for tool in tools]


async def _servers_of_sessions(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The MCP servers of sessions, in the sessions' order of them. A server that many use is read once."""
    links = await db.fetch(
        "SELECT session_id, mcp_server_id FROM session_mcp_servers WHERE session_id = ANY($1) ORDER BY position",
        [parent["id"] for parent in parents],
    )
    servers = await reading.by_ids(
        "mcp_servers", McpServerRow, McpServer.visible_to(actor), {link["mcp_server_id"] for link in links}
    )
    found: dict[UUID, list[McpServerRow]] = {}
    for link in links:
        if server := servers.get(link["mcp_server_id"]):
            found.setdefault(link["session_id"], []).append(server)
    return [found.get(parent["id"], []) for parent in parents]


servers_of_sessions = needing(Permission.TOOLS_READ, _servers_of_sessions)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
