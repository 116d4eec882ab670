"""Sessions through the graph: made, changed, listed, ended, forked, and kept from those they are not for."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from core.ids import encode, new_id
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.talking import CREATE, FORK, GET, SEND, UPDATE, create, ended, following, history, move, named, send, talk

pytestmark = pytest.mark.anyio

REGISTER = """
mutation ($input: RegisterMcpServerInput!) { registerMcpServer(input: $input) { mcpServer { id name } } }
"""
LIST = """
query ($first: Int, $after: String, $filter: SessionFilter, $orderBy: SessionOrder! = CREATED_NEWEST_FIRST) {
  sessions(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
    totalCount nodes { id title status } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor }
  }
}
"""


async def server_of(client: Client) -> str:
    """An MCP server of the client's organisation that nobody starts."""
    given = {"name": f"never-{uuid4().hex[:8]}", "transport": "STDIO", "command": ["true"], "check": False}
    return (await client(REGISTER, input=given))["registerMcpServer"]["mcpServer"]["id"]  # type: ignore[no-any-return]


# -- making


async def test_a_session_needs_nothing_to_be_made(people: People) -> None:
    made = await create(people.member.client)
    assert made["title"] == "Untitled session"
    assert (made["status"], made["visibility"], made["permissionMode"]) == ("CREATED", "PRIVATE", "DEFAULT")
    assert (made["runtime"], made["model"], made["systemPrompt"]) == ("script", None, None)
    assert made["owner"] == made["creator"] == {"id": people.member.id, "name": people.member.name}
    assert (made["messageCount"], made["labels"], made["mcpServers"], made["archivedAt"]) == (0, [], [], None)
    assert made["options"] == {
        "allowedTools": [],
        "disallowedTools": [],
        "maxTurns": None,
        "maxBudgetUsd": None,
        "environment": [],
        "workingDirectory": ".",
        "fallbackModel": None,
        "effort": None,
        "maxThinkingTokens": None,
        "taskBudgetTokens": None,
        "outputSchema": None,
        "subagents": [],
        "skills": None,
        "settingSources": None,
        "betas": [],
        "extra": {},
    }


async def test_every_option_comes_back_as_it_was_given(people: People) -> None:
    options = {
        "allowedTools": ["git.*", "shell"],
        "disallowedTools": ["*.delete_*"],
        "maxTurns": 7,
        "maxBudgetUsd": "2.50",
        "environment": ["GITHUB_TOKEN"],
        "workingDirectory": "work/here",
        "extra": {"shell_network": False},
    }
    given = {
        "title": "  All   of it ",
        "systemPrompt": "Be brief — äöü 🙂",
        "permissionMode": "ACCEPT_EDITS",
        "visibility": "ORGANIZATION",
        "labels": [{"name": "team", "value": "core"}, {"name": "app.example/tier", "value": ""}],
        "mcpServerIds": [await server_of(people.admin.client), await server_of(people.admin.client)],
        "options": options,
    }
    made = await create(people.member.client, **given)
    read = (await people.colleague.client(GET, id=made["id"]))["session"]
    assert read == made
    assert made["title"] == "All of it"
    assert made["systemPrompt"] == given["systemPrompt"]
    assert (made["permissionMode"], made["visibility"]) == ("ACCEPT_EDITS", "ORGANIZATION")
    assert sorted(label["name"] for label in made["labels"]) == ["app.example/tier", "team"]
    assert [server["id"] for server in made["mcpServers"]] == given["mcpServerIds"]
    assert made["options"] == made["options"] | options


async def test_options_of_another_runtime_are_refused_not_left_without_effect(client: Client) -> None:
    refused = await client.refused(CREATE, input={"runtime": "script", "options": {"effort": "high", "skills": ["x"]}})
    assert refused.codes == ["BAD_INPUT"]
    assert {problem["field"] for problem in refused.extensions["fields"]} == {"options.effort", "options.skills"}


async def test_all_bad_options_are_told_at_once_each_with_its_place(client: Client) -> None:
    refused = await client.refused(
        CREATE,
        input={
            "options": {
                "maxTurns": 0,
                "maxBudgetUsd": "-1",
                "environment": ["OK", "NOT OK"],
                "workingDirectory": "../elsewhere",
                "effort": "endless",
                "subagents": [{"name": "Bad Name", "description": "d", "prompt": "p"}],
            }
        },
    )
    assert refused.codes == ["BAD_INPUT"]
    assert {problem["field"] for problem in refused.extensions["fields"]} == {
        "options.maxTurns",
        "options.maxBudgetUsd",
        "options.environment",
        "options.workingDirectory",
        "options.effort",
        "options.subagents.0.name",
    }
    assert all(problem["message"] for problem in refused.extensions["fields"])


@pytest.mark.parametrize(
    ("input", "code", "field"),
    [
        ({"title": " "}, "BAD_INPUT", "title"),
        ({"title": "x" * 201}, "BAD_INPUT", "title"),
        ({"runtime": "perl"}, "BAD_INPUT", "runtime"),
        ({"model": ""}, "BAD_INPUT", "model"),
        ({"systemPrompt": "x" * 300_000}, "TOO_LARGE", "systemPrompt"),
        ({"labels": [{"name": "Team", "value": "a"}]}, "BAD_INPUT", "labels"),
        ({"labels": [{"name": f"l{n}", "value": ""} for n in range(33)]}, "BAD_INPUT", "labels"),
        ({"labels": [{"name": "team", "value": "x" * 201}]}, "BAD_INPUT", "labels"),
        ({"message": ""}, "BAD_INPUT", "text"),
        ({"message": "/tool x {broken"}, "BAD_INPUT", "text"),
        ({"idempotencyKey": "k" * 201}, "BAD_INPUT", "idempotencyKey"),
        ({"mcpServerIds": ["mcp_01j00000000000000000000000"]}, "NOT_FOUND", "mcpServerIds"),
        ({"mcpServerIds": ["nonsense"]}, "BAD_INPUT", "mcpServerIds"),
        ({"options": {"extra": {"unheard_of": 1}}}, "BAD_INPUT", None),
        ({"title": "NUL \0 here"}, "BAD_INPUT", None),
        ({"options": {"outputSchema": {"a": "\0"}}}, "BAD_INPUT", None),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(
    client: Client, input: Json, code: str, field: str | None
) -> None:
    refused = await client.refused(CREATE, input=input)
    assert refused.codes == [code]
    if field is not None:
        assert refused.extensions["field"] == field
    assert refused.extensions["errorId"].startswith("err_")


async def test_options_that_the_runtime_does_not_know_are_named(client: Client) -> None:
    refused = await client.refused(CREATE, input={"options": {"extra": {"unheard_of": 1}}})
    assert [problem["field"] for problem in refused.extensions["fields"]] == ["options.extra.unheard_of"]


async def test_servers_of_another_organisation_do_not_exist(people: People) -> None:
    theirs = await server_of(people.stranger.client)
    refused = await people.member.client.refused(CREATE, input={"mcpServerIds": [theirs]})
    assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "mcpServerIds")


async def test_viewers_make_nothing(people: People) -> None:
    refused = await people.viewer.client.refused(CREATE, input={})
    assert refused.codes == ["FORBIDDEN"]
    assert "SESSIONS_WRITE" in refused.message


# -- once, however often it is asked


async def test_the_same_key_gives_the_same_session(people: People) -> None:
    key = uuid4().hex
    first = await create(people.member.client, title="Once", idempotencyKey=key)
    again = await create(people.member.client, title="Once", idempotencyKey=key)
    assert first["id"] == again["id"]
    other = await people.member.client.refused(CREATE, input={"title": "Twice", "idempotencyKey": key})
    assert (other.codes, other.extensions["field"]) == (["CONFLICT"], "idempotencyKey")
    # Keys are their users' own.
    assert (await create(people.colleague.client, title="Once", idempotencyKey=key))["id"] != first["id"]


async def test_two_at_once_with_one_key_make_one_session(people: People) -> None:
    key = uuid4().hex
    made = await asyncio.gather(*(create(people.member.client, title="Race", idempotencyKey=key) for _ in range(6)))
    assert len({session["id"] for session in made}) == 1
    found = await people.member.client(LIST, filter={"titleContains": "Race", "ownerId": [people.member.id]})
    assert found["sessions"]["totalCount"] == 1


async def test_a_message_with_a_key_is_sent_once_also_when_the_session_is_closed_since(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    await talk(client, session, "hello", idempotencyKey="once")
    assert await move(client, "archiveSession", session) == "ARCHIVED"
    again = await send(client, session, "hello", idempotencyKey="once")
    assert (await history(client, session))["runs"]["nodes"][0]["id"] == again["run"]["id"]
    refused = await client.refused(SEND, input={"sessionId": session, "text": "hello"})
    assert refused.codes == ["ILLEGAL_TRANSITION"]
    assert refused.extensions["status"] == "ARCHIVED"
    assert "resumeSession" in refused.message


# -- changing


async def test_what_is_left_out_of_an_update_stays(people: People) -> None:
    client = people.member.client
    made = await create(client, title="Before", labels=[{"name": "a", "value": "1"}], options={"maxTurns": 3})
    changed = (await client(UPDATE, input={"sessionId": made["id"], "title": "After"}))["updateSession"]["session"]
    assert changed["title"] == "After"
    assert changed["options"] == made["options"]
    assert changed["labels"] == made["labels"]
    server = await server_of(people.admin.client)
    changed = (
        await client(
            UPDATE,
            input={
                "sessionId": made["id"],
                "labels": [],
                "mcpServerIds": [server],
                "permissionMode": "PLAN",
                "options": {"allowedTools": ["x"]},
            },
        )
    )["updateSession"]["session"]
    assert (changed["labels"], changed["permissionMode"]) == ([], "PLAN")
    assert changed["options"]["allowedTools"] == ["x"]
    assert changed["options"]["maxTurns"] is None
    assert [each["id"] for each in changed["mcpServers"]] == [server]


async def test_a_colleague_reads_what_is_open_and_changes_nothing(people: People) -> None:
    open_ = await create(people.member.client, visibility="ORGANIZATION")
    private = await create(people.member.client)
    for one in (people.colleague, people.viewer):
        assert (await one.client(GET, id=open_["id"]))["session"]["id"] == open_["id"]
        assert (await one.client(GET, id=private["id"]))["session"] is None
    change = {"sessionId": open_["id"], "title": "Mine now"}
    assert (await people.colleague.client.refused(UPDATE, input=change)).codes == ["FORBIDDEN"]
    change["sessionId"] = private["id"]
    assert (await people.colleague.client.refused(UPDATE, input=change)).codes == ["NOT_FOUND"]
    assert (await people.admin.client(UPDATE, input=change))["updateSession"]["session"]["title"] == "Mine now"


# -- whose it is not


async def test_another_organisations_objects_are_nowhere_to_be_found(people: People) -> None:
    client = people.member.client
    session = (await create(client, visibility="ORGANIZATION", permissionMode="DEFAULT"))["id"]
    await talk(client, session, '/tool write_file {"path": "a", "content": "b"}', named("approval.requested"))
    found = await history(client, session)
    run, message = found["runs"]["nodes"][0]["id"], found["messages"]["nodes"][0]["id"]
    tool, approval = found["toolExecutions"]["nodes"][0]["id"], found["pendingApprovals"]["nodes"][0]["id"]

    theirs = people.stranger.client
    for id_ in (session, run, message, tool, approval):
        assert (await theirs("query ($id: ID!) { node(id: $id) { id } }", id=id_))["node"] is None
        assert (await client("query ($id: ID!) { node(id: $id) { id } }", id=id_))["node"]["id"] == id_
    assert (await theirs(GET, id=session))["session"] is None
    for document, input in (
        (SEND, {"sessionId": session, "text": "hello"}),
        (UPDATE, {"sessionId": session, "title": "x"}),
        (FORK, {"sessionId": session}),
        ("mutation ($input: InterruptRunInput!) { interruptRun(input: $input) { run { id } } }", {"runId": run}),
        (
            "mutation ($input: DecideApprovalInput!) { decideApproval(input: $input) { approval { id } } }",
            {"approvalId": approval, "decision": "APPROVE"},
        ),
        *(
            (
                f"mutation ($input: SessionInput!) {{ {name}(input: $input) {{ session {{ id }} }} }}",
                {"sessionId": session},
            )
            for name in ("pauseSession", "resumeSession", "completeSession", "terminateSession", "archiveSession")
        ),
    ):
        assert (await theirs.refused(document, input=input)).codes == ["NOT_FOUND"], document
    own = (await create(theirs))["id"]
    assert (await theirs.refused(FORK, input={"sessionId": own, "messageId": message})).codes == ["NOT_FOUND"]
    async with theirs.stream("subscription ($s: ID!) { sessionEvents(sessionId: $s) { seq } }", s=session) as stream:
        with pytest.raises(AssertionError, match="NOT_FOUND"):
            await stream.next()
    listed = (await theirs(LIST, filter={"status": ["CREATED", "ACTIVE", "WAITING"]}))["sessions"]["nodes"]
    assert session not in {each["id"] for each in listed}
    pending = await theirs("{ pendingApprovals { nodes { id } } }")
    assert pending["pendingApprovals"]["nodes"] == []
    # And nothing of it has left a trace.
    assert (await history(client, session))["status"] == "WAITING"


@pytest.mark.parametrize(
    ("id_", "code"),
    [
        ("", "BAD_INPUT"),
        ("ses_", "BAD_INPUT"),
        ("ses_" + "z" * 26, "BAD_INPUT"),
        ("ses_01k0000000000000000000000!", "BAD_INPUT"),
        ("../../etc/passwd", "BAD_INPUT"),
        ("x" * 10_000, "BAD_INPUT"),
        pytest.param(encode("run", new_id()), "NOT_FOUND", id="of a run"),
        pytest.param(encode("ses", new_id()), "NOT_FOUND", id="of no session"),
    ],
)
async def test_ids_that_are_none_of_a_session(client: Client, id_: str, code: str) -> None:
    refused = await client.refused(SEND, input={"sessionId": id_, "text": "hello"})
    assert (refused.codes, refused.extensions["field"]) == ([code], "sessionId")
    if code == "BAD_INPUT":
        assert (await client.refused(GET, id=id_)).codes == ["BAD_INPUT"]


# -- lists


async def page_through(client: Client, size: int, **more: Any) -> list[str]:
    """All ids of a list, page by page."""
    found: list[str] = []
    after = None
    while True:
        page = (await client(LIST, first=size, after=after, **more))["sessions"]
        found += [node["id"] for node in page["nodes"]]
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        if not page["pageInfo"]["hasNextPage"]:
            return found
        assert len(page["nodes"]) == size
        after = page["pageInfo"]["endCursor"]
        assert after == page["edges"][-1]["cursor"]


async def test_pages_lose_and_repeat_nothing_while_sessions_are_added(people: People) -> None:
    client, label = people.member.client, {"name": "batch", "value": uuid4().hex}
    made = [(await create(client, title=f"Page {n}", labels=[label]))["id"] for n in range(7)]
    only = {"labels": [label]}
    assert await page_through(client, 3, filter=only) == made[::-1]
    assert await page_through(client, 2, filter=only, orderBy="CREATED_OLDEST_FIRST") == made
    assert (await client(LIST, filter=only, first=1))["sessions"]["totalCount"] == 7

    # Somebody adds while another reads.
    page = (await client(LIST, first=4, filter=only))["sessions"]
    added = [(await create(client, labels=[label]))["id"] for _ in range(3)]
    rest = (await client(LIST, first=10, filter=only, after=page["pageInfo"]["endCursor"]))["sessions"]
    assert [node["id"] for node in page["nodes"] + rest["nodes"]] == made[::-1]
    assert await page_through(client, 4, filter=only, orderBy="CREATED_OLDEST_FIRST") == made + added

    # What happens in a session brings it to the front.
    await client(UPDATE, input={"sessionId": made[2], "title": "Touched"})
    assert (await page_through(client, 5, filter=only, orderBy="UPDATED_NEWEST_FIRST"))[0] == made[2]


async def test_filters(people: People) -> None:
    client, label = people.member.client, {"name": "filters", "value": uuid4().hex}
    one = await create(client, title="50% of_it", labels=[label, {"name": "tier", "value": "1"}])
    two = await create(client, title="Half of it", labels=[label])
    three = await create(people.colleague.client, title="Third", labels=[label], visibility="ORGANIZATION")

    async def found(**more: Any) -> set[str]:
        nodes = (await client(LIST, filter={"labels": [label]} | more))["sessions"]["nodes"]
        return {node["id"] for node in nodes}

    assert await found() == {one["id"], two["id"], three["id"]}
    assert await found(titleContains="% OF_") == {one["id"]}
    assert await found(titleContains="of_i") == {one["id"]}
    assert await found(ownerId=[people.colleague.id]) == {three["id"]}
    assert await found(ownerId=[]) == set()
    assert await found(labels=[label, {"name": "tier", "value": "1"}]) == {one["id"]}
    assert await found(runtime="claude") == set()
    assert await found(createdAfter=two["createdAt"]) == {two["id"], three["id"]}
    assert await found(createdBefore=two["createdAt"]) == {one["id"]}
    await move(client, "archiveSession", one["id"])
    assert await found() == {two["id"], three["id"]}
    assert await found(status=["ARCHIVED"]) == {one["id"]}
    assert await found(status=["CREATED", "ARCHIVED"]) == {one["id"], two["id"], three["id"]}


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"first": 0}, "first"),
        ({"first": 101}, "first"),
        ({"first": -1}, "first"),
        ({"after": "nonsense"}, "after"),
        ({"after": "WyJ4IiwieSJd"}, "after"),
        ({"after": "W10"}, "after"),
        ({"filter": {"ownerId": ["nobody"]}}, "filter.ownerId"),
    ],
)
async def test_pages_that_cannot_be(client: Client, variables: Json, field: str) -> None:
    refused = await client.refused(LIST, **variables)
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], field)


# -- the end, and beginnings from it


async def test_a_paused_session_takes_messages_and_works_on_them_when_it_goes_on(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    assert await move(client, "pauseSession", session) == "PAUSED"
    for word in ("one", "two"):
        assert (await send(client, session, word))["run"]["status"] == "QUEUED"
    await asyncio.sleep(0.3)
    assert [run["status"] for run in (await history(client, session))["runs"]["nodes"]] == ["QUEUED", "QUEUED"]
    cursor = (await client(GET, id=session))["session"]["lastEventCursor"]
    async with following(client, session, cursor) as stream:
        assert await move(client, "resumeSession", session) == "ACTIVE"
        await stream.until(ended)
        await stream.until(ended)
    found = await history(client, session)
    assert [(run["number"], run["status"]) for run in found["runs"]["nodes"]] == [(1, "FINISHED"), (2, "FINISHED")]


async def test_a_terminated_session_is_over_and_can_be_forked(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    await talk(client, session, '/tool write_file {"path": "a", "content": "b"}', named("approval.requested"))
    queued = await send(client, session, "after that")
    assert await move(client, "terminateSession", session) == "TERMINATED"
    found = await history(client, session)
    assert [run["status"] for run in found["runs"]["nodes"]] == ["INTERRUPTED", "INTERRUPTED"]
    assert found["pendingApprovals"]["nodes"] == []
    assert found["toolExecutions"]["nodes"][0]["status"] == "INTERRUPTED"
    assert found["runs"]["nodes"][1]["id"] == queued["run"]["id"]
    refused = await client.refused(SEND, input={"sessionId": session, "text": "hello"})
    assert (refused.codes, refused.extensions["status"]) == (["ILLEGAL_TRANSITION"], "TERMINATED")
    resume = "mutation ($input: SessionInput!) { resumeSession(input: $input) { session { id } } }"
    assert (await client.refused(resume, input={"sessionId": session})).codes == ["ILLEGAL_TRANSITION"]
    assert await move(client, "archiveSession", session) == "ARCHIVED"
    refused = await client.refused(resume, input={"sessionId": session})
    assert "terminated before" in refused.message
    fork = (await client(FORK, input={"sessionId": session}))["forkSession"]["session"]
    assert fork["status"] == "CREATED"
    assert (await talk(client, fork["id"], "hello"))[-1]["data"]["outcome"] == "success"


async def test_forks_go_on_from_where_they_are_told(people: People) -> None:
    client = people.member.client
    session = (await create(client, title="Source", visibility="ORGANIZATION"))["id"]
    for word in ("first", "second", "third"):
        await talk(client, session, f'/tool search_files {{"pattern": "{word}"}}')
    messages = (await history(client, session))["messages"]["nodes"]
    assert [message["role"] for message in messages] == ["USER", "ASSISTANT"] * 3

    async def fork(one: Client, **more: Any) -> Json:
        given = {"sessionId": session} | more
        return (await one(FORK, input=given))["forkSession"]["session"]  # type: ignore[no-any-return]

    def texts(of: Json) -> list[str]:
        return [message["text"] for message in of["messages"]["nodes"]]

    everything = await fork(people.colleague.client)
    assert everything["title"] == "Fork of Source"
    assert everything["forkedFrom"] == {"id": session}
    assert texts(everything) == [message["text"] for message in messages]
    at_answer = await fork(client, messageId=messages[3]["id"], title="From the second answer")
    assert (at_answer["title"], at_answer["status"]) == ("From the second answer", "CREATED")
    assert at_answer["forkedAtMessageId"] == messages[3]["id"]
    assert texts(at_answer) == [message["text"] for message in messages[:4]]
    at_question = await fork(client, messageId=messages[2]["id"])
    assert texts(at_question) == [message["text"] for message in messages[:3]]
    assert at_question["messages"]["nodes"][-1]["run"]["number"] == 1
    assert at_question["status"] == "ACTIVE"
    again = await people.colleague.client(FORK, input={"sessionId": everything["id"], "messageId": None})
    assert texts(again["forkSession"]["session"]) == texts(everything)
    key = uuid4().hex
    assert (await fork(client, idempotencyKey=key))["id"] == (await fork(client, idempotencyKey=key))["id"]
