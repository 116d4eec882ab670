from __future__ import annotations

import asyncio

import pytest

from core import db
from core.errors import BadInput, Conflict, Forbidden, NotFound, QuarterdeckError
from core.ids import new_id
from core.permissions import Role
from services.identity.accounts import create_organization, create_service_account, create_user, update_user
from services.identity.sign_in import sign_in_with_password
from services.identity.teams import add_team_member, create_team, remove_team_member
from tests.services.identity_help import HERE, PASSWORD, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


async def test_an_organization_has_a_slug_and_local_accounts() -> None:
    row = await create_organization("  Çelik & Söhne GmbH ")
    assert (row["name"], row["slug"]) == ("Çelik & Söhne GmbH", "celik-sohne-gmbh")
    assert await db.fetchval("SELECT kind FROM identity_connections WHERE organization_id = $1", row["id"]) == "LOCAL"
    (record,) = await audited("organization.create")
    assert (record.organization_id, record.actor_kind) == (row["id"], "SYSTEM")
    with pytest.raises(BadInput, match="already"):
        await create_organization("Celik Sohne GmbH")
    with pytest.raises(BadInput):
        await create_organization("会社")
    assert (await create_organization("会社", slug="kaisha"))["slug"] == "kaisha"


async def test_a_users_email_is_one_whatever_its_case() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    row = await create_user(admin, name="Demo Engineer", email=" Engineer@Acme.Example ", password=PASSWORD)
    assert (row["email"], row["role"], row["organization_id"]) == (
        "engineer@acme.example",
        Role.MEMBER,
        house.organization_id,
    )
    assert "password_hash" not in dict(row)
    await sign_in_with_password("ENGINEER@acme.example", PASSWORD, HERE)
    stranger = await a_house("Globex")
    for actor in (admin, stranger.actor(Role.OWNER)):
        with pytest.raises(Conflict) as refusal:
            await create_user(actor, name="Another", email="engineer@ACME.example")
        assert refusal.value.field == "email"
    records = await audited("user.create")
    assert "argon2" not in str([dict(record) for record in records])


@pytest.mark.parametrize(
    "email", ["", "@", "a@", "@b", "a b@c", "a@b@c", "a@b..c", "a@b\0", "a@\ud800", "x" * 250 + "@b.example", "a@b\nc"]
)
async def test_what_is_no_email_address_is_refused(email: str) -> None:
    house = await a_house()
    with pytest.raises(BadInput) as refusal:
        await create_user(house.system, name="Somebody", email=email)
    assert refusal.value.field == "email"


async def test_members_add_nobody_and_admins_no_owners() -> None:
    house = await a_house()
    for role in (Role.MEMBER, Role.VIEWER):
        with pytest.raises(Forbidden):
            await create_user(house.actor(role), name="Somebody", email="somebody@acme.example")
    with pytest.raises(Forbidden):
        await create_user(house.actor(Role.ADMIN), name="Somebody", email="x@acme.example", role=Role.OWNER)
    assert {record.outcome for record in (await audited("user.create"))[4:]} == {"REFUSED"}
    with pytest.raises(BadInput):
        await create_service_account(house.actor(Role.OWNER), name="robot", role=Role.OWNER)
    robot = await create_service_account(house.actor(Role.ADMIN), name="robot")
    with pytest.raises(BadInput):
        await update_user(house.actor(Role.OWNER), robot["id"], role=Role.OWNER)


async def test_a_repeated_creation_makes_one_user() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    rows = await asyncio.gather(
        *(create_user(admin, name="Demo Engineer", email="e@acme.example", key="k") for _ in range(4))
    )
    assert len({row["id"] for row in rows}) == 1


async def test_a_change_is_audited_with_before_and_after() -> None:
    house = await a_house()
    row = await update_user(house.actor(Role.ADMIN), house.users[Role.VIEWER]["id"], name="New Name", role=Role.MEMBER)
    assert (row["name"], row["role"]) == ("New Name", Role.MEMBER)
    (record,) = await audited("user.update")
    assert (record.before["role"], record.after["role"]) == ("VIEWER", "MEMBER")
    assert (record.before["name"], record.after["name"]) == ("Demo Viewer", "New Name")


async def test_nobody_changes_those_above_them_or_in_another_organisation() -> None:
    house, stranger = await a_house(), await a_house("Globex")
    owner = house.users[Role.OWNER]["id"]
    with pytest.raises(Forbidden):
        await update_user(house.actor(Role.ADMIN), owner, role=Role.MEMBER)
    with pytest.raises(Forbidden):
        await update_user(house.actor(Role.ADMIN), house.users[Role.ADMIN]["id"], role=Role.OWNER)
    with pytest.raises(NotFound):
        await update_user(stranger.actor(Role.OWNER), owner, name="Mine")
    with pytest.raises(NotFound):
        await update_user(house.actor(Role.OWNER), new_id(), name="Nobody")


async def test_the_last_owner_stays() -> None:
    house = await a_house()
    owner = house.actor(Role.OWNER)
    for change in ({"role": Role.ADMIN}, {"active": False}):
        with pytest.raises(Conflict, match="last owner"):
            await update_user(owner, house.users[Role.OWNER]["id"], **change)  # type: ignore[arg-type]
    await update_user(owner, house.users[Role.OWNER]["id"], name="Renamed", role=Role.OWNER, active=True)


async def test_of_two_owners_who_unmake_each_other_one_stays() -> None:
    house = await a_house()
    other = await create_user(house.system, name="Second", email="second@acme.example", role=Role.OWNER)
    owners = [house.users[Role.OWNER]["id"], other["id"]]
    ends = await asyncio.gather(
        *(update_user(house.actor(Role.OWNER), user_id, role=Role.ADMIN) for user_id in owners), return_exceptions=True
    )
    assert sum(isinstance(end, Conflict) for end in ends) == 1
    assert await db.fetchval("SELECT count(*) FROM users WHERE role = 'OWNER'") == 1


async def test_teams_have_members() -> None:
    house, stranger = await a_house(), await a_house("Globex")
    admin = house.actor(Role.ADMIN)
    team = await create_team(admin, name="Data Science")
    assert team["slug"] == "data-science"
    member = house.users[Role.MEMBER]["id"]
    for _ in range(2):
        await add_team_member(admin, team["id"], member)
    assert await db.fetchval("SELECT count(*) FROM team_members") == 1
    for _ in range(2):
        await remove_team_member(admin, team["id"], member)
    assert await db.fetchval("SELECT count(*) FROM team_members") == 0
    with pytest.raises(Conflict):
        await create_team(admin, name="Data science")
    refused: list[str] = []
    for actor, team_id, user_id in (
        (house.actor(Role.MEMBER), team["id"], member),
        (admin, team["id"], stranger.users[Role.MEMBER]["id"]),
        (stranger.actor(Role.ADMIN), team["id"], stranger.users[Role.MEMBER]["id"]),
        (admin, new_id(), member),
    ):
        try:
            await add_team_member(actor, team_id, user_id)
        except QuarterdeckError as error:
            refused.append(error.code.value)
    assert refused == ["FORBIDDEN", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND"]
    assert (await create_team(stranger.actor(Role.ADMIN), name="Data Science"))["slug"] == "data-science"
