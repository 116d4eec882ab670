"""The files of a session: listed, read and downloaded by people, while its tools may be changing them.

What tools write is hostile. Paths are walked by core.beneath, which never leaves the session's directory, and
only regular files are read. All of it runs in threads.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar
from uuid import UUID

from core import beneath, db
from core.errors import BadInput, LimitExceeded, NotFound, QuarterdeckError, TooLarge, Unavailable
from core.paging import Page, cut, decode_cursor, encode_cursor, not_a_cursor, page_size
from core.permissions import Actor, Origin, Permission
from models.base import Query
from models.sessions import Session, SessionRow
from services import audit
from services.identity.links import actor_of_link, claims_of
from services.parts import parts
from services.sessions.lifecycle import session_directory
from services.sharing.views import note_view

LINK_SECONDS = 15 * 60
"""How long a download link is good."""
LARGEST_PART = 1024 * 1024
"""Bytes that one read gives at most; downloads give whole files."""
MOST_ENTRIES = 100_000
"""Entries of a directory that can be listed."""

_PURPOSE = "file"
_LONGEST_PATH = 4096
T = TypeVar("T")


class EntryKind(StrEnum):
    """What stands under a name in a directory."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    SYMLINK = "SYMLINK"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory. `size` is in bytes, None for what has no content of its own."""

    session_id: UUID
    name: str
    path: str
    kind: EntryKind
    size: int | None
    modified_at: datetime
    raw_name: bytes
    """The name as the file system has it, which need not be UTF-8."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A stretch of a file's content, with what there is to know of the file. Sizes and offsets are in bytes."""

    session_id: UUID
    name: str
    path: str
    size: int
    modified_at: datetime
    offset: int
    content: bytes
    next_offset: int | None
    """Where to go on; None at the end of the file."""

    @property
    def text(self) -> str | None:
        """The stretch as text; None where it is not text in UTF-8."""
        if b"\0" in self.content:
            return None
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            return None


@dataclass(frozen=True, slots=True)
class Download:
    """An open file to be sent. Whoever has it closes `file`; at most `size` bytes of it are meant."""

    name: str
    size: int
    file: BinaryIO


async def entries(actor: Actor, session_id: UUID, path: str, *, first: int | None, after: str | None) -> Page[Entry]:
    """What is in a directory, by name. Raises BadInput, NotFound, LimitExceeded."""
    size = page_size(first)
    beyond = _raw_name(after) if after is not None else b""
    asked = _checked(path)
    root = await _root(actor, session_id)
    found = await _on_disk(asked, partial(_list, root, asked, session_id, beyond, size + 1))

    async def count() -> int:
        return await _on_disk(asked, partial(_count, root, asked))

    return cut(found, size, lambda entry: encode_cursor(entry.raw_name.hex()), count, after=after)


async def read_file(
    actor: Actor, session_id: UUID, path: str, *, offset: int = 0, limit: int = LARGEST_PART
) -> FilePart:
    """A stretch of a file's content, cut so that it does not end in the middle of a character.

    The read is audited, also where it is refused. Raises BadInput, NotFound, TooLarge.
    """
    if offset < 0:
        raise BadInput("An offset is a number of bytes, 0 or more.", field="offset")
    if not 1 <= limit <= LARGEST_PART:
        raise BadInput(f"One read gives 1 to {LARGEST_PART} bytes.", field="limit")
    asked = _checked(path)
    async with _audited(actor, "workspace.read", session_id, asked) as entry:
        root = await _root(actor, session_id)
        found = await _on_disk(asked, partial(_read, root, asked, session_id, offset, limit))
        entry.details = {"path": asked, "offset": offset, "bytes": len(found.content)}
    return found


def download_url(actor: Actor, session_id: UUID, path: str) -> str:
    """A link that downloads a file for 15 minutes without further credentials, as long as the actor may read it.

    It stops working with the token or web session that asked for it.
    """
    claims = {"session": str(session_id), "path": path, **claims_of(actor)}
    token = parts().vault.sign(claims, seconds=LINK_SECONDS, purpose=_PURPOSE)
    return f"{parts().settings.base_url}/files/{token}"


async def open_download(token: str, origin: Origin) -> Download:
    """The file of a link, as it is now. The download is audited in the name of whoever made the link.

    Raises NotFound for a link that is not good (any more), else as `read_file`.
    """
    claims = parts().vault.verify(token, purpose=_PURPOSE)
    session_id, asked = UUID(claims["session"]), _checked(claims["path"])
    actor = await actor_of_link(claims, origin)
    actor.require(Permission.SESSIONS_READ)
    async with _audited(actor, "workspace.download", session_id, asked) as entry:
        root = await _root(actor, session_id)
        found = await _on_disk(asked, partial(_open, root, asked))
        entry.details = {"path": asked, "bytes": found.size}
    return found


@asynccontextmanager
async def _audited(actor: Actor, action: str, session_id: UUID, path: str) -> AsyncIterator[audit.Entry]:
    """Record what is read inside, or that it was refused."""
    entry = audit.Entry.of(actor, action)
    entry.session_id = session_id
    entry.target_kind, entry.target_id = "Session", session_id
    entry.details = {"path": path}
    try:
        yield entry
    except QuarterdeckError as error:
        await audit.refused(entry, error)
        raise
    async with db.transaction() as tx:
        await audit.record(tx, entry)
    await audit.announce()


async def _root(actor: Actor, session_id: UUID) -> Path:
    """The directory of a session; NotFound where the actor may not see it."""
    query = Query()
    row = await db.fetchrow(
        f"SELECT id, organization_id FROM sessions WHERE sessions.id = {query.arg(session_id)} "
        f"AND {query.scope(Session.visible_to(actor), by_row=True)}",
        *query.args,
        row=SessionRow,
    )
    if row is None:
        raise NotFound("There is no such session, or you may not see it.", field="sessionId")
    note_view(actor, (row["id"],), "files")
    return session_directory(row["organization_id"], row["id"])


def _checked(path: str) -> str:
    """A path in one spelling, `.` for the session's directory itself. Raises BadInput."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise BadInput("A path is Unicode text; this one has half a surrogate pair.", field="path") from None
    if size > _LONGEST_PATH:
        raise BadInput(f"A path has at most {_LONGEST_PATH} bytes.", field="path")
    if "\0" in path:
        raise BadInput("A path has no NUL characters.", field="path")
    asked = PurePosixPath(path)
    if asked.is_absolute() or ".." in asked.parts:
        raise BadInput("A path is relative to the session's directory, and has no `..` in it.", field="path")
    return str(asked)


async def _on_disk(path: str, work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise _explained(error, path) from error


def _explained(error: OSError, path: str) -> QuarterdeckError:
    match error.errno:
        case errno.ENOENT if path == ".":
            return NotFound("The session's directory is not on this machine.", field="sessionId")
        case errno.ENOENT:
            return NotFound(f"There is no {path} in the session's directory.", field="path")
        case errno.ENOTDIR:
            return BadInput(f"{path}, or a part of it, is not a directory.", field="path")
        case errno.ENXIO | errno.ENODEV:
            return _not_a_file(path)
        case errno.EACCES | errno.EPERM | errno.ELOOP | errno.ENAMETOOLONG:
            return BadInput(f"{path} cannot be read: {error.strerror}.", field="path")
        case _:
            return Unavailable(f"{path} cannot be read at the moment: {error.strerror}.", field="path")


def _list(root: Path, path: str, session_id: UUID, beyond: bytes, most: int) -> list[Entry]:
    found: list[Entry] = []
    with beneath.opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        for raw_name in sorted(name for name in _names(folder, path) if name > beyond):
            try:
                state = os.stat(raw_name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed since the names were read
            found.append(_entry(session_id, path, raw_name, state))
            if len(found) == most:
                break
    return found


def _count(root: Path, path: str) -> int:
    with beneath.opened(root, path, os.O_RDONLY | os.O_DIRECTORY) as folder:
        return sum(1 for _ in _names(folder, path))


def _names(folder: int, path: str) -> Iterator[bytes]:
    with os.scandir(folder) as found:
        for number, entry in enumerate(found):
            if number == MOST_ENTRIES:
                raise LimitExceeded(f"{path} has more than {MOST_ENTRIES} entries, too many to list.", field="path")
            yield os.fsencode(entry.name)


def _entry(session_id: UUID, folder: str, raw_name: bytes, state: os.stat_result) -> Entry:
    mode = state.st_mode
    kind = (
        EntryKind.FILE
        if stat.S_ISREG(mode)
        else EntryKind.DIRECTORY
        if stat.S_ISDIR(mode)
        else EntryKind.SYMLINK
        if stat.S_ISLNK(mode)
        else EntryKind.OTHER
    )
    name = raw_name.decode(errors="replace")
    return Entry(
        session_id=session_id,
        name=name,
        path=str(PurePosixPath(folder, name)),
        kind=kind,
        size=state.st_size if kind is EntryKind.FILE else None,
        modified_at=_moment(state.st_mtime),
        raw_name=raw_name,
    )


def _read(root: Path, path: str, session_id: UUID, offset: int, limit: int) -> FilePart:
    with beneath.opened(root, path) as descriptor:
        state = _regular(descriptor, path)
        content = os.pread(descriptor, limit, offset) if offset < state.st_size else b""
    if offset + len(content) < state.st_size:
        content = _whole_characters(content)
    end = offset + len(content)
    return FilePart(
        session_id=session_id,
        name=PurePosixPath(path).name,
        path=path,
        size=state.st_size,
        modified_at=_moment(state.st_mtime),
        offset=offset,
        content=content,
        next_offset=end if content and end < state.st_size else None,
    )


def _open(root: Path, path: str) -> Download:
    with beneath.opened(root, path) as descriptor:
        state = _regular(descriptor, path)
        # A file object, so that it is closed even where it never comes to be sent.
        file = os.fdopen(os.dup(descriptor), "rb")
    return Download(name=PurePosixPath(path).name, size=state.st_size, file=file)


def _regular(descriptor: int, path: str) -> os.stat_result:
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        raise _not_a_file(path)
    limit = parts().settings.max_file_bytes
    if state.st_size > limit:
        raise TooLarge(f"{path} has {state.st_size} bytes; at most {limit} can be read or downloaded.", field="path")
    return state


def _not_a_file(path: str) -> BadInput:
    return BadInput(f"{path} is not a file that has content: it is a directory, pipe, socket or device.", field="path")


def _whole_characters(content: bytes) -> bytes:
    """Text without the character that was cut at its end; anything else as it is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(content)
    except UnicodeDecodeError:
        return content
    pending, _ = decoder.getstate()
    return content[: len(content) - len(pending)] or content


def _moment(seconds: float) -> datetime:
    """A file's time; programs can set any, also beyond the years that there are."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def _raw_name(cursor: str) -> bytes:
    [name] = decode_cursor(cursor, 1)
    try:
        return bytes.fromhex(name)
    except (ValueError, TypeError):
        raise not_a_cursor() from None
