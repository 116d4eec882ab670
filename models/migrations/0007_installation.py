"""What the processes of one installation must have in common: the key, of which a fingerprint is kept."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    """
    CREATE TABLE installation (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        key_fingerprint bytea NOT NULL CHECK (octet_length(key_fingerprint) = 32),
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
]
BACKWARD = ["DROP TABLE installation"]


class Migration(migrations.Migration):
    dependencies = [("models", "0006_sessions")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
