"""Links to sessions, and what an organisation lets its members share."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from core.permissions import Role
from tests.app.conftest import People
from tests.clients_of_graph import Client, Json
from tests.sharing_help import (
    GRANTS,
    LEAVE,
    LINK,
    POLICY,
    REDEEM,
    REVOKE_LINK,
    SHARE,
    UPDATE_GRANT,
    account,
    events_of,
    revoke,
    share,
)
from tests.talking import CREATE, GET, UPDATE, create, send

pytestmark = pytest.mark.anyio


async def a_link(client: Client, session: str, level: str = "READ", **more: object) -> Json:
    given = {"sessionId": session, "level": level} | more
    return (await client(LINK, input=given))["createShareLink"]  # type: ignore[no-any-return]


async def redeem(client: Client, secret: str) -> Json:
    return (await client(REDEEM, input={"secret": secret}))["redeemShareLink"]  # type: ignore[no-any-return]


async def test_a_link_becomes_a_grant(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    link = await a_link(owner, session, "WRITE", idempotencyKey="once")
    assert link["secret"].endswith(link["shareLink"]["hint"])
    again = await a_link(owner, session, "WRITE", idempotencyKey="once")
    assert (again["secret"], again["shareLink"]["id"]) == (None, link["shareLink"]["id"])

    redeemed = await redeem(guest.client, link["secret"])
    assert redeemed["session"]["id"] == session
    assert (redeemed["grant"]["level"], redeemed["grant"]["user"]) == ("WRITE", {"id": guest.id})
    await send(guest.client, session, "hello")
    [created, granted] = [
        *(await events_of(owner, session, "quarterdeck.link.", 1)),
        *(await events_of(owner, session, "quarterdeck.access.", 1)),
    ]
    assert created["data"] == {"linkId": link["shareLink"]["id"], "level": "WRITE"}
    assert granted["data"]["viaLinkId"] == link["shareLink"]["id"]

    # Who has as much uses nothing of it; the owner and admins neither.
    for one in (guest.client, owner, people.admin.client):
        assert (await redeem(one, link["secret"]))["grant"] is None
    node = "query ($id: ID!) { node(id: $id) { ... on ShareLink { useCount } } }"
    assert (await owner(node, id=link["shareLink"]["id"]))["node"] == {"useCount": 1}
    assert (await guest.client(node, id=link["shareLink"]["id"]))["node"] is None
    assert (await guest.client(GRANTS, id=session))["session"]["shareLinks"]["nodes"] == []
    assert (await owner(GRANTS, id=session))["session"]["shareLinks"]["nodes"] == [{"id": link["shareLink"]["id"]}]

    # A link of less takes nothing away; one of more gives it.
    reading = await a_link(owner, session, "READ")
    assert (await redeem(guest.client, reading["secret"]))["grant"] is None
    await redeem(people.viewer.client, reading["secret"])
    raised = await redeem(people.viewer.client, link["secret"])
    assert raised["grant"]["level"] == "WRITE"

    # What was given stays when the link is revoked.
    given = {"shareLinkId": reading["shareLink"]["id"]}
    assert (await owner(REVOKE_LINK, input=given))["revokeShareLink"]["shareLink"]["revokedAt"]
    await owner(REVOKE_LINK, input=given)
    assert (await people.viewer.client(GET, id=session))["session"] is not None
    await revoke(owner, raised["grant"]["id"])
    refused = await people.viewer.client.refused(REDEEM, input={"secret": reading["secret"]})
    assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "secret")


async def test_links_that_are_not_good(people: People) -> None:
    owner, guest = people.member.client, people.colleague.client
    session = (await create(owner))["id"]
    soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    short = await a_link(owner, session, expiresAt=soon)
    good = await a_link(owner, session)
    await asyncio.sleep(0.4)
    for client, secret in (
        (guest, short["secret"]),
        (guest, "qdl_invented"),
        (guest, ""),
        (guest, "x" * 100_000),
        (guest, good["secret"] + " "),
        (people.stranger.client, good["secret"]),
    ):
        refused = await client.refused(REDEEM, input={"secret": secret})
        assert (refused.codes, refused.extensions["field"]) == (["NOT_FOUND"], "secret")
    for given, field in (
        ({"level": "ADMIN"}, "level"),
        ({"maxUses": 0}, "maxUses"),
        ({"maxUses": 501}, "maxUses"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
    ):
        refused = await owner.refused(LINK, input={"sessionId": session, "level": "READ"} | given)
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], field)


async def test_a_link_for_one_is_used_by_one_whoever_is_first(people: People) -> None:
    owner = people.member.client
    session = (await create(owner))["id"]
    link = await a_link(owner, session, maxUses=1)
    guests = [people.colleague, people.viewer, *[await account(people.admin.client, Role.MEMBER) for _ in range(2)]]
    tried = await asyncio.gather(*(redeem(guest.client, link["secret"]) for guest in guests), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in tried) == 1
    assert {tuple(one.codes) for one in tried if isinstance(one, BaseException)} == {("NOT_FOUND",)}
    assert (await owner(GRANTS, id=session))["session"]["grants"]["totalCount"] == 1


async def test_nobody_gives_access_to_themself_by_a_link(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    [grant] = await share(owner, session, guest.id, level="ADMIN")
    link = await a_link(guest.client, session, "WRITE")
    await revoke(owner, grant["id"])
    assert (await guest.client.refused(REDEEM, input={"secret": link["secret"]})).codes == ["BAD_INPUT"]
    assert (await guest.client.refused(REVOKE_LINK, input={"shareLinkId": link["shareLink"]["id"]})).codes == [
        "NOT_FOUND"
    ]
    # The links of somebody who has gone are the session's.
    await owner(REVOKE_LINK, input={"shareLinkId": link["shareLink"]["id"]})


async def test_what_was_taken_back_is_not_had_again_by_the_same_link(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    link = await a_link(owner, session)
    # Who left may come back.
    await redeem(guest.client, link["secret"])
    await guest.client(LEAVE, input={"sessionId": session})
    redeemed = (await redeem(guest.client, link["secret"]))["grant"]
    # Whether or not it got other terms meanwhile.
    await owner(UPDATE_GRANT, input={"grantId": redeemed["id"], "level": "WRITE", "note": "by name now"})
    await revoke(owner, redeemed["id"])
    other = await a_link(owner, session)
    await redeem(people.viewer.client, other["secret"])
    await revoke(owner, (await redeem(guest.client, other["secret"]))["grant"]["id"])
    for secret in (link["secret"], other["secret"]):
        refused = await guest.client.refused(REDEEM, input={"secret": secret})
        assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], "secret")
        assert "share it with you" in refused.message
    assert (await guest.client(GET, id=session))["session"] is None
    assert (await people.viewer.client(GET, id=session))["session"]["id"] == session
    # By name they are let in, and the link has nothing more for them.
    await share(owner, session, guest.id)
    assert (await redeem(guest.client, link["secret"]))["grant"] is None


async def test_links_are_for_who_manages_the_session(people: People) -> None:
    owner, guest = people.member.client, people.colleague
    session = (await create(owner))["id"]
    await share(owner, session, guest.id, level="WRITE")
    assert (await guest.client.refused(LINK, input={"sessionId": session, "level": "READ"})).codes == ["FORBIDDEN"]


# -- the policy. Of an organisation of its own, since others share theirs.


async def set_policy(client: Client, **changes: object) -> Json:
    data = await client(POLICY, input=changes)
    return data["updateSharingPolicy"]["organization"]["sharingPolicy"]  # type: ignore[no-any-return]


async def test_the_policy_of_an_organisation_holds_at_once(people: People) -> None:
    boss = people.stranger.client
    document = "{ organization { sharingPolicy { organizationVisibility defaultVisibility links longestGrantDays } } }"
    member, guest = await account(boss, Role.MEMBER), await account(boss, Role.MEMBER)
    free = {
        "organizationVisibility": "ALLOWED",
        "defaultVisibility": "PRIVATE",
        "links": "ALLOWED",
        "longestGrantDays": None,
    }
    assert (await member.client(document))["organization"]["sharingPolicy"] == free
    assert (await member.client.refused(POLICY, input={"links": "FORBIDDEN"})).codes == ["FORBIDDEN"]

    # Who may read a session whose maker says nothing of it.
    assert (await set_policy(boss, defaultVisibility="ORGANIZATION"))["defaultVisibility"] == "ORGANIZATION"
    opened = await create(member.client)
    assert opened["visibility"] == "ORGANIZATION"
    assert (await create(member.client, visibility="PRIVATE"))["visibility"] == "PRIVATE"
    assert (await guest.client(GET, id=opened["id"]))["session"]["id"] == opened["id"]

    # Sessions that were open are closed, and open again when that is taken back.
    refused = await boss.refused(POLICY, input={"organizationVisibility": "FORBIDDEN"})
    assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "defaultVisibility")
    await set_policy(boss, organizationVisibility="FORBIDDEN", defaultVisibility="PRIVATE")
    assert (await guest.client(GET, id=opened["id"]))["session"] is None
    refused = await member.client.refused(CREATE, input={"visibility": "ORGANIZATION"})
    assert (refused.codes, refused.extensions["field"]) == (["FORBIDDEN"], "visibility")
    private = (await create(member.client))["id"]
    change = {"sessionId": private, "visibility": "ORGANIZATION"}
    assert (await member.client.refused(UPDATE, input=change)).codes == ["FORBIDDEN"]
    await set_policy(boss, organizationVisibility="ALLOWED")
    assert (await guest.client(GET, id=opened["id"]))["session"]["id"] == opened["id"]
    await member.client(UPDATE, input=change)

    # Links.
    link = await a_link(member.client, private)
    await set_policy(boss, links="FORBIDDEN")
    assert (await guest.client.refused(REDEEM, input={"secret": link["secret"]})).codes == ["FORBIDDEN"]
    given = {"sessionId": private, "level": "READ"}
    assert (await member.client.refused(LINK, input=given)).codes == ["FORBIDDEN"]
    await set_policy(boss, links="ALLOWED", longestGrantDays=7)

    # How long access lasts.
    def ahead(days: float) -> str:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat()

    for document, input in (
        (SHARE, given | {"userIds": [guest.id], "expiresAt": ahead(8)}),
        (LINK, given | {"expiresAt": ahead(8)}),
    ):
        refused = await member.client.refused(document, input=input)
        assert (refused.codes, refused.extensions["field"]) == (["BAD_INPUT"], "expiresAt")
    [grant] = await share(member.client, private, guest.id)
    assert ahead(6.9) < grant["expiresAt"] < ahead(7)
    longer = {"grantId": grant["id"], "expiresAt": ahead(8)}
    assert (await member.client.refused(UPDATE_GRANT, input=longer)).codes == ["BAD_INPUT"]
    await revoke(member.client, grant["id"])
    redeemed = await redeem(guest.client, (await a_link(member.client, private))["secret"])
    assert ahead(6.9) < redeemed["grant"]["expiresAt"] < ahead(7)
    for days in (-1, 3651):
        assert (await boss.refused(POLICY, input={"longestGrantDays": days})).codes == ["BAD_INPUT"]
    assert await set_policy(boss, longestGrantDays=0) == free


async def test_the_same_key_of_another_link_is_a_conflict(people: People) -> None:
    owner, key = people.member.client, uuid4().hex
    session = (await create(owner))["id"]
    await a_link(owner, session, idempotencyKey=key)
    given = {"sessionId": session, "level": "WRITE", "idempotencyKey": key}
    assert (await owner.refused(LINK, input=given)).codes == ["CONFLICT"]
