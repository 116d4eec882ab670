"""What is told of an incident, to people and to channels; written in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core.ids import encode, new_id
from models.base import Row
from models.monitors import (
    AlertChannelKind,
    AlertKind,
    IncidentEventKind,
    MonitorConditionKind,
    MonitorIncidentRow,
    MonitorRow,
)
from models.notifications import NotificationKind
from services.metrics.labels import to_graph
from services.monitors import conditions
from services.parts import parts
from services.work import Work

ALERTS = "alerts"
"""The bus channel that wakes the workers which send alerts."""
GIVE_UP_AFTER = timedelta(days=1)
HELD = timedelta(seconds=90)
"""A test is sent by whoever asked for it; by the workers only where that process is gone."""
MOST_NOTICES = 3
"""Notices of one evaluation to one person; more incidents than these are told in one."""

TYPES = {
    AlertKind.FIRING: "incident.firing",
    AlertKind.STILL_FIRING: "incident.still_firing",
    AlertKind.RESOLVED: "incident.resolved",
    AlertKind.TEST: "monitor.test",
}
_WORDS = {AlertKind.FIRING: "Firing", AlertKind.STILL_FIRING: "Still firing", AlertKind.RESOLVED: "Resolved"}


def labels_of(monitor: MonitorRow, group_label: str | None) -> dict[str, str]:
    """What an incident is known by: the monitor's own labels cannot take the place of these."""
    found = {
        **monitor["labels"],
        "alertname": monitor["name"],
        "monitor": encode("mon", monitor["id"]),
        "metric": monitor["metric"],
        "severity": monitor["severity"].lower(),
    }
    if monitor["group_by"] is not None:
        found[monitor["group_by"]] = to_graph(monitor["group_by"], group_label) or "none"
    return found


def condition_of(monitor: MonitorRow) -> conditions.Condition:
    """What the monitor asks."""
    return conditions.restored(monitor["condition_kind"], monitor["condition"])


def summary_of(monitor: MonitorRow, value: float | None, explanation: str | None) -> str:
    """One paragraph: what was seen, and what was asked."""
    condition = condition_of(monitor)
    seen = "has no value" if value is None else f"is {value:.6g}"
    over = (
        ""
        if monitor["condition_kind"] in (MonitorConditionKind.ABSENCE, MonitorConditionKind.BUDGET_BURN)
        else f" over {conditions.duration(monitor['window_seconds'])}"
    )
    text = f"{monitor['metric']} {seen}{over}; the monitor asks for {conditions.describe(condition)}."
    return f"{text} {explanation}" if explanation else text


async def tell(
    work: Work, monitor: MonitorRow, told: Sequence[tuple[MonitorIncidentRow, AlertKind]], at: datetime
) -> None:
    """Tell of incidents, each as what it now is: into inboxes, and to the monitor's channels."""
    _notify(work, monitor, told, await recipients(work, monitor))
    channels = await work.tx.fetch(
        "SELECT id, kind FROM alert_channels WHERE id = ANY($1) AND removed_at IS NULL AND status = 'ACTIVE' "
        "AND organization_id = $2",
        monitor["channel_ids"],
        monitor["organization_id"],
        row=Row,
    )
    before = await work.tx.fetch(
        "SELECT DISTINCT incident_id, alert_channels.id, alert_channels.kind FROM alert_deliveries "
        "JOIN alert_channels ON alert_channels.id = channel_id AND removed_at IS NULL AND alert_channels.status = "
        "'ACTIVE' WHERE incident_id = ANY($1) AND alert_deliveries.kind <> 'RESOLVED'",
        [incident["id"] for incident, _ in told],
        row=Row,
    )
    heard: dict[UUID, dict[UUID, str]] = {}
    for row in before:
        heard.setdefault(row["incident_id"], {})[row["id"]] = row["kind"]
    deliveries: list[tuple[UUID, MonitorIncidentRow, AlertKind]] = []
    for incident, kind in told:
        already = heard.get(incident["id"], {})
        if kind is AlertKind.RESOLVED:
            # Whoever was told that it began is told that it is over, and nobody else.
            deliveries += [(channel_id, incident, kind) for channel_id in already]
            continue
        for channel in channels:
            # An Alertmanager is told all the time, and repeats to people by its own rules.
            if channel["kind"] != AlertChannelKind.ALERTMANAGER or channel["id"] not in already:
                deliveries.append((channel["id"], incident, kind))
    await enqueue(work, monitor, deliveries, at)
    over = [incident["id"] for incident, kind in told if kind is AlertKind.RESOLVED]
    if over:
        await work.tx.execute(
            "UPDATE alert_deliveries SET status = 'SENT' WHERE incident_id = ANY($1) AND status = 'STANDING'", over
        )


async def enqueue(
    work: Work,
    monitor: MonitorRow,
    deliveries: Iterable[tuple[UUID, MonitorIncidentRow | None, AlertKind]],
    at: datetime,
    *,
    alert: Mapping[str, Any] | None = None,
) -> list[UUID]:
    """Queue alerts for channels; `alert` where it is not an incident's. The ids of the deliveries."""
    rows = [
        (
            new_id(),
            monitor["organization_id"],
            channel_id,
            monitor["id"],
            incident["id"] if incident is not None else None,
            kind.value,
            alert if alert is not None or incident is None else alert_of(monitor, incident, kind, at),
            GIVE_UP_AFTER,
            HELD if kind is AlertKind.TEST else None,
        )
        for channel_id, incident, kind in deliveries
    ]
    if rows:
        await work.tx.executemany(
            "INSERT INTO alert_deliveries (id, organization_id, channel_id, monitor_id, incident_id, kind, alert, "
            "status, attempts, claim, next_attempt_at, give_up_at, claimed_until, created_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, 'PENDING', 0, 0, now(), now() + $8::interval, "
            "now() + $9::interval, now())",
            rows,
        )
        work.after_commit(announce)
    return [row[0] for row in rows]


async def announce() -> None:
    """Wake the workers that send alerts."""
    await parts().bus.publish(ALERTS, {})


def alert_of(monitor: MonitorRow, incident: MonitorIncidentRow, kind: AlertKind, at: datetime) -> dict[str, Any]:
    """What channels are told: JSON."""
    id_ = encode("inc", incident["id"])
    return {
        "title": f"{_WORDS[kind]}: {incident['title']}",
        "summary": incident["resolution"] if kind is AlertKind.RESOLVED else incident["summary"],
        "at": at.isoformat(),
        "startsAt": incident["opened_at"].isoformat(),
        "endsAt": incident["resolved_at"].isoformat() if incident["resolved_at"] else None,
        "labels": {**incident["labels"], "incident": id_},
        "link": f"{parts().settings.base_url}/graphql#{id_}",
        "data": {
            "incident": {
                "id": id_,
                "state": incident["state"],
                "title": incident["title"],
                "group": to_graph(monitor["group_by"], incident["group_label"]) if monitor["group_by"] else None,
                "groupName": incident["group_name"],
                "openedAt": incident["opened_at"].isoformat(),
                "resolvedAt": incident["resolved_at"].isoformat() if incident["resolved_at"] else None,
                "resolution": incident["resolution"],
                "openingValue": incident["opening_value"],
                "value": incident["value"],
                "summary": incident["summary"],
                "severity": incident["severity"],
                "labels": incident["labels"],
            },
            "monitor": described(monitor),
        },
    }


def described(monitor: MonitorRow) -> dict[str, Any]:
    """A monitor as alerts tell of it."""
    return {
        "id": encode("mon", monitor["id"]),
        "name": monitor["name"],
        "metric": monitor["metric"],
        "windowSeconds": monitor["window_seconds"],
        "condition": conditions.describe(condition_of(monitor)),
    }


async def recipients(work: Work, monitor: MonitorRow) -> list[UUID]:
    """Who is told in their inbox. Of what is about people only admins, as they are now, and the owner where it is about
    them alone."""
    if not monitor["about_people"]:
        return list(monitor["notify_user_ids"])
    rows = await work.tx.fetch(
        "SELECT id FROM users WHERE id = ANY($1) AND (id = $2 AND NOT $3 OR role IN ('OWNER', 'ADMIN'))",
        monitor["notify_user_ids"],
        monitor["owner_id"],
        monitor["organization_wide"],
    )
    return [row["id"] for row in rows]


def _notify(
    work: Work,
    monitor: MonitorRow,
    told: Sequence[tuple[MonitorIncidentRow, AlertKind]],
    user_ids: Sequence[UUID],
) -> None:
    for kind in AlertKind:
        of_kind = [incident for incident, its in told if its is kind]
        if len(of_kind) > MOST_NOTICES:
            titles = [incident["group_name"] or "none" for incident in of_kind]
            shown = ", ".join(titles[:20]) + (f" and {len(titles) - 20} more" if len(titles) > 20 else "")
            title = f"{_WORDS[kind]}: {monitor['name']} ({len(of_kind)} of {monitor['group_by']})"
            subject = ("Monitor", monitor["id"])
            work.notify(
                NotificationKind.MONITOR, user_ids, title, body=shown, subject=subject, author=monitor["owner_id"]
            )
            continue
        for incident in of_kind:
            body = incident["resolution"] if kind is AlertKind.RESOLVED else incident["summary"]
            work.notify(
                NotificationKind.MONITOR,
                user_ids,
                f"{_WORDS[kind]}: {incident['title']}",
                body=body or "",
                subject=("MonitorIncident", incident["id"]),
                author=monitor["owner_id"],
            )


async def note(
    work: Work,
    incident_id: UUID,
    kind: IncidentEventKind,
    at: datetime,
    *,
    value: float | None = None,
    text: str | None = None,
    actor_id: UUID | None = None,
) -> None:
    """Add a point to an incident's timeline."""
    await work.tx.execute(
        "INSERT INTO monitor_incident_events (id, incident_id, at, kind, value, note, actor_id) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)",
        new_id(),
        incident_id,
        at,
        kind.value,
        value,
        text,
        actor_id,
    )
