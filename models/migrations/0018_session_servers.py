"""Which tools of a server a session may use, and what is to be put into new sessions' directories."""

from uuid import uuid4

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from models.base import JsonField, TextArrayField

FORWARD = "ALTER TABLE session_seeds ADD FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE"
BACKWARD = "ALTER TABLE session_seeds DROP CONSTRAINT session_seeds_session_id_fkey"


class Migration(migrations.Migration):
    dependencies = [("models", "0017_metrics")]

    initial = False

    operations = [
        ops.CreateModel(
            name="SessionSeed",
            fields=[
                ("session_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ("seed", JsonField(default=dict, generated=False, null=False, unique=False)),
            ],
            options={
                "table": "session_seeds",
                "app": "models",
                "pk_attr": "session_id",
                "table_description": "What has to be put into a session's working directory before its next run; "
                "removed once it is there.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="SessionMcpServer",
            name="allowed_tools",
            field=TextArrayField(null=True, generated=False, unique=False),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
