"""An inbox, as its user sees it: what comes into it, what they want of it, and that it is nobody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.annotating import annotate, on_comment, reply
from tests.app.conftest import People
from tests.app.newcomers import Newcomer, newcomer
from tests.app.test_handoff import a_waiting_session, move, offer
from tests.clients_of_graph import Client, Json
from tests.talking import INTERRUPT, create, ended, following, send, talk

pytestmark = pytest.mark.anyio

INBOX = """
query ($first: Int, $after: String, $filter: NotificationFilter) {
  viewer {
    unreadNotificationCount notificationsCursor
    notifications(first: $first, after: $after, filter: $filter) {
      totalCount pageInfo { hasNextPage endCursor }
      nodes {
        id kind title body readAt actorKind actor { id } session { id }
        subject { __typename id ... on Run { number runStatus: status } ... on Approval { status } }
      }
    }
  }
}
"""
CHANGES = """
subscription ($after: Cursor) {
  notifications(after: $after) { cursor kind unreadCount notification { id title readAt subject { id } } }
}
"""
READ = """
mutation ($input: MarkNotificationsReadInput!) { markNotificationsRead(input: $input) { markedCount unreadCount } }
"""
PREFER = """
mutation ($input: UpdateNotificationPreferencesInput!) {
  updateNotificationPreferences(input: $input) { preferences { kind inApp email } }
}
"""
PREFERENCES = "{ viewer { notificationPreferences { kind inApp email } } }"
NODE = "query ($id: ID!) { node(id: $id) { id ... on Notification { title } } }"
FAILING = "playbook: Fails\nsteps:\n  - tool: list_files\n    expect: {contains: 'what is not there'}\n"


async def inbox(client: Client, **variables: Any) -> Json:
    return (await client(INBOX, **variables))["viewer"]  # type: ignore[no-any-return]


async def told(client: Client) -> list[Json]:
    return (await inbox(client))["notifications"]["nodes"]  # type: ignore[no-any-return]


async def some_notices(admin: Client, count: int) -> tuple[Newcomer, Newcomer]:
    """Somebody with `count` notifications, of offers that were made and taken back; and who made them."""
    giver, receiver = await newcomer(admin), await newcomer(admin)
    session = (await create(giver.client))["id"]
    for number in range(count):
        made = await offer(giver.client, session, receiver.id, note=f"Offer {number}")
        if number + 1 < count:
            await giver.client(
                "mutation ($id: ID!) { cancelHandoff(input: {handoffId: $id}) { handoff { id } } }", id=made["id"]
            )
    return receiver, giver


# -- what one is told


async def test_a_run_that_fails_is_told_to_whoever_sent_the_message(client: Client) -> None:
    owner, sender = await newcomer(client), client
    session = (await create(owner.client, title="A playbook"))["id"]
    await talk(owner.client, session, FAILING)
    [notice] = await told(owner.client)
    assert (notice["kind"], notice["title"]) == ("RUN_FINISHED", "Run 1 failed in “A playbook”")
    assert notice["body"]
    assert notice["subject"] == {
        "__typename": "Run",
        "id": notice["subject"]["id"],
        "number": 1,
        "runStatus": "FAILED",
    }
    assert (notice["session"], notice["actorKind"], notice["actor"]) == ({"id": session}, "AGENT", {"id": owner.id})
    # A run that goes well and quickly tells nobody, nor does one that its sender stops.
    await talk(owner.client, session, "hello")
    async with following(owner.client, session) as stream:
        sent = await send(owner.client, session, '/tool list_files {"path": "."}')
        await owner.client.raw(INTERRUPT, {"input": {"runId": sent["run"]["id"]}})
        await stream.until(lambda event: ended(event) and event["data"]["runId"] == sent["run"]["id"])
    # Nor is the owner told of what somebody else's message came to.
    await talk(sender, session, FAILING)
    assert len(await told(owner.client)) == 1


async def test_a_decision_that_is_wanted_is_told_to_owner_and_sender(client: Client, people: People) -> None:
    owner = await newcomer(client)
    session = await a_waiting_session(owner.client)
    [notice] = await told(owner.client)
    assert notice["kind"] == "APPROVAL_WANTED"
    assert notice["title"] == "A decision is wanted on shell in “Waits for somebody”"
    assert (notice["subject"]["__typename"], notice["subject"]["status"]) == ("Approval", "PENDING")
    assert notice["session"] == {"id": session}
    assert (await people.colleague.client(NODE, id=notice["id"]))["node"] is None


async def test_what_was_told_of_a_session_is_withheld_once_it_may_not_be_seen(client: Client) -> None:
    owner, reader = await newcomer(client), await newcomer(client)
    session = (await create(owner.client, title="Plans", visibility="ORGANIZATION"))["id"]
    await annotate(owner.client, session, f"@[x]({reader.id}) the code is 4711")
    await offer(owner.client, session, reader.id, note="It is yours")
    seen = await told(reader.client)
    assert [notice["kind"] for notice in seen] == ["HANDOFF", "MENTION"]
    assert "Plans" in seen[1]["title"]
    assert "4711" in seen[1]["body"]
    await owner.client(
        "mutation ($input: UpdateSessionInput!) { updateSession(input: $input) { session { id } } }",
        input={"sessionId": session, "visibility": "PRIVATE"},
    )
    offered, mentioned = await told(reader.client)
    withheld = {"title": "You no longer have access to this session.", "body": "", "session": None, "subject": None}
    assert mentioned == seen[1] | withheld
    assert (await reader.client(NODE, id=mentioned["id"]))["node"]["title"] == withheld["title"]
    # A party to a handoff may know what it is about.
    assert (offered["title"], offered["body"]) == (seen[0]["title"], "It is yours")
    async with reader.client.stream("subscription { notifications { notification { title body } } }") as stream:
        await reader.client(READ, input={"ids": [mentioned["id"]]})
        change = (await stream.next())["notifications"]
    assert change == {"notification": {"title": withheld["title"], "body": ""}}


async def test_nothing_of_a_deleted_comment_stays_in_an_inbox(client: Client) -> None:
    author, reader = await newcomer(client), await newcomer(client)
    session = (await create(author.client, visibility="ORGANIZATION"))["id"]
    made = await annotate(author.client, session, f"@[x]({reader.id}) the code is 4711")
    await reply(author.client, made["thread"]["id"], f"@[x]({reader.id}) and it stays")
    await on_comment(author.client, "deleteComment", made["comment"]["id"])
    stays, gone = await told(reader.client)
    assert stays["body"].endswith("and it stays")
    assert (gone["body"], gone["subject"]["id"]) == ("", made["comment"]["id"])


# -- reading them


async def test_pages_filters_and_counts(client: Client) -> None:
    receiver, _ = await some_notices(client, 3)
    await a_waiting_session(receiver.client)
    found = await inbox(receiver.client, first=2)
    assert (found["unreadNotificationCount"], found["notifications"]["totalCount"]) == (6, 6)
    assert [node["kind"] for node in found["notifications"]["nodes"]] == ["APPROVAL_WANTED", "HANDOFF"]
    page = found["notifications"]["pageInfo"]
    seen = [node["id"] for node in found["notifications"]["nodes"]]
    while page["hasNextPage"]:
        found = await inbox(receiver.client, first=2, after=page["endCursor"])
        page = found["notifications"]["pageInfo"]
        seen += [node["id"] for node in found["notifications"]["nodes"]]
    assert len(set(seen)) == len(seen) == 6
    wanted = {"kinds": ["APPROVAL_WANTED"]}
    assert (await inbox(receiver.client, filter=wanted))["notifications"]["totalCount"] == 1
    assert (await inbox(receiver.client, filter={"kinds": []}))["notifications"]["nodes"] == []
    assert (await receiver.client.refused(INBOX, first=101)).codes == ["BAD_INPUT"]
    assert (await receiver.client.refused(INBOX, after="nonsense")).codes == ["BAD_INPUT"]


async def test_what_was_read_is_not_unread_any_more_here_and_elsewhere(client: Client) -> None:
    receiver, giver = await some_notices(client, 2)
    nodes = await told(receiver.client)
    cursor = (await inbox(receiver.client))["notificationsCursor"]
    async with receiver.client.stream(CHANGES, after=cursor) as elsewhere:
        done = await receiver.client(READ, input={"ids": [nodes[0]["id"], nodes[0]["id"]]})
        assert done["markNotificationsRead"] == {"markedCount": 1, "unreadCount": 2}
        changes = await elsewhere.until("notifications", lambda change: change["kind"] == "READ")
        assert (changes[-1]["notification"]["id"], changes[-1]["unreadCount"]) == (nodes[0]["id"], 2)
        assert changes[-1]["notification"]["readAt"] is not None
        # Again has no effect, and all the rest goes up to what this device has seen.
        again = await receiver.client(READ, input={"ids": [nodes[0]["id"]]})
        assert again["markNotificationsRead"]["markedCount"] == 0
        later = await offer(giver.client, (await create(giver.client))["id"], receiver.id)
        done = await receiver.client(READ, input={"upTo": changes[-1]["cursor"]})
        assert done["markNotificationsRead"] == {"markedCount": 2, "unreadCount": 1}
    unread = (await inbox(receiver.client, filter={"unreadOnly": True}))["notifications"]["nodes"]
    assert [node["subject"]["id"] for node in unread] == [later["id"]]


async def test_what_is_no_place_and_nobody_s_own_is_refused(client: Client) -> None:
    receiver, giver = await some_notices(client, 1)
    [notice] = await told(receiver.client)
    for input_, code, field in (
        ({}, "BAD_INPUT", "ids"),
        ({"ids": [notice["id"]], "upTo": "x"}, "BAD_INPUT", "ids"),
        ({"ids": []}, "BAD_INPUT", "ids"),
        ({"ids": [notice["id"]] * 2 + ["ntf_nonsense"]}, "BAD_INPUT", "ids"),
        ({"ids": ["ntf_0000000000000000000000000" + "0", notice["id"]]}, "NOT_FOUND", "ids"),
        ({"ids": [f"ntf_{n:026d}" for n in range(101)]}, "BAD_INPUT", "ids"),
        ({"upTo": "nonsense"}, "BAD_INPUT", "upTo"),
        ({"upTo": "WyI5OTk5OTk5OTk5OTk5OTk5OTk5OSIsIDFd"}, "BAD_INPUT", "upTo"),
        ({"upTo": "WyIxIiwgdHJ1ZV0"}, "BAD_INPUT", "upTo"),
    ):
        refused = await receiver.client.refused(READ, input=input_)
        assert (refused.codes, refused.extensions["field"]) == ([code], field), input_
    assert (await giver.client.refused(READ, input={"ids": [notice["id"]]})).codes == ["NOT_FOUND"]
    assert (await giver.client(NODE, id=notice["id"]))["node"] is None
    assert (await client(NODE, id=notice["id"]))["node"] is None, "not even an admin's"
    assert (await receiver.client(NODE, id=notice["id"]))["node"]["title"] == notice["title"]
    assert (await inbox(receiver.client))["unreadNotificationCount"] == 1


# -- live


async def test_they_come_live_and_after_any_cursor_without_gaps_or_repetition(client: Client) -> None:
    giver, receiver = await newcomer(client), await newcomer(client)
    sessions = [(await create(giver.client))["id"] for _ in range(8)]
    start = (await inbox(receiver.client))["notificationsCursor"]
    async with receiver.client.stream(CHANGES, after=start) as stream:
        made = await asyncio.gather(*(offer(giver.client, session, receiver.id) for session in sessions))
        heard = [(await stream.next())["notifications"] for _ in made]
    assert {change["notification"]["subject"]["id"] for change in heard} == {one["id"] for one in made}
    assert {change["kind"] for change in heard} == {"CREATED"}
    assert heard[-1]["unreadCount"] == 8
    for cut in (0, 3, 6):
        async with receiver.client.stream(CHANGES, after=heard[cut]["cursor"]) as stream:
            rest = [(await stream.next())["notifications"] for _ in range(7 - cut)]
        assert [change["cursor"] for change in rest] == [change["cursor"] for change in heard[cut + 1 :]]
    # One that came and was read while the client was away is told once, as it is.
    await receiver.client(READ, input={"ids": [heard[0]["notification"]["id"]]})
    async with receiver.client.stream(CHANGES, after=start) as stream:
        anew = [(await stream.next())["notifications"] for _ in made]
    assert [change["kind"] for change in anew] == ["CREATED"] * 7 + ["READ"]
    assert len({change["notification"]["id"] for change in anew}) == 8
    async with receiver.client.socket() as socket:
        for after in ("nonsense", "WyIxIiwgLTFd"):
            refused = await socket.subscribe(CHANGES, after=after)
            with pytest.raises(AssertionError, match="BAD_INPUT"):
                await refused.next()


# -- what one wants to be told


async def test_preferences_hold_for_each_kind(client: Client) -> None:
    who = await newcomer(client)
    before = {one["kind"]: one for one in (await who.client(PREFERENCES))["viewer"]["notificationPreferences"]}
    assert before["MENTION"] == {"kind": "MENTION", "inApp": True, "email": "IMMEDIATE"}
    assert before["RUN_FINISHED"]["email"] == "OFF"
    changed = await who.client(PREFER, input={"preferences": [{"kind": "APPROVAL_WANTED", "inApp": False}]})
    after = {one["kind"]: one for one in changed["updateNotificationPreferences"]["preferences"]}
    assert after == before | {"APPROVAL_WANTED": {"kind": "APPROVAL_WANTED", "inApp": False, "email": "IMMEDIATE"}}
    session = await a_waiting_session(who.client)
    assert await told(who.client) == []
    await who.client(PREFER, input={"preferences": [{"kind": "APPROVAL_WANTED", "inApp": True, "email": "OFF"}]})
    await talk(who.client, session, FAILING, until=lambda event: event["name"] == "quarterdeck.run.queued")
    assert await told(who.client) == []
    await a_waiting_session(who.client)
    assert [one["kind"] for one in await told(who.client)] == ["APPROVAL_WANTED"]
    twice = [{"kind": "REPLY", "inApp": True}, {"kind": "REPLY", "inApp": False}]
    assert (await who.client.refused(PREFER, input={"preferences": twice})).codes == ["BAD_INPUT"]
    record = await client(
        '{ auditEvents(first: 20, filter: {action: "notification_preferences."}) { nodes { targetId before after } } }'
    )
    found = [one for one in record["auditEvents"]["nodes"] if one["targetId"] == who.id]
    assert found[-1]["before"]["APPROVAL_WANTED"]["in_app"] is True
    assert found[-1]["after"]["APPROVAL_WANTED"]["in_app"] is False


async def test_a_token_s_scopes_hold_for_the_inbox(client: Client) -> None:
    receiver, _ = await some_notices(client, 1)
    document = "mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret } }"

    async def narrowed(*scopes: str) -> Client:
        given = {"name": "narrow", "userId": receiver.id, "scopes": ["PROFILE_READ", *scopes]}
        return Client(client.url, (await client(document, input=given))["createAccessToken"]["secret"])

    without = await narrowed("SESSIONS_READ")
    assert (await without.refused("{ viewer { unreadNotificationCount } }")).codes == ["FORBIDDEN"]
    assert (await without.refused(READ, input={"ids": []})).codes == ["FORBIDDEN"]
    inbox_alone = await narrowed("NOTIFICATIONS_MANAGE")
    assert (await inbox_alone("{ viewer { unreadNotificationCount } }"))["viewer"]["unreadNotificationCount"] == 1
    refused = await inbox_alone.refused("{ viewer { notifications { nodes { title subject { id } } } } }")
    assert refused.codes == ["FORBIDDEN"]


async def test_who_takes_over_is_not_told_of_what_they_do(client: Client) -> None:
    receiver, giver = await some_notices(client, 1)
    [notice] = await told(receiver.client)
    await move(receiver.client, "accept", notice["subject"]["id"])
    assert len(await told(receiver.client)) == 1
    assert [one["title"].startswith(receiver.name) for one in await told(giver.client)] == [True]
