"""Annotations in the graph: types and queries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry

from core.ids import decode
from core.permissions import Permission
from models import annotations as models
from resolvers import annotations as reads
from resolvers import sessions
from resolvers.identity import user_in
from schema.annotation_filters import AnnotationsFilter, AnnotationStatus
from schema.connections import After, Connection, First
from schema.fields import (
    Info,
    Node,
    column,
    entity,
    id_column,
    nested,
    object_type,
    query,
)
from schema.sessions import LazyUser, Message, Order, OrderBy, Session, ToolExecution


@object_type
class AnnotationAnchor:
    """Where an annotation is, within its message or tool execution. A range counts characters (Unicode code points:
    `[...text]` in JavaScript) of the message's `text`, or of the `text` of the result's block."""

    block: int | None = column("Which of the result's content blocks, from 0; null for messages, and for all of them.")
    start: int | None = column("Where the range begins; null where the annotation is on the whole.", name="range_start")
    end: int | None = column("Where the range ends; the character here is not in it any more.", name="range_end")
    quote: str | None = column("The text of the range, as it now is: what was redacted is `[redacted]`.")
    prefix: str | None = column("Up to 32 characters before the range.")
    suffix: str | None = column("Up to 32 characters after the range.")


@object_type
class AnnotationRevision:
    """What a comment said before an edit."""

    number: int = column("1 is what was written first.")
    markdown: str = column("The text as it was written.")
    html: str = column("The text as sanitised HTML.")
    written_at: datetime = column("When it was written.")


@object_type
class AnnotationReaction:
    """One person's emoji on a comment."""

    emoji: str = column("The emoji.")
    created_at: datetime = column("When.")

    @nested(user_in("user_id"))
    def user(self) -> LazyUser:
        """Who."""


@object_type
class AnnotationReactionCount:
    """An emoji on a comment, and how many chose it."""

    emoji: str = column("The emoji.")
    count: int = column("How many people.")
    mine: bool = column("Whether you are one of them.")


@entity(models.AnnotationCommentRow)
class AnnotationComment(Node):
    """One comment of an annotation. A deleted one keeps its place, and has no text any more."""

    number: int = column("1, 2, …: its place in the thread.")
    markdown: str = column("The text as it was written; empty where it was deleted.")
    html: str = column(
        "The text as HTML that may be shown as it is: no scripts, no images, links to the web and mail only. "
        'Mentions are `<span data-user-id="usr_…">@Name</span>`.'
    )
    plain: str = column("The words of the text alone, as search finds them.")
    revision_count: int = column("How often it was edited.")
    created_at: datetime = column("When it was written.")
    edited_at: datetime | None = column("When it was last edited.")
    deleted_at: datetime | None = column("When it was deleted.")
    copied_from_id: strawberry.ID | None = id_column(
        "AnnotationComment", "The comment that this one was copied from by a fork.", name="copied_from_id"
    )

    @nested(user_in("author_id"))
    def author(self) -> LazyUser:
        """Who wrote it."""

    @nested(user_in("deleted_by_id"))
    def deleted_by(self) -> LazyUser | None:
        """Who deleted it."""

    @nested(reads.mentioned_in_comments)
    def mentions(self) -> list[LazyUser]:
        """Who is mentioned in it, at most 20."""

    @nested(reads.reaction_counts)
    def reaction_counts(self) -> list[AnnotationReactionCount]:
        """The emoji on it, in the order of their first use; at most 50 different ones."""

    @nested(reads.reactions_of_comments)
    def reactions(self, first: First = None, after: After = None) -> Connection[AnnotationReaction]:
        """Who chose which emoji."""

    @nested(reads.revisions_of_comments)
    def revisions(self, first: First = None, after: After = None) -> Connection[AnnotationRevision]:
        """What it said before it was edited, the oldest first."""

    @nested(reads.thread_of)
    def thread(self) -> AnnotationThread:
        """The annotation it belongs to."""


@entity(models.AnnotationThreadRow)
class AnnotationThread(Node):
    """An annotation: comments on a session, a message, a tool execution, or a range of text in one of these."""

    number: int = column("1, 2, …: its number in the session.")
    status: AnnotationStatus = column("Whether it is dealt with.")
    orphaned: bool = column("Whether the text that it was about has been redacted: its range is where that text was.")
    labels: list[str] = column("What it is found by.")
    comment_count: int = column("How many comments it has, deleted ones included.")
    created_at: datetime = column("When it was begun.")
    updated_at: datetime = column("When something was last said or changed in it.")
    resolved_at: datetime | None = column("When it was resolved; null while it is open.")
    copied_from_id: strawberry.ID | None = id_column(
        "AnnotationThread", "The annotation that this one was copied from by a fork.", name="copied_from_id"
    )

    @strawberry.field(description="Where in its message or tool execution it is.")
    def anchor(root: Any) -> AnnotationAnchor:
        return root  # type: ignore[no-any-return]

    @nested(user_in("author_id"))
    def author(self) -> LazyUser:
        """Who began it."""

    @nested(user_in("resolved_by_id"))
    def resolved_by(self) -> LazyUser | None:
        """Who resolved it; null while it is open."""

    @nested(reads.comments_of_threads)
    def comments(
        self,
        first: First = None,
        after: After = None,
        newest_first: Annotated[bool, strawberry.argument(description="Begin with the latest.")] = False,
    ) -> Connection[AnnotationComment]:
        """What was said."""

    @nested(sessions.session_of)
    def session(self) -> Session:
        """The session it belongs to."""

    @nested(sessions.message_of)
    def message(self) -> Message | None:
        """The message it is on; null where it is on something else."""

    @nested(sessions.tool_execution_of)
    def tool_execution(self) -> ToolExecution | None:
        """The tool execution it is on; null where it is on something else."""

    @nested(reads.original_of)
    def copied_from(self) -> AnnotationThread | None:
        """The annotation that it was copied from by a fork, where you may see that one."""


@strawberry.type
class AnnotationQuery:
    @query(Permission.SESSIONS_READ)
    async def annotation_thread(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id, `ant_…`.")]
    ) -> AnnotationThread | None:
        """One annotation; null where there is none that you may see."""
        return await reads.thread(info.context.actor, decode("ant", id))

    @query(Permission.SESSIONS_READ)
    async def annotations(
        info: Info,
        first: First = None,
        after: After = None,
        filter: AnnotationsFilter = None,
        order_by: OrderBy = Order.NEWEST_FIRST,
    ) -> Connection[AnnotationThread]:
        """The annotations in all sessions that you may see, by the time they were begun."""
        return await reads.threads(
            info.context.actor,
            filter.checked() if filter else reads.EVERYTHING,
            first=first,
            after=after,
            descending=order_by is Order.NEWEST_FIRST,
        )
