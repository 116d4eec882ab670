"""HTTP for URLs that users give: addresses are checked and pinned, answers are bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import httpx2

from core import net
from core.errors import QuarterdeckError


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Checks where each request leads, connects to the checked address, and cuts off endless answers.

    Every request is checked, so a redirect cannot lead inside. Answers over `max_bytes` raise ReadError, and
    a forbidden address raises ConnectError. With `event_streams`, those may be endless and are left to
    whoever reads their events.
    """

    def __init__(self, *, allow_private: bool, max_bytes: int, event_streams: bool = False) -> None:
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)
        self._allow_private = allow_private
        self._max_bytes = max_bytes
        self._event_streams = event_streams

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            host, port = net.check_url(str(request.url))
            addresses = await net.resolve(host, port, allow_private=self._allow_private)
        except QuarterdeckError as error:
            raise httpx2.ConnectError(error.message, request=request) from error
        response = await self._connect(request, host, addresses)
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        if not (is_events and self._event_streams):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, self._max_bytes, request)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _connect(self, request: httpx2.Request, host: str, addresses: Sequence[net.Address]) -> httpx2.Response:
        for address in addresses:
            pinned = httpx2.Request(
                method=request.method,
                url=request.url.copy_with(host=str(address)),
                # The Host header is set already and stays; TLS still asks for, and verifies, the name.
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("a resolved host has an address")


def guarded_client(
    *,
    headers: Mapping[str, str],
    timeout_seconds: float,
    allow_private: bool,
    max_bytes: int,
    event_streams: bool = False,
) -> httpx2.AsyncClient:
    """A client for user-given URLs that follows no redirects of its own accord.

    `max_bytes` is of what comes over the wire: whoever reads a compressed answer bounds what becomes of it.
    """
    return httpx2.AsyncClient(
        headers=dict(headers),
        timeout=httpx2.Timeout(min(timeout_seconds, 30.0), read=timeout_seconds),
        transport=GuardedTransport(allow_private=allow_private, max_bytes=max_bytes, event_streams=event_streams),
        trust_env=False,
        follow_redirects=False,
    )


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int, request: httpx2.Request) -> None:
        self._inner = inner
        self._limit = limit
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._inner:
            seen += len(chunk)
            if seen > self._limit:
                raise httpx2.ReadError(
                    f"The answer is larger than {self._limit} bytes.",
                    request=self._request,
                )
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
