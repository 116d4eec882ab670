"""Running the web application with uvicorn."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from contextlib import AbstractAsyncContextManager

import uvicorn
from starlette.types import ASGIApp

from app.graphql.frames import WebSocketProtocol
from core.errors import Unavailable
from core.settings import Settings

# uvicorn closes what is open after this long when it is told to stop; streams resume elsewhere.
GRACE_SECONDS = 5


def server_for(app: ASGIApp, settings: Settings) -> uvicorn.Server:
    """A uvicorn server for the application, with uvloop and httptools where they are."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws=WebSocketProtocol,
        # Frames are shared by many sockets, and a compressor for each would take more memory than all the rest of it.
        ws_per_message_deflate=False,
        ws_max_size=2_000_000,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=75,
        lifespan="on",
        # Anybody can write these headers: only what the operator names is believed.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )
    return uvicorn.Server(config)


def serve(server: uvicorn.Server, listener: socket.socket, around: AbstractAsyncContextManager[None]) -> None:
    """Serve, within the context, until SIGTERM or SIGINT.

    Errors of the context are raised as they are: as the application's lifespan, uvicorn would print them at length.
    """

    async def run() -> None:
        async with around:
            # uvicorn raises what stopped it once more when it has closed everything; the context is yet to end.
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda *_: None)
            await server.serve(sockets=[listener])
            if not server.started:
                raise Unavailable("The server did not start; the lines above say why.")

    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(run())


def listen(settings: Settings) -> socket.socket:
    """The listening socket, bound before anything slow is started. Raises Unavailable where the port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another with PORT=…"
        ) from None
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def tune_memory() -> None:
    """What lives as long as the process is not worth looking through at every collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
