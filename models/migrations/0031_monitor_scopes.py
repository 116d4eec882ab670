"""Monitors keep whose facts they watch: those of the organisation, or of their owner alone."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

FORWARD = [
    """
    UPDATE monitors SET organization_wide = true FROM users
    WHERE users.id = monitors.owner_id AND users.role IN ('OWNER', 'ADMIN')
    """,
    # What one person, or few, spent of a budget is about people.
    """
    UPDATE monitors SET about_people = true FROM budgets
    WHERE monitors.condition_kind = 'BUDGET_BURN' AND budgets.id = (monitors.condition ->> 'budget_id')::uuid
        AND budgets.subject IN ('USER', 'EACH_USER', 'TEAM')
    """,
]
BACKWARD = ["SELECT 1"]


class Migration(migrations.Migration):
    dependencies = [("models", "0030_merged_labels")]

    operations = [
        ops.AddField(
            model_name="Monitor",
            name="organization_wide",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
