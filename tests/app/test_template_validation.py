"""All that is wrong with a template's configuration is told at once, each with its place."""

from __future__ import annotations

import sys
from typing import Any
from uuid import uuid4

import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.conftest import ROOT
from tests.templating import make_template

pytestmark = pytest.mark.anyio

VALIDATE = """
mutation ($input: ValidateSessionTemplateInput!) { validateSessionTemplate(input: $input) {
  validation { digest valid findings { severity code path message suggestion } } } }
"""
REGISTER = """
mutation ($input: RegisterMcpServerInput!) { registerMcpServer(input: $input) { mcpServer { id name } } }
"""
CHECK = "mutation ($input: McpServerInput!) { checkMcpServer(input: $input) { mcpServer { checkError } } }"
FAKE = [sys.executable, str(ROOT / "tests" / "fakes" / "mcp_server.py")]


async def validate(client: Client, **input: Any) -> Json:
    return (await client(VALIDATE, input=input))["validateSessionTemplate"]["validation"]  # type: ignore[no-any-return]


def places(validation: Json) -> set[tuple[str, str, str]]:
    return {(each["severity"], each["code"], each["path"]) for each in validation["findings"]}


def suggestions(validation: Json) -> dict[str, str]:
    return {each["path"]: each["suggestion"] for each in validation["findings"]}


async def test_a_sound_template_has_no_findings(people: People) -> None:
    client = people.member.client
    spec = {
        "runtime": "script",
        "parameters": {"type": "object", "properties": {"who": {"type": "string", "default": "all"}}},
        "mcpServers": [{"server": "time", "tools": ["get_current_time"]}],
        "options": {"allowedTools": ["time.*", "write_file"]},
        "approvalRules": [{"tool": "shell", "decision": "DENY"}],
        "messages": ['/tool write_file {"path": "a", "content": "{{ who }}"}'],
        "test": {"checks": [{"toolCalled": "write_file"}]},
    }
    template = await make_template(client, spec=spec)
    found = await validate(client, templateId=template["id"], checkServers=True)
    assert found == {"digest": template["draft"]["digest"], "valid": True, "findings": []}
    assert await validate(client, spec=spec, checkServers=True) == found
    assert await validate(client, specJson=template["draft"]["specJson"], checkServers=True) == found


async def test_everything_that_is_wrong_is_told_at_once(people: People) -> None:
    spec = {
        "runtime": "skript",
        "mcpServers": [{"server": "tiem"}, {"server": "time", "tools": ["get_curent_time"]}],
        "options": {"environment": ["NO_SUCH_TOKEN"], "allowedTools": ["time.get_tme", "git.git_log"]},
        "approvalRules": [{"tool": "time.nothing_like_it", "decision": "ALLOW"}],
        "parameters": {
            "type": "object",
            "properties": {
                "unused": {"type": "string"},
                "area": {"type": "string", "enum": ["api", "ui"]},
                "token": {"type": "string", "x-quarterdeck-secret": True},
            },
        },
        "systemPrompt": "Look at {{ aera }} of {{ area }}.",
        "seed": {
            "files": [{"path": "notes", "content": ""}, {"path": "notes/a.md", "content": ""}],
            "archive": {"url": "ftp://example.com/a.tar", "sha256": "0" * 64},
            "repository": {"url": "http://example.com/a.git", "revision": "main"},
        },
        "test": {"parameters": {"area": "moon", "token": "NO_SUCH_SECRET"}, "checks": [{"toolCalled": "time.zzz"}]},
    }
    found = await validate(people.member.client, spec=spec)
    assert not found["valid"]
    assert places(found) >= {
        ("ERROR", "UNKNOWN_RUNTIME", "/runtime"),
        ("ERROR", "UNKNOWN_SERVER", "/mcpServers/0/server"),
        ("ERROR", "UNKNOWN_TOOL", "/mcpServers/1/tools/0"),
        ("ERROR", "SECRET_MISSING", "/options/environment/0"),
        ("ERROR", "UNKNOWN_TOOL", "/options/allowedTools/1"),
        ("WARNING", "PARAMETER_UNUSED", "/parameters/properties/unused"),
        ("ERROR", "UNDECLARED_VARIABLE", "/systemPrompt"),
        ("ERROR", "SEED_CONFLICT", "/seed/files/0/path"),
        ("ERROR", "SEED_ADDRESS", "/seed/archive/url"),
        # This server may reach private networks, and what is there.
        ("WARNING", "SEED_ADDRESS", "/seed/repository/url"),
        ("ERROR", "TEST_PARAMETER", "/test/parameters/area"),
        ("ERROR", "SECRET_MISSING", "/test/parameters/token"),
        ("WARNING", "NO_MESSAGE", "/messages"),
    }, found
    advice = suggestions(found)
    assert advice["/runtime"] == "Did you mean script?"
    assert advice["/mcpServers/0/server"] == "Did you mean time?"
    assert advice["/mcpServers/1/tools/0"].startswith("Did you mean get_current_time")
    assert advice["/options/allowedTools/1"] == "Add git to mcpServers."
    assert advice["/systemPrompt"].startswith("Did you mean area")


async def test_tools_messages_models_and_options_are_looked_at_with_the_runtime(people: People) -> None:
    client = people.member.client
    script = await validate(
        client,
        spec={
            "runtime": "script",
            "model": "openai:gpt-4o",
            "budget": {"maxCostUsd": "2"},
            "options": {"allowedTools": ["read_fil", "write_*"], "effort": "high", "extra": {"nonsense": 1}},
            "approvalRules": [{"tool": "delete_everything", "decision": "DENY"}],
            "messages": [
                "playbook: Broken\nsteps:\n  - shout: hello\n  - tool: x\n    expect: {path: 3}",
                "/tool write_file {not json}",
                "playbook: [",
                "playbook: Refers\nsteps:\n  - say: '{{ nobody }}'",
            ],
        },
    )
    assert places(script) == {
        ("WARNING", "MODEL_UNUSED", "/model"),
        ("WARNING", "BUDGET_WITHOUT_PRICE", "/budget/maxCostUsd"),
        ("ERROR", "UNKNOWN_OPTION", "/options/effort"),
        ("ERROR", "UNKNOWN_OPTION", "/options/extra/nonsense"),
        ("ERROR", "UNKNOWN_TOOL", "/options/allowedTools/0"),
        ("ERROR", "UNKNOWN_TOOL", "/approvalRules/0/tool"),
        *(("ERROR", "BAD_MESSAGE", f"/messages/{index}") for index in range(4)),
    }, script
    assert suggestions(script)["/options/allowedTools/0"].startswith("Did you mean read_file")
    # Nothing is configured for models on this server.
    model = await validate(client, spec={"runtime": "pydantic_ai", "messages": ["Hello"]})
    assert {("ERROR", "RUNTIME_UNAVAILABLE", "/runtime"), ("ERROR", "MODEL_MISSING", "/model")} <= places(model)
    named = await validate(client, spec={"runtime": "pydantic_ai", "model": "nobody:knows", "messages": ["Hello"]})
    assert ("ERROR", "UNKNOWN_MODEL", "/model") in places(named)


async def test_servers_are_asked_now_where_that_is_wanted(people: People) -> None:
    admin, client = people.admin.client, people.member.client
    name = f"s{uuid4().hex[:8]}"
    given = {"name": name, "transport": "STDIO", "command": FAKE, "check": False}
    server = (await admin(REGISTER, input=given))["registerMcpServer"]["mcpServer"]
    spec = {
        "runtime": "script",
        "mcpServers": [{"server": name, "tools": ["echo", "ecko"]}],
        "messages": ["/tool list_files {}"],
    }
    never = await validate(client, spec=spec)
    assert places(never) == {("WARNING", "SERVER_UNCHECKED", "/mcpServers/0/server")}
    now = await validate(client, spec=spec, checkServers=True)
    assert places(now) == {("ERROR", "UNKNOWN_TOOL", "/mcpServers/0/tools/1")}
    assert await validate(client, spec=spec) == never, "it writes nothing"
    dead = f"s{uuid4().hex[:8]}"
    await admin(REGISTER, input=given | {"name": dead, "command": [*FAKE, "--start", "die"]})
    gone = await validate(client, spec=spec | {"mcpServers": [{"server": dead}]}, checkServers=True)
    assert places(gone) == {("ERROR", "SERVER_UNREACHABLE", "/mcpServers/0/server")}
    await admin(CHECK, input={"mcpServerId": server["id"]})
    assert places(await validate(client, spec=spec)) == {("ERROR", "UNKNOWN_TOOL", "/mcpServers/0/tools/1")}


async def test_what_is_no_configuration_is_told_by_its_places_too(people: People) -> None:
    client = people.member.client
    found = await validate(
        client,
        specJson={"runtime": 3, "mcpServers": [{"server": ""}], "nonsense": True, "labels": {"app.example/tier": 1}},
    )
    assert (found["digest"], found["valid"]) == (None, False)
    assert places(found) == {
        ("ERROR", "MALFORMED", path)
        for path in ("/runtime", "/mcpServers/0/server", "/nonsense", "/labels/app.example~1tier")
    }
    schema = {"type": "object", "properties": {"n": {"type": "integer", "default": "three"}}}
    assert ("ERROR", "PARAMETER_DEFAULT", "/parameters/properties/n/default") in places(
        await validate(client, specJson={"runtime": "script", "parameters": schema})
    )
    circle = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}}
    assert any(
        code == "PARAMETER_SCHEMA"
        for _, code, _ in places(await validate(client, specJson={"runtime": "script", "parameters": circle}))
    )


async def test_one_thing_at_a_time_is_validated_and_only_what_one_may_see(people: People) -> None:
    client = people.member.client
    template = await make_template(client, spec={"runtime": "script"})
    for input in ({}, {"templateId": template["id"], "specJson": {}}, {"spec": {}, "specJson": {}}, {"specJson": [1]}):
        assert (await client.refused(VALIDATE, input=input)).codes == ["BAD_INPUT"]
    assert (await client.refused(VALIDATE, input={"specJson": {}, "version": 1})).codes == ["BAD_INPUT"]
    assert (await client.refused(VALIDATE, input={"templateId": template["id"], "version": 9})).codes == ["NOT_FOUND"]
    hidden = await people.colleague.client.refused(VALIDATE, input={"templateId": template["id"]})
    assert hidden.codes == ["NOT_FOUND"]
    assert (await people.viewer.client.refused(VALIDATE, input={"specJson": {}})).codes == ["FORBIDDEN"]
