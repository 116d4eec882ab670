"""Threads of comments: begun at a place, answered, resolved and opened again, labelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from core.errors import BadInput, Forbidden, LimitExceeded, NotFound
from core.ids import encode, new_id
from core.permissions import Actor, Permission
from models.annotations import AnnotationCommentRow, AnnotationStatus, AnnotationThread, AnnotationThreadRow
from models.base import Query
from models.notifications import NotificationKind
from models.sharing import AccessLevel
from services import idempotency
from services.annotations import mentions, places
from services.annotations.markdown import Written, read
from services.annotations.places import Place
from services.work import Work, write

MOST_THREADS = 2_000
"""Of a session."""
MOST_COMMENTS = 500
"""Of a thread, deleted ones included."""
MOST_LABELS = 20
LONGEST_LABEL = 50

COMMENT_COLUMNS = (
    "id, organization_id, session_id, thread_id, number, author_id, markdown, html, plain, mentions, revision_count, "
    "edited_at, deleted_at, deleted_by_id, copied_from_id, created_at"
)
"""All but the words it is found by, which only the database reads."""
_TOLD_CHARACTERS = 500


async def create_annotation(
    actor: Actor, session_id: UUID, place: Place, text: str, labels: Sequence[str] = (), *, key: str | None = None
) -> tuple[AnnotationThreadRow, AnnotationCommentRow]:
    """A thread with its first comment. Who may read the session may annotate it.

    Raises NotFound, BadInput, TooLarge, IllegalTransition (see places.find), LimitExceeded, RateLimited.
    """
    written, labels = await parsed(text), check_labels(labels)
    async with write(actor, "annotation.create") as work:
        actor.require(Permission.ANNOTATIONS_WRITE)
        session = await work.lock_session(session_id, needs=AccessLevel.READ)
        given = {"session": str(session_id), "place": vars_of(place), "text": text, "labels": labels}
        found = await idempotency.claim(work, "createAnnotation", key, given)
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return await thread_in(work, found.earlier), await _first_comment(work, found.earlier)
        anchor = await places.find(work, place)
        number = 1 + (
            await work.tx.fetchval("SELECT max(number) FROM annotation_threads WHERE session_id = $1", session_id) or 0
        )
        if number > MOST_THREADS:
            raise LimitExceeded(
                f"This session has {MOST_THREADS:,} annotations, which is the most. Reply to one of them.",
                field="sessionId",
            )
        quote = anchor.quote
        thread = await work.tx.fetchrow(
            "INSERT INTO annotation_threads (id, organization_id, session_id, number, message_id, tool_execution_id, "
            "block, range_start, range_end, quote, prefix, suffix, orphaned, author_id, status, labels, comment_count, "
            "created_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, false, $13, 'OPEN', $14, 0, $15, $15) "
            "RETURNING *",
            found.result_id,
            session["organization_id"],
            session_id,
            number,
            anchor.message_id,
            anchor.tool_execution_id,
            anchor.block,
            quote.start if quote else None,
            quote.end if quote else None,
            quote.text if quote else None,
            quote.prefix if quote else None,
            quote.suffix if quote else None,
            _author(actor),
            labels,
            work.at,
            row=AnnotationThreadRow,
        )
        assert thread is not None
        comment = await _say(work, thread, written, new_id(), "created")
        work.changed(
            after={
                "threadId": encode("ant", thread["id"]),
                "messageId": encode("msg", anchor.message_id) if anchor.message_id else None,
                "toolExecutionId": encode("tex", anchor.tool_execution_id) if anchor.tool_execution_id else None,
                "range": [quote.start, quote.end] if quote else None,
                "labels": labels,
                **facts_of(text),
            }
        )
        return await thread_in(work, thread["id"]), comment


async def reply_to_annotation(
    actor: Actor, thread_id: UUID, text: str, *, key: str | None = None
) -> tuple[AnnotationThreadRow, AnnotationCommentRow]:
    """One more comment. Raises NotFound, BadInput, TooLarge, LimitExceeded, RateLimited."""
    written = await parsed(text)
    async with write(actor, "annotation.reply") as work:
        thread = await lock_thread(work, thread_id)
        found = await idempotency.claim(work, "replyToAnnotation", key, {"thread": str(thread_id), "text": text})
        if found.earlier is not None:
            work.entry.details = {"repeated": True}
            return thread, await comment_in(work, found.earlier)
        if thread["comment_count"] >= MOST_COMMENTS:
            raise LimitExceeded(
                f"This thread has {MOST_COMMENTS} comments, which is the most. Begin another one.", field="threadId"
            )
        comment = await _say(work, thread, written, found.result_id, "commented")
        work.changed(after={"commentId": encode("com", comment["id"]), **facts_of(text)})
        return await thread_in(work, thread_id), comment


async def resolve_annotation(actor: Actor, thread_id: UUID) -> AnnotationThreadRow:
    """Say that it is dealt with. Again has no effect. Raises NotFound."""
    return await _set_status(actor, thread_id, AnnotationStatus.RESOLVED, "annotation.resolve", "resolved")


async def reopen_annotation(actor: Actor, thread_id: UUID) -> AnnotationThreadRow:
    """Say that it is not dealt with after all. Again has no effect. Raises NotFound."""
    return await _set_status(actor, thread_id, AnnotationStatus.OPEN, "annotation.reopen", "reopened")


async def label_annotation(actor: Actor, thread_id: UUID, labels: Sequence[str]) -> AnnotationThreadRow:
    """Replace a thread's labels. Raises NotFound, BadInput."""
    labels = check_labels(labels)
    async with write(actor, "annotation.label") as work:
        thread = await lock_thread(work, thread_id)
        if thread["labels"] == labels:
            work.entry.action = ""  # nothing changes
            return thread
        await work.tx.execute(
            "UPDATE annotation_threads SET labels = $2, updated_at = $3 WHERE id = $1", thread_id, labels, work.at
        )
        work.changed(before={"labels": thread["labels"]}, after={"labels": labels})
        emit(work, thread, "labelled", labels=labels)
        return await thread_in(work, thread_id)


# -- for the other services of this domain


async def parsed(text: str) -> Written:
    """A comment's text as it was read and rendered; off the event loop, since 20,000 characters of marks take a while,
    and before the session is held."""
    return await asyncio.to_thread(read, text)


async def lock_thread(work: Work, thread_id: UUID, *, needs: AccessLevel = AccessLevel.READ) -> AnnotationThreadRow:
    """A thread, with its session held: all that is written about a session's threads is written one after the other.
    NotFound where the actor may not see it."""
    work.actor.require(Permission.ANNOTATIONS_WRITE)
    query = Query()
    session_id = await work.tx.fetchval(
        f"SELECT session_id FROM annotation_threads WHERE id = {query.arg(thread_id)} "
        f"AND {query.scope(AnnotationThread.visible_to(work.actor))}",
        *query.args,
    )
    if session_id is None:
        raise NotFound("There is no such annotation, or you may not see it.", field="threadId")
    work.target("AnnotationThread", thread_id)
    await work.lock_session(session_id, needs=needs)
    return await thread_in(work, thread_id)


async def thread_in(work: Work, thread_id: UUID) -> AnnotationThreadRow:
    """A thread as this transaction sees it."""
    row = await work.tx.fetchrow("SELECT * FROM annotation_threads WHERE id = $1", thread_id, row=AnnotationThreadRow)
    assert row is not None
    return row


async def comment_in(work: Work, comment_id: UUID) -> AnnotationCommentRow:
    """A comment as this transaction sees it."""
    row = await work.tx.fetchrow(
        f"SELECT {COMMENT_COLUMNS} FROM annotation_comments WHERE id = $1", comment_id, row=AnnotationCommentRow
    )
    assert row is not None
    return row


def emit(work: Work, thread: AnnotationThreadRow, what: str, *, comment_id: UUID | None = None, **more: Any) -> None:
    """The event that tells of a thread: `quarterdeck.annotation.…`."""
    data = {"threadId": encode("ant", thread["id"])}
    if comment_id is not None:
        data["commentId"] = encode("com", comment_id)
    if thread["message_id"] is not None:
        data["messageId"] = encode("msg", thread["message_id"])
    work.emit(
        "CUSTOM",
        data | more,
        name=f"quarterdeck.annotation.{what}",
        message_id=thread["message_id"],
        tool_execution_id=thread["tool_execution_id"],
    )


def facts_of(text: str) -> dict[str, Any]:
    """What the audit record says of a text, which may be long or hold what should not be kept. No digest of it: records
    are kept for good, and whoever guesses a text that was deleted since could try whether it was this one."""
    return {"characters": len(text)}


async def tell_mentioned(work: Work, comment: AnnotationCommentRow, people: Sequence[UUID]) -> set[UUID]:
    """Tell those who are named in a comment, once each. Raises RateLimited."""
    assert work.session is not None
    told = await mentions.told(work, comment["id"], people)
    if told:
        work.notify(
            NotificationKind.MENTION,
            told,
            f"{work.actor.name or 'Somebody'} mentioned you in {work.session['title']}",
            body=comment["plain"][:_TOLD_CHARACTERS],
            subject=("AnnotationComment", comment["id"]),
        )
    return set(people)


def check_labels(labels: Sequence[str], *, field: str = "labels") -> list[str]:
    """At most 20 labels of 1 to 50 characters: in lower case, sorted, each once."""
    found = {" ".join(label.split()).casefold() for label in labels}
    if len(labels) > MOST_LABELS:
        raise BadInput(f"An annotation has at most {MOST_LABELS} labels.", field=field)
    for label in found:
        if not 1 <= len(label) <= LONGEST_LABEL or not label.isprintable():
            raise BadInput(
                f"{label[:80]!r} is not a label: 1 to {LONGEST_LABEL} characters that can be printed.", field=field
            )
    return sorted(found)


def vars_of(place: Place) -> dict[str, Any]:
    """A place as an idempotency key remembers it."""
    return {name: getattr(place, name) for name in Place.__slots__}


# -- helpers


async def _say(
    work: Work, thread: AnnotationThreadRow, written: Written, comment_id: UUID, what: str
) -> AnnotationCommentRow:
    """The next comment of a thread, with its event, and those told whom it concerns."""
    names = await mentions.names_of(work.tx, work.actor, thread["session_id"], written.mentions)
    comment = await work.tx.fetchrow(
        "INSERT INTO annotation_comments (id, organization_id, session_id, thread_id, number, author_id, markdown, "
        "html, plain, mentions, revision_count, created_at) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11) RETURNING {COMMENT_COLUMNS}",
        comment_id,
        thread["organization_id"],
        thread["session_id"],
        thread["id"],
        thread["comment_count"] + 1,
        _author(work.actor),
        written.markdown,
        written.html(names),
        written.plain(names),
        list(written.mentions),
        work.at,
        row=AnnotationCommentRow,
    )
    assert comment is not None
    await work.tx.execute(
        "UPDATE annotation_threads SET comment_count = comment_count + 1, updated_at = $2 WHERE id = $1",
        thread["id"],
        work.at,
    )
    work.target("AnnotationThread", thread["id"])
    emit(work, thread, what, comment_id=comment_id)
    mentioned = await tell_mentioned(work, comment, written.mentions)
    await _tell_participants(work, thread, comment, but=mentioned)
    return comment


async def _tell_participants(
    work: Work, thread: AnnotationThreadRow, comment: AnnotationCommentRow, *, but: set[UUID]
) -> None:
    assert work.session is not None
    rows = await work.tx.fetch(
        "SELECT DISTINCT author_id FROM annotation_comments WHERE thread_id = $1 AND deleted_at IS NULL", thread["id"]
    )
    people = {row["author_id"] for row in rows} - but - {work.actor.user_id}
    if people:
        work.notify(
            NotificationKind.REPLY,
            sorted(people),
            f"{work.actor.name or 'Somebody'} replied in {work.session['title']}",
            body=comment["plain"][:_TOLD_CHARACTERS],
            subject=("AnnotationComment", comment["id"]),
        )


async def _set_status(
    actor: Actor, thread_id: UUID, status: AnnotationStatus, action: str, what: str
) -> AnnotationThreadRow:
    async with write(actor, action) as work:
        thread = await lock_thread(work, thread_id)
        if thread["status"] == status:
            work.entry.action = ""  # nothing changes
            return thread
        resolved = status is AnnotationStatus.RESOLVED
        await work.tx.execute(
            "UPDATE annotation_threads SET status = $2, resolved_by_id = $3, resolved_at = $4, updated_at = $5 "
            "WHERE id = $1",
            thread_id,
            status.value,
            actor.user_id if resolved else None,
            work.at if resolved else None,
            work.at,
        )
        work.changed(before={"status": thread["status"]}, after={"status": status.value})
        emit(work, thread, what)
        return await thread_in(work, thread_id)


async def _first_comment(work: Work, thread_id: UUID) -> AnnotationCommentRow:
    row = await work.tx.fetchrow(
        f"SELECT {COMMENT_COLUMNS} FROM annotation_comments WHERE thread_id = $1 AND number = 1",
        thread_id,
        row=AnnotationCommentRow,
    )
    assert row is not None
    return row


def _author(actor: Actor) -> UUID:
    if actor.user_id is None:
        raise Forbidden("Comments are written by somebody: sign in as a user or a service account.")
    return actor.user_id
