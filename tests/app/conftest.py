"""The people of the shared server: two organisations, and one of each role."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from app.serve import server_for
from app.wiring import connected
from core import db
from core.ids import encode
from core.permissions import Actor, Origin, Role
from core.settings import Settings
from models.identity import UserRow
from services.identity.accounts import create_organization, create_user
from services.identity.actors import actor_of_user, system_actor
from services.identity.tokens import create_access_token
from tests.clients_of_graph import Client
from tests.conftest import Server


@dataclass(frozen=True)
class Person:
    """Somebody with a token."""

    id: str
    name: str
    client: Client


@dataclass(frozen=True)
class People:
    """`admin` is the server's first user; `stranger` owns another organisation."""

    admin: Person
    member: Person
    colleague: Person
    viewer: Person
    stranger: Person


@pytest.fixture(scope="session")
def people(server: Server, tmp_path_factory: pytest.TempPathFactory) -> People:
    return asyncio.run(_people(server, tmp_path_factory.mktemp("people")))


async def _people(server: Server, home: Path) -> People:
    settings = Settings(
        home=home,
        secret_key=server.environment["QUARTERDECK_SECRET_KEY"],  # type: ignore[arg-type]
        database_pool_size=2,
    )
    async with connected(settings, server.environment["QUARTERDECK_DATABASE_URL"]):
        body = await server.client("{ viewer { user { id name } } }")
        admin = Person(body["viewer"]["user"]["id"], body["viewer"]["user"]["name"], server.client)
        ours = system_actor(await db.fetchval("SELECT id FROM organizations WHERE slug = 'demo'"))
        theirs = system_actor((await create_organization("Elsewhere"))["id"])

        async def person(system: Actor, name: str, role: Role) -> Person:
            address = f"{name.lower().replace(' ', '.')}@tests.example"
            row: UserRow = await create_user(system, name=name, email=address, role=role)
            made = await create_access_token(actor_of_user(row, None, Origin()), name="tests", scopes=None)
            return Person(encode("usr", row["id"]), name, server.as_(made.secret))

        return People(
            admin,
            await person(ours, "Test Member", Role.MEMBER),
            await person(ours, "Test Colleague", Role.MEMBER),
            await person(ours, "Test Viewer", Role.VIEWER),
            await person(theirs, "Test Stranger", Role.OWNER),
        )


@asynccontextmanager
async def served(
    app: ASGIApp, settings: Settings, *, protocol: type[asyncio.Protocol] | None = None
) -> AsyncIterator[str]:
    """The application as uvicorn serves it, or with another protocol for WebSockets."""
    listener = sockets.create_server(("127.0.0.1", 0))
    server = server_for(app, settings)
    if protocol is not None:
        server.config.ws = protocol
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
