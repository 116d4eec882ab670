"""Sending alerts to channels: claimed by any worker, sent outside of transactions, tried again for a day, then given up
where it can be seen and sent again.

At least once, with the same id at every attempt. Of one incident, a channel is told in order: that it is over never
goes out before that it began. What an Alertmanager was told stands: it is said again every minute, until it is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from core import clock, db
from core.ids import encode
from integrations.alerts.base import Alert, NotTaken, Target
from models.base import Row
from models.monitors import AlertChannelKind, AlertChannelRow, AlertDeliveryStatus, AlertKind
from models.notifications import NotificationKind
from services.identity.actors import system_actor
from services.monitors.alerts import ALERTS, TYPES
from services.outbox import Loop, retry_after
from services.parts import parts
from services.work import Work, write

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Alerts that one worker has in hand."""
AT_ONCE_OF_CHANNEL = 2
AT_ONCE_OF_ORGANIZATION = 8
"""Of all workers together, so that somebody else's find room."""
SEND_SECONDS = 30.0
LEASE_SECONDS = 90
REPEAT_SECONDS = 60.0
"""How often an Alertmanager is told what lasts."""
FAILURES_TO_DISABLE = 10
FAILING_TO_DISABLE = timedelta(days=1)
LONGEST_ERROR = 500
_LOOK_SECONDS = 0.5
"""How often it is looked for more while something is in hand."""
_STOP_SECONDS = 5.0

# Whose receivers are slow keeps neither other channels nor other organisations waiting: what is in hand of them counts.
# An organisation has another place only where more are free than it has in hand: so some are left for whoever has none.
_CLAIM = f"""
WITH busy AS MATERIALIZED (
    SELECT channel_id, organization_id FROM alert_deliveries
    WHERE status IN ('PENDING', 'STANDING') AND claimed_until > now() AND claim > 0
), due AS MATERIALIZED (
    SELECT mine.id, mine.organization_id, mine.next_attempt_at,
        row_number() OVER (PARTITION BY mine.channel_id ORDER BY mine.next_attempt_at, mine.id)
            + (SELECT count(*) FROM busy WHERE busy.channel_id = mine.channel_id) AS of_channel
    FROM alert_deliveries AS mine JOIN alert_channels ON alert_channels.id = mine.channel_id
    WHERE mine.status IN ('PENDING', 'STANDING') AND mine.next_attempt_at <= now()
        AND (mine.claimed_until IS NULL OR mine.claimed_until < now())
        AND alert_channels.status = 'ACTIVE' AND alert_channels.removed_at IS NULL
        AND NOT EXISTS (
            SELECT FROM alert_deliveries AS before WHERE before.incident_id = mine.incident_id
            AND before.channel_id = mine.channel_id AND before.id < mine.id
            AND (before.status = 'PENDING' OR before.claimed_until > now())
        )
), shares AS MATERIALIZED (
    SELECT id, next_attempt_at, row_number() OVER (PARTITION BY organization_id ORDER BY next_attempt_at, id)
        + (SELECT count(*) FROM busy WHERE busy.organization_id = due.organization_id) AS of_organization
    FROM due WHERE of_channel <= {AT_ONCE_OF_CHANNEL}
), chosen AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY of_organization, next_attempt_at, id) AS place
    FROM shares WHERE of_organization <= {AT_ONCE_OF_ORGANIZATION}
)
UPDATE alert_deliveries SET attempts = attempts + 1, claim = claim + 1,
    claimed_until = now() + {LEASE_SECONDS} * interval '1 second'
WHERE id IN (
    SELECT mine.id FROM alert_deliveries AS mine JOIN chosen ON chosen.id = mine.id
    WHERE (chosen.of_organization = 1 OR chosen.of_organization + chosen.place <= $1)
        AND mine.status IN ('PENDING', 'STANDING') AND (mine.claimed_until IS NULL OR mine.claimed_until < now())
    ORDER BY chosen.place LIMIT $1 FOR UPDATE OF mine SKIP LOCKED
) RETURNING *
"""
_CLAIM_ONE = f"""
UPDATE alert_deliveries SET attempts = attempts + 1, claim = claim + 1,
    claimed_until = now() + {LEASE_SECONDS} * interval '1 second' WHERE id = $1 RETURNING *
"""


class AlertDeliverer(Loop):
    """Runs in every worker. What is in hand is not waited for before more is taken."""

    def __init__(self) -> None:
        super().__init__("deliverer of alerts", self._tick, woken_by=ALERTS)
        self._in_hand: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """End when what is in hand is done, or after a few seconds: then its claims run out."""
        await super().stop()
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_STOP_SECONDS)
        left = list(self._in_hand)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _tick(self) -> int:
        claimed = []
        if len(self._in_hand) < AT_ONCE:
            claimed = await _claim(AT_ONCE - len(self._in_hand))
        for row in claimed:
            task = asyncio.create_task(_deliver(row))
            self._in_hand.add(task)
            task.add_done_callback(self._in_hand.discard)
        if not claimed and self._in_hand:
            await asyncio.wait(self._in_hand, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return 1
        return len(claimed)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one attempt."""

    error: str | None
    response_status: int | None
    gone: bool = False


async def deliver_alerts_once() -> int:
    """Send what is due, up to AT_ONCE; returns how many were in hand."""
    claimed = await _claim(AT_ONCE)
    await asyncio.gather(*(_deliver(row) for row in claimed))
    return len(claimed)


async def _claim(most: int) -> list[Row]:
    return await db.fetch(_CLAIM, most, row=Row)


async def send_now(delivery_id: UUID) -> None:
    """Send one alert at once, and note what became of it."""
    row = await db.fetchrow(_CLAIM_ONE, delivery_id, row=Row)
    if row is not None:
        await _deliver(row)


async def _deliver(delivery: Row) -> None:
    try:
        channel = await db.fetchrow(
            "SELECT * FROM alert_channels WHERE id = $1", delivery["channel_id"], row=AlertChannelRow
        )
        assert channel is not None
        await _note(delivery, await _send(channel, delivery))
    except Exception:
        # One channel's trouble is not the others'. The claim runs out, and it is tried again.
        logger.exception("%s could not be delivered.", encode("ald", delivery["id"]))


async def _send(channel: AlertChannelRow, delivery: Row) -> Sent:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            status = await parts().alert_senders[channel["kind"]].send(target_of(channel), _alert(delivery))
        return Sent(None, status)
    except NotTaken as problem:
        return Sent(str(problem).replace("\0", "")[:LONGEST_ERROR], problem.status, problem.gone)
    except TimeoutError:
        return Sent(f"No answer within {SEND_SECONDS:g} seconds.", None)


async def _note(delivery: Row, sent: Sent) -> None:
    """What became of an attempt; nothing where another worker has claimed it since."""
    async with write(system_actor(delivery["organization_id"]), None) as work:
        lasts = False
        if delivery["incident_id"] is not None:
            # Held, so that the incident does not end while this decides that it lasts.
            state = await work.tx.fetchval(
                "SELECT state FROM monitor_incidents WHERE id = $1 FOR SHARE", delivery["incident_id"]
            )
            lasts = state == "FIRING" and delivery["kind"] != AlertKind.RESOLVED
        channel = await work.tx.fetchrow(
            "SELECT * FROM alert_channels WHERE id = $1 FOR NO KEY UPDATE", delivery["channel_id"], row=AlertChannelRow
        )
        assert channel is not None
        now = await work.tx.fetchval("SELECT now()")
        stands = lasts and channel["kind"] == AlertChannelKind.ALERTMANAGER
        status, wait = _outcome(delivery, sent, now, stands=stands)
        noted = await work.tx.fetchval(
            "UPDATE alert_deliveries SET "
            "status = CASE WHEN status IN ('PENDING', 'STANDING') THEN $3::text ELSE status END, "
            "next_attempt_at = now() + $4 * interval '1 second', "
            "claimed_until = NULL, last_error = $5, response_status = $6, "
            "attempts = CASE WHEN $3::text = 'STANDING' AND $5::text IS NULL THEN 0 ELSE attempts END, "
            "sent_at = CASE WHEN $5::text IS NULL THEN now() ELSE sent_at END "
            "WHERE id = $1 AND claim = $2 RETURNING 1",
            delivery["id"],
            delivery["claim"],
            status.value,
            wait,
            sent.error,
            sent.response_status,
        )
        if noted is None and sent.error is not None:
            return
        if sent.error is None:
            await work.tx.execute(
                "UPDATE alert_channels SET failures = 0, failing_since = NULL WHERE id = $1 AND failures > 0",
                channel["id"],
            )
        elif delivery["kind"] != AlertKind.TEST:
            await _failed(work, channel, sent, now)


def _outcome(delivery: Row, sent: Sent, now: datetime, *, stands: bool) -> tuple[AlertDeliveryStatus, float]:
    """The next status, and the seconds until the next attempt."""
    if sent.error is None:
        return (AlertDeliveryStatus.STANDING, REPEAT_SECONDS) if stands else (AlertDeliveryStatus.SENT, 0.0)
    if delivery["kind"] == AlertKind.TEST or sent.gone:
        return AlertDeliveryStatus.FAILED, 0.0
    wait = retry_after(delivery["attempts"])
    if stands:
        # It must know soon once it is back.
        wait = min(wait, REPEAT_SECONDS)
    if delivery["status"] == AlertDeliveryStatus.STANDING:
        return (AlertDeliveryStatus.STANDING, wait) if stands else (AlertDeliveryStatus.SENT, 0.0)
    if now + timedelta(seconds=wait) > delivery["give_up_at"]:
        return AlertDeliveryStatus.FAILED, 0.0
    return AlertDeliveryStatus.PENDING, wait


async def _failed(work: Work, channel: AlertChannelRow, sent: Sent, now: datetime) -> None:
    """One more failure in a row. A channel that took nothing for a day is disabled, and its owner told."""
    since = channel["failing_since"] or now
    failures = channel["failures"] + 1
    await work.tx.execute(
        "UPDATE alert_channels SET failures = $2, failing_since = $3 WHERE id = $1", channel["id"], failures, since
    )
    if channel["status"] == "DISABLED" or not (
        sent.gone or (failures >= FAILURES_TO_DISABLE and now - since >= FAILING_TO_DISABLE)
    ):
        return
    why = "It answered that it is gone." if sent.gone else f"It took nothing since {since:%Y-%m-%d %H:%M} UTC."
    await disable(work, channel, f"{why} {sent.error}")
    work.entry.action = "alert_channel.disable"
    work.target("AlertChannel", channel["id"], channel["name"])
    work.changed(after={"status": "DISABLED", "reason": why})
    work.notify(
        NotificationKind.MONITOR,
        [channel["owner_id"]],
        f"Alert channel disabled: {channel['name']}",
        body=f"{why} Alerts that it did not take can be sent again once it is enabled.",
        subject=("AlertChannel", channel["id"]),
    )


async def disable(work: Work, channel: AlertChannelRow, reason: str) -> None:
    """Use a channel no more; what waits for it is given up, and can be sent again."""
    await work.tx.execute(
        "UPDATE alert_channels SET status = 'DISABLED', disabled_reason = $2, updated_at = $3 WHERE id = $1",
        channel["id"],
        reason[:LONGEST_ERROR],
        work.at,
    )
    await work.tx.execute(
        "UPDATE alert_deliveries SET status = 'FAILED', claimed_until = NULL, "
        "last_error = coalesce(last_error, 'The channel was disabled.') "
        "WHERE channel_id = $1 AND status IN ('PENDING', 'STANDING')",
        channel["id"],
    )


def target_of(channel: AlertChannelRow) -> Target:
    """Where a channel is, with its secrets opened."""
    former = channel["former_secret_sealed"]
    holds = former is not None and channel["former_until"] is not None and channel["former_until"] > clock.now()
    return Target(
        channel["url"],
        None if channel["secret_sealed"] is None else _opened(channel, channel["secret_sealed"]),
        _opened(channel, former) if holds else None,
    )


def purpose(channel_id: UUID) -> str:
    """What a channel's secrets are sealed for."""
    return f"alert_channel:{channel_id}"


def _opened(channel: AlertChannelRow, sealed: bytes) -> str:
    return str(parts().vault.open(sealed, purpose=purpose(channel["id"])))


def _alert(delivery: Row) -> Alert:
    told: Mapping[str, Any] = delivery["alert"]
    return Alert(
        id=f"msg_{encode('ald', delivery['id'])}",
        type=TYPES[AlertKind(delivery["kind"])],
        at=datetime.fromisoformat(told["at"]),
        title=told["title"],
        summary=told["summary"],
        labels=told["labels"],
        starts_at=datetime.fromisoformat(told["startsAt"]),
        ends_at=datetime.fromisoformat(told["endsAt"]) if told["endsAt"] else None,
        link=told["link"],
        data=told["data"],
    )
