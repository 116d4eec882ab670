"""What an annotation can be attached to: a session, a message, a tool execution, a block of its result, a range of
text in one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import BadInput, IllegalTransition, NotFound, TooLarge
from models.sessions import MessageStatus
from services.annotations.anchors import Quote
from services.work import Work

LONGEST_RANGE = 10_000
"""In characters: its text is kept with the annotation."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an annotation is to be; without anything, the session as a whole."""

    message_id: UUID | None = None
    tool_execution_id: UUID | None = None
    block: int | None = None
    start: int | None = None
    end: int | None = None
    quote: str | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place that was found to be there."""

    message_id: UUID | None
    tool_execution_id: UUID | None
    block: int | None
    quote: Quote | None


async def find(work: Work, place: Place, *, field: str = "anchor") -> Anchor:
    """The place in the session that the write holds.

    Raises NotFound for what is not of this session, BadInput for a block or a range that is not there or has another
    text than the client saw, IllegalTransition for a range of what is still being written.
    """
    if place.message_id is not None and place.tool_execution_id is not None:
        raise BadInput("Attach it to a message or to a tool execution, not to both.", field=field)
    if place.message_id is not None:
        return await _in_message(work, place, place.message_id, field)
    if place.tool_execution_id is not None:
        return await _in_result(work, place, place.tool_execution_id, field)
    if place.block is not None or place.start is not None or place.end is not None or place.quote is not None:
        raise BadInput("A block or a range is one of a message or of a tool execution: say which.", field=field)
    return Anchor(None, None, None, None)


async def _in_message(work: Work, place: Place, message_id: UUID, field: str) -> Anchor:
    message = await work.tx.fetchrow(
        "SELECT text, status FROM messages WHERE id = $1 AND session_id = $2", message_id, _session(work)
    )
    if message is None:
        raise NotFound("There is no such message in this session.", field=f"{field}.messageId")
    if place.block not in (None, 0):
        raise BadInput("A message has one block: leave `block` out.", field=f"{field}.block")
    if message["status"] == MessageStatus.STREAMING and place.start is not None:
        raise IllegalTransition(
            "This message is still being written. Annotate all of it, or a range once it is complete.",
            field=f"{field}.start",
        )
    return Anchor(message_id, None, None, _quote(message["text"], place, field))


async def _in_result(work: Work, place: Place, tool_execution_id: UUID, field: str) -> Anchor:
    execution = await work.tx.fetchrow(
        "SELECT result FROM tool_executions WHERE id = $1 AND session_id = $2", tool_execution_id, _session(work)
    )
    if execution is None:
        raise NotFound("There is no such tool execution in this session.", field=f"{field}.toolExecutionId")
    if place.block is None:
        if place.start is not None or place.end is not None or place.quote is not None:
            raise BadInput("Say in which block of the result the range is.", field=f"{field}.block")
        return Anchor(None, tool_execution_id, None, None)
    blocks: list[Any] = execution["result"] or []
    if not 0 <= place.block < len(blocks):
        have = f"blocks 0 to {len(blocks) - 1}" if blocks else "no blocks (yet)"
        raise BadInput(f"The result has {have}, and no block {place.block}.", field=f"{field}.block")
    text = blocks[place.block].get("text")
    if not isinstance(text, str):
        if place.start is not None or place.end is not None or place.quote is not None:
            raise BadInput("This block is no text: attach the annotation to all of it.", field=f"{field}.start")
        return Anchor(None, tool_execution_id, place.block, None)
    return Anchor(None, tool_execution_id, place.block, _quote(text, place, field))


def _quote(text: str, place: Place, field: str) -> Quote | None:
    if place.start is None or place.end is None:
        if place.start is not None or place.end is not None or place.quote is not None:
            raise BadInput("A range has a `start` and an `end`.", field=f"{field}.start")
        return None
    if not 0 <= place.start < place.end <= len(text):
        raise BadInput(
            f"The text has {len(text):,} characters: a range begins at 0 or later, ends at {len(text)} or before, "
            "and is not empty.",
            field=f"{field}.start",
            length=len(text),
        )
    if place.end - place.start > LONGEST_RANGE:
        raise TooLarge(
            f"A range has at most {LONGEST_RANGE:,} characters. Attach the annotation to the whole instead.",
            field=f"{field}.end",
        )
    found = Quote.of(text, place.start, place.end)
    if place.quote is not None and place.quote != found.text:
        raise BadInput(
            f"The text there is {_shown(found.text)}, not what `quote` says. Positions count characters (Unicode code "
            "points); read the text again, and find the quote in it.",
            field=f"{field}.quote",
            found=found.text[:500],
        )
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")


def _session(work: Work) -> UUID:
    assert work.session is not None, "lock_session first"
    return work.session["id"]  # type: ignore[no-any-return]
