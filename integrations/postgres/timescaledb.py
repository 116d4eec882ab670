"""Fetches TimescaleDB's Apache edition for the embedded PostgreSQL, without root and without installing anything.

Debian and Ubuntu package it. apt-get does the work, with the mirror, proxies and keys of the machine's own
configuration but lists and caches in a temporary folder; apt checks the signatures. The result is a folder of ours:

    lib/timescaledb.so, lib/timescaledb-VERSION.so     for dynamic_library_path
    share/extension/timescaledb.control, …sql          for extension_control_path (PostgreSQL 18 and later)
    doc/                                               the licence texts of the package
    VERSION                                            version of the extension
    PROVED                                             there once a server has used it with success
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from integrations.postgres import elf

POSTGRES_MAJOR = 18
_PACKAGE = f"postgresql-{POSTGRES_MAJOR}-timescaledb"
_RETRY_AFTER_SECONDS = 24 * 3600
_PATIENCE_SECONDS = 120
_OPENSSL = "libssl.so.3"
# Security and support archives have the same layout, but not all packages.
_MIRROR = re.compile(r"(?!.*//(security|esm)\.).*/(debian|ubuntu|ubuntu-ports)")


@dataclass(frozen=True)
class _Distribution:
    """Where a family of distributions keeps the package, and the keys that sign it."""

    suite: str
    component: str
    keyring: str


_DISTRIBUTIONS = {
    "debian": _Distribution("forky", "main", "/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": _Distribution("resolute", "universe", "/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}


class NotToBeHad(Exception):
    """TimescaleDB can't be fetched here; the message says why in one line."""


@dataclass(frozen=True)
class TimescaleDB:
    """A fetched TimescaleDB."""

    folder: Path

    @property
    def version(self) -> str:
        """Version of the extension, such as `2.31.0`."""
        return (self.folder / "VERSION").read_text().strip()

    def settings(self) -> dict[str, str]:
        """Settings with which a server loads it."""
        return {
            "shared_preload_libraries": "timescaledb",
            "extension_control_path": f"{self.folder}/share:$system",
            "dynamic_library_path": f"{self.folder}/lib:$libdir",
            "timescaledb.telemetry_level": "off",
            # The Apache edition refuses its own background jobs, and they would hold databases open.
            "timescaledb.max_background_workers": "0",
        }

    def environment(self) -> dict[str, str]:
        """Variables with which a server loads it: some versions call OpenSSL, which our server does not bring."""
        try:
            ctypes.CDLL(_OPENSSL)
        except OSError:
            return {}
        return {"LD_PRELOAD": _OPENSSL}

    @property
    def is_proved(self) -> bool:
        """Whether a server has used it with success."""
        return (self.folder / "PROVED").exists()

    def mark_proved(self) -> None:
        """Note that a server has used it with success."""
        (self.folder / "PROVED").touch()


def obtain(folder: Path, *, say: Callable[[str], None]) -> TimescaleDB | None:
    """TimescaleDB from `folder`, fetched into it at the first call; None where it can't be had.

    A failure is said once, remembered beside the folder, and not tried again for a day. Raises OSError where the
    folder can't be written to.
    """
    if (folder / "VERSION").exists():
        return TimescaleDB(folder)
    memory = _memory(folder)
    if memory.exists() and time.time() - memory.stat().st_mtime < _RETRY_AFTER_SECONDS:
        return None
    say("Fetching TimescaleDB from the system's package mirror …")
    try:
        found = fetch(folder)
    except NotToBeHad as reason:
        say(give_up(folder, str(reason)))
        return None
    memory.unlink(missing_ok=True)
    say(f"TimescaleDB {found.version} is ready.")
    return found


def give_up(folder: Path, reason: str) -> str:
    """Remember for a day that TimescaleDB can't be used here; the line that tells people."""
    _memory(folder).write_text(reason + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    return f"Going on with plain PostgreSQL, TimescaleDB can't be had: {reason}"


def unavailable_because(folder: Path) -> str | None:
    """Why TimescaleDB is not in `folder`, if fetching it failed lately."""
    memory = _memory(folder)
    return memory.read_text().strip() if memory.exists() and not (folder / "VERSION").exists() else None


def fetch(folder: Path) -> TimescaleDB:
    """Fetch the package into `folder`, whole or not at all. Raises NotToBeHad."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".timescaledb-", dir=folder.parent) as name:
        work = Path(name)
        package = _download(work)
        _run(["dpkg-deb", "-x", str(package), str(work / "tree")])
        _pick(work / "tree", work / "result")
        try:
            (work / "result").rename(folder)
        except OSError:  # somebody else was quicker
            if not (folder / "VERSION").exists():
                raise
    return TimescaleDB(folder)


def _download(work: Path) -> Path:
    """The verified package file, with everything apt writes kept below `work`."""
    if platform.system() != "Linux" or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise NotToBeHad("this is no Debian or Ubuntu system (apt-get and dpkg-deb are needed)")
    distribution = _distribution()
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (work / "status").touch()
    signed_by = f"[signed-by={distribution.keyring}] " if Path(distribution.keyring).exists() else ""
    (work / "sources.list").write_text(f"deb {signed_by}{_mirror()} {distribution.suite} {distribution.component}\n")
    (work / "apt.conf").write_text(
        f"""\
Dir::Etc::SourceList "{work}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{work}";
Dir::State::Lists "{work}/lists";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Debug::NoLocking "1";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
Acquire::Check-Valid-Until "false";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
    )
    # Check-Valid-Until: lists are valid for a week, and some mirrors lag; the signature is checked all the same.
    apt = ["apt-get", "-q", f"-c={work}/apt.conf"]
    _run([*apt, "-o", "APT::Update::Error-Mode=any", "update"])
    _run([*apt, "download", _PACKAGE], cwd=work)
    return next(work.glob(f"{_PACKAGE}_*.deb"))


def _distribution() -> _Distribution:
    found = platform.freedesktop_os_release()
    for name in (found.get("ID", ""), *found.get("ID_LIKE", "").split()):
        if name in _DISTRIBUTIONS:
            return _DISTRIBUTIONS[name]
    raise NotToBeHad(f"{found.get('NAME', 'this system')} is neither Debian nor Ubuntu")


def _mirror() -> str:
    """The distribution's mirror in the machine's own apt configuration, whether or not it was ever updated."""
    for line in _run(["apt-get", "update", "--print-uris"]).splitlines():
        uri = line.removeprefix("'").partition("/dists/")[0]
        if _MIRROR.fullmatch(uri):
            return uri
    raise NotToBeHad("apt's configuration names no Debian or Ubuntu mirror")


def _pick(tree: Path, result: Path) -> None:
    """Copy what a server loads out of the unpacked package, and make the libraries fit this system."""
    libraries = tree / f"usr/lib/postgresql/{POSTGRES_MAJOR}/lib"
    extension = tree / f"usr/share/postgresql/{POSTGRES_MAJOR}/extension"
    try:
        found = re.search(r"default_version *= *'(.+)'", (extension / "timescaledb.control").read_text())
        version = found[1] if found else "unknown"
        for part in ("lib", "share/extension", "doc"):
            (result / part).mkdir(parents=True)
        for name in ("timescaledb.so", f"timescaledb-{version}.so"):
            shutil.copy(libraries / name, result / "lib")
            elf.adapt(result / "lib" / name)
        for name in ("timescaledb.control", f"timescaledb--{version}.sql"):
            shutil.copy(extension / name, result / "share/extension")
        for name in ("copyright", "NOTICE"):
            shutil.copy(tree / "usr/share/doc" / _PACKAGE / name, result / "doc")
    except (OSError, elf.CannotAdapt) as error:
        raise NotToBeHad(f"the package does not fit this system: {error}") from error
    (result / "VERSION").write_text(version + "\n")


def _run(command: list[str], *, cwd: Path | None = None) -> str:
    """Standard output of a command; raises NotToBeHad with its own first complaint."""
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NotToBeHad(f"{command[0]} took more than {_PATIENCE_SECONDS} seconds") from error
    if done.returncode != 0:
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", command[0]))]
        raise NotToBeHad((complaints or [f"{command[0]} failed"])[0])
    return done.stdout


def _memory(folder: Path) -> Path:
    return folder.with_name(folder.name + "-unavailable")
