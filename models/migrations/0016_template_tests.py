"""Indexes on tests of templates and on their sessions, which are left out of lists by it.

Outside of a transaction, for sessions are many and written all the time: where it is broken off, it begins again with
what is missing.
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

INDEXES = {
    "template_tests_session": "template_tests (session_id) WHERE session_id IS NOT NULL",
    # What has ended, and has something left that is to be tidied up.
    "template_tests_untidy": "template_tests (lease_until) "
    "WHERE status NOT IN ('QUEUED', 'RUNNING') AND lease_until IS NOT NULL",
    # As models/sessions.py has it.
    "sessions_of_no_work": "sessions (id) WHERE purpose <> 'WORK'",
}
BACKWARD = [f"DROP INDEX CONCURRENTLY IF EXISTS {name}" for name in INDEXES]
FORWARD = [
    statement
    for name, what in INDEXES.items()
    for statement in (
        f"DROP INDEX CONCURRENTLY IF EXISTS {name}",
        f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {what}",
    )
]


class Migration(migrations.Migration):
    dependencies = [("models", "0015_template_test_attempts")]
    atomic = False
    operations = [ops.RunSQL(FORWARD, BACKWARD, atomic=False)]
