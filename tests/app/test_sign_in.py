from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from app.http.sign_in import routes
from core import db
from core.permissions import Role
from services.identity.actors import actor_of_cookie
from services.identity.sign_in import create_sign_in_link
from services.parts import install, parts
from tests.services.identity_help import HERE, PASSWORD, a_house

pytestmark = pytest.mark.anyio

EMAIL = "admin@acme.example"
SITE = "http://quarterdeck.test"


@pytest.fixture
async def browser(database: object) -> AsyncIterator[httpx.AsyncClient]:
    async with a_browser(SITE) as client:
        yield client


def a_browser(site: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=Starlette(routes=routes), client=("192.0.2.50", 1234))
    return httpx.AsyncClient(transport=transport, base_url=site, headers={"origin": site})


def set_public_url(url: str, **more: Any) -> None:
    settings = parts().settings.model_copy(update={"public_url": url, **more})
    install(replace(parts(), settings=settings))


def form(**fields: str) -> dict[str, str]:
    return {"email": EMAIL, "password": PASSWORD} | fields


async def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/sign-in")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "style=" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    for asset in ("sign_in.css", "link.js"):
        assert (await browser.get(f"/sign-in/assets/{asset}")).status_code == 200
    assert (await browser.get("/sign-in/assets/../../http/credentials.py")).status_code == 404


async def test_signing_in_sets_a_cookie_and_leads_on(browser: httpx.AsyncClient) -> None:
    await a_house()
    answer = await browser.post("/sign-in", data=form())
    assert (answer.status_code, answer.headers["location"]) == (303, "/graphql")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("quarterdeck=qdw_")
    for attribute in ("HttpOnly", "Path=/", "SameSite=lax", "Max-Age="):
        assert attribute in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    actor = await actor_of_cookie(browser.cookies["quarterdeck"], HERE)
    assert actor is not None
    assert await db.fetchval("SELECT ip FROM web_sessions") == "192.0.2.50"
    again = await browser.get("/sign-in?next=/graphql%3Ftab%3D2")
    assert (again.status_code, again.headers["location"]) == (303, "/graphql?tab=2")


async def test_with_tls_the_cookie_is_bound_to_the_host(database: object) -> None:
    await a_house()
    set_public_url("https://quarterdeck.test")
    async with a_browser("https://quarterdeck.test") as browser:
        cookie = (await browser.post("/sign-in", data=form())).headers["set-cookie"]
        assert cookie.startswith("__Host-quarterdeck=")
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        left = (await browser.post("/sign-out")).headers["set-cookie"]
        assert left.startswith('__Host-quarterdeck=""')
        assert "Secure" in left


async def test_a_refusal_is_told_on_the_page_without_the_password(browser: httpx.AsyncClient) -> None:
    await a_house()
    wrong = await browser.post("/sign-in", data=form(email='"><script>x', password="my secret guess", next="/graphql"))
    assert wrong.status_code == 403
    assert 'role="alert"' in wrong.text
    assert "is wrong" in wrong.text
    assert "<script>x" not in wrong.text
    assert "&lt;script&gt;x" in wrong.text
    assert "my secret guess" not in wrong.text
    assert "set-cookie" not in wrong.headers
    for _ in range(6):
        limited = await browser.post("/sign-in", data=form(password="a guess"))
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        "///evil.example",
        "/\n//evil.example",
    ],
)
async def test_nobody_is_led_to_another_site(browser: httpx.AsyncClient, elsewhere: str) -> None:
    await a_house()
    answer = await browser.post("/sign-in", data=form(next=elsewhere))
    assert answer.headers["location"] == "/graphql"


async def test_forms_of_other_sites_are_refused(browser: httpx.AsyncClient) -> None:
    house = await a_house()
    secret = await create_sign_in_link(house.system, house.users[Role.ADMIN]["id"])
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": SITE + ".evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "", "sec-fetch-site": "same-site"},
    ):
        for path in ("/sign-in", f"/sign-in/link/{secret}", "/sign-out"):
            answer = await browser.post(path, data=form(), headers=headers)
            assert answer.status_code == 403, headers
            assert "set-cookie" not in answer.headers
    assert (await browser.post(f"/sign-in/link/{secret}")).status_code == 303


async def test_an_allowed_origin_may_sign_in(browser: httpx.AsyncClient) -> None:
    await a_house()
    set_public_url(SITE, allowed_origins=("https://console.example",))
    answer = await browser.post("/sign-in", data=form(), headers={"origin": "https://console.example"})
    assert answer.status_code == 303


async def test_opening_a_link_does_not_use_it_up_and_sending_its_form_does(browser: httpx.AsyncClient) -> None:
    house = await a_house()
    secret = await create_sign_in_link(house.system, house.users[Role.MEMBER]["id"])
    path = f"/sign-in/link/{secret}"
    for _ in range(2):
        page = await browser.get(path)
        assert page.status_code == 200
        assert f'action="{path}"' in page.text
        assert "/sign-in/assets/link.js" in page.text
        assert "set-cookie" not in page.headers
        assert (await browser.head(path)).status_code == 200
    ends = await asyncio.gather(*(browser.post(path) for _ in range(3)))
    assert sorted(end.status_code for end in ends) == [303, 404, 404]
    gone = await browser.post(path)
    assert gone.status_code == 404
    assert "Ask for a new one" in gone.text


async def test_a_strange_link_is_harmless(browser: httpx.AsyncClient) -> None:
    await a_house()
    page = await browser.get('/sign-in/link/"><script>alert(1)</script>'.replace("/script", "%2Fscript"))
    assert "<script>alert" not in page.text
    assert (await browser.post("/sign-in/link/qdl_unknown")).status_code == 404


async def test_signing_out_ends_the_session_and_the_cookie(browser: httpx.AsyncClient) -> None:
    await a_house()
    await browser.post("/sign-in", data=form())
    secret = browser.cookies["quarterdeck"]
    answer = await browser.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert "quarterdeck" not in browser.cookies
    assert await actor_of_cookie(secret, HERE) is None
    assert (await browser.get("/sign-out")).status_code == 405
    assert (await browser.post("/sign-out")).status_code == 303


async def test_malformed_forms_are_refused(browser: httpx.AsyncClient) -> None:
    await a_house()
    for body, status in ((b"", 403), (b"\xff\xfe=%zz&&&", 403), (b"email=" + b"x" * 9000, 413), (b"a=1&" * 50, 403)):
        answer = await browser.post("/sign-in", content=body)
        assert answer.status_code == status, body[:20]
