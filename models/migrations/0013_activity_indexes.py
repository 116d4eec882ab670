"""The activity feed's indexes on the event log, made while the log is written.

Outside of a transaction, each by itself: where it is broken off, it begins again with what is missing or came to
nothing, at the next start. What runs meanwhile is waited for, so nobody may wait inside of a statement for this.
"""

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

INDEXES = {
    "session_events_feed": f"(organization_id, at, session_id, seq) WHERE {ACTIVITIES}",
    "session_events_actor": f"(organization_id, actor_id, at) WHERE {ACTIVITIES}",
    "session_events_rare": f"(organization_id, name, at) WHERE {RARE}",
    "session_events_tail": f"(organization_id, xid) WHERE {ACTIVITIES}",
}

BACKWARD = [f"DROP INDEX CONCURRENTLY IF EXISTS {name}" for name in INDEXES]
# One that was broken off is there and is not valid, and databases of before have some already.
FORWARD = [
    statement
    for name, what in INDEXES.items()
    for statement in (
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON session_events {what}",
    )
]


class Migration(migrations.Migration):
    dependencies = [("models", "0012_documents")]
    atomic = False
    operations = [ops.RunSQL(FORWARD, BACKWARD, atomic=False)]
