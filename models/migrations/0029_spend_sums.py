"""Spending added up by ten minutes, hour and day, from the entries that there are, in place of hours alone; and entries
that may be of other usage than runs.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

_ADD_UP = """
    INSERT INTO {table} ({spender}, {columns}, shard, cost_usd, tokens, unpriced)
    SELECT spenders.id, {values}, 0, coalesce(sum(cost_usd), 0), sum(tokens), count(*) FILTER (WHERE cost_usd IS NULL)
    FROM spend_entries
    CROSS JOIN LATERAL (VALUES (organization_id), (user_id), (template_id)) AS spenders (id)
    {units}
    WHERE spenders.id <> '00000000-0000-0000-0000-000000000000' GROUP BY spenders.id, {values}
"""
# Whoever still writes as before waits, and is then refused: no entry is missing in the sums.
LOCK = "LOCK TABLE spend_entries IN SHARE ROW EXCLUSIVE MODE"
FORWARD = [
    LOCK,
    "ALTER TABLE spend_entries RENAME COLUMN run_id TO usage_id",
    "ALTER TABLE spend_entries RENAME COLUMN segment TO part",
    # Rows that are changed all the time: new versions find room on the same page.
    """
    CREATE TABLE spend_sums (
        spender_id uuid NOT NULL,
        unit smallint NOT NULL CHECK (unit BETWEEN 1 AND 3),
        at timestamptz NOT NULL,
        shard smallint NOT NULL,
        cost_usd numeric(18, 9) NOT NULL,
        tokens bigint NOT NULL,
        unpriced int NOT NULL,
        PRIMARY KEY (spender_id, unit, at, shard)
    ) WITH (fillfactor = 70)
    """,
    _ADD_UP.format(
        table="spend_sums",
        spender="spender_id",
        columns="unit, at",
        values="units.unit, date_bin(units.length, at, '2000-01-01T00:00:00Z')",
        units="CROSS JOIN (VALUES (1, interval '10 minutes'), (2, '1 hour'), (3, '24 hours')) AS units (unit, length)",
    ),
    "DROP TABLE spend_hours",
]
BACKWARD = [
    LOCK,
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
    _ADD_UP.format(
        table="spend_hours",
        spender="subject_id",
        columns="hour",
        values="date_trunc('hour', at, 'UTC')",
        units="",
    ),
    "DROP TABLE spend_sums",
    "ALTER TABLE spend_entries RENAME COLUMN part TO segment",
    "ALTER TABLE spend_entries RENAME COLUMN usage_id TO run_id",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0028_monitors")]

    operations = [ops.RunSQL(FORWARD, BACKWARD)]
