"""Rows that make writes safe to repeat."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class IdempotencyKey(Model):
    """A client's key and what it made: the same key gives the same result, once."""

    id = fields.BigIntField(primary_key=True, generated=True)
    actor_id = fields.UUIDField()
    operation = fields.CharField(100)
    key = fields.CharField(200)
    input_digest = fields.BinaryField()
    result_id = fields.UUIDField()
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "idempotency_keys"
        unique_together = (("actor_id", "operation", "key"),)
        indexes = [("created_at",)]
