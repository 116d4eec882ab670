"""Sending what is to leave the house: claimed by any worker, sent outside of transactions, tried again, given up.

At least once: a worker that dies between sending and noting it leaves its claim, and after LEASE_SECONDS another one
sends again, with the same envelope id. Otherwise nothing is sent twice, however many workers there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_OID, UUID, uuid5

from core import db
from core.ids import encode
from integrations.notify.base import Envelope, NotDelivered, Notice, Recipient, Undeliverable
from models.base import Row
from services.notifications.recipients import IS_PARTY, SEES_SESSION
from services.notifications.telling import DELIVERIES
from services.outbox import Loop, retry_after
from services.parts import parts

logger = logging.getLogger(__name__)

AT_ONCE = 8
"""Envelopes one worker has in hand."""
SEND_SECONDS = 60.0
LEASE_SECONDS = 120
MOST_ATTEMPTS = 10
MOST_IN_A_DIGEST = 50

_DIGEST_LOCK = 0x64696765
"""Advisory lock of whoever puts digests together: two workers at it would send a user two."""

_FREE = "status = 'PENDING' AND (claimed_until IS NULL OR claimed_until < now()) AND channel = ANY($1)"
_CLAIM = "UPDATE notification_deliveries SET attempts = attempts + 1, claimed_until = now() + $2 * interval '1 second' "
_CLAIM_SINGLE = f"""
{_CLAIM} WHERE id IN (
    SELECT id FROM notification_deliveries WHERE {_FREE} AND NOT digest AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
) RETURNING id, user_id, channel, attempts
"""
# Whoever has something due gets all that waits for their digest, also what came a moment ago.
_CLAIM_DIGESTS = f"""
{_CLAIM} FROM (
    SELECT user_id, channel FROM notification_deliveries WHERE {_FREE} AND digest AND next_attempt_at <= now()
    GROUP BY user_id, channel ORDER BY min(next_attempt_at) LIMIT $3
) AS due
WHERE notification_deliveries.user_id = due.user_id AND notification_deliveries.channel = due.channel
    AND digest AND status = 'PENDING' AND (claimed_until IS NULL OR claimed_until < now())
    AND (attempts = 0 OR next_attempt_at <= now())
RETURNING id, notification_deliveries.user_id, notification_deliveries.channel, attempts
"""
# What has become unnecessary, or must not be told any more, is said in `skip`.
_LOAD = f"""
SELECT deliveries.id AS delivery_id, notifications.id, notifications.kind, notifications.title, notifications.body,
       notifications.created_at, notifications.session_id, users.name, users.email,
       CASE WHEN users.deactivated_at IS NOT NULL THEN 'The user has been deactivated.'
            WHEN users.email IS NULL THEN 'The user has no address.'
            WHEN notifications.read_at IS NOT NULL THEN 'It had been read.'
            WHEN notifications.subject_kind = 'AnnotationComment' AND NOT EXISTS (
                SELECT FROM annotation_comments AS comments
                WHERE comments.id = notifications.subject_id AND comments.deleted_at IS NULL
            ) THEN 'The comment was deleted.'
            WHEN preferences.email = 'OFF' THEN 'The user wants no mail of this kind any more.'
            WHEN NOT (notifications.session_id IS NULL OR {SEES_SESSION} OR {IS_PARTY.format(subject="notifications")})
                THEN 'The user may not see the session any more.'
       END AS skip
FROM notification_deliveries AS deliveries
JOIN notifications ON notifications.id = deliveries.notification_id
JOIN users ON users.id = deliveries.user_id
LEFT JOIN sessions ON sessions.id = notifications.session_id
LEFT JOIN notification_preferences AS preferences
    ON preferences.user_id = users.id AND preferences.kind = notifications.kind
WHERE deliveries.id = ANY($1) ORDER BY notifications.id
"""
# A claim that ran out may be another worker's now: its number of attempts tells.
_NOTE = """
UPDATE notification_deliveries SET status = noted.status, last_error = noted.error, claimed_until = NULL,
    next_attempt_at = now() + noted.wait * interval '1 second',
    sent_at = CASE WHEN noted.status = 'SENT' THEN now() END
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::float8[]) AS noted (id, attempt, status, error, wait)
WHERE notification_deliveries.id = noted.id AND notification_deliveries.attempts = noted.attempt
    AND notification_deliveries.status = 'PENDING'
"""


@dataclass(frozen=True, slots=True)
class _Claim:
    id: UUID
    attempt: int


@dataclass(frozen=True, slots=True)
class _Outcome:
    status: str
    error: str | None = None
    wait: float = 0.0


class Deliverer(Loop):
    """Runs in every worker that has a notifier."""

    def __init__(self) -> None:
        super().__init__("notification deliverer", deliver_once, woken_by=DELIVERIES)


async def deliver_once() -> int:
    """Send what is due, up to AT_ONCE envelopes of each sort; returns how many deliveries were in hand."""
    channels = list(parts().notifiers)
    single = await db.fetch(_CLAIM_SINGLE, channels, LEASE_SECONDS, AT_ONCE, row=Row)
    digests: dict[tuple[UUID, str], list[_Claim]] = {}
    for row in await _claim_digests(channels):
        digests.setdefault((row["user_id"], row["channel"]), []).append(_Claim(row["id"], row["attempts"]))
    parcels = [
        *((row["user_id"], row["channel"], [_Claim(row["id"], row["attempts"])]) for row in single),
        *((user_id, channel, claims) for (user_id, channel), claims in digests.items()),
    ]
    await asyncio.gather(*(_deliver(*parcel) for parcel in parcels))
    return sum(len(claims) for _, _, claims in parcels)


async def _claim_digests(channels: list[str]) -> list[Row]:
    async with db.transaction() as tx:
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1)", _DIGEST_LOCK):
            return []
        # A statement of its own, so that it sees what the lock's last holder claimed.
        return await tx.fetch(_CLAIM_DIGESTS, channels, LEASE_SECONDS, AT_ONCE, row=Row)


async def _deliver(user_id: UUID, channel: str, claims: Sequence[_Claim]) -> None:
    attempts = {claim.id: claim.attempt for claim in claims}
    try:
        outcomes: dict[UUID, _Outcome] = {}
        wanted: list[Row] = []
        for row in await db.fetch(_LOAD, list(attempts), row=Row):
            if row["skip"] is not None:
                outcomes[row["delivery_id"]] = _Outcome("SKIPPED", row["skip"])
            elif attempts[row["delivery_id"]] > MOST_ATTEMPTS:
                outcomes[row["delivery_id"]] = _Outcome("FAILED", "Workers stopped while they were sending it.")
            else:
                wanted.append(row)
        if wanted:
            error = await _send(channel, _envelope(user_id, wanted))
            # In a digest each has been tried as often as it was there.
            outcomes |= {row["delivery_id"]: _outcome(error, attempts[row["delivery_id"]]) for row in wanted}
        await db.execute(
            _NOTE,
            list(outcomes),
            [attempts[id_] for id_ in outcomes],
            [outcome.status for outcome in outcomes.values()],
            [outcome.error for outcome in outcomes.values()],
            [outcome.wait for outcome in outcomes.values()],
        )
    except Exception:
        # One user's trouble is not the others'. The claim runs out, and it is tried again.
        logger.exception("Notifications of user %s could not be delivered.", encode("usr", user_id))


async def _send(channel: str, envelope: Envelope) -> NotDelivered | None:
    """What kept it from going out; None where nothing did."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await parts().notifiers[channel].send(envelope)
    except NotDelivered as error:
        logger.warning("A notification did not go out by %s: %s", channel, error)
        return error
    except TimeoutError:
        return NotDelivered("no answer in time")
    return None


def _outcome(error: NotDelivered | None, attempt: int) -> _Outcome:
    if error is None:
        return _Outcome("SENT")
    reason = str(error).replace("\0", "")[:500]
    if isinstance(error, Undeliverable) or attempt >= MOST_ATTEMPTS:
        return _Outcome("FAILED", reason)
    return _Outcome("PENDING", reason, retry_after(attempt))


def _envelope(user_id: UUID, rows: Sequence[Row]) -> Envelope:
    shown = rows[-MOST_IN_A_DIGEST:]
    ids = sorted(str(row["delivery_id"]) for row in rows)
    home = f"{parts().settings.base_url}/graphql"
    return Envelope(
        id=UUID(ids[0]) if len(ids) == 1 else uuid5(NAMESPACE_OID, " ".join(ids)),
        recipient=Recipient(user_id, rows[0]["name"], rows[0]["email"]),
        notices=[
            Notice(
                id=row["id"],
                kind=row["kind"],
                title=row["title"],
                body=row["body"],
                at=row["created_at"],
                link=f"{home}#{encode('ses', row['session_id']) if row['session_id'] else encode('ntf', row['id'])}",
            )
            for row in shown
        ],
        left_out=len(rows) - len(shown),
        preferences_link=f"{home}#notification-preferences",
    )
