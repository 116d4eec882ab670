"""MCP servers in the graph."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.scalars import JSON

from core.ids import decode
from core.permissions import Permission
from models import mcp_servers as models
from resolvers import mcp_servers as reads
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, enum_type, input_type, mutation, object_type, query
from services import mcp_servers as servers

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."
_COMMAND = (
    "For STDIO: the program and its arguments, each by itself; no shell reads them. "
    "Everybody who may read servers sees them: put secrets into `environment`."
)
_URL = "For STREAMABLE_HTTP: where the server answers. Put secrets into `headers`."
_ENVIRONMENT = "For STDIO: environment variables of the server's process. Values are sealed and never shown."
_HEADERS = "For STREAMABLE_HTTP: headers of every request. Values are sealed and never shown."
_VERSION = "The version of MCP to speak, `2026-07-28` or `2025-11-25`; null where the two sides agree on one."
_STATELESS = (
    "Whether the server remembers nothing between calls: then sessions of the organisation share one process of it."
)
_TIMEOUT = "Seconds, 1 to 600, within which the server starts and lists its tools."
_CHECK = "Connect right away and list the tools. Where that fails, `checkError` says why."

McpTransport = enum_type(
    models.McpTransport,
    {
        "STDIO": "A program that is started for each session, and spoken to over its standard input and output.",
        "STREAMABLE_HTTP": "A server somewhere else, spoken to over HTTP.",
    },
)


@object_type
class McpTool:
    """A tool as its server lists it. Sessions call it `server.tool`."""

    name: str = strawberry.field(description="Its name within the server.")
    title: str | None = strawberry.field(description="A name for people.")
    description: str = strawberry.field(description="What it does, as models are told.")
    input_schema: JSON = strawberry.field(description="JSON Schema of its arguments.")
    output_schema: JSON | None = strawberry.field(description="JSON Schema of its structured result.")
    read_only: bool = strawberry.field(description="The server says that it changes nothing (`readOnlyHint`).")
    destructive: bool = strawberry.field(
        description="It may destroy something: as MCP has it, whatever changes things may, unless the server says "
        "otherwise (`destructiveHint`)."
    )


@entity(models.McpServerRow)
class McpServer(Node):
    """A server of tools that the organisation's sessions may use (Model Context Protocol)."""

    name: str = column("What its tools' names begin with: `name.tool`.")
    description: str = column("What it is for.")
    transport: McpTransport = column("How it is spoken to.")
    command: list[str] = column("For STDIO: the program and its arguments.")
    url: str | None = column("For STREAMABLE_HTTP: where it answers.")
    environment_names: list[str] = column("Names of the environment variables that its process gets.")
    header_names: list[str] = column("Names of the headers that are sent to it.")
    protocol_version: str | None = column(_VERSION)
    protocol_version_seen: str | None = column("The version that was spoken when it was last checked.")
    stateless: bool = column(_STATELESS)
    timeout_seconds: float = column(_TIMEOUT)
    checked_at: datetime | None = column("When it was last checked; null for never.")
    check_error: str | None = column("Why the last check failed; null where it went well.")
    created_at: datetime = column("When it was registered.")
    removed_at: datetime | None = column("When it was removed: no run gets it any more.")

    @strawberry.field(
        description="Its tools as it last listed them, also where a later check failed; null where none ever went well."
    )
    def tools(root: Any) -> list[McpTool] | None:
        return None if root["tools"] is None else [_tool(tool) for tool in root["tools"]]


@input_type
class SecretInput:
    """A name and a value that is sealed."""

    name: str = strawberry.field(description="Its name, which is shown.")
    value: str = strawberry.field(description="Its value, which is never shown.")


@input_type
class RegisterMcpServerInput:
    """A new server."""

    name: str = strawberry.field(
        description="What its tools' names begin with: up to 40 lower-case letters, digits and hyphens."
    )
    description: str = strawberry.field(default="", description="What it is for, up to 2,000 characters.")
    transport: McpTransport = strawberry.field(description="How it is spoken to.")
    command: list[str] = strawberry.field(default_factory=list, description=_COMMAND)
    url: str | None = strawberry.field(default=None, description=_URL)
    environment: list[SecretInput] = strawberry.field(default_factory=list, description=_ENVIRONMENT)
    headers: list[SecretInput] = strawberry.field(default_factory=list, description=_HEADERS)
    protocol_version: str | None = strawberry.field(default=None, description=_VERSION)
    stateless: bool = strawberry.field(default=False, description=_STATELESS)
    timeout_seconds: float = strawberry.field(default=60.0, description=_TIMEOUT)
    check: bool = strawberry.field(default=True, description=_CHECK)
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateMcpServerInput:
    """Changes of a server; what is left out stays. Name and transport cannot change, since sessions rely on them."""

    mcp_server_id: strawberry.ID = strawberry.field(description="Its id, `mcp_…`.")
    description: str | None = strawberry.field(default=None, description="What it is for, up to 2,000 characters.")
    command: list[str] | None = strawberry.field(default=None, description=_COMMAND)
    url: str | None = strawberry.field(default=None, description=_URL)
    environment: list[SecretInput] | None = strawberry.field(
        default=None, description=f"Replaces all variables. {_ENVIRONMENT}"
    )
    headers: list[SecretInput] | None = strawberry.field(default=None, description=f"Replaces all headers. {_HEADERS}")
    protocol_version: str | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_VERSION} Left out, it stays as it is."
    )
    stateless: bool | None = strawberry.field(default=None, description=_STATELESS)
    timeout_seconds: float | None = strawberry.field(default=None, description=_TIMEOUT)
    check: bool = strawberry.field(default=True, description=_CHECK)


@input_type
class McpServerInput:
    """A server."""

    mcp_server_id: strawberry.ID = strawberry.field(description="Its id, `mcp_…`.")


@object_type
class McpServerPayload:
    """The server as it now is."""

    mcp_server: McpServer = strawberry.field(description="The server.")


@input_type
class McpServerFilter:
    """Which servers to list. Conditions that are left out take everything."""

    transport: McpTransport | None = strawberry.field(default=None, description="Spoken to in this way.")
    text_contains: str | None = strawberry.field(
        default=None, description="The name or description has this text, in any case."
    )
    usable: bool | None = strawberry.field(
        default=None, description="Whether the last check went well; servers never checked are left out of both."
    )

    def checked(self) -> reads.McpServerFilter:
        """What the reads take."""
        return reads.McpServerFilter(transport=self.transport, text=self.text_contains, usable=self.usable)


@strawberry.type
class McpServerQuery:
    @query(Permission.TOOLS_READ)
    async def mcp_server(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id, `mcp_…`.")]
    ) -> McpServer | None:
        """One MCP server, also a removed one; null where there is none in your organisation."""
        return await reads.mcp_server(info.context.actor, decode("mcp", id))

    @query(Permission.TOOLS_READ)
    async def mcp_servers(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[McpServerFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[McpServer]:
        """The organisation's MCP servers, the oldest first. Removed ones are not among them."""
        wanted = filter.checked() if filter else reads.McpServerFilter()
        return await reads.mcp_servers(info.context.actor, wanted, first=first, after=after)


@strawberry.type
class McpServerMutation:
    @mutation(Permission.TOOLS_MANAGE)
    async def register_mcp_server(info: Info, input: RegisterMcpServerInput) -> McpServerPayload:
        """Register an MCP server. With `check`, it is registered even where it cannot be reached: see `checkError`."""
        new = servers.NewMcpServer(
            name=input.name,
            description=input.description,
            transport=input.transport,
            command=input.command,
            url=input.url,
            environment=_pairs(input.environment),
            headers=_pairs(input.headers),
            protocol_version=input.protocol_version,
            stateless=input.stateless,
            timeout_seconds=input.timeout_seconds,
            check=input.check,
        )
        return _server(await servers.register_mcp_server(info.context.actor, new, key=input.idempotency_key))

    @mutation(Permission.TOOLS_MANAGE)
    async def update_mcp_server(info: Info, input: UpdateMcpServerInput) -> McpServerPayload:
        """Change an MCP server. Runs under way go on with the server as it was when they began."""
        changes = servers.McpServerChanges(
            description=input.description,
            command=input.command,
            url=input.url,
            environment=None if input.environment is None else _pairs(input.environment),
            headers=None if input.headers is None else _pairs(input.headers),
            protocol_version=... if input.protocol_version is strawberry.UNSET else input.protocol_version,
            stateless=input.stateless,
            timeout_seconds=input.timeout_seconds,
            check=input.check,
        )
        return _server(await servers.update_mcp_server(info.context.actor, _id(input), changes))

    @mutation(Permission.TOOLS_MANAGE)
    async def remove_mcp_server(info: Info, input: McpServerInput) -> McpServerPayload:
        """Take an MCP server away and erase its secrets. Sessions that had it still list it; their runs go without."""
        return _server(await servers.remove_mcp_server(info.context.actor, _id(input)))

    @mutation(Permission.TOOLS_MANAGE)
    async def check_mcp_server(info: Info, input: McpServerInput) -> McpServerPayload:
        """Connect to an MCP server and list its tools. A failure is no error of the mutation: see `checkError`."""
        return _server(await servers.check_mcp_server(info.context.actor, _id(input)))


def _tool(stored: dict[str, Any]) -> McpTool:
    hints = stored["annotations"]
    read_only = hints.get("readOnlyHint") is True
    return McpTool(
        name=stored["name"],
        title=stored["title"],
        description=stored["description"],
        input_schema=stored["inputSchema"],
        output_schema=stored["outputSchema"],
        read_only=read_only,
        destructive=not read_only and hints.get("destructiveHint") is not False,
    )


def _server(row: Any) -> McpServerPayload:
    return McpServerPayload(mcp_server=row)


def _id(input: Any) -> Any:
    return decode("mcp", input.mcp_server_id, field="mcpServerId")


def _pairs(given: list[SecretInput]) -> list[tuple[str, str]]:
    return [(pair.name, pair.value) for pair in given]
