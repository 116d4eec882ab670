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


async def seed(say: Callable[[str], object], *, demonstration: bool = True) -> bool:
    """Make the first organisation where there is none. Returns whether it did."""
    if await db.fetchval("SELECT 1 FROM organizations LIMIT 1"):
        return False
    say("Making the first organisation …")
    organization = await accounts.create_organization("Demo Organization", slug="demo")
    system = system_actor(organization["id"])
    owner = await accounts.create_user(system, name="Admin", email="admin@quarterdeck.localhost", role=Role.OWNER)
    if not demonstration:
        return True
    say("Adding a small demonstration …")
    engineer = await accounts.create_user(system, name="Demo Engineer", email="engineer@quarterdeck.localhost")
    await accounts.create_user(system, name="Demo Viewer", email="viewer@quarterdeck.localhost", role=Role.VIEWER)
    admin = actor_of_user(owner, None, Origin())
    servers = [await register_mcp_server(admin, server) for server in _servers()]
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
            mcp_server_ids=[server["id"] for server in servers],
            message=DEMONSTRATION,
        ),
    )
    await _complete(acting, session["id"])
    return True


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
