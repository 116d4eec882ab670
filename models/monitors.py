"""Monitors of metrics: what they watch, the state of each of their groups, incidents, silences, and where alerts go."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import JsonField, Row, Scope, UuidArrayField


class MonitorConditionKind(StrEnum):
    """What a monitor asks of its metric."""

    THRESHOLD = "THRESHOLD"
    CHANGE = "CHANGE"
    ABSENCE = "ABSENCE"
    ANOMALY = "ANOMALY"
    BUDGET_BURN = "BUDGET_BURN"


class MonitorNoData(StrEnum):
    """What it means to a monitor that its metric has no value."""

    KEEP = "KEEP"
    OK = "OK"
    FIRING = "FIRING"


class AlertSeverity(StrEnum):
    """How much an alert matters."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class MonitorStatus(StrEnum):
    """Whether a monitor is evaluated."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class MonitorState(StrEnum):
    """How it stands, of a monitor's group, and of a monitor as the worst of its groups."""

    OK = "OK"
    PENDING = "PENDING"
    FIRING = "FIRING"
    NO_DATA = "NO_DATA"
    ERROR = "ERROR"


class IncidentState(StrEnum):
    """Whether an incident lasts."""

    FIRING = "FIRING"
    RESOLVED = "RESOLVED"


class IncidentEventKind(StrEnum):
    """What happened in an incident's life."""

    OPENED = "OPENED"
    VALUE = "VALUE"
    NO_DATA = "NO_DATA"
    TOLD = "TOLD"
    SILENCED = "SILENCED"
    SILENCE_ENDED = "SILENCE_ENDED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    RESOLVED = "RESOLVED"


class AlertChannelKind(StrEnum):
    """What takes alerts outside of the product."""

    WEBHOOK = "WEBHOOK"
    ALERTMANAGER = "ALERTMANAGER"


class AlertChannelStatus(StrEnum):
    """Whether a channel is used."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"


class AlertKind(StrEnum):
    """What an alert says."""

    FIRING = "FIRING"
    STILL_FIRING = "STILL_FIRING"
    RESOLVED = "RESOLVED"
    TEST = "TEST"


class AlertDeliveryStatus(StrEnum):
    """What became of an alert on its way to a channel."""

    PENDING = "PENDING"
    SENT = "SENT"
    STANDING = "STANDING"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


# An admin's monitor of people is not theirs to read once they are no admin.
_THEIRS = (
    "(monitors.owner_id = {} AND NOT (monitors.organization_wide AND monitors.about_people) "
    "OR {} = ANY(monitors.notify_user_ids) AND NOT monitors.about_people)"
)


class MonitorRow(Row):
    __slots__ = ()


class MonitorGroupRow(Row):
    __slots__ = ()


class MonitorEvaluationRow(Row):
    __slots__ = ()


class MonitorIncidentRow(Row):
    __slots__ = ()


class MonitorIncidentEventRow(Row):
    __slots__ = ()


class MonitorSilenceRow(Row):
    __slots__ = ()


class AlertChannelRow(Row):
    __slots__ = ()


class AlertDeliveryRow(Row):
    __slots__ = ()


class Monitor(Model):
    """A question that is asked of a metric again and again. Removed ones stay for their incidents."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    """What they may see is what it watches."""
    organization_wide = fields.BooleanField(default=False, db_default=False)
    """Whether it watches all of the organisation, as it was made; else its owner's facts alone."""
    name = fields.CharField(200)
    description = fields.TextField()
    metric = fields.CharField(100)
    filters = JsonField()
    """dimension -> values."""
    group_by = fields.CharField(50, null=True)
    window_seconds = fields.IntField()
    condition_kind = fields.CharEnumField(MonitorConditionKind, max_length=20)
    condition = JsonField()
    """services/monitors/conditions.py has its shapes."""
    for_seconds = fields.IntField()
    recovery = fields.FloatField(null=True)
    no_data = fields.CharEnumField(MonitorNoData, max_length=10)
    renotify_seconds = fields.IntField(null=True)
    severity = fields.CharEnumField(AlertSeverity, max_length=10)
    labels = JsonField()
    evaluate_every_seconds = fields.IntField()
    about_people = fields.BooleanField()
    """Whether it tells users or teams apart: then nobody is told of it but its owner and admins."""
    notify_user_ids = UuidArrayField()
    channel_ids = UuidArrayField()
    status = fields.CharEnumField(MonitorStatus, max_length=10, default=MonitorStatus.ACTIVE)
    paused_reason = fields.TextField(null=True)
    state = fields.CharEnumField(MonitorState, max_length=10, default=MonitorState.OK)
    state_since = fields.DatetimeField()
    explanation = fields.TextField(null=True)
    """Of the last evaluation, where there is something to say."""
    groups_left_out = fields.IntField(default=0)
    last_instant = fields.DatetimeField(null=True)
    """The instant of the last evaluation: the end of the window that it looked at."""
    next_evaluation_at = fields.DatetimeField()
    claim = fields.BigIntField(default=0)
    """Counts claims and changes; whoever writes an evaluation shows the number of their claim."""
    claimed_until = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "monitors"
        indexes = [("organization_id", "id"), ("owner_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """The organisation's admins see all; others their own, and those that tell them of incidents, but none about
        people other than themselves."""
        if actor.is_admin:
            return Scope("monitors.removed_at IS NULL AND monitors.organization_id = {}", (actor.organization_id,))
        return Scope(
            f"monitors.removed_at IS NULL AND monitors.organization_id = {{}} AND {_THEIRS}",
            (actor.organization_id, actor.user_id, actor.user_id),
        )


class MonitorGroup(Model):
    """How one group of a monitor stands: the one and only where it does not group. Those that are well and of which
    nothing is left to say have no row."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    monitor: Any = fields.ForeignKeyField("models.Monitor", related_name=False, on_delete=fields.CASCADE)
    key = fields.TextField()
    label = fields.TextField(null=True)
    state = fields.CharEnumField(MonitorState, max_length=10)
    since = fields.DatetimeField()
    pending_since = fields.DatetimeField(null=True)
    value = fields.FloatField(null=True)
    measure = fields.FloatField(null=True)
    explanation = fields.TextField(null=True)
    incident: Any = fields.ForeignKeyField(
        "models.MonitorIncident", related_name=False, null=True, on_delete=fields.SET_NULL
    )

    class Meta:
        table = "monitor_groups"
        unique_together = (("monitor_id", "key"),)


class MonitorEvaluation(Model):
    """What a monitor saw at one instant."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    monitor: Any = fields.ForeignKeyField("models.Monitor", related_name=False, on_delete=fields.CASCADE)
    at = fields.DatetimeField()
    evaluated_at = fields.DatetimeField()
    state = fields.CharEnumField(MonitorState, max_length=10)
    changed = fields.BooleanField()
    value = fields.FloatField(null=True)
    """Of the group that is worst."""
    group_count = fields.IntField()
    firing_count = fields.IntField()
    missed = fields.IntField()
    """Instants before it that nobody evaluated, as after an outage."""
    explanation = fields.TextField(null=True)
    duration_ms = fields.IntField()

    class Meta:
        table = "monitor_evaluations"
        unique_together = (("monitor_id", "at"),)


class MonitorIncident(Model):
    """A group of a monitor that is over its limit, from when it fires until it is well again. A partial unique index
    of the migration holds that there is one at a time; it also adds `changed_xid` and `changed_seq`, the incident's
    place in the live feed."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    monitor: Any = fields.ForeignKeyField("models.Monitor", related_name=False, on_delete=fields.CASCADE)
    group_key = fields.TextField()
    group_label = fields.TextField(null=True)
    """As the fact tables have it."""
    group_name = fields.TextField(null=True)
    """For people: a user's name, a template's title, as its owner saw it when the incident opened."""
    title = fields.CharField(300)
    labels = JsonField()
    """What silences and Alertmanager know it by."""
    severity = fields.CharEnumField(AlertSeverity, max_length=10)
    state = fields.CharEnumField(IncidentState, max_length=10)
    opened_at = fields.DatetimeField()
    resolved_at = fields.DatetimeField(null=True)
    resolution = fields.TextField(null=True)
    acknowledged_at = fields.DatetimeField(null=True)
    acknowledged_by: Any = fields.ForeignKeyField(
        "models.User", related_name=False, null=True, on_delete=fields.SET_NULL
    )
    silenced = fields.BooleanField(default=False)
    opening_value = fields.FloatField(null=True)
    value = fields.FloatField(null=True)
    summary = fields.TextField()
    told_at = fields.DatetimeField(null=True)
    """When it was last told; null while it never was, as in a silence."""
    told_count = fields.IntField(default=0)

    class Meta:
        table = "monitor_incidents"
        indexes = [("organization_id", "id"), ("monitor_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As their monitors are, and those of removed monitors too."""
        if actor.is_admin:
            return Scope("monitor_incidents.organization_id = {}", (actor.organization_id,))
        return Scope(
            "monitor_incidents.organization_id = {} AND EXISTS (SELECT FROM monitors "
            f"WHERE monitors.id = monitor_incidents.monitor_id AND {_THEIRS})",
            (actor.organization_id, actor.user_id, actor.user_id),
        )


class MonitorIncidentEvent(Model):
    """A point of an incident's timeline."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    incident: Any = fields.ForeignKeyField("models.MonitorIncident", related_name=False, on_delete=fields.CASCADE)
    at = fields.DatetimeField()
    kind = fields.CharEnumField(IncidentEventKind, max_length=20)
    value = fields.FloatField(null=True)
    note = fields.TextField(null=True)
    actor: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.SET_NULL)

    class Meta:
        table = "monitor_incident_events"
        indexes = [("incident_id", "id")]


class MonitorSilence(Model):
    """A time in which some incidents are not told. What happens meanwhile is recorded all the same."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    monitor: Any = fields.ForeignKeyField("models.Monitor", related_name=False, null=True, on_delete=fields.CASCADE)
    labels = JsonField()
    """All of these labels; with a monitor, within it."""
    reason = fields.TextField()
    starts_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()
    ended_at = fields.DatetimeField(null=True)
    """When it was ended before its time."""
    created_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    everybody = fields.BooleanField()
    """Whether it holds for incidents of everybody's monitors (an admin's), or of its author's only."""
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "monitor_silences"
        indexes = [("organization_id", "ends_at")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Everybody's silences are seen by everybody in the organisation; others by their author and the admins."""
        if actor.is_admin:
            return Scope("monitor_silences.organization_id = {}", (actor.organization_id,))
        return Scope(
            "monitor_silences.organization_id = {} AND monitor_silences.created_by_id = {}",
            (actor.organization_id, actor.user_id),
        )


class AlertChannel(Model):
    """A receiver of alerts outside of the product, with its secrets sealed."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    owner: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(200)
    kind = fields.CharEnumField(AlertChannelKind, max_length=20)
    url = fields.TextField()
    secret_sealed = fields.BinaryField(null=True)
    """Of a webhook: the signing secret; of an Alertmanager: the Authorization header, if it wants one."""
    former_secret_sealed = fields.BinaryField(null=True)
    former_until = fields.DatetimeField(null=True)
    """Until then webhooks are signed with the former secret too."""
    status = fields.CharEnumField(AlertChannelStatus, max_length=10, default=AlertChannelStatus.ACTIVE)
    disabled_reason = fields.TextField(null=True)
    failures = fields.IntField(default=0)
    """Attempts that failed since the last one that did not."""
    failing_since = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "alert_channels"
        indexes = [("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """One's own; the organisation's admins see all."""
        if actor.is_admin:
            return Scope(
                "alert_channels.removed_at IS NULL AND alert_channels.organization_id = {}", (actor.organization_id,)
            )
        return Scope(
            "alert_channels.removed_at IS NULL AND alert_channels.organization_id = {} "
            "AND alert_channels.owner_id = {}",
            (actor.organization_id, actor.user_id),
        )


class AlertDelivery(Model):
    """An alert on its way to a channel; written in the transaction of what it tells."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    channel: Any = fields.ForeignKeyField("models.AlertChannel", related_name=False, on_delete=fields.CASCADE)
    monitor: Any = fields.ForeignKeyField("models.Monitor", related_name=False, on_delete=fields.CASCADE)
    incident: Any = fields.ForeignKeyField(
        "models.MonitorIncident", related_name=False, null=True, on_delete=fields.CASCADE
    )
    kind = fields.CharEnumField(AlertKind, max_length=20)
    alert = JsonField()
    """What is told, for any kind of channel: services/monitors/alerts.py."""
    status = fields.CharEnumField(AlertDeliveryStatus, max_length=10, default=AlertDeliveryStatus.PENDING)
    attempts = fields.IntField(default=0)
    claim = fields.IntField(default=0)
    """Counts claims: whoever notes an outcome shows the number of theirs."""
    next_attempt_at = fields.DatetimeField()
    give_up_at = fields.DatetimeField()
    claimed_until = fields.DatetimeField(null=True)
    last_error = fields.TextField(null=True)
    response_status = fields.IntField(null=True)
    sent_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "alert_deliveries"
        indexes = [("channel_id", "id"), ("incident_id", "id"), ("monitor_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As their channels are."""
        if actor.is_admin:
            return Scope("alert_deliveries.organization_id = {}", (actor.organization_id,))
        return Scope(
            "alert_deliveries.organization_id = {} AND EXISTS (SELECT FROM alert_channels "
            "WHERE alert_channels.id = alert_deliveries.channel_id AND alert_channels.owner_id = {})",
            (actor.organization_id, actor.user_id),
        )
