"""Which sandbox works on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from core.errors import Unavailable
from core.settings import Settings
from integrations.sandbox.base import SandboxReport
from integrations.sandbox.bubblewrap import BubblewrapSandbox
from integrations.sandbox.plain import PlainSandbox


def detect(settings: Settings) -> SandboxReport:
    """The sandbox to use and why, by trying it once in this process.

    Raises Unavailable where the settings insist on bubblewrap and it does not work here.
    """
    if settings.sandbox == "none":
        return SandboxReport(PlainSandbox(), False, "Tools are not confined: QUARTERDECK_SANDBOX=none.")
    problem = _problem(settings.data)
    if problem is None:
        program = shutil.which("bwrap")
        assert program is not None
        sandbox = BubblewrapSandbox(Path(program), settings.data, settings.sandbox_read_paths)
        return SandboxReport(sandbox, True, f"Tools run inside bubblewrap ({program}).")
    if settings.sandbox == "bubblewrap":
        raise Unavailable(f"QUARTERDECK_SANDBOX=bubblewrap, but {problem}")
    return SandboxReport(PlainSandbox(), False, f"Tools are not confined: {problem}")


@lru_cache(maxsize=8)
def _problem(data: Path) -> str | None:
    """Why bubblewrap cannot be used; None where a confined Python ran."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt-get install bubblewrap)."
    with tempfile.TemporaryDirectory() as folder:
        wrapped = BubblewrapSandbox(Path(program), data).wrap(
            [sys.executable, "-c", "print('confined')"],
            workspace=Path(folder).resolve(),
            environment={},
            network=False,
        )
        try:
            tried = subprocess.run(
                wrapped.argv,
                env=dict(wrapped.environment),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not start: {error}."
    if tried.stdout.strip() == "confined":
        return None
    said = (tried.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"bubblewrap does not work here: {said}"
