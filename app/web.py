"""The web application: the graph, and the doors beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from app.graphql.http import GraphQLOverHttp
from app.graphql.page import STATIC
from app.graphql.websocket import GraphQLOverWebSocket
from app.http import dashboard, files, otlp, reports, sign_in, templates
from app.http.metrics import Metrics
from app.http.traffic import Counted
from app.wiring import Program, connected, serving
from core import db
from core.settings import Settings
from schema.build import served_schema
from schema.execution import Graph
from schema.streams import Live

# A full pool or a stuck database is not ready either; who asks does not wait long.
READY_SECONDS = 2.0

GRAPHQL_PATH = "/graphql"


class WebApp:
    """The ASGI application: the graph's endpoint, and a Starlette application with everything beside it.

    Requests to the graph go to its endpoint directly. Those of other origins pass Starlette's middleware first, which
    says what they may read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        schema = served_schema()
        self.graph = Graph(schema, settings)
        self.live = Live(self.graph, schema)
        self.metrics = Metrics(self.graph, self.live, settings)
        self._over_http = GraphQLOverHttp(self.graph, self.live, self.metrics.traffic)
        self._over_websocket = GraphQLOverWebSocket(self.graph, self.live, self.metrics.traffic)
        self._beside = _beside(settings, self._over_http, self.metrics)
        self._other_origins = bool(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http" and scope["path"] == GRAPHQL_PATH and not (self._other_origins and _has_origin(scope)):
            await self._over_http(scope, receive, send)
        elif kind == "websocket" and scope["path"] == GRAPHQL_PATH:
            await self._over_websocket(scope, receive, send)
        else:
            await self._beside(scope, receive, send)


def _has_origin(scope: Scope) -> bool:
    return any(name == b"origin" for name, _ in scope["headers"])


def _beside(settings: Settings, over_http: ASGIApp, metrics: Metrics) -> Starlette:
    routes: list[BaseRoute] = [
        Route(GRAPHQL_PATH, over_http),
        Route("/", _home),
        Route("/healthz", _alive),
        Route("/readyz", _ready),
        Route("/metrics", metrics.answer),
        *sign_in.routes,
        *files.routes,
        *dashboard.routes,
        *templates.routes,
        *otlp.routes(),
        *reports.routes,
        Mount("/static", _Static(directory=STATIC), middleware=[Middleware(GZipMiddleware, compresslevel=6)]),
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
    return Starlette(routes=routes, middleware=middleware)


@asynccontextmanager
async def connecting(
    app: WebApp, database_url: str, *, also: Callable[[Program], AbstractAsyncContextManager[None]] | None = None
) -> AsyncIterator[None]:
    """The process is connected while it serves; `also` runs beside it (a worker, for development)."""
    async with connected(app.settings, database_url) as program, serving(program), app.metrics.watching():
        if also is None:
            yield
        else:
            async with also(program):
                yield


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
