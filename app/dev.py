"""`quarterdeck dev`: everything in one process, with a database of its own where none is given."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from app.seed import first_admin, seed
from app.seed_templates import seed_templates
from app.serve import listen, serve, server_for, tune_memory
from app.web import WebApp, connecting
from app.wiring import Program, make_home, prepare_database, working
from core.settings import Settings
from integrations.postgres.embedded import EmbeddedPostgres
from services.identity.actors import system_actor
from services.identity.sign_in import create_sign_in_link
from services.identity.tokens import ensure_bootstrap_token


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URL of the given database, or of the embedded one, which runs as long as the context is open."""
    make_home(settings)
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    with EmbeddedPostgres(settings.data, say=say) as server:
        yield server.dsn


def run(settings: Settings) -> None:
    """Start everything, print where it is, and serve until interrupted."""
    started = time.monotonic()
    listener = listen(settings)
    with database(settings) as url:
        say("Bringing the database up to date …")
        asyncio.run(prepare_database(url, lambda name: say(f"  {name}")))
        app = WebApp(settings)
        around = connecting(app, url, also=lambda program: _beside(program, settings, started))
        tune_memory()
        serve(server_for(app, settings), listener, around)
        say("Stopping …")
    say("Stopped.")


@asynccontextmanager
async def _beside(program: Program, settings: Settings, started: float) -> AsyncIterator[None]:
    async with working(program):
        await seed(say)
        await greet(settings, started)
        # Their tests take a few seconds, for which nobody has to wait.
        templates = asyncio.create_task(_templates())
        try:
            yield
        finally:
            templates.cancel()
            await asyncio.gather(templates, return_exceptions=True)


async def _templates() -> None:
    if (owner := await first_admin()) is not None:
        await seed_templates(owner)


async def greet(settings: Settings, started: float) -> None:
    """Say where everything is, with a link that signs the admin in once."""
    admin = await first_admin()
    if settings.bootstrap_token is not None:
        await ensure_bootstrap_token(settings.bootstrap_token.get_secret_value())
    lines = [f"Quarterdeck is ready after {time.monotonic() - started:.1f} s: {settings.base_url}/graphql"]
    if admin is not None:
        secret = await create_sign_in_link(system_actor(admin["organization_id"]), admin["id"])
        lines.append(f"Sign in as {admin['name']} (once, within 15 minutes): {settings.base_url}/sign-in/link/{secret}")
    lines.append("Ctrl-C stops everything.")
    print("\n" + "\n".join(lines) + "\n", flush=True)
