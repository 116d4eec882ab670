"""Organisations, teams, users, and what they sign in with."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor, Role
from models.base import JsonField, Row, Scope, TextArrayField


class UserKind(StrEnum):
    """A person, or a service account that only has access tokens."""

    HUMAN = "HUMAN"
    SERVICE = "SERVICE"


class ConnectionKind(StrEnum):
    """How members of an organisation prove who they are."""

    LOCAL = "LOCAL"


class OrganizationRow(Row):
    __slots__ = ()


class TeamRow(Row):
    __slots__ = ()


class UserRow(Row):
    __slots__ = ()


class AccessTokenRow(Row):
    __slots__ = ()


class WebSessionRow(Row):
    __slots__ = ()


class Organization(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    name = fields.CharField(200)
    slug = fields.CharField(63, unique=True)
    region = fields.CharField(63, default="local")
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "organizations"

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("organizations.id = {}", (actor.organization_id,))


class IdentityConnection(Model):
    """One door of an organisation; `config` is sealed where it holds secrets."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    kind = fields.CharEnumField(ConnectionKind, max_length=20)
    name = fields.CharField(200)
    enabled = fields.BooleanField(default=True)
    config = JsonField(default=dict)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "identity_connections"
        indexes = [("organization_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("identity_connections.organization_id = {}", (actor.organization_id,))


class User(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    kind = fields.CharEnumField(UserKind, max_length=20, default=UserKind.HUMAN)
    name = fields.CharField(200)
    email = fields.CharField(320, null=True)
    """Lower case; unique over the whole installation, since it is what people sign in with."""
    role = fields.CharEnumField(Role, max_length=20, default=Role.MEMBER)
    password_hash = fields.TextField(null=True)
    deactivated_at = fields.DatetimeField(null=True)
    last_seen_at = fields.DatetimeField(null=True)
    successor: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.SET_NULL)
    """Who gets their sessions when they are deactivated."""
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "users"
        unique_together = (("email",),)
        indexes = [("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("users.organization_id = {}", (actor.organization_id,))


class Team(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(200)
    slug = fields.CharField(63)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "teams"
        unique_together = (("organization_id", "slug"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("teams.organization_id = {}", (actor.organization_id,))


class TeamMember(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    team: Any = fields.ForeignKeyField("models.Team", related_name=False, on_delete=fields.CASCADE)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "team_members"
        unique_together = (("team_id", "user_id"),)
        indexes = [("user_id",)]


class WebSession(Model):
    """A signed-in browser. The cookie holds a random secret, the row its SHA-256."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    secret_hash = fields.BinaryField()
    ip = fields.CharField(64, null=True)
    user_agent = fields.CharField(400, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "web_sessions"
        indexes = [("user_id",)]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("web_sessions.user_id = {}", (actor.user_id,))


class AccessToken(Model):
    """A personal access token, or a service account's. Shown once; the row has its SHA-256."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    name = fields.CharField(200)
    secret_hash = fields.BinaryField()
    hint = fields.CharField(8)
    """The last four characters, to tell tokens apart."""
    scopes = TextArrayField(null=True)
    """Permissions; null for all that the user's role has."""
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "access_tokens"
        indexes = [("user_id", "id"), ("organization_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        if actor.is_admin:
            return Scope("access_tokens.organization_id = {}", (actor.organization_id,))
        return Scope("access_tokens.user_id = {}", (actor.user_id,))


class SignInLink(Model):
    """A link that signs a user in once."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.CASCADE)
    secret_hash = fields.BinaryField()
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "sign_in_links"


class SignInFailure(Model):
    """One refused sign-in, counted per account and per address to slow down guessing."""

    id = fields.BigIntField(primary_key=True, generated=True)
    subject = fields.CharField(400)
    """`account:…` or `ip:…`."""
    at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "sign_in_failures"
        indexes = [("subject", "at")]
