"""`/graphql` over WebSocket: the graphql-transport-ws protocol.

Source: PROTOCOL.md of graphql-ws, version 6. Each operation has a context of its own; a socket ends within a second
after its credential does; a client that does not read is let go, and told to come back with its cursor.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

import orjson
from starlette.types import Receive, Scope, Send

from app.graphql.frames import EXTENSION, Wire, text_frame
from app.graphql.operations import SEND_SECONDS, results
from app.graphql.requests import HttpProblem, checked
from app.http.credentials import actor_of_request, check_same_site, origin_of_request
from app.http.traffic import Traffic
from core.errors import Forbidden
from core.permissions import Actor
from schema.bodies import Body, encoded, failure
from schema.context import Context
from schema.execution import Graph, Prepared, Refused
from schema.streams import Batch, Gone, Live, Subscriber
from services.identity.actors import actor_of_bearer
from services.identity.revocations import revocations

logger = logging.getLogger(__name__)

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS = 10.0
# Without a credential there is nothing to follow; a few questions are soon asked.
ANONYMOUS_SECONDS = 60.0
MOST_OPERATIONS = 200
LARGEST_MESSAGE = 1_000_000
MOST_WAITING_BYTES = 1_000_000
"""What waits for one socket whose wire we do not have."""

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 4400, 4401, 4403
INIT_TIMEOUT, DUPLICATE, TOO_MANY_INITS = 4408, 4409, 4429
TRY_AGAIN = 1013
CLOSE_SECONDS = 2.0

ANONYMOUS = "Unauthorized: sign in, or send a token with connection_init"
ACCESS_ENDED = "Your access has ended: sign in again"


class _Close(Exception):
    """Close the socket with a code that tells the client what was wrong."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class GraphQLOverWebSocket:
    """The endpoint's handler for WebSockets."""

    def __init__(self, graph: Graph, live: Live, traffic: Traffic) -> None:
        self._graph, self._live, self._traffic = graph, live, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if PROTOCOL not in scope.get("subprotocols", []):
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4406, "reason": f"Use the subprotocol {PROTOCOL}"})
            return
        socket = _Socket(self._graph, self._live, self._traffic, scope, receive, send)
        try:
            check_same_site(socket.headers)
        except Forbidden:
            await send({"type": "websocket.close", "code": FORBIDDEN})
            return
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        self._traffic.sockets += 1
        try:
            await socket.serve()
        except _Close as close:
            await socket.close(close.code, close.reason)
        except Gone:
            pass
        except asyncio.CancelledError:
            if not socket.is_closing:
                raise
        finally:
            self._traffic.sockets -= 1
            await socket.stop()


class _Socket:
    """One socket. While nothing is sent to it but live events, it has one task, which waits for its client."""

    def __init__(self, graph: Graph, live: Live, traffic: Traffic, scope: Scope, receive: Receive, send: Send) -> None:
        self._graph, self._live, self._receive_event, self._send_event = graph, live, receive, send
        self._traffic = traffic
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        self._origin = origin_of_request(self.headers, client[0] if client else None)
        self._wire: Wire | None = scope.get("extensions", {}).get(EXTENSION)
        self._outbox = None if self._wire is not None else _Outbox(self._transmit)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._subscribers: dict[str, Subscriber] = {}
        self._sending = asyncio.Lock()
        self._actor: Actor | None = None
        self._closing: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[Any] | None = None

    async def serve(self) -> NoReturn:
        """Read what the client says, until either side ends the socket: raises _Close or Gone."""
        self._serving = asyncio.current_task()
        async with asyncio.timeout(INIT_SECONDS) as deadline:
            try:
                await self._init()
            except TimeoutError:
                raise _Close(INIT_TIMEOUT, "Connection initialisation timeout") from None
            deadline.reschedule(None)
        if self._actor is None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(ANONYMOUS_SECONDS, self._close_soon, UNAUTHORIZED, ANONYMOUS)
            try:
                await self._read()
            finally:
                timer.cancel()
        with (
            revocations.watch(self._actor, partial(self._close_soon, UNAUTHORIZED, ACCESS_ENDED)),
            self._traffic.socket_of(self._actor.organization_id),
        ):
            await self._read()

    @property
    def is_closing(self) -> bool:
        """Whether we have begun to close it."""
        return self._closing is not None

    async def stop(self) -> None:
        """The socket is over: end all that is done for it."""
        for subscriber in list(self._subscribers.values()):
            subscriber.stop()
        tasks = [*self._tasks.values(), *([self._closing] if self._closing else [])]
        if self._outbox is not None:
            tasks.append(self._outbox.task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, code: int, reason: str) -> None:
        """Say why, and close; without a word where the client does not read."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send_event({"type": "websocket.close", "code": code, "reason": reason})
        except Exception:
            self._abort()

    def _close_soon(self, code: int, reason: str) -> None:
        """Close from outside of the reading task, which sees the socket close. Nothing more is sent from here on."""
        if self._closing is None:
            for subscriber in self._subscribers.values():
                subscriber.stop()
            for task in self._tasks.values():
                task.cancel()
            self._closing = asyncio.create_task(self.close(code, reason))

    def _abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()
        elif self._serving is not None:
            self._serving.cancel()

    async def _init(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "connection_init":
                break
            if message["type"] == "ping":
                await self.send_text(b'{"type":"pong"}')
            elif message["type"] != "pong":
                raise _Close(UNAUTHORIZED, "Unauthorized: send connection_init first")
        payload = message.get("payload") or {}
        if not isinstance(payload, dict):
            raise _Close(BAD_REQUEST, "The payload of connection_init is not an object")
        self._actor = await self._who(payload)
        await self.send_text(b'{"type":"connection_ack"}')

    async def _who(self, payload: dict[str, Any]) -> Actor | None:
        """By the token of connection_init, or by what came with the handshake."""
        given = payload.get("authorization", payload.get("Authorization", payload.get("token")))
        if given is not None:
            token = str(given)
            actor = await actor_of_bearer(token[7:].strip() if token[:7].lower() == "bearer " else token, self._origin)
            if actor is None:
                raise _Close(FORBIDDEN, "Forbidden: the access token is not valid")
            return actor
        actor, credential = await actor_of_request(self.headers, self._origin)
        if credential == "bearer" and actor is None:
            raise _Close(FORBIDDEN, "Forbidden: the access token is not valid")
        return actor

    async def _read(self) -> NoReturn:
        while True:
            message = await self._receive()
            if self.is_closing:
                raise Gone  # what came together with it, or before it has heard of its end
            kind = message["type"]
            if kind == "subscribe":
                self._start(message)
            elif kind == "complete":
                self._complete(str(message.get("id")))
            elif kind == "ping":
                await self.send_text(b'{"type":"pong"}')
            elif kind == "connection_init":
                raise _Close(TOO_MANY_INITS, "Too many initialisation requests")
            elif kind != "pong":
                raise _Close(BAD_REQUEST, f"Unknown message type {kind[:40]!r}")

    def _start(self, message: dict[str, Any]) -> None:
        id_ = message.get("id")
        if not isinstance(id_, str) or not id_:
            raise _Close(BAD_REQUEST, "A subscribe message needs an id")
        if id_ in self._tasks or id_ in self._subscribers:
            raise _Close(DUPLICATE, f"Subscriber for {id_[:60]} already exists")
        if len(self._tasks) + len(self._subscribers) >= MOST_OPERATIONS:
            raise _Close(BAD_REQUEST, f"More than {MOST_OPERATIONS} operations on one socket")
        self._do(id_, self._begin(id_, message.get("payload")))

    async def _begin(self, id_: str, payload: Any) -> None:
        context, sink = Context(self._actor, self._origin), _Sink(self, id_)
        refused: Body
        try:
            prepared = await self._graph.prepare(checked(payload), self._actor)
            subscriber = self._live.open(prepared, context, sink)
        except (HttpProblem, Refused) as problem:
            refused = problem.body
        except Exception as error:
            refused = failure(error)
        else:
            if subscriber is None:
                await self._run(id_, prepared, context)
            else:
                del self._tasks[id_]
                sink.subscriber = self._subscribers[id_] = subscriber
                subscriber.start()
            return
        await self._refuse(id_, refused)

    def _complete(self, id_: str) -> None:
        if subscriber := self._subscribers.pop(id_, None):
            subscriber.stop()
        elif task := self._tasks.pop(id_, None):
            task.cancel()

    def _do(self, id_: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[id_] = task
        task.add_done_callback(lambda done: self._done(id_, done))

    def _done(self, id_: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(id_) is task:
            del self._tasks[id_]
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Gone):
            logger.error("An operation over WebSocket failed.", exc_info=error)

    async def _run(self, id_: str, prepared: Prepared, context: Context) -> None:
        """An operation that is executed for this client alone."""
        refused: Body | None = None
        try:
            async with aclosing(results(self._graph, prepared, context)) as found:
                async for body in found:
                    await self.send_text(_message(id_, encoded(body)))
        except Refused as error:
            refused = error.body
        await self._refuse(id_, refused)

    async def _refuse(self, id_: str, refused: Body | None) -> None:
        # The client may use the id again as soon as it has read this; and where it does already, this is not for it.
        if self._tasks.get(id_) is asyncio.current_task():
            del self._tasks[id_]
            await self.send_text(_last(id_, refused))

    def end(self, id_: str, sink: _Sink, refused: Body | None) -> None:
        """A live operation is over: its client is told."""
        if self._subscribers.get(id_) is sink.subscriber:
            del self._subscribers[id_]
            self._do(id_, self._refuse(id_, refused))

    def write(self, id_: str, batch: Batch) -> bool:
        """Write live events at once; False where there is no room."""
        if self._outbox is not None:
            return self._outbox.put([_message(id_, payload) for payload in batch.payloads])
        frames = batch.made_once(
            ("socket", id_), lambda: b"".join(text_frame(_message(id_, payload)) for payload in batch.payloads)
        )
        assert self._wire is not None
        # Whoever waits for room was first.
        return not self._sending.locked() and self._wire.write(frames)

    async def send_text(self, text: bytes) -> None:
        """Wait for room, and send; raises Gone."""
        if self._outbox is not None:
            await self._outbox.wait()
            self._outbox.put([text])
        elif self._sending.locked() or self._wire is None or not self._wire.write(text_frame(text)):
            await self._transmit(text)

    async def _transmit(self, text: bytes) -> None:
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await self._send_event({"type": "websocket.send", "text": text.decode()})
            except TimeoutError:
                self._let_go()
                raise Gone from None
            except (RuntimeError, OSError):
                raise Gone from None  # closed by us in the meantime, or by the client

    def _let_go(self) -> None:
        # Closing politely would wait for the same full buffer; what is unread is in the log.
        logger.info("A socket was let go: its client did not read for %s seconds.", SEND_SECONDS)
        if self._wire is not None:
            self._wire.abort()
        else:
            self._close_soon(TRY_AGAIN, "Reconnect, and go on from your last cursor")

    async def _receive(self) -> dict[str, Any]:
        event = await self._receive_event()
        if event["type"] == "websocket.disconnect":
            raise Gone
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


class _Sink:
    """Where one live operation's results go."""

    __slots__ = ("_id", "_socket", "subscriber")

    def __init__(self, socket: _Socket, id_: str) -> None:
        self._socket, self._id = socket, id_
        self.subscriber: Subscriber | None = None

    async def send(self, payload: bytes) -> None:
        await self._socket.send_text(_message(self._id, payload))

    def offer(self, batch: Batch) -> bool:
        return self._socket.write(self._id, batch)

    def end(self, refused: Body | None) -> None:
        self._socket.end(self._id, self, refused)


class _Outbox:
    """What waits for a socket whose wire we do not have."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.task = asyncio.create_task(self._run())

    async def wait(self) -> None:
        """Wait until there is room."""
        while not self._room.is_set():
            await self._room.wait()

    def put(self, messages: Sequence[bytes]) -> bool:
        """Put messages at the end; False, and none of them, where there is no room."""
        if not self._room.is_set():
            return False
        self._waiting.extend(messages)
        self._bytes += sum(map(len, messages))
        if self._bytes >= MOST_WAITING_BYTES:
            self._room.clear()
        self._came.set()
        return True

    async def _run(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._waiting:
                message = self._waiting.popleft()
                await self._send(message)
                self._bytes -= len(message)
                if self._bytes < MOST_WAITING_BYTES:
                    self._room.set()


def _message(id_: str, payload: bytes) -> bytes:
    return b'{"id":' + orjson.dumps(id_) + b',"type":"next","payload":' + payload + b"}"


def _last(id_: str, refused: Body | None) -> bytes:
    if refused is None:
        return orjson.dumps({"id": id_, "type": "complete"})
    return orjson.dumps({"id": id_, "type": "error", "payload": refused["errors"]}, default=str)
