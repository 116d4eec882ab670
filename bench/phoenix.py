"""Phoenix as it comes from PyPI, in an environment and a folder of its own; and more of what it has, made while it is
stopped: rows of its tables once more, with other ids and at other times.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from bench.processes import ROOT, Running, free_port, started

VERSION = "20.26.1"
START_SECONDS = 180.0

_ENVIRONMENT = ROOT / ".tools" / "phoenix"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COPIED = {
    "traces": "start_time",
    "spans": "start_time",
    "span_costs": "span_start_time",
    "span_cost_details": None,
}
"""The tables that its figures are read from, and the time that tells when a row's trace began: all of a trace begins
at once."""
_POINTS_TO = {
    "trace_rowid": "traces",
    "span_rowid": "spans",
    "span_cost_id": "span_costs",
}
_IDS = {"trace_id": 32, "span_id": 16, "parent_id": 16}
"""Columns of ids, and their hexadecimal digits."""
_TIMES = {"start_time", "end_time", "span_start_time"}


@dataclass(frozen=True, slots=True)
class Copies:
    """How often there is everything at last, the first included; each copy later by so much, round and round between
    `start` and `end`."""

    times: int
    start: datetime
    end: datetime
    apart: timedelta

    def later(self, at: int, number: int) -> int:
        """How much later a copy is of what is at this time; both in microseconds."""
        start, end = ((edge - _EPOCH) // _MICROSECOND for edge in (self.start, self.end))
        return start + (at - start + number * (self.apart // _MICROSECOND)) % (end - start) - at


@contextmanager
def phoenix(folder: Path, say: Callable[[str], None]) -> Iterator[Running]:
    """Phoenix on what the folder has, until the context is left."""
    program = _ENVIRONMENT / "bin" / "phoenix"
    if not program.exists():
        say("Installing Phoenix …")
        subprocess.run([sys.executable, "-m", "venv", _ENVIRONMENT], check=True)
        pip = [str(_ENVIRONMENT / "bin" / "pip"), "install", "-q", f"arize-phoenix=={VERSION}"]
        subprocess.run(pip, check=True)
    port = free_port()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder / "phoenix"),
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    (folder / "phoenix").mkdir(exist_ok=True)
    with started("phoenix", [str(program), "serve"], os.environ.copy() | environment, folder, port) as running:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                    break
            except (URLError, OSError):
                if time.monotonic() > deadline or running.process.poll() is not None:
                    raise RuntimeError(running.log.read_text(errors="replace")[-2000:]) from None
                time.sleep(0.5)
        yield running


def multiply(folder: Path, copies: Copies) -> None:
    """Copy all traces in the database of a Phoenix that is stopped."""
    with closing(sqlite3.connect(folder / "phoenix" / "phoenix.db")) as database:
        database.create_function("moved", 3, lambda at, begin, number: _moved(copies, at, begin, number))
        database.create_function("another", 3, _another)
        last = {table: database.execute(f"SELECT max(id) FROM {table}").fetchone()[0] for table in _COPIED}
        for table, began in _COPIED.items():
            columns = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(_value(column, table, began, last) for column in columns)
            for number in range(1, copies.times):
                database.execute(
                    f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE id <= :last",
                    {"number": number, "last": last[table]},
                )
        database.commit()


def _value(column: str, table: str, began: str | None, last: dict[str, int]) -> str:
    """SQL of a column of a copy."""
    if column == "id":
        return f"id + :number * {last[table]}"
    if column in _POINTS_TO:
        return f"{column} + :number * {last[_POINTS_TO[column]]}"
    if column in _IDS:
        return f"another({column}, {_IDS[column]}, :number)"
    return f"moved({column}, {began}, :number)" if column in _TIMES else column


def _moved(copies: Copies, at: str, began: str, number: int) -> str:
    begin = (datetime.fromisoformat(began).replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
    later = copies.later(begin, number) * _MICROSECOND
    return (datetime.fromisoformat(at) + later).isoformat(" ", "microseconds")


def _another(id_: str | None, digits: int, number: int) -> str | None:
    return None if id_ is None else sha256(f"{id_} {number}".encode()).hexdigest()[:digits]
