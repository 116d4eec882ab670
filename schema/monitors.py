"""Monitors in the graph: types, queries, and incidents, live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any

import strawberry

from core.ids import decode, encode
from core.permissions import Permission
from models import monitors as models
from resolvers import monitors as reads
from resolvers.identity import user_in
from schema.connections import After, Connection, First
from schema.fields import Info, Node, column, entity, enum_type, input_type, nested, object_type, query, subscription
from schema.scalars import Cursor
from schema.sessions import Label, LazyUser
from services.metrics.labels import to_graph
from services.monitors import conditions
from services.monitors.alerts import condition_of
from subscriptions.monitors import incident_changes

MonitorConditionKind = enum_type(
    models.MonitorConditionKind,
    {
        "THRESHOLD": "The metric is beyond a number.",
        "CHANGE": "It moved too far from the window before, or from a week ago.",
        "ABSENCE": "Nothing happened for too long.",
        "ANOMALY": "It is not what its season lets expect.",
        "BUDGET_BURN": "A budget is used up too fast.",
    },
)
MonitorOperator = enum_type(
    conditions.MonitorOperator,
    {
        "GREATER": "Above the limit.",
        "GREATER_OR_EQUAL": "At the limit or above.",
        "LESS": "Below the limit.",
        "LESS_OR_EQUAL": "At the limit or below.",
    },
)
MonitorChangeUnit = enum_type(
    conditions.MonitorChangeUnit,
    {"PERCENT": "Per cent of what it was.", "ABSOLUTE": "In the metric's own unit."},
)
MonitorComparison = enum_type(
    conditions.MonitorComparison,
    {"PREVIOUS_WINDOW": "The window before.", "LAST_WEEK": "The same window a week ago."},
)
MonitorSeason = enum_type(
    conditions.MonitorSeason,
    {"DAY": "It repeats itself every day, in UTC.", "WEEK": "It repeats itself every week, in UTC."},
)
MonitorNoData = enum_type(
    models.MonitorNoData,
    {
        "KEEP": "Incidents stay as they are, and no new ones open.",
        "OK": "It counts as well: incidents end.",
        "FIRING": "It counts as being over the limit.",
    },
)
AlertSeverity = enum_type(
    models.AlertSeverity,
    {"INFO": "To know.", "WARNING": "To look at soon.", "CRITICAL": "To act on now."},
)
MonitorStatus = enum_type(
    models.MonitorStatus, {"ACTIVE": "It is evaluated.", "PAUSED": "It is not; `pausedReason` may say why."}
)
MonitorState = enum_type(
    models.MonitorState,
    {
        "OK": "Within the limit.",
        "PENDING": "Over the limit, not yet for long enough.",
        "FIRING": "Over the limit, with an incident.",
        "NO_DATA": "There is nothing to judge; `explanation` says why.",
        "ERROR": "It could not be evaluated; incidents stay as they are.",
    },
)
IncidentState = enum_type(models.IncidentState, {"FIRING": "It lasts.", "RESOLVED": "It is over."})
IncidentEventKind = enum_type(
    models.IncidentEventKind,
    {
        "OPENED": "It began.",
        "VALUE": "The value moved by a tenth or more.",
        "NO_DATA": "There was no value.",
        "TOLD": "People and channels were told: `note` says as what.",
        "SILENCED": "A silence began to hold; `note` is its reason.",
        "SILENCE_ENDED": "No silence holds any more.",
        "ACKNOWLEDGED": "Somebody sees to it.",
        "RESOLVED": "It ended; `note` says why.",
    },
)
AlertChannelKind = enum_type(
    models.AlertChannelKind,
    {
        "WEBHOOK": "A URL that is posted JSON, signed by Standard Webhooks.",
        "ALERTMANAGER": "Prometheus' Alertmanager, by its API version 2.",
    },
)
AlertChannelStatus = enum_type(
    models.AlertChannelStatus, {"ACTIVE": "It is used.", "DISABLED": "It is not; `disabledReason` says why."}
)
AlertKind = enum_type(
    models.AlertKind,
    {
        "FIRING": "An incident began.",
        "STILL_FIRING": "An incident lasts.",
        "RESOLVED": "An incident is over.",
        "TEST": "A test.",
    },
)
AlertDeliveryStatus = enum_type(
    models.AlertDeliveryStatus,
    {
        "PENDING": "It waits for its first, or its next, attempt.",
        "SENT": "The receiver took it.",
        "STANDING": "The receiver took it, and is told again every minute, as Alertmanager wants it.",
        "FAILED": "It was given up; `retryAlertDelivery` sends it again.",
        "SKIPPED": "There was no need for it any more.",
    },
)


@object_type
class MonitorDimension:
    """A dimension of a monitor's metric, and the values that it is narrowed down to."""

    dimension: str = column("Its name, as `metrics` lists it.")
    values: list[str | None] = column("One of these; null for what has none.")


@object_type
class MonitorCondition:
    """What a monitor asks of its metric. Fields that are not of its kind are null."""

    kind: MonitorConditionKind = column("Which of the kinds.")
    text: str = column("The same in words.")
    operator: MonitorOperator | None = column("On which side of the limit it is too far.")
    value: float | None = column("The limit.")
    unit: MonitorChangeUnit | None = column("How a change is measured.")
    compared_with: MonitorComparison | None = column("What a window is compared with.")
    for_seconds: int | None = column("For how long nothing happened.")
    sensitivity: float | None = column("How many standard deviations away is an anomaly.")
    season: MonitorSeason | None = column("After what time the metric repeats itself.")
    training_days: int | None = column("How many days of history it is judged by.")
    timezone: str | None = column("Whose clock its season follows.")
    budget_id: strawberry.ID | None = column("The budget.")
    hours: int | None = column("Over how many hours.")
    ratio: float | None = column("How many times faster than evenly.")


@object_type
class MonitorLabel:
    """A value of a dimension."""

    dimension: str = column("The dimension's name.")
    value: str | None = column("The value, an id for users, teams and templates; null for what has none.")
    name: str | None = column("The value for people; null where you may not see it.")


@object_type
class MonitorGroup:
    """How one group of a monitor stands. Groups that are well are not listed, but for the only one of a monitor that
    does not group."""

    state: MonitorState = column("How it stands.")
    since: datetime = column("Since when.")
    pending_since: datetime | None = column("Since when it is over the limit, while that is not long enough.")
    value: float | None = column("The metric's value.")
    measure: float | None = column("What is held against the limit: for changes, anomalies and budgets not the value.")
    explanation: str | None = column("More of what was seen.")

    @nested(reads.label_of_groups)
    def label(self) -> MonitorLabel | None:
        """Which group; null for the only one of a monitor that does not group."""

    @nested(reads.incident_of)
    def incident(self) -> MonitorIncident | None:
        """Its incident, where there is one."""


@object_type
class MonitorEvaluation:
    """What a monitor saw at one instant."""

    at: datetime = column("The instant: the end of the window.")
    evaluated_at: datetime = column("When that was looked at.")
    state: MonitorState = column("How the monitor stood: as the worst of its groups.")
    changed: bool = column("Whether that was different before.")
    value: float | None = column("The value of the group that was worst.")
    group_count: int = column("How many groups were looked at.")
    firing_count: int = column("How many of them fired.")
    missed: int = column("How many instants before it nobody evaluated, as after an outage.")
    explanation: str | None = column("What there was to say.")
    duration_ms: int = column("How long looking took, in milliseconds.")


@entity(models.MonitorRow)
class Monitor(Node):
    """A question that is asked of a metric again and again; its answer may be an incident."""

    name: str = column("What it is called.")
    description: str = column("What it is for, and what to do; may be empty.")
    metric: str = column("The metric, as `metrics` lists it.")
    group_by: str | None = column("The dimension that it tells apart: each value is a group with incidents of its own.")
    window_seconds: int = column("How many seconds before an instant it looks at.")
    for_seconds: int = column("How many seconds it must be over the limit before it fires.")
    recovery: float | None = column("How far it must come back before an incident is over; null for the limit itself.")
    no_data: MonitorNoData = column("What it means that there is no value.")
    renotify_every_seconds: int | None = column(
        "After how many seconds it tells again of what lasts and nobody acknowledged; null for never.",
        name="renotify_seconds",
    )
    severity: AlertSeverity = column("How much its alerts matter.")
    organization_wide: bool = column(
        "Whether it watches all of the organisation, as an admin made it; else its owner's facts alone."
    )
    evaluate_every_seconds: int = column("How often it is evaluated.")
    status: MonitorStatus = column("Whether it is evaluated.")
    paused_reason: str | None = column("Why it is paused.")
    state: MonitorState = column("How it stands: as the worst of its groups.")
    state_since: datetime = column("Since when.")
    explanation: str | None = column("What there was to say at its last evaluation.")
    groups_left_out: int = column("How many groups are beyond the 100 (for anomalies 20) that it looks at.")
    last_evaluated_at: datetime | None = column("The instant of its last evaluation.", name="last_instant")
    created_at: datetime = column("When it was made.")
    updated_at: datetime = column("When it was last changed.")

    @strawberry.field(description="The labels of its incidents, beside those that all have.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root["labels"].items())]

    @strawberry.field(description="What the metric is narrowed down to.")
    def filter(root: Any) -> list[MonitorDimension]:
        return [
            MonitorDimension(dimension=name, values=[to_graph(name, value) for value in values])
            for name, values in sorted(root["filters"].items())
        ]

    @strawberry.field(description="What it asks.")
    def condition(root: Any) -> MonitorCondition:
        found = condition_of(root)
        given = {name: getattr(found, name, None) for name in _OF_CONDITIONS}
        if isinstance(found, conditions.BudgetBurn):
            given["budget_id"] = encode("bud", found.budget_id)
        return MonitorCondition(kind=conditions.kind_of(found), text=conditions.describe(found), **given)

    @nested(user_in("owner_id"))
    def owner(self) -> LazyUser:
        """Whose it is: it sees what they may see."""

    @nested(reads.notified_by_monitors)
    def notified_users(self) -> list[LazyUser]:
        """Who is told in their inbox, and by mail as they want it."""

    @nested(reads.channels_of_monitors)
    def channels(self) -> list[AlertChannel]:
        """Where its alerts go; those that you may see."""

    @nested(reads.groups_of_monitors)
    def groups(self, first: First = None, after: After = None) -> Connection[MonitorGroup]:
        """How its groups stand."""

    @nested(reads.history_of_monitors)
    def history(self, first: First = None, after: After = None) -> Connection[MonitorEvaluation]:
        """What it saw, the latest first. Kept for 7 days, and 180 where its state changed."""

    @nested(reads.incidents_of_monitors)
    def incidents(self, first: First = None, after: After = None) -> Connection[MonitorIncident]:
        """Its incidents, the latest first."""


_OF_CONDITIONS = (
    "operator",
    "value",
    "unit",
    "compared_with",
    "for_seconds",
    "sensitivity",
    "season",
    "training_days",
    "timezone",
    "budget_id",
    "hours",
    "ratio",
)


@object_type
class IncidentEvent:
    """A point of an incident's timeline."""

    at: datetime = column("When.")
    kind: IncidentEventKind = column("What happened.")
    value: float | None = column("The metric's value then.")
    note: str | None = column("More of it.")

    @nested(user_in("actor_id"))
    def actor(self) -> LazyUser | None:
        """Who did it; null where it happened by itself."""


@entity(models.MonitorIncidentRow)
class MonitorIncident(Node):
    """A time in which a monitor, or a group of it, was over its limit."""

    title: str = column("One line.")
    summary: str = column("What was seen, and what was asked.")
    severity: AlertSeverity = column("How much it matters.")
    state: IncidentState = column("Whether it lasts.")
    opened_at: datetime = column("The instant at which it began.")
    resolved_at: datetime | None = column("When it was over.")
    resolution: str | None = column("Why it is over.")
    acknowledged_at: datetime | None = column("When somebody said that they see to it: then it is not told again.")
    silenced: bool = column("Whether a silence holds for it.")
    opening_value: float | None = column("The value that it began with.")
    value: float | None = column("The latest value.")
    told_at: datetime | None = column("When it was last told; null while it never was.")
    told_count: int = column("How often it was told.")

    @strawberry.field(description="What silences and Alertmanager know it by.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root["labels"].items())]

    @nested(reads.group_of_incidents)
    def group(self) -> MonitorLabel | None:
        """The group that it is of; null where its monitor does not group."""

    @nested(reads.monitor_of)
    def monitor(self) -> Monitor | None:
        """Its monitor; null once that is removed."""

    @nested(user_in("acknowledged_by_id"))
    def acknowledged_by(self) -> LazyUser | None:
        """Who sees to it."""

    @nested(reads.timeline_of_incidents)
    def timeline(self, first: First = None, after: After = None) -> Connection[IncidentEvent]:
        """What happened, the first at first."""

    @nested(reads.deliveries_of_incidents)
    def deliveries(
        self,
        first: First = None,
        after: After = None,
        status: Annotated[list[AlertDeliveryStatus] | None, strawberry.argument(description="In one of these.")] = None,
    ) -> Connection[AlertDelivery]:
        """What channels were sent of it; those that you may see."""


@entity(models.MonitorSilenceRow)
class MonitorSilence(Node):
    """A time in which incidents are not told. They open and end all the same; what still fires at its end is told."""

    reason: str = column("Why.")
    starts_at: datetime = column("From when on.")
    ends_at: datetime = column("Until when.")
    ended_at: datetime | None = column("When it was ended before its time.")
    everybody: bool = column("Whether it holds for everybody's monitors, as an admin's does, or its author's only.")
    created_at: datetime = column("When it was made.")

    @strawberry.field(description="The labels that an incident has all of to be silenced.")
    def labels(root: Any) -> list[Label]:
        return [Label(name=name, value=value) for name, value in sorted(root["labels"].items())]

    @nested(reads.monitor_of)
    def monitor(self) -> Monitor | None:
        """The monitor that it is for; null for all."""

    @nested(user_in("created_by_id"))
    def created_by(self) -> LazyUser:
        """Who made it."""


@entity(models.AlertChannelRow)
class AlertChannel(Node):
    """A receiver of alerts outside of the product. Its secrets are never shown again."""

    name: str = column("What it is called.")
    kind: AlertChannelKind = column("What it is.")
    url: str = column("Where it is.")
    status: AlertChannelStatus = column("Whether it is used.")
    disabled_reason: str | None = column("Why it is not.")
    failures: int = column("How many attempts failed since the last one that did not.")
    failing_since: datetime | None = column("When the first of them was.")
    has_secret: bool = column("Whether there is a signing secret, or an authorization.")
    former_until: datetime | None = column("Until when webhooks are signed with the secret of before as well.")
    created_at: datetime = column("When it was made.")
    updated_at: datetime = column("When it was last changed.")

    @nested(user_in("owner_id"))
    def owner(self) -> LazyUser:
        """Whose it is. They are told when it is disabled because it fails."""

    @nested(reads.deliveries_of_channels)
    def deliveries(
        self,
        first: First = None,
        after: After = None,
        status: Annotated[list[AlertDeliveryStatus] | None, strawberry.argument(description="In one of these.")] = None,
    ) -> Connection[AlertDelivery]:
        """What was sent to it, the latest first. Kept for 90 days."""


@entity(models.AlertDeliveryRow)
class AlertDelivery(Node):
    """An alert on its way to a channel."""

    kind: AlertKind = column("What it says.")
    status: AlertDeliveryStatus = column("What became of it.")
    attempts: int = column("How often it was tried.")
    next_attempt_at: datetime = column("When it is tried next, while it waits or stands.")
    last_error: str | None = column("Why the last attempt failed.")
    response_status: int | None = column("The HTTP status that the receiver last answered.")
    sent_at: datetime | None = column("When the receiver last took it.")
    created_at: datetime = column("When it was written.")

    @nested(reads.channel_of)
    def channel(self) -> AlertChannel | None:
        """Where it goes; null once that is removed."""

    @nested(reads.incident_of)
    def incident(self) -> MonitorIncident | None:
        """The incident that it tells of; null for a test."""


@input_type
class MonitorListFilter:
    """Which monitors to list. Conditions that are left out take everything."""

    state: list[MonitorState] | None = strawberry.field(default=None, description="In one of these.")
    status: MonitorStatus | None = strawberry.field(default=None, description="With this status.")
    metric: str | None = strawberry.field(default=None, description="Of this metric.")
    mine_only: bool = strawberry.field(default=False, description="Only your own.")


@input_type
class IncidentFilter:
    """Which incidents to list. Conditions that are left out take everything."""

    state: IncidentState | None = strawberry.field(default=None, description="In this state.")
    monitor_id: strawberry.ID | None = strawberry.field(default=None, description="Of this monitor.")
    severity: list[AlertSeverity] | None = strawberry.field(default=None, description="With one of these.")
    acknowledged: bool | None = strawberry.field(default=None, description="Whether somebody sees to it.")


@object_type
class IncidentChange:
    """An incident that opened, changed, or ended."""

    cursor: Cursor = column("Pass the last one as `after` to go on from there.")
    incident: MonitorIncident = column("The incident, as it now is.")


@strawberry.type
class MonitorQuery:
    @query(Permission.METRICS_READ)
    async def monitor(
        info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Its id, `mon_…`.")]
    ) -> Monitor | None:
        """One monitor; null where there is none that you may see."""
        return await reads.monitor(info.context.actor, decode("mon", id))

    @query(Permission.METRICS_READ)
    async def monitors(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[MonitorListFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[Monitor]:
        """The monitors that you may see, the latest first: your own and those that tell you; as an admin, all."""
        wanted = (
            reads.MonitorFilter(filter.state, filter.status, filter.metric, filter.mine_only)
            if filter
            else reads.MonitorFilter()
        )
        return await reads.monitors(info.context.actor, wanted, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def incidents(
        info: Info,
        first: First = None,
        after: After = None,
        filter: Annotated[IncidentFilter | None, strawberry.argument(description="Which ones.")] = None,
    ) -> Connection[MonitorIncident]:
        """The incidents that you may see, the latest first."""
        wanted = reads.IncidentFilter()
        if filter is not None:
            monitor_id = decode("mon", filter.monitor_id, field="filter.monitorId") if filter.monitor_id else None
            wanted = reads.IncidentFilter(filter.state, monitor_id, filter.severity, filter.acknowledged)
        return await reads.incidents(info.context.actor, wanted, first=first, after=after)

    @query(Permission.METRICS_READ)
    async def monitor_silences(
        info: Info,
        first: First = None,
        after: After = None,
        living_only: Annotated[
            bool, strawberry.argument(description="Whether those that are over are left out.")
        ] = True,
    ) -> Connection[MonitorSilence]:
        """The silences that you may see, the latest first."""
        return await reads.silences(info.context.actor, living_only=living_only, first=first, after=after)

    @query(Permission.MONITORS_MANAGE)
    async def alert_channels(info: Info, first: First = None, after: After = None) -> Connection[AlertChannel]:
        """The channels that you may see, the oldest first: your own; as an admin, all."""
        return await reads.channels(info.context.actor, first=first, after=after)


@strawberry.type
class MonitorSubscription:
    @subscription(Permission.METRICS_READ)
    async def incident_changes(
        info: Info,
        after: Annotated[
            Cursor | None, strawberry.argument(description="Go on after this cursor. Left out, from now on.")
        ] = None,
    ) -> AsyncGenerator[IncidentChange, None]:
        """The incidents that you may see, as they open, change and end. Reconnect with the last cursor, and nothing
        is lost."""
        async for change in incident_changes(info.context.actor, after):
            yield change
