"""Documents of client programs, known by their ids. They belong to the installation: clients are programs, not
members of an organisation."""

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.models import Model

from core.ids import new_id
from models.base import Row

LONGEST_IDENTIFIER = 200


class DocumentRow(Row):
    __slots__ = ()


class DocumentReleaseRow(Row):
    __slots__ = ()


class Document(Model):
    """A GraphQL document. What an identifier stands for never changes: programs out there were built with it."""

    id = fields.CharField(LONGEST_IDENTIFIER, primary_key=True)
    sha256 = fields.BinaryField()
    text = fields.TextField()
    registered_at = fields.DatetimeField()

    class Meta:
        table = "documents"
        indexes = [("sha256",)]


class DocumentRelease(Model):
    """A release of a client program. Its documents can be executed until it is retired."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    client = fields.CharField(100)
    release = fields.CharField(100)
    registered_at = fields.DatetimeField()
    registered_by = fields.CharField(100)
    retired_at = fields.DatetimeField(null=True)

    class Meta:
        table = "document_releases"
        unique_together = (("client", "release"),)


class ReleasedDocument(Model):
    """A document that a release uses; releases share most of theirs with the one before."""

    id = fields.BigIntField(primary_key=True, generated=True)
    release: Any = fields.ForeignKeyField("models.DocumentRelease", related_name=False, on_delete=fields.CASCADE)
    document: Any = fields.ForeignKeyField("models.Document", related_name=False, on_delete=fields.RESTRICT)

    class Meta:
        table = "released_documents"
        unique_together = (("release_id", "document_id"),)
        indexes = [("document_id",)]
