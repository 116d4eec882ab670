"""Servers of the Node.js world, for `python -m bench --peers`. Packages come from npm, by the lock file here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = Path(__file__).parents[3] / ".tools" / "bin"
LEAST_VERSION = 22
"""PostGraphile 5 starts on older ones, and then answers nothing."""
ENVIRONMENT = {"NODE_ENV": "production", "GRAPHILE_ENV": "production"}
_INSTALL_SECONDS = 600


class NoNode(Exception):
    """Node.js or its packages cannot be had here; the message says what to do."""


def command(kind: str, port: int, dsn: str, *more: str) -> list[str]:
    """How to run a peer: `yoga` (with graphql-ws for sockets), `mercurius` or `postgraphile`."""
    script = ["postgraphile.mjs"] if kind == "postgraphile" else ["server.mjs", kind]
    return [_found("node"), "--expose-gc", str(HERE / script[0]), *script[1:], str(port), dsn, *more]


def install() -> str:
    """Install the packages where they are not; the version of Node.js. Raises NoNode."""
    version = subprocess.run([_found("node"), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < LEAST_VERSION:
        raise NoNode(f"--peers needs Node.js {LEAST_VERSION} or later, and finds {version}.")
    installed, wanted = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        npm = [_found("npm"), "ci", "--silent", "--no-audit", "--no-fund"]
        done = subprocess.run(
            npm, cwd=HERE, env=os.environ | {"PATH": _path()}, timeout=_INSTALL_SECONDS, stdout=sys.stderr
        )
        if done.returncode != 0:
            raise NoNode(f"npm could not install the peers in {HERE}; leave --peers out for the other peers.")
        installed.touch()
    return version


def _found(program: str) -> str:
    found = shutil.which(program, path=_path())
    if found is None:
        raise NoNode(
            f"--peers needs {program} (Node.js {LEAST_VERSION} or later) in PATH; leave it out for the others."
        )
    return found


def _path() -> str:
    """The project's own tools first: they are of the same version for everybody."""
    return os.pathsep.join((str(TOOLS), os.environ.get("PATH", "")))
