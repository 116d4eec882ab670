"""Who gets a deactivated user's sessions and templates."""

from __future__ import annotations

from uuid import UUID

from core.errors import BadInput, NotFound, QuarterdeckError
from core.ids import encode
from core.permissions import Permission, Role, permissions_of
from models.base import Row
from models.identity import UserRow
from models.notifications import NotificationKind
from models.sharing import SESSION, GrantRow
from services import audit
from services.parts import parts
from services.sharing import giving
from services.templates.succession import succeed_in_templates
from services.work import Work, organization_channel, session_channel

# All in one statement. Each session's event gets its number with the row's lock, as Work.emit does for one session.
_SUCCEED = """
WITH moved AS (
    UPDATE sessions SET owner_id = $2, last_event_seq = last_event_seq + 1, updated_at = $3
    WHERE owner_id = $1 AND terminated_at IS NULL AND status NOT IN ('TERMINATED', 'ARCHIVED')
    RETURNING id, organization_id, title, last_event_seq
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
    UPDATE handoffs SET giver_id = $2, offered_by_id = CASE WHEN offered_by_id = $1 THEN $2 ELSE offered_by_id END
    FROM moved
    WHERE handoffs.session_id = moved.id AND handoffs.status = 'OFFERED' AND handoffs.receiver_id NOT IN ($1, $2)
)
SELECT id, title, last_event_seq FROM moved
"""
# Who owns a session has no use for a grant to it, which would come to life again when the session moves on. Those
# whose time is over are the workers' to end.
_END_GRANTS = f"""
UPDATE grants SET revoked_at = $3, revoked_by_id = $4
WHERE resource_kind = '{SESSION}' AND resource_id = ANY($1) AND user_id = $2 AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > $3)
RETURNING *
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
    seqs = {row["id"]: row["last_event_seq"] for row in moved}
    templates = await succeed_in_templates(work, user["id"], successor["id"], successor["name"])
    before, after = {"ownerId": encode("usr", user["id"])}, {"ownerId": encode("usr", successor["id"])}
    entry = audit.Entry.of(work.actor, "user.succeed")
    entry.target_kind, entry.target_id, entry.target_name = "User", user["id"], user["name"]
    entry.before, entry.after = before, after | {"sessionsMoved": len(moved), "templatesMoved": templates}
    work.also(entry)
    if not moved:
        return
    # And each session's own, by which its history is found.
    for row in moved:
        entry = audit.Entry.of(work.actor, "session.succeed")
        entry.target_kind, entry.target_id, entry.target_name = "Session", row["id"], row["title"]
        entry.session_id, entry.before, entry.after = row["id"], before, after
        work.also(entry)
    await _end_grants(work, successor, seqs)
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
        for session_id, seq in seqs.items():
            await bus.publish(session_channel(session_id), {"seq": seq})
        await bus.publish(organization_channel(organization_id), {"changed": True})

    work.after_commit(tell)


async def _end_grants(work: Work, successor: UserRow, seqs: dict[UUID, int]) -> None:
    """End the successor's own grants to the sessions that are theirs now; the sessions are held. `seqs` has the number
    of each one's last event, and gets the new one where there is another."""
    actor = work.actor
    ended = await work.tx.fetch(_END_GRANTS, list(seqs), successor["id"], work.at, actor.user_id, row=GrantRow)
    if not ended:
        return
    events = []
    for grant in ended:
        session_id = grant["resource_id"]
        seqs[session_id] += 1
        made_by = (actor.kind.value, actor.user_id, actor.on_behalf_of)
        events.append(
            (session_id, seqs[session_id], grant["organization_id"], work.at, *made_by, giving.event_of(grant))
        )
        before = giving.public(grant)
        work.also(giving.entry_of(actor, "grant.revoke", grant, successor["name"], before=before))
    await work.tx.execute(
        "UPDATE sessions SET last_event_seq = last_event_seq + 1 WHERE id = ANY($1)", [event[0] for event in events]
    )
    await work.tx.executemany(
        "INSERT INTO session_events (session_id, seq, organization_id, at, type, name, actor_kind, actor_id, "
        "on_behalf_of, data) VALUES ($1, $2, $3, $4, 'CUSTOM', 'quarterdeck.access.revoked', $5, $6, $7, $8)",
        events,
    )
