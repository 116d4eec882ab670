"""What people and evaluators say about sessions: threads of comments at a place, reactions, and scores."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import Row, Scope, TextArrayField, UuidArrayField
from models.sessions import in_visible_session


class AnnotationStatus(StrEnum):
    """Whether a thread still wants something done."""

    OPEN = "OPEN"
    RESOLVED = "RESOLVED"


class ScoreType(StrEnum):
    """What kind of value a score has."""

    NUMERIC = "NUMERIC"
    BOOLEAN = "BOOLEAN"
    CATEGORICAL = "CATEGORICAL"


class ScoreSource(StrEnum):
    """Whose judgement a score is."""

    HUMAN = "HUMAN"
    EVALUATOR = "EVALUATOR"


class AnnotationThreadRow(Row):
    __slots__ = ()


class AnnotationCommentRow(Row):
    __slots__ = ()


class AnnotationRevisionRow(Row):
    __slots__ = ()


class AnnotationReactionRow(Row):
    __slots__ = ()


class ScoreRow(Row):
    __slots__ = ()


class AnnotationThread(Model):
    """A conversation about a session, a message, a tool execution, one block of its result, or a range of text.

    The range is counted in characters (code points) of the message's text, or of the block's. `prefix` and `suffix`
    are the text around it, for readers that have to find it again elsewhere.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    number = fields.IntField()
    """1, 2, … within the session."""
    message: Any = fields.ForeignKeyField("models.Message", related_name=False, null=True, on_delete=fields.CASCADE)
    tool_execution: Any = fields.ForeignKeyField(
        "models.ToolExecution", related_name=False, null=True, on_delete=fields.CASCADE
    )
    block = fields.IntField(null=True)
    """Which of the content blocks of a tool's result, from 0."""
    range_start = fields.IntField(null=True)
    range_end = fields.IntField(null=True)
    quote = fields.TextField(null=True)
    prefix = fields.TextField(null=True)
    suffix = fields.TextField(null=True)
    orphaned = fields.BooleanField(default=False)
    """The text that it was about is gone: the range is where it was."""
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    status = fields.CharEnumField(AnnotationStatus, max_length=20, default=AnnotationStatus.OPEN)
    resolved_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    resolved_at = fields.DatetimeField(null=True)
    labels = TextArrayField(default=list)
    comment_count = fields.IntField(default=0)
    """With those that were deleted: the last comment's number."""
    copied_from_id = fields.UUIDField(null=True)
    """The thread of the session that this one's session was forked from."""
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "annotation_threads"
        unique_together = (("session_id", "number"),)
        indexes = [("organization_id", "created_at", "id"), ("message_id", "number"), ("tool_execution_id", "number")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return in_visible_session("annotation_threads", actor)


class AnnotationComment(Model):
    """One comment of a thread. What is deleted loses its text and keeps its place.

    The column `search` is the database's own: the words of `plain`.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    thread: Any = fields.ForeignKeyField("models.AnnotationThread", related_name=False, on_delete=fields.CASCADE)
    number = fields.IntField()
    """1, 2, … within the thread."""
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    markdown = fields.TextField()
    html = fields.TextField()
    plain = fields.TextField()
    mentions = UuidArrayField(default=list)
    revision_count = fields.IntField(default=0)
    edited_at = fields.DatetimeField(null=True)
    deleted_at = fields.DatetimeField(null=True)
    deleted_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    copied_from_id = fields.UUIDField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "annotation_comments"
        unique_together = (("thread_id", "number"),)
        indexes = [("session_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return in_visible_session("annotation_comments", actor)


class AnnotationRevision(Model):
    """What a comment said before an edit."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    comment: Any = fields.ForeignKeyField("models.AnnotationComment", related_name=False, on_delete=fields.CASCADE)
    number = fields.IntField()
    """1 is what was written first."""
    markdown = fields.TextField()
    html = fields.TextField()
    written_at = fields.DatetimeField()

    class Meta:
        table = "annotation_revisions"
        unique_together = (("comment_id", "number"),)


class AnnotationReaction(Model):
    """One person's emoji on a comment."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    comment: Any = fields.ForeignKeyField("models.AnnotationComment", related_name=False, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    emoji = fields.CharField(16)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "annotation_reactions"
        unique_together = (("comment_id", "user_id", "emoji"),)


class AnnotationMention(Model):
    """That somebody was told of a comment because it names them: once, however often it is edited."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    comment: Any = fields.ForeignKeyField("models.AnnotationComment", related_name=False, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "annotation_mentions"
        unique_together = (("comment_id", "user_id"),)
        indexes = [("author_id", "created_at")]


class Score(Model):
    """A typed value by a human or by an automated evaluator, on a session, a message, a run or a tool execution.

    There is one of each name, target, and person or evaluator: the next one takes its place.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    message: Any = fields.ForeignKeyField("models.Message", related_name=False, null=True, on_delete=fields.CASCADE)
    run: Any = fields.ForeignKeyField("models.Run", related_name=False, null=True, on_delete=fields.CASCADE)
    tool_execution: Any = fields.ForeignKeyField(
        "models.ToolExecution", related_name=False, null=True, on_delete=fields.CASCADE
    )
    name = fields.CharField(100)
    type = fields.CharEnumField(ScoreType, max_length=20)
    number = fields.FloatField(null=True)
    boolean = fields.BooleanField(null=True)
    category = fields.CharField(200, null=True)
    source = fields.CharEnumField(ScoreSource, max_length=20)
    evaluator = fields.CharField(100, null=True)
    author: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    """Who recorded it; for an evaluator's, whose credential it used."""
    comment = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "scores"
        indexes = [
            ("session_id", "id"),
            ("message_id", "id"),
            ("run_id", "id"),
            ("tool_execution_id", "id"),
            ("organization_id", "created_at", "id"),
        ]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return in_visible_session("scores", actor)
