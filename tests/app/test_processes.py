"""Several processes over one database and one bus: what one loses, another has."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.clients_of_graph import Client, Json
from tests.conftest import Server, environment_for, free_port, running, wait_until_ready
from tests.databases import TestServer
from tests.private_servers import PrivateRedis
from tests.talking import BARE_EVENTS, asks, create, decide, ended, eventually, following, history, send, texts

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@dataclass
class Fleet:
    """Two web processes, workers as tests need them, and their Redis."""

    webs: list[Server]
    redis: PrivateRedis
    workers: dict[int, subprocess.Popen[bytes]]
    stack: ExitStack

    def start_worker(self) -> subprocess.Popen[bytes]:
        web = self.webs[0]
        process = self.stack.enter_context(running("worker", web.environment, web.home))
        self.workers[process.pid] = process
        return process

    def start_web(self, index: int) -> None:
        """Start a web process, also again after it ended."""
        web = self.webs[index]
        process = self.stack.enter_context(running("web", web.environment, web.home))
        web.processes[:] = [process]
        wait_until_ready(web, process)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """As the kernel does when memory is short: with everything it started."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.workers.pop(process.pid, None)

    async def worker_ready(self) -> subprocess.Popen[bytes]:
        """A worker that takes jobs, and no other."""
        alive = [process for process in self.workers.values() if process.poll() is None]
        if len(alive) == 1:
            return alive[0]
        for process in list(self.workers.values()):
            process.terminate()
            await asyncio.to_thread(process.wait, 40)
            self.workers.pop(process.pid)
        return await self.further_worker()

    async def further_worker(self) -> subprocess.Popen[bytes]:
        count = self.log.count("is ready:")
        process = self.start_worker()

        async def ready() -> bool:
            assert process.poll() is None, self.log
            return self.log.count("is ready:") > count

        await eventually(ready, within=60)
        return process

    @property
    def log(self) -> str:
        return self.webs[0].log

    @property
    def first(self) -> Client:
        return self.webs[0].client

    @property
    def second(self) -> Client:
        return self.webs[1].client


@pytest.fixture(scope="module")
def fleet(postgres: TestServer, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    url = postgres.create_database(template=migrated)
    home, token = Path(tmp_path_factory.mktemp("fleet")), secrets.token_urlsafe(24)
    with ExitStack() as stack:
        redis = stack.enter_context(PrivateRedis())
        webs = []
        for _ in range(2):
            port = free_port()
            environment = environment_for(url, home, port, token, QUARTERDECK_BUS_URL=redis.url)
            webs.append(Server(port, token, home, environment))
        webs[0].command("migrate")
        found = Fleet(webs, redis, {}, stack)
        found.start_web(0)
        found.start_web(1)
        yield found
    postgres.drop_database(url)


def shell(command: str) -> str:
    return f"/tool shell {json.dumps({'command': command})}"


async def read_to_end(client: Client, session: str, after: str | None, runs: int = 1) -> list[Json]:
    async with following(client, session, after) as stream:
        return [event for _ in range(runs) for event in await stream.until(ended, within=60)]


def is_whole(events: list[Json]) -> None:
    """Numbers without gaps, pieces that fit."""
    stored = [event["seq"] for event in events if event["type"] != "TEXT_MESSAGE_CONTENT"]
    assert stored == list(range(1, len(stored) + 1))
    written = texts(events)
    for event in events:
        if event["type"] == "TEXT_MESSAGE_END":
            assert written.get(event["data"]["messageId"], "") == event["data"]["text"]


async def test_what_is_sent_to_one_web_process_is_heard_at_the_other(fleet: Fleet) -> None:
    await fleet.worker_ready()
    session = (await create(fleet.first, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.second, session) as stream:
        for number in range(3):
            await send(fleet.first, session, shell(f"echo {number}"))
        for _ in range(3):
            await stream.until(ended)
        is_whole(stream.events)
        async with following(fleet.first, session) as other:
            for _ in range(3):
                await other.until(ended)
            assert [event["seq"] for event in other.events if event["type"] != "TEXT_MESSAGE_CONTENT"] == [
                event["seq"] for event in stream.events if event["type"] != "TEXT_MESSAGE_CONTENT"
            ]


async def test_a_reader_whose_web_process_is_killed_goes_on_at_the_other(fleet: Fleet) -> None:
    await fleet.worker_ready()
    session = (await create(fleet.second, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.first, session) as stream:
        await send(fleet.second, session, shell("echo begun; sleep 2; echo done"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        fleet.kill(fleet.webs[0].processes[0])
        with pytest.raises(ConnectionClosed):
            await stream.until(ended)
    rest = await read_to_end(fleet.second, session, stream.events[-1]["cursor"])
    is_whole(stream.events + rest)
    assert rest[-1]["data"]["outcome"] == "success"
    fleet.start_web(0)
    assert (await history(fleet.first, session))["runs"]["nodes"][0]["status"] == "FINISHED"


async def test_redis_may_restart_in_the_middle_of_a_stream(fleet: Fleet) -> None:
    await fleet.worker_ready()
    session = (await create(fleet.first, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.second, session) as stream:
        await send(fleet.first, session, shell("echo one"))
        await stream.until(ended)
        await send(fleet.first, session, shell("sleep 2; seq 1 400"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        fleet.redis.kill()
        await send(fleet.first, session, shell("echo while away"))
        await asyncio.sleep(2.5)
        fleet.redis.start()
        await stream.until(ended, within=30)
        await stream.until(ended, within=30)
        await send(fleet.first, session, shell("echo after"))
        await stream.until(ended, within=30)
        is_whole(stream.events)
    is_whole(await read_to_end(fleet.first, session, None, runs=4))


async def test_a_killed_worker_s_runs_end_as_lost_within_seconds_and_nothing_runs_twice(fleet: Fleet) -> None:
    doomed = await fleet.worker_ready()
    session = (await create(fleet.first, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.second, session) as stream:
        await send(fleet.first, session, shell("echo once >> count; sleep 60"))
        await send(fleet.first, session, shell("cat count"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        await asyncio.sleep(0.5)
        await fleet.further_worker()
        fleet.kill(doomed)
        lost = (await stream.until(ended, within=20))[-1]
        assert (lost["type"], lost["data"]["code"]) == ("RUN_ERROR", "WORKER_LOST")
        # The one that waited behind it is done by the other worker.
        assert (await stream.until(ended, within=20))[-1]["data"]["outcome"] == "success"
        is_whole(stream.events)
    found = await history(fleet.first, session)
    assert [run["status"] for run in found["runs"]["nodes"]] == ["INTERRUPTED", "FINISHED"]
    assert "send the message again" in found["runs"]["nodes"][0]["error"]["message"]
    assert [tool["status"] for tool in found["toolExecutions"]["nodes"]] == ["INTERRUPTED", "SUCCEEDED"]
    assert found["toolExecutions"]["nodes"][1]["result"][0]["text"].split() == ["once"]


async def test_a_worker_that_is_asked_to_stop_ends_what_it_has_begun(fleet: Fleet) -> None:
    stopping = await fleet.worker_ready()
    session = (await create(fleet.first, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.first, session) as stream:
        await send(fleet.first, session, shell("sleep 3; echo finished after all"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        stopping.terminate()
        await send(fleet.first, session, shell("echo the next one's"))
        assert (await stream.until(ended, within=20))[-1]["data"]["outcome"] == "success"
        assert await asyncio.to_thread(stopping.wait, 40) == 0
        fleet.workers.pop(stopping.pid)
        assert len((await history(fleet.first, session))["runs"]["nodes"]) == 2
        await fleet.worker_ready()
        assert (await stream.until(ended, within=20))[-1]["data"]["outcome"] == "success"


async def test_a_decision_outlives_every_process(fleet: Fleet) -> None:
    worker = await fleet.worker_ready()
    session = (await create(fleet.first))["id"]
    async with following(fleet.second, session) as stream:
        await send(fleet.first, session, shell("echo decided"))
        waiting = await stream.until(asks)
    fleet.kill(worker)
    for web in fleet.webs:
        fleet.kill(web.processes[0])
    fleet.redis.kill()
    fleet.redis.start()
    fleet.start_web(0)
    fleet.start_web(1)
    [approval] = (await history(fleet.first, session))["pendingApprovals"]["nodes"]
    # Two decide at once, each at another process.
    both = await asyncio.gather(
        decide(fleet.first, approval["id"], "APPROVE"),
        decide(fleet.second, approval["id"], "APPROVE"),
        return_exceptions=True,
    )
    assert sum(isinstance(one, BaseException) for one in both) == 1
    [late] = [one for one in both if isinstance(one, BaseException)]
    assert getattr(late, "codes", None) == ["CONFLICT"]
    await fleet.worker_ready()
    rest = await read_to_end(fleet.first, session, waiting[-1]["cursor"])
    is_whole(waiting + rest)
    found = await history(fleet.first, session)
    assert found["toolExecutions"]["nodes"][0]["status"] == "SUCCEEDED"


async def test_a_token_revoked_at_one_web_process_ends_sockets_at_the_other(fleet: Fleet) -> None:
    document = """
    mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret accessToken { id } } }
    """
    made = (await fleet.first(document, input={"name": "short"}))["createAccessToken"]
    session = (await create(fleet.first))["id"]
    async with fleet.webs[1].as_(made["secret"]).stream(BARE_EVENTS, id=session) as stream:
        await stream.next()
        await fleet.first(
            "mutation ($input: RevokeAccessTokenInput!) { revokeAccessToken(input: $input) { accessToken { id } } }",
            input={"accessTokenId": made["accessToken"]["id"]},
        )
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(5):
                while True:
                    await stream.next()


async def test_interrupts_and_ends_reach_the_worker_that_executes(fleet: Fleet) -> None:
    await fleet.worker_ready()
    session = (await create(fleet.first, options={"allowedTools": ["shell"]}))["id"]
    async with following(fleet.second, session) as stream:
        sent = await send(fleet.first, session, shell("sleep 60"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        await fleet.second(
            "mutation ($input: InterruptRunInput!) { interruptRun(input: $input) { run { id } } }",
            input={"runId": sent["run"]["id"]},
        )
        assert (await stream.until(ended, within=10))[-1]["data"]["outcome"] == "cancelled"
