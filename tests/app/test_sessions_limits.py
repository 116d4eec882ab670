"""How much one operation may ask for, what it costs the database, and what is told when something breaks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.wiring import Program
from core import db
from core.permissions import Actor, Role
from core.settings import Settings
from integrations.agents.base import ToolCall, ToolResult
from schema.build import served_schema
from schema.context import Context
from schema.execution import Graph, Request
from services.runs.executor import RunExecutor
from services.runs.queue import job_of
from services.sessions.lifecycle import NewSession, create_session
from services.sessions.messages import send_message
from services.sessions.options import SessionOptions
from tests.app.conftest import People
from tests.clients_of_graph import Client
from tests.conftest import Server
from tests.fakes.puppet import Puppet, end
from tests.services.identity_help import HERE, a_house
from tests.talking import CREATE, create

pytestmark = pytest.mark.anyio


# -- size


async def limited(client: Client, document: str, **variables: Any) -> str:
    """The name of the limit that an operation is refused for."""
    refused = await client.refused(document, **variables)
    assert refused.codes == ["LIMIT_EXCEEDED"], refused
    assert refused.extensions["found"] > refused.extensions["allowed"]
    return refused.extensions["limit"]  # type: ignore[no-any-return]


async def test_depth_aliases_and_cost_are_limited(client: Client) -> None:
    deep = "{ sessions { nodes { " + "forkedFrom { " * 20 + "id" + " }" * 20 + " } } }"
    assert await limited(client, deep) == "depth"
    many = "{ " + " ".join(f"a{n}: viewer {{ user {{ id }} }}" for n in range(40)) + " }"
    assert await limited(client, many) == "aliases"
    wide = """
    query ($n: Int) {
      sessions(first: $n) { nodes { runs(first: $n) { nodes { messages(first: $n) { nodes { id } } } } } }
    }
    """
    assert await limited(client, wide, n=100) == "cost"
    assert (await client(wide, n=5))["sessions"]["nodes"] is not None


async def test_fragments_hide_nothing_from_the_limits(client: Client) -> None:
    spread = "query { sessions(first: 100) { nodes { ...A } } }\n"
    spread += "fragment A on Session { runs(first: 100) { nodes { ...B } } }\n"
    spread += "fragment B on Run { messages(first: 100) { nodes { id } } }"
    assert await limited(client, spread) == "cost"
    cyclic = "{ viewer { user { ...A } } } fragment A on User { ...B } fragment B on User { ...A }"
    assert (await client.refused(cyclic)).codes[0] == "BAD_INPUT"
    # Doubling thirty times: a billion fields to one that counts them one by one.
    bomb = "{ sessions(first: 1) { nodes { ...F0 } } }\n"
    bomb += "\n".join(f"fragment F{n} on Session {{ ...F{n + 1} a{n}: id ...F{n + 1} }}" for n in range(30))
    bomb += "\nfragment F30 on Session { id }"
    async with httpx.AsyncClient(timeout=20) as http:
        response = await http.post(client.url, json={"query": bomb}, headers=client.headers)
    assert response.json()["errors"][0]["extensions"]["code"] in ("LIMIT_EXCEEDED", "BAD_INPUT")


async def test_tokens_and_length_are_limited(client: Client) -> None:
    assert "tokens" in (await client.refused("{ " + "__typename " * 5000 + "}")).message.lower()
    assert (await client.refused("#" * 300_000 + "\n{ __typename }")).codes == ["BAD_INPUT"]
    nested = "{ sessions(filter: {labels: " + "[" * 1500 + "]" * 1500 + "}) { totalCount } }"
    assert (await client.refused(nested)).codes[0] == "BAD_INPUT"


async def test_a_batch_is_refused(client: Client) -> None:
    async with httpx.AsyncClient() as http:
        response = await http.post(client.url, json=[{"query": "{ __typename }"}] * 2, headers=client.headers)
    assert response.status_code in (200, 400)
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_INPUT"


async def test_by_get_one_reads_and_does_not_write(client: Client) -> None:
    async with httpx.AsyncClient() as http:
        read = await http.get(client.url, params={"query": "{ viewer { user { id } } }"}, headers=client.headers)
        assert read.json()["data"]["viewer"]["user"]["id"]
        write = "mutation { createSession(input: {}) { session { id } } }"
        refused = await http.get(client.url, params={"query": write}, headers=client.headers)
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


async def test_nobody_gets_anything_without_a_credential(server: Server) -> None:
    nobody = server.as_(None)
    assert (await nobody.refused("{ sessions { totalCount } }")).codes == ["UNAUTHENTICATED"]
    assert (await nobody.refused(CREATE, input={})).codes == ["UNAUTHENTICATED"]
    assert (await server.as_("qdp_invented").raw("{ __typename }")).status_code == 401


async def test_refused_attempts_are_in_the_audit_log(people: People) -> None:
    await people.viewer.client.refused(CREATE, input={"title": "not for viewers"})
    document = """
    query ($id: ID!) { auditEvents(first: 10, filter: { actorId: $id, outcome: REFUSED }) {
      nodes { action errorCode actorName } } }
    """
    records = (await people.admin.client(document, id=people.viewer.id))["auditEvents"]["nodes"]
    wanted = {"action": "graph.createSession", "errorCode": "FORBIDDEN", "actorName": people.viewer.name}
    assert wanted in records
    assert (await people.member.client.refused(document, id=people.viewer.id)).codes == ["FORBIDDEN"]


# -- cost


class Asker:
    """Asks the graph in this process, and counts what that asks of the database."""

    def __init__(self, graph: Graph, actor: Actor) -> None:
        self._graph, self._actor = graph, actor

    async def __call__(self, document: str, **variables: Any) -> tuple[Any, list[str]]:
        seen: list[str] = []
        mark = db.queries_seen.set(seen)
        try:
            body = await self._graph.execute(Request(document, variables, None), Context(self._actor, HERE))
        finally:
            db.queries_seen.reset(mark)
        assert "errors" not in body, body
        return body["data"], seen


@pytest.fixture
async def asker(database: Program) -> Asker:
    """A member with three sessions, each with two runs that called a tool."""

    async def busy(strings: Any) -> Any:
        for number in range(2):
            call = ToolCall(f"c{number}", "shell", {})
            await strings.hooks.before_tool(call)
            await strings.hooks.after_tool(call, ToolResult([]))
        yield end()

    puppet = Puppet(busy)
    database.parts.runtimes[puppet.name] = puppet  # type: ignore[index]
    actor = (await a_house()).actor(Role.MEMBER)

    async def sweep(jobs: Any) -> int:
        return 0

    executor = RunExecutor(sweep)
    for _ in range(3):
        options = SessionOptions(allowed_tools=("*",))
        session = await create_session(actor, NewSession(runtime="puppet", message="one", options=options))
        await send_message(actor, session["id"], "two")
        for run in await db.fetch("SELECT * FROM runs WHERE session_id = $1 ORDER BY number", session["id"]):
            await executor.execute(job_of(run["id"], run["organization_id"], 1))
    return Asker(Graph(served_schema(), Settings()), actor)


async def test_lists_within_lists_cost_one_query_each_however_long_they_are(asker: Asker) -> None:
    for selection, queries in (
        ("id title labels { name } usage { requests } options { maxTurns }", 1),
        ("owner { name } creator { name }", 3),
        ("mcpServers { name }", 2),
        ("forkedFrom { title }", 1),
        ("messages(first: 2, newestFirst: true) { nodes { text author { name } run { number } } }", 4),
        ("messages { totalCount } toolExecutions { totalCount }", 5),
        (
            "runs { nodes { startedBy { name } messages { nodes { text } } toolExecutions { nodes { tool } } } }",
            5,
        ),
        ("runs { nodes { approvals { nodes { status } } } }", 3),
        ("toolExecutions { nodes { tool approval { status } session { title } run { number } } }", 5),
        ("approvals { nodes { id } } pendingApprovals { nodes { id } }", 3),
        ("access { level via { kind grant { id } team { id } } }", 2),
        ("grants { totalCount nodes { level user { id } grantedBy { id } } } shareLinks { nodes { level } }", 4),
    ):
        data, seen = await asker(f"{{ sessions(first: 5) {{ nodes {{ {selection} }} }} }}")
        assert len(data["sessions"]["nodes"]) == 3
        assert len(seen) <= queries, (selection, seen)


async def test_the_list_of_the_home_page_costs_few_queries(asker: Asker) -> None:
    document = """
    { sessions(first: 50) { totalCount nodes { id title status updatedAt owner { name } messageCount
      messages(first: 10, newestFirst: true) { totalCount nodes { id text author { name } } } } } }
    """
    data, seen = await asker(document)
    assert data["sessions"]["totalCount"] == 3
    assert len(seen) <= 6, seen
    _, seen = await asker("{ sessions { nodes { id } } }")
    assert len(seen) == 1, "a count is made only where it is asked for"
    _, seen = await asker(
        "{ pendingApprovals { nodes { id toolExecution { tool } session { title owner { name } } } } }"
    )
    assert len(seen) <= 4, seen


async def test_one_session_by_id_is_one_query(asker: Asker) -> None:
    data, _ = await asker("{ sessions(first: 1) { nodes { id } } }")
    id_ = data["sessions"]["nodes"][0]["id"]
    _, seen = await asker("query ($id: ID!) { session(id: $id) { id title status } }", id=id_)
    assert len(seen) == 1
    _, seen = await asker("query ($id: ID!) { node(id: $id) { id ... on Session { title } } }", id=id_)
    assert len(seen) == 1


# -- what breaks


async def test_what_breaks_is_masked_and_found_in_the_log_by_its_error_id(
    asker: Asker, database: Program, caplog: pytest.LogCaptureFixture
) -> None:
    async with db.transaction() as tx:
        await tx.execute("SET LOCAL ROLE NONE")
        await tx.execute("ALTER TABLE session_mcp_servers RENAME TO hidden_away")
    body = await asker._graph.execute(
        Request("{ sessions { nodes { id mcpServers { id } } } }", {}, None), Context(asker._actor, HERE)
    )
    error = body["errors"][0]
    assert error["extensions"]["code"] == "INTERNAL"
    assert "session_mcp_servers" not in str(body)
    assert error["extensions"]["errorId"] in error["message"]
    assert error["extensions"]["errorId"] in caplog.text
    assert "session_mcp_servers" in caplog.text


async def test_every_error_has_an_id_that_is_in_the_log(people: People, server: Server) -> None:
    refused = await people.member.client.refused(CREATE, input={"title": ""})
    assert refused.extensions["errorId"] in server.log
    await create(people.member.client)
