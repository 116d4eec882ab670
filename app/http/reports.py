"""Downloads of reports by signed link. The link is the credential: it needs no cookie and no token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.http.files import HEADERS, attachment, by_link
from services.reports.downloads import ReportDownload, open_report


async def download(request: Request) -> Response:
    """GET /reports/{token}"""
    return await by_link(request, open_report, _answer)


def _answer(found: ReportDownload) -> Response:
    headers = {**HEADERS, "Content-Length": str(found.size), "Content-Disposition": attachment(found.name)}
    return StreamingResponse(found.pieces, media_type=found.media_type, headers=headers)


routes: list[BaseRoute] = [Route("/reports/{token}", download, methods=["GET"])]
