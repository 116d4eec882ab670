"""The activity feed: who did what, in a session, a team, an organisation; read, filtered and followed."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from graphql import GraphQLInterfaceType, GraphQLObjectType

from schema.build import served_schema
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.talking import FORK, SEND, UPDATE, asks, create, decide, following, history, send, talk

pytestmark = pytest.mark.anyio

NODE = """
  __typename kind seq at actorKind actor { id name } onBehalfOf { name } session { id title }
  ... on MessageSent { message { text author { name } } run { number } }
  ... on AgentReplied { message { text } }
  ... on RunEnded { outcome reason }
  ... on ToolCalled { tool toolExecution { status } }
  ... on ToolReturned { failed durationMs }
  ... on ApprovalRequested { tool approval { status } }
  ... on ApprovalDecided { decision note }
  ... on SessionUpdated { changed }
  ... on SessionForked { forkedFrom { id } }
  ... on SessionStatusChanged { previousStatus newStatus }
"""
OF_SESSION = (
    """
query ($id: ID!, $first: Int, $after: String, $filter: ActivityFilter, $oldestFirst: Boolean! = false) {
  session(id: $id) {
    activity(first: $first, after: $after, filter: $filter, oldestFirst: $oldestFirst) {
      totalCount pageInfo { hasNextPage endCursor } nodes { %s }
    }
  }
}
"""
    % NODE
)
FEED = (
    """
query ($first: Int, $after: String, $filter: ActivityFilter, $oldestFirst: Boolean! = false) {
  activityFeed(first: $first, after: $after, filter: $filter, oldestFirst: $oldestFirst) {
    totalCount pageInfo { hasNextPage endCursor } nodes { %s }
  }
}
"""
    % NODE
)
FOLLOW = """
subscription ($filter: ActivityFilter, $session: ID, $team: ID, $after: Cursor) {
  activityFeed(filter: $filter, sessionId: $session, teamId: $team, after: $after) {
    cursor activity { __typename kind seq actorKind actor { name } session { id title } }
  }
}
"""


async def of_session(client: Client, session: str, **more: object) -> Json:
    found = (await client(OF_SESSION, id=session, first=100, **more))["session"]
    return found["activity"]  # type: ignore[no-any-return]


async def a_team(people: People, *members: str) -> str:
    made = await people.admin.client(
        "mutation ($input: CreateTeamInput!) { createTeam(input: $input) { team { id } } }",
        input={"name": f"Team {uuid4().hex[:8]}"},
    )
    team = made["createTeam"]["team"]["id"]
    for member in members:
        await people.admin.client(
            "mutation ($input: TeamMemberInput!) { addTeamMember(input: $input) { team { id } } }",
            input={"teamId": team, "userId": member},
        )
    return team  # type: ignore[no-any-return]


async def test_a_session_tells_who_did_what_on_whose_behalf(people: People) -> None:
    client = people.member.client
    session = (await create(client, title="First"))["id"]
    await talk(client, session, '/tool write_file {"path": "a", "content": "b"}', until=asks)
    [approval] = (await history(client, session))["pendingApprovals"]["nodes"]
    async with following(client, session) as stream:
        await decide(people.admin.client, approval["id"], "DENY", note="not now")
        await stream.until(lambda event: event["type"] == "RUN_FINISHED" and event["data"]["outcome"] != "interrupt")
    await client(UPDATE, input={"sessionId": session, "title": "Second", "permissionMode": "PLAN"})
    feed = await of_session(client, session)
    assert feed["totalCount"] == len(feed["nodes"])
    by_kind = {node["kind"]: node for node in feed["nodes"]}
    assert [node["seq"] for node in feed["nodes"]] == sorted((n["seq"] for n in feed["nodes"]), reverse=True)
    assert by_kind["MESSAGE_SENT"]["message"]["author"] == {"name": people.member.name}
    assert (by_kind["MESSAGE_SENT"]["actorKind"], by_kind["MESSAGE_SENT"]["onBehalfOf"]) == ("HUMAN", None)
    assert by_kind["TOOL_CALLED"]["tool"] == "write_file"
    assert by_kind["TOOL_CALLED"]["actorKind"] == "AGENT"
    assert by_kind["TOOL_CALLED"]["onBehalfOf"] == {"name": people.member.name}
    assert by_kind["APPROVAL_DECIDED"]["actor"]["name"] == people.admin.name
    assert (by_kind["APPROVAL_DECIDED"]["decision"], by_kind["APPROVAL_DECIDED"]["note"]) == ("DENIED", "not now")
    assert (by_kind["TOOL_RETURNED"]["failed"], by_kind["RUN_ENDED"]["outcome"]) == (True, "SUCCESS")
    assert by_kind["SESSION_UPDATED"]["changed"] == ["permissionMode", "title"]
    assert by_kind["SESSION_UPDATED"]["session"]["title"] == "Second"
    # A run that came to wait did not end; that is told by the request for a decision.
    assert sum(node["kind"] == "RUN_ENDED" for node in feed["nodes"]) == 1
    fork = (await client(FORK, input={"sessionId": session}))["forkSession"]["session"]["id"]
    [forked] = (await of_session(client, fork))["nodes"]
    assert (forked["__typename"], forked["forkedFrom"]) == ("SessionForked", {"id": session})


async def test_it_is_filtered_and_paged_in_both_directions(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    for number in range(3):
        await talk(client, session, f"hello {number}")
    await talk(people.admin.client, session, "hello from elsewhere")
    whole = (await of_session(client, session, oldestFirst=True))["nodes"]
    for direction in (True, False):
        expected = whole if direction else whole[::-1]
        pages: list[Json] = []
        after = None
        while True:
            found = (await client(OF_SESSION, id=session, first=3, after=after, oldestFirst=direction))["session"]
            pages += found["activity"]["nodes"]
            after = found["activity"]["pageInfo"]["endCursor"]
            if not found["activity"]["pageInfo"]["hasNextPage"]:
                break
        assert [node["seq"] for node in pages] == [node["seq"] for node in expected]
    for filter_, matches in (
        ({"kind": ["MESSAGE_SENT"]}, lambda n: n["kind"] == "MESSAGE_SENT"),
        ({"kind": ["RUN_ENDED", "SESSION_CREATED"]}, lambda n: n["kind"] in ("RUN_ENDED", "SESSION_CREATED")),
        ({"kind": []}, lambda n: False),
        ({"actorId": [people.admin.id]}, lambda n: n["actor"] is not None and n["actor"]["id"] == people.admin.id),
        ({"actorKind": ["AGENT"]}, lambda n: n["actorKind"] == "AGENT"),
        ({"actorKind": ["HUMAN"], "actorId": [people.admin.id, people.member.id]}, lambda n: n["actorKind"] == "HUMAN"),
        ({"since": whole[4]["at"]}, lambda n: n["at"] >= whole[4]["at"]),
        ({"until": whole[4]["at"]}, lambda n: n["at"] < whole[4]["at"]),
    ):
        found = await of_session(client, session, filter=filter_, oldestFirst=True)
        assert [node["seq"] for node in found["nodes"]] == [node["seq"] for node in whole if matches(node)], filter_
        assert found["totalCount"] == len(found["nodes"])


async def test_of_the_organisation_one_sees_what_one_sees_of_its_sessions(people: People) -> None:
    hidden = (await create(people.colleague.client, title="hidden"))["id"]
    open_ = (await create(people.colleague.client, title="open", visibility="ORGANIZATION"))["id"]
    mine = (await create(people.member.client, title="mine"))["id"]
    theirs = (await create(people.stranger.client, title="theirs"))["id"]
    wanted = {"kind": ["SESSION_CREATED"]}

    async def seen(client: Client) -> list[str]:
        found = (await client(FEED, first=20, filter=wanted))["activityFeed"]["nodes"]
        return [node["session"]["id"] for node in found if node["session"]["id"] in (hidden, open_, mine, theirs)]

    assert await seen(people.member.client) == [mine, open_]
    assert await seen(people.viewer.client) == [open_]
    assert await seen(people.admin.client) == [mine, open_, hidden]
    assert await seen(people.stranger.client) == [theirs]
    # Pages of it fit together, also along the index that is used where much is seen.
    for client in (people.admin.client, people.member.client):
        whole = (await client(FEED, first=30))["activityFeed"]["nodes"]
        paged: list[Json] = []
        after = None
        for _ in range(3):
            page = (await client(FEED, first=10, after=after))["activityFeed"]
            paged, after = paged + page["nodes"], page["pageInfo"]["endCursor"]
        assert [(n["session"]["id"], n["seq"]) for n in paged[:20]] == [
            (n["session"]["id"], n["seq"]) for n in whole[:20]
        ]


async def test_a_team_s_feed_is_that_of_its_members_sessions(people: People) -> None:
    team = await a_team(people, people.colleague.id)
    hidden = (await create(people.colleague.client, title="hidden"))["id"]
    open_ = (await create(people.colleague.client, title="open", visibility="ORGANIZATION"))["id"]
    await create(people.member.client, title="not the team's")
    document = """
    query ($id: ID!) {
      node(id: $id) {
        ... on Team { activity(first: 2, filter: {kind: SESSION_CREATED}) { totalCount nodes { session { id } } } }
      }
    }
    """
    for client, expected in ((people.admin.client, [open_, hidden]), (people.viewer.client, [open_])):
        feed = (await client(document, id=team))["node"]["activity"]
        assert [node["session"]["id"] for node in feed["nodes"]][: len(expected)] == expected
        assert feed["totalCount"] >= len(expected)
    async with people.viewer.client.stream(FOLLOW, team=team) as stream:
        await asyncio.sleep(0.5)
        await create(people.member.client, title="not the team's", visibility="ORGANIZATION")
        await create(people.colleague.client, title="hidden")
        later = (await create(people.colleague.client, title="later", visibility="ORGANIZATION"))["id"]
        item = (await stream.next())["activityFeed"]
        assert item["activity"]["session"] == {"id": later, "title": "later"}


async def test_it_is_followed_from_where_it_was_read_and_loses_nothing(people: People) -> None:
    client = people.member.client
    cursor = (await client("{ activityFeedCursor }"))["activityFeedCursor"]
    wanted = {"kind": ["MESSAGE_SENT"]}
    sessions = [(await create(client))["id"] for _ in range(3)]
    before = [(s, (await send(client, s, "while away"))["run"]["number"]) for s in sessions]

    async def read(count: int, after: str) -> list[Json]:
        async with client.stream(FOLLOW, filter=wanted, after=after) as stream:
            found: list[Json] = []
            while len(found) < count:
                item = (await stream.next())["activityFeed"]
                if item["activity"]["session"]["id"] in sessions:
                    found.append(item)
            return found

    live = asyncio.create_task(read(33, cursor))
    await asyncio.gather(*(send(client, session, f"{n}") for n in range(10) for session in sessions))
    items = await live
    seen = [(item["activity"]["session"]["id"], item["activity"]["seq"]) for item in items]
    assert len(set(seen)) == 33
    for session in sessions:
        expected = (await of_session(client, session, filter=wanted, oldestFirst=True))["nodes"]
        assert sorted(seq for s, seq in seen if s == session) == [node["seq"] for node in expected]
    assert len(before) == 3
    for cut in (0, 15, 31):
        rest = await read(32 - cut, items[cut]["cursor"])
        assert [(i["activity"]["session"]["id"], i["activity"]["seq"]) for i in rest] == seen[cut + 1 :]


async def test_one_session_is_followed_on_its_own_cursor(people: People) -> None:
    client = people.member.client
    session = (await create(client, message="hello"))["id"]
    async with client.stream(FOLLOW, session=session) as stream:
        items = await stream.until("activityFeed", lambda item: item["activity"]["kind"] == "RUN_ENDED")
    feed = (await of_session(client, session, oldestFirst=True))["nodes"]
    assert [item["activity"]["seq"] for item in items] == [node["seq"] for node in feed]
    page = (await client(OF_SESSION, id=session, first=2, oldestFirst=True))["session"]["activity"]["pageInfo"]
    for after in (items[1]["cursor"], page["endCursor"]):
        async with client.stream(FOLLOW, session=session, after=after, filter={"actorKind": ["AGENT"]}) as stream:
            rest = await stream.until("activityFeed", lambda item: item["activity"]["kind"] == "RUN_ENDED")
        assert {item["activity"]["actorKind"] for item in rest} == {"AGENT"}


async def test_what_is_withdrawn_is_told_no_more(people: People) -> None:
    owner = people.member.client
    session = (await create(owner, visibility="ORGANIZATION"))["id"]
    other = (await create(owner, visibility="ORGANIZATION"))["id"]
    async with people.colleague.client.stream(FOLLOW, filter={"actorId": [people.member.id]}) as stream:
        await asyncio.sleep(0.5)
        await owner(UPDATE, input={"sessionId": session, "visibility": "PRIVATE"})
        await send(owner, session, "between us")
        await send(owner, other, "for everybody")
        items = await stream.until("activityFeed", lambda item: item["activity"]["kind"] == "RUN_ENDED")
        assert {item["activity"]["session"]["id"] for item in items} == {other}


async def test_bad_input_is_refused(people: People) -> None:
    client = people.member.client
    session = (await create(client))["id"]
    foreign_team = (
        await people.stranger.client(
            "mutation ($input: CreateTeamInput!) { createTeam(input: $input) { team { id } } }",
            input={"name": f"Theirs {uuid4().hex[:6]}"},
        )
    )["createTeam"]["team"]["id"]
    for after in ("", "x", "WzFd", "WyJhIiwiYiIsMV0", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsIngiLDFd", "e30"):
        assert (await client.refused(FEED, after=after)).codes == ["BAD_INPUT"]
        assert (await client.refused(OF_SESSION, id=session, after=after)).codes == ["BAD_INPUT"]
    for filter_, code in (({"actorId": ["nonsense"]}, "BAD_INPUT"), ({"actorId": [session]}, "NOT_FOUND")):
        refused = await client.refused(FEED, filter=filter_)
        assert (refused.codes, refused.extensions["field"]) == ([code], "filter.actorId")
    async with client.socket() as socket:
        for variables, code in (
            ({"after": "nonsense"}, "BAD_INPUT"),
            ({"after": "WyIxIiwieCIsMV0"}, "BAD_INPUT"),
            (
                {"after": "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OTkiLCIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDAiLDFd"},
                "BAD_INPUT",
            ),
            ({"session": session, "after": "nonsense"}, "BAD_INPUT"),
            ({"session": session, "team": foreign_team}, "BAD_INPUT"),
            ({"team": foreign_team}, "NOT_FOUND"),
            ({"session": session[:-4] + "0000"}, "NOT_FOUND"),
        ):
            stream = await socket.subscribe(FOLLOW, **variables)
            with pytest.raises(AssertionError, match=code):
                await stream.next()
    assert (await client.refused(SEND, input={"sessionId": session, "text": " "})).codes == ["BAD_INPUT"]


def test_fields_of_the_kinds_can_be_asked_for_side_by_side() -> None:
    """Fields of one name have one type in all kinds, so that no client needs aliases."""
    schema = served_schema()
    activity = schema.type_map["Activity"]
    assert isinstance(activity, GraphQLInterfaceType)
    types: dict[str, set[str]] = {}
    for type_ in schema.get_possible_types(activity):
        assert isinstance(type_, GraphQLObjectType)
        for name, field in type_.fields.items():
            types.setdefault(name, set()).add(str(field.type))
    assert {name: found for name, found in types.items() if len(found) > 1} == {}
