"""A page with the usual figures for whoever is signed in. It is a client of the graph like any other."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from app.graphql.page import STATIC
from app.http.credentials import actor_of_request, origin_of_request

_HEADERS = {
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


async def show_page(request: Request) -> Response:
    """GET /dashboard; its parts are below /static/dashboard."""
    origin = origin_of_request(request.headers, request.client.host if request.client else None)
    actor, _ = await actor_of_request(request.headers, origin)
    if actor is None:
        return RedirectResponse("/sign-in?next=%2Fdashboard", 303, _HEADERS)
    page = STATIC / "dashboard" / "index.html"
    return FileResponse(page, headers={**_HEADERS, "Content-Security-Policy": _POLICY})


routes: list[BaseRoute] = [Route("/dashboard", show_page, methods=["GET"])]
