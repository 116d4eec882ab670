"""What the tests of sharing share: the documents, and doing the usual things with a client."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from core.permissions import Role
from tests.app.conftest import Person
from tests.clients_of_graph import Client, Json

_GRANT = "id level note expiresAt revokedAt user { id } team { id } grantedBy { id } viaLink { id } session { id }"
SHARE = (
    "mutation ($input: ShareSessionInput!) { shareSession(input: $input) { session { id } grants { " + _GRANT + " } } }"
)
UPDATE_GRANT = "mutation ($input: UpdateGrantInput!) { updateGrant(input: $input) { grant { " + _GRANT + " } } }"
REVOKE_GRANT = (
    "mutation ($input: GrantInput!) { revokeGrant(input: $input) { grant { " + _GRANT + " } session { id } } }"
)
LEAVE = "mutation ($input: LeaveSessionInput!) { leaveSession(input: $input) { grant { id } session { id } } }"
LINK = """
mutation ($input: CreateShareLinkInput!) {
  createShareLink(input: $input) { secret shareLink { id hint level useCount maxUses session { id } createdBy { id } } }
}
"""
REVOKE_LINK = """
mutation ($input: RevokeShareLinkInput!) { revokeShareLink(input: $input) { shareLink { id revokedAt } } }
"""
REDEEM = (
    "mutation ($input: RedeemShareLinkInput!) { redeemShareLink(input: $input) { session { id } grant { "
    + _GRANT
    + " } } }"
)
GRANTS = (
    "query ($id: ID!, $first: Int, $after: String) { session(id: $id) { grants(first: $first, after: $after) "
    "{ totalCount nodes { " + _GRANT + " } pageInfo { hasNextPage endCursor } } shareLinks { nodes { id } } } }"
)
ACCESS = "query ($id: ID!) { session(id: $id) { access { level via { kind level expiresAt team { id } } } } }"
ACCESS_OF = """
query ($session: ID!, $user: ID) {
  sessionAccess(sessionId: $session, userId: $user) { level via { kind level expiresAt grant { id } team { id } } }
}
"""
POLICY = """
mutation ($input: UpdateSharingPolicyInput!) {
  updateSharingPolicy(input: $input) {
    organization { sharingPolicy { organizationVisibility defaultVisibility links longestGrantDays } }
  }
}
"""
MAKE_ACCOUNT = """
mutation ($input: CreateServiceAccountInput!) { createServiceAccount(input: $input) { user { id name } } }
"""
MAKE_TOKEN = "mutation ($input: CreateAccessTokenInput!) { createAccessToken(input: $input) { secret } }"
MAKE_TEAM = "mutation ($input: CreateTeamInput!) { createTeam(input: $input) { team { id } } }"
MEMBER = "mutation ($input: TeamMemberInput!) { %sTeamMember(input: $input) { team { id } } }"


async def share(client: Client, session: str, *users: str, level: str = "READ", **more: Any) -> list[Json]:
    given = {"sessionId": session, "userIds": list(users), "level": level} | more
    return (await client(SHARE, input=given))["shareSession"]["grants"]  # type: ignore[no-any-return]


async def revoke(client: Client, grant: str) -> Json:
    return (await client(REVOKE_GRANT, input={"grantId": grant}))["revokeGrant"]  # type: ignore[no-any-return]


async def access(client: Client, session: str) -> Json:
    return (await client(ACCESS, id=session))["session"]["access"]  # type: ignore[no-any-return]


async def account(admin: Client, role: Role) -> Person:
    """A service account of the admin's organisation, with a token of its own."""
    name = f"{role.value.title()} {uuid4().hex[:6]}"
    user = (await admin(MAKE_ACCOUNT, input={"name": name, "role": role.value}))["createServiceAccount"]["user"]
    made = await admin(MAKE_TOKEN, input={"name": "tests", "userId": user["id"]})
    return Person(user["id"], name, Client(admin.url, made["createAccessToken"]["secret"]))


async def team_of(admin: Client, *members: str) -> str:
    """A new team with these members."""
    name = f"Team {uuid4().hex[:8]}"
    team = (await admin(MAKE_TEAM, input={"name": name}))["createTeam"]["team"]["id"]
    await asyncio.gather(*(join(admin, team, member) for member in members))
    return team  # type: ignore[no-any-return]


async def join(admin: Client, team: str, member: str) -> None:
    await admin(MEMBER % "add", input={"teamId": team, "userId": member})


async def part(admin: Client, team: str, member: str) -> None:
    await admin(MEMBER % "remove", input={"teamId": team, "userId": member})


async def events_of(client: Client, session: str, prefix: str, count: int) -> list[Json]:
    """The first events of a session whose name begins so."""
    document = "subscription ($id: ID!) { sessionEvents(sessionId: $id) { seq name data actorKind } }"
    found: list[Json] = []
    async with client.stream(document, id=session) as stream:
        while len(found) < count:
            event = (await stream.next())["sessionEvents"]
            if (event["name"] or "").startswith(prefix):
                found.append(event)
    return found
