"""Annotations in the graph: mutations."""

from __future__ import annotations

import strawberry

from core.ids import decode
from core.permissions import Permission
from schema.annotations import AnnotationComment, AnnotationThread
from schema.fields import Info, input_type, mutation, object_type
from schema.sessions import Message
from services.annotations import comments, threads
from services.annotations.places import Place
from services.sessions import redaction

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."
_TEXT = (
    "Markdown (CommonMark, tables, strikethrough), 1 to 20,000 characters. `@[name](usr_…)` mentions somebody who may "
    "see the session, and tells them; at most 20 people in a comment, and 60 a minute."
)


@input_type
class AnnotationAnchorInput:
    """What an annotation is on: a message, or a tool execution; all of it, a block of its result, or a range of text.
    Without anything, the session as a whole."""

    message_id: strawberry.ID | None = strawberry.field(default=None, description="The message.")
    tool_execution_id: strawberry.ID | None = strawberry.field(default=None, description="The tool execution.")
    block: int | None = strawberry.field(default=None, description="Which content block of the result, from 0.")
    start: int | None = strawberry.field(
        default=None, description="Where a range begins, in characters (Unicode code points) of the text."
    )
    end: int | None = strawberry.field(
        default=None, description="Where it ends: the character here is not in it any more. At most 10,000 characters."
    )
    quote: str | None = strawberry.field(
        default=None,
        description="The text that you see in the range. Where the text there is another one, the annotation is "
        "refused instead of standing in a wrong place.",
    )

    def checked(self) -> Place:
        """What the services take."""
        return Place(
            message_id=None if self.message_id is None else decode("msg", self.message_id, field="anchor.messageId"),
            tool_execution_id=None
            if self.tool_execution_id is None
            else decode("tex", self.tool_execution_id, field="anchor.toolExecutionId"),
            block=self.block,
            start=self.start,
            end=self.end,
            quote=self.quote,
        )


@input_type
class CreateAnnotationInput:
    """A new annotation. Who may read a session may annotate it."""

    session_id: strawberry.ID = strawberry.field(description="The session.")
    anchor: AnnotationAnchorInput | None = strawberry.field(
        default=None, description="What it is on; left out, the session as a whole."
    )
    text: str = strawberry.field(description=_TEXT)
    labels: list[str] = strawberry.field(
        default_factory=list, description="What it is found by: at most 20, of 1 to 50 characters, kept in lower case."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class ReplyToAnnotationInput:
    """One more comment."""

    thread_id: strawberry.ID = strawberry.field(description="The annotation, `ant_…`.")
    text: str = strawberry.field(description=_TEXT)
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class EditCommentInput:
    """A comment of yours with another text."""

    comment_id: strawberry.ID = strawberry.field(description="The comment, `com_…`.")
    text: str = strawberry.field(description=_TEXT)


@input_type
class CommentInput:
    """A comment."""

    comment_id: strawberry.ID = strawberry.field(description="The comment, `com_…`.")


@input_type
class AnnotationInput:
    """An annotation."""

    thread_id: strawberry.ID = strawberry.field(description="The annotation, `ant_…`.")


@input_type
class LabelAnnotationInput:
    """Labels for an annotation."""

    thread_id: strawberry.ID = strawberry.field(description="The annotation, `ant_…`.")
    labels: list[str] = strawberry.field(description="Replaces all labels: at most 20, of 1 to 50 characters.")


@input_type
class ReactionInput:
    """An emoji on a comment."""

    comment_id: strawberry.ID = strawberry.field(description="The comment, `com_…`.")
    emoji: str = strawberry.field(description="An emoji, or a name like `:ship-it:`: up to 16 characters, no spaces.")


@input_type
class TextRangeInput:
    """A range of a message's text, in characters (Unicode code points)."""

    start: int = strawberry.field(description="Where it begins, from 0.")
    end: int = strawberry.field(description="Where it ends: the character here is not in it any more.")


@input_type
class RedactMessageInput:
    """What to take out of a message, and why. At most 100 ranges and quotes at once."""

    message_id: strawberry.ID = strawberry.field(description="The message.")
    ranges: list[TextRangeInput] = strawberry.field(default_factory=list, description="These characters.")
    quotes: list[str] = strawberry.field(
        default_factory=list,
        description="These texts, wherever they stand in the message, exactly as they are written.",
    )
    reason: str = strawberry.field(
        description="Why, in 1 to 500 characters. The audit log keeps it: do not repeat what you take out."
    )


@object_type
class AnnotationCommentPayload:
    """A comment, and the annotation it belongs to, as they now are."""

    comment: AnnotationComment = strawberry.field(description="The comment.")
    thread: AnnotationThread = strawberry.field(description="The annotation.")


@object_type
class CommentPayload:
    """A comment as it now is."""

    comment: AnnotationComment = strawberry.field(description="The comment.")


@object_type
class AnnotationPayload:
    """An annotation as it now is."""

    thread: AnnotationThread = strawberry.field(description="The annotation.")


@object_type
class RedactMessagePayload:
    """The message as it now is."""

    message: Message = strawberry.field(description="The message.")


@strawberry.type
class AnnotationMutation:
    @mutation(Permission.ANNOTATIONS_WRITE)
    async def create_annotation(info: Info, input: CreateAnnotationInput) -> AnnotationCommentPayload:
        """Annotate a session, a message, a tool execution, or a range of text. At most 2,000 in a session."""
        thread, comment = await threads.create_annotation(
            info.context.actor,
            decode("ses", input.session_id, field="sessionId"),
            input.anchor.checked() if input.anchor else Place(),
            input.text,
            input.labels,
            key=input.idempotency_key,
        )
        return AnnotationCommentPayload(comment=comment, thread=thread)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def reply_to_annotation(info: Info, input: ReplyToAnnotationInput) -> AnnotationCommentPayload:
        """Say more in an annotation; those who took part are told. At most 500 comments."""
        thread, comment = await threads.reply_to_annotation(
            info.context.actor, decode("ant", input.thread_id, field="threadId"), input.text, key=input.idempotency_key
        )
        return AnnotationCommentPayload(comment=comment, thread=thread)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def edit_comment(info: Info, input: EditCommentInput) -> CommentPayload:
        """Replace the text of a comment of yours. What it said stays in its history; who is newly mentioned is told."""
        changed = await comments.edit_comment(
            info.context.actor, decode("com", input.comment_id, field="commentId"), input.text
        )
        return CommentPayload(comment=changed)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def delete_comment(info: Info, input: CommentInput) -> CommentPayload:
        """Take away the text, history and reactions of a comment: of yours, or of anybody's where you administer the
        session. Its place in the annotation stays."""
        deleted = await comments.delete_comment(info.context.actor, decode("com", input.comment_id, field="commentId"))
        return CommentPayload(comment=deleted)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def resolve_annotation(info: Info, input: AnnotationInput) -> AnnotationPayload:
        """Say that an annotation is dealt with."""
        return AnnotationPayload(thread=await threads.resolve_annotation(info.context.actor, _thread(input)))

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def reopen_annotation(info: Info, input: AnnotationInput) -> AnnotationPayload:
        """Say that an annotation is not dealt with after all."""
        return AnnotationPayload(thread=await threads.reopen_annotation(info.context.actor, _thread(input)))

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def label_annotation(info: Info, input: LabelAnnotationInput) -> AnnotationPayload:
        """Replace an annotation's labels."""
        thread = await threads.label_annotation(
            info.context.actor, decode("ant", input.thread_id, field="threadId"), input.labels
        )
        return AnnotationPayload(thread=thread)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def react_to_comment(info: Info, input: ReactionInput) -> CommentPayload:
        """Put an emoji on a comment."""
        comment = await comments.react_to_comment(
            info.context.actor, decode("com", input.comment_id, field="commentId"), input.emoji
        )
        return CommentPayload(comment=comment)

    @mutation(Permission.ANNOTATIONS_WRITE)
    async def remove_reaction(info: Info, input: ReactionInput) -> CommentPayload:
        """Take an emoji of yours away."""
        comment = await comments.remove_reaction(
            info.context.actor, decode("com", input.comment_id, field="commentId"), input.emoji
        )
        return CommentPayload(comment=comment)

    @mutation(Permission.SESSIONS_WRITE)
    async def redact_message(info: Info, input: RedactMessageInput) -> RedactMessagePayload:
        """Take characters out of a message for good: `[redacted]` stands in their place, in the message, in the
        session's events, and in the quotes of annotations, which stay where they belong. It takes ADMIN access to the
        session, and no run may be open.

        The agent's own memory of the conversation is not changed: it may still know, and repeat, what was taken out,
        also in forks. Go on in a new session where it must not. Copies of the message in forks, comments that repeat
        it, results of tools, files, and what clients have kept are not changed either: redact or delete them there.
        """
        message = await redaction.redact_message(
            info.context.actor,
            decode("msg", input.message_id, field="messageId"),
            spans=[(range_.start, range_.end) for range_ in input.ranges],
            quotes=input.quotes,
            reason=input.reason,
        )
        return RedactMessagePayload(message=message)


def _thread(input: AnnotationInput) -> object:
    return decode("ant", input.thread_id, field="threadId")
