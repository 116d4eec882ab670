"""`/v1/traces` and `/v1/metrics`: telemetry of agents that run elsewhere, by OTLP over HTTP.

Source: the OpenTelemetry Protocol specification 1.9, "OTLP/HTTP": requests, answers, failures, partial success.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.http.credentials import actor_of_request, origin_of_request
from core.errors import ErrorCode, QuarterdeckError, new_error_id
from core.permissions import Actor, Permission
from integrations.otlp import wire
from integrations.otlp.base import MalformedTelemetry, TooMuchTelemetry
from services.metrics.otlp import spans
from services.metrics.otlp.receiving import receive_points, receive_spans

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024 * 1024
"""Of a request, as it comes and as it is unpacked."""
MOST_BYTES_OF_JSON = 4 * 1024 * 1024
"""Takes many times as long to read."""
MOST_AT_ONCE = 4
"""Requests that a process works on."""
MOST_INSIDE = 64
"""Requests that are being sent, wait, or are worked on."""
MOST_HELD = 128 * 1024 * 1024
"""Bytes of those."""
SHARE = 2
"""One organisation has at most this part of each: a half."""
PATIENCE_SECONDS = 30.0

# Codes of gRPC, which the failures of OTLP are told in.
_INVALID_ARGUMENT, _PERMISSION_DENIED, _RESOURCE_EXHAUSTED = 3, 7, 8
_INTERNAL, _UNAVAILABLE, _UNAUTHENTICATED = 13, 14, 16
_FAILURES = {
    ErrorCode.FORBIDDEN: (403, _PERMISSION_DENIED),
    ErrorCode.UNAVAILABLE: (503, _UNAVAILABLE),
    ErrorCode.RATE_LIMITED: (429, _RESOURCE_EXHAUSTED),
}

Take = Callable[[Actor, bytes, str], Awaitable[Message]]


class _Refused(Exception):
    """The request is answered with this status, a code of gRPC, and the message."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Door:
    """One path. A process works on a few requests at a time; the others wait, or are told to come again."""

    def __init__(self, take: Take, room: _Room) -> None:
        self._take, self._room = take, room

    async def __call__(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        answer_kind = kind if kind in (wire.JSON, wire.PROTOBUF) else wire.JSON
        try:
            if kind != answer_kind:
                raise _Refused(
                    415, _INVALID_ARGUMENT, f"Send it as {wire.PROTOBUF} or {wire.JSON}, and say so in Content-Type."
                )
            actor = await _actor(request)
            actor.require(Permission.METRICS_INGEST)
            # Whoever sends slowly takes nobody's turn.
            with self._room.inside(actor.organization_id) as hold:
                packed = await _body(request, hold)
                async with self._room.turn(actor.organization_id):
                    answer = await self._take(actor, await _unpacked(request, packed, kind), kind)
        except _Refused as refused:
            return _failure(refused.status, refused.code, refused.message, answer_kind)
        except TooMuchTelemetry as problem:
            return _failure(413, _INVALID_ARGUMENT, str(problem), answer_kind)
        except MalformedTelemetry as problem:
            return _failure(400, _INVALID_ARGUMENT, str(problem), answer_kind)
        except QuarterdeckError as error:
            status, code = _FAILURES.get(error.code, (400, _INVALID_ARGUMENT))
            return _failure(status, code, error.message, answer_kind)
        except (ClientDisconnect, asyncio.CancelledError):
            raise
        except Exception:
            error_id = new_error_id()
            logger.exception("Telemetry could not be taken (%s).", error_id)
            # What failed here may work in a moment, and a repetition is harmless.
            return _failure(503, _INTERNAL, f"It could not be stored ({error_id}); send it again.", answer_kind)
        return Response(wire.written(answer, kind), media_type=kind)


Hold = Callable[[int], None]
"""Counts bytes that have come; raises where there are too many."""


class _Room:
    """As many requests as one process should take in and work on, and a share of that for each organisation."""

    def __init__(self) -> None:
        self._working = asyncio.Semaphore(MOST_AT_ONCE)
        self._turns: dict[UUID, asyncio.Semaphore] = {}
        self._inside: Counter[UUID] = Counter()
        self._held: Counter[UUID] = Counter()

    @contextmanager
    def inside(self, organization_id: UUID) -> Iterator[Hold]:
        """A place for a request until it is answered; gives what counts its bytes. Raises _Refused."""
        self._take(self._inside, organization_id, 1, MOST_INSIDE)
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self._take(self._held, organization_id, size, MOST_HELD)
            held += size

        try:
            yield hold
        finally:
            self._inside[organization_id] -= 1
            self._held[organization_id] -= held
            if not self._inside[organization_id]:
                del self._inside[organization_id], self._held[organization_id]
                self._turns.pop(organization_id, None)

    @asynccontextmanager
    async def turn(self, organization_id: UUID) -> AsyncIterator[None]:
        """Wait until there is time for one more of the organisation's requests."""
        own = self._turns.setdefault(organization_id, asyncio.Semaphore(MOST_AT_ONCE // SHARE))
        async with own, self._working:
            yield

    @staticmethod
    def _take(counts: Counter[UUID], organization_id: UUID, number: int, most: int) -> None:
        if counts[organization_id] + number > most // SHARE or counts.total() + number > most:
            raise _Refused(429, _RESOURCE_EXHAUSTED, "Too much telemetry comes at once; send it again in a moment.")
        counts[organization_id] += number


def routes() -> list[BaseRoute]:
    """The paths that exporters send to, below the address that OTEL_EXPORTER_OTLP_ENDPOINT has."""
    room = _Room()
    return [
        Route("/v1/traces", _Door(_take_spans, room).__call__, methods=["POST"]),
        Route("/v1/metrics", _Door(_take_points, room).__call__, methods=["POST"]),
    ]


async def _take_spans(actor: Actor, body: bytes, kind: str) -> Message:
    read = await asyncio.to_thread(wire.read_spans, body, kind, spans.WANTED)
    receipt = await receive_spans(actor, read)
    return wire.answer_to_spans(receipt.rejected, receipt.message)


async def _take_points(actor: Actor, body: bytes, kind: str) -> Message:
    read = await asyncio.to_thread(wire.read_points, body, kind)
    receipt = await receive_points(actor, read)
    return wire.answer_to_points(receipt.rejected, receipt.message)


async def _actor(request: Request) -> Actor:
    headers = request.headers
    origin = origin_of_request(headers, request.client.host if request.client else None)
    # By token alone: a browser's cookie has nothing to do here.
    if "authorization" in headers:
        actor, _ = await actor_of_request({"authorization": headers["authorization"]}, origin)
        if actor is not None:
            return actor
    raise _Refused(
        401,
        _UNAUTHENTICATED,
        "Send an access token that has METRICS_INGEST: OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20TOKEN",
    )


async def _body(request: Request, hold: Hold) -> bytes:
    """As it comes."""
    if _encoding(request) not in ("identity", "gzip", "deflate"):
        raise _Refused(415, _INVALID_ARGUMENT, "Content-Encoding is gzip, deflate, or none.")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    raise _too_large(MOST_BYTES)
                hold(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise _Refused(408, _UNAVAILABLE, "The request came too slowly.") from None
    return b"".join(chunks)


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


async def _unpacked(request: Request, packed: bytes, kind: str) -> bytes:
    most = MOST_BYTES_OF_JSON if kind == wire.JSON else MOST_BYTES
    if _encoding(request) != "identity":
        return await asyncio.to_thread(_unpack, packed, most)
    if len(packed) > most:
        raise _too_large(most)
    return packed


def _unpack(packed: bytes, most: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        body = unpacking.decompress(packed, most + 1)
    except zlib.error:
        raise _Refused(400, _INVALID_ARGUMENT, "The request is not compressed as Content-Encoding says.") from None
    if len(body) > most:
        raise _too_large(most)
    if not unpacking.eof:
        raise _Refused(400, _INVALID_ARGUMENT, "The compressed request ends too early.")
    return body


def _too_large(most: int) -> _Refused:
    return _Refused(413, _INVALID_ARGUMENT, f"A request has at most {most} bytes: send smaller batches.")


def _failure(status: int, code: int, message: str, kind: str) -> Response:
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(wire.failure(code, message, kind), status, headers, media_type=kind)
