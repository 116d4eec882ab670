"""What one sender of telemetry may not do to the others: facts that cannot be counted go aside, streams are told apart
by their start, and names have a service and a day on which they were seen last."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    """
    CREATE TABLE metric_set_aside (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        organization_id uuid NOT NULL,
        facts text NOT NULL,
        fact jsonb NOT NULL,
        reason text NOT NULL,
        at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX metric_set_aside_of ON metric_set_aside (organization_id, facts)",
    "ALTER TABLE telemetry_series DROP CONSTRAINT telemetry_series_pkey, "
    "ADD PRIMARY KEY (organization_id, series, start_ns)",
    # Who brought the names of before is not known.
    "ALTER TABLE metric_labels ADD COLUMN service text NOT NULL DEFAULT '', "
    "ADD COLUMN seen_on date NOT NULL DEFAULT current_date",
]
BACKWARD = [
    "ALTER TABLE metric_labels DROP COLUMN seen_on, DROP COLUMN service",
    # Of streams that only their start tells apart, the latest stays.
    "DELETE FROM telemetry_series WHERE EXISTS (SELECT FROM telemetry_series later "
    "WHERE later.organization_id = telemetry_series.organization_id AND later.series = telemetry_series.series "
    "AND later.start_ns > telemetry_series.start_ns)",
    "ALTER TABLE telemetry_series DROP CONSTRAINT telemetry_series_pkey, ADD PRIMARY KEY (organization_id, series)",
    "DROP TABLE metric_set_aside",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0031_monitor_scopes")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
