"""Unpacking archives that may be hostile: bounded, below one folder, and with nothing in it that leads out."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from core.errors import BadInput
from integrations.seeds.base import Unpacked

MOST_ENTRIES = 50_000
_LONGEST_LINK = 4096
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    # What zipfile says of encrypted entries and of methods that it does not know.
    NotImplementedError,
    RuntimeError,
)
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    kind: str
    """`folder`, `file` or `link`."""
    executable: bool = False
    content: IO[bytes] | None = None
    target: str = ""


def unpack(archive: Path, into: Path, most_bytes: int) -> Unpacked:
    """Unpack a tar (plain, gz, bz2, xz) or zip archive into an empty folder.

    Links are made last, when nothing can be written through them any more, and only those that stay inside. Raises
    BadInput for what is no archive, is too large, or holds names, links or devices that it must not.
    """
    links: list[_Entry] = []
    files = written = 0
    try:
        for count, entry in enumerate(_zipped(archive) if zipfile.is_zipfile(archive) else _tarred(archive), 1):
            if count > MOST_ENTRIES:
                raise BadInput(f"The archive has more than {MOST_ENTRIES:,} entries.")
            path = into / _inside(entry.name)
            if entry.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
            elif entry.kind == "link":
                links.append(entry)
            else:
                assert entry.content is not None
                path.parent.mkdir(parents=True, exist_ok=True)
                written += _write(entry, path, most_bytes - written)
                files += 1
        _link(links, into)
    except _BROKEN as error:
        raise BadInput(f"The archive cannot be unpacked: it is no tar or zip archive, or broken ({error}).") from None
    except FileExistsError as error:
        raise BadInput(f"The archive cannot be unpacked: {Path(error.filename).name} is there twice.") from None
    except NotADirectoryError:
        raise BadInput("The archive cannot be unpacked: something is a file in it, and a folder, too.") from None
    except OSError as error:
        raise BadInput(f"The archive cannot be unpacked: {error.strerror or error}.") from None
    return Unpacked(files, written)


def _tarred(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isdir():
                yield _Entry(member.name, "folder")
            elif member.isreg():
                yield _Entry(member.name, "file", bool(member.mode & 0o111), tar.extractfile(member))
            elif member.issym():
                yield _Entry(member.name, "link", target=member.linkname)
            else:
                what = "a hard link" if member.islnk() else "a device or a pipe"
                raise BadInput(f"The archive holds {what}, {member.name[:200]!r}. Leave it out.")


def _zipped(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as found:
        for member in found.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                yield _Entry(member.filename, "folder")
            elif stat.S_ISLNK(mode):
                with found.open(member) as content:
                    yield _Entry(member.filename, "link", target=content.read(_LONGEST_LINK).decode("utf-8", "replace"))
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise BadInput(f"The archive holds a device or a pipe, {member.filename[:200]!r}.")
            else:
                with found.open(member) as content:
                    yield _Entry(member.filename, "file", bool(mode & 0o111), content)


def _write(entry: _Entry, path: Path, most: int) -> int:
    """What an entry really holds is counted, whatever it says of itself."""
    assert entry.content is not None
    written = 0
    # No link is there yet that this could be written through; what is there twice is refused.
    mode = 0o755 if entry.executable else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := entry.content.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise BadInput("The archive's content is too large.")
            file.write(chunk)
    return written


def _link(links: list[_Entry], into: Path) -> None:
    root = os.path.realpath(into)
    for entry in links:
        path = into / _inside(entry.name)
        if not entry.target or os.path.isabs(entry.target) or "\0" in entry.target:
            raise _leads_out(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _is_below(os.path.realpath(path.parent), root):
            raise _leads_out(entry)
        os.symlink(entry.target, path)
    # Each may lead through others: all of them are there now.
    for entry in links:
        path = into / _inside(entry.name)
        if not _is_below(os.path.realpath(path), root):
            raise _leads_out(entry)


def _leads_out(entry: _Entry) -> BadInput:
    return BadInput(f"The archive holds a link that leads out of it: {entry.name[:200]!r}.")


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root + os.sep)


def _inside(name: str) -> Path:
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise BadInput(f"The archive holds a name that leads out of it: {name[:200]!r}.")
    return Path(pure)
