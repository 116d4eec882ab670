"""What of session templates is beside the graph: the schema of their files, and downloads of bundles by signed link."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.http.files import HEADERS, attachment, by_link
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
    return await by_link(request, open_bundle, _answer)


def _answer(found: tuple[str, bytes]) -> Response:
    name, content = found
    headers = {**HEADERS, "Content-Disposition": attachment(name)}
    return Response(content, media_type="application/octet-stream", headers=headers)


routes: list[BaseRoute] = [
    Route("/schemas/session-template.v1.json", schema, methods=["GET"]),
    Route("/template-bundles/{token}", bundle, methods=["GET"]),
]
