"""The stdio transport of MCP: a confined process that is trusted with nothing.

Lines are bounded, nonsense and floods end the process, and so does leaving the context, whatever
state it is in. The SDK's own transport inherits variables of the service and reads lines without end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from types import TracebackType

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from core import processes
from integrations.mcp.base import FaultKind, McpUnavailable
from integrations.sandbox.base import SandboxedCommand

log = logging.getLogger(__name__)

MAX_NONSENSE_LINES = 50
"""Servers that print a banner or a log line to stdout are common; more than this is not MCP."""
MAX_MESSAGES_PER_WINDOW = 20_000
_WINDOW_SECONDS = 10.0
_STDERR_TAIL_BYTES = 4096
_STOP_GRACE_SECONDS = 1.0

Streams = tuple[
    MemoryObjectReceiveStream[SessionMessage | Exception],
    MemoryObjectSendStream[SessionMessage],
]


class StdioTransport:
    """Async context manager that starts a server and yields the SDK's pair of message streams."""

    def __init__(self, command: SandboxedCommand, *, max_line_bytes: int) -> None:
        self._command = command
        self._max_line_bytes = max_line_bytes
        self._stderr: deque[bytes] = deque()
        self._nonsense = 0
        self._window_start = 0.0
        self._window_messages = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.fault: tuple[FaultKind, str] | None = None
        """Why the connection ended, once it did of its own accord."""

    async def __aenter__(self) -> Streams:
        try:
            self._process = await processes.spawn(
                self._command.argv,
                environment=self._command.environment,
                directory=self._command.directory,
                stdin=True,
            )
        except OSError as error:
            raise McpUnavailable("server_died", f"The server cannot be started: {error.strerror}.") from error
        self._incoming, reader = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        writer, self._outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        self._tasks = [asyncio.create_task(part) for part in (self._read(), self._write(), self._read_stderr())]
        return reader, writer

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        with anyio.CancelScope(shield=True):
            stdin = self._process.stdin
            assert stdin is not None
            with suppress(OSError):
                stdin.close()
            try:
                # MCP asks to close stdin and to wait before signals; a healthy server is gone at once.
                with anyio.move_on_after(_STOP_GRACE_SECONDS):
                    await processes.exited(self._process)
            finally:
                await processes.end(self._process)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._incoming.close()
            self._outgoing.close()

    def last_words(self) -> str:
        """The end of what the server wrote to stderr: for error messages."""
        return b"".join(self._stderr)[-_STDERR_TAIL_BYTES:].decode(errors="replace").strip()

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        buffer = bytearray()
        try:
            while chunk := await stdout.read(65536):
                *lines, rest = chunk.split(b"\n")
                if lines:
                    lines[0] = bytes(buffer) + lines[0]
                    buffer.clear()
                buffer += rest
                if any(len(line) > self._max_line_bytes for line in (*lines, buffer)):
                    raise _FaultError(
                        "too_large",
                        f"The server sent a message of more than {self._max_line_bytes} bytes.",
                    )
                for line in lines:
                    await self._deliver(line)
            # The exit status arrives a moment after the pipe's end.
            with anyio.move_on_after(0.5):
                await processes.exited(self._process)
            code = self._process.returncode
            self._fail(
                "server_died",
                "The server closed its output." if code is None else _died(code),
            )
        except _FaultError as fault:
            self._fail(fault.kind, str(fault))
            await processes.end(self._process)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the client is gone; leaving the context ends the process
        finally:
            self._incoming.close()

    async def _deliver(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError:
            self._nonsense += 1
            log.debug("an MCP server wrote a line that is no JSON-RPC message")
            if self._nonsense > MAX_NONSENSE_LINES:
                raise _FaultError("protocol", "The server writes to stdout what is not MCP.") from None
            return
        now = time.monotonic()
        if now - self._window_start > _WINDOW_SECONDS:
            self._window_start, self._window_messages = now, 0
        self._window_messages += 1
        if self._window_messages > MAX_MESSAGES_PER_WINDOW:
            raise _FaultError(
                "protocol",
                f"The server floods: over {MAX_MESSAGES_PER_WINDOW} messages in seconds.",
            )
        await self._incoming.send(SessionMessage(message))

    async def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            async for message in self._outgoing:
                stdin.write(message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await stdin.drain()
        except (OSError, anyio.ClosedResourceError):
            pass  # the reader sees the end of the process and says so

    async def _read_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        kept = 0
        while chunk := await stderr.read(4096):
            self._stderr.append(chunk)
            kept += len(chunk)
            while kept - len(self._stderr[0]) >= _STDERR_TAIL_BYTES:
                kept -= len(self._stderr.popleft())

    def _fail(self, kind: FaultKind, message: str) -> None:
        if not self._stopping and self.fault is None:
            words = self.last_words()
            nonsense = f" It had written {self._nonsense} lines that are not MCP." if self._nonsense else ""
            self.fault = (
                kind,
                message + nonsense + (f" Its last words: {words[-1000:]}" if words else ""),
            )


class _FaultError(Exception):
    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _died(code: int) -> str:
    return f"The server was killed by signal {-code}." if code < 0 else f"The server exited with status {code}."
