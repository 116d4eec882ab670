"""Fetches the programs that tests need and the machine lacks: `python -m tests.tools`."""

from __future__ import annotations

import subprocess
import sys

from integrations.postgres import timescaledb
from tests.tools import (
    ALERTMANAGER_NAMES,
    BIN,
    CHROMIUM_NAMES,
    ROOT,
    TOOLS,
    MissingTool,
    node_path,
    npm_install,
    search,
)

# Program -> (names it may have, packages of Debian that bring it)
PACKAGED = {
    "redis-server": (("redis-server",), ("redis-server",)),
    "bwrap": (("bwrap",), ("bubblewrap",)),
    "pgrep": (("pgrep",), ("procps",)),
    "chromium": (CHROMIUM_NAMES, ("chromium", "fonts-dejavu-core")),
    "prometheus-alertmanager": (ALERTMANAGER_NAMES, ("prometheus-alertmanager",)),
}
DEBS = TOOLS / "debs"


def main() -> None:
    """Fetch everything that is missing; the exit status says whether all is here."""
    BIN.mkdir(parents=True, exist_ok=True)
    troubles = [*fetch_packages(), *install_node_projects()]
    timescaledb.obtain(TOOLS / "timescaledb", say=print)
    why = timescaledb.unavailable_because(TOOLS / "timescaledb")
    if why:
        troubles.append(f"TimescaleDB: {why}")
    if troubles:
        sys.exit("The tests need what can't be fetched here:\n  " + "\n  ".join(troubles))


def fetch_packages() -> list[str]:
    """Unpack missing programs of the distribution below .tools; what went wrong."""
    missing = {program: packages for program, (names, packages) in PACKAGED.items() if search(*names) is None}
    if not missing:
        return []
    print(f"Fetching {', '.join(missing)} …", flush=True)  # noqa: T201 - a program
    packages = [package for some in missing.values() for package in some]
    done = subprocess.run([ROOT / "scripts/unpack-debs.sh", DEBS, *packages], check=False, stderr=subprocess.PIPE)
    if done.returncode != 0:
        return [f"{program}: {done.stderr.decode().strip()}. Install it yourself." for program in missing]
    for program in missing:
        write_wrapper(program)
    return []


def write_wrapper(program: str) -> None:
    """A script in .tools/bin that runs an unpacked program with the libraries that were unpacked with it."""
    target = DEBS / "usr/lib/chromium/chromium" if program == "chromium" else DEBS / "usr/bin" / program
    lines = []
    # Only where it is needed: what a sandbox runs would inherit it.
    if "not found" in subprocess.run(["ldd", target], check=False, capture_output=True, text=True).stdout:
        libraries = [*DEBS.glob("usr/lib/*-linux-gnu/**/*.so*"), *DEBS.glob("lib/*-linux-gnu/**/*.so*")]
        folders = sorted({library.parent for library in libraries})
        lines.append(f"export LD_LIBRARY_PATH='{':'.join(map(str, folders))}'")
    if program == "chromium":
        fonts = TOOLS / "fonts.conf"
        fonts.write_text(
            '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
            f"<dir>{DEBS}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>"
            f"<cachedir>{TOOLS}/fontcache</cachedir></fontconfig>\n"
        )
        lines.append(f"export FONTCONFIG_FILE='{fonts}'")
    command = f"'{target}'"
    if program == "prometheus-alertmanager":
        # Debian's looks for its template in one place only.
        templates = DEBS / "usr/share/prometheus"
        mounts = f"--dev-bind / / --tmpfs /usr/share --ro-bind '{templates}' /usr/share/prometheus"
        command = f"'{search('bwrap')}' {mounts} --die-with-parent {command}"
    lines.append(f'exec {command} "$@"')
    write_script(program, lines)


def install_node_projects() -> list[str]:
    """Put Node.js and npm into .tools/bin, and install every Node project of the tests; what went wrong."""
    try:
        node = node_path()
        link = BIN / "node"
        link.unlink(missing_ok=True)
        link.symlink_to(node)
        for program in ("npm", "npx"):
            # The wheel's own scripts are copies of links, which look for their parts in the wrong place.
            script = node.parents[1] / f"lib/node_modules/npm/bin/{program}-cli.js"
            write_script(program, [f"exec '{node}' '{script}' \"$@\""])
        for lock in sorted((ROOT / "tests").glob("**/package-lock.json")):
            if "node_modules" not in lock.parts:
                npm_install(lock.parent)
    except MissingTool as error:
        return [str(error)]
    return []


def write_script(name: str, lines: list[str]) -> None:
    """An executable shell script in .tools/bin."""
    script = BIN / name
    script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    script.chmod(0o755)


if __name__ == "__main__":
    main()
