"""From a credential to an `Actor`: one query, remembered for a second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from core import db
from core.crypto import digest
from core.permissions import OF_ROLE, Actor, ActorKind, Origin, Role, permissions_of
from models.base import Row

# Also what bounds how long a revoked credential is honoured where the notice of it was lost.
_REMEMBERED_SECONDS = 1.0
_MOST_REMEMBERED = 10_000
_USE_WRITTEN_EVERY = 60.0

_OF_BEARER = """
    SELECT t.id AS credential_id, t.scopes, t.expires_at, u.id AS user_id, u.organization_id, u.kind, u.name, u.role
    FROM access_tokens t JOIN users u ON u.id = t.user_id
    WHERE t.secret_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
      AND u.deactivated_at IS NULL
"""
_OF_COOKIE = """
    SELECT w.id AS credential_id, NULL::text[] AS scopes, w.expires_at, u.id AS user_id, u.organization_id, u.kind,
           u.name, u.role
    FROM web_sessions w JOIN users u ON u.id = w.user_id
    WHERE w.secret_hash = $1 AND w.revoked_at IS NULL AND w.expires_at > now() AND u.deactivated_at IS NULL
"""
_STILL_VALID = """
    SELECT t.id, u.role FROM access_tokens t JOIN users u ON u.id = t.user_id
    WHERE t.id = ANY($1) AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
      AND u.deactivated_at IS NULL
    UNION ALL
    SELECT w.id, u.role FROM web_sessions w JOIN users u ON u.id = w.user_id
    WHERE w.id = ANY($1) AND w.revoked_at IS NULL AND w.expires_at > now() AND u.deactivated_at IS NULL
"""


class _CredentialRow(Row):
    __slots__ = ()


class _Remembered:
    """Whom a credential stood for a moment ago, and as whom it last came."""

    __slots__ = ("actor", "asked", "row")

    def __init__(self, asked: float, row: _CredentialRow, origin: Origin) -> None:
        self.asked, self.row = asked, row
        self.actor = _as_actor(row, origin)

    def coming_from(self, origin: Origin) -> Actor:
        if self.actor.origin != origin:
            self.actor = _as_actor(self.row, origin)
        return self.actor


_remembered: dict[tuple[str, bytes], _Remembered] = {}
_used: dict[UUID, float] = {}
_to_write: set[UUID] = set()


async def actor_of_bearer(token: str, origin: Origin) -> Actor | None:
    """Whom an access token stands for; None where it is unknown, expired, revoked, or its user deactivated."""
    return await _actor(_OF_BEARER, token, origin)


async def actor_of_cookie(secret: str, origin: Origin) -> Actor | None:
    """Whom a browser's cookie stands for; None as with tokens."""
    return await _actor(_OF_COOKIE, secret, origin)


async def active_actor(user_id: UUID, credential_id: UUID | None = None, origin: Origin | None = None) -> Actor | None:
    """A user, as they are now; None where there is none, or they have been deactivated."""
    user = await db.fetchrow(
        "SELECT id, organization_id, kind, name, role FROM users WHERE id = $1 AND deactivated_at IS NULL",
        user_id,
        row=Row,
    )
    return None if user is None else actor_of_user(user, credential_id, origin or Origin())


def actor_of_user(user: Row, credential_id: UUID | None, origin: Origin) -> Actor:
    """A user who has just proved who they are."""
    role = Role(user["role"])
    return Actor(
        kind=ActorKind(user["kind"]),
        organization_id=user["organization_id"],
        role=role,
        user_id=user["id"],
        permissions=OF_ROLE[role],
        name=user["name"],
        credential_id=credential_id,
        origin=origin,
    )


def system_actor(organization_id: UUID) -> Actor:
    """Quarterdeck itself, for programs in which nobody is signed in: the command line, seeding, starting."""
    return Actor(
        kind=ActorKind.SYSTEM,
        organization_id=organization_id,
        role=Role.OWNER,
        user_id=None,
        permissions=OF_ROLE[Role.OWNER],
        name="Quarterdeck",
    )


async def still_valid(actor: Actor) -> bool:
    """Whether the actor is what it was when it was made: the credential good, the user active, the role the same."""
    if actor.credential_id is not None:
        return (actor.credential_id, actor.role) in await valid_credentials([actor.credential_id])
    if actor.user_id is None:
        return True
    sql = "SELECT role FROM users WHERE id = $1 AND deactivated_at IS NULL"
    return bool(await db.fetchval(sql, actor.user_id) == actor.role)


async def valid_credentials(credential_ids: Iterable[UUID]) -> set[tuple[UUID, Role]]:
    """Those that are good now, each with its user's role now."""
    return {(row["id"], Role(row["role"])) for row in await db.fetch(_STILL_VALID, list(credential_ids), row=Row)}


def forget(*, credential_id: UUID | None = None, user_id: UUID | None = None) -> None:
    """Ask the database again for these; for all where nothing is named."""
    everything = credential_id is None and user_id is None
    for key, known in list(_remembered.items()):
        if everything or known.row["credential_id"] == credential_id or known.row["user_id"] == user_id:
            del _remembered[key]


async def write_uses() -> None:
    """Store when tokens were last used and users last seen. Called now and then, never by a request."""
    ids = list(_to_write)
    _to_write.clear()
    if not ids:
        return
    await db.execute(
        "UPDATE access_tokens SET last_used_at = now() WHERE id = ANY($1) "
        "AND (last_used_at IS NULL OR last_used_at < now() - interval '30 seconds')",
        ids,
    )
    await db.execute(
        "UPDATE users SET last_seen_at = now() WHERE id IN (SELECT user_id FROM access_tokens WHERE id = ANY($1) "
        "UNION SELECT user_id FROM web_sessions WHERE id = ANY($1)) "
        "AND (last_seen_at IS NULL OR last_seen_at < now() - interval '30 seconds')",
        ids,
    )


async def _actor(sql: str, secret: str, origin: Origin) -> Actor | None:
    key = (sql, digest(secret))
    now = time.monotonic()
    known = _remembered.get(key)
    if known is None or now - known.asked > _REMEMBERED_SECONDS:
        row = await db.fetchrow(*key, row=_CredentialRow)
        if row is None:
            _remembered.pop(key, None)
            return None
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        known = _remembered[key] = _Remembered(now, row, origin)
        _note_use(row["credential_id"], now)
    return known.coming_from(origin)


def _as_actor(row: Any, origin: Origin) -> Actor:
    role = Role(row["role"])
    return Actor(
        kind=ActorKind(row["kind"]),
        organization_id=row["organization_id"],
        role=role,
        user_id=row["user_id"],
        permissions=permissions_of(role, row["scopes"]),
        name=row["name"],
        credential_id=row["credential_id"],
        origin=origin,
    )


def _note_use(credential_id: UUID, at: float) -> None:
    if at - _used.get(credential_id, -_USE_WRITTEN_EVERY) >= _USE_WRITTEN_EVERY:
        if len(_used) >= _MOST_REMEMBERED:
            _used.clear()
        _used[credential_id] = at
        _to_write.add(credential_id)
