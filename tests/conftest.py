"""Fixtures of the whole suite: one PostgreSQL, fresh databases, the product in this process, and as a real server."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.serve import tune_memory
from app.wiring import Program, connected, prepare_database, serving, working
from core.settings import Settings
from tests.clients_of_graph import Client
from tests.databases import TestServer

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0


def pytest_collection_finish() -> None:
    """What was imported stays: as in a server, the garbage collector need not look at it again and again."""
    tune_memory()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """The PostgreSQL of the test session."""
    with TestServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: TestServer) -> Iterator[str]:
    """A migrated, empty database that others are copied from. Nobody connects to it."""
    url = postgres.create_database()
    asyncio.run(prepare_database(url))
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def migrated_plain(postgres: TestServer) -> Iterator[str]:
    """As `migrated`, as on a server that has no TimescaleDB."""
    url = postgres.create_database()
    asyncio.run(_without_timescaledb(url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.migrate._add_timescaledb", _nothing_to_add)
        asyncio.run(prepare_database(url))
    yield url
    postgres.drop_database(url)


async def _without_timescaledb(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP EXTENSION IF EXISTS timescaledb CASCADE")
    await connection.close()


async def _nothing_to_add(url: str) -> None:
    pass


@pytest.fixture(params=["migrated", "migrated_plain"], ids=["timescaledb", "plain"])
def metric_url(request: pytest.FixtureRequest, postgres: TestServer) -> Iterator[str]:
    """As `database_url`, on a server with TimescaleDB and on one without it."""
    url = postgres.create_database(template=request.getfixturevalue(request.param))
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def metric_database(tmp_path: Path, metric_url: str) -> AsyncIterator[Program]:
    """As `database`, on a server with TimescaleDB and on one without it."""
    settings = Settings(
        home=tmp_path,
        database_url=metric_url,  # type: ignore[arg-type]
        secret_key="tests-only-" + "k" * 40,  # type: ignore[arg-type]
        database_pool_size=5,
        allow_private_networks=True,
    )
    async with connected(settings, metric_url) as program:
        yield program


@pytest.fixture
def database_url(postgres: TestServer, migrated: str) -> Iterator[str]:
    """A migrated, empty database of the test's own."""
    url = postgres.create_database(template=migrated)
    yield url
    postgres.drop_database(url)


@pytest.fixture
def settings_for_tests(tmp_path: Path, database_url: str) -> Settings:
    """Settings with a data folder of the test's own."""
    return Settings(
        home=tmp_path,
        database_url=database_url,  # type: ignore[arg-type]
        secret_key="tests-only-" + "k" * 40,  # type: ignore[arg-type]
        database_pool_size=5,
        allow_private_networks=True,
    )


@pytest.fixture
async def database(settings_for_tests: Settings) -> AsyncIterator[Program]:
    """This process connected to a fresh database, with its parts installed; nothing works in the background."""
    assert settings_for_tests.database_url is not None
    async with connected(settings_for_tests, settings_for_tests.database_url.get_secret_value()) as program:
        yield program


@pytest.fixture
async def product(database: Program) -> AsyncIterator[Program]:
    """This process as web and worker at once."""
    async with serving(database), working(database):
        yield database


class Server:
    """A running product: its processes, and where it is."""

    def __init__(self, port: int, token: str, home: Path, environment: dict[str, str]) -> None:
        self.port, self.token, self.home, self.environment = port, token, home, environment
        self.base = f"http://127.0.0.1:{port}"
        self.url = f"{self.base}/graphql"
        self.ws_url = f"ws://127.0.0.1:{port}/graphql"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def client(self) -> Client:
        """A client with the admin's token."""
        return Client(self.url, self.token)

    def as_(self, token: str | None) -> Client:
        """A client with another token, or with none."""
        return Client(self.url, token)

    def command(self, *arguments: str) -> str:
        """What a `quarterdeck` command printed."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def log(self) -> str:
        """What the processes have said so far."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.glob("*.log")))


Start = Callable[..., Server]


@contextmanager
def running(command: str, environment: dict[str, str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `quarterdeck` process, ended at the end of the context."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{command}-{secrets.token_hex(3)}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", command],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment_for(database_url: str, home: Path, port: int, token: str, **more: str) -> dict[str, str]:
    """The environment of the product's processes: nothing of ours but what they need."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return (
        kept
        | {
            "QUARTERDECK_DATABASE_URL": database_url,
            "QUARTERDECK_HOME": str(home),
            "QUARTERDECK_BOOTSTRAP_TOKEN": token,
            "QUARTERDECK_SECRET_KEY": "tests-only-" + "k" * 40,
            "QUARTERDECK_ALLOW_PRIVATE_NETWORKS": "true",
            "PORT": str(port),
        }
        | more
    )


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], port: int | None = None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server stopped with {process.returncode}:\n{server.log}")
        try:
            if httpx.get(f"http://127.0.0.1:{port or server.port}/readyz", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"the server was not ready in time:\n{server.log}")


@pytest.fixture(scope="session")
def server(postgres: TestServer, migrated: str) -> Iterator[Server]:
    """The product as `make run` starts it, on a database of its own, shared by all tests that ask for it."""
    url = postgres.create_database(template=migrated)
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="quarterdeck-test-") as folder:
        home, token, port = Path(folder), secrets.token_urlsafe(24), free_port()
        found = Server(port, token, home, environment_for(url, home, port, token))
        process = stack.enter_context(running("dev", found.environment, home))
        found.processes.append(process)
        wait_until_ready(found, process)
        yield found
    postgres.drop_database(url)


@pytest.fixture
def client(server: Server) -> Client:
    """A client of the shared server with the admin's token."""
    return server.client
