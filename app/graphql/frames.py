"""WebSocket frames that are built once and written to many sockets.

Source: RFC 6455, section 5.2. uvicorn's protocol is told apart in the scope, so that a frame can go to its transport
without an ASGI message, a task and an encoding for each socket. Where another server runs us, nothing of this is there,
and messages go the usual way.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

EXTENSION = "quarterdeck.wire"


class Wire(Protocol):
    """A socket whose frames can be written directly."""

    def write(self, frames: bytes) -> bool:
        """Write at once; False, and nothing is written, where the socket has no room or is closing."""

    def abort(self) -> None:
        """End the connection without waiting for what is still to be sent."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which tells the application of its wire."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = _Wire(self)


class _Wire:
    __slots__ = ("_protocol",)

    def __init__(self, protocol: WebSocketProtocol) -> None:
        self._protocol = protocol

    def write(self, frames: bytes) -> bool:
        protocol = self._protocol
        if protocol.close_sent or protocol.disconnected or not protocol.writable.is_set():
            return False
        transport: asyncio.Transport = protocol.transport
        if transport.is_closing():
            return False
        transport.write(frames)
        return True

    def abort(self) -> None:
        self._protocol.transport.abort()


def text_frame(text: bytes) -> bytes:
    """A whole text message of a server: final, not masked, not compressed."""
    size = len(text)
    if size < 126:
        return bytes((0x81, size)) + text
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text
