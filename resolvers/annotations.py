"""Reads of annotations and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput
from core.ids import decode
from core.paging import Page
from core.permissions import Actor, Permission
from models.annotations import (
    AnnotationComment,
    AnnotationCommentRow,
    AnnotationReactionRow,
    AnnotationRevisionRow,
    AnnotationStatus,
    AnnotationThread,
    AnnotationThreadRow,
    Score,
    ScoreRow,
    ScoreSource,
    ScoreType,
)
from models.base import Query
from models.identity import User, UserRow
from resolvers import reading
from resolvers.reading import children, needing, parent
from services.annotations.threads import COMMENT_COLUMNS

LONGEST_SEARCH = 200
MOST_IN_A_FILTER = 100


@dataclass(frozen=True, slots=True)
class AnnotationFilter:
    """Which threads a list has. What is asked of comments, one comment must have all of."""

    session_ids: Sequence[UUID] | None = None
    statuses: Sequence[AnnotationStatus] | None = None
    labels: Sequence[str] | None = None
    author_ids: Sequence[UUID] | None = None
    text: str | None = None
    mentions_me: bool = False
    created_after: datetime | None = None
    created_before: datetime | None = None

    def __post_init__(self) -> None:
        for field, values in (
            ("sessionIds", self.session_ids),
            ("authorIds", self.author_ids),
            ("labels", self.labels),
        ):
            if values is not None and len(values) > MOST_IN_A_FILTER:
                raise BadInput(f"At most {MOST_IN_A_FILTER} are taken here.", field=f"filter.{field}")
        if self.text is not None and not 1 <= len(self.text.strip()) <= LONGEST_SEARCH:
            raise BadInput(f"A search has 1 to {LONGEST_SEARCH} characters.", field="filter.text")

    def conditions(self, query: Query, actor: Actor) -> list[str]:
        """The filter in SQL."""
        found = []
        if self.session_ids is not None:
            found.append(f"annotation_threads.session_id = ANY({query.arg(list(self.session_ids))})")
        if self.statuses is not None:
            found.append(f"annotation_threads.status = ANY({query.arg([status.value for status in self.statuses])})")
        if self.labels:
            wanted = sorted({" ".join(label.split()).casefold() for label in self.labels})
            found.append(f"annotation_threads.labels @> {query.arg(wanted)}::text[]")
        if self.created_after is not None:
            found.append(f"annotation_threads.created_at >= {query.arg(self.created_after)}")
        if self.created_before is not None:
            found.append(f"annotation_threads.created_at < {query.arg(self.created_before)}")
        if said := self._said(query, actor):
            found.append(
                "EXISTS (SELECT FROM annotation_comments AS said WHERE said.thread_id = annotation_threads.id "
                f"AND said.deleted_at IS NULL AND {' AND '.join(said)})"
            )
        return found

    def _said(self, query: Query, actor: Actor) -> list[str]:
        found = []
        if self.author_ids is not None:
            found.append(f"said.author_id = ANY({query.arg(list(self.author_ids))})")
        if self.mentions_me:
            found.append(f"said.mentions @> ARRAY[{query.arg(actor.user_id)}::uuid]")
        if self.text is not None:
            found.append(f"said.search @@ websearch_to_tsquery('english', {query.arg(self.text)})")
        return found


@dataclass(frozen=True, slots=True)
class ScoreFilter:
    """Which scores a list has."""

    session_ids: Sequence[UUID] | None = None
    names: Sequence[str] | None = None
    types: Sequence[ScoreType] | None = None
    sources: Sequence[ScoreSource] | None = None
    evaluators: Sequence[str] | None = None
    author_ids: Sequence[UUID] | None = None
    at_least: float | None = None
    at_most: float | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def __post_init__(self) -> None:
        for field, values in (
            ("sessionIds", self.session_ids),
            ("names", self.names),
            ("evaluators", self.evaluators),
            ("authorIds", self.author_ids),
        ):
            if values is not None and len(values) > MOST_IN_A_FILTER:
                raise BadInput(f"At most {MOST_IN_A_FILTER} are taken here.", field=f"filter.{field}")

    def conditions(self, query: Query, actor: Actor) -> list[str]:
        """The filter in SQL."""
        found = []
        for column, values in (
            ("session_id", self.session_ids),
            ("name", self.names),
            ("type", self.types),
            ("source", self.sources),
            ("evaluator", self.evaluators),
            ("author_id", self.author_ids),
        ):
            if values is not None:
                found.append(f"scores.{column} = ANY({query.arg(list(values))})")
        for condition, value in (
            ("number >=", self.at_least),
            ("number <=", self.at_most),
            ("created_at >=", self.created_after),
            ("created_at <", self.created_before),
        ):
            if value is not None:
                found.append(f"scores.{condition} {query.arg(value)}")
        return found


EVERYTHING = AnnotationFilter()
EVERY_SCORE = ScoreFilter()


async def thread(actor: Actor, id_: UUID) -> AnnotationThreadRow | None:
    """A thread, or None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "annotation_threads", AnnotationThreadRow, AnnotationThread.visible_to(actor), id_
    )


async def comment(actor: Actor, id_: UUID) -> AnnotationCommentRow | None:
    """A comment, or None where the actor may not see it."""
    found = await reading.by_ids(
        "annotation_comments", AnnotationCommentRow, AnnotationComment.visible_to(actor), {id_}, columns=COMMENT_COLUMNS
    )
    return found.get(id_)


async def score(actor: Actor, id_: UUID) -> ScoreRow | None:
    """A score, or None where the actor may not see it."""
    return await reading.find("scores", ScoreRow, Score.visible_to(actor), id_)  # type: ignore[no-any-return]


async def threads(
    actor: Actor, filter_: AnnotationFilter, *, first: int | None, after: str | None, descending: bool
) -> Page[AnnotationThreadRow]:
    """The threads of all sessions that the actor may see, by creation."""
    return await reading.page(
        "annotation_threads",
        AnnotationThreadRow,
        lambda query: [
            query.scope(AnnotationThread.visible_to(actor)),
            f"annotation_threads.organization_id = {query.arg(actor.organization_id)}",
            *filter_.conditions(query, actor),
        ],
        first=first,
        after=after,
        order="created_at",
        descending=descending,
        search=filter_ != EVERYTHING,
    )


async def scores(actor: Actor, filter_: ScoreFilter, *, first: int | None, after: str | None) -> Page[ScoreRow]:
    """The scores of all sessions that the actor may see, the newest first."""
    return await reading.page(
        "scores",
        ScoreRow,
        lambda query: [
            query.scope(Score.visible_to(actor)),
            f"scores.organization_id = {query.arg(actor.organization_id)}",
            *filter_.conditions(query, actor),
        ],
        first=first,
        after=after,
        order="created_at",
        search=filter_ != EVERY_SCORE,
    )


def _filtered(actor: Actor, args: dict[str, Any], query: Query) -> Sequence[str]:
    return args["filter"].conditions(query, actor) if args.get("filter") else ()


_readable = partial(needing, Permission.SESSIONS_READ)
"""What is said in a session is for those who may read sessions, by whatever field they come to it."""


def _threads_of(column: str) -> reading.Batch:
    return _readable(children("annotation_threads", AnnotationThreadRow, column, order="number", filtered=_filtered))


threads_of_sessions = _threads_of("session_id")
threads_of_messages = _threads_of("message_id")
threads_of_tools = _threads_of("tool_execution_id")
comments_of_threads = _readable(
    children("annotation_comments", AnnotationCommentRow, "thread_id", order="number", columns=COMMENT_COLUMNS)
)
revisions_of_comments = _readable(children("annotation_revisions", AnnotationRevisionRow, "comment_id", order="number"))
reactions_of_comments = _readable(children("annotation_reactions", AnnotationReactionRow, "comment_id", order="id"))
scores_of_sessions = _readable(children("scores", ScoreRow, "session_id", order="id"))
scores_of_messages = _readable(children("scores", ScoreRow, "message_id", order="id"))
scores_of_runs = _readable(children("scores", ScoreRow, "run_id", order="id"))
scores_of_tools = _readable(children("scores", ScoreRow, "tool_execution_id", order="id"))

thread_of = _readable(parent("annotation_threads", AnnotationThreadRow, "thread_id", AnnotationThread.visible_to))


async def thread_of_events(actor: Actor, items: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The threads that events of a session are about; None for other events."""
    named = [item.event.data.get("threadId") if item.event.type == "CUSTOM" else None for item in items]
    ids = {name: decode("ant", name) for name in named if name is not None}
    found = await reading.by_ids(
        "annotation_threads", AnnotationThreadRow, AnnotationThread.visible_to(actor), set(ids.values())
    )
    return [found.get(ids[name]) if name is not None else None for name in named]


original_of = _readable(
    parent("annotation_threads", AnnotationThreadRow, "copied_from_id", AnnotationThread.visible_to)
)


def _counts_of_messages(where: str) -> reading.Batch:
    async def batch(actor: Actor, messages: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        rows = await db.fetch(
            "SELECT message_id, count(*) AS n FROM annotation_threads "
            f"WHERE message_id = ANY($1) AND {where} GROUP BY message_id",
            [message["id"] for message in messages],
        )
        found = {row["message_id"]: row["n"] for row in rows}
        return [found.get(message["id"], 0) for message in messages]

    return batch


counts_of_messages = _counts_of_messages("true")
open_counts_of_messages = _counts_of_messages("status = 'OPEN'")


async def reaction_counts(actor: Actor, comments: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """The emoji on comments, in the order of their first use."""
    rows = await db.fetch(
        "SELECT comment_id, emoji, count(*) AS count, bool_or(user_id = $2) AS mine FROM annotation_reactions "
        "WHERE comment_id = ANY($1) GROUP BY comment_id, emoji ORDER BY min(created_at), emoji",
        [comment["id"] for comment in comments],
        actor.user_id,
        row=AnnotationReactionRow,
    )
    found: dict[UUID, list[Any]] = {}
    for row in rows:
        found.setdefault(row["comment_id"], []).append(row)
    return [found.get(comment["id"], []) for comment in comments]


async def _mentioned(actor: Actor, comments: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    users = await reading.by_ids(
        "users", UserRow, User.visible_to(actor), {user for comment in comments for user in comment["mentions"]}
    )
    return [[users[user] for user in comment["mentions"] if user in users] for comment in comments]


mentioned_in_comments = needing(Permission.MEMBERS_READ, _mentioned)
