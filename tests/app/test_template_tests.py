"""Templates are tested in real sessions, and what passed may be published."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json, Refused
from tests.conftest import ROOT
from tests.talking import eventually
from tests.templating import GET, PUBLISH, change_template, make_template

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

TEST = """
  id digest status attempt parameters startedAt endedAt startedBy { name }
  session { id status title runs { nodes { id number status } } }
  checks { key kind title status message server toolCount milliseconds costUsd limitUsd
    run { id status } findings { severity code path message suggestion } }
"""
START = "mutation ($input: TestSessionTemplateInput!) { testSessionTemplate(input: $input) { test {%s} } }" % TEST
CANCEL = """
mutation ($input: CancelSessionTemplateTestInput!) { cancelSessionTemplateTest(input: $input) { test { id status } } }
"""
GET_TEST = "query ($id: ID!) { templateTest(id: $id) {%s} }" % TEST
PROGRESS = """
subscription ($id: ID!, $after: Cursor) {
  templateTestProgress(testId: $id, after: $after) {
    cursor test { status checks { key kind status message } session { id } }
  }
}
"""
SHARE = """
mutation ($input: ShareSessionTemplateInput!) { shareSessionTemplate(input: $input) { grants { id } } }
"""
REVOKE = "mutation ($input: GrantInput!) { revokeGrant(input: $input) { grant { id } } }"
TESTS = """
query ($id: ID!) { sessionTemplate(id: $id) {
  tests(newestFirst: true) { totalCount nodes { id status } } publishedVersion { test { id status } }
} }
"""
REGISTER = """
mutation ($input: RegisterMcpServerInput!) { registerMcpServer(input: $input) { mcpServer { id name } } }
"""
FAKE = [sys.executable, str(ROOT / "tests" / "fakes" / "mcp_server.py")]

PLAYBOOK = """
playbook: Look around
steps:
  - say: "Greetings to {{ who }}"
  - tool: write_file
    arguments: {path: hello.txt, content: "hello {{ who }}"}
  - tool: time.get_current_time
    arguments: {timezone: Etc/UTC}
    expect: {contains: UTC}
"""
GOOD = {
    "runtime": "script",
    "parameters": {"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]},
    "mcpServers": [{"server": "time", "tools": ["get_current_time"]}],
    "approvalRules": [{"tool": "write_file", "decision": "ALLOW"}, {"tool": "time.*", "decision": "ALLOW"}],
    "messages": [PLAYBOOK],
    "test": {
        "parameters": {"who": "everybody"},
        "messages": ['/tool read_file {"path": "hello.txt"}'],
        "checks": [
            {"answerContains": "hello everybody"},
            {"toolCalled": "time.get_current_time"},
            {"fileExists": "hello.txt"},
        ],
        "maxCostUsd": "1",
        "timeoutSeconds": 60,
    },
}


async def start(client: Client, template: str, **more: Any) -> Json:
    return (await client(START, input={"templateId": template} | more))["testSessionTemplate"]["test"]  # type: ignore[no-any-return]


async def outcome(client: Client, test: str, within: float = 60.0) -> Json:
    """The test once it is over."""
    async with client.stream(PROGRESS, id=test) as stream:
        await stream.until(
            "templateTestProgress", lambda progress: progress["test"]["status"] not in ("QUEUED", "RUNNING"), within
        )
    return (await client(GET_TEST, id=test))["templateTest"]  # type: ignore[no-any-return]


async def result_of(client: Client, spec: Json, **more: Any) -> Json:
    template = await make_template(client, spec=spec)
    return await outcome(client, (await start(client, template["id"], **more))["id"])


def by_key(test: Json) -> dict[str, Json]:
    return {check["key"]: check for check in test["checks"]}


def statuses(test: Json) -> dict[str, str]:
    return {check["key"]: check["status"] for check in test["checks"]}


async def test_a_template_is_tested_in_a_real_session_and_then_published(people: People) -> None:
    client = people.member.client
    template = await make_template(client, spec=GOOD)
    asked = {"templateId": template["id"], "digest": template["draft"]["digest"]}
    with pytest.raises(Refused):
        await client(PUBLISH, input=asked)
    begun = await start(client, template["id"])
    assert begun["digest"] == template["draft"]["digest"]
    done = await outcome(client, begun["id"])
    assert statuses(done) == {
        "validation": "PASSED",
        "server:time": "PASSED",
        "session": "PASSED",
        "message:1": "PASSED",
        "message:2": "PASSED",
        "check:1": "PASSED",
        "check:2": "PASSED",
        "check:3": "PASSED",
        "cost": "SKIPPED",
        "time": "PASSED",
    }, done
    assert done["status"] == "PASSED"
    assert done["attempt"] == 1
    assert done["startedBy"]["name"] == people.member.name
    checks = by_key(done)
    assert checks["server:time"]["toolCount"] >= 2
    assert checks["server:time"]["milliseconds"] > 0
    assert checks["message:2"]["run"]["status"] == "FINISHED"
    assert "not known" in checks["cost"]["message"]
    assert checks["cost"]["limitUsd"] == "1"
    version = (await client(PUBLISH, input=asked))["publishSessionTemplate"]["version"]
    assert version["number"] == 1
    listed = (await client(TESTS, id=template["id"]))["sessionTemplate"]
    assert listed["tests"] == {"totalCount": 1, "nodes": [{"id": begun["id"], "status": "PASSED"}]}
    assert listed["publishedVersion"]["test"] == {"id": begun["id"], "status": "PASSED"}


async def test_what_does_not_go_well_is_told_and_ends_the_test(people: People) -> None:
    client = people.member.client
    failing = await result_of(
        client,
        {
            "runtime": "script",
            "messages": [
                "playbook: Fails\nsteps:\n  - tool: list_files\n    arguments: {}\n    expect: {contains: nowhere}"
            ],
            "test": {"messages": ["/tool list_files {}"], "checks": [{"fileExists": "x"}], "timeoutSeconds": 30},
        },
    )
    assert failing["status"] == "FAILED"
    assert statuses(failing)["message:1"] == "FAILED"
    assert statuses(failing)["message:2"] == "SKIPPED"
    assert "does not contain" in by_key(failing)["message:1"]["message"]
    asking, unmet = await asyncio.gather(
        result_of(client, {"runtime": "script", "messages": ['/tool shell {"command": "true"}']}),
        result_of(
            client,
            {
                "runtime": "script",
                "messages": ["/tool list_files {}"],
                "test": {
                    "checks": [
                        {"answerContains": "zebra"},
                        {"toolCalled": "read_file"},
                        {"fileExists": "../../etc/passwd"},
                    ]
                },
            },
        ),
    )
    told = by_key(asking)["message:1"]["message"]
    assert "A decision is wanted. shell" in told
    assert "approval rule" in told
    assert "allowedTools" in told
    assert asking["session"]["runs"]["nodes"][0]["status"] in ("WAITING", "INTERRUPTED")
    assert statuses(unmet) | {"time": "-"} == {
        "validation": "PASSED",
        "session": "PASSED",
        "message:1": "PASSED",
        "check:1": "FAILED",
        "check:2": "FAILED",
        "check:3": "FAILED",
        "time": "-",
    }
    assert "list_files was" in by_key(unmet)["check:2"]["message"]


async def test_a_test_that_takes_too_long_is_ended(people: People) -> None:
    spec = {
        "runtime": "script",
        "approvalRules": [{"tool": "shell", "decision": "ALLOW"}],
        "messages": ['/tool shell {"command": "sleep 60"}'],
        "test": {"timeoutSeconds": 5},
    }
    done = await result_of(people.member.client, spec)
    assert statuses(done)["message:1"] == statuses(done)["time"] == "FAILED"
    assert "5 seconds" in by_key(done)["time"]["message"]


async def test_servers_that_are_missing_or_die_and_secrets_that_are_not_set_fail_a_test(people: People) -> None:
    admin = people.admin.client

    async def registered(*options: str, **more: Any) -> str:
        name = f"s{uuid4().hex[:8]}"
        given = {"name": name, "transport": "STDIO", "command": [*FAKE, *options], "check": False} | more
        return str((await admin(REGISTER, input=given))["registerMcpServer"]["mcpServer"]["name"])

    never, dying = await registered("--start", "die"), await registered()
    one, other, secret = await asyncio.gather(
        result_of(
            people.member.client,
            {
                "runtime": "script",
                "mcpServers": [
                    {"server": never},
                    {"server": "nobody-has-it"},
                    {"server": "time", "tools": ["tell_time"]},
                ],
                "messages": ["/tool list_files {}"],
            },
        ),
        result_of(
            people.member.client,
            {
                "runtime": "script",
                "mcpServers": [{"server": dying}],
                "options": {"allowedTools": [f"{dying}.*"]},
                "messages": [f"playbook: Dies\nsteps:\n  - tool: {dying}.die\n    arguments: {{}}"],
            },
        ),
        result_of(
            people.member.client,
            {"runtime": "script", "options": {"environment": ["NOBODY_SET_THIS"]}, "messages": ["/tool list_files {}"]},
        ),
    )
    assert statuses(one)[f"server:{never}"] == statuses(one)["server:nobody-has-it"] == "FAILED"
    assert "tell_time" in by_key(one)["server:time"]["message"]
    assert statuses(one)["session"] == "SKIPPED"
    assert one["session"] is None
    assert statuses(other)[f"server:{dying}"] == "PASSED"
    assert statuses(other)["message:1"] == "FAILED"
    [finding] = [each for each in by_key(secret)["validation"]["findings"] if each["severity"] == "ERROR"]
    assert finding["code"] == "SECRET_MISSING"
    assert finding["path"] == "/options/environment/0"
    assert secret["status"] == "FAILED"
    assert secret["session"] is None


async def test_parameters_go_before_those_of_the_plan_and_have_to_fit(people: People) -> None:
    client = people.member.client
    template = await make_template(client, spec=GOOD)
    refused = await client.refused(START, input={"templateId": template["id"], "parameters": {"who": 3, "what": 1}})
    assert refused.codes == ["BAD_INPUT"]
    assert {each["field"] for each in refused.extensions["fields"]} == {"parameters.who", "parameters.what"}
    begun = await start(client, template["id"], parameters={"who": "{{ who }} & all"})
    done = await outcome(client, begun["id"])
    assert done["parameters"] == {"who": "{{ who }} & all"}
    assert statuses(done)["message:1"] == "PASSED"
    assert statuses(done)["check:1"] == "FAILED"
    assert "hello {{ who }} & all" in by_key(done)["check:1"]["message"]


async def test_a_test_is_cancelled_and_what_it_ran_is_ended(people: People) -> None:
    client = people.member.client
    spec = {
        "runtime": "script",
        "approvalRules": [{"tool": "shell", "decision": "ALLOW"}],
        "messages": ['/tool shell {"command": "sleep 60"}'],
    }
    template = await make_template(client, spec=spec)
    test = (await start(client, template["id"]))["id"]
    async with client.stream(PROGRESS, id=test) as stream:
        await stream.until("templateTestProgress", lambda p: statuses(p["test"]).get("message:1") == "RUNNING")
        cancelled = (await client(CANCEL, input={"testId": test}))["cancelSessionTemplateTest"]["test"]
        assert cancelled["status"] == "CANCELLED"
        await stream.until("templateTestProgress", lambda p: p["test"]["status"] == "CANCELLED")
        with pytest.raises(StopAsyncIteration):
            await stream.next()

    async def put_away() -> bool:
        session = (await client(GET_TEST, id=test))["templateTest"]["session"]
        return bool(session["status"] == "ARCHIVED" and session["runs"]["nodes"][0]["status"] == "INTERRUPTED")

    await eventually(put_away)
    again = await client.refused(CANCEL, input={"testId": test})
    assert again.codes == ["ILLEGAL_TRANSITION"]


async def test_progress_is_told_live_and_gone_on_with_after_a_cursor(people: People) -> None:
    client = people.member.client
    template = await make_template(client, spec=GOOD)
    key = uuid4().hex
    one, same = await asyncio.gather(*(start(client, template["id"], idempotencyKey=key) for _ in range(2)))
    assert one["id"] == same["id"]
    async with client.stream(PROGRESS, id=one["id"]) as stream:
        first = (await stream.next())["templateTestProgress"]
    async with client.stream(PROGRESS, id=one["id"], after=first["cursor"]) as stream:
        rest = await stream.until("templateTestProgress", lambda p: p["test"]["status"] == "PASSED", within=60)
        with pytest.raises(StopAsyncIteration):
            await stream.next()
    assert first["cursor"] not in [event["cursor"] for event in rest]
    assert len(rest) >= 3, "it is told as it goes, and not at its end alone"
    async with client.stream(PROGRESS, id=one["id"], after=rest[-1]["cursor"]) as stream:
        with pytest.raises(StopAsyncIteration):
            await stream.next()
    async with client.stream(PROGRESS, id=one["id"], after="bm9uc2Vuc2U") as stream:
        with pytest.raises(Refused) as refused:
            await stream.next()
    assert refused.value.codes == ["BAD_INPUT"]


async def test_only_who_may_edit_a_template_tests_it_and_sees_the_session(people: People) -> None:
    owner, colleague = people.member.client, people.colleague.client
    spec = {"runtime": "script", "messages": ["/tool list_files {}"]}
    template, used, edited = [
        await make_template(owner, spec=spec, organizationLevel=level) for level in (None, "USE", "EDIT")
    ]
    assert (await colleague.refused(START, input={"templateId": template["id"]})).codes == ["NOT_FOUND"]
    assert (await colleague.refused(START, input={"templateId": used["id"]})).codes == ["FORBIDDEN"]
    assert (await people.viewer.client.refused(START, input={"templateId": edited["id"]})).codes == ["FORBIDDEN"]
    begun = await asyncio.gather(*(start(owner, each["id"]) for each in (template, used, edited)))
    test, of_used, of_edited = await asyncio.gather(*(outcome(owner, each["id"]) for each in begun))
    assert (await colleague(GET_TEST, id=test["id"]))["templateTest"] is None
    assert (await colleague.refused(CANCEL, input={"testId": test["id"]})).codes == ["NOT_FOUND"]
    async with colleague.stream(PROGRESS, id=test["id"]) as stream:
        with pytest.raises(Refused) as refused:
            await stream.next()
    assert refused.value.codes == ["NOT_FOUND"]
    seen = (await colleague(GET_TEST, id=of_used["id"]))["templateTest"]
    assert seen["status"] == "PASSED"
    assert seen["session"] is None
    seen = (await colleague(GET_TEST, id=of_edited["id"]))["templateTest"]
    assert seen["session"]["id"] == of_edited["session"]["id"]
    assert seen["checks"][2]["run"]["status"] == "FINISHED"
    by_id = "query ($id: ID!) { session(id: $id) { messages { nodes { text } } } }"
    assert (await colleague(by_id, id=of_edited["session"]["id"]))["session"]["messages"]["nodes"]
    assert (await colleague(by_id, id=of_used["session"]["id"]))["session"] is None


async def test_sessions_of_tests_are_in_no_list_and_no_feed(people: People) -> None:
    client = people.member.client
    lists = """
    { sessions(first: 100, filter: {status: [CREATED, ACTIVE, WAITING, PAUSED, FAILED, TERMINATED, ARCHIVED]}) {
        totalCount nodes { id } }
      pendingApprovals(first: 100) { nodes { session { id } } }
      activityFeed(first: 100) { nodes { session { id } } } sessionChangesCursor activityFeedCursor
      viewer { notifications(first: 100) { nodes { session { id } } } } }
    """
    before = {who: await who.client(lists) for who in (people.member, people.admin)}
    test = await result_of(
        client, {"runtime": "script", "messages": ["/tool list_files {}", '/tool shell {"command": "true"}']}
    )
    session = test["session"]["id"]
    for who in (people.member, people.admin):
        after = await who.client(lists)
        assert session not in json.dumps(after)
        assert after["sessions"]["totalCount"] >= before[who]["sessions"]["totalCount"]
        assert (await who.client("query ($id: ID!) { session(id: $id) { id } }", id=session))["session"] is not None
    changes = "subscription ($after: Cursor) { sessionChanges(after: $after) { sessionId } }"
    mark = await make_session(client)
    async with people.admin.client.stream(changes, after=before[people.admin]["sessionChangesCursor"]) as stream:
        told = await stream.until("sessionChanges", lambda change: change["sessionId"] == mark)
    assert session not in [change["sessionId"] for change in told]
    report = "query ($id: ID!) { sessionAccessReport(sessionId: $id) { since } }"
    assert (await people.admin.client.refused(report, id=session)).codes == ["NOT_FOUND"]


async def make_session(client: Client) -> str:
    document = "mutation ($input: CreateSessionInput!) { createSession(input: $input) { session { id } } }"
    return str((await client(document, input={"title": "A mark"}))["createSession"]["session"]["id"])


async def test_publishing_takes_a_green_test_of_the_very_draft_or_an_admin_s_reason(people: People) -> None:
    client, admin = people.member.client, people.admin.client
    template = await make_template(client, spec={"runtime": "script", "messages": ["/tool list_files {}"]})
    assert (await outcome(client, (await start(client, template["id"]))["id"]))["status"] == "PASSED"
    failing = "playbook: Fails\nsteps: [{tool: read_file, arguments: {path: nowhere}}]"
    changed = await change_template(client, template["id"], spec={"runtime": "script", "messages": [failing]})
    asked = {"templateId": template["id"], "digest": changed["draft"]["digest"]}
    with pytest.raises(Refused) as untested:
        await client(PUBLISH, input=asked)
    assert (await outcome(client, (await start(client, template["id"]))["id"]))["status"] == "FAILED"
    with pytest.raises(Refused) as red:
        await client(PUBLISH, input=asked)
    assert untested.value.codes == red.value.codes
    with pytest.raises(Refused):
        await client(PUBLISH, input=asked | {"untestedReason": "Because I say so"})
    published = await admin(PUBLISH, input=asked | {"untestedReason": "The tool comes tomorrow"})
    assert published["publishSessionTemplate"]["version"]["untestedReason"] == "The tool comes tomorrow"
    trail = '{ auditEvents(first: 20, filter: {action: "template.publish"}) { nodes { action after details } } }'
    assert "The tool comes tomorrow" in json.dumps(await admin(trail))
    # What was tested before is green still: going back to it needs no second test.
    back = await change_template(
        client, template["id"], spec={"runtime": "script", "messages": ["/tool list_files {}"]}
    )
    assert back["draft"]["digest"] == template["draft"]["digest"]
    again = await client(PUBLISH, input={"templateId": template["id"], "digest": back["draft"]["digest"]})
    assert again["publishSessionTemplate"]["version"]["number"] == 2
    assert (await client(GET, id=template["id"]))["sessionTemplate"]["latestVersion"] == 2


async def test_a_stream_of_progress_ends_with_access_to_the_template(people: People) -> None:
    owner, colleague = people.member.client, people.colleague
    spec = {
        "runtime": "script",
        "approvalRules": [{"tool": "shell", "decision": "ALLOW"}],
        "messages": ['/tool shell {"command": "sleep 60"}'],
    }
    template = await make_template(owner, spec=spec)
    given = {"templateId": template["id"], "userIds": [colleague.id], "level": "VIEW"}
    [grant] = (await owner(SHARE, input=given))["shareSessionTemplate"]["grants"]
    test = (await start(owner, template["id"]))["id"]
    async with colleague.client.stream(PROGRESS, id=test) as stream:
        await stream.until("templateTestProgress", lambda p: statuses(p["test"]).get("message:1") == "RUNNING")
        await owner(REVOKE, input={"grantId": grant["id"]})
        with pytest.raises(Refused) as refused:
            while True:
                await stream.next(within=5)
    assert refused.value.codes == ["NOT_FOUND"]
    await owner(CANCEL, input={"testId": test})
