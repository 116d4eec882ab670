"""TimescaleDB in the embedded server: it loads and works, and where it can't be had the server goes on without it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from integrations.postgres import elf, timescaledb
from integrations.postgres.embedded import EmbeddedPostgres
from tests.databases import TOOLS
from tests.integrations.postgres.launchers import embedded, run_sql

LIBRARY = TOOLS / "timescaledb"


def test_the_extension_loads_and_makes_hypertables(tmp_path: Path) -> None:
    with embedded(tmp_path / "home") as server:
        rows = run_sql(
            server.dsn,
            "CREATE EXTENSION timescaledb",
            "CREATE TABLE measured (at timestamptz NOT NULL, value float8)",
            "SELECT create_hypertable('measured', 'at')",
            "INSERT INTO measured SELECT now() - n * interval '1 hour', n FROM generate_series(1, 1000) n",
            "SELECT count(*) = 1000, count(DISTINCT time_bucket('1 day', at)) > 40 FROM measured",
        )
        assert rows == [(True, True)]
        assert run_sql(server.dsn, "SELECT count(*) > 3 FROM show_chunks('measured')") == [(True,)]
        assert run_sql(server.dsn, "SHOW timescaledb.license") == [("apache",)]


def test_fetching_needs_no_root_and_leaves_only_the_result(tmp_path: Path) -> None:
    said: list[str] = []
    found = timescaledb.obtain(tmp_path / "timescaledb", say=said.append)
    assert found is not None, said
    assert said[-1] == f"TimescaleDB {found.version} is ready."
    assert [entry.name for entry in tmp_path.iterdir()] == ["timescaledb"]
    assert {entry.name for entry in (found.folder / "doc").iterdir()} == {
        "copyright",
        "NOTICE",
    }

    said.clear()
    assert timescaledb.obtain(tmp_path / "timescaledb", say=said.append) == found
    assert said == []


def test_a_failure_is_said_once_and_tried_again_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "timescaledb"
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert timescaledb.obtain(folder, say=said.append) is None
    assert "Going on with plain PostgreSQL" in said[-1]
    assert "apt-get" in said[-1]
    assert "apt-get" in (timescaledb.unavailable_because(folder) or "")

    said.clear()
    assert timescaledb.obtain(folder, say=said.append) is None
    assert said == []

    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / "timescaledb-unavailable", (yesterday, yesterday))
    monkeypatch.undo()
    assert timescaledb.obtain(folder, say=said.append) is not None
    assert timescaledb.unavailable_because(folder) is None


def test_the_server_runs_without_it(tmp_path: Path) -> None:
    said: list[str] = []
    nowhere = tmp_path / "timescaledb"
    timescaledb.give_up(nowhere, "there is no network")
    with EmbeddedPostgres(tmp_path / "home", say=said.append, fsync=False, timescaledb_folder=nowhere) as server:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]
        query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'"
        assert run_sql(server.dsn, query) == [(0,)]


def test_a_library_that_does_not_load_is_given_up(tmp_path: Path) -> None:
    broken = tmp_path / "timescaledb"
    shutil.copytree(_library(), broken)
    (broken / "lib/timescaledb.so").write_bytes(b"\x7fELF, but not for long")
    said: list[str] = []
    for _ in range(2):
        with EmbeddedPostgres(tmp_path / "home", say=said.append, fsync=False, timescaledb_folder=broken) as server:
            assert run_sql(server.dsn, "SELECT 1") == [(1,)]
    assert len([line for line in said if "Going on with plain PostgreSQL" in line]) == 1


def test_a_library_that_loads_but_makes_no_extension_is_given_up(tmp_path: Path) -> None:
    broken = tmp_path / "timescaledb"
    shutil.copytree(_library(), broken)
    (broken / "PROVED").unlink(missing_ok=True)
    next((broken / "share/extension").glob("*.sql")).write_text("SELECT nonsense;")
    said: list[str] = []
    for _ in range(2):
        with EmbeddedPostgres(tmp_path / "home", say=said.append, fsync=False, timescaledb_folder=broken) as server:
            databases = run_sql(server.dsn, "SELECT datname FROM pg_database WHERE datname LIKE '%trial%'")
    assert len([line for line in said if "Going on with plain PostgreSQL" in line]) == 1
    assert databases == []


def test_adapting_a_library_twice_changes_nothing_more(tmp_path: Path) -> None:
    copy = tmp_path / "timescaledb.so"
    shutil.copy(_library() / "lib/timescaledb.so", copy)
    before = copy.read_bytes()
    elf.adapt(copy, glibc=(2, 34))
    elf.adapt(copy, glibc=(2, 99))
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + b"\xff" * 200, b"\x7fELF\x01\x01"],
)
def test_what_is_no_library_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.so"
    file.write_bytes(content)
    with pytest.raises(elf.CannotAdapt):
        elf.adapt(file)
    assert file.read_bytes() == content


def _library() -> Path:
    found = timescaledb.obtain(LIBRARY, say=lambda line: None)
    assert found is not None, timescaledb.unavailable_because(LIBRARY)
    return found.folder
