"""`/graphql` over HTTP: operations by POST (and GET with a token), subscriptions as server-sent events.

Sources: GraphQL over HTTP (stage 2 draft); the GraphQL over SSE protocol, distinct connections mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from typing import Any

import orjson
from graphql import OperationType
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from app.graphql.page import graphiql
from app.graphql.requests import EVENTS, GRAPHQL, HTML, JSON, HttpProblem, accepted, read_get, read_post
from app.http.credentials import Credential, actor_of_request, check_cookie_operation, origin_of_request
from core.errors import BadInput, Forbidden, Unauthenticated
from core.permissions import Actor
from schema.context import Context
from schema.errors import as_graphql, formatted
from schema.execution import Body, Graph, Refused, Request
from services.identity.revocations import revocations

# Proxies close connections that say nothing; a comment a quarter of a minute keeps them open.
HEARTBEAT_SECONDS = 15.0


class GraphQLOverHttp:
    """The endpoint's handler for everything but WebSockets."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def __call__(self, request: HttpRequest) -> Response:
        media = accepted(request.headers.get("accept"))
        if request.method == "GET" and media == HTML:
            return graphiql()
        if media is None or media == HTML:
            return _json(406, {"errors": _errors(BadInput(f"Accept one of {GRAPHQL}, {JSON} or {EVENTS}."))}, JSON)
        try:
            actor, credential = await _actor(request)
            parsed = await read_post(request) if request.method == "POST" else read_get(request)
            if request.method == "GET":
                self._check_get(parsed, credential)
        except HttpProblem as problem:
            return _json(problem.status, problem.body, GRAPHQL if media == GRAPHQL else JSON, problem.headers)
        context = Context(actor, origin_of_request(request.headers, _ip(request)))
        if media == EVENTS:
            return StreamingResponse(
                _events(self._graph, parsed, context, actor),
                media_type=EVENTS,
                headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"},
            )
        try:
            body = await _unless_gone(request, self._graph.execute(parsed, context))
        except Refused as refused:
            # The older media type leaves the status to the transport: the request was understood and answered.
            return _json(400 if media == GRAPHQL else 200, refused.body, media)
        return _json(200, body, media)

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


async def _unless_gone(request: HttpRequest, work: Coroutine[Any, Any, Body]) -> Body:
    """The response, or nothing more where the client has gone: its reads are cancelled."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
        return await task
    finally:
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(graph: Graph, parsed: Request, context: Context, actor: Actor | None) -> AsyncGenerator[bytes, None]:
    """The stream of one operation. It ends when the client leaves, or within a second after access does."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
    yield b":\n\n"

    async def feed() -> None:
        try:
            async with aclosing(graph.stream(parsed, context)) as results:
                async for body in results:
                    await queue.put(_event("next", body))
        except Refused as refused:
            await queue.put(_event("next", refused.body))
        await queue.put(None)

    task = asyncio.create_task(feed())
    try:
        with _watch(actor) as revoked:
            ended = asyncio.create_task(revoked.wait())
            try:
                while True:
                    item = asyncio.create_task(queue.get())
                    await asyncio.wait({item, ended}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if item.done():
                        chunk = item.result()
                        if chunk is None:
                            break
                        yield chunk
                        continue
                    item.cancel()
                    if ended.done():
                        yield _event(
                            "next", {"errors": _errors(Unauthenticated("Your access has ended: sign in again."))}
                        )
                        break
                    yield b":\n\n"
            finally:
                ended.cancel()
        yield b"event: complete\ndata:\n\n"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _watch(actor: Actor | None) -> AbstractContextManager[asyncio.Event]:
    return revocations.watch(actor) if actor is not None else nullcontext(asyncio.Event())


def _event(name: str, body: Body) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(body, default=str) + b"\n\n"


def _json(status: int, body: Body, media: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(body, default=str),
        status,
        media_type=f"{media}; charset=utf-8",
        headers={"vary": "accept"} | (headers or {}),
    )


def _errors(error: BadInput | Unauthenticated) -> list[dict[str, object]]:
    return formatted([as_graphql(error)])


def _ip(request: HttpRequest) -> str | None:
    return request.client.host if request.client else None
