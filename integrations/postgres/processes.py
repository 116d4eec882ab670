"""Finds and ends server processes that an earlier start left behind on a data folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_PATIENCE_SECONDS = {signal.SIGINT: 20.0, signal.SIGQUIT: 5.0, signal.SIGKILL: 5.0}


def serving(data: Path) -> list[int]:
    """Ids of the PostgreSQL processes, whether main or backend, that work in the data folder.

    Told by program and working directory, since the id in `postmaster.pid` may by now be somebody else's. Without
    /proc (macOS) none are found, and PostgreSQL's own interlock refuses to start beside them.
    """
    if not os.path.isdir("/proc/self"):
        return []
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _serves(entry, data)]


def end(data: Path) -> None:
    """End all of them: in order first, then without a checkpoint (the log is replayed), then by force."""
    for how, patience in _PATIENCE_SECONDS.items():
        main = postmaster(data)
        running = serving(data)
        # The main process ends its backends; they are asked themselves where it is gone.
        for process in [main] if main in running and how != signal.SIGKILL else running:
            try:
                os.kill(process, how)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while serving(data):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def postmaster(data: Path) -> int:
    """The id of the main process as `postmaster.pid` says, 0 without one."""
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def is_ready(data: Path) -> bool:
    """Whether the main process says that it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"


def _serves(process: str, data: Path) -> bool:
    try:
        program = os.readlink(f"/proc/{process}/exe").removesuffix(" (deleted)")
        return os.path.basename(program) == "postgres" and os.readlink(f"/proc/{process}/cwd") == str(data)
    except OSError:  # ended meanwhile, or another user's
        return False
