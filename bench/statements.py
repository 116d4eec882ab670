"""How many SQL statements a request takes, by what PostgreSQL logs: the proof that nothing is read row by row."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import asyncpg

from bench.load import ask_once

TRIES = 3
_STATEMENT = re.compile(r" LOG:  (?:execute [^:]*|statement): (.*)")
_LINES_WRITTEN_SECONDS = 0.05


class StatementLog:
    """Reads the server's log while all statements are logged. A context manager."""

    def __init__(self, dsn: str, log: Path) -> None:
        self._dsn, self._log = dsn, log

    async def __aenter__(self) -> StatementLog:
        await self._set("ALTER SYSTEM SET log_statement = 'all'")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._set("ALTER SYSTEM RESET log_statement")

    async def count(self, port: int, next_request: Callable[[], bytes]) -> int:
        """The least that any of some tries took: the others include what runs in the background."""
        found = []
        for _ in range(TRIES):
            await asyncio.sleep(_LINES_WRITTEN_SECONDS)
            begin = self._log.stat().st_size
            await ask_once(port, next_request())
            await asyncio.sleep(_LINES_WRITTEN_SECONDS)
            with self._log.open("rb") as log:
                log.seek(begin)
                found.append(len(_STATEMENT.findall(log.read().decode(errors="replace"))))
        return min(found)

    async def _set(self, statement: str) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute(statement)
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()
        # The other backends hear of it when they next look; the postmaster tells them at once.
        await asyncio.sleep(0.5)
