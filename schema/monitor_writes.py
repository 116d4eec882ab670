"""Changes of monitors, silences and channels in the graph."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import strawberry

from core.errors import BadInput
from core.ids import decode
from core.permissions import Permission
from resolvers import monitors as reads
from resolvers.identity import users_by_ids
from schema.fields import Info, column, decode_ids, input_type, mutation, object_type
from schema.monitors import (
    AlertChannel,
    AlertChannelKind,
    AlertDelivery,
    AlertSeverity,
    Monitor,
    MonitorChangeUnit,
    MonitorComparison,
    MonitorIncident,
    MonitorLabel,
    MonitorNoData,
    MonitorOperator,
    MonitorSeason,
    MonitorSilence,
    MonitorState,
)
from schema.sessions import LabelInput, LazyUser
from services.monitors import channels, conditions, incidents, keeping, silences, trying

_KEY = "Repeat the mutation with the same key, and you get the first result instead of doing it twice."


@input_type
class ThresholdInput:
    """The metric is beyond a number."""

    operator: MonitorOperator = strawberry.field(description="On which side it is too far.")
    value: float = strawberry.field(description="The limit, in the metric's unit.")


@input_type
class ChangeInput:
    """The metric moved too far."""

    operator: MonitorOperator = strawberry.field(description="On which side the change is too far.")
    value: float = strawberry.field(description="The limit: 50 for half as much again, -50 for half, in PERCENT.")
    unit: MonitorChangeUnit = strawberry.field(
        default=conditions.MonitorChangeUnit.PERCENT, description="How the change is measured."
    )
    compared_with: MonitorComparison = strawberry.field(
        default=conditions.MonitorComparison.PREVIOUS_WINDOW, description="What the window is compared with."
    )


@input_type
class AbsenceInput:
    """Nothing happened for too long. With `groupBy`: of a group that was there within 7 days."""

    for_seconds: int = strawberry.field(description="How long is too long: 60 seconds to 31 days.")


@input_type
class AnomalyInput:
    """The metric is not what its season lets expect: seasonal-trend decomposition of its history."""

    sensitivity: float = strawberry.field(
        default=5.0, description="How many standard deviations away is an anomaly: 1 to 100. Fewer alarms with more."
    )
    season: MonitorSeason = strawberry.field(
        default=conditions.MonitorSeason.DAY, description="After what time the metric repeats itself."
    )
    training_days: int = strawberry.field(
        default=14, description="How many days of history it is judged by: at least 3 seasons, at most 2,016 windows."
    )
    timezone: str = strawberry.field(
        default="UTC",
        description="The IANA name of the zone whose clock the season follows, such as `Europe/Berlin`: what happens "
        "each day at nine is at nine before and after clocks are changed.",
    )


@input_type
class BudgetBurnInput:
    """A budget is used up too fast."""

    budget_id: strawberry.ID = strawberry.field(description="The budget.")
    hours: int = strawberry.field(default=1, description="Over how many hours: 1 to 744.")
    ratio: float = strawberry.field(
        description="How many times faster than evenly over its window. At 1 it is used up exactly at the end."
    )


@input_type
class MonitorConditionInput:
    """What a monitor asks: exactly one of these."""

    threshold: ThresholdInput | None = strawberry.field(default=None, description="Beyond a number.")
    change: ChangeInput | None = strawberry.field(default=None, description="Moved too far.")
    absence: AbsenceInput | None = strawberry.field(default=None, description="Nothing happened.")
    anomaly: AnomalyInput | None = strawberry.field(default=None, description="Not what its season lets expect.")
    budget_burn: BudgetBurnInput | None = strawberry.field(default=None, description="A budget is used up too fast.")

    def checked(self) -> conditions.Condition:
        """The one condition; BadInput for none, and for several."""
        given = [
            one
            for one in (self.threshold, self.change, self.absence, self.anomaly, self.budget_burn)
            if one is not None
        ]
        if len(given) != 1:
            raise BadInput("Give exactly one of threshold, change, absence, anomaly and budgetBurn.", field="condition")
        match given[0]:
            case ThresholdInput() as one:
                return conditions.Threshold(one.operator, one.value)
            case ChangeInput() as one:
                return conditions.Change(one.operator, one.value, one.unit, one.compared_with)
            case AbsenceInput() as one:
                return conditions.Absence(one.for_seconds)
            case AnomalyInput() as one:
                return conditions.Anomaly(one.sensitivity, one.season, one.training_days, one.timezone)
            case BudgetBurnInput() as one:
                budget_id = decode("bud", one.budget_id, field="condition.budgetBurn.budgetId")
                return conditions.BudgetBurn(budget_id, one.hours, one.ratio)


@input_type
class MonitorDimensionInput:
    """A dimension of the metric, and the values to narrow it down to."""

    dimension: str = strawberry.field(description="Its name, as `metrics` lists it.")
    values: list[str | None] = strawberry.field(
        description="One of these, up to 100: ids for users and templates; null for what has none."
    )


@input_type
class CreateMonitorInput:
    """A monitor to make."""

    name: str = strawberry.field(description="What it is called, up to 200 characters.")
    metric: str = strawberry.field(description="The metric, as `metrics` lists it: `cost.usd`, `tools.error_rate`, …")
    condition: MonitorConditionInput = strawberry.field(description="What it asks.")
    description: str = strawberry.field(default="", description="What it is for, and what to do.")
    filter: list[MonitorDimensionInput] = strawberry.field(
        default_factory=list, description="What the metric is narrowed down to, each dimension once."
    )
    group_by: str | None = strawberry.field(
        default=None,
        description="A dimension to tell apart, like `user` or `tool`: an incident for each value, for the 100 nearest "
        "to the limit (for anomalies 20).",
    )
    window_seconds: int = strawberry.field(
        default=300,
        description="How many seconds before an instant it looks at, 60 to 31 days; 900, 1800 or 3600 for anomalies. "
        "Of no meaning to absences and budgets.",
    )
    for_seconds: int = strawberry.field(
        default=0, description="How many seconds it must be over the limit before it fires, up to 7 days."
    )
    recovery: float | None = strawberry.field(
        default=None, description="How far it must come back before an incident is over; left out, to the limit."
    )
    no_data: MonitorNoData = strawberry.field(
        default=MonitorNoData.KEEP, description="What it means that there is no value."
    )
    renotify_every_seconds: int | None = strawberry.field(
        default=None,
        description="After how many seconds to tell again of what lasts and nobody acknowledged, 300 to 30 days; left "
        "out, never.",
    )
    severity: AlertSeverity = strawberry.field(default=AlertSeverity.WARNING, description="How much its alerts matter.")
    labels: list[LabelInput] = strawberry.field(
        default_factory=list, description="Labels of its incidents, up to 20, for silences and Alertmanager."
    )
    evaluate_every_seconds: int = strawberry.field(
        default=60, description="How often it is evaluated, 10 seconds to a day."
    )
    notify_user_ids: list[strawberry.ID] | None = strawberry.field(
        default=None,
        description="Who is told in their inbox, up to 50; left out, you. Of what tells people apart: only yourself "
        "and admins.",
    )
    channel_ids: list[strawberry.ID] = strawberry.field(
        default_factory=list, description="Channels of yours where alerts go, up to 10."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateMonitorInput:
    """What to change of a monitor. What is left out stays; null takes away what may be left out of a new one."""

    monitor_id: strawberry.ID = strawberry.field(description="Its id, `mon_…`.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="What it is called.")
    metric: str | None = strawberry.field(default=strawberry.UNSET, description="The metric.")
    condition: MonitorConditionInput | None = strawberry.field(default=strawberry.UNSET, description="What it asks.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What it is for.")
    filter: list[MonitorDimensionInput] | None = strawberry.field(
        default=strawberry.UNSET, description="What the metric is narrowed down to: replaces all of it."
    )
    group_by: str | None = strawberry.field(default=strawberry.UNSET, description="A dimension to tell apart.")
    window_seconds: int | None = strawberry.field(default=strawberry.UNSET, description="How many seconds it looks at.")
    for_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="How many seconds it must be over the limit."
    )
    recovery: float | None = strawberry.field(default=strawberry.UNSET, description="How far it must come back.")
    no_data: MonitorNoData | None = strawberry.field(
        default=strawberry.UNSET, description="What it means that there is no value."
    )
    renotify_every_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="After how many seconds to tell again."
    )
    severity: AlertSeverity | None = strawberry.field(
        default=strawberry.UNSET, description="How much its alerts matter."
    )
    labels: list[LabelInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Labels of its incidents: replaces them all."
    )
    evaluate_every_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="How often it is evaluated."
    )
    notify_user_ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Who is told in their inbox: replaces them all; null for its owner."
    )
    channel_ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Channels where alerts go: replaces them all."
    )


@input_type
class MonitorInput:
    """A monitor."""

    monitor_id: strawberry.ID = strawberry.field(description="Its id, `mon_…`.")


@input_type
class PauseMonitorInput:
    """A monitor to pause."""

    monitor_id: strawberry.ID = strawberry.field(description="Its id, `mon_…`.")
    reason: str | None = strawberry.field(default=None, description="Why, up to 500 characters.")


@object_type
class MonitorPayload:
    """The monitor as it now is."""

    monitor: Monitor = strawberry.field(description="The monitor.")


@object_type
class TriedGroup:
    """What one group would come to."""

    label: MonitorLabel | None = column("Which group; null for the only one of a monitor that does not group.")
    state: MonitorState = column("FIRING where it is over the limit, whatever `forSeconds` says.")
    value: float | None = column("The metric's value.")
    measure: float | None = column("What is held against the limit.")
    explanation: str | None = column("More of what was seen.")


@object_type
class TestMonitorPayload:
    """What an evaluation would come to now. It has no effect, and nobody is told."""

    at: datetime = column("The instant that was looked at.")
    window_start: datetime = column("Where the window begins.")
    window_end: datetime = column("Where it ends.")
    state: MonitorState = column("The worst of the groups.")
    groups: list[TriedGroup] = column("What each group would come to, at most 100, those that fire first.")
    groups_left_out: int = column("How many groups there are beyond these.")
    explanation: str | None = column("What there is to say of the whole.")


@object_type
class TestFireMonitorPayload:
    """What became of a test alert."""

    notified_users: list[LazyUser] = column("Who was told, in the inbox and by mail as they want it.")
    deliveries: list[AlertDelivery] = column("What each channel did with it.")


@input_type
class AcknowledgeIncidentInput:
    """An incident that you see to."""

    incident_id: strawberry.ID = strawberry.field(description="Its id, `inc_…`.")
    note: str | None = strawberry.field(default=None, description="A word on it, up to 1,000 characters.")


@object_type
class IncidentPayload:
    """The incident as it now is."""

    incident: MonitorIncident = strawberry.field(description="The incident.")


@input_type
class CreateSilenceInput:
    """A silence to make: for a monitor, for labels, or both."""

    monitor_id: strawberry.ID | None = strawberry.field(default=None, description="Only for this monitor.")
    labels: list[LabelInput] = strawberry.field(
        default_factory=list,
        description="Only for incidents that have all of these labels: those of monitors, and `alertname`, `monitor`, "
        "`metric`, `severity` and the dimension that is told apart.",
    )
    reason: str = strawberry.field(description="Why, up to 1,000 characters.")
    starts_at: datetime | None = strawberry.field(default=None, description="From when on; left out, from now on.")
    ends_at: datetime = strawberry.field(description="Until when, at most 90 days later.")
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class EndSilenceInput:
    """A silence to end before its time."""

    silence_id: strawberry.ID = strawberry.field(description="Its id, `sil_…`.")


@object_type
class SilencePayload:
    """The silence as it now is."""

    silence: MonitorSilence = strawberry.field(description="The silence.")


@input_type
class CreateAlertChannelInput:
    """A channel to make."""

    name: str = strawberry.field(description="What it is called, up to 200 characters.")
    kind: AlertChannelKind = strawberry.field(description="What it is.")
    url: str = strawberry.field(
        description="Where it is: https:// or http://, not inside a private network. Of an Alertmanager, what its "
        "`/api/v2` is below."
    )
    authorization: str | None = strawberry.field(
        default=None, description="What an Alertmanager wants as Authorization, like `Bearer …`. It is sealed."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=_KEY)


@input_type
class UpdateAlertChannelInput:
    """What to change of a channel. What is left out stays."""

    channel_id: strawberry.ID = strawberry.field(description="Its id, `alc_…`.")
    name: str | None = strawberry.field(default=None, description="What it is called.")
    url: str | None = strawberry.field(default=None, description="Where it is.")
    authorization: str | None = strawberry.field(
        default=None, description="What an Alertmanager wants as Authorization; empty for nothing."
    )
    enabled: bool | None = strawberry.field(
        default=None, description="Whether it is used. What waits for one that is disabled is given up."
    )


@input_type
class AlertChannelInput:
    """A channel."""

    channel_id: strawberry.ID = strawberry.field(description="Its id, `alc_…`.")


@object_type
class AlertChannelPayload:
    """The channel as it now is."""

    channel: AlertChannel = strawberry.field(description="The channel.")


@object_type
class AlertChannelSecretPayload:
    """A channel, with a secret that is shown this once."""

    channel: AlertChannel = strawberry.field(description="The channel.")
    secret: str | None = strawberry.field(
        description="The secret that a webhook is signed with, `whsec_…`: keep it, for it is not shown again. Null for "
        "an Alertmanager, and where an idempotency key was used before."
    )


@input_type
class AlertDeliveryInput:
    """A delivery."""

    delivery_id: strawberry.ID = strawberry.field(description="Its id, `ald_…`.")


@object_type
class AlertDeliveryPayload:
    """The delivery as it now is."""

    delivery: AlertDelivery = strawberry.field(description="The delivery.")


@strawberry.type
class MonitorMutation:
    @mutation(Permission.MONITORS_MANAGE)
    async def create_monitor(info: Info, input: CreateMonitorInput) -> MonitorPayload:
        """Watch a metric. It sees what you may see, from its next instant on."""
        new = keeping.Definition(
            name=input.name,
            metric=input.metric,
            condition=input.condition.checked(),
            description=input.description,
            filter=_filter(input.filter),
            group_by=input.group_by,
            window_seconds=input.window_seconds,
            for_seconds=input.for_seconds,
            recovery=input.recovery,
            no_data=input.no_data,
            renotify_seconds=input.renotify_every_seconds,
            severity=input.severity,
            labels=_labels(input.labels),
            evaluate_every_seconds=input.evaluate_every_seconds,
            notify_user_ids=decode_ids("User", input.notify_user_ids, "notifyUserIds"),
            channel_ids=decode_ids("AlertChannel", input.channel_ids, "channelIds") or (),
        )
        return MonitorPayload(monitor=await keeping.create_monitor(info.context.actor, new, input.idempotency_key))

    @mutation(Permission.MONITORS_MANAGE)
    async def update_monitor(info: Info, input: UpdateMonitorInput) -> MonitorPayload:
        """Change a monitor; for its owner and admins. Where it then watches something else, its incidents are over."""
        row = await keeping.update_monitor(info.context.actor, _monitor(input), _changes(input))
        return MonitorPayload(monitor=row)

    @mutation(Permission.MONITORS_MANAGE)
    async def pause_monitor(info: Info, input: PauseMonitorInput) -> MonitorPayload:
        """Evaluate a monitor no more until it is resumed. Its incidents are over."""
        row = await keeping.pause_monitor(info.context.actor, _monitor(input), input.reason)
        return MonitorPayload(monitor=row)

    @mutation(Permission.MONITORS_MANAGE)
    async def resume_monitor(info: Info, input: MonitorInput) -> MonitorPayload:
        """Evaluate a monitor again, from its next instant on."""
        return MonitorPayload(monitor=await keeping.resume_monitor(info.context.actor, _monitor(input)))

    @mutation(Permission.MONITORS_MANAGE)
    async def remove_monitor(info: Info, input: MonitorInput) -> MonitorPayload:
        """Remove a monitor. Its incidents are over, and can still be read."""
        return MonitorPayload(monitor=await keeping.remove_monitor(info.context.actor, _monitor(input)))

    @mutation(Permission.MONITORS_MANAGE)
    async def test_monitor(info: Info, input: MonitorInput) -> TestMonitorPayload:
        """Evaluate a monitor now without any effect, and see what it sees."""
        return await trying.try_monitor(info.context.actor, _monitor(input))

    @mutation(Permission.MONITORS_MANAGE)
    async def test_fire_monitor(info: Info, input: MonitorInput) -> TestFireMonitorPayload:
        """Send an alert that says that it is a test by all ways of a monitor, and see what became of it. Up to 10
        a minute to channels."""
        fired = await trying.test_fire(info.context.actor, _monitor(input))
        users = await users_by_ids(info.context.actor, fired.user_ids)
        return TestFireMonitorPayload(notified_users=users, deliveries=fired.deliveries)

    @mutation(Permission.MONITORS_MANAGE)
    async def acknowledge_incident(info: Info, input: AcknowledgeIncidentInput) -> IncidentPayload:
        """Say that you see to an incident. It is not told again until it is over."""
        row = await incidents.acknowledge(
            info.context.actor, decode("inc", input.incident_id, field="incidentId"), input.note
        )
        return IncidentPayload(incident=row)

    @mutation(Permission.MONITORS_MANAGE)
    async def create_silence(info: Info, input: CreateSilenceInput) -> SilencePayload:
        """Let incidents not be told for a while. As an admin: those of everybody's monitors, else of your own."""
        monitor_id = decode("mon", input.monitor_id, field="monitorId") if input.monitor_id else None
        new = silences.NewSilence(monitor_id, _labels(input.labels), input.reason, input.starts_at, input.ends_at)
        return SilencePayload(silence=await silences.create_silence(info.context.actor, new, input.idempotency_key))

    @mutation(Permission.MONITORS_MANAGE)
    async def end_silence(info: Info, input: EndSilenceInput) -> SilencePayload:
        """End a silence before its time. What still fires is told."""
        id_ = decode("sil", input.silence_id, field="silenceId")
        return SilencePayload(silence=await silences.end_silence(info.context.actor, id_))

    @mutation(Permission.MONITORS_MANAGE)
    async def create_alert_channel(info: Info, input: CreateAlertChannelInput) -> AlertChannelSecretPayload:
        """Make a channel. A webhook's secret is shown once."""
        new = channels.NewChannel(input.name, input.kind, input.url, input.authorization)
        made = await channels.create_channel(info.context.actor, new, input.idempotency_key)
        return await _with_secret(info, made)

    @mutation(Permission.MONITORS_MANAGE)
    async def update_alert_channel(info: Info, input: UpdateAlertChannelInput) -> AlertChannelPayload:
        """Change a channel, disable it, or enable it again; for its owner and admins."""
        changes = channels.ChannelChanges(input.name, input.url, input.authorization, input.enabled)
        row = await channels.update_channel(info.context.actor, _channel(input), changes)
        return AlertChannelPayload(channel=await reads.channel(info.context.actor, row["id"]))

    @mutation(Permission.MONITORS_MANAGE)
    async def rotate_alert_channel_secret(info: Info, input: AlertChannelInput) -> AlertChannelSecretPayload:
        """A new secret for a webhook. For 24 hours, deliveries are signed with the one of before as well."""
        return await _with_secret(info, await channels.rotate_secret(info.context.actor, _channel(input)))

    @mutation(Permission.MONITORS_MANAGE)
    async def remove_alert_channel(info: Info, input: AlertChannelInput) -> AlertChannelPayload:
        """Remove a channel, from all monitors too. What waits for it is not sent any more."""
        before = await reads.channel(info.context.actor, _channel(input))
        await channels.remove_channel(info.context.actor, _channel(input))
        return AlertChannelPayload(channel=before)

    @mutation(Permission.MONITORS_MANAGE)
    async def retry_alert_delivery(info: Info, input: AlertDeliveryInput) -> AlertDeliveryPayload:
        """Send once more what was given up."""
        id_ = decode("ald", input.delivery_id, field="deliveryId")
        return AlertDeliveryPayload(delivery=await channels.send_again(info.context.actor, id_))


async def _with_secret(info: Info, made: channels.WithSecret) -> AlertChannelSecretPayload:
    row = await reads.channel(info.context.actor, made.channel["id"])
    return AlertChannelSecretPayload(channel=row, secret=made.secret)


def _changes(input: UpdateMonitorInput) -> dict[str, Any]:
    """What is given, by the fields of a definition. Raises BadInput for null where there must be something."""
    convert: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "condition": ("condition", lambda given: given.checked()),
        "filter": ("filter", _filter),
        "labels": ("labels", _labels),
        "renotify_every_seconds": ("renotify_seconds", lambda given: given),
        "notify_user_ids": ("notify_user_ids", lambda given: decode_ids("User", given, "notifyUserIds")),
        "channel_ids": ("channel_ids", lambda given: decode_ids("AlertChannel", given, "channelIds")),
    }
    for_null: dict[str, Any] = {
        "description": "",
        "filter": {},
        "group_by": None,
        "recovery": None,
        "renotify_every_seconds": None,
        "labels": {},
        "notify_user_ids": None,
        "channel_ids": (),
    }
    changes: dict[str, Any] = {}
    for name, given in vars(input).items():
        if name == "monitor_id" or given is strawberry.UNSET:
            continue
        field, make = convert.get(name, (name, lambda given: given))
        if given is not None:
            changes[field] = make(given)
        elif name in for_null:
            changes[field] = for_null[name]
    return changes


def _filter(given: list[MonitorDimensionInput]) -> dict[str, list[str | None]]:
    found = {one.dimension: one.values for one in given}
    if len(found) != len(given):
        raise BadInput("Name each dimension once.", field="filter")
    return found


def _labels(given: list[LabelInput]) -> dict[str, str]:
    found = {one.name: one.value for one in given}
    if len(found) != len(given):
        raise BadInput("Name each label once.", field="labels")
    return found


def _monitor(input: Any) -> Any:
    return decode("mon", input.monitor_id, field="monitorId")


def _channel(input: Any) -> Any:
    return decode("alc", input.channel_id, field="channelId")
