"""The secret of the installation, and what is made of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.crypto import Vault, installation_secret
from core.errors import Unavailable

ROOT = Path(__file__).parents[2]


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    secret = installation_secret(None, tmp_path)
    assert len(secret) >= 32
    assert installation_secret(None, tmp_path) == secret
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("left", [b"", b"half of a k"])
def test_a_damaged_secret_is_refused(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "secret.key").write_bytes(left)
    with pytest.raises(Unavailable, match=r"secret\.key is damaged.*QUARTERDECK_SECRET_KEY"):
        installation_secret(None, tmp_path)
    assert (tmp_path / "secret.key").read_bytes() == left


def test_a_crash_while_the_secret_is_made_leaves_none(tmp_path: Path) -> None:
    """The process dies where the bytes go to the disk; the next one makes a whole secret."""
    script = """
import os, secrets, signal, sys
from pathlib import Path
from core.crypto import installation_secret
secrets.token_urlsafe = lambda count: os.kill(os.getpid(), signal.SIGKILL)
installation_secret(None, Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(installation_secret(None, tmp_path)) >= 32


def test_of_two_processes_one_makes_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: str, target: Path) -> None:
        (tmp_path / "secret.key").write_bytes(b"the other was first, with this: 0123456789")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert installation_secret(None, tmp_path) == b"the other was first, with this: 0123456789"


def test_a_fingerprint_tells_secrets_apart() -> None:
    assert Vault(b"a" * 40).fingerprint == Vault(b"a" * 40).fingerprint != Vault(b"b" * 40).fingerprint
