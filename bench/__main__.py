"""`python -m bench`: seeds a database of its own, starts the servers, measures, prints the tables, and ends it all."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import orjson
import uvloop

from bench.measure import Bench
from bench.metrics import CALLS
from bench.parts import PARTS, Parts
from bench.peers import node
from bench.processes import ROOT, allow_open_files, database_pid, python
from bench.report import Report
from bench.rooms import PEOPLE
from bench.seed import SCALES, Seeded, seed
from integrations.postgres.embedded import EmbeddedPostgres

SPARE_FILES = 500
"""What a process has open besides the sockets of subscribers, and more."""


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="how many rows are seeded")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians over them are reported")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--only", type=_parts, default=set(PARTS), help=f"the parts to run, of: {','.join(PARTS)}")
    parser.add_argument(
        "--subscribers",
        type=_numbers,
        default=[100, 500, 2000, 5000],
        help="sizes of the audience; all rounds are for the one nearest to 500, one round for the others",
    )
    parser.add_argument("--people", type=int, default=PEOPLE, help="how many work in one session together")
    parser.add_argument("--calls", type=_numbers, default=list(CALLS), help="tool calls that metrics are read of")
    parser.add_argument("--peers", action="store_true", help="also measure servers of Node.js, installed from npm")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    # A polite end from outside ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = uvloop.run(_run(options))
    print(report.markdown())
    if options.json:
        options.json.write_bytes(orjson.dumps(report.plain(), option=orjson.OPT_INDENT_2))


async def _run(options: argparse.Namespace) -> Report:
    node_version = node.install() if options.peers else None
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-bench-"))
    folder.chmod(0o711)  # the database's own user, where there is one, must get at its folder
    try:
        with ExitStack() as stack:
            _say("Starting a database …")
            postgres = EmbeddedPostgres(folder, say=_say, timescaledb_folder=ROOT / ".tools" / "timescaledb")
            stack.enter_context(postgres)
            files = allow_open_files(max(options.subscribers) + SPARE_FILES)
            token = secrets.token_urlsafe(32)
            environment = _environment(postgres.dsn, folder / "home", token)
            _say("Migrating …")
            await asyncio.to_thread(_migrate, environment)
            _say("Seeding …")
            seeded = await seed(postgres.dsn, SCALES[options.scale], _say)
            _say(f"  in {seeded.seconds:.0f} s")
            parts = Parts(
                Bench(token, database_pid(folder / "postgres"), options.rounds, options.seconds),
                seeded,
                postgres,
                environment,
                folder,
                Report(_machine(node_version), _data(seeded)),
                peers=options.peers,
                calls=options.calls,
            )
            gc.freeze()
            gc.disable()  # a pause of the client is not a latency of the server
            sizes = [size for size in options.subscribers if size + SPARE_FILES <= files]
            if left_out := sorted(set(options.subscribers) - set(sizes)):
                names = ", ".join(f"{size:,}" for size in left_out)
                parts.report.notes.append(
                    f"Left out: {names} subscribers. A process may have {files:,} files open here."
                )
            await parts.run(options.only, sizes, people=options.people)
            return parts.report
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parts(text: str) -> set[str]:
    chosen = set(text.split(","))
    if unknown := chosen - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return chosen


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _environment(dsn: str, home: Path, token: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "QUARTERDECK_DATABASE_URL": dsn,
        "QUARTERDECK_HOME": str(home),
        "QUARTERDECK_BOOTSTRAP_TOKEN": token,
        "QUARTERDECK_SECRET_KEY": secrets.token_urlsafe(40),
        "QUARTERDECK_LOG_LEVEL": "WARNING",
    }


def _migrate(environment: dict[str, str]) -> None:
    subprocess.run(python("app.cli", "migrate"), env=environment, cwd=ROOT, check=True, stdout=sys.stderr)


def _machine(node_version: str | None) -> str:
    of_node = f", Node.js {node_version.lstrip('v')}" if node_version else ""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}{of_node}, everything on it."
    )


def _data(seeded: Seeded) -> str:
    return (
        f"{len(seeded.session_ids):,} sessions, {seeded.messages:,} messages, "
        f"{seeded.tool_executions:,} tool executions."
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
