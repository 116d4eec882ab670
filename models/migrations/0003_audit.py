"""The audit log: records, their links in a chain per organisation, and the witnesses of records not yet linked."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FORWARD = [
    # No foreign keys: a record outlives what it speaks of.
    """
    CREATE TABLE audit_records (
        id uuid PRIMARY KEY,
        organization_id uuid NOT NULL,
        at timestamptz NOT NULL,
        action text COLLATE "C" NOT NULL,
        outcome text NOT NULL,
        actor_kind text,
        actor_id uuid,
        actor_name text,
        on_behalf_of uuid,
        credential_id uuid,
        ip text,
        user_agent text,
        request_id text,
        target_kind text,
        target_id uuid,
        target_name text,
        session_id uuid,
        before jsonb,
        after jsonb,
        details jsonb,
        error_code text,
        error_message text,
        digest bytea NOT NULL CHECK (octet_length(digest) = 32),
        seal bytea NOT NULL CHECK (octet_length(seal) = 32)
    )
    """,
    "CREATE INDEX audit_records_time ON audit_records (organization_id, at DESC, id DESC)",
    "CREATE INDEX audit_records_action ON audit_records (organization_id, action, at)",
    "CREATE INDEX audit_records_actor ON audit_records (organization_id, actor_id, at DESC, id DESC)",
    """
    CREATE INDEX audit_records_target ON audit_records (organization_id, target_id, at DESC, id DESC)
    WHERE target_id IS NOT NULL
    """,
    """
    CREATE INDEX audit_records_session ON audit_records (organization_id, session_id, at DESC, id DESC)
    WHERE session_id IS NOT NULL
    """,
    """
    CREATE INDEX audit_records_trouble ON audit_records (organization_id, at DESC, id DESC)
    WHERE outcome <> 'SUCCEEDED'
    """,
    # No foreign key to the record: that a record is gone must not keep its number from being given.
    """
    CREATE TABLE audit_links (
        organization_id uuid NOT NULL,
        number bigint NOT NULL CHECK (number > 0),
        record_id uuid NOT NULL UNIQUE,
        record_digest bytea NOT NULL CHECK (octet_length(record_digest) = 32),
        previous_hash bytea NOT NULL CHECK (octet_length(previous_hash) = 32),
        hash bytea NOT NULL CHECK (octet_length(hash) = 32),
        seal bytea NOT NULL CHECK (octet_length(seal) = 32),
        linked_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (organization_id, number)
    )
    """,
    # A queue: rows live for less than a second, so it is vacuumed by their number and not by the table's size.
    """
    CREATE TABLE audit_pending (
        organization_id uuid NOT NULL,
        record_id uuid NOT NULL,
        digest bytea NOT NULL,
        PRIMARY KEY (organization_id, record_id)
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
    """,
    """
    CREATE FUNCTION audit_witness() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO audit_pending (organization_id, record_id, digest)
        SELECT organization_id, id, digest FROM added;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER audit_records_witness AFTER INSERT ON audit_records
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION audit_witness()
    """,
    """
    CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'The audit log is append-only: % of % is refused.', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
    END
    $$
    """,
    """
    CREATE FUNCTION audit_keep_witness() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM audit_links WHERE record_id = OLD.record_id) THEN
            RAISE EXCEPTION 'The audit record % has no number yet: its witness stays.', OLD.record_id
            USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN OLD;
    END
    $$
    """,
    """
    CREATE TRIGGER audit_records_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
    """,
    """
    CREATE TRIGGER audit_links_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_links
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
    """,
    """
    CREATE TRIGGER audit_pending_append_only BEFORE UPDATE OR TRUNCATE ON audit_pending
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
    """,
    """
    CREATE TRIGGER audit_pending_until_linked BEFORE DELETE ON audit_pending
    FOR EACH ROW EXECUTE FUNCTION audit_keep_witness()
    """,
    # Also where session_replication_role would skip them.
    "ALTER TABLE audit_records ENABLE ALWAYS TRIGGER audit_records_witness",
    "ALTER TABLE audit_records ENABLE ALWAYS TRIGGER audit_records_append_only",
    "ALTER TABLE audit_links ENABLE ALWAYS TRIGGER audit_links_append_only",
    "ALTER TABLE audit_pending ENABLE ALWAYS TRIGGER audit_pending_append_only",
    "ALTER TABLE audit_pending ENABLE ALWAYS TRIGGER audit_pending_until_linked",
]

BACKWARD = [
    "DROP TABLE audit_pending, audit_links, audit_records",
    "DROP FUNCTION audit_witness, audit_refuse_change, audit_keep_witness",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0002_live")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
