"""A token's scopes hold in the depth of the graph too, and an operation's size is what it really is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.conftest import People
from tests.clients_of_graph import Client
from tests.conftest import Server
from tests.sharing_help import share
from tests.talking import create, talk

pytestmark = pytest.mark.anyio


async def scoped(client: Client, server: Server, *scopes: str) -> Client:
    data = await client(
        "mutation($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret } }",
        input={"name": "narrow", "scopes": list(scopes)},
    )
    return server.as_(data["createAccessToken"]["secret"])


@pytest.mark.parametrize(
    "selection",
    [
        "owner { email }",
        "creator { teams { nodes { name } } }",
        "messages { nodes { author { role } } }",
        "mcpServers { command }",
    ],
)
async def test_what_a_token_may_not_list_it_cannot_reach_through_a_session(
    client: Client, server: Server, selection: str
) -> None:
    narrow = await scoped(client, server, "SESSIONS_READ")
    assert (await narrow("{ sessions { nodes { title } } }"))["sessions"]["nodes"]
    refused = await narrow.refused("{ sessions { nodes { %s } } }" % selection)
    assert set(refused.codes) == {"FORBIDDEN"}


async def test_oneself_takes_no_permission_to_read_members(client: Client, server: Server) -> None:
    narrow = await scoped(client, server, "PROFILE_READ")
    assert (await narrow("{ viewer { user { name } } }"))["viewer"]["user"]["name"] == "Admin"
    refused = await narrow.refused("{ viewer { user { teams { nodes { members { nodes { email } } } } } } }")
    assert refused.codes == ["FORBIDDEN"]


TEXT_BY_NOTIFICATION = """
{ viewer { notifications(first: 5) { nodes { session { title messages { nodes { text } } } } } } }
"""
TEXT_BY_REPORT = """
query ($id: ID!) { sessionAccessReport(sessionId: $id) { session { title messages { nodes { text } } } } }
"""
TEXT_BY_COMMENT = """
mutation ($id: ID!) {
  createAnnotation(input: {sessionId: $id, text: "seen"}) { thread { session { title messages { nodes { text } } } } }
}
"""
TEXT_BY_GRANT = """
mutation ($id: ID!, $with: ID!) {
  shareSession(input: {sessionId: $id, userIds: [$with], level: READ}) {
    session { title messages { nodes { text } } }
  }
}
"""


@pytest.mark.parametrize(
    ("scope", "document"),
    [
        ("NOTIFICATIONS_MANAGE", TEXT_BY_NOTIFICATION),
        ("AUDIT_READ", TEXT_BY_REPORT),
        ("ANNOTATIONS_WRITE", TEXT_BY_COMMENT),
        ("SESSIONS_SHARE", TEXT_BY_GRANT),
    ],
)
async def test_what_is_in_a_session_takes_the_permission_to_read_sessions_by_whatever_way(
    people: People, server: Server, scope: str, document: str
) -> None:
    session = (await create(people.member.client, title="Between us"))["id"]
    await share(people.member.client, session, people.admin.id, level="WRITE")
    await talk(people.member.client, session, "what we say here")
    narrow = await scoped(people.admin.client, server, scope, "PROFILE_READ", "MEMBERS_READ")
    given = {"id": session, "with": people.colleague.id}
    answer = await narrow.raw(document, {name: value for name, value in given.items() if f"${name}" in document})
    assert "what we say here" not in answer.text
    assert "Between us" not in answer.text
    assert {error["extensions"]["code"] for error in answer.json()["errors"]} == {"FORBIDDEN"}


DEEP = (
    "query($n: Int%s) { sessions(first: $n) { nodes { messages(first: $n) { nodes { run { messages(first: $n) "
    "{ nodes { text } } } } } } } }"
)


@pytest.mark.parametrize(
    ("default", "variables"), [("", {"n": 100}), (" = 100", {}), ("", {"n": 100.0}), (" = 100", {"n": 100})]
)
async def test_a_page_size_counts_however_it_is_given(client: Client, default: str, variables: dict[str, Any]) -> None:
    refused = await client.refused(DEEP % default, **variables)
    assert refused.codes == ["LIMIT_EXCEEDED"]
    assert refused.extensions["limit"] == "cost"


@pytest.mark.parametrize(
    ("start", "end"),
    [("0001-01-01T00:00:00Z", "0001-01-01T02:00:00Z"), ("9999-12-31T23:00:00-23:00", "9999-12-31T23:59:59-23:00")],
)
async def test_the_ends_of_the_calendar_are_refused(client: Client, start: str, end: str) -> None:
    document = (
        'query($from: DateTime!, $to: DateTime!) { metricSeries(metric: "runs.count", from: $from, to: $to) { level } }'
    )
    refused = await client.refused(document, **{"from": start, "to": end})
    assert set(refused.codes) == {"BAD_INPUT"}
