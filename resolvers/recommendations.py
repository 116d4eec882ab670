"""Reads of recommendations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from core.permissions import Actor, Permission
from models.sessions import Session, SessionRow
from resolvers import reading
from resolvers.reading import needing
from services.costs.recommendations import Recommendation, recommendations


async def cost_recommendations(
    actor: Actor, start: datetime, end: datetime, *, table_id: UUID | None, with_dismissed: bool
) -> list[Recommendation]:
    """What could be cheaper; what saves most first."""
    return await recommendations(actor, start, end, table_id=table_id, with_dismissed=with_dismissed)


async def _samples(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    wanted = {id_ for each in parents for id_ in each.finding.sessions}
    found = await reading.by_ids("sessions", SessionRow, Session.visible_to(actor), wanted)
    return [[found[id_] for id_ in each.finding.sessions if id_ in found] for each in parents]


samples_of_recommendations = needing(Permission.SESSIONS_READ, _samples)
