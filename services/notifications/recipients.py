"""Who may be told of what happens in a session: the scope of `Session.visible_to`, asked for many users at once."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from core import db

SEES_SESSION = """(
    users.organization_id = sessions.organization_id AND users.deactivated_at IS NULL AND (
        users.role IN ('OWNER', 'ADMIN') OR sessions.owner_id = users.id
        OR (sessions.visibility = 'ORGANIZATION' AND NOT EXISTS (
            SELECT FROM sharing_policies WHERE sharing_policies.organization_id = sessions.organization_id
            AND sharing_policies.organization_visibility = 'FORBIDDEN'
        ))
        OR EXISTS (
            SELECT FROM grants WHERE grants.resource_kind = 'SESSION' AND grants.resource_id = sessions.id
            AND grants.revoked_at IS NULL AND (grants.expires_at IS NULL OR grants.expires_at > now())
            AND (grants.user_id = users.id
                OR grants.team_id IN (SELECT team_id FROM team_members WHERE team_members.user_id = users.id))
        )
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
