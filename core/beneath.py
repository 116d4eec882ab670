"""Opening files below a folder whose content is hostile, without ever leaving it.

Whoever writes in the folder can swap a file for a symbolic link between a check and the opening. So
there is no check: the path is walked one name at a time from an open folder (openat with O_NOFOLLOW,
POSIX.1-2008), and links are followed by us, within the folder only.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from core.errors import BadInput

_MOST_LINKS = 40


def relative(root: Path, path: str) -> str:
    """`path` as one relative to `root`; it may be given absolute. Raises BadInput where it leads out."""
    if "\0" in path:
        raise BadInput("A path has no NUL characters.", field="path")
    asked = PurePosixPath(path)
    if asked.is_absolute():
        try:
            asked = asked.relative_to(root)
        except ValueError:
            raise _outside(path) from None
    return str(asked)


@contextmanager
def opened(root: Path, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of the file or folder at `path` (relative to `root`, or absolute inside it).

    Raises BadInput where it leads out of `root`, and OSError as `os.open` does.
    """
    with _parent(root, path, make=False) as (parent, name):
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_bytes(root: Path, path: str, *, max_bytes: int) -> bytes:
    """The content of a regular file. Raises BadInput for other kinds and for larger ones, else as `opened`."""
    with opened(root, path) as descriptor:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput(f"{path} is not a file.", field="path")
        if found.st_size > max_bytes:
            raise BadInput(
                f"{path} has {found.st_size} bytes; at most {max_bytes} can be read.",
                field="path",
            )
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise BadInput(f"{path} grew over {max_bytes} bytes while it was read.", field="path")
    return content


def write_bytes(root: Path, path: str, content: bytes) -> None:
    """Write a file whole or not at all, making the folders above it.

    What was there keeps its content when the disk is full. Raises BadInput and OSError as `opened`.
    """
    with _parent(root, path, make=True) as (parent, name):
        mode = 0o644
        with suppress(FileNotFoundError):
            old = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(old.st_mode):
                raise BadInput(f"{path} is not a file.", field="path")
            mode = stat.S_IMODE(old.st_mode)
        temporary = f".{secrets.token_hex(8)}.part"
        descriptor = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=parent,
        )
        try:
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(content)
            os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise


@contextmanager
def _parent(root: Path, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """The open folder that `path` ends in, links resolved, and the last name in it (`.` for the root)."""
    folders = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    todo = list(PurePosixPath(relative(root, path)).parts)
    links = 0
    try:
        while todo:
            name = todo.pop(0)
            if name == "..":
                if len(folders) == 1:
                    raise _outside(path)
                os.close(folders.pop())
                continue
            target = _link(folders[-1], name)
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if os.path.isabs(target):
                    target = relative(root, target)
                    while len(folders) > 1:
                        os.close(folders.pop())
                todo = [*PurePosixPath(target).parts, *todo]
                continue
            if not todo:
                yield folders[-1], name
                return
            folders.append(_folder(folders[-1], name, make=make))
        yield folders[-1], "."
    finally:
        for folder in folders:
            os.close(folder)


def _link(folder: int, name: str) -> str | None:
    """Where the symbolic link `name` points, None where it is something else or nothing."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _folder(parent: int, name: str, *, make: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not make:
            raise
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _outside(path: str) -> BadInput:
    return BadInput(f"{path} leads out of the session's working directory.", field="path")
