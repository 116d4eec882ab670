"""The web application: the graph, and the doors beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from app.graphql.http import GraphQLOverHttp
from app.graphql.page import STATIC
from app.graphql.websocket import graphql_over_websocket
from app.http import files, sign_in
from app.http.metrics import Counted, Metrics
from app.wiring import Program, connected, serving
from core import db
from core.settings import Settings
from schema.build import build_schema, core_schema
from schema.execution import Graph

# A full pool or a stuck database is not ready either; who asks does not wait long.
READY_SECONDS = 2.0

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def web_app(settings: Settings, lifespan: Lifespan | None = None) -> Starlette:
    """The ASGI application. `lifespan` connects the process; without one it is connected already."""
    graph = Graph(core_schema(build_schema()), settings)
    over_http = GraphQLOverHttp(graph)
    metrics = Metrics(graph, settings)

    async def over_websocket(websocket: WebSocket) -> None:
        await graphql_over_websocket(websocket, graph)

    routes: list[BaseRoute] = [
        Route("/graphql", over_http.__call__, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", over_websocket),
        Route("/", _home),
        Route("/healthz", _alive),
        Route("/readyz", _ready),
        Route("/metrics", metrics.answer),
        *sign_in.routes,
        *files.routes,
        Mount("/static", _Static(directory=STATIC)),
    ]
    middleware = [Middleware(Counted, traffic=metrics.traffic)]
    if settings.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.allowed_origins),
                allow_credentials=True,
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-quarterdeck-csrf"],
            )
        )
    app = Starlette(routes=routes, middleware=middleware, lifespan=lifespan)
    app.state.metrics = metrics
    return app


def connecting(
    settings: Settings, database_url: str, *, also: Callable[[Program], AbstractAsyncContextManager[None]] | None = None
) -> Lifespan:
    """A lifespan that connects the process while it serves; `also` runs beside it (a worker, for development)."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with connected(settings, database_url) as program, serving(program), app.state.metrics.watching():
            if also is None:
                yield
            else:
                async with also(program):
                    yield

    return lifespan


class _Static(StaticFiles):
    """Files with a hash in their name never need to be asked for again."""

    def file_response(self, *args, **kwargs) -> Response:  # type: ignore[no-untyped-def]
        response = super().file_response(*args, **kwargs)
        hashed = "/assets/" in str(args[0])
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response


async def _home(request: Request) -> Response:
    return RedirectResponse("/graphql")


async def _alive(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def _ready(request: Request) -> Response:
    """Whether operations can be answered now: the database answers. The bus may be away; streams catch up."""
    from services.parts import parts

    checks: dict[str, dict[str, object]] = {}
    try:
        async with asyncio.timeout(READY_SECONDS):
            checks["database"] = {"ok": True, "milliseconds": round(await db.ping() * 1000, 1)}
    except Exception as error:
        checks["database"] = {"ok": False, "problem": type(error).__name__}
    bus = parts().bus.status()
    checks["bus"] = {"ok": bus.connected, "reconnects": bus.reconnects}
    ready = bool(checks["database"]["ok"])
    return Response(
        orjson.dumps({"status": "ok" if ready else "unavailable", "checks": checks}),
        200 if ready else 503,
        media_type="application/json",
    )
