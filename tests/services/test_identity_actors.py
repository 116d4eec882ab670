from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest

from core import clock, db
from core.bus import Bus
from core.permissions import ActorKind, Permission, Role
from services.identity import actors
from services.identity.accounts import create_service_account, update_user
from services.identity.actors import actor_of_bearer, actor_of_cookie, still_valid, system_actor
from services.identity.revocations import revocations
from services.identity.sign_in import sign_in_with_password, sign_out
from services.identity.tokens import create_access_token, revoke_access_token
from services.parts import parts
from tests.services.identity_help import ELSEWHERE, HERE, PASSWORD, a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


@pytest.fixture
async def watching(database: object) -> AsyncIterator[None]:
    async with revocations.running(parts().bus):
        yield


async def within_a_second(event: asyncio.Event) -> None:
    # The promise is one second; the tests' machine may be busy.
    await asyncio.wait_for(event.wait(), 3)


async def test_a_token_stands_for_its_user_and_scopes() -> None:
    house = await a_house()
    robot = await create_service_account(house.system, name="robot")
    made = await create_access_token(
        house.actor(Role.ADMIN), name="ci", scopes=[Permission.SESSIONS_READ], user_id=robot["id"]
    )
    assert made.secret is not None
    actor = await actor_of_bearer(made.secret, ELSEWHERE)
    assert actor is not None
    assert (actor.kind, actor.user_id, actor.role, actor.name) == (ActorKind.SERVICE, robot["id"], Role.MEMBER, "robot")
    assert (actor.organization_id, actor.credential_id) == (house.organization_id, made.row["id"])
    assert actor.permissions == {Permission.SESSIONS_READ}
    assert actor.origin == ELSEWHERE


async def test_unknown_secrets_are_nobody() -> None:
    await a_house()
    for secret in ("", "qdt_unknown", "x" * 100_000, "'; DROP TABLE users", "\0"):
        assert await actor_of_bearer(secret, HERE) is None
        assert await actor_of_cookie(secret, HERE) is None


async def test_a_cookie_is_no_token_and_a_token_no_cookie() -> None:
    house = await a_house()
    signed_in = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    made = await create_access_token(house.actor(Role.ADMIN), name="ci")
    assert await actor_of_cookie(signed_in.secret, HERE) is not None
    assert await actor_of_bearer(signed_in.secret, HERE) is None
    assert await actor_of_cookie(made.secret or "", HERE) is None


async def test_asking_again_and_again_costs_one_query() -> None:
    house = await a_house()
    made = await create_access_token(house.actor(Role.ADMIN), name="ci")
    seen: list[str] = []
    mark = db.queries_seen.set(seen)
    try:
        for _ in range(10):
            assert await actor_of_bearer(made.secret or "", HERE) is not None
    finally:
        db.queries_seen.reset(mark)
    assert len(seen) == 1


async def test_expired_credentials_are_nobody() -> None:
    house = await a_house()
    soon = clock.now() + timedelta(hours=1)
    made = await create_access_token(house.actor(Role.ADMIN), name="ci", expires_at=soon)
    signed_in = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    await db.execute("UPDATE access_tokens SET expires_at = now()")
    await db.execute("UPDATE web_sessions SET expires_at = now()")
    assert await actor_of_bearer(made.secret or "", HERE) is None
    assert await actor_of_cookie(signed_in.secret, HERE) is None


async def test_a_revoked_or_deactivated_credential_is_nobody_at_once() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    made = await create_access_token(admin, name="ci")
    signed_in = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    secret = made.secret or ""
    actor = await actor_of_bearer(secret, HERE)
    assert actor is not None
    assert await still_valid(actor)
    await revoke_access_token(admin, made.row["id"])
    assert await actor_of_bearer(secret, HERE) is None
    assert not await still_valid(actor)
    assert await actor_of_cookie(signed_in.secret, HERE) is not None
    await update_user(house.system, admin.user_id, active=False)  # type: ignore[arg-type]
    assert await actor_of_cookie(signed_in.secret, HERE) is None
    assert not await still_valid(signed_in.actor)
    assert not await still_valid(admin)
    assert await still_valid(system_actor(house.organization_id))


async def test_what_deactivation_revoked_stays_revoked() -> None:
    house = await a_house()
    admin = house.actor(Role.ADMIN)
    made = await create_access_token(admin, name="ci")
    for active in (False, True):
        await update_user(house.system, admin.user_id, active=active)  # type: ignore[arg-type]
    assert await actor_of_bearer(made.secret or "", HERE) is None


async def test_a_new_role_counts_at_once() -> None:
    house = await a_house()
    made = await create_access_token(house.actor(Role.ADMIN), name="ci")
    before = await actor_of_bearer(made.secret or "", HERE)
    await update_user(house.system, house.users[Role.ADMIN]["id"], role=Role.VIEWER)
    after = await actor_of_bearer(made.secret or "", HERE)
    assert before is not None
    assert after is not None
    assert (before.role, after.role) == (Role.ADMIN, Role.VIEWER)
    assert Permission.MEMBERS_MANAGE not in after.permissions
    assert not await still_valid(before)
    assert await still_valid(after)


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize("how", ["sign_out", "deactivate", "demote", "expire", "revoked_elsewhere_unnoticed"])
async def test_living_streams_end_within_a_second(how: str) -> None:
    house = await a_house()
    signed_in = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    other = await sign_in_with_password("admin@acme.example", PASSWORD, ELSEWHERE)
    user_id = house.users[Role.ADMIN]["id"]
    deeds: dict[str, Callable[[], Awaitable[object]]] = {
        "sign_out": lambda: sign_out(signed_in.actor),
        "deactivate": lambda: update_user(house.system, user_id, active=False),
        "demote": lambda: update_user(house.system, user_id, role=Role.MEMBER),
        "expire": lambda: db.execute(
            "UPDATE web_sessions SET expires_at = now() WHERE id = $1", signed_in.actor.credential_id
        ),
        "revoked_elsewhere_unnoticed": lambda: db.execute(
            "UPDATE web_sessions SET revoked_at = now() WHERE id = $1", signed_in.actor.credential_id
        ),
    }
    first, second, of_another_browser = asyncio.Event(), asyncio.Event(), asyncio.Event()
    with (
        revocations.watch(signed_in.actor, first.set),
        revocations.watch(signed_in.actor, second.set),
        revocations.watch(other.actor, of_another_browser.set),
    ):
        await asyncio.sleep(0.7)
        assert not first.is_set()
        await deeds[how]()
        await within_a_second(first)
        await within_a_second(second)
        assert of_another_browser.is_set() == (how in ("deactivate", "demote"))


@pytest.mark.usefixtures("watching")
async def test_what_is_revoked_before_it_is_watched_ends_too() -> None:
    await a_house()
    signed_in = await sign_in_with_password("admin@acme.example", PASSWORD, HERE)
    await sign_out(signed_in.actor)
    revoked = asyncio.Event()
    with revocations.watch(signed_in.actor, revoked.set):
        await within_a_second(revoked)


async def test_streams_end_while_the_bus_is_away() -> None:
    house = await a_house()
    bus = Bus("memory://")
    await bus.connect()
    async with revocations.running(bus):
        await bus.close()
        made = [await create_access_token(house.actor(Role.ADMIN), name=f"t{n}") for n in range(30)]
        living = [await actor_of_bearer(token.secret or "", HERE) for token in made]
        with ExitStack() as watched:
            revoked = [asyncio.Event() for _ in living]
            for actor, event in zip(living, revoked, strict=True):
                assert actor is not None
                watched.enter_context(revocations.watch(actor, event.set))
            await db.execute("UPDATE access_tokens SET revoked_at = now() WHERE id = $1", made[3].row["id"])
            await within_a_second(revoked[3])
            assert sum(event.is_set() for event in revoked) == 1


async def test_uses_are_written_later_and_not_by_requests() -> None:
    house = await a_house()
    made = await create_access_token(house.actor(Role.ADMIN), name="ci")
    await actor_of_bearer(made.secret or "", HERE)
    assert await db.fetchval("SELECT last_used_at FROM access_tokens") is None
    await actors.write_uses()
    assert await db.fetchval("SELECT last_used_at FROM access_tokens") is not None
    assert await db.fetchval("SELECT last_seen_at FROM users WHERE id = $1", house.users[Role.ADMIN]["id"]) is not None
