"""When a service last told what its usage cost, instead of whether it ever did."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    "ALTER TABLE telemetry_services ADD COLUMN cost_told_at timestamptz",
    "UPDATE telemetry_services SET cost_told_at = last_seen_at WHERE tells_cost",
    "ALTER TABLE telemetry_services DROP COLUMN tells_cost",
]
BACKWARD = [
    "ALTER TABLE telemetry_services ADD COLUMN tells_cost boolean NOT NULL DEFAULT false",
    "UPDATE telemetry_services SET tells_cost = true WHERE cost_told_at IS NOT NULL",
    "ALTER TABLE telemetry_services DROP COLUMN cost_told_at",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0035_large_spending")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
