"""What URLs of users can reach, and what their servers can do to us."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2
import pytest

from core.settings import Settings
from integrations.agents.base import McpServerSpec
from integrations.alerts.base import NotTaken
from integrations.alerts.posting import post
from integrations.http_guard import guarded_client
from integrations.mcp.base import McpUnavailable
from integrations.mcp.servers import ServerPool
from integrations.sandbox.plain import PlainSandbox

Answer = Callable[[bytes], bytes]


@asynccontextmanager
async def http_server(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on a loopback port that answers every request with the same bytes; and what it was asked."""
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        try:
            writer.write(answer(head))
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def response(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def get(url: str, *, allow_private: bool = True, max_bytes: int = 1000) -> httpx2.Response:
    client = guarded_client(headers={}, timeout_seconds=10, allow_private=allow_private, max_bytes=max_bytes)
    async with client:
        return await client.get(url)


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
async def test_private_addresses_are_refused_before_anything_is_sent(host: str) -> None:
    async with http_server(lambda head: response("200 OK")) as (port, asked):
        with pytest.raises(httpx2.ConnectError):
            await get(f"http://{host}:{port}/", allow_private=False)
        assert asked == []


@pytest.mark.anyio
async def test_an_operator_can_allow_them() -> None:
    async with http_server(lambda head: response("200 OK", b"hello")) as (port, asked):
        assert (await get(f"http://localhost:{port}/x")).text == "hello"
        assert f"localhost:{port}".encode() in asked[0]


@pytest.mark.anyio
async def test_a_name_that_is_rebound_is_checked_and_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["203.0.113.9", "127.0.0.1"], ["127.0.0.1"]]

    async def rebinding(*arguments: object, **more: object) -> list[tuple[object, ...]]:
        addresses = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    for _ in range(2):
        with pytest.raises(httpx2.ConnectError, match="private network"):
            await get("http://rebinding.example/", allow_private=False)


@pytest.mark.anyio
async def test_redirects_are_not_followed() -> None:
    async with http_server(lambda head: response("302 Found", location="http://127.0.0.1:1/")) as (port, _):
        assert (await get(f"http://127.0.0.1:{port}/")).status_code == 302


@pytest.mark.anyio
@pytest.mark.parametrize("type_", ["text/plain", "text/event-stream"])
async def test_answers_are_bounded(type_: str) -> None:
    answer = response("200 OK", b"x" * 5000, **{"content-type": type_})
    async with http_server(lambda head: answer) as (port, _):
        with pytest.raises(httpx2.ReadError, match="larger than 1000"):
            await get(f"http://127.0.0.1:{port}/")


@pytest.mark.anyio
async def test_of_what_takes_alerts_little_is_read_and_nothing_unpacked() -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    answer = response("500 Oh", bomb, **{"content-type": "text/event-stream", "content-encoding": "gzip"})
    async with http_server(lambda head: answer) as (port, asked):
        with pytest.raises(NotTaken, match="It answered 500") as refused:
            await post(f"http://127.0.0.1:{port}/", b"{}", {}, allow_private=True)
    assert len(str(refused.value)) < 2000
    assert b"accept-encoding: identity" in asked[0].lower()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response("401 Unauthorized"), "HTTP status 401"),
        (response("500 Oh"), "HTTP status 500"),
        (response("200 OK", b"<html>hello</html>", **{"content-type": "text/html"}), ""),
        (response("200 OK", b"{nonsense", **{"content-type": "application/json"}), ""),
        (response("307 Moved", location="http://169.254.169.254/latest"), ""),
        (b"not http at all\r\n\r\n", ""),
    ],
)
async def test_web_servers_that_speak_no_mcp(settings: Settings, answer: bytes, words: str) -> None:
    pool = ServerPool(settings, PlainSandbox())
    async with http_server(lambda head: answer) as (port, asked):
        spec = McpServerSpec(
            uuid4(),
            "odd",
            "streamable_http",
            url=f"http://127.0.0.1:{port}/mcp",
            headers={"X-Key": "s3cret"},
            timeout_seconds=10,
        )
        with pytest.raises(McpUnavailable) as refused:
            await pool.inspect(spec, organization_id=uuid4(), environment={})
        assert words in refused.value.message
        assert "s3cret" not in refused.value.message
        assert asked


@pytest.mark.anyio
async def test_an_mcp_server_inside_is_refused(settings: Settings) -> None:
    guarded = settings.model_copy(update={"allow_private_networks": False})
    pool = ServerPool(guarded, PlainSandbox())
    spec = McpServerSpec(uuid4(), "inside", "streamable_http", url="http://169.254.169.254/latest/meta-data")
    with pytest.raises(McpUnavailable, match="QUARTERDECK_ALLOW_PRIVATE_NETWORKS"):
        await pool.inspect(spec, organization_id=uuid4(), environment={})
