"""Threads of comments, reactions, and scores; the words that comments are found by."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.annotations import AnnotationStatus, ScoreSource, ScoreType
from models.base import TextArrayField, UuidArrayField

FORWARD = [
    # In English, with its endings: "timeouts" finds "timeout". Words of other languages are found as they are.
    """
    ALTER TABLE annotation_comments ADD COLUMN search tsvector NOT NULL
        GENERATED ALWAYS AS (to_tsvector('english', plain)) STORED
    """,
    "CREATE INDEX annotation_comments_search ON annotation_comments USING gin (search)",
    "CREATE INDEX annotation_comments_mentions ON annotation_comments USING gin (mentions)",
    # With the threads, so that what somebody said need not be read to find where.
    "CREATE INDEX annotation_comments_author ON annotation_comments (author_id, thread_id) WHERE deleted_at IS NULL",
    "CREATE INDEX annotation_threads_labels ON annotation_threads USING gin (labels)",
    "ALTER TABLE annotation_threads ALTER COLUMN labels SET DEFAULT '{}'",
    "ALTER TABLE annotation_comments ALTER COLUMN mentions SET DEFAULT '{}'",
    # Whose next score of a name takes the place of this one.
    """
    CREATE UNIQUE INDEX scores_of_humans ON scores
        (coalesce(message_id, run_id, tool_execution_id, session_id), name, author_id) WHERE source = 'HUMAN'
    """,
    """
    CREATE UNIQUE INDEX scores_of_evaluators ON scores
        (coalesce(message_id, run_id, tool_execution_id, session_id), name, evaluator) WHERE source = 'EVALUATOR'
    """,
    """
    ALTER TABLE scores ADD CONSTRAINT scores_one_value CHECK (
        (type = 'NUMERIC' AND number IS NOT NULL AND boolean IS NULL AND category IS NULL)
        OR (type = 'BOOLEAN' AND number IS NULL AND boolean IS NOT NULL AND category IS NULL)
        OR (type = 'CATEGORICAL' AND number IS NULL AND boolean IS NULL AND category IS NOT NULL))
    """,
    "ALTER TABLE scores ADD CONSTRAINT scores_source CHECK ((source = 'EVALUATOR') = (evaluator IS NOT NULL))",
]
BACKWARD = [
    "ALTER TABLE scores DROP CONSTRAINT scores_source, DROP CONSTRAINT scores_one_value",
    "DROP INDEX scores_of_evaluators, scores_of_humans",
    "DROP INDEX annotation_threads_labels, annotation_comments_author, annotation_comments_mentions",
    "DROP INDEX annotation_comments_search",
    "ALTER TABLE annotation_comments DROP COLUMN search",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0008_sharing")]
    operations = [
        ops.CreateModel(
            name="AnnotationThread",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                (
                    "message",
                    fields.ForeignKeyField(
                        "models.Message",
                        source_field="message_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "tool_execution",
                    fields.ForeignKeyField(
                        "models.ToolExecution",
                        source_field="tool_execution_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("block", fields.IntField(null=True)),
                ("range_start", fields.IntField(null=True)),
                ("range_end", fields.IntField(null=True)),
                ("quote", fields.TextField(null=True, unique=False)),
                ("prefix", fields.TextField(null=True, unique=False)),
                ("suffix", fields.TextField(null=True, unique=False)),
                ("orphaned", fields.BooleanField(default=False)),
                (
                    "author",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="author_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "status",
                    fields.CharEnumField(
                        default=AnnotationStatus.OPEN,
                        description="OPEN: OPEN\nRESOLVED: RESOLVED",
                        enum_type=AnnotationStatus,
                        max_length=20,
                    ),
                ),
                (
                    "resolved_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="resolved_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("resolved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("labels", TextArrayField(default=list, generated=False, null=False, unique=False)),
                ("comment_count", fields.IntField(default=0)),
                ("copied_from_id", fields.UUIDField(null=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "annotation_threads",
                "app": "models",
                "unique_together": (("session_id", "number"),),
                "indexes": [
                    Index(fields=["organization_id", "created_at", "id"]),
                    Index(fields=["message_id", "number"]),
                    Index(fields=["tool_execution_id", "number"]),
                ],
                "pk_attr": "id",
                "table_description": "A conversation about a session, a message, a tool execution, one block of its result, or a range of text.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AnnotationComment",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "thread",
                    fields.ForeignKeyField(
                        "models.AnnotationThread",
                        source_field="thread_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                (
                    "author",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="author_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("markdown", fields.TextField(unique=False)),
                ("html", fields.TextField(unique=False)),
                ("plain", fields.TextField(unique=False)),
                ("mentions", UuidArrayField(default=list, generated=False, null=False, unique=False)),
                ("revision_count", fields.IntField(default=0)),
                ("edited_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("deleted_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "deleted_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="deleted_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("copied_from_id", fields.UUIDField(null=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "annotation_comments",
                "app": "models",
                "unique_together": (("thread_id", "number"),),
                "indexes": [Index(fields=["session_id"])],
                "pk_attr": "id",
                "table_description": "One comment of a thread. What is deleted loses its text and keeps its place.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AnnotationMention",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "comment",
                    fields.ForeignKeyField(
                        "models.AnnotationComment",
                        source_field="comment_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "author",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="author_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "annotation_mentions",
                "app": "models",
                "unique_together": (("comment_id", "user_id"),),
                "indexes": [Index(fields=["author_id", "created_at"])],
                "pk_attr": "id",
                "table_description": "That somebody was told of a comment because it names them: once, however often it is edited.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AnnotationReaction",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "comment",
                    fields.ForeignKeyField(
                        "models.AnnotationComment",
                        source_field="comment_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("emoji", fields.CharField(max_length=16)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "annotation_reactions",
                "app": "models",
                "unique_together": (("comment_id", "user_id", "emoji"),),
                "pk_attr": "id",
                "table_description": "One person's emoji on a comment.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AnnotationRevision",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "comment",
                    fields.ForeignKeyField(
                        "models.AnnotationComment",
                        source_field="comment_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                ("markdown", fields.TextField(unique=False)),
                ("html", fields.TextField(unique=False)),
                ("written_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "annotation_revisions",
                "app": "models",
                "unique_together": (("comment_id", "number"),),
                "pk_attr": "id",
                "table_description": "What a comment said before an edit.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Score",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "message",
                    fields.ForeignKeyField(
                        "models.Message",
                        source_field="message_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "run",
                    fields.ForeignKeyField(
                        "models.Run",
                        source_field="run_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "tool_execution",
                    fields.ForeignKeyField(
                        "models.ToolExecution",
                        source_field="tool_execution_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("name", fields.CharField(max_length=100)),
                (
                    "type",
                    fields.CharEnumField(
                        description="NUMERIC: NUMERIC\nBOOLEAN: BOOLEAN\nCATEGORICAL: CATEGORICAL",
                        enum_type=ScoreType,
                        max_length=20,
                    ),
                ),
                ("number", fields.FloatField(null=True)),
                ("boolean", fields.BooleanField(null=True)),
                ("category", fields.CharField(null=True, max_length=200)),
                (
                    "source",
                    fields.CharEnumField(
                        description="HUMAN: HUMAN\nEVALUATOR: EVALUATOR", enum_type=ScoreSource, max_length=20
                    ),
                ),
                ("evaluator", fields.CharField(null=True, max_length=100)),
                (
                    "author",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="author_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("comment", fields.TextField(null=True, unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "scores",
                "app": "models",
                "indexes": [
                    Index(fields=["session_id", "id"]),
                    Index(fields=["message_id", "id"]),
                    Index(fields=["run_id", "id"]),
                    Index(fields=["tool_execution_id", "id"]),
                    Index(fields=["organization_id", "created_at", "id"]),
                ],
                "pk_attr": "id",
                "table_description": "A typed value by a human or by an automated evaluator, on a session, a message, a run or a tool execution.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
