"""One living connection to an MCP server, owned by a task of its own.

The SDK's client must be entered and left by the same task, while calls come from many and any of
them may be cancelled: so a task holds it open until it is told to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import mcp_types as types
from mcp.client import Client, ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import FileUrl, ValidationError

from core import net
from core.errors import BadInput, QuarterdeckError
from core.processes import to_the_end
from integrations.agents.base import McpServerSpec
from integrations.http_guard import guarded_client
from integrations.mcp.base import FaultKind
from integrations.mcp.stdio import StdioTransport

T = TypeVar("T")

_WE_ARE = types.Implementation(name="quarterdeck", version="0.1.0")
_MOST_TOOLS_PAGES = 50


class HttpTransport:
    """The SDK's streamable HTTP over a guarded client; remembers what an HTTP server answered last."""

    def __init__(self, spec: McpServerSpec, *, allow_private: bool, max_bytes: int) -> None:
        self._spec = spec
        self._allow_private = allow_private
        self._max_bytes = max_bytes
        self._context: AbstractAsyncContextManager[Any] | None = None
        self.refused: int | None = None
        """Status of the last answer, where it was an error."""

    async def __aenter__(self) -> Any:
        self._context = self._open()
        return await self._context.__aenter__()

    async def __aexit__(self, *error: object) -> bool | None:
        assert self._context is not None
        return await self._context.__aexit__(*error)  # type: ignore[arg-type]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Any]:
        if self._spec.url is None:
            raise BadInput(f"The MCP server {self._spec.name!r} has no URL.")
        net.check_url(self._spec.url)
        client = guarded_client(
            headers=self._spec.headers,
            timeout_seconds=max(self._spec.timeout_seconds, 300.0),
            allow_private=self._allow_private,
            max_bytes=self._max_bytes,
            event_streams=True,
        )
        client.event_hooks = {"response": [self._note]}
        async with (
            client,
            streamable_http_client(self._spec.url, http_client=client, max_sse_event_size=self._max_bytes) as streams,
        ):
            yield streams

    async def _note(self, response: httpx2.Response) -> None:
        self.refused = response.status_code if response.status_code >= 400 else None


class Connection:
    """A connection to one server. `open` once, then `use` from any task, then `retire` or `close`."""

    client: Client

    def __init__(
        self,
        spec: McpServerSpec,
        transport: StdioTransport | HttpTransport,
        workspace: Path,
    ) -> None:
        self._spec = spec
        self._transport = transport
        self._workspace = workspace
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._in_use = 0
        self._retired = False
        self.tools_changed = False

    async def open(self) -> None:
        """Connect and agree on a version; raises what went wrong (`explain` puts it into words)."""
        self._task = asyncio.create_task(self._hold(), name=f"mcp {self._spec.name}")
        await asyncio.shield(self._ready)

    async def use(self, call: Callable[[Client], Awaitable[T]]) -> T:
        """Run one request; counts as use until it is over."""
        self._in_use += 1
        try:
            return await call(self.client)
        finally:
            self._in_use -= 1
            if self._in_use == 0 and self._retired:
                self._stop.set()

    @property
    def broken(self) -> bool:
        """It serves no more calls."""
        if self._task is None or self._task.done() or self._retired:
            return True
        return isinstance(self._transport, StdioTransport) and self._transport.fault is not None

    @property
    def ended(self) -> bool:
        """Nothing of it is left."""
        return self._task is None or self._task.done()

    def retire(self) -> None:
        """Take no more calls; end when those of others are done."""
        self._retired = True
        if self._in_use == 0:
            self._stop.set()

    async def close(self) -> None:
        """End it now, with its process. Calls in it fail as if the server had died."""
        self._retired = True
        self._stop.set()
        if self._task is not None:
            if not self._ready.done():
                self._task.cancel()
            await to_the_end(self._ended(self._task))

    async def all_tools(self, client: Client) -> list[types.Tool]:
        """Every page of the server's tools."""
        tools: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_TOOLS_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        return tools

    def explain(self, error: BaseException) -> tuple[FaultKind, str]:
        """What kind of fault this is, and words for the session's users."""
        if isinstance(self._transport, StdioTransport):
            if self._transport.fault is not None:
                return self._transport.fault
        elif self._transport.refused is not None:
            return (
                "protocol",
                f"it answered with HTTP status {self._transport.refused}.",
            )
        error = _innermost(self._error or error)
        if isinstance(error, QuarterdeckError):
            return "server_died", error.message
        if isinstance(error, httpx2.HTTPError):
            return (
                "server_died",
                f"it cannot be reached: {error or type(error).__name__}",
            )
        if isinstance(error, MCPError):
            return ("server_died" if error.code == CONNECTION_CLOSED else "protocol"), error.message[:2000]
        if isinstance(error, ValidationError):
            return "protocol", "its answer is not what the protocol asks for."
        return (
            "protocol",
            f"its answer makes no sense: {str(error)[:500] or type(error).__name__}",
        )

    def last_words(self) -> str:
        """The end of what a stdio server wrote to stderr."""
        return self._transport.last_words()[-1000:] if isinstance(self._transport, StdioTransport) else ""

    @staticmethod
    async def _ended(task: asyncio.Task[None]) -> None:
        await asyncio.wait([task])

    async def _hold(self) -> None:
        try:
            async with Client(
                self._transport,
                # A pinned modern version is discovered too: adopting it blindly would hide what the server is.
                mode="auto" if self._spec.protocol_version in (None, *MODERN_PROTOCOL_VERSIONS) else "legacy",
                client_info=_WE_ARE,
                list_roots_callback=self._roots,
                message_handler=self._on_message,
                cache=None,
            ) as client:
                pinned = self._spec.protocol_version
                if pinned is not None and client.protocol_version != pinned:
                    raise BadInput(f"it speaks MCP {client.protocol_version}, not {pinned} as registered.")
                self.client = client
                self._ready.set_result(None)
                await self._stop.wait()
        except BaseException as error:
            self._error = error
            if not self._ready.done():
                self._ready.set_exception(_innermost(error))
                self._ready.exception()  # whoever waited may have been cancelled meanwhile
            if not isinstance(error, Exception):
                raise

    async def _roots(self, context: ClientRequestContext) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=FileUrl(self._workspace.as_uri()), name="workspace")])

    async def _on_message(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.tools_changed = True


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
