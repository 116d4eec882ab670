"""Who templates come from: signing keys, trusted publishers, and the origins of imported templates."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id

FORWARD = [
    "CREATE UNIQUE INDEX template_signing_keys_current ON template_signing_keys (organization_id) "
    "WHERE retired_at IS NULL",
]
BACKWARD = ["DROP INDEX template_signing_keys_current"]


class Migration(migrations.Migration):
    dependencies = [("models", "0019_rollups")]

    initial = False

    operations = [
        ops.CreateModel(
            name="TemplateOrigin",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "template",
                    fields.ForeignKeyField(
                        "models.SessionTemplate",
                        source_field="template_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("publisher", fields.CharField(max_length=100)),
                ("fingerprint", fields.CharField(max_length=64)),
                ("version", fields.IntField()),
                ("digest", fields.CharField(max_length=64)),
                ("bundle_sha256", fields.CharField(max_length=64)),
                (
                    "imported_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="imported_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("imported_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "template_origins",
                "app": "models",
                "indexes": [Index(fields=["template_id", "id"])],
                "pk_attr": "id",
                "table_description": "An import: what a template's draft was taken from.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TemplateSigningKey",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("public_key", fields.CharField(max_length=80)),
                ("fingerprint", fields.CharField(max_length=64)),
                ("private_sealed", fields.BinaryField(null=True)),
                (
                    "created_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="created_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("retired_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "template_signing_keys",
                "app": "models",
                "pk_attr": "id",
                "table_description": "A key of an organisation: Ed25519. One of them is not retired, and signs.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="TrustedPublisher",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "organization",
                    fields.ForeignKeyField(
                        "models.Organization",
                        source_field="organization_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("name", fields.CharField(max_length=100)),
                ("public_key", fields.CharField(max_length=80)),
                ("fingerprint", fields.CharField(max_length=64)),
                (
                    "added_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="added_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "trusted_publishers",
                "app": "models",
                "unique_together": (("organization_id", "fingerprint"),),
                "pk_attr": "id",
                "table_description": "A key whose bundles an organisation takes, under the name that it has given to its owner.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
