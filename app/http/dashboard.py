"""A page with the usual figures for whoever is signed in, and the charts on it, drawn here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from app.http.credentials import actor_of_request, origin_of_request
from core.errors import BadInput, ErrorCode, QuarterdeckError
from core.permissions import Actor, Permission, signed_in
from integrations import charts
from services.metrics.calendar import BucketName, RangeName
from services.metrics.charts import ChartKind, chart
from services.metrics.questions import Compare, Question
from services.metrics.series import series

_PAGE = Path(__file__).with_name("pages") / "dashboard.html"
_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNAVAILABLE: 503,
}
_HEADERS = {
    "Cache-Control": "private, no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# An image that somebody opens by itself shall do nothing.
_IMAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
E = TypeVar("E", bound=StrEnum)


async def show_page(request: Request) -> Response:
    """GET /dashboard"""
    if await _actor(request) is None:
        return RedirectResponse("/sign-in?next=%2Fdashboard", 303, _HEADERS)
    return FileResponse(_PAGE, headers={**_HEADERS, "Content-Security-Policy": _PAGE_POLICY})


async def draw_chart(request: Request) -> Response:
    """GET /dashboard/chart.svg?metric=…&range=…: what the graph's `metricChart` specifies, drawn."""
    try:
        actor = signed_in(await _actor(request))
        actor.require(Permission.METRICS_READ)
        asked = _question(request.query_params)
        kind = _one_of(ChartKind, request.query_params, "kind") or ChartKind.AUTO
        drawn = await charts.svg(chart(await series(actor, asked), width=560, height=220, kind=kind))
    except QuarterdeckError as error:
        body = {"message": error.message, "extensions": error.extensions()}
        return JSONResponse(body, _STATUS.get(error.code, 400), _HEADERS)
    return Response(drawn, media_type="image/svg+xml", headers={**_HEADERS, "Content-Security-Policy": _IMAGE_POLICY})


routes: list[BaseRoute] = [
    Route("/dashboard", show_page, methods=["GET"]),
    Route("/dashboard/chart.svg", draw_chart, methods=["GET"]),
]


def _question(given: QueryParams) -> Question:
    top = given.get("top")
    if top is not None and not (top.isascii() and top.isdigit() and len(top) < 4):
        raise BadInput("`top` is a whole number.", field="top")
    return Question(
        metric=given.get("metric", ""),
        range=_one_of(RangeName, given, "range") or RangeName.LAST_24_HOURS,
        bucket=_one_of(BucketName, given, "bucket"),
        timezone=given.get("timezone", "UTC"),
        group_by=tuple(given.getlist("groupBy")),
        top=None if top is None else int(top),
        compare=_one_of(Compare, given, "compare") or Compare.NONE,
    )


def _one_of(kind: type[E], given: QueryParams, name: str) -> E | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise BadInput(f"`{name}` is one of {', '.join(kind)}.", field=name) from None


async def _actor(request: Request) -> Actor | None:
    origin = origin_of_request(request.headers, request.client.host if request.client else None)
    return (await actor_of_request(request.headers, origin))[0]
