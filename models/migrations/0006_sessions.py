"""When sessions were terminated, beside their options; what the feed of changed sessions no longer holds; indexes."""

from tortoise import fields, migrations
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

FORWARD = [
    # The mark stood among the options, where a change of these could take it away. The log still has the end itself.
    """
    UPDATE sessions SET terminated_at = coalesce(
        (SELECT max(at) FROM session_events WHERE session_events.session_id = sessions.id
         AND name = 'quarterdeck.session.status' AND data ->> 'to' = 'TERMINATED'),
        CASE WHEN status = 'TERMINATED' OR options ? 'terminated' THEN updated_at END)
    WHERE status IN ('TERMINATED', 'ARCHIVED')
    """,
    "UPDATE sessions SET options = options - 'terminated' WHERE options ? 'terminated'",
    # The last place of the feed that was removed: readers who stood before it have missed something.
    """
    CREATE TABLE session_changes_pruned (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        xid xid8 NOT NULL,
        id bigint NOT NULL
    )
    """,
    "INSERT INTO session_changes_pruned (xid, id) VALUES ('0', 0)",
    "CREATE INDEX session_changes_at ON session_changes (at)",
]
BACKWARD = [
    "DROP INDEX session_changes_at",
    "DROP TABLE session_changes_pruned",
    "UPDATE sessions SET options = options || '{\"terminated\": true}' WHERE terminated_at IS NOT NULL",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0005_activity")]
    operations = [
        ops.AddIndex("Approval", Index(fields=["tool_execution_id"])),
        ops.AddIndex("Message", Index(fields=["run_id", "seq"])),
        ops.AddField("Session", "terminated_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
