"""Writing notifications down, in the transaction of what they tell of: one statement for all of a write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from core import db
from core.ids import new_id
from core.permissions import Actor, ActorKind
from models.notifications import DEFAULT_EMAIL, NotificationKind
from services.notifications.recipients import IS_PARTY, SEES_SESSION
from services.parts import parts

EMAIL = "email"
"""The channel that preferences speak of."""

DELIVERIES = "deliveries"
"""The bus channel that wakes the workers which send mail."""

LONGEST_TITLE = 300
LONGEST_BODY = 2000

MOST_MAILED = 60
"""Mails that what one author does brings about within a minute, of all kinds and in all sessions together, digests
included. Whoever is over it is told in the inbox alone, also if they want this kind by mail only."""
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Notice:
    """What a write wants to tell, and whom."""

    kind: NotificationKind
    user_ids: Sequence[UUID]
    title: str
    body: str
    subject: tuple[str, UUID] | None
    author: UUID | None = None
    """Whose doing it is where the product tells it by itself; else that is whoever acts."""


@dataclass(frozen=True, slots=True)
class Told:
    """Whom to wake after the commit."""

    inboxes: frozenset[UUID] = frozenset()
    by_mail: bool = False


# Everybody who is left over: active, allowed to see what it is about, and not without interest in this kind.
_TELL = f"""
WITH wanted AS (
    SELECT told.id, users.id AS user_id, users.organization_id, notices.kind, notices.title, notices.body,
           notices.subject_kind, notices.subject_id, notices.author_id, coalesce(preferences.in_app, true) AS in_app,
           coalesce(preferences.email, notices.email) AS email,
           $14::boolean AND users.email IS NOT NULL AND coalesce(preferences.email, notices.email) <> 'OFF' AS by_mail
    FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS told (id, user_id, number)
    JOIN unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::text[], $13::uuid[]) WITH ORDINALITY
        AS notices (kind, title, body, subject_kind, subject_id, email, author_id, number) USING (number)
    JOIN users ON users.id = told.user_id AND users.organization_id = $10 AND users.deactivated_at IS NULL
    LEFT JOIN notification_preferences AS preferences
        ON preferences.user_id = users.id AND preferences.kind = notices.kind
    LEFT JOIN sessions ON sessions.id = $11
    WHERE $11::uuid IS NULL OR {SEES_SESSION} OR {IS_PARTY.format(subject="notices")}
), bounded AS (
    SELECT *, by_mail AND (author_id IS NULL OR {MOST_MAILED} >= (
        SELECT count(*) FROM notifications AS before
        JOIN notification_deliveries AS mails ON mails.notification_id = before.id
        WHERE before.actor_id = wanted.author_id AND before.id >= $17
            AND before.created_at > $15::timestamptz - {_MINUTE} * interval '1 second'
    ) + row_number() OVER (PARTITION BY author_id, by_mail ORDER BY id)) AS mailed
    FROM wanted
), notified AS (
    SELECT *, in_app OR by_mail AND NOT mailed AS in_inbox FROM bounded
), told AS (
    INSERT INTO notifications (id, organization_id, user_id, kind, session_id, subject_kind, subject_id, actor_kind,
                               actor_id, title, body, in_app, created_at)
    SELECT id, organization_id, user_id, kind, $11, subject_kind, subject_id, $12, author_id, title, body, in_inbox, $15
    FROM notified WHERE in_inbox OR mailed
), queued AS (
    INSERT INTO notification_deliveries (id, notification_id, user_id, channel, digest, status, attempts,
                                         next_attempt_at, created_at)
    SELECT gen_random_uuid(), id, user_id, '{EMAIL}', email = 'DIGEST', 'PENDING', 0,
           $15 + CASE WHEN email = 'DIGEST' THEN $16 ELSE 0 END * interval '1 minute', $15
    FROM notified WHERE mailed
)
SELECT user_id, in_inbox, mailed FROM notified WHERE in_inbox OR mailed
"""
# In the order in which they are marked as read.
_RETRACT = """
WITH about AS MATERIALIZED (
    SELECT id FROM notifications WHERE session_id = $1 AND subject_kind = $2 AND subject_id = $3 ORDER BY id FOR UPDATE
), emptied AS (
    UPDATE notifications SET body = '' WHERE id IN (SELECT id FROM about)
)
UPDATE notification_deliveries SET status = 'SKIPPED', last_error = $4, claimed_until = NULL
WHERE notification_id IN (SELECT id FROM about) AND status = 'PENDING'
"""


async def tell(
    tx: db.Transaction, actor: Actor, session_id: UUID | None, notices: Sequence[Notice], at: datetime
) -> Told:
    """Write the notices into the inboxes of those who are to be told. Whoever acts is not; an agent's user is."""
    acting = actor.user_id if actor.kind in (ActorKind.HUMAN, ActorKind.SERVICE) else None
    told = [
        (new_id(), user_id, number)
        for number, notice in enumerate(notices, 1)
        for user_id in dict.fromkeys(notice.user_ids)
        if user_id != acting
    ]
    if not told:
        return Told()
    by_mail = EMAIL in parts().notifiers
    authors = [notice.author or actor.user_id for notice in notices]
    if by_mail:
        # Two writes at once are counted one after the other. The last locks that a write takes, always in this order.
        for author in sorted({author for author in authors if author is not None}):
            await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"mailed:{author}")
    ids, user_ids, numbers = zip(*told, strict=True)
    rows = await tx.fetch(
        _TELL,
        list(ids),
        list(user_ids),
        list(numbers),
        [notice.kind.value for notice in notices],
        [_one_line(notice.title) for notice in notices],
        [_short(notice.body, LONGEST_BODY) for notice in notices],
        [notice.subject[0] if notice.subject else None for notice in notices],
        [notice.subject[1] if notice.subject else None for notice in notices],
        [DEFAULT_EMAIL[notice.kind].value for notice in notices],
        actor.organization_id,
        session_id,
        actor.kind.value,
        authors,
        by_mail,
        at,
        parts().settings.digest_minutes,
        # UUIDv7 begins with the milliseconds of its making: what is older need not be looked at.
        UUID(int=int((at.timestamp() - _MINUTE) * 1000) << 80),
    )
    return Told(frozenset(row["user_id"] for row in rows if row["in_inbox"]), any(row["mailed"] for row in rows))


async def retract(tx: db.Transaction, session_id: UUID, subject: tuple[str, UUID], reason: str) -> None:
    """Take back what notifications say of something in a session that is gone: nothing of it stays in the inboxes, and
    nothing of it is mailed any more."""
    await tx.execute(_RETRACT, session_id, *subject, reason)


async def announce(told: Told) -> None:
    """After the commit: wake those who follow their inbox, and the workers where there is mail."""
    bus = parts().bus
    for user_id in told.inboxes:
        await bus.publish(user_channel(user_id), {"changed": True})
    if told.by_mail:
        await bus.publish(DELIVERIES, {})


def user_channel(user_id: UUID) -> str:
    """The bus channel that says that a user's notifications changed."""
    return f"user:{user_id}"


def _one_line(text: str) -> str:
    return _short(" ".join(text.split()), LONGEST_TITLE)


def _short(text: str, most: int) -> str:
    text = text.replace("\0", "")
    return text if len(text) <= most else f"{text[: most - 1]}…"
