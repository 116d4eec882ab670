"""The same key gives the first result: clients may repeat a creating mutation after a lost answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from core.errors import BadInput, Conflict
from core.ids import new_id
from services.work import Work


@dataclass(frozen=True, slots=True)
class Claim:
    """`earlier` is the id that the key made before; else make the object with `result_id`."""

    result_id: UUID
    earlier: UUID | None


async def claim(work: Work, operation: str, key: str | None, input_: dict[str, Any]) -> Claim:
    """Take a key for this actor and operation, in the transaction of what it makes. A concurrent use of the
    same key waits here for the first. Conflict where the key was used with another input."""
    result_id = new_id()
    if key is None:
        return Claim(result_id, None)
    if not 1 <= len(key) <= 200:
        raise BadInput("An idempotency key has 1 to 200 characters.", field="idempotencyKey")
    digest = hashlib.sha256(orjson.dumps(input_, option=orjson.OPT_SORT_KEYS, default=str)).digest()
    inserted = await work.tx.fetchval(
        "INSERT INTO idempotency_keys (actor_id, operation, key, input_digest, result_id, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (actor_id, operation, key) DO NOTHING RETURNING result_id",
        work.actor.user_id,
        operation,
        key,
        digest,
        result_id,
        work.at,
    )
    if inserted is not None:
        return Claim(result_id, None)
    first = await work.tx.fetchrow(
        "SELECT result_id, input_digest FROM idempotency_keys WHERE actor_id = $1 AND operation = $2 AND key = $3",
        work.actor.user_id,
        operation,
        key,
    )
    assert first is not None
    if first["input_digest"] != digest:
        raise Conflict(
            "This idempotency key was used with another input. Use a fresh key for a different request.",
            field="idempotencyKey",
        )
    return Claim(result_id, first["result_id"])
