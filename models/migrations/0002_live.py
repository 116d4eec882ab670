"""Tables that Tortoise cannot describe: the event log, text in progress, and the feed of changed sessions."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    # One log per session, numbered without gaps: sessions.last_event_seq is raised in the same transaction.
    """
    CREATE TABLE session_events (
        session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        seq bigint NOT NULL CHECK (seq > 0),
        organization_id uuid NOT NULL,
        at timestamptz NOT NULL,
        type text NOT NULL,
        name text,
        run_id uuid,
        message_id uuid,
        tool_execution_id uuid,
        approval_id uuid,
        actor_kind text NOT NULL,
        actor_id uuid,
        on_behalf_of uuid,
        data jsonb NOT NULL,
        PRIMARY KEY (session_id, seq)
    )
    """,
    # The text of messages under way, for those who come in the middle. Losing it in a crash loses nothing
    # that is promised: a run whose worker died ends as interrupted.
    """
    CREATE UNLOGGED TABLE message_progress (
        message_id uuid PRIMARY KEY,
        session_id uuid NOT NULL,
        text text NOT NULL
    )
    """,
    "CREATE INDEX message_progress_session ON message_progress (session_id)",
    # Read in the order (xid, id), and only below the oldest transaction still open: so a reader that
    # remembers its place never misses a row that was committed late, and writers never wait for each other.
    """
    CREATE TABLE session_changes (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        organization_id uuid NOT NULL,
        session_id uuid NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        kind text NOT NULL,
        at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX session_changes_order ON session_changes (organization_id, xid, id)",
    "CREATE INDEX session_changes_session ON session_changes (session_id)",
    "ALTER TABLE runtime_states ADD FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE",
    # Secrets are found by their hash.
    "CREATE UNIQUE INDEX web_sessions_secret ON web_sessions (secret_hash)",
    "CREATE UNIQUE INDEX access_tokens_secret ON access_tokens (secret_hash)",
    "CREATE UNIQUE INDEX sign_in_links_secret ON sign_in_links (secret_hash)",
    # A name is free again once its server is removed.
    "CREATE UNIQUE INDEX mcp_servers_name ON mcp_servers (organization_id, name) WHERE removed_at IS NULL",
    # The queue of a session, and what the sweeper looks for.
    "CREATE INDEX runs_open ON runs (session_id, number) WHERE status IN ('QUEUED', 'RUNNING', 'WAITING')",
    # A session does one thing at a time, whatever the workers believe.
    "CREATE UNIQUE INDEX runs_one_at_a_time ON runs (session_id) WHERE status IN ('RUNNING', 'WAITING')",
    "CREATE INDEX approvals_pending ON approvals (expires_at) WHERE status = 'PENDING'",
    "CREATE INDEX sessions_open ON sessions (organization_id, created_at, id) WHERE visibility = 'ORGANIZATION'",
    "CREATE INDEX sessions_labels ON sessions USING gin (labels jsonb_path_ops)",
]

BACKWARD = [
    "DROP INDEX sessions_labels, sessions_open, approvals_pending, runs_one_at_a_time, runs_open, mcp_servers_name",
    "DROP INDEX sign_in_links_secret, access_tokens_secret, web_sessions_secret",
    "DROP TABLE session_changes, message_progress, session_events",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0001_initial")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
