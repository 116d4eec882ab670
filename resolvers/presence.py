"""Reads of who is in sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.permissions import Actor, Permission
from models.identity import User, UserRow
from resolvers import reading
from resolvers.reading import needing
from services.presence.rooms import presence

REMEMBERED_SECONDS = 5.0
MOST_REMEMBERED = 10_000


async def _participants(actor: Actor, sessions: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """Who is in sessions now. The caller has read these through their scope."""
    return list(await asyncio.gather(*(presence.participants(session["id"]) for session in sessions)))


participants_of_sessions = needing(Permission.SESSIONS_READ, _participants)


# What everybody in a session is told several times a second names the same few users.
_known: dict[tuple[UUID, UUID], tuple[float, UserRow]] = {}


async def users_of_participants(actor: Actor, participants: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The users that participants are, as they were in the last seconds. Others than oneself take MEMBERS_READ."""
    if any(one.user_id != actor.user_id for one in participants):
        actor.require(Permission.MEMBERS_READ)
    now, organization = time.monotonic(), actor.organization_id
    wanted = {one.user_id for one in participants}
    found = {
        id_: known[1]
        for id_ in wanted
        if (known := _known.get((organization, id_))) and now - known[0] < REMEMBERED_SECONDS
    }
    if missing := wanted - found.keys():
        read = await reading.by_ids("users", UserRow, User.visible_to(actor), missing)
        if len(_known) > MOST_REMEMBERED:
            _known.clear()
        _known.update({(organization, id_): (now, row) for id_, row in read.items()})
        found |= read
    return [found.get(one.user_id) for one in participants]
