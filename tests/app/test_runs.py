"""Runs through the graph, with real tools and real MCP servers, well-behaved and not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from itertools import pairwise
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import ROOT, Server
from tests.talking import (
    DECIDE,
    INTERRUPT,
    SEND,
    asks,
    create,
    decide,
    ended,
    eventually,
    following,
    history,
    move,
    named,
    said,
    send,
    talk,
)

pytestmark = pytest.mark.anyio

REGISTER = """
mutation ($input: RegisterMcpServerInput!) { registerMcpServer(input: $input) { mcpServer { id name } } }
"""
FAKE = str(ROOT / "tests" / "fakes" / "mcp_server.py")


async def registered(client: Client, *command: str, **more: object) -> Json:
    given = {"name": f"s{uuid4().hex[:8]}", "transport": "STDIO", "command": list(command), "check": False} | more
    return (await client(REGISTER, input=given))["registerMcpServer"]["mcpServer"]  # type: ignore[no-any-return]


def tool(name: str, **arguments: object) -> str:
    return f"/tool {name} {json.dumps(arguments)}"


async def last_tool(client: Client, session: str) -> Json:
    return (await history(client, session))["toolExecutions"]["nodes"][-1]  # type: ignore[no-any-return]


# -- what is sent


async def test_two_senders_at_once_are_answered_in_the_order_of_their_messages(people: People) -> None:
    session = (await create(people.member.client))["id"]
    async with following(people.member.client, session) as stream:
        sent = await asyncio.gather(
            *(send(people.member.client, session, f"mine {n}") for n in range(4)),
            *(send(people.admin.client, session, f"yours {n}") for n in range(4)),
        )
        assert sorted(one["run"]["number"] for one in sent) == list(range(1, 9))
        events = [event for _ in range(8) for event in await stream.until(ended)]
    begun = [event["data"]["runId"] for event in events if event["type"] == "RUN_STARTED"]
    queued = [event["data"]["runId"] for event in events if event["name"] == "quarterdeck.run.queued"]
    assert begun == queued
    found = await history(people.member.client, session)
    assert [run["status"] for run in found["runs"]["nodes"]] == ["FINISHED"] * 8
    by_number = {one["run"]["number"]: one["message"]["text"] for one in sent}
    starters = {run["number"]: run["startedBy"]["name"] for run in found["runs"]["nodes"]}
    assert starters == {
        number: people.member.name if text.startswith("mine") else people.admin.name
        for number, text in by_number.items()
    }
    spans = [(run["startedAt"], run["endedAt"]) for run in found["runs"]["nodes"]]
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("/tool", "BAD_INPUT", "/tool NAME {json}"),
        ("/tool list_files {path: 1}", "BAD_INPUT", "line 1, column 2"),
        ("/tool list_files [1]", "BAD_INPUT", "must be a JSON object"),
        ("/tool list_files {} extra", "BAD_INPUT", "not valid JSON"),
        ('/tool list_files {"a": NaN}', "BAD_INPUT", "NaN"),
        ("/tool x " + "[" * 100_000, "BAD_INPUT", "not valid JSON"),
        ("playbook: x\nsteps: []", "BAD_INPUT", "at least one step"),
        ("playbook: x\nsteps:\n  - tool: [", "BAD_INPUT", "line"),
        ("playbook: x\nsteps:\n  - tool: a\n    when: now", "BAD_INPUT", "steps[0].when"),
        ("   ", "BAD_INPUT", "empty"),
        ("NUL \0", "BAD_INPUT", "cannot be stored"),
        ("x" * (256 * 1024 + 1), "TOO_LARGE", "262144"),
        ("é" * (128 * 1024 + 1), "TOO_LARGE", "262144"),
    ],
)
async def test_what_cannot_run_is_told_to_the_sender_and_nothing_is_queued(
    people: People, text: str, code: str, words: str
) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    refused = await client.refused(SEND, input={"sessionId": session, "text": text})
    assert refused.codes == [code]
    assert refused.extensions["field"].rpartition(".")[2] == "text"
    assert words in refused.message
    found = await history(client, session)
    assert (found["status"], found["runs"]["nodes"], found["messageCount"]) == ("CREATED", [], 0)


async def test_an_unknown_tool_is_named_with_those_that_there_are(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    events = await talk(client, session, "/tool launch_rocket {}")
    assert "launch_rocket" in said(events)
    execution = await last_tool(client, session)
    assert (execution["status"], execution["errorKind"]) == ("FAILED", "tool")
    assert "list_files" in execution["errorMessage"]


async def test_a_message_of_the_largest_size_is_taken_whole(people: People) -> None:
    session = (await create(people.member.client))["id"]
    text = "x" * (256 * 1024)
    await talk(people.member.client, session, text)
    assert (await history(people.member.client, session))["messages"]["nodes"][0]["text"] == text


# -- playbooks, and decisions in them

PLAYBOOK = """\
playbook: Write, look, ask, remove
variables: {name: notes.md}
steps:
  - tool: write_file
    arguments: {path: "{{ name }}", content: "hello"}
  - tool: read_file
    arguments: {path: "{{ name }}"}
    expect: {contains: hello}
    save: text
  - say: "It says {{ text }}"
  - approve: "Remove {{ name }}?"
  - tool: shell
    arguments: {command: "rm {{ name }}"}
  - tool: list_files
    expect: {contains: empty}
"""


async def test_a_playbook_runs_through_its_decisions_also_where_everything_is_allowed(people: People) -> None:
    client = people.member.client
    session = (await create(client, permissionMode="BYPASS_PERMISSIONS"))["id"]
    events = await talk(client, session, PLAYBOOK, asks)
    assert "It says" in said(events)
    found = await history(client, session)
    assert found["status"] == "WAITING"
    [approval] = found["pendingApprovals"]["nodes"]
    assert approval["reason"] == "Remove notes.md?"
    async with following(client, session, events[-1]["cursor"]) as stream:
        await decide(client, approval["id"], "APPROVE")
        more = await stream.until(ended)
    assert more[-1]["type"] == "RUN_ERROR" or more[-1]["data"]["outcome"] == "success", more[-1]
    steps = [event["data"]["stepName"] for event in events + more if event["type"] == "STEP_STARTED"]
    assert steps[:4] == ["1. write_file", "2. read_file", "3. say", "4. approve"]
    assert (await history(client, session))["usage"] == {"inputTokens": None, "costUsd": None, "costSource": None}


async def test_an_expectation_that_fails_fails_the_run_and_the_next_message_works(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    text = "playbook: Wrong\nsteps:\n  - tool: list_files\n    expect: {contains: treasure}"
    events = await talk(client, session, text)
    assert (events[-1]["type"], events[-1]["data"]["code"]) == ("RUN_ERROR", "EXPECTATION_FAILED")
    found = await history(client, session)
    assert (found["status"], found["runs"]["nodes"][0]["status"]) == ("FAILED", "FAILED")
    assert "treasure" in found["runs"]["nodes"][0]["error"]["message"]
    await talk(client, session, "hello")
    assert (await history(client, session))["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        ("DEFAULT", "WAITING"),
        ("ACCEPT_EDITS", "SUCCEEDED"),
        ("PLAN", "DENIED"),
        ("DONT_ASK", "DENIED"),
        ("BYPASS_PERMISSIONS", "SUCCEEDED"),
    ],
)
async def test_permission_modes(people: People, mode: str, status: str) -> None:
    client = people.member.client
    session = (await create(client, permissionMode=mode))["id"]
    write = tool("write_file", path="a.txt", content="x")
    await talk(client, session, write, lambda event: ended(event) or asks(event))
    assert (await last_tool(client, session))["status"] == status
    if status != "WAITING":
        await talk(client, session, tool("list_files"))
        assert (await last_tool(client, session))["status"] == "SUCCEEDED"


async def test_allowed_and_disallowed_tools_are_patterns(people: People) -> None:
    client = people.member.client
    options = {"allowedTools": ["write_*"], "disallowedTools": ["*_files"]}
    session = (await create(client, permissionMode="DONT_ASK", options=options))["id"]
    await talk(client, session, tool("write_file", path="a.txt", content="x"))
    assert (await last_tool(client, session))["status"] == "SUCCEEDED"
    await talk(client, session, tool("list_files"))
    assert (await last_tool(client, session))["status"] in ("DENIED", "FAILED")


async def test_edited_arguments_are_what_runs_and_what_is_shown(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    events = await talk(client, session, tool("shell", command="echo asked"), asks)
    [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
    assert approval["toolExecution"] == {"tool": "shell", "arguments": {"command": "echo asked"}}
    for bad in ({"arguments": [1]}, {"decision": "DENY", "arguments": {}}):
        given = {"approvalId": approval["id"], "decision": "APPROVE"} | bad
        assert (await client.refused(DECIDE, input=given)).codes == ["BAD_INPUT"]
    async with following(client, session, events[-1]["cursor"]) as stream:
        decided = await decide(client, approval["id"], "APPROVE", arguments={"command": "echo edited"}, note="safer")
        assert decided["decidedBy"]["name"] == people.member.name
        assert "edited" in said(await stream.until(ended))
    execution = await last_tool(client, session)
    assert (execution["status"], execution["arguments"]) == ("SUCCEEDED", {"command": "echo edited"})
    again = await client.refused(DECIDE, input={"approvalId": approval["id"], "decision": "DENY"})
    assert again.codes == ["CONFLICT"]
    assert people.member.name in again.message
    assert again.extensions["decidedBy"] == people.member.id


# -- interrupts


async def test_interrupting_what_is_queued_runs_or_waits(people: People) -> None:
    client = people.member.client
    session = (await create(client, options={"allowedTools": ["shell"]}))["id"]
    async with following(client, session) as stream:
        running = await send(client, session, tool("shell", command="echo begun; sleep 60"))
        queued = await send(client, session, "never answered")
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        stopped = await client(INTERRUPT, input={"runId": queued["run"]["id"]})
        assert stopped["interruptRun"]["run"]["status"] == "INTERRUPTED"
        await stream.until(ended)
        await client(INTERRUPT, input={"runId": running["run"]["id"]})
        last = (await stream.until(ended, within=10))[-1]
        assert last["data"]["outcome"] == "cancelled"
        waiting = await send(client, session, tool("write_file", path="a", content="b"))
        await stream.until(asks)
        await client(INTERRUPT, input={"runId": waiting["run"]["id"]})
        await stream.until(ended)
    found = await history(client, session)
    assert [run["status"] for run in found["runs"]["nodes"]] == ["INTERRUPTED"] * 3
    assert [one["status"] for one in found["toolExecutions"]["nodes"]] == ["INTERRUPTED"] * 2
    assert found["toolExecutions"]["nodes"][1]["approval"]["status"] == "CANCELLED"
    late = await client.refused(INTERRUPT, input={"runId": running["run"]["id"]})
    assert (late.codes, late.extensions["status"]) == (["ILLEGAL_TRANSITION"], "INTERRUPTED")
    # The session goes on.
    assert (await talk(client, session, "hello"))[-1]["data"]["outcome"] == "success"


async def test_terminating_stops_what_runs(people: People) -> None:
    client = people.member.client
    session = (await create(client, options={"allowedTools": ["shell"]}))["id"]
    async with following(client, session) as stream:
        await send(client, session, tool("shell", command="sleep 60"))
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        assert await move(client, "terminateSession", session) == "TERMINATED"
        await stream.until(ended, within=10)
    found = await history(client, session)
    assert (found["status"], found["runs"]["nodes"][0]["status"]) == ("TERMINATED", "INTERRUPTED")


# -- MCP servers


async def test_the_time_server_answers_and_the_git_server_asks_first(people: People) -> None:
    time = await registered(people.admin.client, sys.executable, "-m", "mcp_server_time")
    git = await registered(people.admin.client, sys.executable, "-m", "mcp_server_git")
    client = people.member.client
    given = {"mcpServerIds": [time["id"], git["id"]], "options": {"allowedTools": ["shell"]}}
    session = (await create(client, **given))["id"]
    now = tool(f"{time['name']}.get_current_time", timezone="Europe/Berlin")
    events = await talk(client, session, now, lambda event: ended(event) or asks(event))
    if asks(events[-1]):
        [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
        async with following(client, session, events[-1]["cursor"]) as stream:
            await decide(client, approval["id"], "APPROVE")
            events = await stream.until(ended)
    assert "Europe/Berlin" in said(events)
    execution = await last_tool(client, session)
    assert (execution["status"], execution["tool"]) == ("SUCCEEDED", f"{time['name']}.get_current_time")

    make = "git init -q . && git -c user.name=T -c user.email=t@example.org commit -q --allow-empty -m 'First of all'"
    await talk(client, session, tool("shell", command=make))
    assert (await last_tool(client, session))["status"] == "SUCCEEDED"
    events = await talk(
        client, session, tool(f"{git['name']}.git_create_branch", repo_path=".", branch_name="topic"), asks
    )
    [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
    async with following(client, session, events[-1]["cursor"]) as stream:
        await decide(client, approval["id"], "APPROVE")
        await stream.until(ended)
    assert (await last_tool(client, session))["status"] == "SUCCEEDED"
    await talk(client, session, tool("shell", command="git branch --list topic"))
    assert "topic" in (await last_tool(client, session))["result"][0]["text"]


MISBEHAVIOUR: list[tuple[str, Json, set[str]]] = [
    ("die", {}, {"server_died"}),
    ("hang", {}, {"timeout"}),
    ("sleep", {"seconds": 60}, {"timeout"}),
    ("flood", {}, {"server_died", "protocol", "too_large"}),
    ("flood_notifications", {}, {"server_died", "protocol", "too_large", "timeout"}),
    ("nonsense", {"lines": 5}, {"timeout", "protocol"}),
    ("fail", {"message": "no such thing"}, {"tool"}),
]


async def test_a_server_that_misbehaves_costs_its_call_and_no_more(people: People) -> None:
    server = await registered(people.admin.client, sys.executable, FAKE, timeoutSeconds=4)

    async def suffer(name: str, arguments: Json, kinds: set[str]) -> None:
        client = people.member.client
        session = (await create(client, mcpServerIds=[server["id"]], permissionMode="BYPASS_PERMISSIONS"))["id"]
        await talk(client, session, tool(f"{server['name']}.{name}", **arguments))
        execution = await last_tool(client, session)
        assert execution["status"] == "FAILED", name
        assert execution["errorKind"] in kinds, name
        assert execution["errorMessage"], name
        await talk(client, session, tool(f"{server['name']}.echo", text="still here"))
        execution = await last_tool(client, session)
        assert execution["status"] == "SUCCEEDED", (name, execution["errorMessage"])
        assert execution["result"][0]["text"] == "still here"

    # Each in a session of its own, some at the same time: what one does must not hurt another.
    for start in range(0, len(MISBEHAVIOUR), 4):
        await asyncio.gather(*(suffer(*case) for case in MISBEHAVIOUR[start : start + 4]))


async def test_a_server_that_never_starts_is_named_and_the_session_goes_on(people: People) -> None:
    async def suffer(start: str) -> None:
        server = await registered(people.admin.client, sys.executable, FAKE, "--start", start, timeoutSeconds=2)
        client = people.member.client
        session = (await create(client, mcpServerIds=[server["id"]], permissionMode="BYPASS_PERMISSIONS"))["id"]
        await talk(client, session, tool(f"{server['name']}.echo", text="x"))
        execution = await last_tool(client, session)
        assert execution["status"] == "FAILED", start
        assert server["name"] in execution["errorMessage"], start
        await talk(client, session, tool("list_files"))
        assert (await last_tool(client, session))["status"] == "SUCCEEDED", start

    await asyncio.gather(*map(suffer, ("hang", "die", "nonsense")))


async def test_large_results_are_cut_and_say_so(people: People) -> None:
    server = await registered(people.admin.client, sys.executable, FAKE)
    client = people.member.client
    session = (await create(client, mcpServerIds=[server["id"]], permissionMode="BYPASS_PERMISSIONS"))["id"]
    await talk(client, session, tool(f"{server['name']}.huge", size=1_500_000))
    execution = await last_tool(client, session)
    assert execution["errorMessage"] is None
    assert (execution["status"], execution["truncated"]) == ("SUCCEEDED", True)
    assert len(execution["result"][0]["text"]) <= 1024 * 1024


async def test_what_a_tool_leaves_running_ends_with_its_run(people: People) -> None:
    server = await registered(people.admin.client, sys.executable, FAKE)
    client = people.member.client
    session = (await create(client, mcpServerIds=[server["id"]], permissionMode="BYPASS_PERMISSIONS"))["id"]
    marker = f"4{uuid4().int % 10**6:06}.5"
    await talk(client, session, tool("shell", command=f"sleep {marker} >/dev/null 2>&1 & echo started"))

    async def gone() -> bool:
        found = await asyncio.to_thread(subprocess.run, ["pgrep", "-f", f"sleep {marker}"], capture_output=True)
        return found.returncode == 1

    await eventually(gone, within=10)


# -- the record of it


async def test_every_step_is_in_the_audit_log(people: People, server: Server) -> None:
    client = people.member.client
    session = (await create(client, title="Audited"))["id"]
    await talk(client, session, tool("write_file", path="a", content="b"), named("approval.requested"))
    approval = (await eventually(lambda: pending_of(client, session)))["id"]
    async with following(client, session) as stream:
        await decide(client, approval, "APPROVE")
        await stream.until(ended)
    await move(client, "archiveSession", session)
    await client.refused(SEND, input={"sessionId": session, "text": "hello"})

    async def records() -> list[Json] | None:
        document = """
        query ($id: ID!) { auditEvents(first: 50, filter: { sessionId: $id }) {
          nodes { number action outcome actorName actorKind errorCode before after details } } }
        """
        found = (await people.admin.client(document, id=session))["auditEvents"]["nodes"]
        return found if any(each["outcome"] == "REFUSED" and each["number"] for each in found) else None

    found = await eventually(records, within=10)
    told = {(each["action"], each["outcome"]) for each in found}
    assert {
        ("session.create", "SUCCEEDED"),
        ("message.send", "SUCCEEDED"),
        ("tool.execute", "SUCCEEDED"),
        ("approval.decide", "SUCCEEDED"),
        ("session.archive", "SUCCEEDED"),
        ("message.send", "REFUSED"),
    } <= told
    [refused] = [each for each in found if each["outcome"] == "REFUSED"]
    assert (refused["errorCode"], refused["actorName"]) == ("ILLEGAL_TRANSITION", people.member.name)
    [executed] = [each for each in found if each["action"] == "tool.execute"]
    assert executed["actorKind"] == "AGENT"


async def pending_of(client: Client, session: str) -> Json | None:
    found = (await history(client, session))["pendingApprovals"]["nodes"]
    return found[0] if found else None
