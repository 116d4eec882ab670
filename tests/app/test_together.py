"""Two people with real clients at two web processes, over one Redis, while what may fail does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest

from tests.app.test_processes import Fleet, fleet, is_whole, shell
from tests.clients.conftest import FOLDER
from tests.clients_of_graph import Client, Json
from tests.talking import create, ended, eventually, named, send
from tests.together import being_in, participants, update
from tests.tools import node_path, npm_install

__all__ = ["fleet"]

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]


@dataclass
class NodeClient:
    """A graphql-ws client in a process of its own, and what it has seen."""

    process: asyncio.subprocess.Process
    places: list[str] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    drafts: list[str] = field(default_factory=list)
    here: dict[str, Json] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self._take(orjson.loads(line))
            self._changed.set()

    def _take(self, line: Json) -> None:
        match line:
            case {"at": url}:
                self.places.append(url)
            case {"lost": reason}:
                self.lost.append(reason)
            case {"event": event}:
                self.events.append(event)
                if line["activity"]:
                    self.kinds.append(line["activity"]["kind"])
            case {"drafts": drafts}:
                self.drafts += [draft["text"] for draft in drafts]
            case {"participants": everybody}:
                if everybody is not None:
                    self.here = {}
                for one in [*(everybody or ()), *line["joined"], *line["changed"]]:
                    self.here[one["clientId"]] = one
                for one in line["left"]:
                    self.here.pop(one["clientId"], None)

    async def until(self, found: object, within: float = 30.0) -> None:
        async with asyncio.timeout(within):
            while not found():  # type: ignore[operator]
                self._changed.clear()
                await self._changed.wait()

    @property
    def ended(self) -> int:
        return sum(ended(event) for event in self.events)

    @property
    def stored(self) -> list[tuple[int, str, str | None]]:
        return [(e["seq"], e["type"], e["name"]) for e in self.events if e["type"] != "TEXT_MESSAGE_CONTENT"]


@asynccontextmanager
async def node_client(token: str, session: str, name: str, *urls: str) -> AsyncIterator[NodeClient]:
    process = await asyncio.create_subprocess_exec(
        str(node_path()),
        str(FOLDER / "workspace.mjs"),
        *(token, session, name, *urls),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    client = NodeClient(process)
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await reading


async def a_colleague(admin: Client) -> Client:
    made = await admin(
        "mutation ($input: CreateServiceAccountInput!) { createServiceAccount(input: $input) { user { id } } }",
        input={"name": "Colleague", "role": "ADMIN"},
    )
    token = await admin(
        "mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret } }",
        input={"name": "colleague", "userId": made["createServiceAccount"]["user"]["id"]},
    )
    return Client(admin.url, token["createAccessToken"]["secret"])


async def test_two_people_work_in_one_session_whatever_happens_to_the_processes(fleet: Fleet) -> None:
    npm_install(FOLDER)
    await fleet.worker_ready()
    first, second = fleet.webs
    admin = fleet.first
    colleague = await a_colleague(admin)
    assert colleague.token is not None
    colleague_there = Client(second.url, colleague.token)
    session = (await create(admin, options={"allowedTools": ["shell"]}))["id"]
    async with (
        node_client(first.token, session, "here", first.ws_url) as here,
        node_client(colleague.token, session, "there", second.ws_url, first.ws_url) as there,
    ):
        # Each sees the other, wherever they are, and what the other does.
        for one in (here, there):
            await one.until(lambda one=one: set(one.here) == {"here", "there"})
        assert here.here["there"]["user"] == {"name": "Colleague"}
        await update(colleague_there, session, "there", "TYPING", draft="what if")
        await here.until(lambda: here.here["there"]["state"] == "TYPING" and "what if" in here.drafts, within=5)
        # What they say at another process than their stream's counts as well.
        await update(colleague, session, "there", "IDLE")
        await here.until(lambda: here.here["there"]["state"] == "IDLE", within=5)

        # Both send at once: one order, the same for both, and both see who waits behind whom.
        sent = await asyncio.gather(
            *(send(admin, session, f"here {n}") for n in range(3)),
            *(send(colleague_there, session, f"there {n}") for n in range(3)),
        )
        assert sorted(one["run"]["number"] for one in sent) == [1, 2, 3, 4, 5, 6]
        for one in (here, there):
            await one.until(lambda one=one: one.ended == 6)
            is_whole(one.events)
        assert here.stored == there.stored
        queued = [event["data"]["runId"] for event in here.events if named("run.queued")(event)]
        begun = [event["data"]["runId"] for event in here.events if event["type"] == "RUN_STARTED"]
        assert begun == queued
        assert here.kinds == there.kinds
        assert here.kinds.count("MESSAGE_SENT") == 6

        # Redis restarts in mid-stream: no event is lost, and nobody seems to have left.
        await send(admin, session, shell("sleep 1; seq 1 300"))
        await here.until(lambda: here.events[-1]["type"] == "TOOL_CALL_END")
        fleet.redis.kill()
        await send(colleague_there, session, shell("echo while away"))
        await asyncio.sleep(1.5)
        fleet.redis.start()
        for one in (here, there):
            await one.until(lambda one=one: one.ended == 8)
            is_whole(one.events)
        assert here.stored == there.stored
        assert set(here.here) == set(there.here) == {"here", "there"}
        await update(colleague_there, session, "there", "TYPING")
        await here.until(lambda: here.here["there"]["state"] == "TYPING", within=10)

        # A process is killed: who was there and does not come back is gone; who goes on elsewhere misses nothing.
        async with being_in(colleague_there, session, "doomed") as doomed:
            await doomed.until_here(lambda seen: len(seen) == 3)
            await here.until(lambda: set(here.here) == {"here", "there", "doomed"})
            killed = time.monotonic()
            fleet.kill(second.processes[0])
            await there.until(lambda: there.places[-1] == first.ws_url)
            await send(admin, session, "is anybody left?")
            await here.until(lambda: "doomed" not in here.here, within=30)
            assert 5 < time.monotonic() - killed < 25
        for one in (here, there):
            await one.until(lambda one=one: one.ended == 9)
            is_whole(one.events)
        assert here.stored == there.stored
        assert there.lost
        await there.until(lambda: set(there.here) == {"here", "there"})
        # A process that comes new to it knows after a moment who is there.
        fleet.start_web(1)
        found = await participants(fleet.second, session)
        assert {one["clientId"] for one in found} == {"here", "there"}

    async def nobody() -> bool:
        return await participants(fleet.second, session) == []

    await eventually(nobody, within=10)
