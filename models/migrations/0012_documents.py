"""Documents that client programs are known to send, by release."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id


class Migration(migrations.Migration):
    dependencies = [("models", "0011_activities")]

    operations = [
        ops.CreateModel(
            name="Document",
            fields=[
                ("id", fields.CharField(primary_key=True, unique=True, db_index=True, max_length=200)),
                ("sha256", fields.BinaryField()),
                ("text", fields.TextField(unique=False)),
                ("registered_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "documents",
                "app": "models",
                "indexes": [Index(fields=["sha256"])],
                "pk_attr": "id",
                "table_description": "A GraphQL document. What an identifier stands for never changes: programs out there were built with it.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="DocumentRelease",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                ("client", fields.CharField(max_length=100)),
                ("release", fields.CharField(max_length=100)),
                ("registered_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("registered_by", fields.CharField(max_length=100)),
                ("retired_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "document_releases",
                "app": "models",
                "unique_together": (("client", "release"),),
                "pk_attr": "id",
                "table_description": "A release of a client program. Its documents can be executed until it is retired.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ReleasedDocument",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                (
                    "release",
                    fields.ForeignKeyField(
                        "models.DocumentRelease",
                        source_field="release_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "document",
                    fields.ForeignKeyField(
                        "models.Document",
                        source_field="document_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
            ],
            options={
                "table": "released_documents",
                "app": "models",
                "unique_together": (("release_id", "document_id"),),
                "indexes": [Index(fields=["document_id"])],
                "pk_attr": "id",
                "table_description": "A document that a release uses; releases share most of theirs with the one before.",
            },
            bases=["Model"],
        ),
    ]
