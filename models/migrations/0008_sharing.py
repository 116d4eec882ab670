"""Sharing: grants, links, the policies of organisations, and who read what is in sessions."""

from uuid import uuid4

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.sharing import Allowance

FORWARD = [
    # Whoever is given access is one user or one team.
    "ALTER TABLE grants ADD CHECK (num_nonnulls(user_id, team_id) = 1)",
    # One living grant for each, whatever two people do at once.
    """
    CREATE UNIQUE INDEX grants_one_per_user ON grants (resource_kind, resource_id, user_id)
    WHERE revoked_at IS NULL AND user_id IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX grants_one_per_team ON grants (resource_kind, resource_id, team_id)
    WHERE revoked_at IS NULL AND team_id IS NOT NULL
    """,
    # The scopes of visibility read nothing but these two.
    """
    CREATE INDEX grants_of_user ON grants (user_id, resource_kind, resource_id) INCLUDE (level, expires_at)
    WHERE revoked_at IS NULL
    """,
    """
    CREATE INDEX grants_of_team ON grants (team_id, resource_kind, resource_id) INCLUDE (level, expires_at)
    WHERE revoked_at IS NULL
    """,
    "CREATE INDEX grants_ending ON grants (expires_at) WHERE revoked_at IS NULL",
    "CREATE UNIQUE INDEX share_links_secret ON share_links (secret_hash)",
    """
    ALTER TABLE sharing_policies
    ADD FOREIGN KEY (organization_id) REFERENCES organizations (id) ON DELETE CASCADE
    """,
]
BACKWARD = ["DROP INDEX grants_ending, grants_of_team, grants_of_user, grants_one_per_team, grants_one_per_user"]


class Migration(migrations.Migration):
    dependencies = [("models", "0007_installation")]

    operations = [
        ops.CreateModel(
            name="SessionView",
            fields=[
                ("id", fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
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
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("credential_kind", fields.CharField(max_length=20)),
                ("hour", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("views", fields.IntField()),
                ("first_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("last_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "session_views",
                "app": "models",
                "unique_together": (("session_id", "user_id", "credential_kind", "hour"),),
                "pk_attr": "id",
                "table_description": "That somebody read what is in a session: one row per user, kind of credential and hour.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="ShareLink",
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
                ("resource_kind", fields.CharField(max_length=20)),
                ("resource_id", fields.UUIDField()),
                ("secret_hash", fields.BinaryField()),
                ("hint", fields.CharField(max_length=8)),
                ("level", fields.CharField(max_length=20)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("max_uses", fields.IntField(null=True)),
                ("use_count", fields.IntField(default=0)),
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
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "revoked_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="revoked_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
            ],
            options={
                "table": "share_links",
                "app": "models",
                "indexes": [Index(fields=["resource_kind", "resource_id", "id"])],
                "pk_attr": "id",
                "table_description": "A secret that gives whoever of the organisation redeems it a grant. Shown once; the row has its SHA-256.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Grant",
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
                ("resource_kind", fields.CharField(max_length=20)),
                ("resource_id", fields.UUIDField()),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "team",
                    fields.ForeignKeyField(
                        "models.Team",
                        source_field="team_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("level", fields.CharField(max_length=20)),
                ("note", fields.CharField(null=True, max_length=500)),
                ("expires_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "granted_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="granted_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "via_link",
                    fields.ForeignKeyField(
                        "models.ShareLink",
                        source_field="via_link_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("revoked_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "revoked_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="revoked_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "replaced_by",
                    fields.ForeignKeyField(
                        "models.Grant",
                        source_field="replaced_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
            ],
            options={
                "table": "grants",
                "app": "models",
                "indexes": [Index(fields=["resource_kind", "resource_id", "id"])],
                "pk_attr": "id",
                "table_description": "Access of a user, or of a team's members, to a resource.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="SharingPolicy",
            fields=[
                ("organization_id", fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                (
                    "organization_visibility",
                    fields.CharEnumField(
                        description="ALLOWED: ALLOWED\nFORBIDDEN: FORBIDDEN", enum_type=Allowance, max_length=20
                    ),
                ),
                ("default_visibility", fields.CharField(max_length=20)),
                (
                    "links",
                    fields.CharEnumField(
                        description="ALLOWED: ALLOWED\nFORBIDDEN: FORBIDDEN", enum_type=Allowance, max_length=20
                    ),
                ),
                ("longest_grant_days", fields.IntField(null=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "sharing_policies",
                "app": "models",
                "pk_attr": "organization_id",
                "table_description": "What an organisation lets its members share; one without a row has the defaults of services.sharing.policy.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
