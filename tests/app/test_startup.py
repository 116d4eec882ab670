"""How the commands start: on databases of other people, and on ones that cannot be used."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.conftest import ROOT
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
