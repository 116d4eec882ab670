"""Ending what a test has run in: its session is terminated and put away, and its directory removed."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from core import db
from core.errors import IllegalTransition, SlowConsumer
from services.identity.actors import system_actor
from services.parts import parts
from services.sessions.lifecycle import archive_session, session_directory, terminate_session
from services.work import session_channel

logger = logging.getLogger(__name__)

ENDING_SECONDS = 20.0
"""Within which runs that are interrupted end, else it is tried again later."""
_LOOK_ANYWAY_SECONDS = 1.0


async def put_away(organization_id: UUID, session_id: UUID) -> None:
    """May be called again, and goes on where it was. Raises TimeoutError where runs do not end."""
    system = system_actor(organization_id)
    with suppress(IllegalTransition):
        await terminate_session(system, session_id)  # what it has become already, it stays
    async with asyncio.timeout(ENDING_SECONDS):
        await _all_runs_ended(session_id)
    with suppress(IllegalTransition):
        await archive_session(system, session_id)
    await asyncio.to_thread(_remove, session_directory(organization_id, session_id))


async def _all_runs_ended(session_id: UUID) -> None:
    while True:
        async with parts().bus.subscribe(session_channel(session_id)) as notices:
            try:
                while await db.fetchval(
                    "SELECT 1 FROM runs WHERE session_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING') LIMIT 1",
                    session_id,
                ):
                    await notices.next(_LOOK_ANYWAY_SECONDS)
                return
            except SlowConsumer:
                continue


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, onerror=_with_permission)


def _with_permission(remove: Callable[..., Any], path: str, error: Any) -> None:
    """What a tool has made inaccessible is ours all the same."""
    if isinstance(error[1], FileNotFoundError):
        return
    for each in (os.path.dirname(path), path):
        with suppress(OSError):
            if stat.S_ISDIR(os.lstat(each).st_mode):
                os.chmod(each, stat.S_IRWXU)
    try:
        remove(path) if remove is not os.scandir else shutil.rmtree(path)
    except OSError as still:
        logger.warning("%s could not be removed: %s", path, still)
