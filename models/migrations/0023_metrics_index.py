"""The event log in the order of transactions, for those who make facts of it; made while the log is written.

Outside of a transaction: where it is broken off, it begins again at the next start.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

# As services/metrics/kinds.py has it.
FACTUAL = (
    "(type IN ('TOOL_CALL_RESULT', 'TEXT_MESSAGE_END', 'RUN_FINISHED', 'RUN_ERROR') OR name IN ("
    "'quarterdeck.message.sent', 'quarterdeck.session.created', 'quarterdeck.session.forked', "
    "'quarterdeck.session.status'))"
)

FORWARD = [
    "DROP INDEX CONCURRENTLY IF EXISTS session_events_factual",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS session_events_factual ON session_events (xid, session_id, seq) "
    f"WHERE {FACTUAL}",
]
BACKWARD = ["DROP INDEX CONCURRENTLY IF EXISTS session_events_factual"]


class Migration(migrations.Migration):
    dependencies = [("models", "0022_template_guards")]
    atomic = False
    operations = [ops.RunSQL(FORWARD, BACKWARD, atomic=False)]
