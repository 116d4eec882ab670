"""Monitors of metrics, their groups and evaluations, incidents, silences, channels, and alerts on their way."""

from tortoise import fields, migrations
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.migrations import operations as ops

from core.ids import new_id
from models.base import JsonField, UuidArrayField
from models.monitors import (
    AlertChannelKind,
    AlertChannelStatus,
    AlertDeliveryStatus,
    AlertKind,
    AlertSeverity,
    IncidentEventKind,
    IncidentState,
    MonitorConditionKind,
    MonitorNoData,
    MonitorState,
    MonitorStatus,
)
from models.notifications import NotificationKind

FORWARD = [
    # The place of an incident in the live feed, as that of a notification.
    "CREATE SEQUENCE monitor_incident_changes",
    """
    ALTER TABLE monitor_incidents
        ADD COLUMN changed_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        ADD COLUMN changed_seq bigint NOT NULL DEFAULT nextval('monitor_incident_changes')
    """,
    "ALTER SEQUENCE monitor_incident_changes OWNED BY monitor_incidents.changed_seq",
    "CREATE INDEX monitor_incidents_feed ON monitor_incidents (organization_id, changed_xid, changed_seq)",
    # Nothing fires twice, whoever evaluates.
    "CREATE UNIQUE INDEX monitor_incidents_open ON monitor_incidents (monitor_id, group_key) WHERE resolved_at IS NULL",
    "CREATE INDEX monitors_due ON monitors (next_evaluation_at) WHERE status = 'ACTIVE' AND removed_at IS NULL",
    "CREATE INDEX monitor_evaluations_old ON monitor_evaluations (at)",
    "CREATE INDEX alert_deliveries_due ON alert_deliveries (next_attempt_at) WHERE status IN ('PENDING', 'STANDING')",
]
BACKWARD = [
    "DROP INDEX alert_deliveries_due, monitor_evaluations_old, monitors_due, monitor_incidents_open",
    "DROP INDEX monitor_incidents_feed",
    "ALTER TABLE monitor_incidents DROP COLUMN changed_seq, DROP COLUMN changed_xid",
]


class Migration(migrations.Migration):
    dependencies = [("models", "0027_reports")]

    operations = [
        ops.CreateModel(
            name="AlertChannel",
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
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("name", fields.CharField(max_length=200)),
                (
                    "kind",
                    fields.CharEnumField(
                        description="WEBHOOK: WEBHOOK\nALERTMANAGER: ALERTMANAGER",
                        enum_type=AlertChannelKind,
                        max_length=20,
                    ),
                ),
                ("url", fields.TextField(unique=False)),
                ("secret_sealed", fields.BinaryField(null=True)),
                ("former_secret_sealed", fields.BinaryField(null=True)),
                ("former_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "status",
                    fields.CharEnumField(
                        default=AlertChannelStatus.ACTIVE,
                        description="ACTIVE: ACTIVE\nDISABLED: DISABLED",
                        enum_type=AlertChannelStatus,
                        max_length=10,
                    ),
                ),
                ("disabled_reason", fields.TextField(null=True, unique=False)),
                ("failures", fields.IntField(default=0)),
                ("failing_since", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("removed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "alert_channels",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "id"])],
                "pk_attr": "id",
                "table_description": "A receiver of alerts outside of the product, with its secrets sealed.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Monitor",
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
                    "owner",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="owner_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("name", fields.CharField(max_length=200)),
                ("description", fields.TextField(unique=False)),
                ("metric", fields.CharField(max_length=100)),
                ("filters", JsonField(generated=False, null=False, unique=False)),
                ("group_by", fields.CharField(null=True, max_length=50)),
                ("window_seconds", fields.IntField()),
                (
                    "condition_kind",
                    fields.CharEnumField(
                        description="THRESHOLD: THRESHOLD\nCHANGE: CHANGE\nABSENCE: ABSENCE\nANOMALY: ANOMALY\nBUDGET_BURN: BUDGET_BURN",
                        enum_type=MonitorConditionKind,
                        max_length=20,
                    ),
                ),
                ("condition", JsonField(generated=False, null=False, unique=False)),
                ("for_seconds", fields.IntField()),
                ("recovery", fields.FloatField(null=True)),
                (
                    "no_data",
                    fields.CharEnumField(
                        description="KEEP: KEEP\nOK: OK\nFIRING: FIRING", enum_type=MonitorNoData, max_length=10
                    ),
                ),
                ("renotify_seconds", fields.IntField(null=True)),
                (
                    "severity",
                    fields.CharEnumField(
                        description="INFO: INFO\nWARNING: WARNING\nCRITICAL: CRITICAL",
                        enum_type=AlertSeverity,
                        max_length=10,
                    ),
                ),
                ("labels", JsonField(generated=False, null=False, unique=False)),
                ("evaluate_every_seconds", fields.IntField()),
                ("about_people", fields.BooleanField()),
                ("notify_user_ids", UuidArrayField(generated=False, null=False, unique=False)),
                ("channel_ids", UuidArrayField(generated=False, null=False, unique=False)),
                (
                    "status",
                    fields.CharEnumField(
                        default=MonitorStatus.ACTIVE,
                        description="ACTIVE: ACTIVE\nPAUSED: PAUSED",
                        enum_type=MonitorStatus,
                        max_length=10,
                    ),
                ),
                ("paused_reason", fields.TextField(null=True, unique=False)),
                (
                    "state",
                    fields.CharEnumField(
                        default=MonitorState.OK,
                        description="OK: OK\nPENDING: PENDING\nFIRING: FIRING\nNO_DATA: NO_DATA\nERROR: ERROR",
                        enum_type=MonitorState,
                        max_length=10,
                    ),
                ),
                ("state_since", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("explanation", fields.TextField(null=True, unique=False)),
                ("groups_left_out", fields.IntField(default=0)),
                ("last_instant", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("next_evaluation_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("claim", fields.BigIntField(default=0)),
                ("claimed_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("removed_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "monitors",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "id"]), Index(fields=["owner_id"])],
                "pk_attr": "id",
                "table_description": "A question that is asked of a metric again and again. Removed ones stay for their incidents.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="MonitorEvaluation",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "monitor",
                    fields.ForeignKeyField(
                        "models.Monitor",
                        source_field="monitor_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("evaluated_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                (
                    "state",
                    fields.CharEnumField(
                        description="OK: OK\nPENDING: PENDING\nFIRING: FIRING\nNO_DATA: NO_DATA\nERROR: ERROR",
                        enum_type=MonitorState,
                        max_length=10,
                    ),
                ),
                ("changed", fields.BooleanField()),
                ("value", fields.FloatField(null=True)),
                ("group_count", fields.IntField()),
                ("firing_count", fields.IntField()),
                ("missed", fields.IntField()),
                ("explanation", fields.TextField(null=True, unique=False)),
                ("duration_ms", fields.IntField()),
            ],
            options={
                "table": "monitor_evaluations",
                "app": "models",
                "unique_together": (("monitor_id", "at"),),
                "pk_attr": "id",
                "table_description": "What a monitor saw at one instant.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="MonitorIncident",
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
                    "monitor",
                    fields.ForeignKeyField(
                        "models.Monitor",
                        source_field="monitor_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("group_key", fields.TextField(unique=False)),
                ("group_label", fields.TextField(null=True, unique=False)),
                ("group_name", fields.TextField(null=True, unique=False)),
                ("title", fields.CharField(max_length=300)),
                ("labels", JsonField(generated=False, null=False, unique=False)),
                (
                    "severity",
                    fields.CharEnumField(
                        description="INFO: INFO\nWARNING: WARNING\nCRITICAL: CRITICAL",
                        enum_type=AlertSeverity,
                        max_length=10,
                    ),
                ),
                (
                    "state",
                    fields.CharEnumField(
                        description="FIRING: FIRING\nRESOLVED: RESOLVED", enum_type=IncidentState, max_length=10
                    ),
                ),
                ("opened_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("resolved_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("resolution", fields.TextField(null=True, unique=False)),
                ("acknowledged_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "acknowledged_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="acknowledged_by_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
                ("silenced", fields.BooleanField(default=False)),
                ("opening_value", fields.FloatField(null=True)),
                ("value", fields.FloatField(null=True)),
                ("summary", fields.TextField(unique=False)),
                ("told_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("told_count", fields.IntField(default=0)),
            ],
            options={
                "table": "monitor_incidents",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "id"]), Index(fields=["monitor_id", "id"])],
                "pk_attr": "id",
                "table_description": "A group of a monitor that is over its limit, from when it fires until it is well again. A partial unique index",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="AlertDelivery",
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
                    "channel",
                    fields.ForeignKeyField(
                        "models.AlertChannel",
                        source_field="channel_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "monitor",
                    fields.ForeignKeyField(
                        "models.Monitor",
                        source_field="monitor_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "incident",
                    fields.ForeignKeyField(
                        "models.MonitorIncident",
                        source_field="incident_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                (
                    "kind",
                    fields.CharEnumField(
                        description="FIRING: FIRING\nSTILL_FIRING: STILL_FIRING\nRESOLVED: RESOLVED\nTEST: TEST",
                        enum_type=AlertKind,
                        max_length=20,
                    ),
                ),
                ("alert", JsonField(generated=False, null=False, unique=False)),
                (
                    "status",
                    fields.CharEnumField(
                        default=AlertDeliveryStatus.PENDING,
                        description="PENDING: PENDING\nSENT: SENT\nSTANDING: STANDING\nFAILED: FAILED\nSKIPPED: SKIPPED",
                        enum_type=AlertDeliveryStatus,
                        max_length=10,
                    ),
                ),
                ("attempts", fields.IntField(default=0)),
                ("claim", fields.IntField(default=0)),
                ("next_attempt_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("give_up_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("claimed_until", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("last_error", fields.TextField(null=True, unique=False)),
                ("response_status", fields.IntField(null=True)),
                ("sent_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "alert_deliveries",
                "app": "models",
                "indexes": [
                    Index(fields=["channel_id", "id"]),
                    Index(fields=["incident_id", "id"]),
                    Index(fields=["monitor_id"]),
                ],
                "pk_attr": "id",
                "table_description": "An alert on its way to a channel; written in the transaction of what it tells.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="MonitorGroup",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "monitor",
                    fields.ForeignKeyField(
                        "models.Monitor",
                        source_field="monitor_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("key", fields.TextField(unique=False)),
                ("label", fields.TextField(null=True, unique=False)),
                (
                    "state",
                    fields.CharEnumField(
                        description="OK: OK\nPENDING: PENDING\nFIRING: FIRING\nNO_DATA: NO_DATA\nERROR: ERROR",
                        enum_type=MonitorState,
                        max_length=10,
                    ),
                ),
                ("since", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("pending_since", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("value", fields.FloatField(null=True)),
                ("measure", fields.FloatField(null=True)),
                ("explanation", fields.TextField(null=True, unique=False)),
                (
                    "incident",
                    fields.ForeignKeyField(
                        "models.MonitorIncident",
                        source_field="incident_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.SET_NULL,
                    ),
                ),
            ],
            options={
                "table": "monitor_groups",
                "app": "models",
                "unique_together": (("monitor_id", "key"),),
                "pk_attr": "id",
                "table_description": "How one group of a monitor stands: the one and only where it does not group. Those that are well and of which",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="MonitorIncidentEvent",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=new_id, unique=True, db_index=True)),
                (
                    "incident",
                    fields.ForeignKeyField(
                        "models.MonitorIncident",
                        source_field="incident_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                (
                    "kind",
                    fields.CharEnumField(
                        description="OPENED: OPENED\nVALUE: VALUE\nNO_DATA: NO_DATA\nTOLD: TOLD\nSILENCED: SILENCED\nSILENCE_ENDED: SILENCE_ENDED\nACKNOWLEDGED: ACKNOWLEDGED\nRESOLVED: RESOLVED",
                        enum_type=IncidentEventKind,
                        max_length=20,
                    ),
                ),
                ("value", fields.FloatField(null=True)),
                ("note", fields.TextField(null=True, unique=False)),
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
            ],
            options={
                "table": "monitor_incident_events",
                "app": "models",
                "indexes": [Index(fields=["incident_id", "id"])],
                "pk_attr": "id",
                "table_description": "A point of an incident's timeline.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="MonitorSilence",
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
                    "monitor",
                    fields.ForeignKeyField(
                        "models.Monitor",
                        source_field="monitor_id",
                        null=True,
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.CASCADE,
                    ),
                ),
                ("labels", JsonField(generated=False, null=False, unique=False)),
                ("reason", fields.TextField(unique=False)),
                ("starts_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("ends_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("ended_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                (
                    "created_by",
                    fields.ForeignKeyField(
                        "models.User",
                        source_field="created_by_id",
                        db_constraint=True,
                        to_field="id",
                        related_name=False,
                        on_delete=OnDelete.RESTRICT,
                    ),
                ),
                ("everybody", fields.BooleanField()),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "monitor_silences",
                "app": "models",
                "indexes": [Index(fields=["organization_id", "ends_at"])],
                "pk_attr": "id",
                "table_description": "A time in which some incidents are not told. What happens meanwhile is recorded all the same.",
            },
            bases=["Model"],
        ),
        ops.AlterField(
            model_name="Notification",
            name="kind",
            field=fields.CharEnumField(
                description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED\nREPORT: REPORT\nBUDGET: BUDGET\nMONITOR: MONITOR",
                enum_type=NotificationKind,
                max_length=20,
            ),
        ),
        ops.AlterField(
            model_name="NotificationPreference",
            name="kind",
            field=fields.CharEnumField(
                description="MENTION: MENTION\nREPLY: REPLY\nSHARE: SHARE\nHANDOFF: HANDOFF\nAPPROVAL_WANTED: APPROVAL_WANTED\nRUN_FINISHED: RUN_FINISHED\nREPORT: REPORT\nBUDGET: BUDGET\nMONITOR: MONITOR",
                enum_type=NotificationKind,
                max_length=20,
            ),
        ),
        ops.RunSQL(FORWARD, BACKWARD),
    ]
