"""`/graphql` over HTTP: operations by POST, and queries by GET with a token. Nothing stands between it and the server.

Source: GraphQL over HTTP (stage 2 draft).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from functools import lru_cache

from graphql import OperationType
from starlette.types import Receive, Scope, Send

from app.graphql.events import stream_events
from app.graphql.page import graphiql
from app.graphql.requests import EVENTS, GRAPHQL, HTML, JSON, HttpProblem, Left, accepted, read_get, read_post
from app.http.credentials import Credential, actor_of_request, check_cookie_operation, origin_of_request
from app.http.traffic import GRAPHQL as GRAPHQL_DOOR
from app.http.traffic import Traffic
from core.errors import BadInput, ErrorCode, Forbidden, Unauthenticated
from core.permissions import Actor, Origin
from schema.bodies import Body, as_json, failure, refusal
from schema.context import Context
from schema.execution import Graph, Prepared, Refused, Request
from schema.streams import Live

LOOK_AFTER_SECONDS = 0.1
"""Reads that take longer end with their client."""
SMALLEST_COMPRESSED = 4096
"""Bytes of a response that are worth compressing for those who ask for it: three packets and more."""
COMPRESSED_IN_A_THREAD = 128 * 1024

_CONTENT_TYPES = {media: (b"content-type", f"{media}; charset=utf-8".encode()) for media in (JSON, GRAPHQL)}


class GraphQLOverHttp:
    """The endpoint's handler for everything but WebSockets."""

    def __init__(self, graph: Graph, live: Live, traffic: Traffic) -> None:
        self._graph, self._live, self._traffic = graph, live, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Of several headers with a name the first counts.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        exchange = _Exchange(scope, receive, send, headers, self._traffic)
        method: str = scope["method"]
        if method not in ("GET", "POST"):
            body = refusal(BadInput("Send operations by POST, or queries by GET."))
            await exchange.answer(405, body, JSON, {"allow": "GET, POST"})
            return
        media = accepted(headers.get("accept"), page=method == "GET")
        if media == HTML:
            self._traffic.count(GRAPHQL_DOOR, 200)
            await graphiql()(scope, receive, send)
            return
        if media is None:
            await exchange.answer(406, refusal(BadInput(f"Accept one of {GRAPHQL}, {JSON} or {EVENTS}.")), JSON)
            return
        told = GRAPHQL if media == GRAPHQL else JSON
        try:
            await self._serve(exchange, media)
        except HttpProblem as problem:
            await exchange.answer(problem.status, problem.body, told, problem.headers)
        except Left:
            self._traffic.count(GRAPHQL_DOOR, 0)
        except Exception as error:
            body = failure(error)
            away = body["errors"][0]["extensions"]["code"] == ErrorCode.UNAVAILABLE
            await exchange.answer(503 if away else 500, body, told)

    async def _serve(self, exchange: _Exchange, media: str) -> None:
        origin = origin_of_request(exchange.headers, exchange.ip)
        actor, credential = await exchange.actor(origin)
        if exchange.is_post:
            request = await read_post(exchange.headers.get("content-type", ""), exchange.receive)
        else:
            request = read_get(exchange.scope["query_string"])
            await self._check_get(request, actor, credential)
        context = Context(actor, origin)
        if media == EVENTS:
            self._traffic.count(GRAPHQL_DOOR, 200)
            await stream_events(self._graph, self._live, request, context, actor, exchange.receive, exchange.send)
            return
        try:
            prepared = await self._graph.prepare(request, actor)
            if prepared.kind is OperationType.QUERY:
                body = await self._unless_gone(exchange.receive, prepared, context)
            else:
                # What has begun to change something is not left in the middle, whether or not its client waits.
                body = await self._graph.answer(prepared, context)
        except Refused as refused:
            # The older media type leaves the status to the transport: the request was understood and answered.
            await exchange.answer(400 if media == GRAPHQL else 200, refused.body, media)
        else:
            await exchange.answer(200, body, media)

    async def _unless_gone(self, receive: Receive, prepared: Prepared, context: Context) -> Body:
        """The response to a query; raises Left where the client has gone, and its reads are cancelled."""
        with _Leaving(receive) as leaving:
            try:
                return await self._graph.answer(prepared, context)
            except asyncio.CancelledError:
                if leaving.has_left:
                    raise Left from None
                raise

    async def _check_get(self, request: Request, actor: Actor | None, credential: Credential | None) -> None:
        if credential == "cookie":
            raise HttpProblem(
                405,
                BadInput("With a cookie, operations come by POST: a link must not be able to ask in your name."),
                {"allow": "POST"},
            )
        try:
            kind = (await self._graph.prepare(request, actor)).kind
        except Refused:
            return  # said by the execution
        if kind is not OperationType.QUERY:
            raise HttpProblem(405, BadInput("By GET only queries can be made: send this by POST."), {"allow": "POST"})


class _Exchange:
    """One request, and its response."""

    __slots__ = ("headers", "ip", "is_post", "receive", "scope", "send", "traffic")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str], traffic: Traffic
    ) -> None:
        self.scope, self.receive, self.send, self.headers, self.traffic = scope, receive, send, headers, traffic
        client = scope.get("client")
        self.ip: str | None = client[0] if client else None
        self.is_post = scope["method"] == "POST"

    async def actor(self, origin: Origin) -> tuple[Actor | None, Credential | None]:
        """Who asks; raises HttpProblem for a credential that is not good, or may not be used so."""
        actor, credential = await actor_of_request(self.headers, origin)
        if credential == "bearer" and actor is None:
            raise HttpProblem(
                401,
                Unauthenticated("The access token is not valid: it is unknown, expired or revoked. Make a new one."),
                {"www-authenticate": 'Bearer error="invalid_token"'},
            )
        if credential == "cookie" and self.is_post:
            try:
                check_cookie_operation(self.headers)
            except Forbidden as error:
                raise HttpProblem(403, error) from None
        return actor, credential

    async def answer(self, status: int, body: Body, media: str, headers: Mapping[str, str] | None = None) -> None:
        """Send the response; raises TypeError, and sends nothing, for what JSON cannot hold."""
        data = as_json(body)
        sent = [_CONTENT_TYPES[media], (b"vary", b"accept, accept-encoding")]
        if len(data) >= SMALLEST_COMPRESSED and _takes_gzip(self.headers.get("accept-encoding", "")):
            data = await _compressed(data)
            sent.append((b"content-encoding", b"gzip"))
        sent.append((b"content-length", b"%d" % len(data)))
        if headers:
            sent += [(name.encode(), value.encode()) for name, value in headers.items()]
        self.traffic.count(GRAPHQL_DOOR, status)
        await self.send({"type": "http.response.start", "status": status, "headers": sent})
        await self.send({"type": "http.response.body", "body": data})


class _Leaving:
    """Cancels what the present task awaits when its client goes away, if it takes long at all."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._task = receive, asyncio.current_task()
        self._looking: asyncio.Task[None] | None = None
        self.has_left = False

    def __enter__(self) -> _Leaving:
        self._timer = asyncio.get_running_loop().call_later(LOOK_AFTER_SECONDS, self._begin)
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        assert self._task is not None
        self._task.cancel()


async def _compressed(data: bytes) -> bytes:
    if len(data) < COMPRESSED_IN_A_THREAD:
        return _gzip(data)
    return await asyncio.to_thread(_gzip, data)


def _gzip(data: bytes) -> bytes:
    # The fastest level: it takes JSON to a fifth, the best one to a sixth at four times the cost.
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(data) + packer.flush()


@lru_cache(512)
def _takes_gzip(header: str) -> bool:
    for item in header.split(","):
        name, _, quality = item.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
