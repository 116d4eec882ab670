"""Worker processes that can be killed, and the table in which they write what they execute."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg

PROGRAM = Path(__file__).with_name("worker_program.py")
START_SECONDS = 60
PATIENCE_SECONDS = 60

EXECUTIONS = """
CREATE TABLE executions (
    number bigint GENERATED ALWAYS AS IDENTITY,
    key text NOT NULL,
    organization text NOT NULL,
    process int NOT NULL,
    attempt int NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome text
)
"""


class Worker:
    """One process that executes jobs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls, url: str, *, per_worker: int = 5, per_organization: int = 100, silent_seconds: int = 10
    ) -> Worker:
        """Returns when it is ready to execute."""
        arguments = [url, str(per_worker), str(per_organization), str(silent_seconds)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *arguments, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        worker = cls(process)
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        assert line == b"ready\n", line
        return worker

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal that ends it, and wait until it has ended."""
        self.send(number)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._process.wait()


class Executions:
    """What the workers wrote down."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(self) -> list[asyncpg.Record]:
        """All of them, oldest first."""
        return list(await self._connection.fetch("SELECT * FROM executions ORDER BY number"))

    async def wait_for(self, condition: Callable[[list[asyncpg.Record]], bool]) -> list[asyncpg.Record]:
        """The rows, once they meet the condition."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                rows = await self.rows()
                if condition(rows):
                    return rows
                await asyncio.sleep(0.02)

    async def wait_for_done(self, count: int) -> list[asyncpg.Record]:
        """The rows, once so many executions reached their end."""
        return await self.wait_for(lambda rows: sum(row["outcome"] == "done" for row in rows) >= count)

    async def most_at_once(self, column: str) -> int:
        """The largest number of executions at any one time with the same value in a column."""
        most: int = await self._connection.fetchval(
            f"SELECT max((SELECT count(*) FROM executions b WHERE b.{column} = a.{column}"
            " AND b.started_at <= a.started_at AND (b.ended_at IS NULL OR b.ended_at > a.started_at)))"
            " FROM executions a"
        )
        return most
