"""What is in a session's directory before anything runs: a repository, an archive, files."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.app.test_template_starting import published, start, until_done
from tests.fakes.origins import Origin, origin
from tests.talking import following, history, talk

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    with origin(tmp_path_factory.mktemp("origin")) as found:
        found.commit({"README.md": "From the repository\n", "src/app.py": "print('app')\n"})
        yield found


def tar_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def spec(seed: dict[str, Any], *paths: str) -> dict[str, Any]:
    steps = "\n".join(f"  - tool: read_file\n    arguments: {{path: {path}}}" for path in paths)
    return {"runtime": "script", "seed": seed, "playbook": f"playbook: Read\nsteps:\n{steps}\n"}


async def test_a_repository_an_archive_and_files_are_there_before_the_first_tool_runs(
    people: People, elsewhere: Origin
) -> None:
    commit = elsewhere.commit({"README.md": "From the repository\n", "src/app.py": "print('new')\n"})
    archive = tar_of({"data/numbers.csv": "1,2,3\n", "./notes.md": "From the archive\n"})
    elsewhere.files = {"data.tar.gz": archive, "moved": "/data.tar.gz"}
    sha256 = hashlib.sha256(archive).hexdigest()
    seed = {
        "repository": {"url": elsewhere.repository, "revision": "main"},
        "archive": {"url": f"{elsewhere.url}/moved?signature=abc", "sha256": sha256, "path": "in"},
        "files": [{"path": "README.md", "content": "From the template\n"}],
    }
    template = await published(people, spec(seed, "README.md", "src/app.py", "in/notes.md", "in/data/numbers.csv"))
    client = people.member.client
    began = time.perf_counter()
    started = (await start(client, template))["session"]
    # Long before anything is fetched; the machine of the tests does other things besides.
    assert time.perf_counter() - began < 5
    session = started["id"]
    done = await until_done(client, session)
    assert [run["status"] for run in done["runs"]["nodes"]] == ["FINISHED"], done["runs"]
    assert [tool["result"][0]["text"] for tool in done["toolExecutions"]["nodes"]] == [
        "From the template\n",
        "print('new')\n",
        "From the archive\n",
        "1,2,3\n",
    ]
    async with following(client, session, started["lastEventCursor"]) as stream:
        events = await stream.until(lambda event: event["name"] == "quarterdeck.session.seeded")
    assert events[-1]["data"]["commit"] == commit
    assert events[-1]["data"]["archiveFiles"] == 2
    assert "quarterdeck.session.seeding" in [event["name"] for event in events]
    assert "signature" not in str(events)


async def test_a_seed_that_fails_fails_the_run_and_the_next_message_tries_again(
    people: People, elsewhere: Origin
) -> None:
    branch = f"later-{uuid4().hex[:8]}"
    seed = {"repository": {"url": elsewhere.repository, "revision": branch}}
    template = await published(people, spec(seed, "LATER.md"))
    client = people.member.client
    session = (await start(client, template))["session"]["id"]
    [run] = (await until_done(client, session))["runs"]["nodes"]
    assert (run["status"], run["error"]["code"]) == ("FAILED", "SEED_FAILED")
    assert branch in run["error"]["message"]
    elsewhere.commit({"LATER.md": "There by now\n"}, branch=branch)
    await talk(client, session, '/tool read_file {"path": "LATER.md"}')
    found = await history(client, session)
    assert found["toolExecutions"]["nodes"][-1]["status"] == "SUCCEEDED"


async def test_an_archive_that_is_not_what_it_should_be_is_not_unpacked(people: People, elsewhere: Origin) -> None:
    elsewhere.files = {"data.tar.gz": tar_of({"notes.md": "Other\n"})}
    seed = {"archive": {"url": f"{elsewhere.url}/data.tar.gz", "sha256": "0" * 64}}
    template = await published(people, spec(seed, "notes.md"))
    session = (await start(people.member.client, template))["session"]["id"]
    [run] = (await until_done(people.member.client, session))["runs"]["nodes"]
    assert run["error"]["code"] == "SEED_FAILED"
    assert "SHA-256" in run["error"]["message"]
