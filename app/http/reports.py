"""Downloads of reports by signed link. The link is the credential: it needs no cookie and no token."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.http.credentials import origin_of_request
from app.http.files import HEADERS, STATUS
from core.errors import QuarterdeckError
from services.reports.downloads import open_report


async def download(request: Request) -> Response:
    """GET /reports/{token}"""
    if request.method != "GET":
        # Looking at the headers would count as a download in the audit log.
        return PlainTextResponse("Download this by GET.", 405, {**HEADERS, "Allow": "GET"})
    origin = origin_of_request(request.headers, request.client.host if request.client else None)
    try:
        found = await open_report(request.path_params["token"], origin)
    except QuarterdeckError as error:
        return PlainTextResponse(error.message, STATUS.get(error.code, 400), HEADERS)
    return StreamingResponse(
        found.pieces,
        media_type=found.media_type,
        headers={
            **HEADERS,
            "Content-Length": str(found.size),
            # RFC 6266: the encoded form alone, which needs no quoting of what the name may have.
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        },
    )


routes: list[BaseRoute] = [Route("/reports/{token}", download, methods=["GET"])]
