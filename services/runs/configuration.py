"""A session's options, resolved for its runtime: servers and variables with their secrets opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from core import db
from core.errors import NotFound
from integrations.agents.base import McpServerSpec, RuntimeConfig
from models.mcp_servers import McpServerRow, McpTransport
from models.sessions import SessionRow
from services.parts import parts
from services.sessions.lifecycle import make_directory, session_directory
from services.sessions.options import load_options


async def runtime_config(session: SessionRow) -> RuntimeConfig:
    """What the runtime is started with. NotFound where an environment variable it names is gone."""
    options = load_options(session["options"])
    make_directory(session["organization_id"], session["id"])
    servers = await db.fetch(
        "SELECT mcp_servers.*, session_mcp_servers.allowed_tools FROM mcp_servers "
        "JOIN session_mcp_servers ON session_mcp_servers.mcp_server_id = mcp_servers.id "
        "WHERE session_mcp_servers.session_id = $1 AND mcp_servers.removed_at IS NULL ORDER BY "
        "session_mcp_servers.position",
        session["id"],
        row=McpServerRow,
    )
    directory = session_directory(session["organization_id"], session["id"]) / options.working_directory
    directory.mkdir(parents=True, exist_ok=True)
    return RuntimeConfig(
        organization_id=session["organization_id"],
        session_id=session["id"],
        working_directory=directory,
        model=session["model"],
        system_prompt=session["system_prompt"],
        permission_mode=session["permission_mode"],
        allowed_tools=options.allowed_tools,
        disallowed_tools=options.disallowed_tools,
        max_turns=options.max_turns,
        max_budget_usd=options.max_budget_usd,
        mcp_servers=[replace(spec_of(server), allowed_tools=server["allowed_tools"]) for server in servers],
        environment=await environment_of(session["organization_id"], options.environment),
        # The named options are Claude's. Other runtimes use what they can, and do not stumble over the rest.
        extra=options.runtime_extra(),
    )


def spec_of(server: McpServerRow) -> McpServerSpec:
    """A registered server as the integrations want it, its secrets in the clear."""
    vault = parts().vault
    stdio = server["transport"] == McpTransport.STDIO
    return McpServerSpec(
        id=server["id"],
        name=server["name"],
        transport="stdio" if stdio else "streamable_http",
        command=tuple(server["command"]),
        url=server["url"],
        env=vault.open(server["environment_sealed"], purpose=f"mcp:{server['id']}:env")
        if server["environment_sealed"]
        else {},
        headers=vault.open(server["headers_sealed"], purpose=f"mcp:{server['id']}:headers")
        if server["headers_sealed"]
        else {},
        protocol_version=server["protocol_version"],
        stateless=server["stateless"],
        timeout_seconds=server["timeout_seconds"],
    )


async def environment_of(organization_id: UUID, names: Sequence[str]) -> dict[str, str]:
    """Variables of an organisation with their values in the clear. NotFound, naming them, where some are not set."""
    if not names:
        return {}
    rows = await db.fetch(
        "SELECT id, name, value_sealed FROM environment_variables WHERE organization_id = $1 AND name = ANY($2)",
        organization_id,
        list(names),
    )
    values = {row["name"]: parts().vault.open(row["value_sealed"], purpose=f"env:{row['id']}") for row in rows}
    if missing := [name for name in names if name not in values]:
        raise NotFound(
            f"The session names environment variables that are not set: {', '.join(missing)}. "
            "An admin can set them with setEnvironmentVariable."
        )
    return values
