"""What comes through the doors, counted for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOORS = frozenset(
    {"graphql", "sign-in", "sign-out", "files", "reports", "static", "healthz", "readyz", "metrics", "v1"}
)
"""First parts of paths that are counted by their name; all else is `other`, or anybody could make up labels."""


GRAPHQL = "graphql"


class Traffic:
    """What came through the doors."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        """By door and status; 0 where the client left before there was one."""
        self.sockets = 0
        self.sockets_of: Counter[UUID] = Counter()
        """Of whom we know whose they are, by organisation."""

    def count(self, door: str, status: int) -> None:
        """One more answer, or none where the status is 0."""
        self.requests[door, status] += 1

    @contextmanager
    def socket_of(self, organization_id: UUID) -> Iterator[None]:
        """A socket of somebody of an organisation, for as long as the context is open."""
        self.sockets_of[organization_id] += 1
        try:
            yield
        finally:
            self.sockets_of[organization_id] -= 1
            if not self.sockets_of[organization_id]:
                del self.sockets_of[organization_id]


class Counted:
    """An application whose requests are counted; the graph's endpoint counts its own."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["path"].lstrip("/").partition("/")[0] if scope["type"] == "http" else GRAPHQL
        if first == GRAPHQL:
            await self._app(scope, receive, send)
            return
        door = first if first in DOORS else "other"
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._traffic.count(door, status)
