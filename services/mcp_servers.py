"""MCP servers of an organisation: registered by admins, checked, changed, removed. Their secrets are sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import EllipsisType
from typing import Any
from uuid import UUID

import orjson

from core import clock, net
from core.errors import Conflict, NotFound, QuarterdeckError, TooLarge, Unavailable
from core.ids import encode
from core.permissions import Actor, Permission
from integrations.mcp.base import McpInspection
from models.audit import AuditOutcome
from models.base import Query
from models.mcp_servers import McpServer, McpServerRow, McpTransport
from services import idempotency
from services.mcp_registration import NewMcpServer, check_registration, check_url
from services.parts import parts
from services.runs.configuration import spec_of
from services.work import Work, write

LONGEST_CHECK_SECONDS = 60.0
"""A check starts the server and lists its tools, each within this time, whatever its own timeout is."""
LARGEST_LISTING = 4 * 1024 * 1024
"""Bytes of JSON that a server's tools take at most."""


@dataclass(frozen=True, slots=True)
class McpServerChanges:
    """What to change; None leaves a thing as it is. Name and transport stay: sessions rely on them."""

    description: str | None = None
    command: Sequence[str] | None = None
    url: str | None = None
    environment: Sequence[tuple[str, str]] | None = field(default=None, repr=False)
    """Replaces all variables."""
    headers: Sequence[tuple[str, str]] | None = field(default=None, repr=False)
    """Replaces all headers."""
    protocol_version: str | EllipsisType | None = ...
    """`...` leaves it; None lets client and server agree."""
    stateless: bool | None = None
    timeout_seconds: float | None = None
    check: bool = True


async def register_mcp_server(actor: Actor, new: NewMcpServer, *, key: str | None = None) -> McpServerRow:
    """Register a server, then check it where that is asked for. Raises BadInput, Forbidden, Conflict."""
    check_registration(new)
    if new.url is not None:
        await _check_address(new.url)
    async with write(actor, "mcp_server.register") as work:
        actor.require(Permission.TOOLS_MANAGE)
        found = await idempotency.claim(work, "registerMcpServer", key, _as_json(new))
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return await _read(work, found.earlier)
        row = await _insert(work, found.result_id, new)
        work.target("McpServer", row["id"], row["name"])
        work.changed(after=_public(row))
    return await _check(actor, row) if new.check else row


async def update_mcp_server(actor: Actor, server_id: UUID, changes: McpServerChanges) -> McpServerRow:
    """Change a server, then check it where that is asked for. Runs under way go on with what they began with.

    Raises BadInput, Forbidden, NotFound.
    """
    if changes.url is not None:
        await _check_address(changes.url)
    async with write(actor, "mcp_server.update") as work:
        actor.require(Permission.TOOLS_MANAGE)
        before = await _lock(work, server_id)
        wanted = _changed(before, changes)
        check_registration(wanted)
        values: dict[str, Any] = {
            name: getattr(wanted, name)
            for name in ("description", "command", "url", "protocol_version", "stateless", "timeout_seconds")
            if getattr(wanted, name) != _plain(before[name])
        }
        if changes.environment is not None:
            values |= _sealed("environment", server_id, changes.environment)
        if changes.headers is not None:
            values |= _sealed("headers", server_id, changes.headers)
        if values:
            await McpServer.filter(id=server_id).using_db(work.tx.orm).update(**values)
        row = await _read(work, server_id)
        work.changed(before=_public(before), after=_public(row) | {"changed": sorted(values)})
    return await _check(actor, row) if changes.check else row


async def remove_mcp_server(actor: Actor, server_id: UUID) -> McpServerRow:
    """Take a server away: no further run gets it, its name is free again, and its secrets are erased.

    Sessions that had it still say so. Raises Forbidden, NotFound.
    """
    async with write(actor, "mcp_server.remove") as work:
        actor.require(Permission.TOOLS_MANAGE)
        before = await _lock(work, server_id)
        await work.tx.execute(
            "UPDATE mcp_servers SET removed_at = $2, environment_sealed = NULL, headers_sealed = NULL WHERE id = $1",
            server_id,
            work.at,
        )
        work.changed(before=_public(before))
        return await _read(work, server_id)


async def check_mcp_server(actor: Actor, server_id: UUID) -> McpServerRow:
    """Connect to a server, list its tools, and store what came of it: `check_error` where it failed.

    Raises Forbidden, NotFound.
    """
    async with write(actor, "mcp_server.check") as work:
        actor.require(Permission.TOOLS_MANAGE)
        row = await _lock(work, server_id)
        work.entry.action = ""  # recorded with its outcome
    return await _check(actor, row)


async def ask_server(
    row: McpServerRow, environment: Mapping[str, str], *, longest_seconds: float = LONGEST_CHECK_SECONDS
) -> McpInspection:
    """Connect to a server, as a session with these variables would, list its tools, and end it; outside of any
    transaction, for it takes its time. Raises Unavailable, without the secrets that a server's last words may repeat.
    """
    secrets = list(environment.values())
    try:
        spec = spec_of(row)
        secrets += [*spec.env.values(), *spec.headers.values()]
        spec = replace(spec, timeout_seconds=min(spec.timeout_seconds, longest_seconds))
        return await parts().inspect_server(spec, organization_id=row["organization_id"], environment=environment)
    except QuarterdeckError as error:
        raise Unavailable(_storable(_without(secrets, error.message))) from None


async def _check(actor: Actor, row: McpServerRow) -> McpServerRow:
    """Ask the server, then store the answer."""
    started = clock.now()
    tools: list[dict[str, Any]] | None = None
    seen: str | None = None
    problem: str | None = None
    try:
        found = await ask_server(row, {})
        tools, seen = _listing(found), found.protocol_version
    except QuarterdeckError as error:
        problem = error.message
    return await _store(actor, row, started, tools, seen, problem)


async def _store(
    actor: Actor,
    row: McpServerRow,
    started: datetime,
    tools: list[dict[str, Any]] | None,
    seen: str | None,
    problem: str | None,
) -> McpServerRow:
    async with write(actor, "mcp_server.check") as work:
        work.target("McpServer", row["id"], row["name"])
        # Of two checks at once the later one knows better; what was listed before stays where this one failed.
        await work.tx.execute(
            "UPDATE mcp_servers SET checked_at = $2, check_error = $3, tools = coalesce($4, tools), "
            "protocol_version_seen = coalesce($5, protocol_version_seen) "
            "WHERE id = $1 AND removed_at IS NULL AND (checked_at IS NULL OR checked_at <= $2)",
            row["id"],
            started,
            problem,
            tools,
            seen,
        )
        if problem is None:
            work.changed(after={"tools": len(tools or ()), "protocolVersion": seen})
        else:
            work.entry.outcome, work.entry.error_message = AuditOutcome.FAILED, problem
        return await _read(work, row["id"])


async def _check_address(url: str) -> None:
    """Raises BadInput for an address that users' URLs may not reach. Connections check again: names can be rebound."""
    host, port = check_url(url)
    # A host that has no address now may have one later; the check of the server says so.
    with suppress(Unavailable):
        await net.resolve(host, port, allow_private=parts().settings.allow_private_networks, field="url")


async def _insert(work: Work, server_id: UUID, new: NewMcpServer) -> McpServerRow:
    secrets = _sealed("environment", server_id, new.environment) | _sealed("headers", server_id, new.headers)
    row = await work.tx.fetchrow(
        "INSERT INTO mcp_servers (id, organization_id, name, description, transport, command, url, environment_sealed, "
        "environment_names, headers_sealed, header_names, protocol_version, stateless, timeout_seconds, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) "
        "ON CONFLICT (organization_id, name) WHERE removed_at IS NULL DO NOTHING RETURNING *",
        server_id,
        work.actor.organization_id,
        new.name,
        new.description,
        new.transport.value,
        list(new.command),
        new.url,
        secrets["environment_sealed"],
        secrets["environment_names"],
        secrets["headers_sealed"],
        secrets["header_names"],
        new.protocol_version,
        new.stateless,
        new.timeout_seconds,
        work.at,
        row=McpServerRow,
    )
    if row is not None:
        return row
    other = await work.tx.fetchval(
        "SELECT id FROM mcp_servers WHERE organization_id = $1 AND name = $2 AND removed_at IS NULL",
        work.actor.organization_id,
        new.name,
    )
    raise Conflict(
        f"There is an MCP server {new.name!r} already. Choose another name, or change that one with updateMcpServer.",
        field="name",
        **({"mcpServerId": encode("mcp", other)} if other else {}),
    )


async def _lock(work: Work, server_id: UUID) -> McpServerRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT * FROM mcp_servers WHERE id = {query.arg(server_id)} AND removed_at IS NULL "
        f"AND {query.scope(McpServer.visible_to(work.actor))} FOR UPDATE",
        *query.args,
        row=McpServerRow,
    )
    if row is None:
        raise NotFound("There is no such MCP server, or it was removed.", field="mcpServerId")
    work.target("McpServer", row["id"], row["name"])
    return row


async def _read(work: Work, server_id: UUID) -> McpServerRow:
    row = await work.tx.fetchrow("SELECT * FROM mcp_servers WHERE id = $1", server_id, row=McpServerRow)
    assert row is not None
    return row


def _changed(row: McpServerRow, changes: McpServerChanges) -> NewMcpServer:
    """The server as it is to be, with the secrets that are new."""
    return NewMcpServer(
        name=row["name"],
        transport=McpTransport(row["transport"]),
        description=row["description"] if changes.description is None else changes.description,
        command=_plain(row["command"] if changes.command is None else changes.command),
        url=row["url"] if changes.url is None else changes.url,
        environment=changes.environment or (),
        headers=changes.headers or (),
        protocol_version=row["protocol_version"] if changes.protocol_version is ... else changes.protocol_version,
        stateless=row["stateless"] if changes.stateless is None else changes.stateless,
        timeout_seconds=row["timeout_seconds"] if changes.timeout_seconds is None else changes.timeout_seconds,
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


def _sealed(what: str, server_id: UUID, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The columns of `environment` or `headers`. services.runs.configuration opens them again."""
    purpose = f"mcp:{server_id}:{'env' if what == 'environment' else what}"
    return {
        f"{what}_sealed": parts().vault.seal(dict(pairs), purpose=purpose) if pairs else None,
        f"{what.removesuffix('s')}_names": sorted(name for name, _ in pairs),
    }


def _listing(found: McpInspection) -> list[dict[str, Any]]:
    tools = [
        {
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "inputSchema": tool.input_schema,
            "outputSchema": tool.output_schema,
            "annotations": tool.annotations,
        }
        for tool in found.tools
    ]
    if len(orjson.dumps(tools)) > LARGEST_LISTING:
        raise TooLarge(f"It lists more than {LARGEST_LISTING} bytes of tools.")
    return _storable(tools)  # type: ignore[no-any-return]


def _storable(value: Any) -> Any:
    """Without NUL characters, which PostgreSQL cannot store."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _without(secrets: Sequence[str], message: str) -> str:
    """A server's last words may repeat what it was given."""
    words = {word for secret in secrets for word in (secret, *secret.split()) if len(word) >= 6}
    for word in sorted(words, key=len, reverse=True):
        message = message.replace(word, "[redacted]")
    return message


def _public(row: McpServerRow) -> dict[str, Any]:
    names = (
        *("name", "description", "transport", "command", "url", "environment_names", "header_names"),
        *("protocol_version", "stateless", "timeout_seconds"),
    )
    return {name: row[name] for name in names}


def _as_json(new: NewMcpServer) -> dict[str, Any]:
    """What an idempotency key stands for. A digest of it is stored, so secrets are left out."""
    return {
        "name": new.name,
        "description": new.description,
        "transport": new.transport,
        "command": list(new.command),
        "url": new.url,
        "environment": sorted(name for name, _ in new.environment),
        "headers": sorted(name for name, _ in new.headers),
        "protocolVersion": new.protocol_version,
        "stateless": new.stateless,
        "timeoutSeconds": new.timeout_seconds,
    }


__all__ = [
    "McpServerChanges",
    "NewMcpServer",
    "ask_server",
    "check_mcp_server",
    "register_mcp_server",
    "remove_mcp_server",
    "update_mcp_server",
]
