"""What an organisation lets be told of people's use of the product, and who wants not to be named."""

from uuid import uuid4

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from models.analytics import Individuals
from models.sharing import Allowance

FORWARD = [
    """
    ALTER TABLE analytics_policies
    ADD FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
    """,
    "ALTER TABLE analytics_policies ADD CHECK (floor >= 2)",
    "ALTER TABLE analytics_opt_outs ADD FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE",
    # What was counted here is in the fact tables of metrics.
    "DROP TABLE activity_facts",
]
BACKWARD = [
    """
    CREATE TABLE activity_facts (
        at timestamptz NOT NULL,
        organization_id uuid NOT NULL,
        session_id uuid NOT NULL,
        run_id uuid NOT NULL,
        kind text NOT NULL CHECK (kind IN ('RUN', 'TOOL')),
        name text NOT NULL,
        outcome text NOT NULL,
        duration_ms bigint
    )
    """,
    "CREATE INDEX activity_facts_organization ON activity_facts (organization_id, at DESC)",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0024_costs")]

    operations = [
        ops.CreateModel(
            name="AnalyticsOptOut",
            fields=[
                ("user_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
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
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "analytics_opt_outs",
                "app": "models",
                "indexes": [Index(fields=["organization_id"])],
                "pk_attr": "user_id",
                "table_description": "Somebody who is counted, and never named.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AnalyticsPolicy",
            fields=[
                ("organization_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("floor", fields.IntField()),
                (
                    "individuals",
                    fields.CharEnumField(
                        description="SELF_ONLY: SELF_ONLY\nADMINS: ADMINS", enum_type=Individuals, max_length=20
                    ),
                ),
                (
                    "ranking",
                    fields.CharEnumField(
                        description="ALLOWED: ALLOWED\nFORBIDDEN: FORBIDDEN", enum_type=Allowance, max_length=20
                    ),
                ),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "analytics_policies",
                "app": "models",
                "pk_attr": "organization_id",
                "table_description": "One organisation's rules; one without a row has the defaults of services.metrics.policy.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
