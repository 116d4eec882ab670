"""Session templates: drafts, versions, tests, reviews, categories; and which version a session was started from."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.base import JsonField
from models.sessions import SessionPurpose
from models.templates import TemplateLevel, TemplateTestStatus

FORWARD = [
    "CREATE UNIQUE INDEX session_templates_name ON session_templates (organization_id, name) WHERE removed_at IS NULL",
    "CREATE INDEX session_templates_open ON session_templates (organization_id, organization_level) "
    "WHERE organization_level IS NOT NULL",
    "CREATE INDEX sessions_of_template ON sessions (template_version_id, created_at) "
    "WHERE template_version_id IS NOT NULL",
    # What the workers look for.
    "CREATE INDEX template_tests_open ON template_tests (lease_until) WHERE status IN ('QUEUED', 'RUNNING')",
    "ALTER TABLE template_reviews ADD CHECK (rating BETWEEN 1 AND 5)",
]
BACKWARD = [
    "DROP INDEX template_tests_open, sessions_of_template, session_templates_open, session_templates_name",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0013_activity_indexes")]

    initial = False

    operations = [
        ops.CreateModel(
            name="SessionTemplate",
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
                ("name", fields.CharField(max_length=64)),
                ("title", fields.CharField(max_length=200)),
                ("summary", fields.CharField(default="", max_length=500)),
                ("icon", fields.CharField(null=True, max_length=64)),
                ("category", fields.CharField(max_length=64)),
                ("labels", JsonField(default=dict, generated=False, null=False, unique=False)),
                (
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "owner_team",
                    fields.ForeignKeyField(
                        "models.Team",
                        source_field="owner_team_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "organization_level",
                    fields.CharEnumField(
                        null=True,
                        description="VIEW: VIEW\nUSE: USE\nEDIT: EDIT\nADMIN: ADMIN",
                        enum_type=TemplateLevel,
                        max_length=20,
                    ),
                ),
                ("draft", JsonField(default=dict, generated=False, null=False, unique=False)),
                ("draft_digest", fields.CharField(max_length=64)),
                ("draft_revision", fields.IntField(default=1)),
                (
                    "draft_updated_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="draft_updated_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("draft_updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("latest_version", fields.IntField(default=0)),
                ("deprecated_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("deprecation_note", fields.CharField(null=True, max_length=500)),
                (
                    "replaced_by",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="replaced_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("listed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("use_count", fields.IntField(default=0)),
                ("rating_count", fields.IntField(default=0)),
                ("rating_sum", fields.IntField(default=0)),
                (
                    "created_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="created_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("removed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "session_templates",
                "app": "models",
                "indexes": [
                    Index(fields=["organization_id", "created_at", "id"]),
                    Index(fields=["owner_id"]),
                    Index(fields=["owner_team_id"]),
                ],
                "pk_attr": "id",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TemplateCategory",
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
                ("key", fields.CharField(max_length=64)),
                ("title", fields.CharField(max_length=100)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "template_categories",
                "app": "models",
                "unique_together": (("organization_id", "key"),),
                "pk_attr": "id",
                "table_description": "A category that an organisation has beside the four that are always there.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TemplateReview",
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
                    "template",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="template_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
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
                ("version", fields.IntField()),
                ("rating", fields.IntField()),
                ("text", fields.CharField(default="", max_length=4000)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "template_reviews",
                "app": "models",
                "unique_together": (("template_id", "author_id"),),
                "pk_attr": "id",
                "table_description": "What somebody who used a template says of it; one of each author.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TemplateTest",
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
                    "template",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="template_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("digest", fields.CharField(max_length=64)),
                ("spec", JsonField(default=dict, generated=False, null=False, unique=False)),
                ("parameters", JsonField(default=dict, generated=False, null=False, unique=False)),
                (
                    "status",
                    fields.CharEnumField(
                        default=TemplateTestStatus.QUEUED,
                        description="QUEUED: QUEUED\nRUNNING: RUNNING\nPASSED: PASSED\nFAILED: FAILED\nCANCELLED: CANCELLED",
                        enum_type=TemplateTestStatus,
                        max_length=20,
                    ),
                ),
                ("checks", JsonField(default=list, generated=False, null=False, unique=False)),
                ("revision", fields.IntField(default=0)),
                (
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("executor", fields.CharField(null=True, max_length=100)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "started_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="started_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("ended_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "template_tests",
                "app": "models",
                "indexes": [Index(fields=["template_id", "digest", "id"])],
                "pk_attr": "id",
                "table_description": "A test run of one digest of a template, with its report.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="SessionTemplateVersion",
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
                    "template",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="template_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("number", fields.IntField()),
                ("spec", JsonField(default=dict, generated=False, null=False, unique=False)),
                ("digest", fields.CharField(max_length=64)),
                ("message", fields.CharField(default="", max_length=2000)),
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
                ("rolled_back_to", fields.IntField(null=True)),
                (
                    "test",
                    fields.ForeignKeyField(
                        "models.TemplateTest",
                        source_field="test_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("untested_reason", fields.CharField(null=True, max_length=500)),
                ("deprecated_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("deprecation_note", fields.CharField(null=True, max_length=500)),
                ("replacement_version", fields.IntField(null=True)),
                ("use_count", fields.IntField(default=0)),
            ],
            options={
                "table": "session_template_versions",
                "app": "models",
                "unique_together": (("template_id", "number"),),
                "pk_attr": "id",
                "table_description": "What was published once, and never changes but for its deprecation.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Session",
            name="purpose",
            field=fields.CharEnumField(
                default=SessionPurpose.WORK,
                db_default=SessionPurpose.WORK.value,
                description="WORK: WORK\nTEMPLATE_TEST: TEMPLATE_TEST",
                enum_type=SessionPurpose,
                max_length=20,
            ),
        ),
        ops.AddField(
            model_name="Session",
            name="template_parameters",
            field=JsonField(null=True, generated=False, unique=False),
        ),
        ops.AddField(
            model_name="Session",
            name="template_version",
            field=fields.ForeignKeyField(
                "models.SessionTemplateVersion",
                source_field="template_version_id",
                null=True,
                db_constraint=True,
                to_field="id",
                related_name=False,
                on_delete=OnDelete.SET_NULL,
            ),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
