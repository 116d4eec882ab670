"""Who gets a deactivated user's sessions."""

from __future__ import annotations

from uuid import UUID

from core.errors import BadInput, NotFound, QuarterdeckError
from core.ids import encode
from core.permissions import Permission, Role, permissions_of
from models.base import Row
from models.identity import UserRow
from models.notifications import NotificationKind
from services import audit
from services.parts import parts
from services.work import Work, organization_channel, session_channel

# All in one statement. Each session's event gets its number with the row's lock, as Work.emit does for one session.
_SUCCEED = """
WITH moved AS (
    UPDATE sessions SET owner_id = $2, last_event_seq = last_event_seq + 1, updated_at = $3
    WHERE owner_id = $1 AND terminated_at IS NULL AND status NOT IN ('TERMINATED', 'ARCHIVED')
    RETURNING id, organization_id, last_event_seq
), events AS (
    INSERT INTO session_events (session_id, seq, organization_id, at, type, name, actor_kind, actor_id, on_behalf_of,
                                data)
    SELECT id, last_event_seq, organization_id, $3, 'CUSTOM', 'quarterdeck.session.updated', $4, $5, $6, $7 FROM moved
), changes AS (
    INSERT INTO session_changes (organization_id, session_id, kind, at)
    SELECT organization_id, id, 'UPDATED', $3 FROM moved
), decisions AS (
    UPDATE approvals SET assigned_to_id = $2 FROM moved
    WHERE approvals.session_id = moved.id AND approvals.status = 'PENDING'
), offers AS (
    UPDATE handoffs SET giver_id = $2 FROM moved
    WHERE handoffs.session_id = moved.id AND handoffs.status = 'OFFERED' AND handoffs.receiver_id NOT IN ($1, $2)
)
SELECT id, last_event_seq FROM moved
"""
# Nobody can take these any more: the workers' sweep ends them, each with its event and its record.
_LET_OFFERS_EXPIRE = """
UPDATE handoffs SET expires_at = $3 FROM sessions
WHERE sessions.id = handoffs.session_id AND handoffs.status = 'OFFERED'
    AND (handoffs.receiver_id = $1 OR handoffs.receiver_id = sessions.owner_id AND sessions.owner_id = $2)
"""


class _Moved(Row):
    __slots__ = ()


async def hold_possible_owner(work: Work, user_id: UUID, *, field: str) -> UserRow:
    """Somebody who can own sessions, held so that they stay so: active, of the organisation, with SESSIONS_WRITE.

    Raises BadInput, NotFound.
    """
    row = await work.tx.fetchrow(
        "SELECT id, name, role, deactivated_at FROM users WHERE id = $1 AND organization_id = $2 FOR SHARE",
        user_id,
        work.actor.organization_id,
        row=UserRow,
    )
    if row is None:
        raise NotFound("There is no such user in your organisation.", field=field)
    if row["deactivated_at"] is not None:
        raise BadInput(f"{row['name']} has been deactivated. Name somebody who is active.", field=field)
    if Permission.SESSIONS_WRITE not in permissions_of(Role(row["role"])):
        raise BadInput(f"{row['name']} is {row['role']} and cannot own sessions.", field=field)
    return row


async def check_successor(work: Work, user_id: UUID, successor_id: UUID) -> UserRow:
    """The successor, held so that they stay one. Raises BadInput, NotFound."""
    if successor_id == user_id:
        raise BadInput("Nobody succeeds themselves. Name somebody else.", field="successorId")
    return await hold_possible_owner(work, successor_id, field="successorId")


async def succeed(work: Work, user: UserRow, named: UUID | None) -> None:
    """As a user is deactivated: give their living sessions to whom is named now, or to their own choice of before.

    Where that one cannot own sessions any more, or there is none, they stay where they are, for an admin to hand off.
    What others run in them goes on.
    """
    successor = await check_successor(work, user["id"], named) if named is not None else await _chosen(work, user)
    successor_id = successor["id"] if successor is not None else None
    # Who had named this user has the same heir from now on: nobody waits for somebody who is gone. These are user
    # rows, so before any session's.
    await work.tx.execute(
        "UPDATE users SET successor_id = nullif($2, id) WHERE successor_id = $1", user["id"], successor_id
    )
    if successor is not None:
        await _move(work, user, successor)
    await work.tx.execute(_LET_OFFERS_EXPIRE, user["id"], successor_id, work.at)


async def _chosen(work: Work, user: UserRow) -> UserRow | None:
    if user["successor_id"] is None:
        return None
    try:
        return await check_successor(work, user["id"], user["successor_id"])
    except QuarterdeckError:
        return None


async def _move(work: Work, user: UserRow, successor: UserRow) -> None:
    moved = await work.tx.fetch(
        _SUCCEED,
        user["id"],
        successor["id"],
        work.at,
        work.actor.kind.value,
        work.actor.user_id,
        work.actor.on_behalf_of,
        {
            "changed": ["owner"],
            "reason": "succession",
            "fromId": encode("usr", user["id"]),
            "toId": encode("usr", successor["id"]),
        },
        row=_Moved,
    )
    entry = audit.Entry.of(work.actor, "user.succeed")
    entry.target_kind, entry.target_id, entry.target_name = "User", user["id"], user["name"]
    entry.before = {"ownerId": encode("usr", user["id"])}
    entry.after = {"ownerId": encode("usr", successor["id"]), "sessionsMoved": len(moved)}
    work.also(entry)
    if not moved:
        return
    some = "a session" if len(moved) == 1 else f"{len(moved)} sessions"
    work.notify(
        NotificationKind.HANDOFF,
        [successor["id"]],
        f"You have {some} of {user['name']}, who has been deactivated",
        subject=("User", user["id"]),
    )
    organization_id = user["organization_id"]

    async def tell() -> None:
        bus = parts().bus
        for row in moved:
            await bus.publish(session_channel(row["id"]), {"seq": row["last_event_seq"]})
        await bus.publish(organization_channel(organization_id), {"changed": True})

    work.after_commit(tell)
