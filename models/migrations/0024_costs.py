"""What models cost, what was spent, and what may be."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.base import JsonField
from models.costs import BudgetAction, BudgetEventKind, BudgetSubject, BudgetWindow
from models.notifications import NotificationKind

# A stretch of work's spending, written with its usage; and the same added up by the hour (of UTC) for its organisation,
# user and template, so that a budget of a year is a sum over some thousands of rows. In shards, so that runs which end
# at the same time do not wait for each other. Without a template the id is nil.
FORWARD = [
    """
    CREATE TABLE spend_entries (
        run_id uuid NOT NULL,
        segment int NOT NULL,
        organization_id uuid NOT NULL,
        user_id uuid NOT NULL,
        template_id uuid NOT NULL,
        at timestamptz NOT NULL,
        cost_usd numeric(18, 9),
        tokens bigint NOT NULL,
        PRIMARY KEY (run_id, segment)
    )
    """,
    "CREATE INDEX spend_entries_organization ON spend_entries (organization_id, at) INCLUDE (cost_usd, tokens)",
    "CREATE INDEX spend_entries_user ON spend_entries (user_id, at) INCLUDE (cost_usd, tokens)",
    "CREATE INDEX spend_entries_template ON spend_entries (template_id, at) INCLUDE (cost_usd, tokens) "
    "WHERE template_id <> '00000000-0000-0000-0000-000000000000'",
    """
    CREATE TABLE spend_hours (
        subject_id uuid NOT NULL,
        hour timestamptz NOT NULL,
        shard smallint NOT NULL,
        cost_usd numeric(18, 9) NOT NULL,
        tokens bigint NOT NULL,
        unpriced int NOT NULL,
        PRIMARY KEY (subject_id, hour, shard)
    )
    """,
    # What was spent before there were budgets. A run that is under way gets further entries, from 1 on.
    """
    INSERT INTO spend_entries (run_id, segment, organization_id, user_id, template_id, at, cost_usd, tokens)
    SELECT runs.id, 0, runs.organization_id, runs.started_by_id,
        coalesce(versions.template_id, '00000000-0000-0000-0000-000000000000'),
        coalesce(runs.ended_at, runs.started_at, runs.queued_at), runs.cost_usd,
        coalesce(runs.input_tokens, 0) + coalesce(runs.output_tokens, 0) + coalesce(runs.cache_read_tokens, 0)
            + coalesce(runs.cache_write_tokens, 0)
    FROM runs JOIN sessions ON sessions.id = runs.session_id
    LEFT JOIN session_template_versions AS versions ON versions.id = sessions.template_version_id
    WHERE runs.request_count > 0 OR runs.cost_usd IS NOT NULL
    """,
    """
    INSERT INTO spend_hours (subject_id, hour, shard, cost_usd, tokens, unpriced)
    SELECT subjects.id, date_trunc('hour', at, 'UTC'), 0, coalesce(sum(cost_usd), 0), sum(tokens),
        count(*) FILTER (WHERE cost_usd IS NULL)
    FROM spend_entries
    CROSS JOIN LATERAL (VALUES (organization_id), (user_id), (template_id)) AS subjects (id)
    WHERE subjects.id <> '00000000-0000-0000-0000-000000000000' GROUP BY 1, 2
    """,
    # What a built-in table says of the models that were asked about: the library's next version may say otherwise.
    """
    CREATE TABLE built_in_prices (
        table_id uuid NOT NULL REFERENCES model_price_tables (id) ON DELETE CASCADE,
        provider text NOT NULL,
        model text NOT NULL,
        rates jsonb NOT NULL,
        PRIMARY KEY (table_id, provider, model)
    )
    """,
    "ALTER TABLE budgets ADD CHECK (limit_usd > 0 OR limit_tokens > 0)",
    "ALTER TABLE budgets ADD CHECK (window_length > 0)",
    "CREATE INDEX budgets_living ON budgets (organization_id) WHERE removed_at IS NULL",
]
BACKWARD = ["DROP TABLE built_in_prices, spend_hours, spend_entries"]


class Migration(migrations.Migration):
    dependencies = [("models", "0023_metrics_index")]

    initial = False

    operations = [
        ops.CreateModel(
            name="Budget",
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
                ("name", fields.CharField(max_length=200)),
                (
                    "subject",
                    fields.CharEnumField(
                        description="ORGANIZATION: ORGANIZATION\nTEAM: TEAM\nUSER: USER\nEACH_USER: EACH_USER\nTEMPLATE: TEMPLATE",
                        enum_type=BudgetSubject,
                        max_length=20,
                    ),
                ),
                (
                    "team",
                    fields.ForeignKeyField(
                        "models.Team",
                        source_field="team_id",
                        null=True,
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
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "template",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="template_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "window_kind",
                    fields.CharEnumField(
                        description="HOURS: HOURS\nDAYS: DAYS\nMONTH: MONTH", enum_type=BudgetWindow, max_length=20
                    ),
                ),
                ("window_length", fields.IntField(default=1)),
                ("timezone", fields.CharField(default="UTC", max_length=64)),
                ("limit_usd", fields.DecimalField(null=True, max_digits=18, decimal_places=9)),
                ("limit_tokens", fields.BigIntField(null=True)),
                ("warn_at", JsonField(default=list, generated=False, null=False, unique=False)),
                (
                    "action",
                    fields.CharEnumField(
                        description="WARN: WARN\nREFUSE: REFUSE", enum_type=BudgetAction, max_length=20
                    ),
                ),
                (
                    "created_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="created_by_id",
                        null=True,
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
                "table": "budgets",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "created_at", "id"])],
                "pk_attr": "id",
                "table_description": "How much may be spent over a time.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="BudgetAlert",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "budget",
                    fields.ForeignKeyField(
                        "models.Budget",
                        source_field="budget_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("user_id", fields.UUIDField()),
                ("threshold", fields.DecimalField(max_digits=4, decimal_places=3)),
                ("told_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "budget_alerts",
                "app": "models",
                "unique_together": (("budget_id", "user_id", "threshold"),),
                "pk_attr": "id",
                "table_description": "When a threshold of a budget was last told of. `user_id` is of an EACH_USER budget, and nil for others.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="BudgetEvent",
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
                    "budget",
                    fields.ForeignKeyField(
                        "models.Budget",
                        source_field="budget_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "kind",
                    fields.CharEnumField(
                        description="CREATED: CREATED\nCHANGED: CHANGED\nREMOVED: REMOVED\nWARNED: WARNED\nUSED_UP: USED_UP\nREFUSED: REFUSED",
                        enum_type=BudgetEventKind,
                        max_length=20,
                    ),
                ),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("run_id", fields.UUIDField(null=True)),
                ("threshold", fields.DecimalField(null=True, max_digits=4, decimal_places=3)),
                ("spent_usd", fields.DecimalField(null=True, max_digits=18, decimal_places=9)),
                ("spent_tokens", fields.BigIntField(null=True)),
                ("window_start", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "budget_events",
                "app": "models",
                "indexes": [Index(fields=["budget_id", "id"]), Index(fields=["organization_id", "id"])],
                "pk_attr": "id",
                "table_description": "What happened to a budget, and what was spent then.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ModelPriceTable",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("built_in", fields.CharField(null=True, unique=True, max_length=60)),
                (
                    "base",
                    fields.ForeignKeyField(
                        "models.ModelPriceTable",
                        source_field="base_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("number", fields.IntField(null=True)),
                ("based_on", fields.IntField(default=0)),
                ("note", fields.CharField(default="", max_length=2000)),
                (
                    "author",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="author_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("published_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "model_price_tables",
                "app": "models",
                "unique_together": (("organization_id", "number"),),
                "pk_attr": "id",
                "table_description": "Prices of models. A draft until it is published, and for ever the same after that.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ModelPrice",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "table",
                    fields.ForeignKeyField(
                        "models.ModelPriceTable",
                        source_field="table_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("position", fields.IntField()),
                ("provider", fields.CharField(null=True, max_length=100)),
                ("model", fields.CharField(max_length=200)),
                ("effective_from", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("effective_to", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("input", fields.DecimalField(max_digits=18, decimal_places=9)),
                ("output", fields.DecimalField(max_digits=18, decimal_places=9)),
                ("cache_read", fields.DecimalField(null=True, max_digits=18, decimal_places=9)),
                ("cache_write", fields.DecimalField(null=True, max_digits=18, decimal_places=9)),
                ("tiers", JsonField(default=list, generated=False, null=False, unique=False)),
            ],
            options={
                "table": "model_prices",
                "app": "models",
                "unique_together": (("table_id", "position"),),
                "pk_attr": "id",
                "table_description": "One row of an organisation's table. The first row that fits a model at a time is its price then.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="RecommendationDismissal",
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
                ("key", fields.CharField(max_length=300)),
                ("reason", fields.CharField(max_length=500)),
                ("until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "dismissed_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="dismissed_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "recommendation_dismissals",
                "app": "models",
                "unique_together": (("organization_id", "key"),),
                "pk_attr": "id",
                "table_description": "That somebody wants to hear no more of a recommendation, for a while or for good.",
            },
            bases=["Model"],
        ),
        ops.AlterField(
            model_name="Notification",
            name="kind",
            field=fields.CharEnumField(
                description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED\nBUDGET: BUDGET",
                enum_type=NotificationKind,
                max_length=20,
            ),
        ),
        ops.AlterField(
            model_name="NotificationPreference",
            name="kind",
            field=fields.CharEnumField(
                description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED\nBUDGET: BUDGET",
                enum_type=NotificationKind,
                max_length=20,
            ),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
