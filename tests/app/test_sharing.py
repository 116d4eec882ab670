"""Sharing through the graph: who is given what, what they may then do, and how it is taken back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType

from core.ids import encode, new_id
from core.permissions import Role
from schema.build import served_schema
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json, Refused
from tests.sharing_help import (
    ACCESS_OF,
    GRANTS,
    LEAVE,
    REVOKE_GRANT,
    SHARE,
    UPDATE_GRANT,
    access,
    account,
    events_of,
    join,
    part,
    revoke,
    share,
    team_of,
)
from tests.talking import (
    DECIDE,
    FORK,
    GET,
    INTERRUPT,
    SEND,
    UPDATE,
    create,
    eventually,
    history,
    named,
    send,
    talk,
)

pytestmark = pytest.mark.anyio

SHARED_WITH_ME = "{ sessions(first: 100, filter: {sharedWithMe: true}) { nodes { id } } }"


def moment(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def test_who_may_read_sends_nothing_by_mutation_nor_over_the_socket(people: People) -> None:
    owner, reader = people.member.client, people.colleague
    session = (await create(owner))["id"]
    assert (await reader.client(GET, id=session))["session"] is None
    [grant] = await share(owner, session, reader.id, note=" for review ", expiresAt=moment(days=1))
    assert (grant["level"], grant["note"], grant["user"]) == ("READ", "for review", {"id": reader.id})
    assert grant["grantedBy"] == {"id": people.member.id}
    assert (await reader.client(GET, id=session))["session"]["id"] == session

    message = {"sessionId": session, "text": "hello"}
    refused = await reader.client.refused(SEND, input=message)
    assert (refused.codes, refused.extensions["needs"]) == (["FORBIDDEN"], "WRITE")
    async with reader.client.stream(SEND, input=message) as stream:
        with pytest.raises(Refused, match="FORBIDDEN"):
            await stream.next()
    assert (await history(owner, session))["messages"]["nodes"] == []

    await share(owner, session, reader.id, level="WRITE")
    await send(reader.client, session, "hello")
    await revoke(owner, grant["id"])
    assert (await reader.client(GET, id=session))["session"] is None
    assert (await reader.client.refused(SEND, input=message)).codes == ["NOT_FOUND"]


async def test_what_each_level_may_do(people: People) -> None:
    owner, guest = people.member.client, people.colleague.client
    session = (await create(owner))["id"]
    write_file = '/tool write_file {"path": "a", "content": "b"}'
    await talk(owner, session, write_file, named("approval.requested"))
    found = await history(owner, session)
    approval, run = found["pendingApprovals"]["nodes"][0]["id"], found["runs"]["nodes"][0]["id"]

    def on_session(name: str) -> tuple[str, Json]:
        document = f"mutation ($input: SessionInput!) {{ {name}(input: $input) {{ session {{ id }} }} }}"
        return document, {"sessionId": session}

    steps: list[tuple[str, tuple[str, Json]]] = [
        ("READ", (FORK, {"sessionId": session})),
        ("WRITE", (SEND, {"sessionId": session, "text": "hello"})),
        ("WRITE", (DECIDE, {"approvalId": approval, "decision": "DENY"})),
        ("WRITE", (UPDATE, {"sessionId": session, "title": "Other", "labels": [], "permissionMode": "PLAN"})),
        ("WRITE", on_session("pauseSession")),
        ("WRITE", on_session("resumeSession")),
        ("WRITE", (INTERRUPT, {"runId": run})),
        ("ADMIN", (UPDATE, {"sessionId": session, "visibility": "ORGANIZATION"})),
        ("ADMIN", (SHARE, {"sessionId": session, "userIds": [people.viewer.id], "level": "READ"})),
        ("ADMIN", on_session("terminateSession")),
        ("ADMIN", on_session("archiveSession")),
    ]
    levels = ["READ", "WRITE", "ADMIN"]
    for level in levels:
        await share(owner, session, people.colleague.id, level=level)
        for needs, (document, given) in steps:
            if levels.index(needs) > levels.index(level):
                refused = await guest.refused(document, input=given)
                assert refused.codes == ["FORBIDDEN"], (level, document)
                assert refused.extensions["level"] == level
            elif needs == level:
                done = await guest.raw(document, {"input": given})
                codes = {error["extensions"]["code"] for error in done.json().get("errors", [])}
                # The run may have ended of itself by then.
                assert codes <= ({"ILLEGAL_TRANSITION"} if document == INTERRUPT else set()), (document, codes)


async def test_bringing_back_what_was_put_away_is_for_admins(people: People) -> None:
    owner, guest = people.member.client, people.colleague.client
    session = (await create(owner))["id"]
    await share(owner, session, people.colleague.id, level="WRITE")
    archive = "mutation ($input: SessionInput!) { archiveSession(input: $input) { session { id } } }"
    resume = archive.replace("archive", "resume")
    await owner(archive, input={"sessionId": session})
    assert (await guest.refused(resume, input={"sessionId": session})).codes == ["FORBIDDEN"]
    await share(owner, session, people.colleague.id, level="ADMIN")
    await guest(resume, input={"sessionId": session})


async def test_a_grant_lifts_no_role_over_its_permissions(people: People) -> None:
    owner, viewer = people.member.client, people.viewer
    session = (await create(owner))["id"]
    await share(owner, session, viewer.id, level="ADMIN")
    assert (await access(viewer.client, session))["level"] == "ADMIN"
    refused = await viewer.client.refused(SEND, input={"sessionId": session, "text": "hello"})
    assert (refused.codes, refused.extensions["permission"]) == (["FORBIDDEN"], "SESSIONS_WRITE")
    given = {"sessionId": session, "userIds": [people.colleague.id], "level": "READ"}
    refused = await viewer.client.refused(SHARE, input=given)
    assert (refused.codes, refused.extensions["permission"]) == (["FORBIDDEN"], "SESSIONS_SHARE")


# -- with whom


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({}, "BAD_INPUT", "userIds"),
        ({"userIds": ["owner"]}, "BAD_INPUT", "userIds"),
        ({"userIds": ["stranger"]}, "NOT_FOUND", "userIds"),
        ({"userIds": [encode("usr", new_id())]}, "NOT_FOUND", "userIds"),
        ({"teamIds": [encode("team", new_id())]}, "NOT_FOUND", "teamIds"),
        ({"userIds": ["nonsense"]}, "BAD_INPUT", "userIds"),
        ({"userIds": [encode("team", new_id())]}, "NOT_FOUND", "userIds"),
        ({"userIds": [encode("usr", new_id()) for _ in range(501)]}, "BAD_INPUT", "userIds"),
        ({"teamIds": [encode("team", new_id()) for _ in range(51)]}, "BAD_INPUT", "teamIds"),
        ({"userIds": ["colleague"], "note": "x" * 501}, "BAD_INPUT", "note"),
        ({"userIds": ["colleague"], "note": "a\0b"}, "BAD_INPUT", "input.note"),
        ({"userIds": ["colleague"], "expiresAt": "2020-01-01T00:00:00Z"}, "BAD_INPUT", "expiresAt"),
        ({"userIds": ["colleague"], "expiresAt": "2099-01-01T00:00:00"}, "BAD_INPUT", None),
        ({"userIds": ["colleague"], "level": "OWNER"}, "BAD_INPUT", None),
        ({"userIds": ["colleague"], "sessionId": encode("ses", new_id())}, "NOT_FOUND", "sessionId"),
    ],
)
async def test_what_cannot_be_shared_so(people: People, given: Json, code: str, field: str | None) -> None:
    known = {"owner": people.member.id, "stranger": people.stranger.id, "colleague": people.colleague.id}
    session = (await create(people.member.client))["id"]
    input = {"sessionId": session, "level": "READ"} | given
    if "userIds" in input:
        input["userIds"] = [known.get(id_, id_) for id_ in input["userIds"]]
    # An admin may share it too, and so may name its owner.
    refused = await people.admin.client.refused(SHARE, input=input)
    assert refused.codes == [code]
    if field is not None:
        assert refused.extensions["field"] == field
    assert (await people.member.client(GRANTS, id=session))["session"]["grants"]["totalCount"] == 0


async def test_nobody_gives_access_to_themself(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, guest.id, level="ADMIN", expiresAt=moment(hours=1))
    for client, own in ((owner, people.member.id), (guest.client, guest.id), (people.admin.client, people.admin.id)):
        refused = await client.refused(SHARE, input={"sessionId": session, "userIds": [own], "level": "ADMIN"})
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "userIds")
    longer = {"grantId": grant["id"], "expiresAt": moment(days=30)}
    assert (await guest.client.refused(UPDATE_GRANT, input=longer)).codes == ["BAD_INPUT"]
    await owner(UPDATE_GRANT, input=longer)


async def test_a_team_that_one_is_in_counts_as_oneself(people: People) -> None:
    owner, admin, manager = people.member.client, people.admin.client, people.colleague
    team, others = await team_of(admin, manager.id, people.member.id), await team_of(admin, people.viewer.id)
    session = (await create(owner))["id"]
    # By their team, so that it is what they could raise and keep.
    [grant] = await share(owner, session, level="ADMIN", teamIds=[team], expiresAt=moment(hours=1))
    for document, given, field in (
        (SHARE, {"sessionId": session, "level": "ADMIN", "teamIds": [others, team]}, "teamIds"),
        (UPDATE_GRANT, {"grantId": grant["id"], "expiresAt": moment(days=30)}, "grantId"),
        (UPDATE_GRANT, {"grantId": grant["id"], "note": "mine"}, "grantId"),
    ):
        refused = await manager.client.refused(document, input=given)
        assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], field)
        assert "You are in the team" in refused.message
    # Other teams they may; and so may the owner, who is in it too, and an admin.
    [to_others] = await share(manager.client, session, teamIds=[others])
    await manager.client(UPDATE_GRANT, input={"grantId": to_others["id"], "level": "WRITE"})
    await owner(UPDATE_GRANT, input={"grantId": grant["id"], "level": "WRITE"})
    await join(admin, team, people.admin.id)
    await share(admin, session, level="READ", teamIds=[team])


async def test_who_is_deactivated_is_given_nothing(people: People) -> None:
    gone = await account(people.admin.client, Role.MEMBER)
    off = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { id } } }"
    await people.admin.client(off, input={"userId": gone.id, "active": False})
    session = (await create(people.member.client))["id"]
    given = {"sessionId": session, "userIds": [gone.id], "level": "READ"}
    refused = await people.member.client.refused(SHARE, input=given)
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "userIds")
    assert "deactivated" in refused.message


def test_circular_membership_cannot_be_said() -> None:
    """Teams have users in them and no teams, so there are no circles to walk in."""
    types = served_schema().type_map
    team, member = types["Team"], types["TeamMemberInput"]
    assert isinstance(team, GraphQLObjectType)
    assert isinstance(member, GraphQLInputObjectType)
    assert set(team.fields) == {"id", "name", "slug", "createdAt", "members", "activity"}
    assert str(team.fields["members"].type) == "UserConnection!"
    assert set(member.fields) == {"teamId", "userId"}


async def test_a_team_s_members_have_access_while_they_are_in_it(people: People) -> None:
    owner, admin, guest = people.member.client, people.admin.client, people.colleague
    team = await team_of(admin)
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, level="WRITE", teamIds=[team], expiresAt=moment(days=2))
    assert (grant["user"], grant["team"]) == (None, {"id": team})
    assert (await guest.client(GET, id=session))["session"] is None
    await join(admin, team, guest.id)
    await send(guest.client, session, "hello")
    found = await access(guest.client, session)
    assert found["level"] == "WRITE"
    assert [(why["kind"], why["team"]) for why in found["via"]] == [("TEAM_GRANT", {"id": team})]
    await part(admin, team, guest.id)
    assert (await guest.client(GET, id=session))["session"] is None


# -- again, at once, and back


async def test_sharing_again_gives_the_new_terms_and_keeps_one_grant(people: People) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    [first] = await share(owner, session, people.colleague.id, note="first")
    [same] = await share(owner, session, people.colleague.id, note="first")
    [other] = await share(owner, session, people.colleague.id, level="WRITE")
    assert first["id"] == same["id"] == other["id"]
    assert (other["level"], other["note"]) == ("WRITE", None)
    both = await share(owner, session, people.colleague.id, people.viewer.id, level="WRITE")
    assert {grant["user"]["id"] for grant in both} == {people.colleague.id, people.viewer.id}
    changed = await owner(UPDATE_GRANT, input={"grantId": first["id"], "level": "ADMIN", "note": "lead"})
    assert (changed["updateGrant"]["grant"]["level"], changed["updateGrant"]["grant"]["note"]) == ("ADMIN", "lead")
    events = await events_of(owner, session, "quarterdeck.access.", 4)
    told = [(e["name"].rpartition(".")[2], e["data"]["level"], e["data"].get("previousLevel")) for e in events]
    assert told == [
        ("granted", "READ", None),
        ("changed", "WRITE", "READ"),
        ("granted", "WRITE", None),
        ("changed", "ADMIN", "WRITE"),
    ]
    assert events[0]["data"] == {
        "grantId": first["id"],
        "granteeKind": "USER",
        "userId": people.colleague.id,
        "level": "READ",
    }


async def test_many_who_share_at_once_make_one_grant(people: People) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    levels = ["READ", "WRITE", "ADMIN"] * 2
    made = await asyncio.gather(*(share(owner, session, people.colleague.id, level=level) for level in levels))
    assert len({grant["id"] for [grant] in made}) == 1
    assert (await owner(GRANTS, id=session))["session"]["grants"]["totalCount"] == 1


async def test_the_same_key_shares_once(people: People) -> None:
    owner, key = people.member.client, uuid4().hex
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, people.colleague.id, idempotencyKey=key)
    await revoke(owner, grant["id"])
    assert await share(owner, session, people.colleague.id, idempotencyKey=key) == []
    assert (await people.colleague.client(GET, id=session))["session"] is None


async def test_revoking_again_has_no_effect_and_what_has_ended_cannot_be_changed(people: People) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, people.colleague.id)
    first = await revoke(owner, grant["id"])
    assert await revoke(owner, grant["id"]) == first
    refused = await owner.refused(UPDATE_GRANT, input={"grantId": grant["id"], "level": "ADMIN"})
    assert refused.codes == ["CONFLICT"]
    [anew] = await share(owner, session, people.colleague.id)
    assert anew["id"] != grant["id"]
    # Who manages the session still finds what has ended; whom it was for does not.
    node = "query ($id: ID!) { node(id: $id) { ... on Grant { revokedAt revokedBy { id } } } }"
    assert (await owner(node, id=grant["id"]))["node"]["revokedBy"] == {"id": people.member.id}
    assert (await people.colleague.client(node, id=grant["id"]))["node"] is None
    assert (await people.colleague.client(node, id=anew["id"]))["node"] is not None
    assert (await people.stranger.client(node, id=anew["id"]))["node"] is None
    assert (await people.stranger.client.refused(REVOKE_GRANT, input={"grantId": anew["id"]})).codes == ["NOT_FOUND"]
    assert (await people.colleague.client.refused(REVOKE_GRANT, input={"grantId": anew["id"]})).codes == ["FORBIDDEN"]


async def test_leaving(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    await share(owner, session, guest.id, level="WRITE")
    assert (await guest.client(LEAVE, input={"sessionId": session}))["leaveSession"]["session"] is None
    assert (await guest.client.refused(LEAVE, input={"sessionId": session})).codes == ["NOT_FOUND"]
    assert (await owner.refused(LEAVE, input={"sessionId": session})).codes == ["CONFLICT"]
    team = await team_of(people.admin.client, guest.id)
    await share(owner, session, teamIds=[team])
    refused = await guest.client.refused(LEAVE, input={"sessionId": session})
    assert refused.codes == ["CONFLICT"]
    assert "team" in refused.message


# -- what is told of it


async def test_who_manages_a_session_sees_all_grants_and_others_their_own(people: People) -> None:
    owner, guest, other = people.member.client, people.colleague, await account(people.admin.client, Role.MEMBER)
    team = await team_of(people.admin.client, guest.id)
    session = (await create(owner))["id"]
    await share(owner, session, guest.id, other.id, level="READ", teamIds=[team])

    async def seen(client: Client, **more: Any) -> list[str]:
        page = (await client(GRANTS, id=session, **more))["session"]["grants"]
        assert page["totalCount"] == len(page["nodes"]) or more
        return [(node["user"] or node["team"])["id"] for node in page["nodes"]]

    assert set(await seen(owner)) == set(await seen(people.admin.client)) == {guest.id, other.id, team}
    assert set(await seen(guest.client)) == {guest.id, team}
    assert await seen(other.client) == [other.id]
    await share(owner, session, other.id, level="ADMIN")
    assert set(await seen(other.client)) == {guest.id, other.id, team}
    # Page by page they are the same.
    paged, after = [], None
    for _ in range(3):
        page = (await owner(GRANTS, id=session, first=1, after=after))["session"]["grants"]
        paged += [(node["user"] or node["team"])["id"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert not page["pageInfo"]["hasNextPage"]
    assert set(paged) == {guest.id, other.id, team}
    for nonsense in ("x", "WzFd", "WyJhIl0"):
        assert (await owner.refused(GRANTS, id=session, after=nonsense)).codes == ["BAD_INPUT"]


async def test_access_says_why(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    team = await team_of(people.admin.client, guest.id)
    session = (await create(owner, visibility="ORGANIZATION"))["id"]
    expires = "2099-01-01T00:00:00+00:00"
    [grant, _] = sorted(
        await share(owner, session, guest.id, level="WRITE", teamIds=[team], expiresAt=expires),
        key=lambda grant: grant["user"] is None,
    )
    found = await access(guest.client, session)
    assert found["level"] == "WRITE"
    assert {(why["kind"], why["level"], why["expiresAt"]) for why in found["via"]} == {
        ("GRANT", "WRITE", expires),
        ("TEAM_GRANT", "WRITE", expires),
        ("ORGANIZATION", "READ", None),
    }
    assert [why["kind"] for why in (await access(owner, session))["via"]] == ["OWNER", "ORGANIZATION"]
    assert (await access(people.admin.client, session))["via"][0]["kind"] == "ORGANIZATION_ADMIN"

    # Who manages it asks about others.
    of = (await owner(ACCESS_OF, session=session, user=guest.id))["sessionAccess"]
    assert of["level"] == "WRITE"
    assert {"id": grant["id"]} in [why["grant"] for why in of["via"]]
    assert (await guest.client(ACCESS_OF, session=session))["sessionAccess"] == of
    assert (await guest.client.refused(ACCESS_OF, session=session, user=people.viewer.id)).codes == ["FORBIDDEN"]
    assert (await owner.refused(ACCESS_OF, session=session, user=people.stranger.id)).codes == ["NOT_FOUND"]
    private = (await create(owner))["id"]
    nothing = {"level": None, "via": []}
    assert (await owner(ACCESS_OF, session=private, user=guest.id))["sessionAccess"] == nothing
    assert (await guest.client.refused(ACCESS_OF, session=private)).codes == ["NOT_FOUND"]


async def test_what_is_shared_with_me_is_a_list(people: People) -> None:
    owner, guest = people.member.client, await account(people.admin.client, Role.MEMBER)
    team = await team_of(people.admin.client, guest.id)
    mine = (await create(guest.client))["id"]
    await share(guest.client, mine, teamIds=[team])
    await create(owner, visibility="ORGANIZATION")
    by_user, by_team = (await create(owner))["id"], (await create(owner))["id"]
    [grant] = await share(owner, by_user, guest.id)
    await share(owner, by_team, teamIds=[team])

    async def found() -> set[str]:
        return {node["id"] for node in (await guest.client(SHARED_WITH_ME))["sessions"]["nodes"]}

    assert await found() == {by_user, by_team}
    await revoke(owner, grant["id"])
    assert await found() == {by_team}
    live = "subscription { sessionChanges(filter: {sharedWithMe: true}) { kind } }"
    async with guest.client.stream(live) as stream:
        with pytest.raises(Refused, match="BAD_INPUT"):
            await stream.next()


async def test_a_newcomer_s_live_list_gets_the_session(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    document = "subscription ($after: Cursor) { sessionChanges(after: $after) { kind session { id } } }"
    cursor = (await guest.client("{ sessionChangesCursor }"))["sessionChangesCursor"]
    session = (await create(owner))["id"]
    await share(owner, session, guest.id)
    async with guest.client.stream(document, after=cursor) as stream:
        changes = await stream.until("sessionChanges", lambda change: change["session"]["id"] == session, 10)
    assert changes[-1]["kind"] in ("CREATED", "UPDATED")


async def test_every_step_is_in_the_audit_log_with_before_and_after(people: People) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, people.colleague.id, note="why")
    await owner(UPDATE_GRANT, input={"grantId": grant["id"], "level": "WRITE"})
    await people.colleague.client.refused(REVOKE_GRANT, input={"grantId": grant["id"]})
    await revoke(owner, grant["id"])
    document = """
    query ($id: ID!) { auditEvents(first: 50, filter: {sessionId: $id}) {
      nodes { action outcome targetKind targetId targetName before after actorName } } }
    """
    nodes = (await people.admin.client(document, id=session))["auditEvents"]["nodes"]
    records = {(node["action"], node["outcome"]): node for node in nodes}
    shown = {"grantee": people.colleague.id, "level": "READ", "note": "why", "expiresAt": None}
    made = records["grant.create", "SUCCEEDED"]
    assert (made["before"], made["after"], made["targetId"]) == (None, shown, grant["id"])
    assert made["targetName"] == people.colleague.name
    changed = records["grant.update", "SUCCEEDED"]
    assert (changed["before"], changed["after"]) == (shown, shown | {"level": "WRITE"})
    ended = records["grant.revoke", "SUCCEEDED"]
    assert (ended["before"], ended["after"]) == (shown | {"level": "WRITE"}, None)
    assert records["grant.revoke", "REFUSED"]["actorName"] == people.colleague.name
    assert records["session.share", "SUCCEEDED"]["targetId"] == session


async def test_what_expires_is_over_at_once_and_told_once(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, guest.id, level="WRITE", expiresAt=moment(seconds=1.5))
    await send(guest.client, session, "in time")

    async def over() -> bool:
        return (await guest.client(GET, id=session))["session"] is None

    await eventually(over, within=5)
    refused = await guest.client.refused(SEND, input={"sessionId": session, "text": "too late"})
    assert refused.codes == ["NOT_FOUND"]
    [_, expired] = await events_of(owner, session, "quarterdeck.access.", 2)
    assert (expired["name"], expired["data"]["grantId"]) == ("quarterdeck.access.expired", grant["id"])
    assert expired["actorKind"] == "SYSTEM"
