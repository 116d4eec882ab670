"""Servers of a test's own, which it may stop, kill and start again without disturbing other tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psycopg
from psycopg import sql
from redis.asyncio import Redis

from integrations.postgres.owner import owner_of
from integrations.postgres.programs import program

START_SECONDS = 30


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PrivateRedis(AbstractContextManager["PrivateRedis"]):
    """A Redis without persistence."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it accepts connections."""
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed"
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.005)
            else:
                return
        raise TimeoutError("redis-server did not start")

    def kill(self) -> None:
        """As a crash does."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        assert self._process is not None
        self._process.send_signal(number)

    async def command(self, *parts: str | bytes) -> object:
        """Run one command on a connection of its own."""
        async with Redis.from_url(self.url) as client:
            return await client.execute_command(*parts)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.kill()


class PrivatePostgres(AbstractContextManager["PrivatePostgres"]):
    """A PostgreSQL in a temporary folder, on a Unix socket, without durability on disk."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="qd-pg-"))
        self._data = self._folder / "data"
        # PostgreSQL refuses to run as root, and whom it runs as instead may not reach the clone.
        owner = owner_of(self._data, [program("postgres")])
        self._as_user = owner.prefix
        owner.give(self._folder)
        self.url = f"postgresql://quarterdeck@/postgres?host={self._folder}"

    def start(self) -> None:
        """Returns when it accepts connections."""
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off -c max_connections=100"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._folder / "log"), "-o", options)

    def create_database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of the template."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return self.url.replace("/postgres?", f"/{name}?")

    def stop(self) -> None:
        """At once, as a crash does: connections are cut, the next start recovers."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._as_user, str(program(name)), *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=START_SECONDS)

    def __enter__(self) -> Self:
        self._run("initdb", "-D", str(self._data), "-U", "quarterdeck", "-A", "trust", "--no-sync")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
