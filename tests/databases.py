"""One real PostgreSQL with TimescaleDB for the whole test session, and fresh databases in it within milliseconds."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from integrations.postgres.embedded import EmbeddedPostgres

TOOLS = Path(__file__).parents[1] / ".tools"
"""What tests fetch and keep between sessions."""

_MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 4 * 2**30


class TestServer:
    """An embedded server in a temporary folder, without fsync. A context manager, for a session-scoped fixture."""

    __test__ = False  # no test class, whatever pytest thinks of its name

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="quarterdeck-test-", dir=_folder()))
        self._home.chmod(0o711)
        self._server = EmbeddedPostgres(
            self._home, say=lambda line: None, fsync=False, timescaledb_folder=TOOLS / "timescaledb"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def create_database(self, template: str | None = None) -> str:
        """The DSN of a new database: empty, or a copy of the database with the DSN `template`.

        Nobody may be connected to the template while it is copied.
        """
        name = f"test_{uuid4().hex}"
        # Copying files beats logging every page, where nothing needs to be safe on disk.
        source = _database(template) if template else "template1"
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(source)
            )
        )
        return self._server.dsn.replace("@/quarterdeck?", f"@/{name}?")

    def drop_database(self, dsn: str) -> None:
        """Drop a database that `create_database` made, and end the connections that are left in it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_database(dsn))))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._server.dsn, autocommit=True) as connection:
            connection.execute(statement)


def _folder() -> Path | None:
    """In memory, where there is enough: a database is a thousand files, and each test has its own."""
    try:
        return _MEMORY if shutil.disk_usage(_MEMORY).free >= _ENOUGH_MEMORY and os.access(_MEMORY, os.W_OK) else None
    except OSError:
        return None


def _database(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")
