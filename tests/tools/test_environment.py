"""What `make run` says on machines where it can't make its environment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools import ROOT

OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\n[ "$1" = --version ]\n'
# Runs, but can make no virtual environment, as Debian's without python3-venv.
BARE_PYTHON = '#!/bin/sh\ncase "$2" in *ensurepip*|venv) exit 1 ;; esac\necho "Python 3.13.0"\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone's scripts, and beside them a PATH with little in it: `clone/bin`."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "bin").mkdir()
    for program in ("bash", "cat", "cksum", "dirname", "rm", "mktemp", "mkdir"):
        found = shutil.which(program)
        assert found
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def make_environment(clone: Path, python: str | None) -> subprocess.CompletedProcess[str]:
    if python is not None:
        (clone / "bin/python3").write_text(python)
        (clone / "bin/python3").chmod(0o755)
    return subprocess.run(
        ["bash", "scripts/environment.sh", "run"],
        check=False,
        cwd=clone,
        env={"PATH": str(clone / "bin")},
        capture_output=True,
        text=True,
    )


def test_an_old_python_is_named(clone: Path) -> None:
    done = make_environment(clone, OLD_PYTHON)
    assert done.returncode == 1
    assert "needs Python 3.11 or later; found: Python 3.9.2" in done.stderr


def test_no_python_at_all_is_explained(clone: Path) -> None:
    done = make_environment(clone, None)
    assert done.returncode == 1
    assert "needs Python 3.11 or later; found: none" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_a_python_without_venv_is_explained(clone: Path) -> None:
    done = make_environment(clone, BARE_PYTHON)
    assert done.returncode == 1
    assert "sudo apt-get install python3-venv" in done.stderr
