"""Facts of the sessions' work by time: what metrics are made of. Hypertables where TimescaleDB is, else plain tables.

A fact has its source's own id and, for that id, always the same time: so it is stored once, however often it comes.
"""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

COMMON = """
    at timestamptz NOT NULL,
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    source text NOT NULL CHECK (source IN ('QUARTERDECK', 'OTLP')),
    session_id uuid,
    run_id uuid,
    user_id uuid,
    template_version_id uuid,
    runtime text,
    service text,
    conventions text,
    recorded_at timestamptz NOT NULL DEFAULT now()
"""

# Neither below zero, nor infinite, nor NaN, which PostgreSQL sorts above infinity.
MILLISECONDS = "float8 CHECK ({0} >= 0 AND {0} < 'Infinity')"

OWN = {
    "tool_facts": f"""
    tool text NOT NULL,
    server text,
    outcome text NOT NULL,
    duration_ms {MILLISECONDS.format("duration_ms")},
    model text,
    error_kind text
    """,
    "usage_facts": f"""
    model text,
    provider text,
    requests integer NOT NULL CHECK (requests >= 0),
    input_tokens bigint CHECK (input_tokens >= 0),
    output_tokens bigint CHECK (output_tokens >= 0),
    cache_read_tokens bigint CHECK (cache_read_tokens >= 0),
    cache_write_tokens bigint CHECK (cache_write_tokens >= 0),
    duration_ms {MILLISECONDS.format("duration_ms")},
    cost_usd numeric CHECK (cost_usd >= 0 AND cost_usd < 'Infinity'),
    cost_source text
    """,
    "run_facts": f"""
    model text,
    outcome text NOT NULL,
    error_code text,
    duration_ms {MILLISECONDS.format("duration_ms")},
    queue_ms {MILLISECONDS.format("queue_ms")}
    """,
    "message_facts": """
    role text NOT NULL,
    characters integer NOT NULL CHECK (characters >= 0)
    """,
    "session_facts": f"""
    change text NOT NULL,
    duration_ms {MILLISECONDS.format("duration_ms")}
    """,
    "resource_facts": """
    resource text NOT NULL,
    host text NOT NULL,
    value float8 NOT NULL CHECK (value > '-Infinity' AND value < 'Infinity')
    """,
}

FORWARD = [
    *(
        statement
        for table, columns in OWN.items()
        for statement in (
            f"CREATE TABLE {table} ({COMMON}, {columns})",
            f"CREATE UNIQUE INDEX {table}_once ON {table} (organization_id, id, at)",
            f"CREATE INDEX {table}_time ON {table} (organization_id, at)",
        )
    ),
    # What a session cost is asked of each session.
    "CREATE INDEX usage_facts_session ON usage_facts (session_id, at) WHERE session_id IS NOT NULL",
    f"""
    DO $$
    DECLARE facts text;
    BEGIN
        IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
            FOREACH facts IN ARRAY ARRAY[{", ".join(f"'{table}'" for table in OWN)}] LOOP
                PERFORM create_hypertable(
                    facts::regclass, by_range('at', INTERVAL '7 days'), create_default_indexes => false);
            END LOOP;
        END IF;
    END
    $$
    """,
]
BACKWARD = [f"DROP TABLE {', '.join(OWN)}"]


class Migration(migrations.Migration):
    dependencies = [("models", "0016_template_tests")]
    operations = [
        ops.AddField(model_name="Run", name="model", field=fields.CharField(null=True, max_length=200)),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
