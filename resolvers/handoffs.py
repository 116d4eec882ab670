"""Reads of handoffs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor
from models.base import Query
from models.handoffs import Handoff, HandoffRow, HandoffStatus
from resolvers import reading


class HandoffDirection(StrEnum):
    """From whose side a handoff is looked at."""

    INCOMING = "INCOMING"
    OUTGOING = "OUTGOING"


@dataclass(frozen=True, slots=True)
class HandoffFilter:
    """Which handoffs a list has. None takes everything."""

    direction: HandoffDirection | None = None
    statuses: Sequence[HandoffStatus] | None = None

    def conditions(self, query: Query, actor: Actor) -> list[str]:
        """The filter in SQL."""
        me = query.arg(actor.user_id)
        outgoing = f"(handoffs.giver_id = {me} OR handoffs.offered_by_id = {me})"
        found = [
            {
                HandoffDirection.INCOMING: f"handoffs.receiver_id = {me}",
                HandoffDirection.OUTGOING: outgoing,
                None: f"(handoffs.receiver_id = {me} OR {outgoing})",
            }[self.direction]
        ]
        if self.statuses is not None:
            found.append(f"handoffs.status = ANY({query.arg([status.value for status in self.statuses])})")
        return found


async def handoff(actor: Actor, id_: UUID) -> HandoffRow | None:
    """A handoff, or None where the actor may not see it."""
    return await reading.find("handoffs", HandoffRow, Handoff.visible_to(actor), id_)  # type: ignore[no-any-return]


async def handoffs(actor: Actor, filter_: HandoffFilter, *, first: int | None, after: str | None) -> Page[HandoffRow]:
    """The handoffs to which the actor is a party, the latest first. Parties see theirs, so the filter is a scope."""
    return await reading.page(
        "handoffs",
        HandoffRow,
        lambda query: filter_.conditions(query, actor),
        first=first,
        after=after,
    )


async def open_handoff_of(actor: Actor, sessions: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The open offers of sessions that the actor sees; None for those without."""
    rows = await db.fetch(
        "SELECT * FROM handoffs WHERE session_id = ANY($1) AND status = 'OFFERED' AND expires_at > now()",
        [session["id"] for session in sessions],
        row=HandoffRow,
    )
    found = {row["session_id"]: row for row in rows}
    return [found.get(session["id"]) for session in sessions]
