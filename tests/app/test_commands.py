"""The `quarterdeck` command, as operators use it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, Server

pytestmark = pytest.mark.anyio

EMAIL = "operator-made@example.com"


async def test_a_user_is_added_let_in_and_listed(server: Server) -> None:
    said = server.command("user", "add", EMAIL, "--name", "Made by an operator", "--role", "VIEWER")
    link = re.search(r"http://\S+/sign-in/link/\S+", said)
    assert link is not None
    async with httpx.AsyncClient() as http:
        assert (await http.get(link[0])).status_code == 200
    assert re.search(r"http://\S+/sign-in/link/\S+", server.command("user", "link", EMAIL))
    [line] = [line for line in server.command("user", "list").splitlines() if EMAIL in line]
    assert "VIEWER" in line
    assert "active" in line


async def test_a_token_is_made_used_listed_and_revoked(server: Server) -> None:
    secret = server.command(
        "token",
        "create",
        "engineer@quarterdeck.localhost",
        "--name",
        "by an operator",
        "--scope",
        "SESSIONS_READ",
        "--days",
        "2",
    ).strip()
    client = server.as_(secret)
    assert (await client("{ sessions { totalCount } }"))["sessions"]["totalCount"] >= 0
    refused = await client.refused('mutation { createSession(input: {title: "no"}) { session { id } } }')
    assert refused.codes == ["FORBIDDEN"]
    [line] = [
        line
        for line in server.command("token", "list", "engineer@quarterdeck.localhost").splitlines()
        if "by an operator" in line
    ]
    token_id = line.split()[0]
    assert token_id.startswith("pat_")
    assert secret not in line
    server.command("token", "revoke", token_id)
    assert (await client.raw("{ viewer { permissions } }")).status_code == 401


async def test_doctor_says_what_is_there(server: Server) -> None:
    said = server.command("doctor")
    for about in ("database", "timescaledb", "role", "bus", "audit log", "sandbox", "runtime script"):
        assert about in said
    assert "FAIL" not in said
    assert "PostgreSQL 18" in said
    assert "runtime claude" in said


def doctor(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "quarterdeck", "doctor"], env=environment, cwd="/", capture_output=True, text=True, timeout=60
    )


def test_doctor_names_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    done = doctor(
        {
            "PATH": os.environ["PATH"],
            "QUARTERDECK_HOME": str(tmp_path),
            "QUARTERDECK_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        }
    )
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "many"), ("QUARTERDECK_LOG_LEVEL", "LOUD"), ("QUARTERDECK_BUS_URL", "carrier-pigeon://")],
)
def test_a_setting_that_makes_no_sense_is_said_in_a_line(tmp_path: Path, variable: str, value: str) -> None:
    done = doctor({"PATH": os.environ["PATH"], "QUARTERDECK_HOME": str(tmp_path), variable: value})
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert variable in said
    assert "Traceback" not in said


def test_web_without_a_database_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "quarterdeck", "web"],
        env={"PATH": os.environ["PATH"], "QUARTERDECK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "QUARTERDECK_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_before_anything_is_started(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "quarterdeck", "dev"],
        env={"PATH": os.environ["PATH"], "QUARTERDECK_HOME": str(tmp_path), "PORT": str(server.port)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{server.port}" in done.stderr
    assert "PORT=" in done.stderr
    assert not (tmp_path / "postgres").exists()
