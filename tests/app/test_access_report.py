"""The report of a session: who had access when and by what, and who used it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from core.permissions import Role
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.sharing_help import LINK, REDEEM, account, join, part, revoke, share, team_of
from tests.talking import FORK, UPDATE, create, decide, eventually, history, named, send, talk

pytestmark = pytest.mark.anyio

REPORT = """
query ($id: ID!, $from: DateTime, $to: DateTime, $first: Int = 100, $after: String) {
  sessionAccessReport(sessionId: $id, from: $from, to: $to) {
    session { id } since until organizationVisibility { since until level }
    people(first: $first, after: $after) {
      totalCount pageInfo { hasNextPage endCursor }
      nodes {
        user { id } views firstViewAt lastViewAt messagesSent decisionsMade
        access {
          kind level since until note grant { id } team { id } grantedBy { id } endedBy { id } viaLink { id }
        }
      }
    }
  }
}
"""


async def report(client: Client, session: str, **more: object) -> Json:
    return (await client(REPORT, id=session, **more))["sessionAccessReport"]  # type: ignore[no-any-return]


def by_person(found: Json) -> dict[str, Json]:
    return {person["user"]["id"]: person for person in found["people"]["nodes"]}


def kinds(person: Json, *fields: str) -> list[tuple[object, ...]]:
    return [tuple(period[field] for field in ("kind", *fields)) for period in person["access"]]


async def test_the_report_says_who_had_and_used_which_access_when(people: People) -> None:
    admin, owner, guest = people.admin.client, people.member, people.colleague
    others = [await account(admin, Role.MEMBER) for _ in range(3)]
    linked, passer_by, silent = others
    team = await team_of(admin, people.viewer.id)
    session = (await create(owner.client))["id"]
    [grant] = await share(owner.client, session, guest.id, note="first look")
    await share(owner.client, session, guest.id, level="WRITE")
    [to_team] = await share(owner.client, session, teamIds=[team])
    await share(owner.client, session, silent.id)
    link = (await owner.client(LINK, input={"sessionId": session, "level": "READ"}))["createShareLink"]
    await linked.client(REDEEM, input={"secret": link["secret"]})

    # The guest works in it, and a member of the team for a while reads it.
    await talk(guest.client, session, '/tool write_file {"path": "a", "content": "b"}', named("approval.requested"))
    await decide(guest.client, (await history(guest.client, session))["pendingApprovals"]["nodes"][0]["id"], "DENY")
    await history(people.viewer.client, session)
    await part(admin, team, people.viewer.id)
    await revoke(owner.client, grant["id"])

    # It is open for a while, and somebody passes by.
    await owner.client(UPDATE, input={"sessionId": session, "visibility": "ORGANIZATION"})
    await history(passer_by.client, session)
    await owner.client(UPDATE, input={"sessionId": session, "visibility": "PRIVATE"})
    await join(admin, team, people.viewer.id)

    async def all_written() -> bool:
        found = by_person(await report(owner.client, session))
        return all(one in found and found[one]["views"] for one in (guest.id, people.viewer.id, passer_by.id))

    await eventually(all_written, within=10)
    whole = await report(owner.client, session)
    found = by_person(whole)
    assert whole["session"]["id"] == session
    [opened] = whole["organizationVisibility"]
    assert opened["since"] < opened["until"]

    assert kinds(found[owner.id], "level", "until") == [("OWNER", "ADMIN", None)]
    assert found[people.admin.id]["access"][0]["kind"] == "ORGANIZATION_ADMIN"
    person = found[guest.id]
    assert kinds(person, "level", "note")[:2] == [("GRANT", "READ", "first look"), ("GRANT", "WRITE", None)]
    before, after = person["access"][:2]
    assert before["until"] == after["since"] < after["until"]
    assert before["grant"] == after["grant"] == {"id": grant["id"]}
    assert before["grantedBy"] == after["endedBy"] == {"id": owner.id}
    assert (person["messagesSent"], person["decisionsMade"]) == (1, 1)
    assert person["views"] >= 1
    assert person["firstViewAt"] <= person["lastViewAt"]

    in_team = [period for period in found[people.viewer.id]["access"] if period["kind"] == "TEAM_GRANT"]
    assert [period["team"] for period in in_team] == [{"id": team}] * 2
    assert in_team[0]["until"] < in_team[1]["since"]
    assert in_team[1]["until"] is None
    assert in_team[0]["grant"] == {"id": to_team["id"]}
    assert kinds(found[linked.id], "viaLink") == [("GRANT", {"id": link["shareLink"]["id"]})]
    assert kinds(found[passer_by.id], "level", "since", "until") == [
        ("ORGANIZATION", "READ", opened["since"], opened["until"])
    ]
    assert (found[silent.id]["views"], found[silent.id]["firstViewAt"]) == (0, None)

    # Page by page they are the same, and before the session was made there is nobody.
    paged, cursor = [], None
    while True:
        page = (await report(owner.client, session, first=2, after=cursor))["people"]
        assert page["totalCount"] == len(found)
        paged += [node["user"]["id"] for node in page["nodes"]]
        cursor = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert set(paged) == set(found)
    assert len(paged) == len(found)
    long_ago = await report(owner.client, session, **{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"})
    assert long_ago["people"]["nodes"] == long_ago["organizationVisibility"] == []


async def test_whoever_owned_it_is_told_with_their_time(people: People) -> None:
    admin = people.admin.client
    left, heir, third = [await account(admin, Role.MEMBER) for _ in range(3)]
    session = (await create(left.client))["id"]
    off = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { id } } }"
    await admin(off, input={"userId": left.id, "active": False, "successorId": heir.id})
    # Written in between, the session's last change is not that of its owner.
    await heir.client(UPDATE, input={"sessionId": session, "title": "Mine now"})
    offer = "mutation ($input: OfferHandoffInput!) { offerHandoff(input: $input) { handoff { id } } }"
    given = {"sessionId": session, "toUserId": third.id, "keepAccess": False}
    handoff = (await heir.client(offer, input=given))["offerHandoff"]["handoff"]["id"]
    for client, verb in ((third.client, "accept"), (heir.client, "undo")):
        document = f"mutation ($input: HandoffInput!) {{ {verb}Handoff(input: $input) {{ handoff {{ id }} }} }}"
        await client(document, input={"handoffId": handoff})
    found = by_person(await report(heir.client, session))
    assert {id_: [period["kind"] for period in found[id_]["access"]] for id_ in (left.id, heir.id, third.id)} == {
        left.id: ["OWNER"],
        heir.id: ["OWNER", "OWNER"],
        third.id: ["OWNER"],
    }
    [first], [second, fourth], [between] = [found[one.id]["access"] for one in (left, heir, third)]
    assert first["until"] == second["since"]
    assert second["until"] == between["since"]
    assert between["until"] == fourth["since"]
    assert fourth["until"] is None


async def test_who_may_have_the_report(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    assert (await guest.client.refused(REPORT, id=session)).codes == ["NOT_FOUND"]
    await share(owner, session, guest.id, level="WRITE")
    assert (await guest.client.refused(REPORT, id=session)).codes == ["FORBIDDEN"]
    await share(owner, session, guest.id, level="ADMIN")
    assert await report(guest.client, session)
    assert await report(people.admin.client, session)
    assert (await people.stranger.client.refused(REPORT, id=session)).codes == ["NOT_FOUND"]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    refused = await owner.refused(REPORT, id=session, **{"from": later})
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "to")
    assert (await owner.refused(REPORT, id=session, after="WyJ4Il0")).codes == ["BAD_INPUT"]
    document = """
    query ($id: ID!) { auditEvents(filter: {sessionId: $id, action: "session.access_report"}) {
      nodes { actorName } } }
    """
    asked = (await people.admin.client(document, id=session))["auditEvents"]["nodes"]
    assert {node["actorName"] for node in asked} >= {guest.name, people.admin.name}


async def test_a_view_is_in_the_audit_log_once_an_hour(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    await send(owner, session, "hello")
    await share(owner, session, guest.id)
    document = """
    query ($id: ID!, $who: ID!) { auditEvents(filter: {sessionId: $id, action: "session.view", actorId: $who}) {
      nodes { details } } }
    """
    for _ in range(3):
        await history(guest.client, session)

    async def recorded() -> list[Json]:
        found = await people.admin.client(document, id=session, who=guest.id)
        return found["auditEvents"]["nodes"]  # type: ignore[no-any-return]

    nodes = await eventually(recorded, within=10)
    # At the turn of the hour there are two.
    assert 1 <= len(nodes) <= 2
    assert nodes[0]["details"] == {"read": nodes[0]["details"]["read"], "credentialKind": "TOKEN"}


async def test_reading_in_the_feed_and_taking_a_copy_count_as_views(people: People) -> None:
    owner, guest, member = people.member.client, people.colleague, people.viewer
    session = (await create(owner))["id"]
    await share(owner, session, guest.id, member.id)
    await talk(owner, session, "worth a copy")
    feed = "{ activityFeed(first: 5) { nodes { ... on MessageSent { message { text } } } } }"
    assert {"message": {"text": "worth a copy"}} in (await member.client(feed))["activityFeed"]["nodes"]
    await guest.client(FORK, input={"sessionId": session})

    async def both_written() -> bool:
        found = by_person(await report(owner, session))
        return all(found[one]["views"] >= 1 for one in (guest.id, member.id))

    await eventually(both_written, within=10)
