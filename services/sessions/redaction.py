"""Taking characters out of a message for good: what was said by mistake, as a password."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.errors import BadInput, IllegalTransition, LimitExceeded, NotFound, TooLarge
from core.ids import encode
from core.permissions import Actor
from models.base import Query
from models.sessions import MessageRow, MessageStatus, in_visible_session
from models.sharing import AccessLevel
from services.annotations.anchors import Redaction, Span, occurrences
from services.work import Work, write

MOST_GIVEN = 100
"""Ranges and quotes in one redaction."""
MOST_FOUND = 1_000
"""Parts of a message that one redaction takes out."""
LONGEST_QUOTE = 20_000
LONGEST_REASON = 500

# The events that carry a message's text.
_EVENTS = """
UPDATE session_events SET data = jsonb_set(data, '{text}', to_jsonb($4::text))
WHERE session_id = $1 AND message_id = $2 AND seq >= $3 AND data ? 'text' AND (
    type = 'TEXT_MESSAGE_END'
    OR type = 'CUSTOM' AND name IN ('quarterdeck.message.sent', 'quarterdeck.message.copied'))
"""
_THREADS = """
UPDATE annotation_threads SET range_start = moved.range_start, range_end = moved.range_end, quote = moved.quote,
    prefix = moved.prefix, suffix = moved.suffix, orphaned = annotation_threads.orphaned OR moved.gone
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[])
    AS moved (id, range_start, range_end, quote, prefix, suffix, gone)
WHERE annotation_threads.id = moved.id
"""


async def redact_message(
    actor: Actor, message_id: UUID, *, spans: Sequence[Span] = (), quotes: Sequence[str] = (), reason: str
) -> MessageRow:
    """Put `[redacted]` in the place of ranges of characters, and of all places where a quote stands: in the message,
    in the events that carry its text, and in the quotes of annotations on it, which stay where they belong.

    The runtime's memory of the conversation is its own and is not changed, nor are copies of the message in forks.
    Notifications never quote a message, so there is nothing to take out of them.

    Raises NotFound, Forbidden without ADMIN access, IllegalTransition while runs are open, BadInput, TooLarge,
    LimitExceeded.
    """
    reason = _check(spans, quotes, reason)
    async with write(actor, "message.redact") as work:
        message = await _lock(work, message_id)
        redaction = Redaction(message["text"], _found(message["text"], spans, quotes))
        if len(redaction.spans) > MOST_FOUND:
            raise LimitExceeded(
                f"That would take out {len(redaction.spans):,} parts of the message; at most {MOST_FOUND:,} at once.",
                field="quotes",
            )
        await work.tx.execute("UPDATE messages SET text = $2 WHERE id = $1", message_id, redaction.text)
        await work.tx.execute(_EVENTS, message["session_id"], message_id, message["seq"], redaction.text)
        await _move_threads(work, message_id, redaction)
        work.target("Message", message_id)
        # No digest of what it was: whoever knows the rest could try what was taken out.
        work.changed(
            before={"characters": len(message["text"])},
            after={"characters": len(redaction.text), "parts": len(redaction.spans), "reason": reason},
        )
        work.emit(
            "CUSTOM",
            {
                "messageId": encode("msg", message_id),
                "ranges": [{"start": start, "end": end} for start, end in redaction.spans],
            },
            name="quarterdeck.message.redacted",
            message_id=message_id,
        )
        changed = await work.tx.fetchrow("SELECT * FROM messages WHERE id = $1", message_id, row=MessageRow)
        assert changed is not None
        return changed


async def _lock(work: Work, message_id: UUID) -> MessageRow:
    query = Query()
    session_id = await work.tx.fetchval(
        f"SELECT session_id FROM messages WHERE id = {query.arg(message_id)} "
        f"AND {query.scope(in_visible_session('messages', work.actor), by_row=True)}",
        *query.args,
    )
    if session_id is None:
        raise NotFound("There is no such message, or you may not see it.", field="messageId")
    await work.lock_session(session_id, needs=AccessLevel.ADMIN)
    message = await work.tx.fetchrow("SELECT * FROM messages WHERE id = $1", message_id, row=MessageRow)
    assert message is not None
    if message["status"] == MessageStatus.STREAMING or await work.tx.fetchval(
        "SELECT EXISTS (SELECT FROM runs WHERE session_id = $1 AND status IN ('QUEUED', 'RUNNING', 'WAITING'))",
        session_id,
    ):
        raise IllegalTransition(
            "Runs of this session are open, and work with its messages. Redact when they have ended, or interrupt "
            "them.",
            field="messageId",
        )
    return message


async def _move_threads(work: Work, message_id: UUID, redaction: Redaction) -> None:
    threads = await work.tx.fetch(
        "SELECT id, range_start, range_end FROM annotation_threads WHERE message_id = $1 AND range_start IS NOT NULL",
        message_id,
    )
    if not threads:
        return
    quotes = [redaction.quote(thread["range_start"], thread["range_end"]) for thread in threads]
    await work.tx.execute(
        _THREADS,
        [thread["id"] for thread in threads],
        [quote.start for quote in quotes],
        [quote.end for quote in quotes],
        [quote.text for quote in quotes],
        [quote.prefix for quote in quotes],
        [quote.suffix for quote in quotes],
        [quote.gone for quote in quotes],
    )


def _check(spans: Sequence[Span], quotes: Sequence[str], reason: str) -> str:
    if not spans and not quotes:
        raise BadInput("Say what to take out: `ranges`, or `quotes`.", field="ranges")
    if len(spans) + len(quotes) > MOST_GIVEN:
        raise BadInput(f"At most {MOST_GIVEN} ranges and quotes are taken at once.", field="ranges")
    for quote in quotes:
        if not quote:
            raise BadInput("A quote is not empty.", field="quotes")
        if len(quote) > LONGEST_QUOTE:
            raise TooLarge(f"A quote has at most {LONGEST_QUOTE:,} characters. Give a range.", field="quotes")
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= LONGEST_REASON:
        raise BadInput(
            f"Say why, in 1 to {LONGEST_REASON} characters. The audit log keeps it: do not repeat what you take out.",
            field="reason",
        )
    return reason


def _found(text: str, spans: Sequence[Span], quotes: Sequence[str]) -> list[Span]:
    found = list(spans)
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise BadInput(
                f"The message has {len(text):,} characters: a range begins at 0 or later, ends at {len(text)} or "
                "before, and is not empty.",
                field="ranges",
                length=len(text),
            )
    for index, quote in enumerate(quotes):
        places = occurrences(text, quote)
        if not places:
            # Not the quote itself: messages are logged, and this one is a secret perhaps.
            raise BadInput(f"Quote {index + 1} does not stand in the message.", field=f"quotes.{index}")
        found += places
    return found
