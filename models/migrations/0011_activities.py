"""The activity feed: the transaction that each event came in. Its indexes are made by a migration of their own."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    # Who follows many sessions reads in the order of transactions, as with session_changes. The default is evaluated
    # once for the rows that are there, so the table is not written again; nobody follows these any more.
    "ALTER TABLE session_events ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id()",
]
BACKWARD = ["ALTER TABLE session_events DROP COLUMN xid"]


class Migration(migrations.Migration):
    dependencies = [("models", "0010_people")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
