"""Launchers in processes of their own, so that tests can kill them and run them as other users."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from integrations.postgres.embedded import EmbeddedPostgres
from tests.databases import TOOLS

REPOSITORY = Path(__file__).parents[3]
PATIENCE_SECONDS = 60

# Prints the DSN, or the error, and then serves until standard input ends.
_PROGRAM = """
import sys
from pathlib import Path
from core.errors import Unavailable
from integrations.postgres.embedded import EmbeddedPostgres
home, library = map(Path, sys.argv[1:])
try:
    with EmbeddedPostgres(home, say=lambda line: None, fsync=False, timescaledb_folder=library) as server:
        print(server.dsn, flush=True)
        sys.stdin.read()
except Unavailable as error:
    print("Unavailable:", error, flush=True)
"""


def embedded(home: Path, said: list[str] | None = None) -> EmbeddedPostgres:
    """A launcher in this process; what it says goes to `said`."""
    return EmbeddedPostgres(
        home,
        say=said.append if said is not None else lambda line: None,
        fsync=False,
        timescaledb_folder=TOOLS / "timescaledb",
    )


def launch(home: Path, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A launcher in a process of its own, not waited for."""
    return subprocess.Popen(
        [
            *prefix,
            sys.executable,
            "-c",
            _PROGRAM,
            str(home),
            str(TOOLS / "timescaledb"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@contextmanager
def launcher(home: Path, prefix: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A launcher in a process of its own, and the DSN or error it printed. Ends in order if it still lives."""
    with launch(home, prefix) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(PATIENCE_SECONDS)


def run_sql(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    """Rows of the last statement; each is committed by itself."""
    rows: list[tuple[object, ...]] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, within a generous bound."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
