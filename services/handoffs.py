"""Handing a session over: an offer with a note, which the receiver accepts or declines, and which can be undone.

Whoever is to own the session is locked first (FOR SHARE, against their deactivation), then the session, then the
handoff; deactivating somebody takes the same order.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput, Conflict, Forbidden, IllegalTransition, NotFound, TooLarge
from core.ids import encode
from core.permissions import Actor, Permission, Role
from models.base import Query
from models.handoffs import Handoff, HandoffRow, HandoffStatus
from models.identity import UserRow
from models.notifications import NotificationKind
from models.sharing import SESSION, AccessLevel, GrantRow
from services import audit, idempotency
from services.identity.actors import system_actor
from services.identity.succession import hold_possible_owner
from services.parts import parts
from services.sharing import giving
from services.sharing.policy import policy_in
from services.sharing.resources import Resource
from services.work import Work, announce_access, write

logger = logging.getLogger(__name__)

LONGEST_NOTE = 2000


async def offer_handoff(
    actor: Actor,
    session_id: UUID,
    receiver_id: UUID,
    *,
    note: str = "",
    keep_access: bool = True,
    key: str | None = None,
) -> HandoffRow:
    """Offer a session to somebody, who needs no access to it yet; for its owner and the organisation's admins. With
    `keep_access` the owner may still write in it afterwards.

    Raises BadInput, Forbidden, NotFound, TooLarge, and Conflict where another offer is open.
    """
    _check_note(note, "note")
    async with write(actor, "handoff.offer") as work:
        receiver = await hold_possible_owner(work, receiver_id, field="toUserId")
        session = await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        _check_may_offer(work, "sessionId")
        asked = {"session": str(session_id), "to": str(receiver_id), "note": note, "keepAccess": keep_access}
        found = await idempotency.claim(work, "offerHandoff", key, asked)
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return await _read(work, found.earlier)
        if receiver_id == session["owner_id"]:
            raise BadInput("This session is theirs already.", field="toUserId")
        await _expire_if_over(work, session_id)
        if open_ := await work.tx.fetchval(
            "SELECT id FROM handoffs WHERE session_id = $1 AND status = 'OFFERED'", session_id
        ):
            raise Conflict(
                "This session is offered to somebody already. Cancel that handoff first.",
                field="sessionId",
                handoffId=encode("hof", open_),
            )
        await work.tx.execute(
            "INSERT INTO handoffs (id, organization_id, session_id, session_title, giver_id, receiver_id, "
            "offered_by_id, note, keep_access, status, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'OFFERED', $10, $11)",
            found.result_id,
            session["organization_id"],
            session_id,
            session["title"],
            session["owner_id"],
            receiver_id,
            actor.user_id,
            note,
            keep_access,
            work.at,
            work.at + timedelta(hours=parts().settings.handoff_hours),
        )
        handoff = await _read(work, found.result_id)
        work.target("Handoff", handoff["id"], session["title"])
        work.changed(
            after={
                "status": "OFFERED",
                "to": encode("usr", receiver_id),
                "name": receiver["name"],
                "keepAccess": keep_access,
            }
        )
        _emit(work, handoff, "offered")
        _tell(work, handoff, [receiver_id], f"{actor.name} offers you “{session['title']}”", note)
        _tell(work, handoff, [session["owner_id"]], f"“{session['title']}” was offered to {receiver['name']}", note)
        return handoff


async def accept_handoff(actor: Actor, handoff_id: UUID) -> HandoffRow:
    """Take a session over that was offered to you, with the decisions that wait in it.

    Raises Forbidden for anybody else, and Conflict where it is not open any more, or whoever made the offer may not
    make it any more.
    """
    async with write(actor, "handoff.accept") as work:
        actor.require(Permission.SESSIONS_WRITE)
        assert actor.user_id is not None
        await hold_possible_owner(work, actor.user_id, field="handoffId")
        handoff = await _hold(work, handoff_id)
        _check_receiver(actor, handoff)
        _check_open(work, handoff)
        giver_id = handoff["giver_id"]
        _check_owner(work, giver_id)
        await _check_offered_rightly(work, handoff)
        approvals = await _move(work, giver_id, actor.user_id)
        await _need_no_grant(work, actor.user_id)
        if handoff["keep_access"]:
            await _keep_access(work, giver_id)
        else:
            await _need_no_grant(work, giver_id)
        handoff = await _set(
            work,
            handoff_id,
            HandoffStatus.ACCEPTED,
            undo_until=work.at + timedelta(minutes=parts().settings.handoff_undo_minutes),
        )
        _ownership_changed(work, giver_id, actor.user_id, approvals)
        _emit(work, handoff, "accepted")
        _tell(work, handoff, _givers(handoff), f"{actor.name} has taken over “{handoff['session_title']}”")
        return handoff


async def decline_handoff(actor: Actor, handoff_id: UUID, *, note: str | None = None) -> HandoffRow:
    """Refuse a session that was offered to you. Raises Forbidden, TooLarge, and Conflict where it is not open."""
    if note is not None:
        _check_note(note, "note")
    async with write(actor, "handoff.decline") as work:
        handoff = await _hold(work, handoff_id)
        _check_receiver(actor, handoff)
        _check_open(work, handoff)
        handoff = await _set(work, handoff_id, HandoffStatus.DECLINED, reply=note)
        work.changed(before={"status": "OFFERED"}, after={"status": "DECLINED"})
        _emit(work, handoff, "declined")
        _tell(work, handoff, _givers(handoff), f"{actor.name} declines “{handoff['session_title']}”", note or "")
        return handoff


async def cancel_handoff(actor: Actor, handoff_id: UUID) -> HandoffRow:
    """Take an offer back; for whoever may make one. Raises Forbidden, and Conflict where it is not open."""
    async with write(actor, "handoff.cancel") as work:
        session_id = (await _visible(work, handoff_id))["session_id"]
        await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        _check_may_offer(work, "handoffId")
        handoff = await _lock(work, handoff_id)
        _check_open(work, handoff)
        work.target("Handoff", handoff_id, handoff["session_title"])
        work.changed(before={"status": "OFFERED"}, after={"status": "CANCELLED"})
        return await _cancel(work, handoff)


async def undo_handoff(actor: Actor, handoff_id: UUID) -> HandoffRow:
    """Give the session back; for either party, while the time for it lasts and it has not moved on.

    Raises Forbidden for others, and IllegalTransition or Conflict where it is too late.
    """
    async with write(actor, "handoff.undo") as work:
        giver_id, receiver_id = (await _visible(work, handoff_id, "giver_id, receiver_id")).values()
        if actor.user_id not in (giver_id, receiver_id):
            raise Forbidden("Only those between whom the session went can undo this.", field="handoffId")
        await hold_possible_owner(work, giver_id, field="handoffId")
        handoff = await _hold(work, handoff_id)
        if handoff["status"] != HandoffStatus.ACCEPTED:
            raise _not_open(handoff, "undone")
        if handoff["undo_until"] <= work.at:
            raise IllegalTransition(
                f"This handoff could be undone until {handoff['undo_until']:%Y-%m-%d %H:%M:%S} UTC. "
                "Offer the session back instead.",
                field="handoffId",
                status=handoff["status"],
            )
        _check_owner(work, receiver_id)
        if handoff["giver_id"] != giver_id or await work.tx.fetchval(
            "SELECT 1 FROM handoffs WHERE session_id = $1 AND status = 'ACCEPTED' AND ended_at > $2 LIMIT 1",
            handoff["session_id"],
            handoff["ended_at"],
        ):
            raise Conflict("The session has moved on since. Ask its owner to offer it to you.", field="handoffId")
        for row in await work.tx.fetch(
            "SELECT * FROM handoffs WHERE session_id = $1 AND status = 'OFFERED' FOR UPDATE",
            handoff["session_id"],
            row=HandoffRow,
        ):
            work.also(_entry(actor, "handoff.cancel", await _cancel(work, row)))
        approvals = await _move(work, receiver_id, giver_id)
        await _need_no_grant(work, giver_id)
        handoff = await _set(work, handoff_id, HandoffStatus.UNDONE)
        _ownership_changed(work, receiver_id, giver_id, approvals)
        _emit(work, handoff, "undone")
        title = f"{actor.name} has undone the handoff of “{handoff['session_title']}”"
        _tell(work, handoff, [*_givers(handoff), receiver_id], title)
        return handoff


async def expire_handoffs() -> int:
    """End offers that nobody took in time; returns how many. Called by workers.

    One that cannot be ended is logged and tried again; it does not keep the others waiting.
    """
    expired = 0
    for row in await db.fetch(
        "SELECT id, session_id, organization_id FROM handoffs WHERE status = 'OFFERED' AND expires_at <= now() "
        "ORDER BY expires_at LIMIT 100"
    ):
        try:
            async with write(system_actor(row["organization_id"]), None) as work:
                await work.hold_session(row["session_id"])
                expired += await _expire_if_over(work, row["session_id"])
        except Exception:
            logger.exception("Handoff %s could not expire; it is tried again.", encode("hof", row["id"]))
    return expired


async def _expire_if_over(work: Work, session_id: UUID) -> bool:
    """End the held session's open offer where its time is over."""
    handoff = await work.tx.fetchrow(
        "SELECT * FROM handoffs WHERE session_id = $1 AND status = 'OFFERED' AND expires_at <= $2 FOR UPDATE",
        session_id,
        work.at,
        row=HandoffRow,
    )
    if handoff is None:
        return False
    handoff = await _set(work, handoff["id"], HandoffStatus.EXPIRED)
    work.also(_entry(system_actor(handoff["organization_id"]), "handoff.expire", handoff))
    _emit(work, handoff, "expired")
    title = f"The offer of “{handoff['session_title']}” has expired"
    _tell(work, handoff, [*_givers(handoff), handoff["receiver_id"]], title)
    return True


async def _cancel(work: Work, handoff: HandoffRow) -> HandoffRow:
    handoff = await _set(work, handoff["id"], HandoffStatus.CANCELLED)
    _emit(work, handoff, "cancelled")
    _tell(work, handoff, [handoff["receiver_id"]], f"The offer of “{handoff['session_title']}” was taken back")
    return handoff


def _entry(actor: Actor, action: str, handoff: HandoffRow) -> audit.Entry:
    """The audit record of an offer that ends in a write about something else."""
    entry = audit.Entry.of(actor, action)
    entry.target_kind, entry.target_id, entry.target_name = "Handoff", handoff["id"], handoff["session_title"]
    entry.session_id = handoff["session_id"]
    entry.before, entry.after = {"status": "OFFERED"}, {"status": handoff["status"]}
    return entry


# -- what it changes


async def _move(work: Work, from_id: UUID, to_id: UUID) -> int:
    """Change the held session's owner, and whose its open decisions are; returns how many of these. The creator
    stays."""
    assert work.session is not None
    session_id = work.session["id"]
    await work.tx.execute(
        "UPDATE sessions SET owner_id = $2, updated_at = $3 WHERE id = $1", session_id, to_id, work.at
    )
    tag = await work.tx.execute(
        "UPDATE approvals SET assigned_to_id = $2 WHERE session_id = $1 AND status = 'PENDING'", session_id, to_id
    )
    organization_id = work.session["organization_id"]
    work.after_commit(lambda: announce_access(organization_id, sessions=[session_id], users=[from_id, to_id]))
    return int(tag.rpartition(" ")[2])


async def _keep_access(work: Work, previous_owner: UUID) -> None:
    """Where the offer says so, the previous owner of the held session may go on to read and write in it, as long as
    the organisation's policy lets access last."""
    assert work.session is not None
    name = await work.tx.fetchval("SELECT name FROM users WHERE id = $1", previous_owner)
    latest = (await policy_in(work)).end_of_grant(None)
    terms = giving.Terms(AccessLevel.WRITE, "Owned it before", latest)
    resource = Resource.session(work.session)
    await giving.give(work, resource, {previous_owner: name}, terms, users=[previous_owner], notify=False)


async def _need_no_grant(work: Work, user_id: UUID) -> None:
    """Who owns the held session has no use for a grant to it, and who is to keep no access no right to one: one of
    before would come to life again when the session moves on."""
    assert work.session is not None
    grant = await work.tx.fetchrow(
        "SELECT * FROM grants WHERE resource_kind = $1 AND resource_id = $2 AND user_id = $3 AND revoked_at IS NULL "
        "FOR UPDATE",
        SESSION,
        work.session["id"],
        user_id,
        row=GrantRow,
    )
    if grant is not None:
        await giving.end(work, grant, await giving.name_of(work, grant))


def _ownership_changed(work: Work, from_id: UUID, to_id: UUID, approvals: int) -> None:
    work.changed(
        before={"ownerId": encode("usr", from_id)},
        after={"ownerId": encode("usr", to_id), "pendingApprovalsMoved": approvals},
    )
    work.emit("CUSTOM", {"changed": ["owner"]}, name="quarterdeck.session.updated")
    work.session_changed("UPDATED")


def _emit(work: Work, handoff: HandoffRow, verb: str) -> None:
    work.emit(
        "CUSTOM",
        {
            "handoffId": encode("hof", handoff["id"]),
            "fromId": encode("usr", handoff["giver_id"]),
            "toId": encode("usr", handoff["receiver_id"]),
        },
        name=f"quarterdeck.handoff.{verb}",
    )


def _tell(work: Work, handoff: HandoffRow, user_ids: list[UUID], title: str, body: str = "") -> None:
    work.notify(NotificationKind.HANDOFF, user_ids, title, body=body, subject=("Handoff", handoff["id"]))


def _givers(handoff: HandoffRow) -> list[UUID]:
    return [handoff["giver_id"], handoff["offered_by_id"]]


# -- what it asks first


async def _visible(work: Work, handoff_id: UUID, columns: str = "session_id") -> Any:
    query = Query()
    found = await work.tx.fetchrow(
        f"SELECT {columns} FROM handoffs WHERE handoffs.id = {query.arg(handoff_id)} "
        f"AND {query.scope(Handoff.visible_to(work.actor))}",
        *query.args,
    )
    if found is None:
        raise NotFound("There is no such handoff, or you may not see it.", field="handoffId")
    return found


async def _hold(work: Work, handoff_id: UUID) -> HandoffRow:
    """A handoff that the actor may see, held after its session, which its receiver may not see yet."""
    session_id = (await _visible(work, handoff_id))["session_id"]
    await work.hold_session(session_id)
    work.entry.session_id = session_id
    handoff = await _lock(work, handoff_id)
    work.target("Handoff", handoff_id, handoff["session_title"])
    return handoff


async def _lock(work: Work, handoff_id: UUID) -> HandoffRow:
    row = await work.tx.fetchrow("SELECT * FROM handoffs WHERE id = $1 FOR UPDATE", handoff_id, row=HandoffRow)
    assert row is not None
    return row


async def _read(work: Work, handoff_id: UUID) -> HandoffRow:
    row = await work.tx.fetchrow("SELECT * FROM handoffs WHERE id = $1", handoff_id, row=HandoffRow)
    assert row is not None
    return row


async def _set(work: Work, handoff_id: UUID, status: HandoffStatus, **more: Any) -> HandoffRow:
    values = {"status": status.value, "undone_at" if status is HandoffStatus.UNDONE else "ended_at": work.at} | more
    query = Query()
    columns = ", ".join(f"{name} = {query.arg(value)}" for name, value in values.items())
    row = await work.tx.fetchrow(
        f"UPDATE handoffs SET {columns} WHERE id = {query.arg(handoff_id)} RETURNING *", *query.args, row=HandoffRow
    )
    assert row is not None
    return row


def _check_receiver(actor: Actor, handoff: HandoffRow) -> None:
    if actor.user_id != handoff["receiver_id"]:
        raise Forbidden("This session is offered to somebody else.", field="handoffId")


def _check_open(work: Work, handoff: HandoffRow) -> None:
    if handoff["status"] != HandoffStatus.OFFERED:
        raise _not_open(handoff, "taken, declined or cancelled")
    if handoff["expires_at"] <= work.at:
        raise Conflict("This offer has expired. Ask for a new one.", field="handoffId", status="EXPIRED")


def _not_open(handoff: HandoffRow, verb: str) -> Conflict:
    status = handoff["status"]
    return Conflict(f"This handoff cannot be {verb}: it is {status}.", field="handoffId", status=status)


def _check_owner(work: Work, owner_id: UUID) -> None:
    assert work.session is not None
    if work.session["owner_id"] != owner_id:
        raise Conflict("The session has another owner since. Ask them to offer it to you.", field="handoffId")


def _check_may_offer(work: Work, field: str) -> None:
    """Of the held session. Who was let manage it may not give it away, nor take it back from whom it is offered to."""
    assert work.session is not None
    if work.actor.user_id != work.session["owner_id"] and not work.actor.is_admin:
        raise Forbidden(
            "Only the session's owner and the organisation's admins can hand it over. Ask its owner.", field=field
        )


async def _check_offered_rightly(work: Work, handoff: HandoffRow) -> None:
    """An offer is worth what whoever made it may do now.

    Read and not held: somebody who is demoted meanwhile was an admin still when the session was taken.
    """
    assert work.session is not None
    if handoff["offered_by_id"] == work.session["owner_id"]:
        return
    by = await work.tx.fetchrow(
        "SELECT role, deactivated_at FROM users WHERE id = $1", handoff["offered_by_id"], row=UserRow
    )
    assert by is not None
    if by["deactivated_at"] is not None or by["role"] not in (Role.OWNER, Role.ADMIN):
        raise Conflict(
            "Whoever offered you this session may not hand it over any more. Ask its owner to offer it to you.",
            field="handoffId",
        )


def _check_note(note: str, field: str) -> None:
    if len(note) > LONGEST_NOTE:
        raise TooLarge(f"A note has at most {LONGEST_NOTE:,} characters.", field=field)
