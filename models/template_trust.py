"""Who templates come from: the key that an organisation signs its bundles with, the publishers whose bundles it takes,
and where its imported templates came from."""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from core.permissions import Actor
from models.base import Row, Scope
from models.templates import of_visible_template


class SigningKeyRow(Row):
    __slots__ = ()


class TrustedPublisherRow(Row):
    __slots__ = ()


class TemplateOriginRow(Row):
    __slots__ = ()


class TemplateSigningKey(Model):
    """A key of an organisation: Ed25519. One of them is not retired, and signs."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    public_key = fields.CharField(80)
    """`ed25519:` and 32 bytes in base64."""
    fingerprint = fields.CharField(64)
    """SHA-256 of the 32 bytes, hexadecimal."""
    private_sealed = fields.BinaryField(null=True)
    """None once it is retired: nothing more is signed with it."""
    created_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)
    retired_at = fields.DatetimeField(null=True)

    class Meta:
        table = "template_signing_keys"

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Those of the organisation."""
        return Scope("template_signing_keys.organization_id = {}", (actor.organization_id,))


class TrustedPublisher(Model):
    """A key whose bundles an organisation takes, under the name that it has given to its owner."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    name = fields.CharField(100)
    """Several keys of one name belong to one publisher, who may have got a new key."""
    public_key = fields.CharField(80)
    fingerprint = fields.CharField(64)
    added_by: Any = fields.ForeignKeyField("models.User", related_name=False, null=True, on_delete=fields.RESTRICT)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "trusted_publishers"
        unique_together = (("organization_id", "fingerprint"),)

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """Those of the organisation."""
        return Scope("trusted_publishers.organization_id = {}", (actor.organization_id,))


class TemplateOrigin(Model):
    """An import: what a template's draft was taken from."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    organization: Any = fields.ForeignKeyField("models.Organization", related_name=False, on_delete=fields.RESTRICT)
    template: Any = fields.ForeignKeyField("models.SessionTemplate", related_name=False, on_delete=fields.CASCADE)
    publisher = fields.CharField(100)
    """As the organisation called it when it was imported."""
    fingerprint = fields.CharField(64)
    """Of the key that had signed it."""
    version = fields.IntField()
    """The number that the version has where it comes from."""
    digest = fields.CharField(64)
    bundle_sha256 = fields.CharField(64)
    imported_by: Any = fields.ForeignKeyField("models.User", related_name=False, on_delete=fields.RESTRICT)
    imported_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "template_origins"
        indexes = [("template_id", "id")]

    @staticmethod
    def visible_to(actor: Actor) -> Scope:
        """As visible as the template."""
        return of_visible_template("template_origins", actor)
