"""Servers of the Node.js world, for `python -m bench --peers`. Packages come from npm, by the lock file here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = Path(__file__).parents[3] / ".tools" / "bin"
_INSTALL_SECONDS = 300


class NoNode(Exception):
    """Node.js or its packages cannot be had here; the message says what to do."""


def command(kind: str, port: int, dsn: str) -> list[str]:
    """How to run a peer: `yoga` (with graphql-ws for sockets) or `mercurius`. Installs the packages at first."""
    path = os.pathsep.join((os.environ.get("PATH", ""), str(TOOLS)))
    node, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if node is None or npm is None:
        raise NoNode("--peers needs node and npm (Node.js 20 or later) in PATH; leave it out for the other peers.")
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        done = subprocess.run([npm, "ci", "--silent"], cwd=HERE, timeout=_INSTALL_SECONDS, stdout=sys.stderr)
        if done.returncode != 0:
            raise NoNode(f"npm could not install the peers in {HERE}; leave --peers out for the other peers.")
    return [node, str(HERE / "server.mjs"), kind, str(port), dsn]
