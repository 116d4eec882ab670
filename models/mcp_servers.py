"""MCP servers an organisation has registered, and named environment variables for sessions."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import JsonField, Row, Scope, TextArrayField


class McpTransport(StrEnum):
    """How Quarterdeck talks to a server."""

    STDIO = "STDIO"
    STREAMABLE_HTTP = "STREAMABLE_HTTP"


class McpServerRow(Row):
    __slots__ = ()


class EnvironmentVariableRow(Row):
    __slots__ = ()


class McpServer(Model):
    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(40)
    """Prefix of its tools: `name.tool`."""
    description = fields.TextField(default="")
    transport = fields.CharEnumField(McpTransport, max_length=20)
    command = TextArrayField(default=list)
    url = fields.TextField(null=True)
    environment_sealed = fields.BinaryField(null=True)
    environment_names = TextArrayField(default=list)
    headers_sealed = fields.BinaryField(null=True)
    header_names = TextArrayField(default=list)
    protocol_version = fields.CharField(20, null=True)
    """The one to speak; null lets client and server agree."""
    protocol_version_seen = fields.CharField(20, null=True)
    """What they spoke when it was last checked."""
    stateless = fields.BooleanField(default=False)
    timeout_seconds = fields.FloatField(default=60.0)
    tools = JsonField(null=True)
    """What the server listed when it was last asked; null before."""
    checked_at = fields.DatetimeField(null=True)
    check_error = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    removed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "mcp_servers"
        indexes = [("organization_id", "name", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("mcp_servers.organization_id = {}", (actor.organization_id,))


class EnvironmentVariable(Model):
    """A named value that sessions may give to their tools. The value is sealed and never read back."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(200)
    value_sealed = fields.BinaryField()
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "environment_variables"
        unique_together = (("organization_id", "name"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        return Scope("environment_variables.organization_id = {}", (actor.organization_id,))
