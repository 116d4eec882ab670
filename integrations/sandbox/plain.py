"""No confinement: for machines without bubblewrap. The environment is cleared all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from integrations.sandbox.base import SandboxedCommand
from integrations.sandbox.programs import locate, minimal_environment


class PlainSandbox:
    """Runs programs as the service's own user, who can read what the service can."""

    name: Literal["bubblewrap", "none"] = "none"

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
        return SandboxedCommand(
            argv=(str(program), *command[1:]),
            environment=minimal_environment(
                environment,
                home=str(home or workspace),
                extra_path=[program.parent, program.resolve().parent],
            ),
            directory=workspace,
        )
