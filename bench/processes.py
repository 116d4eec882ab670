"""The processes of a bench: started, measured by what /proc says of them, and ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 20.0
QUIET_SECONDS, MOST_QUIET_SECONDS, LOOK_SECONDS = 0.2, 20.0, 0.04
_TICKS = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class NotStarted(Exception):
    """A process of the bench did not come up; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the bench, and where its output goes."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    name: str, command: list[str], environment: dict[str, str], folder: Path, port: int = 0
) -> Iterator[Running]:
    """A process, ended with everything it started when the context is left."""
    log = folder / f"{name.replace(' ', '-')}.log"
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=kept | environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        yield Running(name, port, process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(running: Running) -> None:
    """Wait until a server answers. Raises NotStarted."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and running.process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{running.port}/readyz", timeout=2) as response:
                if response.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    raise NotStarted(f"{running.name} did not start:\n{running.log.read_text(errors='replace')[-2000:]}")


def product(*arguments: str) -> list[str]:
    """A command of the product, as it is but for one thing: it can be told to collect its garbage (`rested`)."""
    return python("bench.resting", "app.cli", *arguments)


def python(*arguments: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, "-m", *arguments]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, with that of its ended children."""
    return sum(_times(pid))


def cpu_seconds_of_tree(pid: int) -> float:
    """CPU time of a process and its children: a database server has a process per connection.

    A child that ends is counted by its parent as soon as the parent has waited for it.
    """
    return sum(_times(pid)) + sum(sum(_times(child)) for child in _children(pid))


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


async def quiet(pid: int) -> float:
    """Wait until a process has had nothing to do for a while; the moment (perf_counter) since when."""
    began = since = time.perf_counter()
    cpu = cpu_seconds(pid)
    while since + QUIET_SECONDS > (now := time.perf_counter()) and now < began + MOST_QUIET_SECONDS:
        await asyncio.sleep(LOOK_SECONDS)
        # One tick more is what any process has now and then.
        if (found := cpu_seconds(pid)) - cpu > 1.5 / _TICKS:
            since = time.perf_counter()
        cpu = found
    return since


async def rested(pid: int) -> None:
    """Have a server collect its garbage, and wait until it has nothing to do: what it holds now, it needs."""
    await quiet(pid)
    os.kill(pid, signal.SIGUSR2)
    await quiet(pid)


def allow_open_files(wanted: int) -> int:
    """Let this process and its children have so many files, and so sockets, open, or as many as the system allows.

    Returns how many that is.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return allowed


def database_pid(data_folder: Path) -> int:
    """The postmaster of a data folder."""
    return int((data_folder / "postmaster.pid").read_text().splitlines()[0])


def _end_with_parent() -> None:
    """Have Linux end this process when the bench is killed without a chance to do it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _times(pid: int) -> list[float]:
    try:
        # The command's name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return [0.0]
    return [int(value) / _TICKS for value in fields[11:15]]


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return found
