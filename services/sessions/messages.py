"""Sending a message: it is stored, and a run is queued to answer it."""

from __future__ import annotations

from uuid import UUID

from core.errors import BadInput, IllegalTransition, TooLarge
from core.ids import encode, new_id
from core.permissions import Actor
from models.sessions import MessageRow, SessionRow, SessionStatus
from services import idempotency
from services.costs.guard import refuse_message
from services.parts import parts
from services.runs.queue import enqueue_next
from services.sessions.transitions import change_status
from services.work import Work, write

_CLOSED = {
    SessionStatus.COMPLETED: "It is completed: reopen it with resumeSession, or fork it.",
    SessionStatus.TERMINATED: "It is terminated: fork it to go on.",
    SessionStatus.ARCHIVED: "It is archived: bring it back with resumeSession, or fork it.",
}


async def send_message(actor: Actor, session_id: UUID, text: str, *, key: str | None = None) -> MessageRow:
    """Store a user's message and queue its run. Runs of a session are executed one at a time, in this order.

    Raises BadInput or TooLarge for the text, IllegalTransition where the session takes no messages, LimitExceeded
    where a budget is used up.
    """
    check_message(text)
    async with write(actor, "message.send") as work:
        session = await work.lock_session(session_id)
        # First of all: what was sent once stays sent, whatever became of the session since.
        found = await idempotency.claim(work, "sendMessage", key, {"session": str(session_id), "text": text})
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return await _message(work, found.earlier)
        if reason := _CLOSED.get(SessionStatus(session["status"])):
            raise IllegalTransition(
                f"This session takes no messages. {reason}", field="sessionId", status=session["status"]
            )
        parts().runtimes[session["runtime"]].validate(text)
        return await add_message(work, session, text, message_id=found.result_id)


async def add_message(work: Work, session: SessionRow, text: str, *, message_id: UUID) -> MessageRow:
    """The message, its run and its events, in a write that holds the session. Raises LimitExceeded where a budget that
    the run would be paid from is used up."""
    actor = work.actor
    await refuse_message(work, session)
    number = 1 + (await work.tx.fetchval("SELECT max(number) FROM runs WHERE session_id = $1", session["id"]) or 0)
    run_id = new_id()
    if session["status"] in (SessionStatus.CREATED, SessionStatus.FAILED):
        await change_status(work, SessionStatus.ACTIVE)
    seq = work.emit(
        "CUSTOM",
        {"messageId": encode("msg", message_id), "role": "user", "text": text, "runId": encode("run", run_id)},
        name="quarterdeck.message.sent",
        run_id=run_id,
        message_id=message_id,
    )
    work.emit(
        "CUSTOM", {"runId": encode("run", run_id), "number": number}, name="quarterdeck.run.queued", run_id=run_id
    )
    await work.tx.execute(
        "INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, "
        "request_count) "
        "VALUES ($1, $2, $3, $4, 'QUEUED', 1, $5, $6, 0)",
        run_id,
        session["organization_id"],
        session["id"],
        number,
        actor.user_id,
        work.at,
    )
    await work.tx.execute(
        "INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, author_id, text, "
        "created_at) "
        "VALUES ($1, $2, $3, $4, $5, 'USER', 'COMPLETE', false, $6, $7, $8)",
        message_id,
        session["organization_id"],
        session["id"],
        run_id,
        seq,
        actor.user_id,
        text,
        work.at,
    )
    await work.tx.execute("UPDATE sessions SET message_count = message_count + 1 WHERE id = $1", session["id"])
    work.session_changed("UPDATED")
    work.changed(
        after={"messageId": encode("msg", message_id), "runId": encode("run", run_id), "characters": len(text)}
    )
    work.after_commit(lambda: enqueue_next(session["id"]))
    return await _message(work, message_id)


async def _message(work: Work, message_id: UUID) -> MessageRow:
    row = await work.tx.fetchrow("SELECT * FROM messages WHERE id = $1", message_id, row=MessageRow)
    assert row is not None
    return row


def check_message(text: str) -> None:
    """Raises BadInput or TooLarge for a text that cannot be a message."""
    if not text.strip():
        raise BadInput("The message is empty.", field="text")
    if "\0" in text:
        raise BadInput("The message holds a NUL character, which cannot be stored.", field="text")
    limit = parts().settings.max_message_bytes
    if (size := len(text.encode())) > limit:
        raise TooLarge(
            f"The message has {size} bytes; at most {limit} are taken. Put long material in a file of the session.",
            field="text",
        )
