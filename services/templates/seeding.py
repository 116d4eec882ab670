"""What is put into a session's working directory before anything runs.

Files are there when the session is; a repository and an archive are fetched by the worker before the first run, and
the files are then written over what came with them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from core import beneath, db
from core.errors import BadInput, Unavailable
from models.sessions import SessionRow
from services.parts import parts
from services.runs.recorder import Recorder
from services.sessions.lifecycle import make_directory, session_directory
from services.templates.spec import Seed
from services.work import Work


async def fetch_seed(session: SessionRow, recorder: Recorder) -> None:
    """Put into the session's directory what it waits for, if anything. Done once: where it breaks off, nothing is noted
    as done, and the next run begins anew. Raises BadInput and Unavailable with what went wrong."""
    stored = await db.fetchval("SELECT seed FROM session_seeds WHERE session_id = $1", session["id"])
    if stored is None:
        return
    seed = Seed.model_validate(stored)
    async with recorder.writing() as work:
        work.emit("CUSTOM", _what(seed), name="quarterdeck.session.seeding", run_id=recorder.run_id)
    directory = session_directory(session["organization_id"], session["id"])
    make_directory(session["organization_id"], session["id"])
    aside = directory.with_name(f".seed-{session['id']}")
    told: dict[str, Any] = {}
    try:
        if seed.repository is not None:
            into = await asyncio.to_thread(_emptied, aside)
            commit = await parts().seeds.repository(seed.repository.url, seed.repository.revision, into)
            await asyncio.to_thread(_move, into, directory, seed.repository.path)
            told["commit"] = commit
        if seed.archive is not None:
            into = await asyncio.to_thread(_emptied, aside)
            unpacked = await parts().seeds.archive(seed.archive.url, seed.archive.sha256, into)
            await asyncio.to_thread(_move, into, directory, seed.archive.path)
            told |= {"archiveFiles": unpacked.files, "archiveBytes": unpacked.bytes}
        await asyncio.to_thread(write_files, directory, seed)
    except OSError as error:
        raise Unavailable(f"The session's directory cannot be filled: {error.strerror or error}.") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, aside, True)
    async with recorder.writing() as work:
        await work.tx.execute("DELETE FROM session_seeds WHERE session_id = $1", session["id"])
        work.emit("CUSTOM", _what(seed) | told, name="quarterdeck.session.seeded", run_id=recorder.run_id)


async def plant(work: Work, session: SessionRow, seed: Seed) -> None:
    """Write the files of a new session, and note what is to be fetched. Raises BadInput, Unavailable."""
    if seed.files:
        await asyncio.to_thread(write_files, session_directory(session["organization_id"], session["id"]), seed)
    if seed.repository is not None or seed.archive is not None:
        await work.tx.execute(
            "INSERT INTO session_seeds (session_id, seed) VALUES ($1, $2)",
            session["id"],
            seed.model_dump(mode="json", exclude_defaults=True, by_alias=True),
        )


def write_files(directory: Path, seed: Seed) -> None:
    """Write the files into a directory, whose content may be hostile by now."""
    for index, file in enumerate(seed.files):
        try:
            content = base64.b64decode(file.content, validate=True) if file.encoding == "base64" else None
        except binascii.Error:
            raise BadInput("The content is not base64.", field=f"seed.files.{index}.content") from None
        try:
            beneath.write_bytes(directory, file.path, file.content.encode() if content is None else content)
            if file.executable:
                with beneath.opened(directory, file.path) as descriptor:
                    os.fchmod(descriptor, 0o755)
        except OSError as error:
            raise Unavailable(f"{file.path} cannot be written: {error.strerror}.") from None


def _what(seed: Seed) -> dict[str, Any]:
    """What is fetched, for the session's log. A query may be a signature, so it is left out."""
    found: dict[str, Any] = {"files": len(seed.files)}
    if seed.repository is not None:
        found["repository"] = {"url": seed.repository.url.partition("?")[0], "revision": seed.repository.revision}
    if seed.archive is not None:
        found["archive"] = {"url": seed.archive.url.partition("?")[0], "sha256": seed.archive.sha256}
    return found


def _emptied(folder: Path) -> Path:
    """The folder, without what an attempt that broke off may have left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _move(source: Path, directory: Path, path: str) -> None:
    """Move what was fetched to where it belongs. Raises BadInput where that is no folder, or leads out by a link."""
    destination = directory
    for name in PurePosixPath(path).parts:
        destination = destination / name
        destination.mkdir(exist_ok=True) if not destination.is_symlink() else None
        if destination.is_symlink() or not destination.is_dir():
            raise BadInput(f"{path} is no folder of the session's directory.")
    _merge(source, destination)


def _merge(source: Path, destination: Path) -> None:
    """Move all that is in a folder into another one; what is there under the same name is replaced. Neither is
    followed where it is a link."""
    for entry in list(os.scandir(source)):
        target = destination / entry.name
        try:
            there = os.lstat(target).st_mode
        except FileNotFoundError:
            os.rename(entry.path, target)
            continue
        if stat.S_ISDIR(there) and entry.is_dir(follow_symlinks=False):
            _merge(Path(entry.path), target)
            continue
        if stat.S_ISDIR(there):
            shutil.rmtree(target)
        else:
            os.unlink(target)
        os.rename(entry.path, target)
