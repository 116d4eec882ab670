from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core import db
from core.ids import encode
from core.permissions import Actor, Permission, Role
from core.settings import Settings
from schema.build import served_schema
from schema.context import Context
from schema.execution import Graph, Request
from services.identity.actors import actor_of_bearer
from services.identity.sign_in import sign_in_with_password
from services.identity.tokens import create_access_token
from tests.services.identity_help import ELSEWHERE, HERE, PASSWORD, House, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

Json = dict[str, Any]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(served_schema(), Settings())


@pytest.fixture
async def house(database: object) -> House:
    return await a_house()


class Asker:
    """Asks the graph as one actor."""

    def __init__(self, graph: Graph, actor: Actor | None) -> None:
        self._graph, self._actor = graph, actor

    async def body(self, document: str, **variables: Any) -> Json:
        return await self._graph.execute(Request(document, variables, None), Context(self._actor, HERE))

    async def __call__(self, document: str, **variables: Any) -> Json:
        body = await self.body(document, **variables)
        assert "errors" not in body, body
        return body["data"]  # type: ignore[no-any-return]

    async def codes(self, document: str, **variables: Any) -> list[str]:
        body = await self.body(document, **variables)
        return [error["extensions"]["code"] for error in body.get("errors", [])]


@contextmanager
def at_most(count: int) -> Iterator[None]:
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        yield
    finally:
        db.queries_seen.reset(mark)
    assert len(seen) <= count, seen


CREATE_TOKEN = """
mutation ($input: CreateAccessTokenInput!) {
  createAccessToken(input: $input) { secret accessToken { id name hint scopes expiresAt lastUsedAt user { name } } }
}
"""
UPDATE_USER = "mutation ($input: UpdateUserInput!) { updateUser(input: $input) { user { name role deactivatedAt } } }"


async def test_the_viewer_is_who_asks(graph: Graph, house: House) -> None:
    document = "{ viewer { user { id name email role kind } organization { id name slug } permissions } }"
    viewer = (await Asker(graph, house.actor(Role.VIEWER))(document))["viewer"]
    assert viewer["user"] == {
        "id": encode("usr", house.users[Role.VIEWER]["id"]),
        "name": "Demo Viewer",
        "email": "viewer@acme.example",
        "role": "VIEWER",
        "kind": "HUMAN",
    }
    assert viewer["organization"]["slug"] == "acme"
    assert "SESSIONS_READ" in viewer["permissions"]
    assert "SESSIONS_WRITE" not in viewer["permissions"]
    assert await Asker(graph, None).codes(document) == ["UNAUTHENTICATED"]


async def test_a_token_is_made_used_listed_and_revoked(graph: Graph, house: House) -> None:
    ask = Asker(graph, house.actor(Role.MEMBER))
    made = (await ask(CREATE_TOKEN, input={"name": "ci", "scopes": ["PROFILE_READ"]}))["createAccessToken"]
    assert made["accessToken"]["hint"] == made["secret"][-4:]
    assert made["accessToken"]["scopes"] == ["PROFILE_READ"]
    assert made["accessToken"]["user"] == {"name": "Demo Member"}

    actor = await actor_of_bearer(made["secret"], HERE)
    narrow = Asker(graph, actor)
    assert (await narrow("{ viewer { permissions } }"))["viewer"]["permissions"] == ["PROFILE_READ"]
    assert await narrow.codes("{ users { totalCount } }") == ["FORBIDDEN"]
    assert await narrow.codes(CREATE_TOKEN, input={"name": "more"}) == ["FORBIDDEN"]

    listed = (await ask("{ accessTokens { totalCount nodes { id scopes } } }"))["accessTokens"]
    assert listed["nodes"] == [{"id": made["accessToken"]["id"], "scopes": ["PROFILE_READ"]}]
    revoke = """
    mutation ($id: ID!) { revokeAccessToken(input: {accessTokenId: $id}) { accessToken { revokedAt } } }
    """
    assert await Asker(graph, house.actor(Role.VIEWER)).codes(revoke, id=made["accessToken"]["id"]) == ["NOT_FOUND"]
    assert (await ask(revoke, id=made["accessToken"]["id"]))["revokeAccessToken"]["accessToken"]["revokedAt"]
    assert await actor_of_bearer(made["secret"], HERE) is None


async def test_admins_manage_users_service_accounts_and_teams(graph: Graph, house: House) -> None:
    ask = Asker(graph, house.actor(Role.ADMIN))
    user = (
        await ask(
            "mutation ($input: CreateUserInput!) { createUser(input: $input) { user { id email role } } }",
            input={"name": "Demo Engineer", "email": "Engineer@acme.example", "password": PASSWORD},
        )
    )["createUser"]["user"]
    assert (user["email"], user["role"]) == ("engineer@acme.example", "MEMBER")
    robot = (await ask('mutation { createServiceAccount(input: {name: "robot"}) { user { id kind email } } }'))[
        "createServiceAccount"
    ]["user"]
    assert (robot["kind"], robot["email"]) == ("SERVICE", None)
    token = (await ask(CREATE_TOKEN, input={"name": "ci", "userId": robot["id"]}))["createAccessToken"]
    assert token["accessToken"]["user"] == {"name": "robot"}

    team = (await ask('mutation { createTeam(input: {name: "Data Science"}) { team { id slug } } }'))["createTeam"][
        "team"
    ]
    member = {"teamId": team["id"], "userId": user["id"]}
    added = await ask(
        """
        mutation ($input: TeamMemberInput!) {
          addTeamMember(input: $input) { team { members { totalCount nodes { name teams { nodes { slug } } } } } }
        }
        """,
        input=member,
    )
    assert added["addTeamMember"]["team"]["members"] == {
        "totalCount": 1,
        "nodes": [{"name": "Demo Engineer", "teams": {"nodes": [{"slug": "data-science"}]}}],
    }
    removed = await ask(
        "mutation ($i: TeamMemberInput!) { removeTeamMember(input: $i) { team { members { totalCount } } } }", i=member
    )
    assert removed["removeTeamMember"]["team"]["members"]["totalCount"] == 0

    changed = (await ask(UPDATE_USER, input={"userId": user["id"], "role": "VIEWER", "active": False}))["updateUser"][
        "user"
    ]
    assert changed["role"] == "VIEWER"
    assert changed["deactivatedAt"]
    found = await ask('{ users(filter: {active: false, textContains: "engin"}) { nodes { id } } }')
    assert found["users"]["nodes"] == [{"id": user["id"]}]


async def test_members_manage_nobody_and_the_attempt_is_audited(graph: Graph, house: House) -> None:
    ask = Asker(graph, house.actor(Role.MEMBER))
    target = encode("usr", house.users[Role.VIEWER]["id"])
    assert await ask.codes(UPDATE_USER, input={"userId": target, "role": "OWNER"}) == ["FORBIDDEN"]
    assert [record.outcome for record in await audited("graph.updateUser")] == ["REFUSED"]
    assert await ask.codes(
        "mutation ($i: SetPasswordInput!) { setPassword(input: $i) { user { id } } }",
        i={"userId": target, "password": "set by somebody else"},
    ) == ["FORBIDDEN"]
    assert [record.outcome for record in await audited("user.set_password")] == ["REFUSED"]


async def test_ids_of_another_kind_or_organisation_are_not_found(graph: Graph, house: House) -> None:
    stranger = await a_house("Globex")
    ask = Asker(graph, house.actor(Role.OWNER))
    theirs = encode("usr", stranger.users[Role.MEMBER]["id"])
    for id_, code in (
        (theirs, "NOT_FOUND"),
        (encode("team", house.users[Role.MEMBER]["id"]), "NOT_FOUND"),
        ("nonsense", "BAD_INPUT"),
    ):
        assert await ask.codes(UPDATE_USER, input={"userId": id_, "name": "Mine"}) == [code]
    assert (await ask("query ($id: ID!) { node(id: $id) { id } }", id=theirs))["node"] is None
    ours = encode("usr", house.users[Role.MEMBER]["id"])
    node = (await ask("query ($id: ID!) { node(id: $id) { id ... on User { name } } }", id=ours))["node"]
    assert node == {"id": ours, "name": "Demo Member"}


async def test_a_hundred_aliased_guesses_in_one_document_are_stopped(graph: Graph, house: House) -> None:
    guesses = "\n".join(
        f'g{n}: setPassword(input: {{password: "another long one", currentPassword: "{n}"}}) {{ user {{ id }} }}'
        for n in range(100)
    )
    ample = Graph(served_schema(), Settings(max_query_aliases=200, max_query_tokens=10_000))
    ask = Asker(ample, house.actor(Role.ADMIN))
    codes = [code for _ in range(8) for code in await ask.codes(f"mutation {{ {guesses} }}")]
    assert codes.count("FORBIDDEN") <= 5
    assert codes[-1] == "RATE_LIMITED"
    await sign_in_with_password("admin@acme.example", PASSWORD, ELSEWHERE)


async def test_one_sees_and_signs_out_ones_browsers(graph: Graph, house: House) -> None:
    here = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    there = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    ask = Asker(graph, here.actor)
    nodes = (await ask("{ webSessions { nodes { id ip isCurrent } } }"))["webSessions"]["nodes"]
    assert [node["isCurrent"] for node in nodes] == [False, True]
    assert nodes[0]["ip"] == HERE.ip
    revoke = "mutation ($id: ID!) { revokeWebSession(input: {webSessionId: $id}) { webSession { revokedAt } } }"
    assert (await ask(revoke, id=nodes[0]["id"]))["revokeWebSession"]["webSession"]["revokedAt"]
    assert there.actor.credential_id is not None
    assert await ask.codes(revoke, id=encode("web", there.actor.user_id or house.organization_id)) == ["NOT_FOUND"]


async def test_nested_lists_cost_one_query_each(graph: Graph, house: House) -> None:
    actor = house.actor(Role.ADMIN)
    ask = Asker(graph, actor)
    for n in range(5):
        await ask("mutation ($n: String!) { createTeam(input: {name: $n}) { team { id } } }", n=f"Team {n}")
        await create_access_token(actor, name=f"t{n}", scopes=[Permission.PROFILE_READ])
    with at_most(3):
        await ask("{ teams { nodes { name members { nodes { name teams(first: 5) { nodes { slug } } } } } } }")
    with at_most(2):
        await ask("{ accessTokens { nodes { name user { name } } } }")
