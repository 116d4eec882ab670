from __future__ import annotations

from dataclasses import replace

import pytest

from app.http.credentials import actor_of_request, check_cookie_operation, origin_allowed, origin_of_request
from core.errors import Forbidden
from core.permissions import Role
from services.identity.sign_in import sign_in_with_password
from services.identity.tokens import create_access_token
from services.parts import install, parts
from tests.services.identity_help import HERE, PASSWORD, a_house

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("database")]


async def test_a_token_counts_before_a_cookie_also_where_it_is_bad() -> None:
    house = await a_house()
    secret = (await sign_in_with_password("admin@acme.example", PASSWORD, HERE)).secret
    cookie = {"cookie": f"other=1; quarterdeck={secret}"}
    token = (await create_access_token(house.actor(Role.MEMBER), name="ci")).secret
    long = {"user-agent": "x" * 1000, "x-request-id": "y" * 1000}

    headers = {"authorization": f"bearer  {token}"} | long | cookie
    actor, kind = await actor_of_request(headers, origin_of_request(headers, "z" * 100))
    assert kind == "bearer"
    assert actor is not None
    assert actor.role is Role.MEMBER
    assert [len(text or "") for text in (actor.origin.ip, actor.origin.user_agent, actor.origin.request_id)] == [
        64,
        400,
        100,
    ]

    for bad in ("Bearer nonsense", "Bearer", "Basic YWRtaW46", "", f"Token {token}"):
        assert await actor_of_request({"authorization": bad} | cookie, HERE) == (None, "bearer")

    actor, kind = await actor_of_request(cookie, HERE)
    assert kind == "cookie"
    assert actor is not None
    assert actor.role is Role.ADMIN
    assert await actor_of_request({"cookie": "quarterdeck=nonsense"}, HERE) == (None, "cookie")
    assert await actor_of_request({}, HERE) == (None, None)


async def test_origins() -> None:
    settings = parts().settings.model_copy(
        update={"public_url": "https://quarterdeck.example", "allowed_origins": ("https://console.example",)}
    )
    install(replace(parts(), settings=settings))
    host = "127.0.0.1:8000"
    for origin in (
        "http://127.0.0.1:8000",
        "https://quarterdeck.example",
        "https://Quarterdeck.example",
        "https://console.example",
    ):
        assert origin_allowed(origin, host), origin
    for origin in (
        None,
        "",
        "null",
        "http://127.0.0.1:9000",
        "http://console.example",
        "https://console.example:8443",
        "https://console.example.evil.example",
        "https://evil.example/https://console.example",
        "https://[broken",
        "127.0.0.1:8000",
    ):
        assert not origin_allowed(origin, host), origin


async def test_operations_with_a_cookie_need_a_sign_that_our_page_sent_them() -> None:
    ours = {"host": "quarterdeck.test", "x-quarterdeck-csrf": "1"}
    for headers in (
        ours,
        ours | {"origin": "https://quarterdeck.test"},
        ours | {"sec-fetch-site": "same-origin"},
    ):
        check_cookie_operation(headers)
    for headers in (
        {"host": "quarterdeck.test", "origin": "https://quarterdeck.test", "sec-fetch-site": "same-origin"},
        ours | {"origin": "https://evil.example"},
        ours | {"origin": "null"},
        ours | {"sec-fetch-site": "cross-site"},
        ours | {"sec-fetch-site": "same-site"},
    ):
        with pytest.raises(Forbidden):
            check_cookie_operation(headers)
