"""What the programs in sandboxes use, by /proc: a program belongs to the session in whose directory it, or a program
that started it, works. Nothing where the system has no /proc, or does not let us look.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

MOST_FILES = 20_000
"""Entries of a directory that are looked at; what is beyond is not measured."""


@dataclass(slots=True)
class Use:
    """What one session's programs use at a moment."""

    organization_id: UUID
    session_id: UUID
    memory_bytes: int = 0
    cpu_seconds: dict[tuple[int, int], float] = field(default_factory=dict)
    """Since its start, by process (its number and when it started)."""


def sandbox_usage(workspaces: Path, proc: Path = Path("/proc")) -> list[Use]:
    """What the programs use that run in the working directories of sessions on this host."""
    parents: dict[int, int] = {}
    found: dict[int, _Process] = {}
    owners: dict[int, tuple[UUID, UUID]] = {}
    for process in _processes(proc):
        parents[process.pid], found[process.pid] = process.parent, process
        if (owner := _owner(process.directory, workspaces)) is not None:
            owners[process.pid] = owner
    uses: dict[tuple[UUID, UUID], Use] = {}
    for process in found.values():
        owner, pid = owners.get(process.pid), process.pid
        for _ in range(100):  # a process that starts meanwhile may have the number of one that is gone
            if owner is not None or pid not in parents:
                break
            pid = parents[pid]
            owner = owners.get(pid)
        if owner is not None:
            use = uses.setdefault(owner, Use(*owner))
            use.memory_bytes += process.memory_bytes
            use.cpu_seconds[process.pid, process.started] = process.cpu_seconds
    return list(uses.values())


def disk_bytes(directory: Path) -> int | None:
    """What a directory's files take on the disk, of its first MOST_FILES entries; None where there is none."""
    total, left = 0, MOST_FILES
    folders = [str(directory)]
    if not directory.is_dir():
        return None
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if left <= 0:
                        break
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue  # gone meanwhile, or not ours to read
    return total


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    started: int
    cpu_seconds: float
    memory_bytes: int
    directory: str


def _processes(proc: Path) -> Iterator[_Process]:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        if not name.isdigit():
            continue
        try:
            # The program's name stands in brackets, and may have any characters.
            fields = (proc / name / "stat").read_text(errors="replace").rpartition(")")[2].split()
            directory = os.readlink(proc / name / "cwd")
        except OSError:
            continue
        yield _Process(
            int(name),
            int(fields[1]),
            int(fields[19]),
            (int(fields[11]) + int(fields[12])) / ticks,
            int(fields[21]) * page,
            directory,
        )


def _owner(directory: str, workspaces: Path) -> tuple[UUID, UUID] | None:
    try:
        organization, session = Path(directory).relative_to(workspaces).parts[:2]
        return UUID(organization), UUID(session)
    except ValueError:
        return None
