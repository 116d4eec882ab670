"""The first organisation, and a small demonstration that shows what a session is."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from core import db
from core.permissions import Actor, Origin, Role
from models.identity import UserRow
from models.sessions import Visibility
from services.identity import accounts
from services.identity.actors import actor_of_user, system_actor
from services.mcp_registration import NewMcpServer
from services.mcp_servers import register_mcp_server
from services.sessions.lifecycle import NewSession, complete_session, create_session
from services.sessions.options import SessionOptions

PATIENCE_TENTHS = 150

ADMIN = "admin@quarterdeck.localhost"
ENGINEER = "engineer@quarterdeck.localhost"
VIEWER = "viewer@quarterdeck.localhost"

DEMONSTRATION = """\
playbook: Real tools, step by step, without a model
steps:
  - tool: time.get_current_time
    arguments: {timezone: Etc/UTC}
    save: now
  - tool: write_file
    arguments: {path: notes.md, content: "# Notes\\n\\nWritten by the demonstration.\\n"}
  - tool: list_files
    expect: {contains: notes.md}
  - say: "The tools have answered: look at this session's toolExecutions. Fork it, or make a session of your own."
"""


async def first_admin() -> UserRow | None:
    """The first owner or admin of the installation who can sign in."""
    return await db.fetchrow(
        "SELECT * FROM users WHERE kind = 'HUMAN' AND deactivated_at IS NULL AND role IN ('OWNER', 'ADMIN') "
        "ORDER BY role = 'OWNER' DESC, created_at, id LIMIT 1",
        row=UserRow,
    )


async def seed(say: Callable[[str], object], *, demonstration: bool = True) -> None:
    """Make the first organisation, its owner and a demonstration, each where it is missing.

    Every step looks for itself at what is there: a start that was killed in between is continued by the next one.
    """
    organization = await _first_organization(say)
    owner = await _owner(organization)
    if demonstration and owner is not None and await _is_unused(organization):
        await _demonstrate(owner, say)


async def _first_organization(say: Callable[[str], object]) -> UUID:
    found = await db.fetchval("SELECT id FROM organizations ORDER BY created_at, id LIMIT 1")
    if found is None:
        say("Making the first organisation …")
        found = (await accounts.create_organization("Demo Organization", slug="demo"))["id"]
    return found  # type: ignore[no-any-return]


async def _owner(organization: UUID) -> UserRow | None:
    """The owner of the organisation, made where nobody else is; None where somebody is, but nobody who owns it."""
    found = await db.fetchrow(
        "SELECT * FROM users WHERE organization_id = $1 AND kind = 'HUMAN' AND role = 'OWNER' "
        "AND deactivated_at IS NULL ORDER BY created_at, id LIMIT 1",
        organization,
        row=UserRow,
    )
    if found is None and await _user(ADMIN) is None:
        return await accounts.create_user(system_actor(organization), name="Admin", email=ADMIN, role=Role.OWNER)
    return found


async def _is_unused(organization: UUID) -> bool:
    """Whether there is nothing but what we make ourselves: no session, and no server or user of others."""
    return not await db.fetchval(
        "SELECT EXISTS (SELECT FROM sessions) OR EXISTS (SELECT FROM mcp_servers WHERE name <> ALL ($1::text[])) "
        "OR EXISTS (SELECT FROM users WHERE email IS NULL OR email <> ALL ($2::text[]))",
        [server.name for server in _servers()],
        [ADMIN, ENGINEER, VIEWER],
    )


async def _demonstrate(owner: UserRow, say: Callable[[str], object]) -> None:
    say("Adding a small demonstration …")
    system = system_actor(owner["organization_id"])
    engineer = await _user(ENGINEER) or await accounts.create_user(system, name="Demo Engineer", email=ENGINEER)
    if await _user(VIEWER) is None:
        await accounts.create_user(system, name="Demo Viewer", email=VIEWER, role=Role.VIEWER)
    admin = actor_of_user(owner, None, Origin())
    known = {row["name"]: row["id"] for row in await db.fetch("SELECT id, name FROM mcp_servers")}
    servers = [known.get(server.name) or (await register_mcp_server(admin, server))["id"] for server in _servers()]
    # The session is really run: a worker takes its message from the queue as from anybody's.
    acting = actor_of_user(engineer, None, Origin())
    session = await create_session(
        acting,
        NewSession(
            title="Demonstration: a playbook with real tools",
            runtime="script",
            options=SessionOptions(allowed_tools=("write_file", "time.*")),
            visibility=Visibility.ORGANIZATION,
            labels={"demo": "true"},
            mcp_server_ids=servers,
            message=DEMONSTRATION,
        ),
    )
    await _complete(acting, session["id"])


async def _user(email: str) -> UserRow | None:
    return await db.fetchrow("SELECT * FROM users WHERE email = $1", email, row=UserRow)


async def _complete(actor: Actor, session_id: UUID) -> None:
    """Mark the session as done once its run has ended; without a worker that takes it, it stays open."""
    for _ in range(PATIENCE_TENTHS):
        if not await db.fetchval("SELECT 1 FROM runs WHERE session_id = $1 AND ended_at IS NULL", session_id):
            await complete_session(actor, session_id)
            return
        await asyncio.sleep(0.1)


def _servers() -> list[NewMcpServer]:
    found: list[NewMcpServer] = []
    for name, program, arguments, description in (
        (
            "time",
            "mcp-server-time",
            ("--local-timezone", "Etc/UTC"),
            "Current time, and conversion between time zones.",
        ),
        ("git", "mcp-server-git", (), "Status, log, diff and commits of git repositories in the session's directory."),
    ):
        path = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
        if path is not None:
            found.append(NewMcpServer(name=name, description=description, command=(path, *arguments)))
    return found
