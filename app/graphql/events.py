"""Live operations as server-sent events, for clients behind proxies that know nothing of WebSockets.

Source: the GraphQL over SSE protocol, distinct connections mode.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import aclosing, nullcontext

from starlette.types import Receive, Send

from app.graphql.operations import SEND_SECONDS, results
from app.graphql.requests import EVENTS
from core.errors import Unauthenticated
from core.permissions import Actor
from schema.bodies import Body, encoded, failure, refusal
from schema.context import Context
from schema.execution import Graph, Refused, Request
from schema.streams import Batch, Live
from services.identity.revocations import revocations

logger = logging.getLogger(__name__)

# Proxies close connections that say nothing; a comment a quarter of a minute keeps them open.
HEARTBEAT_SECONDS = 15.0
# A stream whose reader's access has ended says so, to whoever reads it this soon.
GOODBYE_SECONDS = 1.0
MOST_WAITING_BYTES = 1_000_000

_HEADERS = [
    (b"content-type", EVENTS.encode() + b"; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_COMPLETE = b"event: complete\ndata:\n\n"


async def stream_events(
    graph: Graph,
    live: Live,
    request: Request,
    context: Context,
    actor: Actor | None,
    receive: Receive,
    send: Send,
) -> None:
    """Answer with the stream of one operation. It ends when its client leaves or no longer reads, or soon after access
    does."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    outbox = _Outbox()
    ended = Unauthenticated("Your access has ended: sign in again.")
    with revocations.watch(actor, lambda: outbox.revoke(refusal(ended))) if actor else nullcontext():
        working = asyncio.create_task(_work(graph, live, request, context, outbox))
        sending = asyncio.create_task(_send(outbox, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving, outbox.revoked}, return_when=asyncio.FIRST_COMPLETED)
            if outbox.revoked.done():
                await asyncio.wait({sending, leaving}, timeout=GOODBYE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except TimeoutError:
            logger.info("A stream was let go: its client did not read for %s seconds.", SEND_SECONDS)
        except OSError:
            pass  # the client has gone
        finally:
            tasks = (working, sending, leaving)
            for task in tasks:
                task.cancel()
            outbox.revoked.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _work(graph: Graph, live: Live, request: Request, context: Context, outbox: _Outbox) -> None:
    """Put an operation's results into the outbox, and its end."""
    try:
        prepared = await graph.prepare(request, context.caller)
        subscriber = live.open(prepared, context, outbox)
        if subscriber is not None:
            subscriber.start()
            try:
                await outbox.ended
            finally:
                subscriber.stop()
            return
        async with aclosing(results(graph, prepared, context)) as found:
            async for body in found:
                await outbox.send(encoded(body))
    except Refused as refused:
        outbox.end(refused.body)
    except Exception as error:
        outbox.end(failure(error))
    else:
        outbox.end(None)


async def _send(outbox: _Outbox, send: Send) -> None:
    """Send what comes into the outbox until it is over; raises TimeoutError where nobody reads it."""
    more = True
    while more:
        chunk, more = await outbox.next()
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Outbox:
    """What waits to be sent to one client, a bounded number of bytes: the sink of its operation."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._is_over = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when no more results will come."""
        self.revoked: asyncio.Future[None] = loop.create_future()
        """Done when the reader's access has ended."""

    async def send(self, payload: bytes) -> None:
        """Wait until there is room."""
        while not self._room.is_set():
            await self._room.wait()
        self._put(_event(payload))

    def offer(self, batch: Batch) -> bool:
        """Put it in at once where there is room."""
        if not self._room.is_set():
            return False
        self._put(batch.made_once(("events",), lambda: b"".join(map(_event, batch.payloads))))
        return True

    def end(self, refused: Body | None) -> None:
        """After what waits, this is the end."""
        if not self._is_over:
            self._put((_event(encoded(refused)) if refused else b"") + _COMPLETE)
            self._is_over = True
            if not self.ended.done():
                self.ended.set_result(None)

    def revoke(self, refused: Body) -> None:
        """Nothing that waits is to be read any more."""
        self._waiting.clear()
        self._bytes = 0
        self.end(refused)
        if not self.revoked.done():
            self.revoked.set_result(None)

    async def next(self) -> tuple[bytes, bool]:
        """What is to be sent now, a sign of life where there is nothing, and whether there is more to come."""
        if not self._waiting:
            self._changed.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                return b":\n\n", True
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._room.set()
        return chunk, not self._is_over

    def _put(self, chunk: bytes) -> None:
        if self._is_over:
            return
        self._waiting.append(chunk)
        self._bytes += len(chunk)
        if self._bytes >= MOST_WAITING_BYTES:
            self._room.clear()
        self._changed.set()


def _event(payload: bytes) -> bytes:
    return b"event: next\ndata: " + payload + b"\n\n"
