"""Room for what absurd prices make of absurd numbers of tokens: one entry of it must not stop all others."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = ["ALTER TABLE spend_entries ALTER COLUMN cost_usd TYPE numeric(30, 9)"]
BACKWARD = ["ALTER TABLE spend_entries ALTER COLUMN cost_usd TYPE numeric(18, 9)"]


class Migration(migrations.Migration):
    dependencies = [("models", "0034_telemetry_spending")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
