"""The launcher of the embedded server: starting, stopping, sharing, and what crashes leave."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psycopg
import pytest
from tortoise.backends.base.config_generator import expand_db_url

from core.errors import Unavailable
from integrations.postgres import embedded as launching
from integrations.postgres import processes
from tests.integrations.postgres.launchers import (
    embedded,
    eventually,
    launch,
    launcher,
    run_sql,
)

KEEP = ("CREATE TABLE kept (x int)", "INSERT INTO kept VALUES (1)")
COUNT = "SELECT count(*) FROM kept"


@pytest.fixture
def home() -> Iterator[Path]:
    """Shorter than `tmp_path`, which leaves no room for a socket where tests run side by side."""
    with tempfile.TemporaryDirectory(prefix="qd-") as folder:
        yield Path(folder) / "home"


def test_the_first_start_makes_a_database_and_later_starts_keep_it(home: Path) -> None:
    said: list[str] = []
    with embedded(home, said) as server:
        run_sql(server.dsn, *KEEP)
    assert any("Making the database" in line for line in said)

    said.clear()
    with embedded(home, said) as server:
        assert run_sql(server.dsn, COUNT) == [(1,)]
    assert said == []
    assert processes.serving(home / "postgres") == []


def test_the_database_is_utf8_with_checksums_in_utc_and_listens_on_no_network(
    home: Path,
) -> None:
    with embedded(home) as server:
        query = """SELECT current_setting('server_encoding'), current_setting('data_checksums'),
                          current_setting('timezone'), current_setting('listen_addresses'), datlocale
                   FROM pg_database WHERE datname = current_database()"""
        assert run_sql(server.dsn, query) == [("UTF8", "on", "UTC", "", "C.UTF-8")]
        assert (home / "postgres-socket").stat().st_mode & 0o777 == 0o700
        assert (home / "postgres.log").stat().st_mode & 0o077 == 0


@pytest.mark.anyio
async def test_every_client_library_understands_the_dsn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGPORT": "1",
        "PGHOST": "elsewhere.invalid",
        "PGUSER": "somebody",
    }.items():
        monkeypatch.setenv(name, value)
    with embedded(home) as server:
        connection = await asyncpg.connect(server.dsn)
        assert await connection.fetchval("SELECT current_database()") == "quarterdeck"
        await connection.close()
        credentials = expand_db_url(server.dsn)["credentials"]
        assert credentials["host"] == str(home / "postgres-socket")
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]


def test_a_home_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("long-" * 30)
    with embedded(home) as server:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]
        assert str(home) not in server.dsn
        socket = Path(parse_qs(urlsplit(server.dsn).query)["host"][0])
        assert socket.stat().st_mode & 0o777 == 0o700
    assert not socket.exists()


def test_start_and_stop_can_be_repeated(home: Path) -> None:
    server = embedded(home)
    server.stop()
    assert server.start() == server.start()
    server.stop()
    server.stop()
    server.start()
    assert run_sql(server.dsn, "SELECT 1") == [(1,)]
    server.stop()


def test_a_second_process_attaches_and_leaves_the_server_running(home: Path) -> None:
    with launcher(home) as (_, dsn):
        with embedded(home) as second:
            assert second.attached
            assert second.dsn == dsn
            run_sql(dsn, *KEEP)
        assert run_sql(dsn, COUNT) == [(1,)]


def test_a_second_process_waits_for_the_first_to_finish_starting(home: Path) -> None:
    with launcher(home) as (_, dsn), launcher(home) as (_, other):
        assert dsn == other
        assert run_sql(dsn, "SELECT 1") == [(1,)]


def test_a_holder_without_a_server_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_ATTACH_PATIENCE_SECONDS", 0)
    with launcher(home) as (holder, _):
        os.kill(processes.postmaster(home / "postgres"), signal.SIGKILL)
        eventually(lambda: not processes.serving(home / "postgres"))
        with pytest.raises(Unavailable, match=f"Process {holder.pid} holds the database"):
            embedded(home).start()


def test_the_server_dies_with_a_killed_launcher(home: Path) -> None:
    with launcher(home) as (process, dsn):
        run_sql(dsn, *KEEP)
        process.kill()
        eventually(lambda: not processes.serving(home / "postgres"))
    with embedded(home) as server:
        assert run_sql(server.dsn, COUNT) == [(1,)]


def test_a_server_without_launcher_and_keeper_is_replaced(home: Path) -> None:
    with launcher(home) as (process, dsn):
        run_sql(dsn, *KEEP)
        orphan = processes.postmaster(home / "postgres")
        os.kill(_parent(orphan), signal.SIGKILL)
        process.kill()
    assert orphan in processes.serving(home / "postgres")
    said: list[str] = []
    with embedded(home, said) as server:
        assert processes.postmaster(home / "postgres") != orphan
        assert run_sql(server.dsn, COUNT) == [(1,)]
    assert any(f"process {orphan}" in line for line in said)


@pytest.mark.parametrize("with_backends", [False, True])
def test_a_killed_server_is_repaired_and_loses_nothing(home: Path, with_backends: bool) -> None:
    server = embedded(home)
    run_sql(server.start(), *KEEP)
    with closing(psycopg.connect(server.dsn)) as busy:
        busy.execute("SELECT 1")
        victims = processes.serving(home / "postgres")
        for victim in victims if with_backends else [processes.postmaster(home / "postgres")]:
            os.kill(victim, signal.SIGKILL)
        main = processes.postmaster(home / "postgres")
        eventually(lambda: not Path(f"/proc/{main}").exists())
    assert run_sql(server.start(), COUNT) == [(1,)]
    server.stop()


def test_a_number_in_a_stale_pid_file_that_now_belongs_to_another_process_is_no_obstacle(
    home: Path,
) -> None:
    with embedded(home):
        stale = (home / "postgres/postmaster.pid").read_text()
    _, _, rest = stale.partition("\n")
    (home / "postgres/postmaster.pid").write_text(f"{os.getppid()}\n{rest}")
    with embedded(home) as server:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]


def test_an_interrupted_first_start_leaves_nothing_half_made(home: Path) -> None:
    with launch(home) as first:
        eventually(lambda: any(home.glob("postgres.new-*/PG_VERSION")))
        first.kill()
    assert not (home / "postgres").exists()
    with embedded(home) as server:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]
    assert list(home.glob("postgres.new-*")) == []


def test_a_database_of_another_version_is_explained(home: Path) -> None:
    with embedded(home):
        pass
    (home / "postgres/PG_VERSION").write_text("17\n")
    with pytest.raises(Unavailable, match="made by PostgreSQL 17; this release runs 18"):
        embedded(home).start()


def test_a_folder_with_something_else_in_it_is_left_alone(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    (home / "postgres/thesis.txt").write_text("years of work")
    with pytest.raises(Unavailable, match="holds no database"):
        embedded(home).start()
    assert (home / "postgres/thesis.txt").read_text() == "years of work"


def test_an_empty_folder_is_used(home: Path) -> None:
    (home / "postgres").mkdir(parents=True)
    with embedded(home) as server:
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]


def test_a_home_that_can_not_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="set QUARTERDECK_HOME to a folder that you can write to"):
        embedded(tmp_path / "file/home").start()


def test_a_damaged_database_says_where_to_read_on(home: Path) -> None:
    with embedded(home):
        pass
    shutil.rmtree(home / "postgres/global")
    with pytest.raises(Unavailable, match=r"PostgreSQL did not start: .*postgres\.log"):
        embedded(home).start()


def test_a_large_log_is_set_aside(home: Path) -> None:
    home.mkdir()
    (home / "postgres.log").write_bytes(b"x" * 9_000_000)
    with embedded(home):
        assert (home / "postgres.log").stat().st_size < 1_000_000
        assert (home / "postgres.log.1").stat().st_size == 9_000_000


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
