"""`/graphql` over WebSocket: the graphql-transport-ws protocol.

Source: PROTOCOL.md of graphql-ws, version 6. Each operation has a context of its own; a socket ends within a second
after its credential does; a client that does not read is let go, and told to come back with its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, nullcontext, suppress
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.graphql.operations import SEND_SECONDS, as_json, failure, results
from app.graphql.requests import HttpProblem, checked
from app.http.credentials import actor_of_request, check_same_site, origin_of_request
from core.errors import Forbidden
from core.permissions import Actor
from schema.context import Context
from schema.execution import Graph, Refused
from services.identity.actors import actor_of_bearer
from services.identity.revocations import revocations

logger = logging.getLogger(__name__)

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS = 10.0
# Without a credential there is nothing to follow; a few questions are soon asked.
ANONYMOUS_SECONDS = 60.0
MOST_OPERATIONS = 200
LARGEST_MESSAGE = 1_000_000

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 4400, 4401, 4403
INIT_TIMEOUT, DUPLICATE, TOO_MANY_INITS = 4408, 4409, 4429


class _Close(Exception):
    """Close the socket with a code that tells the client what was wrong."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def graphql_over_websocket(websocket: WebSocket, graph: Graph) -> None:
    """Serve one socket until either side ends it."""
    if PROTOCOL not in websocket.scope.get("subprotocols", []):
        await websocket.accept()
        await websocket.close(4406, f"Use the subprotocol {PROTOCOL}")
        return
    try:
        check_same_site(websocket.headers)
    except Forbidden:
        await websocket.close(4403)
        return
    await websocket.accept(PROTOCOL)
    socket = _Socket(websocket, graph)
    try:
        await socket.serve()
    except _Close as close:
        await socket.close(close.code, close.reason)
    except WebSocketDisconnect:
        pass
    finally:
        await socket.stop()


class _Socket:
    def __init__(self, websocket: WebSocket, graph: Graph) -> None:
        self._websocket, self._graph = websocket, graph
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._sending = asyncio.Lock()
        self._actor: Actor | None = None
        self._origin = origin_of_request(websocket.headers, websocket.client.host if websocket.client else None)
        self._stuck = asyncio.Event()

    async def serve(self) -> None:
        async with asyncio.timeout(INIT_SECONDS) as deadline:
            try:
                await self._init()
            except TimeoutError:
                raise _Close(INIT_TIMEOUT, "Connection initialisation timeout") from None
            deadline.reschedule(None)
        watching = revocations.watch(self._actor) if self._actor else nullcontext(asyncio.Event())
        with watching as revoked:
            reading = asyncio.create_task(self._read())
            ended = asyncio.create_task(revoked.wait())
            stuck = asyncio.create_task(self._stuck.wait())
            try:
                done, _ = await asyncio.wait(
                    {reading, ended, stuck},
                    timeout=None if self._actor else ANONYMOUS_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    raise _Close(UNAUTHORIZED, "Unauthorized: sign in, or send a token with connection_init")
                if ended.done():
                    raise _Close(UNAUTHORIZED, "Your access has ended: sign in again")
                if reading.done():
                    reading.result()
            finally:
                for task in (reading, ended, stuck):
                    task.cancel()
                await asyncio.gather(reading, ended, stuck, return_exceptions=True)

    async def stop(self) -> None:
        for task in list(self._operations.values()):
            task.cancel()
        await asyncio.gather(*self._operations.values(), return_exceptions=True)

    async def close(self, code: int, reason: str) -> None:
        with suppress(Exception):
            async with asyncio.timeout(2):
                await self._websocket.close(code, reason)

    async def _init(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "connection_init":
                break
            if message["type"] == "ping":
                await self._send({"type": "pong"})
            elif message["type"] != "pong":
                raise _Close(UNAUTHORIZED, "Unauthorized: send connection_init first")
        payload = message.get("payload") or {}
        if not isinstance(payload, dict):
            raise _Close(BAD_REQUEST, "The payload of connection_init is not an object")
        self._actor = await self._who(payload)
        await self._send({"type": "connection_ack"})

    async def _who(self, payload: dict[str, Any]) -> Actor | None:
        """By the token of connection_init, or by what came with the handshake."""
        given = payload.get("authorization", payload.get("Authorization", payload.get("token")))
        if given is not None:
            token = str(given)
            actor = await actor_of_bearer(token[7:].strip() if token[:7].lower() == "bearer " else token, self._origin)
            if actor is None:
                raise _Close(FORBIDDEN, "Forbidden: the access token is not valid")
            return actor
        actor, credential = await actor_of_request(self._websocket.headers, self._websocket.cookies, self._origin.ip)
        if credential == "bearer" and actor is None:
            raise _Close(FORBIDDEN, "Forbidden: the access token is not valid")
        return actor

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            kind = message["type"]
            if kind == "subscribe":
                self._start(message)
            elif kind == "complete":
                if task := self._operations.pop(str(message.get("id")), None):
                    task.cancel()
            elif kind == "ping":
                await self._send({"type": "pong"})
            elif kind == "connection_init":
                raise _Close(TOO_MANY_INITS, "Too many initialisation requests")
            elif kind != "pong":
                raise _Close(BAD_REQUEST, f"Unknown message type {kind[:40]!r}")

    def _start(self, message: dict[str, Any]) -> None:
        id_ = message.get("id")
        if not isinstance(id_, str) or not id_:
            raise _Close(BAD_REQUEST, "A subscribe message needs an id")
        if id_ in self._operations:
            raise _Close(DUPLICATE, f"Subscriber for {id_[:60]} already exists")
        if len(self._operations) >= MOST_OPERATIONS:
            raise _Close(BAD_REQUEST, f"More than {MOST_OPERATIONS} operations on one socket")
        task = asyncio.create_task(self._run(id_, message.get("payload")))
        self._operations[id_] = task
        task.add_done_callback(lambda done: self._done(id_, done))

    def _done(self, id_: str, task: asyncio.Task[None]) -> None:
        if self._operations.get(id_) is task:
            del self._operations[id_]
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, WebSocketDisconnect):
            logger.error("An operation over WebSocket failed.", exc_info=error)

    async def _run(self, id_: str, payload: Any) -> None:
        last: dict[str, Any] = {"id": id_, "type": "complete"}
        try:
            request = await self._graph.resolve(checked(payload), self._actor)
            async with aclosing(results(self._graph, request, Context(self._actor, self._origin))) as found:
                async for body in found:
                    await self._send({"id": id_, "type": "next", "payload": body})
        except (HttpProblem, Refused) as refused:
            last = {"id": id_, "type": "error", "payload": refused.body["errors"]}
        except WebSocketDisconnect:
            raise
        except Exception as error:
            last = {"id": id_, "type": "error", "payload": failure(error)["errors"]}
        # The client may use the id again as soon as it has read this; and where it does already, this is not for it.
        if self._operations.get(id_) is asyncio.current_task():
            del self._operations[id_]
            await self._send(last)

    async def _receive(self) -> dict[str, Any]:
        event = await self._websocket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1000))
        text = event.get("text")
        if text is None:
            raise _Close(BAD_REQUEST, "Messages are text")
        if len(text) > LARGEST_MESSAGE:
            raise _Close(BAD_REQUEST, f"A message has at most {LARGEST_MESSAGE} characters")
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise _Close(BAD_REQUEST, "Messages are JSON") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise _Close(BAD_REQUEST, "A message is an object with a type")
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            text = as_json(message).decode()
        except TypeError as error:
            body = failure(error)
            text = as_json(message | {"payload": body["errors"] if message["type"] == "error" else body}).decode()
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._websocket.send({"type": "websocket.send", "text": text})
            except TimeoutError:
                # Closing politely would wait for the same full buffer; what is unread is in the log.
                logger.info("A socket was let go: its client did not read for %s seconds.", SEND_SECONDS)
                self._stuck.set()
                raise WebSocketDisconnect(1013) from None
            except RuntimeError:
                raise WebSocketDisconnect(1006) from None  # closed by us in the meantime
