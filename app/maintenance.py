"""What the commands for operators do: `migrate`, `user …`, `token …`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

from app.dev import database
from app.seed import seed
from app.wiring import among_processes, connected, prepare_database
from core import clock, db
from core.errors import BadInput, NotFound
from core.ids import decode, encode
from core.permissions import Origin, Permission, Role
from core.settings import Settings
from models.identity import AccessTokenRow, UserRow
from models.metrics import FACTS
from services.identity import accounts, tokens
from services.identity.actors import actor_of_user, system_actor
from services.identity.sign_in import create_sign_in_link
from services.metrics import ingest, retention, rollups
from services.metrics.families import Level

Echo = Callable[[str], object]


async def migrate(settings: Settings, echo: Echo) -> None:
    """Migrate, and make the first organisation with an owner where there is none."""
    with database(settings) as url:
        await prepare_database(url, lambda name: echo(f"  {name}"))
        async with connected(among_processes(settings, url), url):
            await seed(echo, demonstration=False)
            if settings.bootstrap_token is not None:
                await tokens.ensure_bootstrap_token(settings.bootstrap_token.get_secret_value())
        echo("The database is up to date.")


async def add_user(settings: Settings, email: str, name: str, role: str, organization: str | None, echo: Echo) -> None:
    async with _connected(settings):
        organization_id = await _organization(organization)
        row = await accounts.create_user(system_actor(organization_id), name=name, email=email, role=Role(role))
        secret = await create_sign_in_link(system_actor(organization_id), row["id"])
        echo(f"Added {name}. They sign in once, within 15 minutes, with {settings.base_url}/sign-in/link/{secret}")


async def sign_in_link(settings: Settings, email: str, echo: Echo) -> None:
    async with _connected(settings):
        row = await _user(email)
        secret = await create_sign_in_link(system_actor(row["organization_id"]), row["id"])
        echo(f"{settings.base_url}/sign-in/link/{secret}")


async def list_users(settings: Settings, echo: Echo) -> None:
    async with _connected(settings):
        for row in await db.fetch(
            "SELECT users.*, organizations.slug FROM users "
            "JOIN organizations ON organizations.id = users.organization_id "
            "ORDER BY organizations.slug, users.created_at"
        ):
            state = "deactivated" if row["deactivated_at"] else "active"
            echo(
                f"{encode('usr', row['id'])}  {row['slug']}  {row['role']:<6}  {state:<11}  {row['email'] or '-'}  "
                f"{row['name']}"
            )


async def create_token(
    settings: Settings, email: str, name: str, scopes: tuple[str, ...], days: int | None, echo: Echo
) -> None:
    unknown = [scope for scope in scopes if scope not in Permission.__members__]
    if unknown:
        raise BadInput(f"There is no permission {', '.join(unknown)}. There are {', '.join(Permission.__members__)}.")
    async with _connected(settings):
        actor = actor_of_user(await _user(email), None, Origin())
        made = await tokens.create_access_token(
            actor,
            name=name,
            scopes=[Permission(scope) for scope in scopes] or None,
            expires_at=clock.now() + timedelta(days=days) if days else None,
        )
        echo(made.secret or "")


async def list_tokens(settings: Settings, email: str, echo: Echo) -> None:
    async with _connected(settings):
        row = await _user(email)
        for token in await db.fetch(
            "SELECT * FROM access_tokens WHERE user_id = $1 ORDER BY created_at", row["id"], row=AccessTokenRow
        ):
            state = "revoked" if token["revoked_at"] else "active"
            expires = f"until {token['expires_at']:%Y-%m-%d}" if token["expires_at"] else "without end"
            echo(f"{encode('pat', token['id'])}  …{token['hint']}  {state:<7}  {expires}  {token['name']}")


async def revoke_token(settings: Settings, token_id: str, echo: Echo) -> None:
    async with _connected(settings):
        id_ = decode("pat", token_id)
        organization_id = await db.fetchval("SELECT organization_id FROM access_tokens WHERE id = $1", id_)
        if organization_id is None:
            raise NotFound(f"There is no access token {token_id}.")
        await tokens.revoke_access_token(system_actor(organization_id), id_)
        echo("Revoked.")


async def backfill_metrics(settings: Settings, since: datetime, echo: Echo) -> None:
    """Read the log once more from a time on: what is missing becomes facts, what is there stays as it is."""
    async with _connected(settings):
        before = await _facts_since(since)
        reader, read = await ingest.fill(since), 0
        while events := await ingest.ingest(reader):
            read += events
            echo(f"  {read} events read")
        while await rollups.roll():
            pass
        after = await _facts_since(since)
        for table, count in after.items():
            echo(f"{table}: {count - before[table]} new, {count} since then")


async def _facts_since(since: datetime) -> dict[str, int]:
    return {
        f"{fact}_facts": await db.fetchval(f"SELECT count(*) FROM {fact}_facts WHERE at >= $1", since) for fact in FACTS
    }


async def apply_metric_retention(settings: Settings, dry_run: bool, echo: Echo) -> None:
    """Drop facts and figures that are older than they are kept, or say what would go."""
    async with _connected(settings):
        for level in Level:
            age = retention.kept(level)
            echo(f"{level}: kept {'for ever' if age is None else f'{age.days} days'}")
        drops = await retention.drop_old(dry_run=dry_run)
        for drop in drops:
            times = f"{drop.first:%Y-%m-%d %H:%M} to {drop.last:%Y-%m-%d %H:%M}" if drop.first and drop.last else "-"
            chunks = "" if drop.chunks is None else f" in {drop.chunks} chunks"
            echo(f"{drop.table}: {drop.rows} rows{chunks}, {times}, {'would go' if dry_run else 'dropped'}")
        if not drops:
            echo("Nothing is older.")


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[None]:
    with database(settings) as url:
        async with connected(among_processes(settings, url), url):
            yield


async def _organization(slug: str | None) -> UUID:
    condition = "slug = $1" if slug else "$1::text IS NULL"
    found = await db.fetchval(f"SELECT id FROM organizations WHERE {condition} ORDER BY created_at LIMIT 1", slug)
    if found is None:
        raise NotFound(
            f"There is no organisation {slug!r}." if slug else "There is no organisation: run `migrate` first."
        )
    return found  # type: ignore[no-any-return]


async def _user(email: str) -> UserRow:
    row = await db.fetchrow("SELECT * FROM users WHERE email = $1", email.strip().lower(), row=UserRow)
    if row is None:
        raise NotFound(f"There is no user with the address {email}.")
    return row
