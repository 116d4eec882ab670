"""Reads of monitors, incidents, silences, channels and deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core import db
from core.paging import Page
from core.permissions import Actor, Permission
from models.base import Query, Row
from models.identity import User, UserRow
from models.monitors import (
    AlertChannel,
    AlertChannelRow,
    AlertDelivery,
    AlertDeliveryRow,
    AlertDeliveryStatus,
    AlertSeverity,
    IncidentState,
    Monitor,
    MonitorEvaluationRow,
    MonitorGroupRow,
    MonitorIncident,
    MonitorIncidentEventRow,
    MonitorIncidentRow,
    MonitorRow,
    MonitorSilence,
    MonitorSilenceRow,
    MonitorState,
    MonitorStatus,
)
from resolvers import reading
from resolvers.reading import children, needing, parent, value_of
from services.metrics.labels import Label, Names, to_graph

CHANNEL_COLUMNS = (
    "id, organization_id, owner_id, name, kind, url, status, disabled_reason, failures, failing_since, former_until, "
    "secret_sealed IS NOT NULL AS has_secret, created_at, updated_at"
)
"""All but the secrets, which leave services/monitors with no row."""


@dataclass(frozen=True, slots=True)
class MonitorFilter:
    """Which monitors a list has. None takes everything."""

    states: Sequence[MonitorState] | None = None
    status: MonitorStatus | None = None
    metric: str | None = None
    mine_only: bool = False

    def conditions(self, query: Query, actor: Actor) -> list[str]:
        """The filter in SQL."""
        found = []
        if self.states is not None:
            found.append(f"monitors.state = ANY({query.arg([state.value for state in self.states])})")
        if self.status is not None:
            found.append(f"monitors.status = {query.arg(self.status.value)}")
        if self.metric is not None:
            found.append(f"monitors.metric = {query.arg(self.metric)}")
        if self.mine_only:
            found.append(f"monitors.owner_id = {query.arg(actor.user_id)}")
        return found


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """Which incidents a list, or a stream, has. None takes everything."""

    state: IncidentState | None = None
    monitor_id: UUID | None = None
    severities: Sequence[AlertSeverity] | None = None
    acknowledged: bool | None = None

    def conditions(self, query: Query) -> list[str]:
        """The filter in SQL."""
        found = []
        if self.state is not None:
            found.append(f"monitor_incidents.state = {query.arg(self.state.value)}")
        if self.monitor_id is not None:
            found.append(f"monitor_incidents.monitor_id = {query.arg(self.monitor_id)}")
        if self.severities is not None:
            found.append(f"monitor_incidents.severity = ANY({query.arg([one.value for one in self.severities])})")
        if self.acknowledged is not None:
            found.append(f"(monitor_incidents.acknowledged_at IS NOT NULL) = {query.arg(self.acknowledged)}")
        return found


async def monitor(actor: Actor, id_: UUID) -> MonitorRow | None:
    """A monitor, or None where the actor may not see it."""
    return await reading.find("monitors", MonitorRow, Monitor.visible_to(actor), id_)  # type: ignore[no-any-return]


async def monitors(actor: Actor, filter_: MonitorFilter, *, first: int | None, after: str | None) -> Page[MonitorRow]:
    """Monitors, the latest first."""
    return await reading.page(
        "monitors",
        MonitorRow,
        lambda query: [query.scope(Monitor.visible_to(actor)), *filter_.conditions(query, actor)],
        first=first,
        after=after,
    )


async def incident(actor: Actor, id_: UUID) -> MonitorIncidentRow | None:
    """An incident, or None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "monitor_incidents", MonitorIncidentRow, MonitorIncident.visible_to(actor), id_
    )


async def incidents(
    actor: Actor, filter_: IncidentFilter, *, first: int | None, after: str | None
) -> Page[MonitorIncidentRow]:
    """Incidents, the latest first."""
    return await reading.page(
        "monitor_incidents",
        MonitorIncidentRow,
        lambda query: [query.scope(MonitorIncident.visible_to(actor)), *filter_.conditions(query)],
        first=first,
        after=after,
    )


async def silence(actor: Actor, id_: UUID) -> MonitorSilenceRow | None:
    """A silence, or None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "monitor_silences", MonitorSilenceRow, MonitorSilence.visible_to(actor), id_
    )


async def silences(actor: Actor, *, living_only: bool, first: int | None, after: str | None) -> Page[MonitorSilenceRow]:
    """Silences, the latest first; those that are over are left out where `living_only`."""
    return await reading.page(
        "monitor_silences",
        MonitorSilenceRow,
        lambda query: [
            query.scope(MonitorSilence.visible_to(actor)),
            *(["monitor_silences.ended_at IS NULL AND monitor_silences.ends_at > now()"] if living_only else []),
        ],
        first=first,
        after=after,
    )


async def channel(actor: Actor, id_: UUID) -> AlertChannelRow | None:
    """A channel without its secrets, or None where the actor may not see it."""
    query = Query()
    return await db.fetchrow(
        f"SELECT {CHANNEL_COLUMNS} FROM alert_channels WHERE id = {query.arg(id_)} "
        f"AND {query.scope(AlertChannel.visible_to(actor))}",
        *query.args,
        row=AlertChannelRow,
    )


async def channels(actor: Actor, *, first: int | None, after: str | None) -> Page[AlertChannelRow]:
    """Channels, the oldest first."""
    return await reading.page(
        "alert_channels",
        AlertChannelRow,
        lambda query: [query.scope(AlertChannel.visible_to(actor))],
        first=first,
        after=after,
        descending=False,
        columns=CHANNEL_COLUMNS,
    )


async def delivery(actor: Actor, id_: UUID) -> AlertDeliveryRow | None:
    """A delivery, or None where the actor may not see it."""
    return await reading.find(  # type: ignore[no-any-return]
        "alert_deliveries", AlertDeliveryRow, AlertDelivery.visible_to(actor), id_
    )


def _metrics(batch: reading.Batch) -> reading.Batch:
    return needing(Permission.METRICS_READ, batch)


def _deliveries_filter(actor: Actor, args: dict[str, Any], query: Query) -> Sequence[str]:
    wanted: Sequence[AlertDeliveryStatus] | None = args.get("status")
    found = [query.scope(AlertDelivery.visible_to(actor))]
    if wanted is not None:
        found.append(f"alert_deliveries.status = ANY({query.arg([status.value for status in wanted])})")
    return found


def _newest(batch: reading.Batch) -> reading.Batch:
    async def newest(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
        return await batch(actor, parents, {**args, "newest_first": True})

    return newest


groups_of_monitors = _metrics(children("monitor_groups", MonitorGroupRow, "monitor_id", order="id"))
history_of_monitors = _metrics(_newest(children("monitor_evaluations", MonitorEvaluationRow, "monitor_id", order="at")))
incidents_of_monitors = _metrics(
    _newest(
        children(
            "monitor_incidents",
            MonitorIncidentRow,
            "monitor_id",
            order="id",
            filtered=lambda actor, args, query: [query.scope(MonitorIncident.visible_to(actor))],
        )
    )
)
timeline_of_incidents = _metrics(
    children("monitor_incident_events", MonitorIncidentEventRow, "incident_id", order="id")
)
deliveries_of_incidents = _metrics(
    children("alert_deliveries", AlertDeliveryRow, "incident_id", order="id", filtered=_deliveries_filter)
)
deliveries_of_channels = _metrics(
    _newest(children("alert_deliveries", AlertDeliveryRow, "channel_id", order="id", filtered=_deliveries_filter))
)
monitor_of = _metrics(parent("monitors", MonitorRow, "monitor_id", Monitor.visible_to))
incident_of = _metrics(parent("monitor_incidents", MonitorIncidentRow, "incident_id", MonitorIncident.visible_to))
channel_of = _metrics(
    parent("alert_channels", AlertChannelRow, "channel_id", AlertChannel.visible_to, columns=CHANNEL_COLUMNS)
)


async def _named(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    ids = {id_ for row in parents for id_ in value_of(row, "notify_user_ids")}
    if ids - {actor.user_id}:
        actor.require(Permission.MEMBERS_READ)
    found = await reading.by_ids("users", UserRow, User.visible_to(actor), ids)
    return [[found[id_] for id_ in value_of(row, "notify_user_ids") if id_ in found] for row in parents]


async def _channels(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    ids = {id_ for row in parents for id_ in value_of(row, "channel_ids")}
    scope = AlertChannel.visible_to(actor)
    found = await reading.by_ids("alert_channels", AlertChannelRow, scope, ids, columns=CHANNEL_COLUMNS)
    return [[found[id_] for id_ in value_of(row, "channel_ids") if id_ in found] for row in parents]


notified_by_monitors = _metrics(_named)
channels_of_monitors = _metrics(_channels)


async def _group_label(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What groups of monitors are: their dimension and value, with its name."""
    ids = {row["monitor_id"] for row in parents}
    dimensions: Mapping[UUID, str | None] = {
        row["id"]: row["group_by"]
        for row in await db.fetch("SELECT id, group_by FROM monitors WHERE id = ANY($1)", list(ids), row=Row)
    }
    names: dict[str, Names] = {}
    for dimension in {found for found in dimensions.values() if found is not None}:
        labels = [[row["label"]] for row in parents if dimensions.get(row["monitor_id"]) == dimension]
        names[dimension] = await Names.of(actor, [dimension], labels)
    found: list[Any] = []
    for row in parents:
        of = dimensions.get(row["monitor_id"])
        found.append(None if of is None else names[of].label(of, row["label"]))
    return found


label_of_groups = _metrics(_group_label)


async def _incident_group(actor: Actor, parents: Sequence[Any], args: dict[str, Any]) -> list[Any]:
    """What an incident is of, with the name that it had for the monitor's owner when it opened."""
    rows = await db.fetch(
        "SELECT id, group_by FROM monitors WHERE id = ANY($1)", list({row["monitor_id"] for row in parents}), row=Row
    )
    dimensions = {row["id"]: row["group_by"] for row in rows}
    found: list[Any] = []
    for row in parents:
        of = dimensions.get(row["monitor_id"])
        found.append(None if of is None else Label(of, to_graph(of, row["group_label"]), row["group_name"]))
    return found


group_of_incidents = _metrics(_incident_group)
