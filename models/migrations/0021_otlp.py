"""Telemetry of agents that run elsewhere: who sends it, what its series had come to, and which names it brought."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    """
    CREATE TABLE telemetry_services (
        id uuid PRIMARY KEY,
        organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
        name text NOT NULL,
        usage_signal text CHECK (usage_signal IN ('TRACES', 'METRICS')),
        conventions text[] NOT NULL DEFAULT '{}',
        spans bigint NOT NULL DEFAULT 0,
        points bigint NOT NULL DEFAULT 0,
        rejected bigint NOT NULL DEFAULT 0,
        ignored bigint NOT NULL DEFAULT 0,
        superseded bigint NOT NULL DEFAULT 0,
        last_rejection text,
        first_seen_at timestamptz NOT NULL DEFAULT now(),
        last_seen_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (organization_id, name)
    )
    """,
    # Totals of series that count from a start, to know what came since.
    """
    CREATE TABLE telemetry_series (
        organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
        series bytea NOT NULL,
        start_ns bigint NOT NULL,
        at_ns bigint NOT NULL,
        value double precision NOT NULL,
        count bigint NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (organization_id, series)
    )
    """,
    """
    CREATE TABLE metric_labels (
        organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
        dimension text NOT NULL,
        value text NOT NULL,
        first_seen_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (organization_id, dimension, value)
    )
    """,
    """
    CREATE TABLE metric_label_overflows (
        organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
        dimension text NOT NULL,
        facts bigint NOT NULL,
        example text NOT NULL,
        last_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, dimension)
    )
    """,
]
BACKWARD = ["DROP TABLE metric_label_overflows, metric_labels, telemetry_series, telemetry_services"]


class Migration(migrations.Migration):
    dependencies = [("models", "0020_trusted_publishers")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
