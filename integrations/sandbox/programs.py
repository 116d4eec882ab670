"""Which files a program needs to run: what a sandbox shows it, and where its interpreter lives."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core.errors import BadInput

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_PATH = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)


def interpreter_folders() -> list[Path]:
    """The virtual environment we run in and the Python below it: MCP servers from PyPI live there."""
    return [Path(sys.prefix), Path(sys.base_prefix)]


def search_path() -> str:
    """PATH for confined programs: our virtual environment's console scripts, then the system's."""
    return os.pathsep.join([str(Path(sys.prefix) / "bin"), *_SYSTEM_PATH])


def minimal_environment(
    environment: Mapping[str, str], *, home: str, extra_path: Sequence[Path] = ()
) -> dict[str, str]:
    """The cleared environment of a confined program, with `environment` laid over it."""
    path = os.pathsep.join([search_path(), *(str(folder) for folder in extra_path)])
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", "TMPDIR": "/tmp"} | dict(environment)  # noqa: S108


def locate(program: str, workspace: Path) -> Path:
    """Where `program` is: absolute, relative to the workspace, or on the service's own PATH.

    Raises BadInput where there is none.
    """
    if os.sep in program:
        found = program if os.path.isabs(program) else str(workspace / program)
        if os.access(found, os.X_OK) and os.path.isfile(found):
            return Path(found)
    else:
        where = shutil.which(program, path=search_path() + os.pathsep + os.environ.get("PATH", ""))
        if where is not None:
            return Path(where)
    raise BadInput(f"The program {program!r} is not on this machine, or may not be executed.")


def folders_of(command: Sequence[str], program: Path) -> Iterator[Path]:
    """Folders outside the system's that `command` needs to be able to read.

    The installation `program` belongs to (its prefix, where it lies in a `bin`), and those of absolute
    paths among the arguments: a path given to a server by an administrator is meant to be read.
    """
    for candidate in (
        program,
        program.resolve(),
        *(Path(part) for part in command[1:] if os.path.isabs(part)),
    ):
        if candidate.exists() and not _is_system(candidate):
            yield _installation(candidate)


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS)


def _installation(path: Path) -> Path:
    """The smallest folder that a program at `path` runs from."""
    parts = path.parts
    if "node_modules" in parts:
        return Path(*parts[: parts.index("node_modules") + 1])
    if path.is_dir():
        return path
    if path.parent.name == "bin":
        return path.parent.parent
    return path
