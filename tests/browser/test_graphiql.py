"""A first session in GraphiQL, in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from tests.browser.conftest import Browser
from tests.conftest import Server

pytestmark = pytest.mark.anyio

PATIENCE_MS = 20_000


async def open_graphiql(page: Page, server: Server) -> None:
    await page.goto(server.url)
    await expect(page.locator(".graphiql-response .monaco-editor")).to_be_visible(timeout=PATIENCE_MS)


async def sign_in(page: Page, server: Server) -> None:
    """Through a one-time link, as the one that the server prints when it starts."""
    viewer = await server.client("{ viewer { user { email } } }")
    printed = server.command("user", "link", viewer["viewer"]["user"]["email"])
    link = re.search(r"http\S+/sign-in/link/\S+", printed)
    assert link, printed
    await page.goto(link.group())
    await page.wait_for_url(server.url)
    await open_graphiql(page, server)
    await expect(page.locator(".identity-chip.signed-in")).to_be_visible(timeout=PATIENCE_MS)


async def open_tab(page: Page, name: str) -> None:
    await page.get_by_role("tab", name=name).click()
    await expect(page.locator(".graphiql-query-editor .view-lines")).to_contain_text(name)


async def write(page: Page, editor: str, value: Any) -> None:
    """Puts JSON into an editor (`variables`, `request-headers`) by its model: typing would get brackets added."""
    await page.evaluate(
        "([name, text]) => __MONACO.editor.getModels().find(m => m.uri.path.endsWith(`${name}.json`)).setValue(text)",
        [editor, json.dumps(value)],
    )


async def run(page: Page) -> None:
    await page.get_by_role("button", name=re.compile("^Execute query")).click()


async def response(page: Page, member: str) -> dict[str, Any]:
    """The result in the response pane, once it has `member` in its data."""
    await page.wait_for_function(
        """member => { const model = __MONACO.editor.getModels().find(m => m.uri.path.endsWith("response.json"));
            return model?.getValue().includes(`"${member}"`); }""",
        arg=member,
        timeout=PATIENCE_MS,
    )
    text = await page.evaluate(
        "() => __MONACO.editor.getModels().find(m => m.uri.path.endsWith('response.json')).getValue()"
    )
    result: dict[str, Any] = json.loads(text)
    return result


def live_events(page: Page, kind: str) -> Locator:
    """The lines of the Live panel of one kind of event."""
    return page.locator(".live-panel li", has=page.locator(".live-kind", has_text=kind))


async def assert_live_panel_misses_and_repeats_nothing(page: Page) -> None:
    """The log's events have numbers without gaps; text in progress has the number of the event before it."""
    lines = await page.locator(".live-panel summary").evaluate_all(
        "lines => lines.map(line => ['.live-number', '.live-kind'].map(part => line.querySelector(part).innerText))"
    )
    log = [int(number) for number, kind in lines if kind != "TEXT_MESSAGE_CONTENT"]
    assert log == list(range(1, len(log) + 1))


async def test_first_session_from_the_sign_in_link(server: Server, browser: Browser, tmp_path: Path) -> None:
    page = browser.page
    await sign_in(page, server)
    await expect(page.get_by_text("Docs", exact=True)).to_be_visible()

    await open_tab(page, "Viewer")
    await run(page)
    viewer = (await response(page, "viewer"))["data"]["viewer"]
    await expect(page.locator(".identity-chip")).to_contain_text(viewer["user"]["name"])

    await open_tab(page, "CreateSession")
    await run(page)
    session = (await response(page, "createSession"))["data"]["createSession"]["session"]

    await open_tab(page, "SessionEvents")
    await write(page, "variables", {"sessionId": session["id"], "after": None})
    await run(page)

    await open_tab(page, "SendMessage")
    await write(page, "variables", {"input": {"sessionId": session["id"], "text": "/tool list_files {}"}})
    await run(page)
    await response(page, "sendMessage")
    await expect(live_events(page, "RUN_FINISHED")).to_have_count(1, timeout=PATIENCE_MS)

    text = '/tool write_file {"path": "hello.txt", "content": "Hello"}'
    await write(page, "variables", {"input": {"sessionId": session["id"], "text": text}})
    await run(page)
    asked = live_events(page, "quarterdeck.approval.requested")
    await expect(asked).to_have_count(1, timeout=PATIENCE_MS)
    approval = json.loads(await asked.locator(".live-gist").inner_text())["approvalId"]
    await open_tab(page, "DecideApproval")
    await write(page, "variables", {"input": {"approvalId": approval, "decision": "APPROVE"}})
    await run(page)
    assert (await response(page, "decideApproval"))["data"]["decideApproval"]["approval"]["status"] == "APPROVED"
    await expect(live_events(page, "TOOL_CALL_RESULT")).to_have_count(2, timeout=PATIENCE_MS)
    await assert_live_panel_misses_and_repeats_nothing(page)

    await page.screenshot(path=tmp_path / "graphiql.png")
    assert browser.troubles == []
    assert browser.hosts == {urlsplit(server.url).netloc}


async def test_stream_goes_on_after_the_socket_is_lost(server: Server, browser: Browser) -> None:
    page = browser.page
    sockets: list[WebSocketRoute] = []

    def pass_through(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    await page.route_web_socket(re.compile("/graphql$"), pass_through)
    await sign_in(page, server)
    await open_tab(page, "CreateSession")
    await run(page)
    session = (await response(page, "createSession"))["data"]["createSession"]["session"]
    await open_tab(page, "SessionEvents")
    await write(page, "variables", {"sessionId": session["id"], "after": None})
    await run(page)
    await open_tab(page, "SendMessage")
    for sent in (1, 2):
        await write(page, "variables", {"input": {"sessionId": session["id"], "text": "/tool list_files {}"}})
        await run(page)
        await expect(live_events(page, "RUN_FINISHED")).to_have_count(sent, timeout=PATIENCE_MS)
        await sockets[-1].close(code=1001, reason="the test cuts the line")

    await expect(page.locator(".live-status")).to_have_text("Live", timeout=PATIENCE_MS)
    await assert_live_panel_misses_and_repeats_nothing(page)
    assert len(sockets) >= 2


async def test_stranger_is_told_how_to_sign_in(server: Server, browser: Browser) -> None:
    page = browser.page
    await open_graphiql(page, server)
    hint = page.get_by_text("You are not signed in")
    await expect(hint).to_be_visible(timeout=PATIENCE_MS)

    await page.get_by_role("button", name="Headers").click()
    await write(page, "request-headers", {"Authorization": f"Bearer {server.token}"})
    await expect(page.locator(".identity-chip.signed-in")).to_be_visible(timeout=PATIENCE_MS)
    await expect(hint).to_have_count(0)


async def test_signing_out_ends_the_cookie(server: Server, browser: Browser) -> None:
    page = browser.page
    await sign_in(page, server)
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/sign-in")
    await open_graphiql(page, server)
    await expect(page.get_by_text("You are not signed in")).to_be_visible(timeout=PATIENCE_MS)
