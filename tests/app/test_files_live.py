"""A file's way from a tool to a browser's downloads, on a running server."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.conftest import Server

pytestmark = pytest.mark.anyio

CREATE = "mutation ($input: CreateSessionInput!) { createSession(input: $input) { session { id } } }"
FILES = """
query ($id: ID!) {
  session(id: $id) { runs { nodes { status } } }
  workspaceEntries(sessionId: $id) { nodes { path kind size } }
}
"""
FILE = 'query ($id: ID!) { workspaceFile(sessionId: $id, path: "out/report.html") { text downloadUrl } }'


async def test_what_a_tool_writes_is_listed_read_and_downloaded(server: Server) -> None:
    message = '/tool write_file {"path": "out/report.html", "content": "<h1>Done</h1>"}'
    input_ = {"runtime": "script", "message": message, "options": {"allowedTools": ["write_file"]}}
    session_id = (await server.client(CREATE, input=input_))["createSession"]["session"]["id"]
    async with asyncio.timeout(60):
        while True:
            found = await server.client(FILES, id=session_id)
            if found["session"]["runs"]["nodes"][0]["status"] == "FINISHED":
                break
            await asyncio.sleep(0.1)
    assert found["workspaceEntries"]["nodes"] == [{"path": "out", "kind": "DIRECTORY", "size": None}]
    file = (await server.client(FILE, id=session_id))["workspaceFile"]
    assert file["text"] == "<h1>Done</h1>"
    async with httpx.AsyncClient() as http:
        response = await http.get(file["downloadUrl"])
        assert (response.status_code, response.text) == (200, "<h1>Done</h1>")
        assert response.headers["content-disposition"].startswith("attachment")
        head = await http.head(file["downloadUrl"])
        assert (head.status_code, head.headers["allow"]) == (405, "GET")
        forged = await http.get(file["downloadUrl"][:-4] + "AAAA")
        assert forged.status_code == 404
    assert file["downloadUrl"].rpartition("/")[2] not in server.log


async def test_published_servers_are_registered_and_checked(server: Server) -> None:
    register = """
    mutation ($input: RegisterMcpServerInput!) {
      registerMcpServer(input: $input) { mcpServer { checkError protocolVersionSeen tools { name readOnly } } }
    }
    """
    for name, command, tool in (
        ("live-git", ["mcp-server-git"], "git_status"),
        ("live-time", ["mcp-server-time", "--local-timezone", "Etc/UTC"], "get_current_time"),
    ):
        new = {"name": name, "transport": "STDIO", "command": command}
        made = (await server.client(register, input=new))["registerMcpServer"]["mcpServer"]
        assert made["checkError"] is None
        assert tool in {listed["name"] for listed in made["tools"]}
