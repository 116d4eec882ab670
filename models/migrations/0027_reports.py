"""Reports: their definitions, what was made of them, and the pieces of what was made."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.base import JsonField, UuidArrayField
from models.reports import ReportFormat, ReportKind, ReportSchedule, ReportStatus

FORWARD = [
    """
    CREATE TABLE report_pieces (
        run_id uuid NOT NULL REFERENCES report_runs (id) ON DELETE CASCADE,
        attempt integer NOT NULL,
        number integer NOT NULL,
        content bytea NOT NULL,
        PRIMARY KEY (run_id, attempt, number)
    )
    """,
    "CREATE INDEX report_definitions_due ON report_definitions (next_at) WHERE removed_at IS NULL",
    "CREATE INDEX report_runs_open ON report_runs (created_at) WHERE status IN ('QUEUED', 'RUNNING')",
    "CREATE INDEX report_runs_ended ON report_runs (ended_at)",
    "CREATE INDEX report_runs_recipients ON report_runs USING gin (recipients)",
]
BACKWARD = [
    "DROP INDEX report_runs_recipients, report_runs_ended, report_runs_open, report_definitions_due",
    "DROP TABLE report_pieces",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0026_runs_ended")]

    initial = False

    operations = [
        ops.CreateModel(
            name="ReportDefinition",
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
                ("name", fields.CharField(max_length=200)),
                (
                    "kind",
                    fields.CharEnumField(
                        description="METRICS: METRICS\nCOSTS: COSTS\nFACTS: FACTS\nFOCUS: FOCUS",
                        enum_type=ReportKind,
                        max_length=20,
                    ),
                ),
                (
                    "format",
                    fields.CharEnumField(
                        description="CSV: CSV\nJSON: JSON\nPDF: PDF", enum_type=ReportFormat, max_length=20
                    ),
                ),
                ("timezone", fields.CharField(max_length=64)),
                ("question", JsonField(default=dict, generated=False, null=False, unique=False)),
                (
                    "schedule",
                    fields.CharEnumField(
                        null=True,
                        description="DAILY: DAILY\nWEEKLY: WEEKLY\nMONTHLY: MONTHLY",
                        enum_type=ReportSchedule,
                        max_length=20,
                    ),
                ),
                ("schedule_hour", fields.IntField(default=6)),
                ("schedule_day", fields.IntField(default=1)),
                ("next_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("recipients", UuidArrayField(default=list, generated=False, null=False, unique=False)),
                ("problem", fields.TextField(null=True, unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("removed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "report_definitions",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "id"])],
                "pk_attr": "id",
                "table_description": "A report that is made again and again: by hand, or by its schedule.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ReportRun",
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
                    "definition",
                    fields.ForeignKeyField(
                        "models.ReportDefinition",
                        source_field="definition_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
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
                ("name", fields.CharField(max_length=200)),
                (
                    "kind",
                    fields.CharEnumField(
                        description="METRICS: METRICS\nCOSTS: COSTS\nFACTS: FACTS\nFOCUS: FOCUS",
                        enum_type=ReportKind,
                        max_length=20,
                    ),
                ),
                (
                    "format",
                    fields.CharEnumField(
                        description="CSV: CSV\nJSON: JSON\nPDF: PDF", enum_type=ReportFormat, max_length=20
                    ),
                ),
                ("timezone", fields.CharField(max_length=64)),
                ("question", JsonField(default=dict, generated=False, null=False, unique=False)),
                ("start", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("end", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("recipients", UuidArrayField(default=list, generated=False, null=False, unique=False)),
                ("scheduled_for", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "status",
                    fields.CharEnumField(
                        default=ReportStatus.QUEUED,
                        description="QUEUED: QUEUED\nRUNNING: RUNNING\nREADY: READY\nFAILED: FAILED",
                        enum_type=ReportStatus,
                        max_length=20,
                    ),
                ),
                ("attempt", fields.IntField(default=0)),
                ("lease_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("rows", fields.BigIntField(null=True)),
                ("size", fields.BigIntField(null=True)),
                ("sha256", fields.CharField(null=True, max_length=64)),
                ("error_code", fields.CharField(null=True, max_length=60)),
                ("error_message", fields.TextField(null=True, unique=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("started_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("ended_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "report_runs",
                "app": "models",
                "unique_together": (("definition_id", "scheduled_for"),),
                "indexes": [Index(fields=["organization_id", "id"])],
                "pk_attr": "id",
                "table_description": "A report that is being made, or was.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
