"""Confinement by bubblewrap: own namespaces, a read-only system, one writable folder.

What a program sees: the system's programs and libraries, the Python environment of the service and
the installation the program itself belongs to (all read-only), an empty /tmp and HOME, and its
workspace at the same path as outside. What it does not: the rest of the data folder (other
workspaces, database, keys), the homes of users, processes outside, and, unless it is given the
network, any socket. It holds no capabilities and dies with the service.

As root, programs run as uid 0 without capabilities, so that they own the workspace they write to. The
kernel lets uid 0 write its settings in /proc even so: those are made read-only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from core.errors import BadInput
from integrations.sandbox.base import SandboxedCommand
from integrations.sandbox.programs import (
    SYSTEM_FOLDERS,
    folders_of,
    interpreter_folders,
    locate,
    minimal_environment,
)

_HOME = "/tmp/home"  # noqa: S108 - a private /tmp, inside
_KERNEL_SETTINGS = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
_ETC = (
    "alternatives",
    "ca-certificates",
    "group",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "pki",
    "resolv.conf",
    "ssl/certs",
    "ssl/openssl.cnf",
    "timezone",
)


class BubblewrapSandbox:
    """Confines programs with the `bwrap` at `program`; `read_only` is what they may all read.

    Of `data` they see their own workspace only.
    """

    name: Literal["bubblewrap", "none"] = "bubblewrap"

    def __init__(self, program: Path, data: Path, read_only: Sequence[Path] = ()) -> None:
        self._program = program
        self._data = data
        self._read_only = read_only

    def wrap(
        self,
        command: Sequence[str],
        *,
        workspace: Path,
        environment: Mapping[str, str],
        network: bool,
        home: Path | None = None,
        read_only: Sequence[Path] = (),
    ) -> SandboxedCommand:
        program = locate(command[0], workspace)
        needed = [path for path in folders_of(command, program) if not path.is_relative_to(workspace)]
        argv = [
            str(self._program),
            "--die-with-parent",
            "--new-session",
            "--unshare-all",
            "--cap-drop",
            "ALL",
        ]
        if network:
            argv.append("--share-net")
        argv += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108
        for name in _KERNEL_SETTINGS:
            argv += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
        argv += _system()
        for path in _outermost([*interpreter_folders(), *self._read_only, *needed, *read_only]):
            argv += ["--ro-bind", str(self._harmless(path)), str(path)]
        argv += ["--bind", str(workspace), str(workspace)]
        argv += ["--bind", str(home), str(home)] if home is not None else ["--dir", _HOME]
        argv += ["--chdir", str(workspace), "--", str(program), *command[1:]]
        return SandboxedCommand(
            argv=tuple(argv),
            environment=minimal_environment(
                environment,
                home=str(home or _HOME),
                extra_path=[program.parent, program.resolve().parent],
            ),
            directory=workspace,
        )

    def _harmless(self, path: Path) -> Path:
        """Refuse what would show the data folder, or somebody's whole home, to the program."""
        real = path.resolve()
        if real.is_relative_to(self._data) or self._data.is_relative_to(real):
            raise BadInput(f"{path} holds the service's data, and cannot be shown to a confined program.")
        if Path.home().resolve().is_relative_to(real):
            raise BadInput(f"{path} holds a home folder; name a folder inside it that has only what is needed.")
        return path


def _system() -> list[str]:
    argv: list[str] = []
    for folder in SYSTEM_FOLDERS:
        if os.path.islink(folder):
            argv += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            argv += ["--ro-bind", folder, folder]
    for name in _ETC:
        argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return argv


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie in no other one and not in the system's folders, each once."""
    found: list[Path] = []
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        if not any(path.is_relative_to(other) for other in [*found, *map(Path, SYSTEM_FOLDERS)]):
            found.append(path)
    return found
