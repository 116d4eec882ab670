"""Notifications with their deliveries and preferences, handoffs, successors, and whose an approval is to decide."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from core.permissions import ActorKind
from models.handoffs import HandoffStatus
from models.notifications import DeliveryStatus, EmailMode, NotificationKind

FORWARD = [
    # The place of a notification in its user's live feed, read as that of changed sessions is: in the order of
    # transactions, below the oldest one still open. Reading a notification gives it a new place.
    "CREATE SEQUENCE notification_changes",
    """
    ALTER TABLE notifications
        ADD COLUMN changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        ADD COLUMN changed_seq bigint NOT NULL DEFAULT nextval('notification_changes')
    """,
    "ALTER SEQUENCE notification_changes OWNED BY notifications.changed_seq",
    "CREATE INDEX notifications_feed ON notifications (user_id, changed_xid, changed_seq)",
    "CREATE INDEX notifications_unread ON notifications (user_id, id) WHERE read_at IS NULL AND in_app",
    # What the workers look for, and what a digest is made of.
    "CREATE INDEX notification_deliveries_due ON notification_deliveries (next_attempt_at) WHERE status = 'PENDING'",
    "CREATE INDEX notification_deliveries_of_user ON notification_deliveries (user_id) WHERE status = 'PENDING'",
    "CREATE UNIQUE INDEX handoffs_open ON handoffs (session_id) WHERE status = 'OFFERED'",
    "CREATE INDEX handoffs_expiring ON handoffs (expires_at) WHERE status = 'OFFERED'",
    "CREATE INDEX users_successor ON users (successor_id) WHERE successor_id IS NOT NULL",
    "UPDATE approvals SET assigned_to_id = sessions.owner_id FROM sessions "
    "WHERE sessions.id = approvals.session_id AND approvals.status = 'PENDING'",
]
BACKWARD = [
    "DROP INDEX users_successor, handoffs_expiring, handoffs_open",
    "DROP INDEX notification_deliveries_of_user, notification_deliveries_due, notifications_unread, notifications_feed",
    "ALTER TABLE notifications DROP COLUMN changed_seq, DROP COLUMN changed_xid",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0009_annotations")]

    operations = [
        ops.CreateModel(
            name="Handoff",
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
                ("session_title", fields.CharField(max_length=200)),
                (
                    "giver",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="giver_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "receiver",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="receiver_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                (
                    "offered_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="offered_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("note", fields.TextField(unique=False)),
                ("reply", fields.TextField(null=True, unique=False)),
                ("keep_access", fields.BooleanField(default=True)),
                (
                    "status",
                    fields.CharEnumField(
                        default=HandoffStatus.OFFERED,
                        description="OFFERED: OFFERED\nACCEPTED: ACCEPTED\nDECLINED: DECLINED\nCANCELLED: CANCELLED\nEXPIRED: EXPIRED\nUNDONE: UNDONE",
                        enum_type=HandoffStatus,
                        max_length=20,
                    ),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("expires_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("ended_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("undo_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("undone_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "handoffs",
                "app": "models",
                "indexes": [
                    Index(fields=["session_id", "id"]),
                    Index(fields=["receiver_id", "id"]),
                    Index(fields=["giver_id", "id"]),
                    Index(fields=["offered_by_id", "id"]),
                ],
                "pk_attr": "id",
                "table_description": "One offer. A session has at most one open (a partial unique index of the migration).",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Notification",
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
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "kind",
                    fields.CharEnumField(
                        description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED",
                        enum_type=NotificationKind,
                        max_length=20,
                    ),
                ),
                (
                    "session",
                    fields.ForeignKeyField(
                        "models.Session",
                        source_field="session_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("subject_kind", fields.CharField(null=True, max_length=40)),
                ("subject_id", fields.UUIDField(null=True)),
                (
                    "actor_kind",
                    fields.CharEnumField(
                        description="HUMAN: HUMAN\nSERVICE: SERVICE\nAGENT: AGENT\nSYSTEM: SYSTEM",
                        enum_type=ActorKind,
                        max_length=20,
                    ),
                ),
                (
                    "actor",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="actor_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("title", fields.CharField(max_length=300)),
                ("body", fields.TextField(unique=False)),
                ("in_app", fields.BooleanField(default=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("read_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "notifications",
                "app": "models",
                "indexes": [Index(fields=["user_id", "id"]), Index(fields=["session_id"])],
                "pk_attr": "id",
                "table_description": "One person told of one thing.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="NotificationDelivery",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "notification",
                    fields.ForeignKeyField(
                        "models.Notification",
                        source_field="notification_id",
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
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("channel", fields.CharField(max_length=20)),
                ("digest", fields.BooleanField()),
                (
                    "status",
                    fields.CharEnumField(
                        default=DeliveryStatus.PENDING,
                        description="PENDING: PENDING\nSENT: SENT\nFAILED: FAILED\nSKIPPED: SKIPPED",
                        enum_type=DeliveryStatus,
                        max_length=20,
                    ),
                ),
                ("attempts", fields.IntField(default=0)),
                ("next_attempt_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("claimed_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_error", fields.TextField(null=True, unique=False)),
                ("sent_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "notification_deliveries",
                "app": "models",
                "indexes": [Index(fields=["notification_id"])],
                "pk_attr": "id",
                "table_description": "A notification on its way out of the house by one channel; written in the transaction of what it tells.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="NotificationPreference",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "user",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="user_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "kind",
                    fields.CharEnumField(
                        description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED",
                        enum_type=NotificationKind,
                        max_length=20,
                    ),
                ),
                ("in_app", fields.BooleanField()),
                (
                    "email",
                    fields.CharEnumField(
                        description="OFF: OFF\nIMMEDIATE: IMMEDIATE\nDIGEST: DIGEST", enum_type=EmailMode, max_length=20
                    ),
                ),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
            ],
            options={
                "table": "notification_preferences",
                "app": "models",
                "unique_together": (("user_id", "kind"),),
                "pk_attr": "id",
                "table_description": "How a user wants to be told of a kind. Without a row, DEFAULT_EMAIL.",
            },
            bases=["Model"],
        ),
        ops.AddField(
            model_name="Approval",
            name="assigned_to",
            field=fields.ForeignKeyField(
                "models.User",
                source_field="assigned_to_id",
                null=True,
                db_constraint=True,
                to_field="id",
                related_name=False,
                on_delete=OnDelete.SET_NULL,
            ),
        ),
        ops.AddField(
            model_name="User",
            name="successor",
            field=fields.ForeignKeyField(
                "models.User",
                source_field="successor_id",
                null=True,
                db_constraint=True,
                to_field="id",
                related_name=False,
                on_delete=OnDelete.SET_NULL,
            ),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
