"""The data folder of the embedded server: whether it is there, and making it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from core.errors import Unavailable
from integrations.postgres.owner import Owner
from integrations.postgres.programs import program, run
from integrations.postgres.timescaledb import POSTGRES_MAJOR

DATABASE = SUPERUSER = "quarterdeck"


def is_whole(data: Path) -> bool:
    """Whether there is a database of our version. Raises Unavailable for what is there but is not that."""
    if not data.exists() or not any(data.iterdir()):
        return False
    mark = data / "PG_VERSION"
    if not mark.exists():
        raise Unavailable(f"{data} is not empty, but holds no database. Move it away, then start again.")
    major = mark.read_text().strip()
    if major != str(POSTGRES_MAJOR):
        raise Unavailable(
            f"The database in {data} was made by PostgreSQL {major}; this release runs {POSTGRES_MAJOR}. "
            f"Dump it with a release that runs {major} and restore it into a new folder, or move {data} away."
        )
    return True


def make(data: Path, owner: Owner, *, fsync: bool) -> None:
    """Make the data folder beside its place and rename it, so that an interrupted start leaves nothing half-made.

    Raises DidNotRun.
    """
    for interrupted in data.parent.glob(f"{data.name}.new-*"):
        shutil.rmtree(interrupted, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
    owner.give(fresh)
    # fmt: off
    run([*owner.prefix, str(program("initdb")), "-D", str(fresh), "--username", SUPERUSER, "--auth", "trust",
         "--encoding", "UTF8", "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
         "--data-checksums", "--no-instructions", *([] if fsync else ["--no-sync"])])
    run([*owner.prefix, str(program("postgres")), "--single", "-D", str(fresh),
         *([] if fsync else ["-c", "fsync=off"]), "template1"], words=f"CREATE DATABASE {DATABASE}\n")
    # fmt: on
    if data.exists():
        data.rmdir()
    fresh.rename(data)
