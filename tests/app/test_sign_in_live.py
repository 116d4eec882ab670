"""The doors of a running server: cookies over HTTP and WebSocket, and access that ends while it is in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Server

pytestmark = pytest.mark.anyio

VIEWER = "{ viewer { user { email } } }"
CREATE = 'mutation { createAccessToken(input: {name: "short-lived"}) { secret accessToken { id } } }'
REVOKE = "mutation ($id: ID!) { revokeAccessToken(input: {accessTokenId: $id}) { accessToken { revokedAt } } }"
FOLLOW = "subscription { sessionChanges { __typename } }"
CSRF = {"x-quarterdeck-csrf": "1"}


@asynccontextmanager
async def a_signed_in_browser(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that opened the operator's link for the first owner."""
    email = (await server.client(VIEWER))["viewer"]["user"]["email"]
    link = await asyncio.to_thread(server.command, "user", "link", email)
    async with httpx.AsyncClient(base_url=server.base, headers={"origin": server.base}) as browser:
        answer = await browser.post(link.strip().removeprefix(server.base))
        assert (answer.status_code, answer.headers["location"]) == (303, "/graphql")
        yield browser


async def closed_with(websocket: ClientConnection) -> int | None:
    """The code with which a socket is closed soon, whatever it says before."""
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await websocket.recv()
    return websocket.close_code


async def test_a_cookie_reads_by_post_from_our_own_page_only(server: Server) -> None:
    async with a_signed_in_browser(server) as browser:
        ask = {"query": VIEWER}
        answer = await browser.post("/graphql", json=ask, headers=CSRF)
        assert "@" in answer.json()["data"]["viewer"]["user"]["email"]
        for headers in ({}, CSRF | {"origin": "https://evil.example"}, CSRF | {"origin": "null"}):
            refused = await browser.post("/graphql", json=ask, headers=headers)
            assert refused.status_code == 403
            assert refused.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert (await browser.get("/graphql", params=ask, headers={"accept": "application/json"})).status_code == 405


async def test_a_cookies_socket_ends_with_its_session(server: Server) -> None:
    async with a_signed_in_browser(server) as browser:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())

        def socket(origin: str) -> connect:
            return connect(
                server.ws_url,
                subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
                additional_headers={"cookie": cookie, "origin": origin},
            )

        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with socket("https://evil.example") as websocket:
                await websocket.recv()
        async with socket(server.base) as websocket:
            await websocket.send('{"type": "connection_init"}')
            assert orjson.loads(await websocket.recv())["type"] == "connection_ack"
            assert (await browser.post("/sign-out")).status_code == 303
            assert await closed_with(websocket) == 4401
        again = await browser.post("/graphql", json={"query": VIEWER}, headers=CSRF | {"cookie": cookie})
        assert again.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_tokens_streams_end_when_it_is_revoked(server: Server, transport: str) -> None:
    made = (await server.client(CREATE))["createAccessToken"]

    async def revoke() -> None:
        await server.client(REVOKE, id=made["accessToken"]["id"])

    if transport == "websocket":
        async with server.as_(made["secret"]).socket() as socket:
            await socket.subscribe(FOLLOW)
            await revoke()
            assert await closed_with(socket.websocket) == 4401
    else:
        headers = {"authorization": f"Bearer {made['secret']}", "accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(timeout=10) as http,
            http.stream("POST", server.url, json={"query": FOLLOW}, headers=headers) as stream,
        ):
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            await anext(lines)
            await revoke()
            text = "\n".join([line async for line in lines])
            assert "UNAUTHENTICATED" in text
    refused = await server.as_(made["secret"]).raw(VIEWER)
    assert refused.status_code == 401
