"""The four templates of a fresh installation: published after a green test, and of use at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.app.conftest import People
from tests.app.test_template_starting import start, until_done

pytestmark = pytest.mark.anyio

NAMES = {
    "code-review": ("development", {}),
    "incident-analysis": ("production-analysis", {"service": "checkout", "symptom": "It is slow: {{ service }}"}),
    "secrets-audit": ("security-audit", {}),
    "command-timing": ("performance-testing", {"command": "echo 'it''s' \"fine\"", "runs": 2}),
}
FIND = """
query ($name: String!) {
  sessionTemplate(name: $name) {
    id category listedAt latestVersion access { level } publishedVersion { untestedReason author { name } }
  }
}
"""


@pytest.mark.parametrize("name", NAMES)
async def test_a_seeded_template_is_published_after_a_test_and_runs_without_a_model(people: People, name: str) -> None:
    category, parameters = NAMES[name]
    client = people.member.client
    async with asyncio.timeout(60):
        found: Any = None
        while not found or not found["listedAt"]:
            found = (await client(FIND, name=name))["sessionTemplate"]
            await asyncio.sleep(0.1)
    assert (found["category"], found["latestVersion"], found["access"]["level"]) == (category, 1, "USE")
    assert found["publishedVersion"]["untestedReason"] is None
    session = (await start(client, found["id"], parameters=parameters))["session"]
    done = await until_done(client, session["id"])
    assert [run["status"] for run in done["runs"]["nodes"]] == ["FINISHED"], done["runs"]
    assert {tool["status"] for tool in done["toolExecutions"]["nodes"]} == {"SUCCEEDED"}
