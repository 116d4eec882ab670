from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core import db
from core.errors import BadInput
from core.ids import new_id
from core.paging import Page, encode_cursor
from core.permissions import Role
from models.identity import UserKind
from resolvers import identity as reads
from resolvers.identity import TokenFilter, UserFilter
from services.identity.accounts import create_service_account, update_user
from services.identity.sign_in import sign_in_with_password, sign_out
from services.identity.teams import add_team_member, create_team
from services.identity.tokens import create_access_token, revoke_access_token
from tests.services.identity_help import ELSEWHERE, HERE, PASSWORD, a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


@contextmanager
def queries(count: int) -> Iterator[None]:
    """Exactly so many statements."""
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        yield
    finally:
        db.queries_seen.reset(mark)
    assert len(seen) == count, seen


async def walk(read: Callable[[str | None], Awaitable[Page[Any]]]) -> list[Any]:
    """All rows of a list, page by page."""
    rows: list[Any] = []
    after: str | None = None
    while True:
        page = await read(after)
        rows += page.rows
        if not page.has_next_page:
            assert await page.count() == len(rows)
            return rows
        after = page.cursor_of(page.rows[-1])


async def test_users_are_those_of_the_organisation_in_pages() -> None:
    house, stranger = await a_house(), await a_house("Globex")
    robot = await create_service_account(house.system, name="Robot_1")
    viewer = house.actor(Role.VIEWER)

    async def users(descending: bool = False, **wanted: Any) -> list[Any]:
        filter_ = UserFilter(**wanted)
        return [
            row["id"]
            for row in await walk(
                lambda after: reads.users(viewer, filter_, first=2, after=after, descending=descending)
            )
        ]

    everybody = [*(house.users[role]["id"] for role in Role), robot["id"]]
    assert await users() == everybody
    assert await users(descending=True) == everybody[::-1]
    assert await users(kinds=[UserKind.SERVICE]) == [robot["id"]]
    assert await users(roles=[Role.OWNER, Role.ADMIN]) == everybody[:2]
    assert await users(text="ROBOT_") == [robot["id"]]
    assert await users(text="%") == []
    assert await users(text="viewer@ACME") == [viewer.user_id]
    await update_user(house.system, robot["id"], active=False)
    assert await users(active=False) == [robot["id"]]
    assert await users(active=True) == everybody[:-1]
    assert await users(kinds=[]) == []
    assert await reads.user(stranger.actor(Role.OWNER), robot["id"]) is None


@pytest.mark.parametrize("cursor", ["", "x", encode_cursor(1), encode_cursor("no uuid"), encode_cursor("a", "b"), "é"])
async def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    house = await a_house()
    actor = house.actor(Role.ADMIN)
    with pytest.raises(BadInput, match="cursor"):
        await reads.users(actor, UserFilter(), first=None, after=cursor, descending=False)
    with pytest.raises(BadInput, match="cursor"):
        await reads.members_of_teams(actor, [{"id": new_id()}], {"after": cursor})


async def test_members_of_many_teams_are_one_query_with_a_page_each() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    teams = [await create_team(admin, name=f"Team {n}") for n in range(4)]
    members = [house.users[role]["id"] for role in Role]
    for number, team in enumerate(teams):
        for member in members[:number]:
            await add_team_member(admin, team["id"], member)
    with queries(1):
        pages = await reads.members_of_teams(admin, teams, {"first": 2})
    assert [[row["id"] for row in page.rows] for page in pages] == [[], members[:1], members[:2], members[:2]]
    assert [page.has_next_page for page in pages] == [False, False, False, True]
    with queries(1):
        assert [await page.count() for page in pages] == [0, 1, 2, 3]
    after = pages[3].cursor_of(pages[3].rows[-1])
    [rest] = await reads.members_of_teams(admin, teams[3:], {"first": 2, "after": after})
    assert [row["id"] for row in rest.rows] == members[2:3]
    with queries(1):
        of_users = await reads.teams_of_users(admin, [house.users[role] for role in Role], {})
    assert [len(page.rows) for page in of_users] == [3, 2, 1, 0]


async def test_teams_stay_in_their_organisation() -> None:
    house, stranger = await a_house(), await a_house("Globex")
    team = await create_team(house.actor(Role.ADMIN), name="Mine")
    page = await reads.teams(stranger.actor(Role.OWNER), first=None, after=None)
    assert page.rows == []
    assert await reads.team(stranger.actor(Role.OWNER), team["id"]) is None
    assert await reads.organization(stranger.actor(Role.OWNER), house.organization_id) is None
    found = await reads.organization(house.actor(Role.VIEWER), house.organization_id)
    assert found is not None
    assert found["name"] == "Acme"


async def test_tokens_are_ones_own_and_for_admins_all() -> None:
    house, stranger = await a_house(), await a_house("Globex")
    made = {
        role: (await create_access_token(house.actor(role), name=role.value)).row
        for role in (Role.ADMIN, Role.MEMBER, Role.VIEWER)
    }

    async def names(role: Role, **wanted: Any) -> list[str]:
        page = await reads.access_tokens(house.actor(role), TokenFilter(**wanted), first=None, after=None)
        return [row["name"] for row in page.rows]

    assert await names(Role.ADMIN) == ["VIEWER", "MEMBER", "ADMIN"]
    assert await names(Role.MEMBER) == ["MEMBER"]
    assert await names(Role.ADMIN, user_ids=[house.users[Role.VIEWER]["id"]]) == ["VIEWER"]
    assert await names(Role.MEMBER, user_ids=[house.users[Role.VIEWER]["id"]]) == []
    await revoke_access_token(house.actor(Role.MEMBER), made[Role.MEMBER]["id"])
    assert await names(Role.MEMBER) == []
    assert await names(Role.MEMBER, include_revoked=True) == ["MEMBER"]
    id_ = made[Role.VIEWER]["id"]
    assert await reads.access_token(house.actor(Role.MEMBER), id_) is None
    assert await reads.access_token(stranger.actor(Role.OWNER), id_) is None
    assert await reads.access_token(house.actor(Role.OWNER), id_) is not None


async def test_web_sessions_are_ones_own_and_alive() -> None:
    house = await a_house()
    here = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    there = await sign_in_with_password("admin@acme.example", PASSWORD, ELSEWHERE)
    page = await reads.web_sessions(here.actor, first=None, after=None)
    assert [row["id"] for row in page.rows] == [there.actor.credential_id, here.actor.credential_id]
    await sign_out(there.actor)
    page = await reads.web_sessions(here.actor, first=None, after=None)
    assert [row["id"] for row in page.rows] == [here.actor.credential_id]
    assert here.actor.credential_id is not None
    assert await reads.web_session(house.actor(Role.OWNER), here.actor.credential_id) is None
