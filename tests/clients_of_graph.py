"""A small client of the graph: operations over HTTP, streams over WebSocket, as any other client would."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]


class Refused(AssertionError):
    """The response has errors; `codes` are those in their extensions."""

    def __init__(self, errors: list[Json]) -> None:
        super().__init__(orjson.dumps(errors).decode())
        self.errors = errors
        self.codes = [error.get("extensions", {}).get("code") for error in errors]
        self.message = errors[0]["message"]
        self.extensions: Json = errors[0].get("extensions", {})


class Client:
    """Operations with one credential."""

    def __init__(self, url: str, token: str | None, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.token = token
        self.headers = ({"authorization": f"Bearer {token}"} if token else {}) | (headers or {})

    async def raw(self, document: str, variables: Json | None = None, **more: Any) -> httpx.Response:
        """The HTTP response to an operation."""
        # Only servers of this machine, over HTTP. Reading the system's certificates takes longer than the request.
        async with httpx.AsyncClient(timeout=30, verify=False) as http:
            return await http.post(
                self.url, json={"query": document, "variables": variables or {}} | more, headers=self.headers
            )

    async def __call__(self, document: str, **variables: Any) -> Json:
        """The data of an operation; raises Refused."""
        body = (await self.raw(document, variables)).json()
        if body.get("errors"):
            raise Refused(body["errors"])
        return body["data"]  # type: ignore[no-any-return]

    async def refused(self, document: str, **variables: Any) -> Refused:
        """The refusal of an operation that must not succeed."""
        try:
            data = await self(document, **variables)
        except Refused as refused:
            return refused
        raise AssertionError(f"this should have been refused, and gave {data}")

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[Socket]:
        """An acknowledged graphql-transport-ws socket."""
        url = self.url.replace("http", "ws", 1)
        # With a full queue a socket that is left unread takes ten seconds to close.
        async with connect(
            url,
            subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
            max_size=None,
            max_queue=None,
        ) as websocket:
            socket = Socket(websocket)
            payload = {"authorization": f"Bearer {self.token}"} if self.token else {}
            await websocket.send(orjson.dumps({"type": "connection_init", "payload": payload}).decode())
            assert (await socket.message())["type"] == "connection_ack"
            yield socket

    @asynccontextmanager
    async def stream(self, document: str, **variables: Any) -> AsyncIterator[Stream]:
        """One subscription on a socket of its own."""
        async with self.socket() as socket:
            yield await socket.subscribe(document, **variables)


class Socket:
    """An open socket. Its messages are read by whoever asks first."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self._ids = itertools.count(1)

    async def message(self, within: float = 20.0) -> Json:
        """The next message."""
        async with asyncio.timeout(within):
            return orjson.loads(await self.websocket.recv())  # type: ignore[no-any-return]

    async def subscribe(self, document: str, **variables: Any) -> Stream:
        """Start an operation."""
        id_ = str(next(self._ids))
        payload = {"query": document, "variables": variables}
        await self.websocket.send(orjson.dumps({"type": "subscribe", "id": id_, "payload": payload}).decode())
        return Stream(self, id_)


class Stream:
    """The results of one operation on a socket."""

    def __init__(self, socket: Socket, id_: str) -> None:
        self.socket, self.id = socket, id_

    async def next(self, within: float = 20.0) -> Json:
        """The data of the next event; raises Refused, or StopAsyncIteration at the end."""
        message = await self.socket.message(within)
        assert message["id"] == self.id, message
        if message["type"] == "complete":
            raise StopAsyncIteration
        if message["type"] == "error":
            raise Refused(message["payload"])
        if message["payload"].get("errors"):
            raise Refused(message["payload"]["errors"])
        return message["payload"]["data"]  # type: ignore[no-any-return]

    async def until(self, field: str, found: Any, within: float = 30.0) -> list[Json]:
        """The events of one root field up to the one that `found` says yes to."""
        events = []
        async with asyncio.timeout(within):
            while True:
                events.append((await self.next(within))[field])
                if found(events[-1]):
                    return events
