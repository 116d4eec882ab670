"""Links that give whoever of the organisation redeems them access to a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from core.crypto import digest, new_secret
from core.errors import BadInput, Forbidden, LimitExceeded, NotFound
from core.ids import encode
from core.permissions import Actor, Permission
from models.base import Query
from models.sessions import SessionRow
from models.sharing import SESSION, AccessLevel, GrantRow, ShareLink, ShareLinkRow
from services import idempotency
from services.sharing.access import AccessReasonKind, Somebody, accesses
from services.sharing.giving import Terms, give
from services.sharing.policy import policy_in
from services.sharing.resources import Resource
from services.work import Work, write

MOST_LINKS = 50
"""Living ones of one session."""

MOST_USES = 500

COLUMNS = (
    "id, organization_id, resource_kind, resource_id, hint, level, expires_at, max_uses, use_count, created_by_id, "
    "created_at, revoked_at, revoked_by_id"
)
"""All but the secret's hash, which leaves this package with no row."""

# A grant that came by the link may have got other terms since; its former ones still name the link.
_TAKEN_BACK = """
SELECT 1 FROM grants
WHERE resource_kind = $1 AND resource_id = $2 AND user_id = $3 AND revoked_by_id <> user_id AND replaced_by_id IS NULL
    AND (via_link_id = $4 OR id IN (
        SELECT former.replaced_by_id FROM grants former
        WHERE former.resource_kind = $1 AND former.resource_id = $2 AND former.via_link_id = $4))
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link as it is made. `secret` is shown once; None where an idempotency key found the link made before."""

    row: ShareLinkRow
    secret: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a link has given: a grant, or None where its user had as much already."""

    session_id: UUID
    grant: GrantRow | None


async def create_share_link(
    actor: Actor,
    session_id: UUID,
    *,
    level: AccessLevel,
    expires_at: datetime | None = None,
    max_uses: int | None = None,
    key: str | None = None,
) -> NewLink:
    """A link to a session. Raises Forbidden for all but its admins and where the organisation allows no links,
    NotFound, BadInput, LimitExceeded."""
    if level is AccessLevel.ADMIN:
        raise BadInput("A link gives READ or WRITE. Give ADMIN to people and teams by name.", field="level")
    if max_uses is not None and not 1 <= max_uses <= MOST_USES:
        raise BadInput(f"A link is good for 1 to {MOST_USES} uses.", field="maxUses")
    secret = new_secret("qdl")
    async with write(actor, "share_link.create") as work:
        actor.require(Permission.SESSIONS_SHARE)
        session = await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        asked = {"session": session_id, "level": level, "expiresAt": expires_at, "maxUses": max_uses}
        found = await idempotency.claim(work, "createShareLink", key, asked)
        if found.earlier is not None:
            work.entry.action = ""  # nothing happens a second time
            return NewLink(await _lock(work, found.earlier), None)
        policy = await policy_in(work)
        policy.check_links()
        expires_at = policy.end_of_grant(expires_at)
        await _check_room(work, session)
        row = await work.tx.fetchrow(
            "INSERT INTO share_links (id, organization_id, resource_kind, resource_id, secret_hash, hint, level, "
            "expires_at, max_uses, use_count, created_by_id, created_at) "
            f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11) RETURNING {COLUMNS}",
            found.result_id,
            session["organization_id"],
            SESSION,
            session["id"],
            digest(secret),
            secret[-4:],
            level,
            expires_at,
            max_uses,
            actor.user_id,
            work.at,
            row=ShareLinkRow,
        )
        assert row is not None
        work.target("ShareLink", row["id"], session["title"])
        work.changed(after=_public(row))
        _emit(work, "created", row)
    return NewLink(row, secret)


async def revoke_share_link(actor: Actor, link_id: UUID) -> ShareLinkRow:
    """Make a link useless; again has no effect. What it gave stays: revoke those grants where they are not wanted.
    Raises NotFound, Forbidden."""
    async with write(actor, "share_link.revoke") as work:
        actor.require(Permission.SESSIONS_SHARE)
        query = Query()
        session_id = await work.tx.fetchval(
            f"SELECT resource_id FROM share_links WHERE share_links.id = {query.arg(link_id)} "
            f"AND share_links.resource_kind = '{SESSION}' AND {query.scope(ShareLink.visible_to(actor))}",
            *query.args,
        )
        if session_id is None:
            raise NotFound("There is no such link, or you may not see it.", field="shareLinkId")
        await work.lock_session(session_id, needs=AccessLevel.ADMIN)
        before = await _lock(work, link_id)
        if before["revoked_at"] is not None:
            work.entry.action = ""  # nothing happens a second time
            return before
        row = await work.tx.fetchrow(
            f"UPDATE share_links SET revoked_at = $2, revoked_by_id = $3 WHERE id = $1 RETURNING {COLUMNS}",
            link_id,
            work.at,
            actor.user_id,
            row=ShareLinkRow,
        )
        assert row is not None
        work.target("ShareLink", row["id"])
        work.changed(before=_public(before))
        _emit(work, "revoked", row)
    return row


async def redeem_share_link(actor: Actor, secret: str) -> Redeemed:
    """Take the access that a link gives. Who has as much by a grant of their own, or manages the session anyway,
    uses nothing of the link.

    Raises NotFound for a link that is not good (any more), Forbidden where the organisation allows no links, and where
    somebody has ended what this link gave to the actor.
    """
    async with write(actor, "share_link.redeem") as work:
        session_id = await work.tx.fetchval(
            f"SELECT resource_id FROM share_links WHERE secret_hash = $1 AND organization_id = $2 "
            f"AND resource_kind = '{SESSION}'",
            digest(secret),
            actor.organization_id,
        )
        if session_id is None or actor.user_id is None:
            raise _not_good()
        session = await work.hold_session(session_id)
        work.entry.session_id = session_id
        link = await work.tx.fetchrow(
            f"SELECT {COLUMNS} FROM share_links WHERE secret_hash = $1 FOR UPDATE", digest(secret), row=ShareLinkRow
        )
        assert link is not None
        work.target("ShareLink", link["id"], session["title"])
        if link["revoked_at"] is not None or (link["expires_at"] is not None and link["expires_at"] <= work.at):
            raise _not_good()
        policy = await policy_in(work)
        policy.check_links()
        if await _has_as_much(work, session, AccessLevel(link["level"])):
            work.entry.action = ""  # nothing happens
            return Redeemed(session_id, None)
        if link["created_by_id"] == actor.user_id:
            raise BadInput("You made this link: you cannot give access to yourself by it.", field="secret")
        if await work.tx.fetchval(_TAKEN_BACK, SESSION, session_id, actor.user_id, link["id"]):
            raise Forbidden(
                "The access that this link gave you was taken back. Ask who manages the session to share it with you.",
                field="secret",
            )
        if link["max_uses"] is not None and link["use_count"] >= link["max_uses"]:
            raise _not_good()
        await work.tx.execute("UPDATE share_links SET use_count = use_count + 1 WHERE id = $1", link["id"])
        work.changed(before={"uses": link["use_count"]}, after={"uses": link["use_count"] + 1})
        terms = Terms(AccessLevel(link["level"]), expires_at=policy.end_of_grant(None))
        names = {actor.user_id: actor.name}
        [grant] = await give(work, Resource.session(session), names, terms, users=[actor.user_id], via_link=link["id"])
    return Redeemed(session_id, grant)


async def _has_as_much(work: Work, session: SessionRow, level: AccessLevel) -> bool:
    [access] = await accesses(work.tx.fetch, Somebody.acting(work.actor), [session])
    lasting = (AccessReasonKind.OWNER, AccessReasonKind.ORGANIZATION_ADMIN, AccessReasonKind.GRANT)
    return any(reason.kind in lasting and reason.level.includes(level) for reason in access.via)


async def _check_room(work: Work, session: SessionRow) -> None:
    there = await work.tx.fetchval(
        "SELECT count(*) FROM share_links WHERE resource_kind = $1 AND resource_id = $2 AND revoked_at IS NULL "
        "AND (expires_at IS NULL OR expires_at > $3) AND (max_uses IS NULL OR use_count < max_uses)",
        SESSION,
        session["id"],
        work.at,
    )
    if there >= MOST_LINKS:
        raise LimitExceeded(f"A session has at most {MOST_LINKS} links. Revoke those that are not used.")


async def _lock(work: Work, link_id: UUID) -> ShareLinkRow:
    row = await work.tx.fetchrow(
        f"SELECT {COLUMNS} FROM share_links WHERE id = $1 FOR UPDATE", link_id, row=ShareLinkRow
    )
    assert row is not None
    return row


def _emit(work: Work, what: str, link: ShareLinkRow) -> None:
    data = {"linkId": encode("lnk", link["id"]), "level": link["level"]}
    work.emit("CUSTOM", data, name=f"quarterdeck.link.{what}")


def _public(link: ShareLinkRow) -> dict[str, Any]:
    return {
        "level": link["level"],
        "expiresAt": link["expires_at"],
        "maxUses": link["max_uses"],
        "uses": link["use_count"],
    }


def _not_good() -> NotFound:
    return NotFound("This link is not valid, or no longer. Ask for a new one.", field="secret")
