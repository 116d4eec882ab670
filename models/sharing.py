"""Who has been given access to what, and who has used it.

Grants and links name their resource by kind and id, so that whatever can be shared uses the same tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import Row, Scope


class AccessLevel(StrEnum):
    """What somebody may do in a session. Each level may do all that those before it may."""

    READ = "READ"
    WRITE = "WRITE"
    ADMIN = "ADMIN"

    def includes(self, other: AccessLevel) -> bool:
        """Whether this level may do all that the other may."""
        return _RANK[self] >= _RANK[other]


_RANK = {level: rank for rank, level in enumerate(AccessLevel)}

SESSION = "SESSION"
"""The kind of resource that sessions are, in `resource_kind`."""
TEMPLATE = "TEMPLATE"
"""The kind of resource that templates are."""


class Allowance(StrEnum):
    """Whether an organisation lets its members do something."""

    ALLOWED = "ALLOWED"
    FORBIDDEN = "FORBIDDEN"


class GrantRow(Row):
    __slots__ = ()


class ShareLinkRow(Row):
    __slots__ = ()


class SharingPolicyRow(Row):
    __slots__ = ()


class Grant(Model):
    """Access of a user, or of a team's members, to a resource.

    Rows are never removed, and the terms of one that has ended never change: they are the history of access. Where
    terms change, the former ones are kept as a row of their own that names the living one in `replaced_by`.
    """

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    resource_kind = fields.CharField(20)
    resource_id = fields.UUIDField()
    user: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    team: Any = fields.ForeignKeyField("models.Team", related_name=False, null=True, on_delete=fields.RESTRICT)
    """Exactly one of user and team, which a constraint in the migration holds."""
    level = fields.CharField(20)
    note = fields.CharField(500, null=True)
    expires_at = fields.DatetimeField(null=True)
    granted_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    via_link: Any = fields.ForeignKeyField("models.ShareLink", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    """When these terms were given."""
    revoked_at = fields.DatetimeField(null=True)
    """When it ended, also by itself or by other terms."""
    revoked_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    """Who ended it; nobody where it expired."""
    replaced_by: Any = fields.ForeignKeyField("models.Grant", related_name=False, null=True, on_delete=fields.RESTRICT)

    class Meta:
        table = "grants"
        indexes = [("resource_kind", "resource_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """All of what the actor administers; else those that give access to the actor now."""
        if actor.is_admin:
            return Scope("grants.organization_id = {}", (actor.organization_id,))
        user = actor.user_id
        return Scope(
            "grants.organization_id = {} AND grants.id IN ("
            f"SELECT all_of.id FROM grants all_of WHERE all_of.resource_kind = '{SESSION}' "
            f"AND all_of.resource_id IN ({_ADMINISTERED}) "
            f"UNION ALL SELECT all_too.id FROM grants all_too WHERE all_too.resource_kind = '{TEMPLATE}' "
            f"AND all_too.resource_id IN ({_ADMINISTERED_TEMPLATES}) "
            f"UNION ALL {_granted('id', kinds=(SESSION, TEMPLATE))})",
            (actor.organization_id, *[user] * 9),
        )


class ShareLink(Model):
    """A secret that gives whoever of the organisation redeems it a grant. Shown once; the row has its SHA-256."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    resource_kind = fields.CharField(20)
    resource_id = fields.UUIDField()
    secret_hash = fields.BinaryField()
    hint = fields.CharField(8)
    """The last four characters, to tell links apart."""
    level = fields.CharField(20)
    expires_at = fields.DatetimeField(null=True)
    max_uses = fields.IntField(null=True)
    use_count = fields.IntField(default=0)
    created_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    revoked_at = fields.DatetimeField(null=True)
    revoked_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)

    class Meta:
        table = "share_links"
        indexes = [("resource_kind", "resource_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Those of what the actor administers."""
        if actor.is_admin:
            return Scope("share_links.organization_id = {}", (actor.organization_id,))
        user = actor.user_id
        return Scope(
            f"share_links.organization_id = {{}} AND share_links.resource_kind = '{SESSION}' "
            f"AND share_links.resource_id IN ({_ADMINISTERED})",
            (actor.organization_id, user, user, user),
        )


class SharingPolicy(Model):
    """What an organisation lets its members share; one without a row has the defaults of services.sharing.policy."""

    organization_id = fields.UUIDField(primary_key=True)
    """Its foreign key is in the migrations: Tortoise's state of a one-to-one primary key never settles."""
    organization_visibility = fields.CharEnumField(Allowance, max_length=20)
    default_visibility = fields.CharField(20)
    links = fields.CharEnumField(Allowance, max_length=20)
    longest_grant_days = fields.IntField(null=True)
    updated_at = fields.DatetimeField()

    class Meta:
        table = "sharing_policies"


class SessionView(Model):
    """That somebody read what is in a session: one row per user, kind of credential and hour."""

    id = fields.BigIntField(primary_key=True, generated=True)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    session: Any = fields.ForeignKeyField("models.Session", related_name=False, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    credential_kind = fields.CharField(20)
    """TOKEN, WEB, or NONE for a program of this installation."""
    hour = fields.DatetimeField()
    views = fields.IntField()
    first_at = fields.DatetimeField()
    last_at = fields.DatetimeField()

    class Meta:
        table = "session_views"
        unique_together = (("session_id", "user_id", "credential_kind", "hour"),)


def living(table: str) -> str:
    """The condition on rows of grants that give access now."""
    return f"{table}.revoked_at IS NULL AND ({table}.expires_at IS NULL OR {table}.expires_at > now())"


# The teams first, as an array: joined, the planner may begin with all grants to teams.
_TEAMS = "ARRAY(SELECT team_members.team_id FROM team_members WHERE team_members.user_id = {})"


def _granted(column: str, condition: str = "true", *, kinds: Sequence[str] = (SESSION,)) -> str:
    """A column of the living grants of a user to such things, of their own and of their teams; takes the user twice."""
    kind = "{}.resource_kind IN (" + ", ".join(f"'{each}'" for each in kinds) + ")"
    return (
        f"SELECT by_user.{column} FROM grants by_user WHERE by_user.user_id = {{}} "
        f"AND {kind.format('by_user')} AND {living('by_user')} AND {condition.format('by_user')} "
        f"UNION ALL SELECT by_team.{column} FROM grants by_team WHERE by_team.team_id = ANY({_TEAMS}) "
        f"AND {kind.format('by_team')} AND {living('by_team')} AND {condition.format('by_team')}"
    )


GRANTED_SESSIONS = _granted("resource_id")
"""The ids of the sessions that a user has living grants to; takes the user twice."""

# Takes the user three times.
_ADMINISTERED = "SELECT owned.id FROM sessions owned WHERE owned.owner_id = {} UNION ALL " + _granted(
    "resource_id", "{}.level = 'ADMIN'"
)
# Takes the user four times.
_ADMINISTERED_TEMPLATES = (
    "SELECT mine.id FROM session_templates mine WHERE mine.owner_id = {} "
    f"UNION ALL SELECT ours.id FROM session_templates ours WHERE ours.owner_team_id = ANY({_TEAMS}) UNION ALL "
    + _granted("resource_id", "{}.level = 'ADMIN'", kinds=(TEMPLATE,))
)

OPEN_TO_ORGANIZATION = (
    "SELECT open.id FROM sessions open WHERE open.organization_id = {} AND open.visibility = 'ORGANIZATION' "
    "AND NOT EXISTS (SELECT FROM sharing_policies WHERE sharing_policies.organization_id = {} "
    "AND sharing_policies.organization_visibility = 'FORBIDDEN')"
)
"""The ids of the sessions that everybody in an organisation may read; takes the organisation twice."""
