"""The `quarterdeck` command."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from app.templates_cli import template
from core.errors import QuarterdeckError
from core.logging import configure
from core.settings import settings

# Most of a command's start is imports, and nothing of what they make is garbage.
gc.set_threshold(50_000, 50, 100)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Quarterdeck: the control plane for AI-agent sessions. Settings come from the environment: docs/settings.md."""
    found = settings()
    configure(found.log_level, found.log_format)


@main.command()
def dev() -> None:
    """Web and worker in one process, with an embedded database where QUARTERDECK_DATABASE_URL names none."""
    from app.dev import run

    # A supervisor's polite end is the same as Ctrl-C, also before the server has taken over the signals.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(settings())


@main.command()
def web() -> None:
    """Serve the graph. Any number of processes may, over one database and one bus."""
    from app.serve import listen, serve, server_for, tune_memory
    from app.web import WebApp, connecting
    from app.wiring import among_processes, database_url

    found = settings()
    url = database_url(found)
    found = among_processes(found, url)
    listener = listen(found)
    app = WebApp(found)
    tune_memory()
    serve(server_for(app, found), listener, connecting(app, url))


@main.command()
def worker() -> None:
    """Execute runs. Any number of processes may, over one database and one bus."""
    from app.worker import work

    _run(work(settings()))


@main.command()
def migrate() -> None:
    """Bring the database up to date, and make the first organisation where there is none."""
    from app.maintenance import migrate as run

    _run(run(settings(), click.echo))


@main.group()
def user() -> None:
    """Users: add them, list them, let them in."""


@user.command("add")
@click.argument("email")
@click.option("--name", required=True, help="How others see them.")
@click.option("--role", type=click.Choice(["OWNER", "ADMIN", "MEMBER", "VIEWER"]), default="MEMBER", show_default=True)
@click.option("--organization", help="Slug of the organisation; the first one where left out.")
def user_add(email: str, name: str, role: str, organization: str | None) -> None:
    """Add a user, and print a link that signs them in once."""
    from app.maintenance import add_user

    _run(add_user(settings(), email, name, role, organization, click.echo))


@user.command("link")
@click.argument("email")
def user_link(email: str) -> None:
    """Print a link that signs a user in once, within 15 minutes."""
    from app.maintenance import sign_in_link

    _run(sign_in_link(settings(), email, click.echo))


@user.command("list")
def user_list() -> None:
    """List all users."""
    from app.maintenance import list_users

    _run(list_users(settings(), click.echo))


@main.group()
def token() -> None:
    """Access tokens."""


@token.command("create")
@click.argument("email")
@click.option("--name", required=True, help="What the token is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A permission; may be given several times. All of the user's where left out.",
)
@click.option("--days", type=click.IntRange(1, 3650), help="Days until it expires.")
def token_create(email: str, name: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make an access token for a user, and print it: it is shown once."""
    from app.maintenance import create_token

    _run(create_token(settings(), email, name, scopes, days, click.echo))


@token.command("list")
@click.argument("email")
def token_list(email: str) -> None:
    """List a user's access tokens."""
    from app.maintenance import list_tokens

    _run(list_tokens(settings(), email, click.echo))


@token.command("revoke")
@click.argument("token_id")
def token_revoke(token_id: str) -> None:
    """Revoke an access token by its id (`pat_…`)."""
    from app.maintenance import revoke_token

    _run(revoke_token(settings(), token_id, click.echo))


@main.group()
def documents() -> None:
    """The documents that client programs send, by release: docs/documents.md."""


@documents.command("register")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--client", required=True, help="The program: web, mobile, …")
@click.option("--release", required=True, help="Its release, as you number it.")
def documents_register(files: tuple[Path, ...], client: str, release: str) -> None:
    """Register the documents of a client's release: .graphql files, a map of ids as relay-compiler and GraphQL Code
    Generator write it, or Apollo's manifest."""
    from app.documents import register

    _run(register(settings(), client, release, files, click.echo))


@documents.command("list")
def documents_list() -> None:
    """List all releases with their number of documents."""
    from app.documents import list_releases

    _run(list_releases(settings(), click.echo))


@documents.command("retire")
@click.option("--client", required=True)
@click.option("--release", required=True)
def documents_retire(client: str, release: str) -> None:
    """Nobody runs this release any more: documents that no other uses are not executed from now on."""
    from app.documents import retire

    _run(retire(settings(), client, release, click.echo))


@documents.command("check")
def documents_check() -> None:
    """Check every document in use against today's schema and limits. Exits with 1 where one does not fit."""
    from app.documents import check

    if not asyncio.run(check(settings(), click.echo)):
        raise SystemExit(1)


main.add_command(template)


@main.group()
def metrics() -> None:
    """Facts and figures of what sessions do: docs/analytics-storage.md."""


@metrics.command("backfill")
@click.option("--from", "since", required=True, type=click.DateTime(), help="From when on, in UTC: 2026-01-31.")
def metrics_backfill(since: datetime) -> None:
    """Make facts of the events since then that have none. Repeating it does no harm."""
    from app.maintenance import backfill_metrics

    _run(backfill_metrics(settings(), since.replace(tzinfo=UTC), click.echo))


@metrics.command("retention")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def metrics_retention(dry_run: bool) -> None:
    """Drop what is older than QUARTERDECK_METRICS_…_DAYS; workers do so every hour."""
    from app.maintenance import apply_metric_retention

    _run(apply_metric_retention(settings(), dry_run, click.echo))


@main.command()
def schema() -> None:
    """Print the schema of the graph in SDL."""
    from schema.build import build_schema

    click.echo(build_schema().as_str())


@main.command()
def doctor() -> None:
    """Say what is configured, reachable and licensed, and what is not and why. Exits with 1 where something is
    broken."""
    from app.doctor import examine

    if not asyncio.run(examine(settings(), click.echo)):
        raise SystemExit(1)


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def entry() -> None:
    """Run the command; errors that a person can act on are said in one line."""
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except QuarterdeckError as error:
        click.echo(f"quarterdeck: {error.message}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    entry()
