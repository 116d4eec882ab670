"""MCP servers, environment variables and the files of sessions, as a client of the graph sees them."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from app.wiring import Program
from core import db
from core.ids import decode
from core.permissions import Role
from core.settings import Settings
from schema.build import served_schema
from schema.context import Context
from schema.execution import Graph, Request
from services.sessions.lifecycle import session_directory
from tests.services.identity_help import HERE, House, a_house, audited

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
PROGRAM = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "mcp_server.py")]

SERVER = """
  id name description transport command url environmentNames headerNames protocolVersion protocolVersionSeen stateless
  timeoutSeconds checkedAt checkError createdAt removedAt
  tools { name title description inputSchema outputSchema readOnly destructive }
"""
REGISTER = (
    f"mutation ($input: RegisterMcpServerInput!) {{ registerMcpServer(input: $input) {{ mcpServer {{ {SERVER} }} }} }}"
)
UPDATE = f"mutation ($input: UpdateMcpServerInput!) {{ updateMcpServer(input: $input) {{ mcpServer {{ {SERVER} }} }} }}"
CHECK = "mutation ($input: McpServerInput!) { checkMcpServer(input: $input) { mcpServer { checkError } } }"
REMOVE = "mutation ($input: McpServerInput!) { removeMcpServer(input: $input) { mcpServer { removedAt } } }"
LIST = """
query ($first: Int, $after: String, $filter: McpServerFilter) {
  mcpServers(first: $first, after: $after, filter: $filter) {
    totalCount nodes { name } pageInfo { endCursor hasNextPage }
  }
}
"""
CREATE_SESSION = (
    "mutation ($input: CreateSessionInput!) { createSession(input: $input) { session { id mcpServers { name } } } }"
)


class Asker:
    """Asks the graph in one role."""

    def __init__(self, graph: Graph, house: House, role: Role) -> None:
        self._graph, self._actor = graph, house.actor(role)

    async def body(self, document: str, **variables: Any) -> Json:
        return await self._graph.execute(Request(document, variables, None), Context(self._actor, HERE))

    async def __call__(self, document: str, **variables: Any) -> Json:
        body = await self.body(document, **variables)
        assert "errors" not in body, body
        return body["data"]  # type: ignore[no-any-return]

    async def refused(self, document: str, **variables: Any) -> Json:
        [error] = (await self.body(document, **variables))["errors"]
        return error["extensions"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(served_schema(), Settings())


@pytest.fixture
async def house(database: Program) -> House:
    return await a_house()


@pytest.fixture
def admin(graph: Graph, house: House) -> Asker:
    return Asker(graph, house, Role.ADMIN)


@pytest.fixture
def member(graph: Graph, house: House) -> Asker:
    return Asker(graph, house, Role.MEMBER)


async def test_a_server_from_registration_to_removal(admin: Asker, member: Asker) -> None:
    input_ = {
        "name": "test",
        "transport": "STDIO",
        "command": PROGRAM,
        "timeoutSeconds": 30,
        "description": "For tests",
        "environment": [{"name": "API_TOKEN", "value": "hidden-value"}],
        "idempotencyKey": "k",
    }
    made = (await admin(REGISTER, input=input_))["registerMcpServer"]["mcpServer"]
    assert (made["checkError"], made["environmentNames"], made["removedAt"]) == (None, ["API_TOKEN"], None)
    assert "hidden-value" not in str(made)
    tools = {tool["name"]: tool for tool in made["tools"]}
    assert (tools["echo"]["readOnly"], tools["echo"]["destructive"]) == (True, False)
    assert (tools["remember"]["readOnly"], tools["remember"]["destructive"]) == (False, True)
    assert tools["echo"]["inputSchema"]["properties"]["text"]["type"] == "string"
    assert (await admin(REGISTER, input=input_))["registerMcpServer"]["mcpServer"]["id"] == made["id"]

    assert (await member(LIST))["mcpServers"] == {
        "totalCount": 1,
        "nodes": [{"name": "test"}],
        "pageInfo": {"endCursor": (await member(LIST))["mcpServers"]["pageInfo"]["endCursor"], "hasNextPage": False},
    }
    node = "query ($id: ID!) { node(id: $id) { id ... on McpServer { name } } mcpServer(id: $id) { name } }"
    assert await member(node, id=made["id"]) == {
        "node": {"id": made["id"], "name": "test"},
        "mcpServer": {"name": "test"},
    }
    session = (await member(CREATE_SESSION, input={"mcpServerIds": [made["id"]]}))["createSession"]["session"]
    assert session["mcpServers"] == [{"name": "test"}]

    pinned = {"mcpServerId": made["id"], "protocolVersion": "2025-11-25", "check": False}
    assert (await admin(UPDATE, input=pinned))["updateMcpServer"]["mcpServer"]["protocolVersion"] == "2025-11-25"
    kept = {"mcpServerId": made["id"], "description": "", "check": False}
    changed = (await admin(UPDATE, input=kept))["updateMcpServer"]["mcpServer"]
    assert (changed["protocolVersion"], changed["description"], changed["command"]) == ("2025-11-25", "", PROGRAM)
    agreed = {"mcpServerId": made["id"], "protocolVersion": None, "check": False}
    assert (await admin(UPDATE, input=agreed))["updateMcpServer"]["mcpServer"]["protocolVersion"] is None

    server = {"mcpServerId": made["id"]}
    assert (await admin(CHECK, input=server))["checkMcpServer"]["mcpServer"]["checkError"] is None
    for document, given in ((REGISTER, input_), (UPDATE, kept), (CHECK, server), (REMOVE, server)):
        assert (await member.refused(document, input=given))["code"] == "FORBIDDEN"
    assert (await admin(REMOVE, input=server))["removeMcpServer"]["mcpServer"]["removedAt"]
    assert (await member(LIST))["mcpServers"]["nodes"] == []
    assert (await member(node, id=made["id"]))["mcpServer"] == {"name": "test"}
    assert (await admin.refused(REMOVE, input=server))["code"] == "NOT_FOUND"


async def test_bad_registrations_are_located_and_servers_are_found_by_filters(admin: Asker) -> None:
    bad = {"name": "Bad", "transport": "STREAMABLE_HTTP", "command": ["x"], "headers": [{"name": "Host", "value": "y"}]}
    refused = await admin.refused(REGISTER, input=bad)
    assert (refused["code"], [item["field"] for item in refused["fields"]]) == (
        "BAD_INPUT",
        ["name", "url", "command", "headers.0.name"],
    )
    for number in range(3):
        new = {"name": f"s{number}", "transport": "STDIO", "command": ["x"], "description": f"Of {number % 2}"}
        await admin(REGISTER, input=new | {"check": False})
    conflict = await admin.refused(REGISTER, input={"name": "s1", "transport": "STDIO", "command": ["x"]})
    assert (conflict["code"], conflict["field"]) == ("CONFLICT", "name")
    first = (await admin(LIST, first=2))["mcpServers"]
    assert ([node["name"] for node in first["nodes"]], first["totalCount"]) == (["s0", "s1"], 3)
    rest = (await admin(LIST, first=2, after=first["pageInfo"]["endCursor"]))["mcpServers"]
    assert [node["name"] for node in rest["nodes"]] == ["s2"]
    for filter_, names in (
        ({"textContains": "oF 0"}, ["s0", "s2"]),
        ({"textContains": "S1"}, ["s1"]),
        ({"transport": "STREAMABLE_HTTP"}, []),
        ({"usable": False}, []),
    ):
        assert [node["name"] for node in (await admin(LIST, filter=filter_))["mcpServers"]["nodes"]] == names


async def test_variables_go_in_and_never_come_out(admin: Asker, member: Asker) -> None:
    set_ = """
    mutation ($input: SetEnvironmentVariableInput!) {
      setEnvironmentVariable(input: $input) { environmentVariable { id name createdAt updatedAt } }
    }
    """
    delete = """
    mutation ($input: DeleteEnvironmentVariableInput!) {
      deleteEnvironmentVariable(input: $input) { environmentVariable { name } }
    }
    """
    names = "{ environmentVariables { totalCount nodes { id name updatedAt } } }"
    made = await admin(set_, input={"name": "API_TOKEN", "value": "hidden"})
    variable = made["setEnvironmentVariable"]["environmentVariable"]
    assert variable["id"].startswith("env_")
    found = (await member(names))["environmentVariables"]
    assert (found["totalCount"], [node["id"] for node in found["nodes"]]) == (1, [variable["id"]])
    node = "query ($id: ID!) { node(id: $id) { ... on EnvironmentVariable { name } } }"
    assert (await member(node, id=variable["id"]))["node"] == {"name": "API_TOKEN"}
    assert (await member.refused(set_, input={"name": "X", "value": "y"}))["code"] == "FORBIDDEN"
    refused = await admin.refused(set_, input={"name": "LD_PRELOAD", "value": "y"})
    assert (refused["code"], refused["field"]) == ("BAD_INPUT", "name")
    await admin(delete, input={"name": "API_TOKEN"})
    assert (await admin.refused(delete, input={"name": "API_TOKEN"}))["code"] == "NOT_FOUND"
    assert (await member(names))["environmentVariables"]["nodes"] == []


async def test_files_are_listed_read_and_linked(admin: Asker, member: Asker, graph: Graph, house: House) -> None:
    session_id = (await member(CREATE_SESSION, input={}))["createSession"]["session"]["id"]
    root = session_directory(house.organization_id, decode("ses", session_id))
    (root / "sub").mkdir()
    (root / "sub" / "notes.txt").write_text("hello world")
    (root / "image").write_bytes(b"\xff\x00")
    entries = """
    query ($id: ID!, $path: String! = ".", $first: Int, $after: String) {
      workspaceEntries(sessionId: $id, path: $path, first: $first, after: $after) {
        totalCount pageInfo { hasNextPage endCursor } nodes { name path kind size modifiedAt }
      }
    }
    """
    found = (await member(entries, id=session_id, first=1))["workspaceEntries"]
    assert (found["totalCount"], found["pageInfo"]["hasNextPage"]) == (2, True)
    assert (found["nodes"][0]["name"], found["nodes"][0]["kind"], found["nodes"][0]["size"]) == ("image", "FILE", 2)
    rest = (await member(entries, id=session_id, after=found["pageInfo"]["endCursor"]))["workspaceEntries"]
    assert [node["kind"] for node in rest["nodes"]] == ["DIRECTORY"]
    below = (await member(entries, id=session_id, path="sub"))["workspaceEntries"]
    assert [node["path"] for node in below["nodes"]] == ["sub/notes.txt"]

    read = """
    query ($id: ID!, $path: String!, $offset: BigInt! = 0, $limit: Int! = 100) {
      workspaceFile(sessionId: $id, path: $path, offset: $offset, limit: $limit) {
        name path size modifiedAt offset text base64 truncated nextOffset downloadUrl
      }
    }
    """
    file = (await member(read, id=session_id, path="sub/notes.txt", offset=6, limit=3))["workspaceFile"]
    assert (file["text"], file["base64"], file["truncated"], file["nextOffset"]) == ("wor", None, True, 9)
    assert (file["name"], file["path"], file["size"]) == ("notes.txt", "sub/notes.txt", 11)
    assert "/files/" in file["downloadUrl"]
    image = (await member(read, id=session_id, path="image"))["workspaceFile"]
    assert (image["text"], base64.b64decode(image["base64"]), image["truncated"]) == (None, b"\xff\x00", False)
    assert len(await audited("workspace.read")) == 2

    refused = await member.refused(read, id=session_id, path="../x")
    assert (refused["code"], refused["field"]) == ("BAD_INPUT", "path")
    stranger = Asker(graph, await a_house("Other"), Role.OWNER)
    viewer = Asker(graph, house, Role.VIEWER)
    for asker in (stranger, viewer):
        assert (await asker.refused(read, id=session_id, path="image"))["code"] == "NOT_FOUND"
        assert (await asker.refused(entries, id=session_id))["code"] == "NOT_FOUND"
    assert (await admin(read, id=session_id, path="image"))["workspaceFile"]["size"] == 2


async def test_lists_ask_the_database_once(admin: Asker) -> None:
    for number in range(3):
        new = {"name": f"s{number}", "transport": "STDIO", "command": ["x"], "check": False}
        await admin(REGISTER, input=new)
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        await admin(f"{{ mcpServers {{ nodes {{ {SERVER} }} }} }}")
        await admin("{ environmentVariables { nodes { name } } }")
    finally:
        db.queries_seen.reset(mark)
    assert len(seen) == 2
