"""Access tokens: of oneself, of service accounts, and the one an operator brings along."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

from core import clock, db
from core.crypto import digest, new_secret
from core.errors import BadInput, Forbidden, NotFound, Unavailable
from core.ids import new_id
from core.permissions import OF_ROLE, Actor, Permission, Role
from models.base import Query
from models.identity import AccessToken, AccessTokenRow, UserKind, UserRow
from services import idempotency
from services.identity.accounts import lock_user
from services.identity.actors import system_actor
from services.identity.checks import check_name
from services.identity.revocations import tell_revoked
from services.work import Work, write

log = logging.getLogger(__name__)

_COLUMNS = "id, organization_id, user_id, name, hint, scopes, created_at, expires_at, last_used_at, revoked_at"
BOOTSTRAP_NAME = "Bootstrap token"
"""Of the token from the settings; no other may be called so, for a new one takes the place of those before."""

_SHORTEST_BOOTSTRAP = 20


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it is made. `secret` is shown once; None where an idempotency key found the token made before."""

    row: AccessTokenRow
    secret: str | None = field(repr=False)


async def create_access_token(
    actor: Actor,
    *,
    name: str,
    scopes: Collection[Permission] | None = None,
    expires_at: datetime | None = None,
    user_id: UUID | None = None,
    key: str | None = None,
) -> NewToken:
    """A token of one's own, or, for admins, of the service account `user_id`.

    Without scopes it may do what its user's role may. No token may do more than its maker, nor live longer than the
    token it was made with. Raises BadInput, Forbidden, NotFound.
    """
    name = check_name(name)
    if name == BOOTSTRAP_NAME:
        raise BadInput("This name is kept for the token of the installation's settings. Take another.", field="name")
    if scopes is not None and not scopes:
        raise BadInput("Name at least one scope, or leave scopes out for all of them.", field="scopes")
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= clock.now()):
        raise BadInput("A token expires in the future, at a time with a time zone.", field="expiresAt")
    owner_id = user_id or actor.user_id
    if owner_id is None:
        raise BadInput("Say whose token it is.", field="userId")
    secret = new_secret("qdt")
    async with write(actor, "access_token.create") as work:
        actor.require(Permission.TOKENS_MANAGE)
        owner = await lock_user(work, owner_id)
        _check_owner(actor, owner)
        asked = {
            "name": name,
            "scopes": None if scopes is None else sorted(scopes),
            "expiresAt": expires_at,
            "user": owner_id,
        }
        found = await idempotency.claim(work, "createAccessToken", key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return NewToken(await _lock_token(work, found.earlier), None)
        granted, expires_at = await _within_maker(work, Role(owner["role"]), scopes, expires_at)
        row = await _insert(work, found.result_id, owner_id, name, secret, granted, expires_at)
    return NewToken(row, secret)


async def revoke_access_token(actor: Actor, token_id: UUID) -> AccessTokenRow:
    """End a token: one's own, or, for admins, any of the organisation's. Again has no effect. Raises NotFound."""
    async with write(actor, "access_token.revoke") as work:
        row = await _lock_token(work, token_id)
        actor.require(Permission.TOKENS_MANAGE if row["user_id"] == actor.user_id else Permission.MEMBERS_MANAGE)
        if row["revoked_at"] is not None:
            work.entry.action = ""  # nothing happens a second time
            return row
        revoked = await work.tx.fetchrow(
            f"UPDATE access_tokens SET revoked_at = now() WHERE id = $1 RETURNING {_COLUMNS}",
            token_id,
            row=AccessTokenRow,
        )
        assert revoked is not None
        work.after_commit(lambda: tell_revoked(token_id))
    return revoked


async def ensure_bootstrap_token(secret: str) -> AccessTokenRow:
    """The operator's token of the first organisation's first owner or admin; safe to repeat and from many processes.

    A bootstrap token with another secret is revoked; one that somebody revoked stays so. Raises Unavailable where
    the secret is too short, or nobody is there yet whose token it could be.
    """
    if len(secret) < _SHORTEST_BOOTSTRAP:
        raise Unavailable(
            f"QUARTERDECK_BOOTSTRAP_TOKEN is too short: give it at least {_SHORTEST_BOOTSTRAP} random characters."
        )
    owner = await db.fetchrow(
        "SELECT id, organization_id FROM users WHERE kind = 'HUMAN' AND deactivated_at IS NULL "
        "AND role IN ('OWNER', 'ADMIN') "
        "AND organization_id = (SELECT id FROM organizations ORDER BY created_at, id LIMIT 1) "
        "ORDER BY role = 'OWNER' DESC, created_at, id LIMIT 1",
        row=UserRow,
    )
    if owner is None:
        raise Unavailable("There is no admin yet whose token QUARTERDECK_BOOTSTRAP_TOKEN could be.")
    async with write(system_actor(owner["organization_id"]), "access_token.bootstrap") as work:
        await work.tx.execute("SELECT 1 FROM organizations WHERE id = $1 FOR NO KEY UPDATE", owner["organization_id"])
        row = await work.tx.fetchrow(
            f"SELECT {_COLUMNS} FROM access_tokens WHERE secret_hash = $1", digest(secret), row=AccessTokenRow
        )
        if row is not None:
            work.entry.action = ""
            if row["revoked_at"] is not None:
                log.warning("QUARTERDECK_BOOTSTRAP_TOKEN was revoked and is not accepted: set another.")
            return row
        former = await work.tx.fetch(
            "UPDATE access_tokens SET revoked_at = now() "
            "WHERE organization_id = $1 AND name = $2 AND revoked_at IS NULL RETURNING id",
            owner["organization_id"],
            BOOTSTRAP_NAME,
            row=AccessTokenRow,
        )
        for token in former:
            work.after_commit(partial(tell_revoked, token["id"]))
        return await _insert(work, new_id(), owner["id"], BOOTSTRAP_NAME, secret, None, None)


def _check_owner(actor: Actor, owner: UserRow) -> None:
    if owner["deactivated_at"] is not None:
        raise BadInput("This user is deactivated.", field="userId")
    if owner["id"] == actor.user_id:
        return
    actor.require(Permission.MEMBERS_MANAGE)
    if owner["kind"] != UserKind.SERVICE:
        raise Forbidden("People make their own tokens; you can make some for service accounts.", field="userId")


async def _within_maker(
    work: Work, role: Role, scopes: Collection[Permission] | None, expires_at: datetime | None
) -> tuple[list[str] | None, datetime | None]:
    """The scopes and the end that the new token gets; Forbidden where they go beyond the maker's."""
    actor = work.actor
    maker = await work.tx.fetchrow(
        "SELECT scopes, expires_at FROM access_tokens WHERE id = $1", actor.credential_id, row=AccessTokenRow
    )
    if maker is not None and maker["expires_at"] is not None:
        if expires_at is not None and expires_at > maker["expires_at"]:
            raise Forbidden("A token cannot make one that lives longer than itself.", field="expiresAt")
        expires_at = expires_at or maker["expires_at"]
    allowed = OF_ROLE[role] & actor.permissions
    if scopes is not None:
        if beyond := sorted(set(scopes) - allowed):
            raise Forbidden(
                f"You cannot give {', '.join(beyond)}: it is more than you, or the user, may.", field="scopes"
            )
        return sorted(set(scopes)), expires_at
    # Written down where the maker is narrowed, so that the token does not grow with the user's role.
    narrowed = (maker is not None and maker["scopes"] is not None) or not OF_ROLE[role] <= actor.permissions
    return (sorted(allowed) if narrowed else None), expires_at


async def _insert(
    work: Work,
    token_id: UUID,
    user_id: UUID,
    name: str,
    secret: str,
    scopes: list[str] | None,
    expires_at: datetime | None,
) -> AccessTokenRow:
    row = await work.tx.fetchrow(
        "INSERT INTO access_tokens "
        "(id, organization_id, user_id, name, secret_hash, hint, scopes, created_at, expires_at) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING {_COLUMNS}",
        token_id,
        work.actor.organization_id,
        user_id,
        name,
        digest(secret),
        secret[-4:],
        scopes,
        work.at,
        expires_at,
        row=AccessTokenRow,
    )
    assert row is not None
    work.target("AccessToken", token_id, name)
    work.changed(after={"name": name, "userId": str(user_id), "scopes": scopes, "expiresAt": expires_at})
    return row


async def _lock_token(work: Work, token_id: UUID) -> AccessTokenRow:
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT {_COLUMNS} FROM access_tokens WHERE id = {query.arg(token_id)} "
        f"AND {query.scope(AccessToken.visible_to(work.actor))} FOR UPDATE",
        *query.args,
        row=AccessTokenRow,
    )
    if row is None:
        raise NotFound("There is no such access token, or you may not see it.", field="accessTokenId")
    work.target("AccessToken", row["id"], row["name"])
    return row
