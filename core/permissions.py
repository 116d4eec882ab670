"""Who acts, and what they may do. Every room below the doors sees an `Actor` and nothing of requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from core.errors import Forbidden, Unauthenticated


class Role(StrEnum):
    """What a member of an organisation is. Each role may do all that those after it may."""

    OWNER = "OWNER"
    ADMIN = "ADMIN"
    MEMBER = "MEMBER"
    VIEWER = "VIEWER"


class ActorKind(StrEnum):
    """What acts: a person, a service account, an agent during a run, or Quarterdeck itself."""

    HUMAN = "HUMAN"
    SERVICE = "SERVICE"
    AGENT = "AGENT"
    SYSTEM = "SYSTEM"


class Permission(StrEnum):
    """What an operation needs. Access tokens are scoped to some of these."""

    PROFILE_READ = "PROFILE_READ"
    SESSIONS_READ = "SESSIONS_READ"
    SESSIONS_WRITE = "SESSIONS_WRITE"
    ANNOTATIONS_WRITE = "ANNOTATIONS_WRITE"
    SESSIONS_SHARE = "SESSIONS_SHARE"
    TOOLS_READ = "TOOLS_READ"
    TOOLS_MANAGE = "TOOLS_MANAGE"
    TOKENS_MANAGE = "TOKENS_MANAGE"
    MEMBERS_READ = "MEMBERS_READ"
    MEMBERS_MANAGE = "MEMBERS_MANAGE"
    AUDIT_READ = "AUDIT_READ"
    NOTIFICATIONS_MANAGE = "NOTIFICATIONS_MANAGE"
    TEMPLATES_READ = "TEMPLATES_READ"
    TEMPLATES_WRITE = "TEMPLATES_WRITE"
    TEMPLATES_SHARE = "TEMPLATES_SHARE"
    METRICS_READ = "METRICS_READ"
    METRICS_INGEST = "METRICS_INGEST"
    MONITORS_MANAGE = "MONITORS_MANAGE"
    BUDGETS_MANAGE = "BUDGETS_MANAGE"
    REPORTS_MANAGE = "REPORTS_MANAGE"


_VIEWER = frozenset(
    {
        Permission.PROFILE_READ,
        Permission.SESSIONS_READ,
        Permission.TOOLS_READ,
        Permission.MEMBERS_READ,
        Permission.NOTIFICATIONS_MANAGE,
        Permission.TEMPLATES_READ,
        Permission.METRICS_READ,
    }
)
_MEMBER = _VIEWER | {
    Permission.SESSIONS_WRITE,
    Permission.SESSIONS_SHARE,
    Permission.ANNOTATIONS_WRITE,
    Permission.TOKENS_MANAGE,
    Permission.TEMPLATES_WRITE,
    Permission.TEMPLATES_SHARE,
    Permission.METRICS_INGEST,
    Permission.MONITORS_MANAGE,
    Permission.REPORTS_MANAGE,
}
_ADMIN = frozenset(Permission)

OF_ROLE: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _ADMIN,
    Role.ADMIN: _ADMIN,
    Role.MEMBER: _MEMBER,
    Role.VIEWER: _VIEWER | {Permission.TOKENS_MANAGE},
}
_RANK = {role: rank for rank, role in enumerate(reversed(Role))}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, for the audit log."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, in which organisation, with which permissions."""

    kind: ActorKind
    organization_id: UUID
    role: Role
    user_id: UUID | None
    permissions: frozenset[Permission]
    name: str = ""
    credential_id: UUID | None = None
    """The web session or access token that was shown; revoking it ends living streams."""
    on_behalf_of: UUID | None = None
    """The user whose message made an agent act."""
    origin: Origin = field(default_factory=Origin)

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raises Forbidden, naming the permission, where the actor lacks it."""
        if permission not in self.permissions:
            raise Forbidden(
                f"This needs the permission {permission.value}. "
                "Your role or the scopes of your access token do not include it; ask an admin of your organisation.",
                permission=permission.value,
            )

    @property
    def is_admin(self) -> bool:
        return self.role in (Role.OWNER, Role.ADMIN)


def at_least(role: Role, other: Role) -> bool:
    """Whether `role` may do all that `other` may."""
    return _RANK[role] >= _RANK[other]


def permissions_of(role: Role, scopes: Iterable[str] | None = None) -> frozenset[Permission]:
    """The role's permissions, narrowed to a token's scopes where there are some."""
    granted = OF_ROLE[role]
    return granted if scopes is None else granted & frozenset(Permission(scope) for scope in scopes)


def signed_in(actor: Actor | None) -> Actor:
    """The actor, or Unauthenticated with what to do about it."""
    if actor is None:
        raise Unauthenticated(
            "Sign in, or send `Authorization: Bearer TOKEN` with an access token. "
            "A token that was accepted before has expired or been revoked."
        )
    return actor
