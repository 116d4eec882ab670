"""What confines the programs that agents run: the shell tool, stdio MCP servers, agent CLIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class SandboxedCommand:
    """How to spawn a confined program.

    `environment` is the whole environment of the process: give it to the spawning call, so that
    secrets are in no argument list. Spawn it as the leader of a new session and end it by killing
    its process group (`core.processes`).
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path


class Sandbox(Protocol):
    """A way to confine programs. Every kind clears the environment: nothing of the service's own leaks."""

    name: Literal["bubblewrap", "none"]

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
        """Confine `command`, started in `workspace`, the one folder of ours that it may write.

        `environment` is added to a minimal one (PATH, HOME, LANG, TMPDIR). `network` gives it the
        machine's network; without it there is none at all. `home` is a folder that it may write and
        that outlives it; without one HOME is empty and private. `read_only` are further paths it may
        read. Raises BadInput where the program does not exist.
        """
        ...


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What `doctor` says about confinement."""

    sandbox: Sandbox
    works: bool
    """Programs are confined."""
    reason: str
