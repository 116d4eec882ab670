"""Signed links that act in the name of whoever made them, and no longer than their maker may."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core.errors import NotFound
from core.permissions import Actor, Origin
from services.identity.actors import active_actor, valid_credentials


def claims_of(actor: Actor) -> dict[str, Any]:
    """What a link says of its maker: it ends with the token or web session that asked for it."""
    claims = {"user": str(actor.user_id)}
    if actor.credential_id is not None:
        claims["credential"] = str(actor.credential_id)
    return claims


async def actor_of_link(claims: dict[str, Any], origin: Origin) -> Actor:
    """Who made a link, as they are now: what they may no longer read, their links do not give either. Raises
    NotFound."""
    credential_id = UUID(claims["credential"]) if "credential" in claims else None
    actor = await active_actor(UUID(claims["user"]), credential_id, origin)
    if actor is None or (credential_id is not None and not await valid_credentials([credential_id])):
        raise NotFound("This link is not valid any more. Ask for a new one.")
    return actor
