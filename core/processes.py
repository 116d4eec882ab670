"""Starting programs so that all of what they start can be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


async def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    stdin: bool = False,
    merge_stderr: bool = False,
) -> Process:
    """Start a program as leader of its own process group, with exactly this environment and piped output.

    Call it from a thread that lives as long as the program may: sandboxed ones die with the thread that started them.
    Raises OSError where it cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        env=dict(environment),
        cwd=directory,
        stdin=PIPE if stdin else DEVNULL,
        stdout=PIPE,
        stderr=STDOUT if merge_stderr else PIPE,
        start_new_session=True,
    )


async def end(process: Process, *, grace_seconds: float = 0.0) -> None:
    """Stop a program and its whole group: politely for `grace_seconds`, then by SIGKILL.

    Returns when the leader is reaped. Safe to call twice, and finishes even when cancelled.
    """
    if grace_seconds > 0 and process.returncode is None:
        _signal(process, signal.SIGTERM)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(exited(process), grace_seconds)
    # The group outlives a leader that is already gone.
    _signal(process, signal.SIGKILL)
    await to_the_end(exited(process))
    # A pipe that nobody reads any more never reports its end, and keeps its transport open for ever.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be left half done, such as stopping processes, even if the caller is cancelled.

    The cancellation is raised once the work is over: use it for work that ends by itself, and soon.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = not task.cancelled()
    if cancelled:
        raise asyncio.CancelledError
    return task.result()


def _signal(process: Process, number: signal.Signals) -> None:
    # The leader's pid is the group's id; getpgid fails once the leader is reaped.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def exited(process: Process) -> None:
    """Wait for the exit alone: `Process.wait` also waits for pipes that a surviving child may hold open."""
    while process.returncode is None:
        await asyncio.sleep(0.01)
