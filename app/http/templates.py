"""What of session templates is beside the graph: the schema of their files, and downloads of bundles by signed link."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from app.http.credentials import origin_of_request
from app.http.files import HEADERS, STATUS, attachment
from core.errors import QuarterdeckError
from services.templates.bundles import open_bundle
from services.templates.files import json_schema_text


async def schema(request: Request) -> Response:
    """GET /schemas/session-template.v1.json: for everybody, since editors fetch it without credentials."""
    return Response(
        json_schema_text(),
        media_type="application/schema+json",
        headers={
            "Access-Control-Allow-Origin": "*",
            "Cache-Control": "public, max-age=300",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def bundle(request: Request) -> Response:
    """GET /template-bundles/{token}"""
    if request.method != "GET":
        # Looking at the headers would count as a download in the audit log.
        return PlainTextResponse("Download this by GET.", 405, {**HEADERS, "Allow": "GET"})
    origin = origin_of_request(request.headers, request.client.host if request.client else None)
    try:
        name, content = await open_bundle(request.path_params["token"], origin)
    except QuarterdeckError as error:
        return PlainTextResponse(error.message, STATUS.get(error.code, 400), HEADERS)
    return Response(
        content,
        media_type="application/octet-stream",
        headers={**HEADERS, "Content-Disposition": attachment(name)},
    )


routes: list[BaseRoute] = [
    Route("/schemas/session-template.v1.json", schema, methods=["GET"]),
    Route("/template-bundles/{token}", bundle, methods=["GET"]),
]
