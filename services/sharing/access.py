"""What a user may do in sessions, and why: the one statement that mutations, `Session.access` and reports ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from core.permissions import Actor, Role
from models.base import Row
from models.sessions import SessionRow, Visibility
from models.sharing import SESSION, AccessLevel


class AccessReasonKind(StrEnum):
    """What gives somebody access to a session or a template."""

    OWNER = "OWNER"
    OWNER_TEAM = "OWNER_TEAM"
    ORGANIZATION_ADMIN = "ORGANIZATION_ADMIN"
    GRANT = "GRANT"
    TEAM_GRANT = "TEAM_GRANT"
    ORGANIZATION = "ORGANIZATION"


@dataclass(frozen=True, slots=True)
class AccessReason:
    """One of the things that give somebody access, with the level that it gives."""

    kind: AccessReasonKind
    level: AccessLevel
    expires_at: datetime | None = None
    grant_id: UUID | None = None
    team_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class SessionAccess:
    """What somebody may do in a session, and all that gives it to them, the strongest first."""

    level: AccessLevel | None
    """None where they have no access."""
    via: Sequence[AccessReason]

    @classmethod
    def of(cls, reasons: Iterable[AccessReason]) -> SessionAccess:
        """The access that these reasons give together."""
        via = sorted(reasons, key=lambda reason: _STRENGTH[reason.level], reverse=True)
        return cls(via[0].level if via else None, via)


@dataclass(frozen=True, slots=True)
class Somebody:
    """Whose access is asked for."""

    user_id: UUID | None
    role: Role

    @classmethod
    def acting(cls, actor: Actor) -> Somebody:
        """The actor."""
        return cls(actor.user_id, actor.role)

    @property
    def is_admin(self) -> bool:
        return self.role in (Role.OWNER, Role.ADMIN)


Fetch = Callable[..., Awaitable[list[Any]]]
"""`core.db.fetch`, or that of a transaction."""

_STRENGTH = {level: strength for strength, level in enumerate(AccessLevel)}

# The time of the statement and not of the transaction: a write may have waited for the session for a while.
_LIVING = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())"
_GRANTED = f"""
SELECT resource_id, id AS grant_id, NULL::uuid AS team_id, level, expires_at FROM grants
WHERE resource_kind = '{SESSION}' AND resource_id = ANY($1) AND user_id = $2 AND {_LIVING}
UNION ALL
SELECT resource_id, id, team_id, level, expires_at FROM grants
WHERE resource_kind = '{SESSION}' AND resource_id = ANY($1) AND {_LIVING}
AND team_id = ANY(ARRAY(SELECT team_members.team_id FROM team_members WHERE team_members.user_id = $2))
UNION ALL
SELECT sessions.id, NULL, NULL, 'READ', NULL FROM sessions
WHERE sessions.id = ANY($1) AND sessions.visibility = '{Visibility.ORGANIZATION.value}'
AND NOT EXISTS (SELECT FROM sharing_policies WHERE sharing_policies.organization_id = sessions.organization_id
                AND sharing_policies.organization_visibility = 'FORBIDDEN')
"""


async def accesses(fetch: Fetch, somebody: Somebody, sessions: Sequence[SessionRow]) -> list[SessionAccess]:
    """The access of a user to sessions of their organisation, in the sessions' order; one statement for all."""
    found: dict[UUID, list[AccessReason]] = {session["id"]: [] for session in sessions}
    for session in sessions:
        found[session["id"]][:] = _standing(somebody, session)
    for row in await fetch(_GRANTED, list(found), somebody.user_id, row=Row):
        found[row["resource_id"]].append(
            AccessReason(_kind_of(row), AccessLevel(row["level"]), row["expires_at"], row["grant_id"], row["team_id"])
        )
    return [SessionAccess.of(found[session["id"]]) for session in sessions]


async def level_in(fetch: Fetch, actor: Actor, session: SessionRow) -> AccessLevel | None:
    """What the actor may do in a session; asks nothing of the database for its owner and the admins."""
    somebody = Somebody.acting(actor)
    if _standing(somebody, session):
        return AccessLevel.ADMIN
    [access] = await accesses(fetch, somebody, [session])
    return access.level


def _standing(somebody: Somebody, session: SessionRow) -> list[AccessReason]:
    """What nobody has to give: the owner's access and the admins'."""
    reasons = []
    if somebody.user_id is not None and session["owner_id"] == somebody.user_id:
        reasons.append(AccessReason(AccessReasonKind.OWNER, AccessLevel.ADMIN))
    if somebody.is_admin:
        reasons.append(AccessReason(AccessReasonKind.ORGANIZATION_ADMIN, AccessLevel.ADMIN))
    return reasons


def _kind_of(row: Row) -> AccessReasonKind:
    if row["grant_id"] is None:
        return AccessReasonKind.ORGANIZATION
    return AccessReasonKind.GRANT if row["team_id"] is None else AccessReasonKind.TEAM_GRANT
