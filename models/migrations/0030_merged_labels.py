"""Whose names had no room, and since when: what is counted under `(other)` is told by service."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    # Of what was counted before, neither is known.
    """
    ALTER TABLE metric_label_overflows
        ADD COLUMN service text NOT NULL DEFAULT '',
        ADD COLUMN first_at timestamptz
    """,
    "ALTER TABLE metric_label_overflows ALTER COLUMN service DROP DEFAULT",
    """
    ALTER TABLE metric_label_overflows
        DROP CONSTRAINT metric_label_overflows_pkey,
        ADD PRIMARY KEY (organization_id, dimension, service)
    """,
]
BACKWARD = [
    """
    CREATE TEMPORARY TABLE overflows ON COMMIT DROP AS
    SELECT organization_id, dimension, sum(facts)::bigint AS facts, min(example) AS example, max(last_at) AS last_at
    FROM metric_label_overflows GROUP BY organization_id, dimension
    """,
    "DELETE FROM metric_label_overflows",
    """
    ALTER TABLE metric_label_overflows
        DROP CONSTRAINT metric_label_overflows_pkey,
        DROP COLUMN service, DROP COLUMN first_at,
        ADD PRIMARY KEY (organization_id, dimension)
    """,
    "INSERT INTO metric_label_overflows SELECT * FROM overflows",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0029_spend_sums")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
