from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from core import clock, db
from core.errors import BadInput, Conflict, Forbidden, NotFound, QuarterdeckError, Unavailable
from core.permissions import Actor, Permission, Role
from services.identity.accounts import create_service_account
from services.identity.actors import actor_of_bearer
from services.identity.tokens import BOOTSTRAP_NAME, create_access_token, ensure_bootstrap_token, revoke_access_token
from tests.services.identity_help import HERE, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


@pytest.fixture
def bootstrap() -> str:
    return f"an-operators-token-{uuid4()}"


async def with_token(actor: Actor, *scopes: Permission, expires_at: datetime | None = None) -> Actor:
    """The actor as it comes with a token of these scopes."""
    made = await create_access_token(actor, name="maker", scopes=scopes or None, expires_at=expires_at)
    found = await actor_of_bearer(made.secret or "", HERE)
    assert found is not None
    return found


async def test_the_secret_is_shown_once_and_stored_nowhere() -> None:
    house = await a_house()
    made = await create_access_token(house.actor(Role.MEMBER), name=" ci ")
    assert made.secret is not None
    assert made.secret.startswith("qdt_")
    assert (made.row["name"], made.row["hint"], made.row["scopes"]) == ("ci", made.secret[-4:], None)
    assert "secret_hash" not in dict(made.row)
    assert made.secret not in repr(made)
    for table in ("access_tokens", "audit_records", "idempotency_keys"):
        assert made.secret not in (await db.fetchval(f"SELECT string_agg(t::text, '') FROM {table} t") or "")
    (record,) = await audited("access_token.create")
    assert record.target_id == made.row["id"]


async def test_no_token_may_do_more_than_its_maker() -> None:
    house = await a_house()
    member = house.actor(Role.MEMBER)
    with pytest.raises(Forbidden, match="AUDIT_READ") as refusal:
        await create_access_token(member, name="ci", scopes=[Permission.SESSIONS_READ, Permission.AUDIT_READ])
    assert refusal.value.field == "scopes"
    narrow = await with_token(member, Permission.TOKENS_MANAGE, Permission.SESSIONS_READ)
    with pytest.raises(Forbidden):
        await create_access_token(narrow, name="wider", scopes=[Permission.SESSIONS_WRITE])
    unscoped = await create_access_token(narrow, name="unscoped")
    assert unscoped.row["scopes"] == ["SESSIONS_READ", "TOKENS_MANAGE"]
    with pytest.raises(Forbidden):
        await create_access_token(await with_token(member, Permission.SESSIONS_READ), name="none")


async def test_a_narrowed_token_does_not_grow_with_the_role() -> None:
    house = await a_house()
    viewer = house.actor(Role.VIEWER)
    all_now = await with_token(viewer, *viewer.permissions)
    assert all_now.permissions == viewer.permissions
    made = await create_access_token(all_now, name="child")
    assert set(made.row["scopes"]) == viewer.permissions
    assert (await create_access_token(await with_token(viewer), name="child of all")).row["scopes"] is None


async def test_no_token_outlives_the_token_that_made_it() -> None:
    house = await a_house()
    end = clock.now() + timedelta(days=1)
    maker = await with_token(house.actor(Role.MEMBER), expires_at=end)
    assert (await create_access_token(maker, name="same end")).row["expires_at"] == end
    sooner = end - timedelta(hours=1)
    assert (await create_access_token(maker, name="sooner", expires_at=sooner)).row["expires_at"] == sooner
    with pytest.raises(Forbidden) as refusal:
        await create_access_token(maker, name="later", expires_at=end + timedelta(hours=1))
    assert refusal.value.field == "expiresAt"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": " "}),
        ("name", {"name": "x" * 201}),
        ("name", {"name": "two\nlines"}),
        ("name", {"name": BOOTSTRAP_NAME}),
        ("scopes", {"scopes": []}),
        ("expiresAt", {"expires_at": datetime(2020, 1, 1)}),
        ("expiresAt", {"expires_at": clock.now() - timedelta(seconds=1)}),
    ],
)
async def test_bad_input_is_named(field: str, change: dict[str, object]) -> None:
    house = await a_house()
    with pytest.raises(BadInput) as refusal:
        await create_access_token(house.actor(Role.ADMIN), **{"name": "ci", **change})  # type: ignore[arg-type]
    assert refusal.value.field == field


async def test_admins_make_tokens_for_service_accounts_and_for_nobody_else() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    robot = await create_service_account(admin, name="robot", role=Role.VIEWER)
    made = await create_access_token(admin, name="ci", user_id=robot["id"])
    assert made.row["user_id"] == robot["id"]
    with pytest.raises(Forbidden):
        await create_access_token(admin, name="ci", user_id=robot["id"], scopes=[Permission.SESSIONS_WRITE])
    with pytest.raises(Forbidden):
        await create_access_token(admin, name="ci", user_id=house.users[Role.MEMBER]["id"])
    with pytest.raises(Forbidden):
        await create_access_token(house.actor(Role.MEMBER), name="ci", user_id=robot["id"])
    stranger = await a_house("Globex")
    with pytest.raises(NotFound):
        await create_access_token(stranger.actor(Role.OWNER), name="ci", user_id=robot["id"])


async def test_a_repeated_creation_finds_the_first_without_its_secret() -> None:
    house = await a_house()
    actor = house.actor(Role.MEMBER)
    first = await create_access_token(actor, name="ci", key="k")
    again = await create_access_token(actor, name="ci", key="k")
    assert again.row["id"] == first.row["id"]
    assert again.secret is None
    with pytest.raises(Conflict):
        await create_access_token(actor, name="another", key="k")
    assert [record.outcome for record in await audited("access_token.create")] == ["SUCCEEDED", "REFUSED"]


async def test_one_revokes_ones_own_and_admins_revoke_any_of_the_organisation() -> None:
    house, stranger = await a_house(), await a_house("Globex")

    async def ends(actor: Actor, token_id: UUID) -> str:
        try:
            return str((await revoke_access_token(actor, token_id))["revoked_at"] is not None)
        except QuarterdeckError as error:
            return error.code.value

    made = [await create_access_token(house.actor(Role.MEMBER), name=f"t{n}") for n in range(3)]
    own, other, third = (token.row["id"] for token in made)
    assert await ends(house.actor(Role.VIEWER), own) == "NOT_FOUND"
    assert await ends(stranger.actor(Role.OWNER), own) == "NOT_FOUND"
    assert await ends(house.actor(Role.MEMBER), own) == "True"
    assert await ends(house.actor(Role.MEMBER), own) == "True"
    assert await ends(house.actor(Role.ADMIN), other) == "True"
    narrow = await with_token(house.actor(Role.ADMIN), Permission.TOKENS_MANAGE)
    assert await ends(narrow, third) == "FORBIDDEN"
    assert await actor_of_bearer(made[0].secret or "", HERE) is None
    outcomes = [record.outcome for record in await audited("access_token.revoke")]
    assert sorted(outcomes) == ["REFUSED", "REFUSED", "REFUSED", "SUCCEEDED", "SUCCEEDED"]


async def test_the_bootstrap_token_is_the_first_owners_whatever_it_looks_like(bootstrap: str) -> None:
    house = await a_house()
    await a_house("Globex")
    rows = await asyncio.gather(*(ensure_bootstrap_token(bootstrap) for _ in range(5)))
    assert len({row["id"] for row in rows}) == 1
    actor = await actor_of_bearer(bootstrap, HERE)
    assert actor is not None
    assert actor.user_id == house.users[Role.OWNER]["id"]
    assert Permission.MEMBERS_MANAGE in actor.permissions
    assert len(await audited("access_token.bootstrap")) == 1


async def test_another_bootstrap_token_takes_the_place_of_the_former(bootstrap: str) -> None:
    house = await a_house()
    await ensure_bootstrap_token(bootstrap)
    other = await ensure_bootstrap_token(bootstrap + "-2")
    assert await actor_of_bearer(bootstrap, HERE) is None
    assert await actor_of_bearer(bootstrap + "-2", HERE) is not None
    await revoke_access_token(house.actor(Role.ADMIN), other["id"])
    await ensure_bootstrap_token(bootstrap + "-2")
    assert await actor_of_bearer(bootstrap + "-2", HERE) is None


async def test_a_bootstrap_token_needs_length_and_an_admin(bootstrap: str) -> None:
    with pytest.raises(Unavailable, match="no admin"):
        await ensure_bootstrap_token(bootstrap)
    await a_house()
    with pytest.raises(Unavailable, match="too short"):
        await ensure_bootstrap_token("x" * 19)
