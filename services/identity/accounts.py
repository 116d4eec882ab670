"""Organisations, their users and service accounts: who is in, with which role."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from core import db
from core.errors import BadInput, Conflict, Forbidden, NotFound
from core.ids import encode, new_id
from core.permissions import Actor, Permission, Role, at_least, permissions_of
from models.base import Query
from models.identity import ConnectionKind, OrganizationRow, User, UserKind, UserRow
from services import idempotency
from services.identity import passwords, throttle
from services.identity.actors import system_actor
from services.identity.checks import check_email, check_name, check_slug, slug_of
from services.identity.proving import Candidate, prove
from services.identity.revocations import tell_changed
from services.identity.succession import check_successor, succeed
from services.runs.endings import interrupt_runs_of
from services.work import Work, write

_COLUMNS = "id, organization_id, kind, name, email, role, deactivated_at, last_seen_at, successor_id, created_at"
"""All but the password's hash, which leaves this package with no row."""


async def create_organization(name: str, *, slug: str | None = None) -> OrganizationRow:
    """A new organisation whose members sign in with local accounts. For programs; raises BadInput, Conflict."""
    name = check_name(name)
    slug = check_slug(slug) if slug else slug_of(name)
    organization_id = new_id()
    async with write(system_actor(organization_id), "organization.create") as work:
        row = await work.tx.fetchrow(
            "INSERT INTO organizations (id, name, slug, region, created_at) VALUES ($1, $2, $3, 'local', $4) "
            "ON CONFLICT (slug) DO NOTHING RETURNING *",
            organization_id,
            name,
            slug,
            work.at,
            row=OrganizationRow,
        )
        if row is None:
            raise BadInput(f"There is an organisation {slug!r} already.", field="slug")
        await work.tx.execute(
            "INSERT INTO identity_connections (id, organization_id, kind, name, enabled, config, created_at) "
            "VALUES ($1, $2, $3, 'Local accounts', true, '{}', $4)",
            new_id(),
            organization_id,
            ConnectionKind.LOCAL,
            work.at,
        )
        work.target("Organization", organization_id, name)
        work.changed(after={"name": name, "slug": slug})
    return row


async def create_user(
    actor: Actor,
    *,
    name: str,
    email: str,
    role: Role = Role.MEMBER,
    password: str | None = None,
    key: str | None = None,
) -> UserRow:
    """A person. Without a password they can sign in by a link only. Raises BadInput, Forbidden, Conflict."""
    name, email = check_name(name), check_email(email)
    hashed = None
    if password is not None:
        passwords.check_password(password, about=(name, email))
        hashed = await passwords.hash_password(password)
    async with write(actor, "user.create") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        _check_may_give(actor, role)
        asked = {"name": name, "email": email, "role": role}
        return await _insert(work, UserKind.HUMAN, asked, hashed, "createUser", key)


async def create_service_account(
    actor: Actor, *, name: str, role: Role = Role.MEMBER, key: str | None = None
) -> UserRow:
    """An account for a program: it has access tokens, made by admins, and no password. Never an owner."""
    name = check_name(name)
    if role is Role.OWNER:
        raise BadInput("A service account cannot own the organisation. Make it an ADMIN at most.", field="role")
    async with write(actor, "service_account.create") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        _check_may_give(actor, role)
        return await _insert(
            work, UserKind.SERVICE, {"name": name, "email": None, "role": role}, None, "createServiceAccount", key
        )


async def update_user(
    actor: Actor,
    user_id: UUID,
    *,
    name: str | None = None,
    role: Role | None = None,
    active: bool | None = None,
    successor_id: UUID | None = None,
) -> UserRow:
    """Rename, change the role of, deactivate or reactivate a user; None leaves a thing as it is.

    Who is deactivated is signed out everywhere for good: web sessions, access tokens and sign-in links are revoked.
    What runs for somebody who is deactivated, or may write no more, is interrupted. Their living sessions go to
    `successor_id`, or else to the successor that was named before (services/identity/succession.py).
    Raises BadInput, Forbidden, NotFound, and Conflict where the organisation would be left without an owner.
    """
    name = None if name is None else check_name(name)
    if successor_id is not None and active is not False:
        raise BadInput(
            "A successor is given with `active: false`; setSuccessor names one beforehand.", field="successorId"
        )
    async with write(actor, "user.update") as work:
        actor.require(Permission.MEMBERS_MANAGE)
        # Two owners who demote each other at once must not both succeed.
        await work.tx.execute("SELECT 1 FROM organizations WHERE id = $1 FOR NO KEY UPDATE", actor.organization_id)
        before = await lock_user(work, user_id)
        check_may_change(actor, before)
        if role is not None and role != before["role"]:
            _check_may_give(actor, role)
            if role is Role.OWNER and before["kind"] == UserKind.SERVICE:
                raise BadInput("A service account cannot own the organisation. Make it an ADMIN at most.", field="role")
        was_active = before["deactivated_at"] is None
        is_active = was_active if active is None else active
        new_role = before["role"] if role is None else role
        if before["role"] == Role.OWNER and was_active and not (is_active and new_role == Role.OWNER):
            await _check_other_owner(work, user_id)
        row = await work.tx.fetchrow(
            "UPDATE users SET name = $2, role = $3, deactivated_at = CASE WHEN $4 THEN NULL "
            f"ELSE coalesce(deactivated_at, $5) END WHERE id = $1 RETURNING {_COLUMNS}",
            user_id,
            name or before["name"],
            new_role,
            is_active,
            work.at,
            row=UserRow,
        )
        assert row is not None
        if was_active and not is_active:
            await _revoke_all(work, user_id)
            await succeed(work, before, successor_id)
        work.changed(before=_public(before), after=_public(row))
        work.after_commit(lambda: tell_changed(user_id))
        if not is_active or Permission.SESSIONS_WRITE not in permissions_of(new_role):
            work.after_commit(lambda: interrupt_runs_of(actor, user_id))
    return row


async def set_successor(actor: Actor, user_id: UUID, successor_id: UUID | None) -> UserRow:
    """Name, or with None no longer name, who gets a user's sessions should they be deactivated: one's own, or, for
    admins, another's. Raises BadInput, Forbidden, NotFound."""
    async with write(actor, "user.set_successor") as work:
        actor.require(Permission.SESSIONS_WRITE if actor.user_id == user_id else Permission.MEMBERS_MANAGE)
        # As deactivation does: two user rows are held in turn.
        await work.tx.execute("SELECT 1 FROM organizations WHERE id = $1 FOR NO KEY UPDATE", actor.organization_id)
        before = await lock_user(work, user_id)
        check_may_change(actor, before)
        if successor_id is not None:
            await check_successor(work, user_id, successor_id)
        row = await work.tx.fetchrow(
            f"UPDATE users SET successor_id = $2 WHERE id = $1 RETURNING {_COLUMNS}", user_id, successor_id, row=UserRow
        )
        assert row is not None
        work.changed(before=_successor(before), after=_successor(row))
    return row


async def set_password(actor: Actor, user_id: UUID, password: str, *, current_password: str | None = None) -> UserRow:
    """A new password: one's own, which takes the current one where there is one, or, for admins, another's.

    The user's other web sessions and open sign-in links end. Raises BadInput, Forbidden, NotFound, RateLimited.
    """
    own = actor.user_id == user_id
    query = Query()
    user = await db.fetchrow(
        "SELECT id, organization_id, kind, name, email, role, deactivated_at, password_hash, true AS known_address "
        f"FROM users WHERE id = {query.arg(user_id)} AND {query.scope(User.visible_to(actor))}",
        *query.args,
        row=Candidate,
    )
    if user is None:
        raise NotFound("There is no such user in your organisation.", field="userId")
    if user["kind"] == UserKind.SERVICE:
        raise BadInput("A service account has no password; give it an access token.", field="userId")
    passwords.check_password(password, about=(user["name"], user["email"]))
    admission = None
    if own and user["password_hash"] is not None:
        wrong = Forbidden("The current password is wrong.", field="currentPassword")
        admission = await prove(user["email"], user, current_password or "", actor.origin, "user.set_password", wrong)
    hashed = await passwords.hash_password(password)
    async with write(actor, "user.set_password") as work:
        actor.require(Permission.TOKENS_MANAGE if own else Permission.MEMBERS_MANAGE)
        row = await lock_user(work, user_id)
        check_may_change(actor, row)
        if admission is not None:
            await throttle.forgive(work.tx, admission)
        await work.tx.execute("UPDATE users SET password_hash = $2 WHERE id = $1", user_id, hashed)
        await work.tx.execute(
            "UPDATE web_sessions SET revoked_at = now() "
            "WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $2",
            user_id,
            actor.credential_id,
        )
        await work.tx.execute(
            "UPDATE sign_in_links SET used_at = now() WHERE user_id = $1 AND used_at IS NULL", user_id
        )
        work.changed(after={"password": "[redacted]"})
        work.after_commit(lambda: tell_changed(user_id))
    return row


async def lock_user(work: Work, user_id: UUID, *, field: str = "userId") -> UserRow:
    """A user of the actor's organisation, held until the end of the transaction, as the audit record's target."""
    query = Query()
    row = await work.tx.fetchrow(
        f"SELECT {_COLUMNS} FROM users WHERE id = {query.arg(user_id)} "
        f"AND {query.scope(User.visible_to(work.actor))} FOR NO KEY UPDATE",
        *query.args,
        row=UserRow,
    )
    if row is None:
        raise NotFound("There is no such user in your organisation.", field=field)
    work.target("User", row["id"], row["name"])
    return row


def check_may_change(actor: Actor, user: UserRow) -> None:
    """Raises Forbidden where the user's role is above the actor's."""
    if not at_least(actor.role, Role(user["role"])):
        raise Forbidden(
            f"You are {actor.role.value} and cannot change an {user['role']}; ask an owner.", field="userId"
        )


async def _insert(
    work: Work, kind: UserKind, asked: dict[str, Any], hashed: str | None, operation: str, key: str | None
) -> UserRow:
    found = await idempotency.claim(work, operation, key, asked)
    if found.earlier is not None:
        work.entry.action = ""  # nothing happens a second time
        return await lock_user(work, found.earlier)
    row = await work.tx.fetchrow(
        "INSERT INTO users (id, organization_id, kind, name, email, role, password_hash, created_at) "
        f"VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (email) DO NOTHING RETURNING {_COLUMNS}",
        found.result_id,
        work.actor.organization_id,
        kind,
        asked["name"],
        asked["email"],
        asked["role"],
        hashed,
        work.at,
        row=UserRow,
    )
    if row is None:
        raise Conflict("This email address has an account already.", field="email")
    work.target("User", row["id"], row["name"])
    work.changed(after=_public(row))
    return row


async def _check_other_owner(work: Work, user_id: UUID) -> None:
    other = await work.tx.fetchval(
        "SELECT 1 FROM users WHERE organization_id = $1 AND role = 'OWNER' AND deactivated_at IS NULL AND id <> $2 "
        "LIMIT 1",
        work.actor.organization_id,
        user_id,
    )
    if other is None:
        raise Conflict("This is the organisation's last owner. Make somebody else an owner first.", field="userId")


async def _revoke_all(work: Work, user_id: UUID) -> None:
    for table, column in (
        ("web_sessions", "revoked_at"),
        ("access_tokens", "revoked_at"),
        ("sign_in_links", "used_at"),
    ):
        await work.tx.execute(f"UPDATE {table} SET {column} = now() WHERE user_id = $1 AND {column} IS NULL", user_id)


def _check_may_give(actor: Actor, role: Role) -> None:
    if not at_least(actor.role, role):
        raise Forbidden(
            f"You are {actor.role.value} and cannot give the role {role.value}; ask an owner.", field="role"
        )


def _successor(row: UserRow) -> dict[str, Any]:
    return {"successorId": encode("usr", row["successor_id"]) if row["successor_id"] else None}


def _public(row: UserRow) -> dict[str, Any]:
    return {
        "name": row["name"],
        "email": row["email"],
        "role": row["role"],
        "kind": row["kind"],
        "active": row["deactivated_at"] is None,
    }
