"""How the commands start: on databases of other people, and on ones that cannot be used."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from pydantic import SecretStr

from app import seed as seeding
from app.seed import first_admin, seed
from app.wiring import Program, among_processes, connected, working
from core import db
from core.bus import Bus, BusMessage
from core.errors import Unavailable
from core.settings import Settings
from services.identity import accounts
from services.identity.actors import system_actor
from services.identity.tokens import ensure_bootstrap_token
from tests.conftest import ROOT, free_port
from tests.databases import TestServer


def command(home: Path, url: str | None, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A `quarterdeck` command that ended by itself."""
    environment = {"PATH": os.environ["PATH"], "QUARTERDECK_HOME": str(home)} | more
    if url is not None:
        environment["QUARTERDECK_DATABASE_URL"] = url
    return subprocess.run(
        [ROOT / "quarterdeck", *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def plain_owner(postgres: TestServer) -> Iterator[str]:
    """The URL of an empty database for its owner, who has no further rights."""
    admin, user = postgres.create_database(), f"owner_{secrets.token_hex(4)}"
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {user} LOGIN")
        connection.execute(f"ALTER DATABASE {urlsplit(admin).path[1:]} OWNER TO {user}")
    yield urlsplit(admin)._replace(netloc=f"{user}@").geturl()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"REASSIGN OWNED BY {user} TO CURRENT_USER")
        connection.execute(f"DROP OWNED BY {user}")
        connection.execute(f"DROP ROLE {user}")
    postgres.drop_database(admin)


def test_an_owner_of_the_database_without_further_rights_is_enough(
    tmp_path: Path, migrated: str, plain_owner: str
) -> None:
    for _ in range(2):
        done = command(tmp_path, plain_owner, "migrate")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    said = command(tmp_path, plain_owner, "doctor").stdout
    [role] = [line for line in said.splitlines() if line[6:].startswith("role")]
    assert role.startswith("note")
    assert "CREATE ROLE quarterdeck_app NOLOGIN; GRANT quarterdeck_app TO owner_" in role
    assert "FAIL" not in said


class Killed(BaseException):
    """Ends a process wherever it is."""


@pytest.fixture
def unreachable() -> str:
    return "postgresql://somebody:hush-hush@127.0.0.1:1/some_name"


@pytest.mark.parametrize("arguments", [["web"], ["worker"], ["migrate"], ["dev"], ["user", "list"]])
def test_a_database_that_cannot_be_reached_is_said_in_one_line(
    tmp_path: Path, unreachable: str, arguments: list[str]
) -> None:
    done = command(tmp_path, unreachable, *arguments, PORT=str(free_port()))
    assert done.returncode == 1
    said = (done.stdout + done.stderr).strip()
    assert "127.0.0.1:1" in said
    assert "some_name" in said
    assert "Traceback" not in said
    assert "hush-hush" not in said
    assert len([line for line in said.splitlines() if "up to date" not in line]) == 1


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_database_that_is_not_migrated_is_said_in_one_line(tmp_path: Path, plain_owner: str, name: str) -> None:
    done = command(tmp_path, plain_owner, name, PORT=str(free_port()))
    assert done.returncode == 1
    assert done.stderr == "quarterdeck: The database is not up to date: run `quarterdeck migrate` first.\n"


def test_what_is_wrong_after_connecting_is_said_in_one_line(tmp_path: Path, database_url: str) -> None:
    done = command(tmp_path, database_url, "dev", PORT=str(free_port()), QUARTERDECK_BOOTSTRAP_TOKEN="short")
    assert done.returncode == 1
    assert "quarterdeck: QUARTERDECK_BOOTSTRAP_TOKEN is too short" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_the_system_would_choose_is_refused(tmp_path: Path, database_url: str) -> None:
    done = command(tmp_path, database_url, "web", PORT="0")
    assert done.returncode == 1
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_with_another_key_does_not_start(tmp_path: Path, database_url: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert command(first, database_url, "migrate").returncode == 0
    done = command(second, database_url, "worker")
    assert done.returncode == 1
    assert "the same QUARTERDECK_SECRET_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    doctor = command(second, database_url, "doctor")
    assert doctor.returncode == 1
    assert "the same QUARTERDECK_SECRET_KEY" in doctor.stdout
    (second / "secret.key").write_bytes((first / "secret.key").read_bytes())
    assert command(second, database_url, "doctor").returncode == 0


@pytest.mark.anyio
async def test_web_and_worker_hear_each_other_without_a_bus_being_set(settings_for_tests: Settings) -> None:
    assert settings_for_tests.database_url is not None
    url = settings_for_tests.database_url.get_secret_value()
    settings = among_processes(settings_for_tests, url)
    async with connected(settings, url) as program, asyncio.timeout(20):
        other = Bus(settings.bus_url.get_secret_value())
        await other.connect()
        try:
            async with program.parts.bus.subscribe("greetings") as heard:
                await other.publish("greetings", {"hello": "worker"})
                notice = await heard.next(15)
                assert isinstance(notice, BusMessage)
                assert notice.data == {"hello": "worker"}
        finally:
            await other.close()


def test_a_bus_that_is_set_stays(settings_for_tests: Settings) -> None:
    settings = settings_for_tests.model_copy(update={"bus_url": SecretStr("redis://127.0.0.1:6379")})
    assert among_processes(settings, "postgresql:///x") is settings


@pytest.mark.anyio
async def test_a_first_start_that_was_killed_is_continued_by_the_next(
    database: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each thing that it makes, again and again, until all is there; then nothing is made twice."""

    def dying_after(function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def once(*arguments: object, **named: object) -> object:
            await function(*arguments, **named)
            raise Killed

        return once

    for place, name in (
        (accounts, "create_organization"),
        (accounts, "create_user"),  # the admin
        (accounts, "create_user"),  # the engineer
        (accounts, "create_user"),  # the viewer
        (seeding, "register_mcp_server"),
        (seeding, "register_mcp_server"),
        (seeding, "create_session"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, dying_after(getattr(place, name)))
            with pytest.raises(Killed):
                await seed(lambda _: None)
    async with working(database):
        await seed(lambda _: None)
    admin = await first_admin()
    assert admin is not None
    assert (await ensure_bootstrap_token("t" * 40))["user_id"] == admin["id"]
    counts = "SELECT (SELECT count(*) FROM {}), (SELECT count(DISTINCT name) FROM {})"
    assert tuple(await db.fetchrow(counts.format("organizations", "organizations"))) == (1, 1)
    assert tuple(await db.fetchrow(counts.format("users", "users"))) == (3, 3)
    assert tuple(await db.fetchrow(counts.format("mcp_servers", "mcp_servers"))) == (2, 2)
    assert await db.fetchval("SELECT count(*) FROM sessions") == 1


@pytest.mark.anyio
async def test_an_organisation_without_anybody_gets_its_admin(database: Program) -> None:
    await accounts.create_organization("Left alone", slug="left")
    with pytest.raises(Unavailable):
        await ensure_bootstrap_token("t" * 40)
    await seed(lambda _: None, demonstration=False)
    admin = await first_admin()
    assert admin is not None
    assert (await ensure_bootstrap_token("t" * 40))["user_id"] == admin["id"]


@pytest.mark.anyio
async def test_an_installation_in_use_gets_no_demonstration(database: Program) -> None:
    await seed(lambda _: None, demonstration=False)
    organization_id = await db.fetchval("SELECT id FROM organizations")
    await accounts.create_user(system_actor(organization_id), name="Somebody", email="somebody@example.com")
    await seed(lambda _: None)
    assert await db.fetchval("SELECT count(*) FROM users") == 2
    assert await db.fetchval("SELECT count(*) FROM sessions") == 0
