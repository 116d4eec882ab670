"""Tests of templates outlive the workers that do them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.app.test_template_tests import GET_TEST, PROGRESS, START
from tests.clients_of_graph import Client, Json
from tests.conftest import Server, environment_for, free_port, running, wait_until_ready
from tests.databases import TestServer
from tests.talking import eventually
from tests.templating import make_template

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@dataclass
class Workers:
    """A web process, and workers as tests need them; the database is their bus."""

    web: Server
    stack: ExitStack

    @property
    def client(self) -> Client:
        return self.web.client

    async def further(self) -> subprocess.Popen[bytes]:
        """Another worker, once it takes jobs."""
        count = self.web.log.count("is ready:")
        process = self.stack.enter_context(running("worker", self.web.environment, self.web.home))

        async def ready() -> bool:
            assert process.poll() is None, self.web.log
            return self.web.log.count("is ready:") > count

        await eventually(ready, within=60)
        return process


@pytest.fixture(scope="module")
def workers(postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    url = postgres.create_database(template=migrated)
    home, token, port = Path(tmp_path_factory.mktemp("testers")), secrets.token_urlsafe(24), free_port()
    with ExitStack() as stack:
        web = Server(port, token, home, environment_for(url, home, port, token))
        web.command("migrate")
        wait_until_ready(web, stack.enter_context(running("web", web.environment, home)))
        yield Workers(web, stack)
    postgres.drop_database(url)


def spec_with(command: str) -> Json:
    return {
        "runtime": "script",
        "approvalRules": [{"tool": "shell", "decision": "ALLOW"}],
        "messages": [f"playbook: Work\nsteps:\n  - tool: shell\n    arguments: {{command: '{command}'}}"],
        "test": {"messages": ["/tool list_files {}"], "checks": [{"fileExists": "count"}], "timeoutSeconds": 60},
    }


async def begun(client: Client, command: str) -> str:
    """A test whose first message is worked on: its tool is running."""
    template = await make_template(client, spec=spec_with(command))
    test = (await client(START, input={"templateId": template["id"]}))["testSessionTemplate"]["test"]["id"]
    tools = "query ($id: ID!) { templateTest(id: $id) { session { toolExecutions { nodes { status } } } } }"

    async def runs() -> bool:
        session = (await client(tools, id=test))["templateTest"]["session"]
        return session is not None and session["toolExecutions"]["nodes"] == [{"status": "RUNNING"}]

    await eventually(runs, within=60)
    return str(test)


async def outcome(client: Client, test: str) -> Json:
    async with client.stream(PROGRESS, id=test) as stream:
        await stream.until(
            "templateTestProgress", lambda p: p["test"]["status"] not in ("QUEUED", "RUNNING"), within=90
        )
    return (await client(GET_TEST, id=test))["templateTest"]  # type: ignore[no-any-return]


async def test_a_test_whose_worker_stops_is_gone_on_with_and_one_whose_worker_is_killed_begins_anew(
    workers: Workers,
) -> None:
    client = workers.client
    before = len(list((workers.web.home / "workspaces").glob("*/*")))
    first = await workers.further()
    # Asked to stop: what runs is ended by it, and the rest of the test is another's.
    test = await begun(client, "echo once >> count; sleep 3")
    second = await workers.further()
    first.terminate()
    done = await outcome(client, test)
    assert (done["status"], done["attempt"]) == ("PASSED", 1), done
    assert len(done["session"]["runs"]["nodes"]) == 2
    await asyncio.to_thread(first.wait, 40)
    # Killed in the middle of a run, with everything it started.
    test = await begun(client, "echo once >> count; sleep 4")
    lost = (await client(GET_TEST, id=test))["templateTest"]["session"]["id"]
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    await workers.further()
    done = await outcome(client, test)
    assert (done["status"], done["attempt"]) == ("PASSED", 2), done
    assert done["session"]["id"] != lost
    ended = {"status": "ARCHIVED", "runs": {"nodes": [{"status": "INTERRUPTED"}]}}
    gone = "query ($id: ID!) { session(id: $id) { status runs { nodes { status } } } }"
    # What was left of it is put away, and its directory with it.
    assert (await client(gone, id=lost))["session"] == ended

    async def tidy() -> bool:
        session = (await client(gone, id=done["session"]["id"]))["session"]
        left = list((workers.web.home / "workspaces").glob("*/*"))
        return session["status"] == "ARCHIVED" and len(left) == before

    await eventually(tidy)
