"""`/graphql` over HTTP: operations by POST (and GET with a token), subscriptions as server-sent events.

Sources: GraphQL over HTTP (stage 2 draft); the GraphQL over SSE protocol, distinct connections mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.graphql.operations import SEND_SECONDS, as_json, failure, results
from app.graphql.page import graphiql
from app.graphql.requests import EVENTS, GRAPHQL, HTML, JSON, HttpProblem, accepted, read_get, read_post
from app.http.credentials import Credential, actor_of_request, check_cookie_operation, origin_of_request
from core.errors import BadInput, ErrorCode, Forbidden, Unauthenticated
from core.permissions import Actor
from schema.context import Context
from schema.errors import as_graphql, formatted
from schema.execution import Body, Graph, Refused, Request
from services.identity.revocations import revocations

logger = logging.getLogger(__name__)

# Proxies close connections that say nothing; a comment a quarter of a minute keeps them open.
HEARTBEAT_SECONDS = 15.0
# A stream whose reader's access has ended says so, to whoever reads it this soon.
GOODBYE_SECONDS = 1.0


class GraphQLOverHttp:
    """The endpoint's handler for everything but WebSockets."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def __call__(self, request: HttpRequest) -> Response:
        if request.method not in ("GET", "POST"):
            errors = _errors(BadInput("Send operations by POST, or queries by GET."))
            return _json(405, {"errors": errors}, JSON, {"allow": "GET, POST"})
        media = accepted(request.headers.get("accept"), page=request.method == "GET")
        if media == HTML:
            return graphiql()
        if media is None:
            return _json(406, {"errors": _errors(BadInput(f"Accept one of {GRAPHQL}, {JSON} or {EVENTS}."))}, JSON)
        try:
            return await self._answer(request, media)
        except HttpProblem as problem:
            return _json(problem.status, problem.body, GRAPHQL if media == GRAPHQL else JSON, problem.headers)
        except ClientDisconnect:
            return Response()  # nobody reads it
        except Exception as error:
            return _failed(error, GRAPHQL if media == GRAPHQL else JSON)

    async def _answer(self, request: HttpRequest, media: str) -> Response:
        actor, credential = await _actor(request)
        parsed = await read_post(request) if request.method == "POST" else read_get(request)
        parsed = await self._graph.resolve(parsed, actor)
        if request.method != "POST":
            self._check_get(parsed, credential)
        context = Context(actor, origin_of_request(request.headers, _ip(request)))
        if media == EVENTS:
            return _EventStream(self._graph, parsed, context, actor)
        try:
            if self._graph.operation(parsed).operation is OperationType.QUERY:
                body = await self._unless_gone(request, parsed, context)
            else:
                # What has begun to change something is not left in the middle, whether or not its client waits.
                body = await self._graph.execute(parsed, context)
        except Refused as refused:
            # The older media type leaves the status to the transport: the request was understood and answered.
            return _json(400 if media == GRAPHQL else 200, refused.body, media)
        return _json(200, body, media)

    async def _unless_gone(self, request: HttpRequest, parsed: Request, context: Context) -> Body:
        """The response to a query; raises ClientDisconnect where the client has gone, and its reads are cancelled."""
        reading = asyncio.create_task(self._graph.execute(parsed, context))
        gone = asyncio.create_task(_disconnected(request.receive))
        try:
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise ClientDisconnect
            return reading.result()
        finally:
            await _cancelled(reading, gone)

    def _check_get(self, parsed: Request, credential: Credential | None) -> None:
        if credential == "cookie":
            raise HttpProblem(
                405,
                BadInput("With a cookie, operations come by POST: a link must not be able to ask in your name."),
                {"allow": "POST"},
            )
        try:
            operation = self._graph.operation(parsed)
        except Refused:
            return  # said by the execution
        if operation.operation is not OperationType.QUERY:
            raise HttpProblem(405, BadInput("By GET only queries can be made: send this by POST."), {"allow": "POST"})


async def _actor(request: HttpRequest) -> tuple[Actor | None, Credential | None]:
    actor, credential = await actor_of_request(request.headers, request.cookies, _ip(request))
    if credential == "bearer" and actor is None:
        raise HttpProblem(
            401,
            Unauthenticated("The access token is not valid: it is unknown, expired or revoked. Make a new one."),
            {"www-authenticate": 'Bearer error="invalid_token"'},
        )
    if credential == "cookie" and request.method == "POST":
        try:
            check_cookie_operation(request.headers)
        except Forbidden as error:
            raise HttpProblem(403, error) from None
    return actor, credential


class _EventStream(StreamingResponse):
    """The stream of one operation. It ends when its client leaves or no longer reads, or soon after access does."""

    def __init__(self, graph: Graph, parsed: Request, context: Context, actor: Actor | None) -> None:
        self._actor = actor
        self._revoked = asyncio.Event()
        self._events = _events(graph, parsed, context, self._revoked)
        super().__init__(
            self._events,
            media_type=EVENTS,
            headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_patiently(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        with _watch(self._actor) as revoked:
            streaming = asyncio.create_task(self.stream_response(send_patiently))
            gone = asyncio.create_task(_disconnected(receive))
            ended = asyncio.create_task(revoked.wait())
            try:
                await asyncio.wait({streaming, gone, ended}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    self._revoked.set()
                    await asyncio.wait({streaming, gone}, timeout=GOODBYE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if streaming.done():
                    streaming.result()
            except TimeoutError:
                logger.info("A stream was let go: its client did not read for %s seconds.", SEND_SECONDS)
            except OSError:
                pass  # the client has gone
            finally:
                await _cancelled(streaming, gone, ended)
                await self._events.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _events(
    graph: Graph, parsed: Request, context: Context, revoked: asyncio.Event
) -> AsyncGenerator[bytes, None]:
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
    yield b":\n\n"

    async def feed() -> None:
        try:
            async with aclosing(results(graph, parsed, context)) as found:
                async for body in found:
                    await queue.put(_event("next", body))
        except Refused as refused:
            await queue.put(_event("next", refused.body))
        await queue.put(None)

    feeding = asyncio.create_task(feed())
    ended = asyncio.create_task(revoked.wait())
    coming = asyncio.create_task(queue.get())
    try:
        while True:
            await asyncio.wait({coming, ended}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                chunk = coming.result()
                if chunk is None:
                    break
                coming = asyncio.create_task(queue.get())
                yield chunk
            elif ended.done():
                yield _event("next", {"errors": _errors(Unauthenticated("Your access has ended: sign in again."))})
                break
            else:
                yield b":\n\n"
        yield b"event: complete\ndata:\n\n"
    finally:
        await _cancelled(feeding, ended, coming)


def _watch(actor: Actor | None) -> AbstractContextManager[asyncio.Event]:
    return revocations.watch(actor) if actor is not None else nullcontext(asyncio.Event())


def _event(name: str, body: Body) -> bytes:
    try:
        data = as_json(body)
    except TypeError as error:
        data = as_json(failure(error))
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _json(status: int, body: Body, media: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        as_json(body),
        status,
        media_type=f"{media}; charset=utf-8",
        headers={"vary": "accept"} | (headers or {}),
    )


def _failed(error: Exception, media: str) -> Response:
    body = failure(error)
    away = body["errors"][0]["extensions"]["code"] == ErrorCode.UNAVAILABLE
    return _json(503 if away else 500, body, media)


def _errors(error: BadInput | Unauthenticated) -> list[dict[str, object]]:
    return formatted([as_graphql(error)])


def _ip(request: HttpRequest) -> str | None:
    return request.client.host if request.client else None
