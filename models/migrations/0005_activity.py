"""Facts about what sessions did, by time: the first time series. A hypertable where TimescaleDB is, else a plain table."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
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
    """
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            PERFORM create_hypertable('activity_facts', by_range('at', INTERVAL '7 days'));
        END IF;
    END
    $$
    """,
]
BACKWARD = ["DROP TABLE activity_facts"]


class Migration(migrations.Migration):
    dependencies = [("models", "0004_mcp_protocol_seen")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
