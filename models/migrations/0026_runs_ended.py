"""How many runs were under way at an instant is asked every second while somebody watches: an index for those that had
not ended. It is made while others write."""

from tortoise import migrations
from tortoise.migrations import operations as ops

# One that was broken off is there and is not valid.
FORWARD = [
    "DROP INDEX CONCURRENTLY IF EXISTS runs_ended",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS runs_ended ON runs (organization_id, ended_at)",
]
BACKWARD = ["DROP INDEX CONCURRENTLY IF EXISTS runs_ended"]


class Migration(migrations.Migration):
    dependencies = [("models", "0025_analytics_policy")]
    atomic = False

    operations = [ops.RunSQL(FORWARD, BACKWARD, atomic=False)]
