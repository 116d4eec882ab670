"""The activity feed: indexes on the event log, and the transaction that each event came in."""

from tortoise import migrations
from tortoise.migrations import operations as ops

# As models/activity_feed.py has it.
ACTIVITIES = (
    "type NOT IN ('STEP_STARTED', 'TEXT_MESSAGE_START', 'TOOL_CALL_ARGS', 'TOOL_CALL_END') "
    "AND coalesce(name, '') NOT IN ('quarterdeck.run.queued', 'quarterdeck.message.copied')"
)
RARE = (
    "type = 'CUSTOM' AND name NOT IN ('quarterdeck.message.sent', 'quarterdeck.session.status', "
    "'quarterdeck.run.queued', 'quarterdeck.message.copied')"
)

FORWARD = [
    # Who follows many sessions reads in the order of transactions, as with session_changes. The default is evaluated
    # once for the rows that are there, so the table is not written again; nobody follows these any more.
    "ALTER TABLE session_events ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id()",
    f"CREATE INDEX session_events_feed ON session_events (organization_id, at, session_id, seq) WHERE {ACTIVITIES}",
    f"CREATE INDEX session_events_actor ON session_events (organization_id, actor_id, at) WHERE {ACTIVITIES}",
    f"CREATE INDEX session_events_rare ON session_events (organization_id, name, at) WHERE {RARE}",
    f"CREATE INDEX session_events_tail ON session_events (organization_id, xid) WHERE {ACTIVITIES}",
]
BACKWARD = [
    "DROP INDEX session_events_tail, session_events_rare, session_events_actor, session_events_feed",
    "ALTER TABLE session_events DROP COLUMN xid",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0010_people")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
