"""What is counted of the facts by minute, hour and day; the facts that are yet to be counted; and where the ingest is.

A row of a rollup is what is counted of one bucket for one value of each of its dimensions: `dimensions` names them
('' for everything, 'tool,outcome', …) and `labels` has their values, in this order.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

FACTS = ("tool", "usage", "run", "message", "session", "resource")

MEASURES = {
    "tool": "calls bigint, failed bigint, timed bigint, duration_ms float8, histogram bigint[]",
    "usage": (
        "uses bigint, requests bigint, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, "
        "cache_write_tokens bigint, priced bigint, cost_usd numeric"
    ),
    "run": "runs bigint, failed bigint, timed bigint, duration_ms float8, histogram bigint[]",
    "wait": "runs bigint, queue_ms float8, histogram bigint[]",
    "message": "messages bigint, characters bigint",
    "session": "changes bigint, created bigint, timed bigint, duration_ms float8",
    "resource": "samples bigint, total float8",
}
"""Of a family's facts. `histogram` has numbers of bin·2^40 + count, by services/metrics/families.py."""

CHUNKS = {"minutes": "7 days", "hours": "90 days", "days": None}

FORWARD = [
    # Queues: rows live for about a second, so they are vacuumed by their number.
    *(
        f"CREATE TABLE {fact}_pending (LIKE {fact}_facts INCLUDING DEFAULTS) "
        "WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)"
        for fact in FACTS
    ),
    *(
        statement
        for family, measures in MEASURES.items()
        for level in CHUNKS
        for statement in (
            f'CREATE TABLE {family}_{level} (organization_id uuid NOT NULL, dimensions text COLLATE "C" NOT NULL, '
            f'at timestamptz NOT NULL, labels text[] COLLATE "C" NOT NULL, {measures}) WITH (fillfactor = 80)',
            f"CREATE UNIQUE INDEX {family}_{level}_once ON {family}_{level} (organization_id, dimensions, at, labels)",
        )
    ),
    # How far each reader of the log is; `until` is where one that fills a gap ends.
    """
    CREATE TABLE metric_positions (
        reader text PRIMARY KEY,
        xid xid8 NOT NULL,
        session_id uuid NOT NULL,
        seq bigint NOT NULL,
        until_xid xid8,
        since timestamptz,
        up_to timestamptz NOT NULL DEFAULT '-infinity'
    )
    """,
    "INSERT INTO metric_positions (reader, xid, session_id, seq) "
    "VALUES ('log', '0', '00000000-0000-0000-0000-000000000000', 0)",
    # What is gone for good: facts of before cannot be told from those that were counted, and are refused.
    """
    CREATE TABLE metric_retention (
        facts text NOT NULL,
        level text NOT NULL CHECK (level IN ('RAW', 'MINUTE', 'HOUR', 'DAY')),
        dropped_before timestamptz NOT NULL DEFAULT '-infinity',
        PRIMARY KEY (facts, level)
    )
    """,
    f"INSERT INTO metric_retention (facts, level) SELECT facts, level FROM unnest(ARRAY[{', '.join(repr(f) for f in FACTS)}]) AS facts, "
    "unnest(ARRAY['RAW', 'MINUTE', 'HOUR', 'DAY']) AS level",
    f"""
    DO $$
    BEGIN
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            {
        " ".join(
            f"PERFORM create_hypertable('{family}_{level}', by_range('at', INTERVAL '{width}'), "
            "create_default_indexes => false);"
            for family in MEASURES
            for level, width in CHUNKS.items()
            if width is not None
        )
    }
        END IF;
    END
    $$
    """,
]
# Only a table's owner drops chunks and compresses them, and the application works as another role: these do so in the
# owner's name, for our tables alone.
HYPERTABLES = sorted([f"{fact}_facts" for fact in FACTS]) + sorted(
    f"{family}_{level}" for family in MEASURES for level, width in CHUNKS.items() if width is not None
)
FORWARD += [
    f"""
    CREATE FUNCTION drop_metric_chunks(hypertable text, before timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF hypertable <> ALL (ARRAY[{", ".join(f"'{table}'" for table in HYPERTABLES)}]) THEN
            RAISE EXCEPTION '% is no table of metrics.', hypertable USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN (SELECT count(*) FROM drop_chunks(hypertable::regclass, older_than => before));
    END
    $$
    """,
    # The columnstore is of the community licence. What it refuses, or a later version calls otherwise, costs disk only.
    f"""
    CREATE FUNCTION compress_metric_facts() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE facts text;
    BEGIN
        IF current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
            RETURN NULL;
        END IF;
        FOREACH facts IN ARRAY ARRAY[{", ".join(f"'{fact}_facts'" for fact in FACTS)}] LOOP
            EXECUTE format(
                'ALTER TABLE %I SET (timescaledb.compress, timescaledb.compress_segmentby = ''organization_id'', '
                'timescaledb.compress_orderby = ''at'')', facts);
            PERFORM add_compression_policy(facts::regclass, INTERVAL '7 days', if_not_exists => true);
        END LOOP;
        RETURN NULL;
    EXCEPTION WHEN OTHERS THEN
        RETURN SQLERRM;
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION drop_metric_chunks, compress_metric_facts FROM PUBLIC",
]
BACKWARD = [
    "DROP FUNCTION compress_metric_facts, drop_metric_chunks",
    "DROP TABLE metric_retention, metric_positions",
    *(f"DROP TABLE {family}_{level}" for family in MEASURES for level in CHUNKS),
    *(f"DROP TABLE {fact}_pending" for fact in FACTS),
]


class Migration(migrations.Migration):
    dependencies = [("models", "0018_session_servers")]
    operations = [ops.RunSQL(FORWARD, BACKWARD)]
