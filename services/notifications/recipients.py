"""Who may be told of what happens in a session: the scope of `Session.visible_to`, asked for many users at once."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from core import db

SEES_SESSION = """(
    users.organization_id = sessions.organization_id AND users.deactivated_at IS NULL AND (
        users.role IN ('OWNER', 'ADMIN') OR sessions.owner_id = users.id OR sessions.visibility = 'ORGANIZATION'
    )
)"""
"""Whether the user of a row of `users` may see the session of a row of `sessions`."""

IS_PARTY = """(
    {subject}.subject_kind = 'Handoff' AND EXISTS (
        SELECT FROM handoffs WHERE handoffs.id = {subject}.subject_id
        AND users.id IN (handoffs.giver_id, handoffs.receiver_id, handoffs.offered_by_id)
    )
)"""
"""Whether the user is a party to the handoff that they are told of, which takes no access to its session."""


async def may_see(tx: db.Transaction, session_id: UUID, user_ids: Iterable[UUID]) -> set[UUID]:
    """Those of the users who may see the session."""
    rows = await tx.fetch(
        f"SELECT users.id FROM users JOIN sessions ON sessions.id = $1 WHERE users.id = ANY($2) AND {SEES_SESSION}",
        session_id,
        list(user_ids),
    )
    return {row["id"] for row in rows}
