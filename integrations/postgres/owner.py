"""Which user the server runs as. PostgreSQL refuses to run as root, so root steps down for it."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.errors import Unavailable

# Bits of capability sets, from linux/capability.h.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


@dataclass(frozen=True)
class Owner:
    """The user that owns the data folder and runs the server."""

    uid: int
    gid: int
    prefix: tuple[str, ...]
    """What to put before a command so that it runs as this user."""

    def give(self, path: Path) -> None:
        """Make a file or folder this user's own."""
        if self.prefix:
            os.chown(path, self.uid, self.gid)


def owner_of(data: Path, reached: Iterable[Path]) -> Owner:
    """The user for a data folder: ourselves; as root whoever owns the folder already, or else `nobody`.

    `reached` are the paths that the server must get at. Where one of them lies below a folder that is closed to that
    user (a clone in /root), root lends the server the right to pass. Raises Unavailable when nothing can be done.
    """
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise Unavailable(
                f"The database in {data} belongs to another user ({_name(data.stat().st_uid)}), perhaps since it was "
                f"made as root. Start as that user or as root, or set QUARTERDECK_HOME to a folder of your own."
            )
        return Owner(os.geteuid(), os.getegid(), ())
    if shutil.which("setpriv") is None:
        raise Unavailable(
            "PostgreSQL does not run as root, and setpriv (package util-linux), which lets it run as another user, "
            "is not there. Start as an ordinary user, or set QUARTERDECK_DATABASE_URL."
        )
    nobody = pwd.getpwnam("nobody")
    uid, gid = nobody.pw_uid, nobody.pw_gid
    if data.exists() and data.stat().st_uid != 0:
        uid, gid = data.stat().st_uid, data.stat().st_gid
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs"]
    closed = next((path for path in reached if not _passable(path)), None)
    return Owner(uid, gid, (*prefix, *(_lend_passage(closed) if closed else ["--inh-caps=-all"])))


def _passable(path: Path) -> bool:
    """Whether everybody may pass through all folders above a path."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)


def _lend_passage(closed: Path) -> list[str]:
    """Options of setpriv that keep one capability: to pass and read, or where root lacks it, to override modes."""
    held = _held_capabilities()
    for bit, name in ((_DAC_READ_SEARCH, "dac_read_search"), (_DAC_OVERRIDE, "dac_override")):
        if held >> bit & 1:
            only = f"-all,+{name}"
            # Without the secure bit, access(2) would not count a capability of anybody but root.
            return ["--securebits=+no_setuid_fixup", f"--inh-caps={only}", f"--ambient-caps={only}"]
    raise Unavailable(
        f"PostgreSQL does not run as root, and the user nobody may not reach {closed}. Move the clone or "
        f"QUARTERDECK_HOME to a folder that everybody may pass, or set QUARTERDECK_DATABASE_URL."
    )


def _held_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
