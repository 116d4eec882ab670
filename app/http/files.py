"""Downloads of sessions' files by signed link. The link is the credential: it needs no cookie and no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from app.http.credentials import origin_of_request
from core.errors import ErrorCode, QuarterdeckError
from core.permissions import Origin
from services.workspace import Download, open_download

T = TypeVar("T")

_CHUNK = 256 * 1024
STATUS = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.CONFLICT: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.UNAVAILABLE: 503,
}

# What tools and other people write may be a page with scripts: no browser shall open it as one of ours.
HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def download(request: Request) -> Response:
    """GET /files/{token}"""
    return await by_link(request, open_download, _Attachment)


async def by_link(
    request: Request, open_: Callable[[str, Origin], Awaitable[T]], answer: Callable[[T], Response]
) -> Response:
    """What a signed link stands for: opened by its token, and answered with; where it is not good, why."""
    if request.method != "GET":
        # Looking at the headers would count as a download in the audit log.
        return PlainTextResponse("Download this by GET.", 405, {**HEADERS, "Allow": "GET"})
    origin = origin_of_request(request.headers, request.client.host if request.client else None)
    try:
        found = await open_(request.path_params["token"], origin)
    except QuarterdeckError as error:
        return PlainTextResponse(error.message, STATUS.get(error.code, 400), HEADERS)
    return answer(found)


def attachment(name: str) -> str:
    """Content-Disposition of a file to be saved. RFC 6266: the encoded form alone, which needs no quoting of what the
    name may have."""
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"


routes: list[BaseRoute] = [Route("/files/{token}", download, methods=["GET"])]


class _Attachment(StreamingResponse):
    """A file to be saved, closed however the sending ends."""

    def __init__(self, found: Download) -> None:
        super().__init__(
            _chunks(found),
            media_type="application/octet-stream",
            headers={
                **HEADERS,
                "Content-Length": str(found.size),
                "Content-Disposition": attachment(found.name),
            },
        )
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._found.file.close()


async def _chunks(found: Download) -> AsyncIterator[bytes]:
    """Exactly as many bytes as were promised. A file that has shrunk ends early, and the server cuts the connection,
    so that nobody takes a part for the whole."""
    left = found.size
    while left > 0:
        chunk = await asyncio.to_thread(found.file.read, min(left, _CHUNK))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
