"""Signing in and out of browsers: by password, or by a link that works once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from core import db
from core.crypto import digest, new_secret
from core.errors import BadInput, NotFound, Unauthenticated
from core.ids import new_id
from core.permissions import Actor, Origin, Permission
from models.base import Query
from models.identity import UserKind, WebSession, WebSessionRow
from services import audit
from services.identity import passwords, throttle
from services.identity.accounts import check_may_change, lock_user
from services.identity.actors import actor_of_user
from services.identity.checks import normal_email
from services.identity.proving import Candidate, prove, refusal
from services.identity.revocations import tell_revoked
from services.parts import parts
from services.work import Work, write

_COLUMNS = "id, user_id, ip, user_agent, created_at, expires_at, revoked_at"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A browser that has just signed in. `secret` goes into its cookie and is stored nowhere."""

    secret: str = field(repr=False)
    expires_at: datetime
    actor: Actor


async def sign_in_with_password(email: str, password: str, origin: Origin) -> SignedIn:
    """Raises Unauthenticated, the same and as slowly for an unknown account as for a wrong password; RateLimited."""
    account = normal_email(email)
    user = await db.fetchrow(
        "SELECT id, organization_id, kind, name, email, role, deactivated_at, password_hash, EXISTS ("
        "SELECT 1 FROM web_sessions w WHERE w.user_id = users.id AND w.ip = $2) AS known_address "
        "FROM users WHERE email = $1",
        account,
        origin.ip,
        row=Candidate,
    )
    wrong = Unauthenticated("The email address or the password is wrong.")
    admission = await prove(account, user, password, origin, "sign_in.password", wrong)
    assert user is not None
    rehashed = await passwords.hash_password(password) if passwords.needs_rehash(user["password_hash"]) else None
    actor = actor_of_user(user, new_id(), origin)
    async with write(actor, "sign_in.password") as work:
        await throttle.forgive(work.tx, admission)
        # While the password was looked at it may have been changed, or the account deactivated.
        current = await work.tx.fetchval(
            "SELECT password_hash FROM users WHERE id = $1 AND deactivated_at IS NULL FOR NO KEY UPDATE", user["id"]
        )
        if current != user["password_hash"]:
            raise wrong
        if rehashed is not None:
            await work.tx.execute("UPDATE users SET password_hash = $2 WHERE id = $1", user["id"], rehashed)
        return await _open_web_session(work)


async def create_sign_in_link(actor: Actor, user_id: UUID, *, minutes: int = 15) -> str:
    """The secret of a link that signs a user in once: `/sign-in/link/{secret}`. For programs and admins."""
    secret = new_secret("qdl")
    async with write(actor, "sign_in_link.create") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        user = await lock_user(work, user_id)
        check_may_change(actor, user)
        if user["kind"] == UserKind.SERVICE or user["deactivated_at"] is not None:
            raise BadInput("Only active people can sign in.", field="userId")
        await work.tx.execute(
            "INSERT INTO sign_in_links (id, user_id, secret_hash, created_at, expires_at) "
            "VALUES ($1, $2, $3, now(), now() + make_interval(mins => $4))",
            new_id(),
            user_id,
            digest(secret),
            minutes,
        )
    return secret


async def sign_in_with_link(secret: str, origin: Origin) -> SignedIn:
    """Raises NotFound where the link was never one, was used, or is too old; of two at once one succeeds."""
    user = await db.fetchrow(
        "SELECT l.id AS link_id, u.id, u.organization_id, u.kind, u.name, u.role FROM sign_in_links l "
        "JOIN users u ON u.id = l.user_id WHERE l.secret_hash = $1 AND u.deactivated_at IS NULL",
        digest(secret),
        row=Candidate,
    )
    gone = NotFound("This sign-in link was used already, or is too old. Ask for a new one.")
    if user is None:
        await _refuse_unknown_link(origin, gone)
        raise gone
    async with write(actor_of_user(user, new_id(), origin), "sign_in.link") as work:
        used = await work.tx.fetchval(
            "UPDATE sign_in_links SET used_at = now() WHERE id = $1 AND used_at IS NULL AND expires_at > now() "
            "RETURNING id",
            user["link_id"],
        )
        active = await work.tx.fetchval(
            "SELECT 1 FROM users WHERE id = $1 AND deactivated_at IS NULL FOR NO KEY UPDATE", user["id"]
        )
        if used is None or active is None:
            raise gone
        return await _open_web_session(work)


async def sign_out(actor: Actor) -> None:
    """End the web session that the actor came with; nothing where there is none."""
    if actor.credential_id is None:
        return
    async with write(actor, "sign_out") as work:
        await _close_web_session(work, actor.credential_id)


async def revoke_web_session(actor: Actor, web_session_id: UUID) -> WebSessionRow:
    """Sign out one of one's own browsers; again has no effect. Raises NotFound."""
    async with write(actor, "web_session.revoke") as work:
        actor.require(Permission.TOKENS_MANAGE)
        row = await _close_web_session(work, web_session_id)
        if row is None:
            raise NotFound("You have no such web session.", field="webSessionId")
    return row


async def _refuse_unknown_link(origin: Origin, gone: NotFound) -> None:
    """Secrets of 256 bits cannot be guessed; what is limited here is how fast an address fills the audit log."""
    async with db.transaction() as tx:
        admission = await throttle.admit(tx, "link", origin.ip, known_address=True)
        if admission.wait_seconds == 0 or admission.first_refusal:
            await audit.record(tx, refusal(None, origin, "sign_in.link", gone))


async def _open_web_session(work: Work) -> SignedIn:
    actor = work.actor
    secret = new_secret("qdw")
    expires_at = await work.tx.fetchval(
        "INSERT INTO web_sessions (id, user_id, secret_hash, ip, user_agent, created_at, expires_at) "
        "VALUES ($1, $2, $3, $4, $5, now(), now() + make_interval(hours => $6)) RETURNING expires_at",
        actor.credential_id,
        actor.user_id,
        digest(secret),
        actor.origin.ip,
        (actor.origin.user_agent or "")[:400] or None,
        parts().settings.web_session_hours,
    )
    assert actor.user_id is not None
    work.target("User", actor.user_id, actor.name)
    return SignedIn(secret, expires_at, actor)


async def _close_web_session(work: Work, web_session_id: UUID) -> WebSessionRow | None:
    query = Query()
    row = await work.tx.fetchrow(
        "UPDATE web_sessions SET revoked_at = coalesce(revoked_at, now()) "
        f"WHERE id = {query.arg(web_session_id)} AND {query.scope(WebSession.visible_to(work.actor))} "
        f"RETURNING {_COLUMNS}",
        *query.args,
        row=WebSessionRow,
    )
    if row is not None:
        work.target("WebSession", row["id"])
        work.after_commit(lambda: tell_revoked(web_session_id))
    return row
