"""A session changes hands: offered, taken or not, undone, and left to a successor."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.app.newcomers import Newcomer, newcomer
from tests.clients_of_graph import Client, Json
from tests.conftest import Server
from tests.sharing_help import GRANTS, events_of, share
from tests.talking import BARE_EVENTS, GET, asks, create, decide, ended, eventually, following, named, send
from tests.templating import GET as GET_TEMPLATE
from tests.templating import make_template

pytestmark = pytest.mark.anyio

FIELDS = """
  id status sessionTitle note reply keepAccess expiresAt endedAt undoUntil undoneAt
  session { id } giver { id } receiver { id } offeredBy { id }
"""
OFFER = "mutation ($input: OfferHandoffInput!) { offerHandoff(input: $input) { handoff {" + FIELDS + "} } }"
DECLINE = "mutation ($input: DeclineHandoffInput!) { declineHandoff(input: $input) { handoff {" + FIELDS + "} } }"
NODE = "query ($id: ID!) { node(id: $id) { ... on Handoff {" + FIELDS + "} } }"
MINE = """
query ($filter: HandoffFilter) { viewer { handoffs(filter: $filter) { totalCount nodes { id status } } } }
"""
OPEN = "query ($id: ID!) { session(id: $id) { openHandoff { id note receiver { id } } owner { id } } }"
APPROVALS = """
query ($id: ID!) { session(id: $id) { pendingApprovals { nodes { id assignedTo { id } } } } }
"""
INBOX = """
{ viewer { unreadNotificationCount notifications {
  nodes { kind title body actor { id } session { id } subject { id __typename } } } } }
"""
AUDIT = """
query ($session: ID!) {
  auditEvents(first: 50, filter: {sessionId: $session}) { nodes { action outcome before after errorCode targetName } }
}
"""
UPDATE_USER = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { id deactivatedAt } } }"
SUCCESSOR = "mutation ($input: SetSuccessorInput!) { setSuccessor(input: $input) { user { id successor { id } } } }"
ASKING = '/tool shell {"command": "echo decided"}'


async def offer(client: Client, session: str, to: str, **more: Any) -> Json:
    given = {"sessionId": session, "toUserId": to} | more
    return (await client(OFFER, input=given))["offerHandoff"]["handoff"]  # type: ignore[no-any-return]


def moving(verb: str) -> str:
    return f"mutation ($input: HandoffInput!) {{ {verb}Handoff(input: $input) {{ handoff {{ {FIELDS} }} }} }}"


async def move(client: Client, verb: str, handoff: str) -> Json:
    return (await client(moving(verb), input={"handoffId": handoff}))[f"{verb}Handoff"]["handoff"]  # type: ignore[no-any-return]


async def owner_of(client: Client, session: str) -> str:
    return (await client(GET, id=session))["session"]["owner"]["id"]  # type: ignore[no-any-return]


async def inbox(client: Client) -> list[Json]:
    return (await client(INBOX))["viewer"]["notifications"]["nodes"]  # type: ignore[no-any-return]


async def two(admin: Client) -> tuple[Newcomer, Newcomer]:
    giver, receiver = await newcomer(admin), await newcomer(admin)
    return giver, receiver


async def a_waiting_session(client: Client) -> str:
    """A session whose run waits for a decision."""
    session = (await create(client, title="Waits for somebody"))["id"]
    async with following(client, session) as stream:
        await send(client, session, ASKING)
        await stream.until(asks)
    return session  # type: ignore[no-any-return]


async def test_a_session_is_taken_over_with_what_waits_in_it_and_its_creator_stays(client: Client) -> None:
    giver, receiver = await two(client)
    session = await a_waiting_session(giver.client)
    [approval] = (await giver.client(APPROVALS, id=session))["session"]["pendingApprovals"]["nodes"]
    assert approval["assignedTo"] == {"id": giver.id}
    async with following(client, session) as stream:
        made = await offer(giver.client, session, receiver.id, note="The deploy is half done.")
        assert (made["status"], made["giver"], made["offeredBy"]) == ("OFFERED", {"id": giver.id}, {"id": giver.id})
        # The receiver sees the offer, and nothing of the session yet.
        seen = (await receiver.client(NODE, id=made["id"]))["node"]
        assert (seen["sessionTitle"], seen["note"]) == ("Waits for somebody", "The deploy is half done.")
        assert seen["session"] is None
        assert (await receiver.client(GET, id=session))["session"] is None
        assert (await giver.client(OPEN, id=session))["session"]["openHandoff"]["id"] == made["id"]
        [told] = await inbox(receiver.client)
        assert (told["kind"], told["body"]) == ("HANDOFF", "The deploy is half done.")
        assert told["subject"] == {"id": made["id"], "__typename": "Handoff"}
        assert (told["session"], told["actor"]) == (None, {"id": giver.id})

        taken = await move(receiver.client, "accept", made["id"])
        assert (taken["status"], taken["session"]) == ("ACCEPTED", {"id": session})
        events = await stream.until(named("handoff.accepted"))
    by_name = {event["name"]: event["data"] for event in events}
    ids = {"handoffId": made["id"], "fromId": giver.id, "toId": receiver.id}
    assert by_name["quarterdeck.handoff.offered"] == by_name["quarterdeck.handoff.accepted"] == ids
    assert by_name["quarterdeck.session.updated"] == {"changed": ["owner"]}
    found = (await receiver.client(GET, id=session))["session"]
    assert (found["owner"]["id"], found["creator"]["id"]) == (receiver.id, giver.id)
    assert (await receiver.client(OPEN, id=session))["session"]["openHandoff"] is None
    [approval] = (await receiver.client(APPROVALS, id=session))["session"]["pendingApprovals"]["nodes"]
    assert approval["assignedTo"] == {"id": receiver.id}
    async with following(receiver.client, session) as stream:
        await decide(receiver.client, approval["id"], "APPROVE")
        await stream.until(ended)
    told = (await inbox(giver.client))[0]
    assert (told["kind"], told["title"]) == ("HANDOFF", f"{receiver.name} has taken over “Waits for somebody”")
    # The next decision is the new owner's from the start.
    async with following(receiver.client, session) as stream:
        await send(receiver.client, session, ASKING)
        await stream.until(ended)
        await stream.until(asks)
    [approval] = (await receiver.client(APPROVALS, id=session))["session"]["pendingApprovals"]["nodes"]
    assert approval["assignedTo"] == {"id": receiver.id}


async def test_every_step_has_its_audit_record_with_before_and_after(client: Client) -> None:
    giver, receiver = await two(client)
    session = (await create(giver.client, title="On the record"))["id"]
    made = await offer(giver.client, session, receiver.id, note="Take care of it. " * 20)
    await move(receiver.client, "accept", made["id"])
    await move(giver.client, "undo", made["id"])
    found = {
        event["action"]: event
        for event in (await client(AUDIT, session=session))["auditEvents"]["nodes"]
        if event["action"].startswith("handoff.")
    }
    assert set(found) == {"handoff.offer", "handoff.accept", "handoff.undo"}
    assert found["handoff.accept"]["before"] == {"ownerId": giver.id}
    assert found["handoff.accept"]["after"] == {"ownerId": receiver.id, "pendingApprovalsMoved": 0}
    assert found["handoff.undo"]["after"]["ownerId"] == giver.id
    assert "Take care" not in str(found)


async def test_a_handoff_is_undone_by_either_party_until_it_moves_on(client: Client) -> None:
    giver, receiver = await two(client)
    third = await newcomer(client)
    session = (await create(giver.client))["id"]
    for undoing in (giver, receiver):
        made = await offer(giver.client, session, receiver.id)
        await move(receiver.client, "accept", made["id"])
        # An offer that the new owner has made meanwhile goes with their ownership.
        onward = await offer(receiver.client, session, third.id)
        undone = await move(undoing.client, "undo", made["id"])
        assert (undone["status"], undone["undoneAt"] is not None) == ("UNDONE", True)
        assert await owner_of(giver.client, session) == giver.id
        assert (await third.client(NODE, id=onward["id"]))["node"]["status"] == "CANCELLED"
        assert (await giver.client.refused(moving("undo"), input={"handoffId": made["id"]})).codes == ["CONFLICT"]
    first = await offer(giver.client, session, receiver.id)
    await move(receiver.client, "accept", first["id"])
    assert (await third.client.refused(moving("undo"), input={"handoffId": first["id"]})).codes == ["NOT_FOUND"]
    second = await offer(receiver.client, session, third.id)
    await move(third.client, "accept", second["id"])
    assert (await giver.client.refused(moving("undo"), input={"handoffId": first["id"]})).codes == ["CONFLICT"]
    # And in a circle: the owner is the same as then, but it has moved.
    back = await offer(third.client, session, receiver.id)
    await move(receiver.client, "accept", back["id"])
    refused = await giver.client.refused(moving("undo"), input={"handoffId": first["id"]})
    assert refused.codes == ["CONFLICT"]
    assert await owner_of(receiver.client, session) == receiver.id


async def test_an_offer_is_declined_with_a_word_or_taken_back(client: Client) -> None:
    giver, receiver = await two(client)
    session = (await create(giver.client, title="Unwanted"))["id"]
    made = await offer(giver.client, session, receiver.id)
    declined = await receiver.client(DECLINE, input={"handoffId": made["id"], "note": "I am away."})
    assert declined["declineHandoff"]["handoff"]["reply"] == "I am away."
    told = (await inbox(giver.client))[0]
    assert (told["title"], told["body"]) == (f"{receiver.name} declines “Unwanted”", "I am away.")
    for verb in ("accept", "cancel"):
        who = receiver if verb == "accept" else giver
        refused = await who.client.refused(moving(verb), input={"handoffId": made["id"]})
        assert (refused.codes, refused.extensions["status"]) == (["CONFLICT"], "DECLINED")
    again = await offer(giver.client, session, receiver.id)
    assert (await move(giver.client, "cancel", again["id"]))["status"] == "CANCELLED"
    assert (await receiver.client.refused(moving("accept"), input={"handoffId": again["id"]})).codes == ["CONFLICT"]
    assert "was taken back" in (await inbox(receiver.client))[0]["title"]
    assert await owner_of(giver.client, session) == giver.id
    listed = (await giver.client(MINE, filter={"direction": "OUTGOING"}))["viewer"]["handoffs"]
    assert [node["id"] for node in listed["nodes"]] == [again["id"], made["id"]]
    listed = (await receiver.client(MINE, filter={"direction": "INCOMING", "status": ["DECLINED"]}))["viewer"]
    assert (listed["handoffs"]["totalCount"], listed["handoffs"]["nodes"][0]["id"]) == (1, made["id"])
    assert (await receiver.client(MINE, filter={"direction": "OUTGOING"}))["viewer"]["handoffs"]["nodes"] == []


async def test_two_offers_and_two_answers_at_once_have_one_winner(client: Client) -> None:
    giver, receiver = await two(client)
    other = await newcomer(client)
    session = (await create(giver.client))["id"]
    both = await asyncio.gather(
        offer(giver.client, session, receiver.id),
        offer(client, session, other.id),
        offer(giver.client, session, other.id),
        return_exceptions=True,
    )
    [made] = [one for one in both if not isinstance(one, BaseException)]
    assert [getattr(one, "codes", None) for one in both if isinstance(one, BaseException)] == [["CONFLICT"]] * 2
    taker = receiver if made["receiver"]["id"] == receiver.id else other
    answers = await asyncio.gather(
        move(taker.client, "accept", made["id"]),
        move(taker.client, "accept", made["id"]),
        move(giver.client, "cancel", made["id"]),
        taker.client(DECLINE, input={"handoffId": made["id"]}),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, BaseException) for one in answers) == 1
    assert {tuple(getattr(one, "codes", ())) for one in answers if isinstance(one, BaseException)} <= {
        ("CONFLICT",),
        ("FORBIDDEN",),
        ("NOT_FOUND",),
    }
    status = (await client(NODE, id=made["id"]))["node"]["status"]
    assert await owner_of(client, session) == (taker.id if status == "ACCEPTED" else giver.id)


async def test_the_same_key_makes_one_offer(client: Client) -> None:
    giver, receiver = await two(client)
    session = (await create(giver.client))["id"]
    once, twice = [await offer(giver.client, session, receiver.id, idempotencyKey="once") for _ in range(2)]
    assert once["id"] == twice["id"]
    given = {"sessionId": session, "toUserId": receiver.id, "note": "other", "idempotencyKey": "once"}
    assert (await giver.client.refused(OFFER, input=given)).codes == ["CONFLICT"]


async def test_who_may_not_and_what_cannot_be_is_refused(client: Client, server: Server) -> None:
    giver, receiver = await two(client)
    viewer, third = await newcomer(client, "VIEWER"), await newcomer(client)
    session = (await create(giver.client, visibility="ORGANIZATION"))["id"]
    private = (await create(giver.client))["id"]

    async def codes(who: Newcomer, **given: Any) -> tuple[list[Any], Any]:
        refused = await who.client.refused(OFFER, input={"sessionId": session, "toUserId": receiver.id} | given)
        return refused.codes, refused.extensions.get("field")

    assert await codes(receiver) == (["FORBIDDEN"], "sessionId")
    assert await codes(receiver, sessionId=private, toUserId=third.id) == (["NOT_FOUND"], "sessionId")
    assert (await codes(viewer))[0] == ["FORBIDDEN"]
    assert await codes(giver, toUserId=giver.id) == (["BAD_INPUT"], "toUserId")
    assert await codes(giver, toUserId=viewer.id) == (["BAD_INPUT"], "toUserId")
    assert await codes(giver, toUserId="usr_00000000000000000000000000") == (["NOT_FOUND"], "toUserId")
    assert await codes(giver, toUserId=session) == (["NOT_FOUND"], "toUserId")
    assert await codes(giver, toUserId="nobody") == (["BAD_INPUT"], "toUserId")
    assert await codes(giver, note="x" * 2001) == (["TOO_LARGE"], "note")
    assert (await codes(giver, note="a\0b"))[0] == ["BAD_INPUT"]
    gone = await newcomer(client)
    await client(UPDATE_USER, input={"userId": gone.id, "active": False})
    assert await codes(giver, toUserId=gone.id) == (["BAD_INPUT"], "toUserId")

    made = await offer(giver.client, session, receiver.id)
    for who, verb, code in (
        (third, "accept", "FORBIDDEN"),
        (giver, "accept", "FORBIDDEN"),
        (third, "cancel", "FORBIDDEN"),
    ):
        assert (await who.client.refused(moving(verb), input={"handoffId": made["id"]})).codes == [code]
    hidden = await offer(giver.client, private, receiver.id)
    for verb in ("accept", "cancel", "undo"):
        assert (await third.client.refused(moving(verb), input={"handoffId": hidden["id"]})).codes == ["NOT_FOUND"]
    assert (await third.client(NODE, id=hidden["id"]))["node"] is None


async def test_who_was_let_manage_a_session_may_not_give_it_away(client: Client) -> None:
    giver, receiver = await two(client)
    manager = await newcomer(client)
    session = (await create(giver.client))["id"]
    await share(giver.client, session, manager.id, level="ADMIN")
    refused = await manager.client.refused(OFFER, input={"sessionId": session, "toUserId": receiver.id})
    assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], "sessionId")
    made = await offer(giver.client, session, receiver.id)
    refused = await manager.client.refused(moving("cancel"), input={"handoffId": made["id"]})
    assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], "handoffId")
    # An admin of the organisation may, in the owner's place.
    assert (await move(client, "cancel", made["id"]))["status"] == "CANCELLED"
    await move(receiver.client, "accept", (await offer(client, session, receiver.id))["id"])


async def test_an_offer_is_worth_what_its_maker_may_do_when_it_is_accepted(client: Client) -> None:
    giver, receiver = await two(client)
    for change in ({"role": "MEMBER"}, {"active": False}):
        session = (await create(giver.client))["id"]
        boss = await newcomer(client, "ADMIN")
        made = await offer(boss.client, session, receiver.id)
        await client(UPDATE_USER, input={"userId": boss.id} | change)
        refused = await receiver.client.refused(moving("accept"), input={"handoffId": made["id"]})
        assert (refused.codes, refused.extensions["field"]) == (["CONFLICT"], "handoffId")
        assert await owner_of(client, session) == giver.id
        await move(giver.client, "cancel", made["id"])
        await move(receiver.client, "accept", (await offer(giver.client, session, receiver.id))["id"])


async def test_a_grant_of_before_does_not_come_to_life_again(client: Client) -> None:
    giver, receiver = await two(client)
    third = await newcomer(client)
    session = (await create(giver.client))["id"]
    await share(giver.client, session, receiver.id, level="ADMIN")
    await move(receiver.client, "accept", (await offer(giver.client, session, receiver.id, keepAccess=False))["id"])
    assert (await receiver.client(GRANTS, id=session))["session"]["grants"]["totalCount"] == 0
    ended_ = (await events_of(receiver.client, session, "quarterdeck.access.", 2))[-1]
    assert (ended_["name"], ended_["data"]["userId"]) == ("quarterdeck.access.revoked", receiver.id)
    made = await offer(receiver.client, session, third.id, keepAccess=False)
    await move(third.client, "accept", made["id"])
    assert (await receiver.client(GET, id=session))["session"] is None


async def test_a_stranger_sees_nothing_of_a_handoff(client: Client, people: Any) -> None:
    giver, receiver = await two(client)
    session = (await create(giver.client, visibility="ORGANIZATION"))["id"]
    made = await offer(giver.client, session, receiver.id)
    stranger = people.stranger.client
    assert (await stranger(NODE, id=made["id"]))["node"] is None
    assert (await stranger.refused(moving("accept"), input={"handoffId": made["id"]})).codes == ["NOT_FOUND"]
    given = {"sessionId": session, "toUserId": people.stranger.id}
    assert (await giver.client.refused(OFFER, input=given)).codes == ["NOT_FOUND"]


# -- when somebody leaves


async def test_an_admin_hands_on_what_somebody_left_behind(client: Client) -> None:
    left, receiver = await two(client)
    session = (await create(left.client))["id"]
    await client(UPDATE_USER, input={"userId": left.id, "active": False})
    assert await owner_of(client, session) == left.id
    made = await offer(client, session, receiver.id, note="You know it best.")
    assert (made["giver"]["id"], made["offeredBy"]["id"] != left.id) == (left.id, True)
    await move(receiver.client, "accept", made["id"])
    assert await owner_of(receiver.client, session) == receiver.id
    # To give it back to somebody who is gone makes no sense.
    assert (await receiver.client.refused(moving("undo"), input={"handoffId": made["id"]})).codes == ["BAD_INPUT"]


async def test_a_deactivated_owner_leaves_living_sessions_to_the_successor_that_was_named(client: Client) -> None:
    left, heir = await two(client)
    other = await newcomer(client)
    waiting = await a_waiting_session(left.client)
    quiet = (await create(left.client))["id"]
    done = (await create(left.client))["id"]
    await left.client(
        "mutation ($input: SessionInput!) { terminateSession(input: $input) { session { id } } }",
        input={"sessionId": done},
    )
    template = await make_template(left.client)
    offered = await offer(left.client, quiet, other.id)
    theirs = (await create(other.client))["id"]
    to_left = await offer(other.client, theirs, left.id)
    named_ = (await left.client(SUCCESSOR, input={"successorId": heir.id}))["setSuccessor"]["user"]
    assert named_ == {"id": left.id, "successor": {"id": heir.id}}
    async with following(client, waiting) as stream:
        await client(UPDATE_USER, input={"userId": left.id, "active": False})
        moved = (await stream.until(named("session.updated")))[-1]["data"]
    assert moved == {"changed": ["owner"], "reason": "succession", "fromId": left.id, "toId": heir.id}
    assert [await owner_of(client, session) for session in (waiting, quiet, done)] == [heir.id, heir.id, left.id]
    # Its agent acted in the name of the one who left: that run ends, and with it what it asked.
    assert (await inbox(heir.client))[0]["title"] == f"You have 2 sessions of {left.name}, who has been deactivated"
    # The offer goes on in the heir's name; what was offered to the one who left ends by itself.
    goes_on = (await other.client(NODE, id=offered["id"]))["node"]
    assert goes_on["giver"] == goes_on["offeredBy"] == {"id": heir.id}
    await move(other.client, "accept", offered["id"])

    async def expired() -> bool:
        return bool((await other.client(NODE, id=to_left["id"]))["node"]["status"] == "EXPIRED")

    await eventually(expired, within=20)
    record = await client(
        '{ auditEvents(first: 5, filter: {action: "user.succeed"}) { nodes { targetName before after } } }'
    )
    [found] = [one for one in record["auditEvents"]["nodes"] if one["targetName"] == left.name]
    assert found["before"] == {"ownerId": left.id}
    assert found["after"] == {"ownerId": heir.id, "sessionsMoved": 2, "templatesMoved": 1}
    assert (await heir.client(GET_TEMPLATE, id=template["id"]))["sessionTemplate"]["owner"] == {"id": heir.id}


async def test_each_session_s_audit_log_says_who_succeeded_and_that_their_grant_has_ended(client: Client) -> None:
    left, heir = await two(client)
    third = await newcomer(client)
    shared, other = [(await create(left.client, title=title))["id"] for title in ("Shared", "Other")]
    await share(left.client, shared, heir.id, level="ADMIN")
    await client(UPDATE_USER, input={"userId": left.id, "active": False, "successorId": heir.id})
    for session, title, actions in ((shared, "Shared", {"session.succeed", "grant.revoke"}), (other, "Other", set())):
        nodes = (await client(AUDIT, session=session))["auditEvents"]["nodes"]
        found = {node["action"]: node for node in nodes}
        assert found.keys() >= {"session.succeed"} | actions
        moved = found["session.succeed"]
        assert (moved["before"], moved["after"]) == ({"ownerId": left.id}, {"ownerId": heir.id})
        assert moved["targetName"] == title
    assert (await heir.client(GRANTS, id=shared))["session"]["grants"]["totalCount"] == 0
    # In the log the two follow one another, and so does what comes next.
    await heir.client(
        "mutation ($input: UpdateSessionInput!) { updateSession(input: $input) { session { id } } }",
        input={"sessionId": shared, "title": "Mine"},
    )
    events = await events_of(heir.client, shared, "quarterdeck.", 5)
    assert [event["seq"] for event in events] == list(range(events[0]["seq"], events[0]["seq"] + 5))
    assert [event["name"].removeprefix("quarterdeck.") for event in events][-3:] == [
        "session.updated",
        "access.revoked",
        "session.updated",
    ]
    assert events[-2]["data"] == {"grantId": events[-4]["data"]["grantId"]} | {
        "granteeKind": "USER",
        "userId": heir.id,
        "level": "ADMIN",
    }
    made = await offer(heir.client, shared, third.id, keepAccess=False)
    await move(third.client, "accept", made["id"])
    assert (await heir.client(GET, id=shared))["session"] is None


async def test_a_run_of_somebody_else_goes_on_while_the_owner_is_replaced(client: Client) -> None:
    left, heir = await two(client)
    session = (await create(left.client, options={"allowedTools": ["shell"]}))["id"]
    async with following(client, session) as stream:
        await send(client, session, '/tool shell {"command": "sleep 2; echo went on"}')
        await stream.until(lambda event: event["type"] == "TOOL_CALL_END")
        await client(UPDATE_USER, input={"userId": left.id, "active": False, "successorId": heir.id})
        events = await stream.until(ended)
    assert any(event["name"] == "quarterdeck.session.updated" for event in events)
    assert events[-1]["data"]["outcome"] == "success"
    assert await owner_of(heir.client, session) == heir.id


async def test_successors_are_active_able_and_somebody_else(client: Client, people: Any) -> None:
    someone, heir = await two(client)
    viewer = await newcomer(client, "VIEWER")
    for successor, code in (
        (someone.id, "BAD_INPUT"),
        (viewer.id, "BAD_INPUT"),
        (people.stranger.id, "NOT_FOUND"),
        ("usr_nonsense", "BAD_INPUT"),
    ):
        refused = await someone.client.refused(SUCCESSOR, input={"successorId": successor})
        assert (refused.codes, refused.extensions["field"]) == ([code], "successorId")
    others = {"userId": heir.id, "successorId": someone.id}
    assert (await someone.client.refused(SUCCESSOR, input=others)).codes == ["FORBIDDEN"]
    refused = await client.refused(UPDATE_USER, input={"userId": someone.id, "name": "X", "successorId": heir.id})
    assert refused.extensions["field"] == "successorId"
    # Each may be the other's: whoever goes first leaves to who stays, and nobody waits for somebody who is gone.
    await someone.client(SUCCESSOR, input={"successorId": heir.id})
    await client(SUCCESSOR, input={"userId": heir.id, "successorId": someone.id})
    session = (await create(someone.client))["id"]
    await client(UPDATE_USER, input={"userId": someone.id, "active": False})
    assert await owner_of(heir.client, session) == heir.id
    user = await client("query ($id: ID!) { node(id: $id) { ... on User { successor { id } } } }", id=heir.id)
    assert user["node"]["successor"] is None
    await client(UPDATE_USER, input={"userId": heir.id, "active": False})
    assert await owner_of(client, session) == heir.id


async def test_whoever_has_handed_over_without_keeping_access_is_out_at_once(client: Client) -> None:
    giver, receiver = await two(client)
    session = (await create(giver.client))["id"]
    async with giver.client.stream(BARE_EVENTS, id=session) as stream:
        await stream.next()
        made = await offer(giver.client, session, receiver.id, keepAccess=False)
        await move(receiver.client, "accept", made["id"])
        taken = time.monotonic()
        with pytest.raises(AssertionError, match="NOT_FOUND"):
            while True:
                await stream.next()
        assert time.monotonic() - taken < 5, "a second, on a machine that is not busy"
    assert (await giver.client(GET, id=session))["session"] is None
    assert (await giver.client(NODE, id=made["id"]))["node"]["status"] == "ACCEPTED"
    # They can still undo it: they gave it.
    await move(giver.client, "undo", made["id"])
    assert await owner_of(giver.client, session) == giver.id
