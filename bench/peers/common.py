"""What the peers in Python share: the same check of the same token, and the same way of serving."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from starlette.types import ASGIApp

from app.serve import listen, server_for, tune_memory
from bench.resting import rest_on_signal
from core.crypto import digest
from core.settings import Settings

REMEMBERED_SECONDS = 1.0

_OF_BEARER = """
SELECT t.id AS credential_id, u.id AS user_id, u.organization_id, u.role
FROM access_tokens t JOIN users u ON u.id = t.user_id
WHERE t.secret_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
  AND u.deactivated_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    user_id: UUID
    organization_id: UUID


class Callers:
    """Callers by their tokens, each remembered for as long as the product remembers one."""

    def __init__(self, pool: Callable[[], asyncpg.Pool]) -> None:
        self._pool = pool
        self._remembered: dict[bytes, tuple[float, Caller]] = {}

    async def of(self, authorization: str) -> Caller | None:
        """The caller behind `Bearer TOKEN`; None where there is none."""
        key = digest(authorization.removeprefix("Bearer "))
        at, caller = self._remembered.get(key, (0.0, None))
        now = time.monotonic()
        if caller is None or now - at > REMEMBERED_SECONDS:
            row: Any = await self._pool().fetchrow(_OF_BEARER, key)
            if row is None:
                return None
            caller = Caller(row["user_id"], row["organization_id"])
            self._remembered[key] = (now, caller)
        return caller


async def open_pool(dsn: str) -> asyncpg.Pool:
    """A pool as large as the product's, without the reset round trip that the product leaves out too."""

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg says nothing of its classes
        def get_reset_query(self) -> str:
            return ""

    return await asyncpg.create_pool(
        dsn, min_size=2, max_size=10, connection_class=Connection, server_settings={"jit": "off"}
    )


def serve(app: ASGIApp, port: int) -> None:
    """With the settings of uvicorn and of the garbage collector that the product has."""
    settings = Settings(PORT=port)
    listener = listen(settings)
    server = server_for(app, settings)
    tune_memory()
    rest_on_signal()
    server.run(sockets=[listener])
