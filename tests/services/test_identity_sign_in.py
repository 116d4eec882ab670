from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from argon2 import PasswordHasher

from core import clock, db
from core.errors import BadInput, Forbidden, NotFound, QuarterdeckError, RateLimited, Unauthenticated
from core.ids import new_id
from core.permissions import Origin, Role
from services.identity import housekeeping
from services.identity.accounts import create_service_account, set_password, update_user
from services.identity.actors import actor_of_cookie
from services.identity.sign_in import (
    create_sign_in_link,
    revoke_web_session,
    sign_in_with_link,
    sign_in_with_password,
    sign_out,
)
from tests.services.identity_help import ELSEWHERE, HERE, PASSWORD, a_house, audited

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]

EMAIL = "admin@acme.example"


async def attempts(count: int, *, origin: Origin = HERE, email: str = EMAIL, at_once: bool = False) -> list[str]:
    """What became of so many sign-ins with a wrong password."""
    tries = [sign_in_with_password(email, "a wrong password", origin) for _ in range(count)]
    if at_once:
        ends = await asyncio.gather(*tries, return_exceptions=True)
    else:
        ends = [await asyncio.gather(attempt, return_exceptions=True) for attempt in tries]
        ends = [end[0] for end in ends]
    return [end.code.value if isinstance(end, QuarterdeckError) else repr(end) for end in ends]


async def time_passes(seconds: int) -> None:
    await db.execute("UPDATE sign_in_failures SET at = at - make_interval(secs => $1)", float(seconds))


async def test_the_right_password_gives_a_session_that_is_audited() -> None:
    house = await a_house()
    signed_in = await sign_in_with_password(" Admin@ACME.example ", PASSWORD, HERE)
    actor = await actor_of_cookie(signed_in.secret, HERE)
    assert actor == signed_in.actor
    assert actor is not None
    assert actor.user_id == house.users[Role.ADMIN]["id"]
    assert abs(signed_in.expires_at - clock.now() - timedelta(hours=12)) < timedelta(minutes=1)
    (record,) = await audited("sign_in.password")
    assert (record.outcome, record.actor_id, record.ip) == ("SUCCEEDED", actor.user_id, HERE.ip)
    assert record.credential_id == actor.credential_id
    stored = await db.fetchval("SELECT string_agg(w::text, '') FROM web_sessions w")
    assert signed_in.secret not in stored


async def test_wrong_password_unknown_and_deactivated_account_look_the_same() -> None:
    house = await a_house()
    await create_service_account(house.actor(Role.ADMIN), name="robot")
    deactivated = house.users[Role.ADMIN]
    messages = set()
    for email in (EMAIL, "nobody@acme.example", "viewer@acme.example", "\0", "\ud800", "x" * 10_000):
        with pytest.raises(Unauthenticated) as refusal:
            await sign_in_with_password(email, "a wrong password", HERE)
        messages.add(refusal.value.message)
    await update_user(house.actor(Role.OWNER), deactivated["id"], active=False)
    with pytest.raises(Unauthenticated) as refusal:
        await sign_in_with_password(EMAIL, PASSWORD, HERE)
    messages.add(refusal.value.message)
    assert len(messages) == 1


async def test_refusals_are_audited_without_what_was_typed() -> None:
    house = await a_house()
    await attempts(1)
    await attempts(1, email="hunter2 typed into the wrong field")
    known, unknown = await audited("sign_in.password")
    assert (known.outcome, known.error_code, known.actor_id) == ("REFUSED", "UNAUTHENTICATED", None)
    assert (known.organization_id, known.target_id) == (house.organization_id, house.users[Role.ADMIN]["id"])
    assert unknown.outcome == "REFUSED"
    assert "hunter2" not in str(dict(unknown))


async def test_guessing_is_slowed_down_more_and_more() -> None:
    await a_house()
    assert await attempts(6) == ["UNAUTHENTICATED"] * 5 + ["RATE_LIMITED"]
    with pytest.raises(RateLimited) as refusal:
        await sign_in_with_password(EMAIL, PASSWORD, HERE)
    assert refusal.value.details["retryAfterSeconds"] == 1
    for wait in (1, 2, 4):
        await time_passes(wait)
        assert await attempts(2) == ["UNAUTHENTICATED", "RATE_LIMITED"]
    await time_passes(8)
    await sign_in_with_password(EMAIL, PASSWORD, HERE)
    assert await attempts(5) == ["UNAUTHENTICATED"] * 5


async def test_a_hundred_attempts_at_once_get_no_further_than_in_a_row() -> None:
    await a_house()
    ends = await attempts(100, at_once=True)
    assert ends.count("UNAUTHENTICATED") == 5
    assert ends.count("RATE_LIMITED") == 95
    # Nor do they fill the audit log.
    assert len(await audited("sign_in.password")) == 6


async def test_a_guesser_locks_out_neither_another_address_nor_another_account() -> None:
    await a_house()
    await attempts(6)
    await sign_in_with_password(EMAIL, PASSWORD, ELSEWHERE)
    assert await attempts(1, email="owner@acme.example") == ["UNAUTHENTICATED"]


async def test_an_address_that_tries_many_accounts_is_slowed_down() -> None:
    await a_house()
    ends = [(await attempts(1, email=f"user{n}@acme.example"))[0] for n in range(21)]
    assert ends == ["UNAUTHENTICATED"] * 20 + ["RATE_LIMITED"]
    assert await attempts(1, origin=ELSEWHERE) == ["UNAUTHENTICATED"]


async def test_one_ipv6_network_is_one_address() -> None:
    await a_house()
    ends = []
    for n in range(6):
        ends += await attempts(1, origin=Origin(ip=f"2001:db8:1:2::{n + 1:x}"))
    assert ends[-1] == "RATE_LIMITED"
    assert await attempts(1, origin=Origin(ip="2001:db8:1:3::1")) == ["UNAUTHENTICATED"]


async def test_guessing_from_many_addresses_slows_down_strangers_but_not_the_owner() -> None:
    await a_house()
    await sign_in_with_password(EMAIL, PASSWORD, HERE)
    for n in range(50):
        await attempts(1, origin=Origin(ip=f"203.0.113.{n}"))
    assert await attempts(1, origin=ELSEWHERE) == ["RATE_LIMITED"]
    await sign_in_with_password(EMAIL, PASSWORD, HERE)
    await time_passes(30)
    await sign_in_with_password(EMAIL, PASSWORD, ELSEWHERE)


async def test_a_hash_of_other_parameters_is_made_again() -> None:
    house = await a_house()
    user_id = house.users[Role.ADMIN]["id"]
    weak = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(PASSWORD)
    await db.execute("UPDATE users SET password_hash = $2 WHERE id = $1", user_id, weak)
    await sign_in_with_password(EMAIL, PASSWORD, HERE)
    stored = await db.fetchval("SELECT password_hash FROM users WHERE id = $1", user_id)
    assert "m=19456,t=2,p=1" in stored
    await sign_in_with_password(EMAIL, PASSWORD, HERE)


async def test_a_link_signs_in_once() -> None:
    house = await a_house()
    member = house.users[Role.MEMBER]
    secret = await create_sign_in_link(house.system, member["id"])
    signed_in = await sign_in_with_link(secret, HERE)
    assert signed_in.actor.user_id == member["id"]
    assert await actor_of_cookie(signed_in.secret, HERE) is not None
    with pytest.raises(NotFound):
        await sign_in_with_link(secret, HERE)
    assert [record.outcome for record in await audited("sign_in.link")] == ["SUCCEEDED", "REFUSED"]


async def test_of_many_uses_of_a_link_at_once_one_succeeds() -> None:
    house = await a_house()
    secret = await create_sign_in_link(house.system, house.users[Role.MEMBER]["id"])
    ends = await asyncio.gather(*(sign_in_with_link(secret, HERE) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(end, NotFound) for end in ends) == 7
    assert await db.fetchval("SELECT count(*) FROM web_sessions") == 1


async def test_links_end() -> None:
    house = await a_house()
    user_id = house.users[Role.MEMBER]["id"]
    old = await create_sign_in_link(house.system, user_id)
    await db.execute("UPDATE sign_in_links SET expires_at = now()")
    made_before_deactivation = await create_sign_in_link(house.system, user_id)
    await update_user(house.system, user_id, active=False)
    await update_user(house.system, user_id, active=True)
    for secret in (old, made_before_deactivation, "qdl_never-was-one", ""):
        with pytest.raises(NotFound):
            await sign_in_with_link(secret, HERE)


async def test_links_are_for_active_people_and_made_by_admins() -> None:
    house = await a_house()
    robot = await create_service_account(house.system, name="robot")
    with pytest.raises(BadInput):
        await create_sign_in_link(house.system, robot["id"])
    with pytest.raises(Forbidden):
        await create_sign_in_link(house.actor(Role.MEMBER), house.users[Role.MEMBER]["id"])
    with pytest.raises(Forbidden):
        await create_sign_in_link(house.actor(Role.ADMIN), house.users[Role.OWNER]["id"])


async def test_signing_out_ends_the_session() -> None:
    await a_house()
    signed_in = await sign_in_with_password(EMAIL, PASSWORD, HERE)
    other = await sign_in_with_password(EMAIL, PASSWORD, ELSEWHERE)
    await sign_out(signed_in.actor)
    assert await actor_of_cookie(signed_in.secret, HERE) is None
    assert await actor_of_cookie(other.secret, HERE) is not None
    assert len(await audited("sign_out")) == 1


async def test_one_revokes_ones_own_sessions_only() -> None:
    house = await a_house()
    signed_in = await sign_in_with_password(EMAIL, PASSWORD, HERE)
    assert signed_in.actor.credential_id is not None
    with pytest.raises(NotFound):
        await revoke_web_session(house.actor(Role.OWNER), signed_in.actor.credential_id)
    with pytest.raises(NotFound):
        await revoke_web_session(signed_in.actor, new_id())
    row = await revoke_web_session(signed_in.actor, signed_in.actor.credential_id)
    assert row["revoked_at"] is not None
    assert await actor_of_cookie(signed_in.secret, HERE) is None


async def test_a_new_password_takes_the_old_one_and_signs_out_the_other_browsers() -> None:
    house = await a_house()
    here = await sign_in_with_password(EMAIL, PASSWORD, HERE)
    there = await sign_in_with_password(EMAIL, PASSWORD, ELSEWHERE)
    user_id = house.users[Role.ADMIN]["id"]
    with pytest.raises(Forbidden) as refusal:
        await set_password(here.actor, user_id, "another long enough one", current_password="not it at all")
    assert refusal.value.field == "currentPassword"
    with pytest.raises(BadInput):
        await set_password(here.actor, user_id, "password1234", current_password=PASSWORD)
    await set_password(here.actor, user_id, "another long enough one", current_password=PASSWORD)
    assert await actor_of_cookie(here.secret, HERE) is not None
    assert await actor_of_cookie(there.secret, HERE) is None
    assert await attempts(1) == ["UNAUTHENTICATED"]
    await sign_in_with_password(EMAIL, "another long enough one", HERE)
    assert "another long enough one" not in str([dict(record) for record in await audited("user.set_password")])


async def test_guessing_the_current_password_is_slowed_down_like_signing_in() -> None:
    house = await a_house()
    actor = house.actor(Role.ADMIN)
    ends = []
    for _ in range(8):
        with pytest.raises(QuarterdeckError) as refusal:
            await set_password(
                actor, house.users[Role.ADMIN]["id"], "another long enough one", current_password="guess"
            )
        ends.append(refusal.value.code.value)
    assert ends == ["FORBIDDEN"] * 5 + ["RATE_LIMITED"] * 3


async def test_passwords_of_others_are_set_by_those_above_them() -> None:
    house = await a_house()
    new = "set by somebody else for me"
    await set_password(house.actor(Role.ADMIN), house.users[Role.MEMBER]["id"], new)
    await sign_in_with_password("member@acme.example", new, HERE)
    for role, target in ((Role.MEMBER, Role.VIEWER), (Role.ADMIN, Role.OWNER)):
        with pytest.raises(Forbidden):
            await set_password(house.actor(role), house.users[target]["id"], new)
    stranger = await a_house("Globex")
    with pytest.raises(NotFound):
        await set_password(stranger.actor(Role.OWNER), house.users[Role.MEMBER]["id"], new)


async def test_housekeeping_removes_what_is_long_over() -> None:
    house = await a_house()
    await attempts(1)
    await sign_in_with_password(EMAIL, PASSWORD, ELSEWHERE)
    await create_sign_in_link(house.system, house.users[Role.MEMBER]["id"])
    tables = ("sign_in_failures", "sign_in_links", "web_sessions")
    await housekeeping.remove_stale_credentials()
    assert all([await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables])
    await time_passes(100_000)
    await db.execute("UPDATE sign_in_links SET expires_at = now() - interval '2 days'")
    await db.execute("UPDATE web_sessions SET expires_at = now() - interval '91 days'")
    await housekeeping.remove_stale_credentials()
    assert not any([await db.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


async def test_secrets_do_not_show_in_logs() -> None:
    from services.identity.sign_in import SignedIn

    assert "qdw_" not in repr(SignedIn("qdw_secret", clock.now(), None))  # type: ignore[arg-type]
