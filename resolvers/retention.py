"""Reads of what is kept of metrics, and of what would go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.permissions import Actor
from services.metrics.retention import Drop, drop_old
from services.metrics.storage import Stored, stored


async def metric_retention(actor: Actor) -> list[Stored]:
    """What is kept of each kind of facts at each level. Raises Forbidden."""
    return await stored(actor)


async def drops_of(actor: Actor, parents: Sequence[Stored], args: Mapping[str, Any]) -> list[list[Drop]]:
    """What would go of each if what is older were dropped now; planned once for all."""
    planned = await drop_old(dry_run=True)
    return [[drop for drop in planned if (drop.facts, drop.level) == (one.fact, one.level)] for one in parents]
