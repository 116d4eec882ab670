"""What is older than it is kept, found in plain tables without reading all of them; hypertables have their chunks."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FACTS = ("tool", "run", "usage", "message", "session", "resource")
ROLLED = (*FACTS, "wait")

TABLES = [f"{facts}_facts" for facts in FACTS] + [
    f"{family}_{unit}" for family in ROLLED for unit in ("minutes", "hours", "days")
]

FORWARD = f"""
DO $$
DECLARE
    name text;
    has_chunks boolean := false;
BEGIN
    FOREACH name IN ARRAY ARRAY[{", ".join(f"'{table}'" for table in TABLES)}] LOOP
        IF to_regclass('timescaledb_information.hypertables') IS NOT NULL THEN
            SELECT EXISTS (
                SELECT FROM timescaledb_information.hypertables
                WHERE hypertable_schema = 'public' AND hypertable_name = name
            ) INTO has_chunks;
        END IF;
        IF NOT has_chunks THEN
            EXECUTE format('CREATE INDEX %I ON %I USING brin (at) WITH (pages_per_range = 16)', name || '_at', name);
        END IF;
    END LOOP;
END
$$
"""
BACKWARD = f"DROP INDEX IF EXISTS {', '.join(f'{table}_at' for table in TABLES)}"


class Migration(migrations.Migration):
    dependencies = [("models", "0032_telemetry_limits")]
    operations = [ops.RunSQL([FORWARD], [BACKWARD])]
