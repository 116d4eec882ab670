"""Which services tell what their usage cost; and room for sums of spending that nobody vouches for."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    "ALTER TABLE telemetry_services ADD COLUMN tells_cost boolean NOT NULL DEFAULT false",
    # As far as it can be known: those that told it before.
    """
    UPDATE telemetry_services SET tells_cost = true WHERE EXISTS (
        SELECT FROM usage_facts WHERE usage_facts.organization_id = telemetry_services.organization_id
        AND source = 'OTLP' AND service = telemetry_services.name AND cost_usd IS NOT NULL)
    """,
    "ALTER TABLE spend_sums ALTER COLUMN cost_usd TYPE numeric(30, 9)",
]
BACKWARD = [
    "ALTER TABLE spend_sums ALTER COLUMN cost_usd TYPE numeric(18, 9)",
    "ALTER TABLE telemetry_services DROP COLUMN tells_cost",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0033_times_of_facts")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
