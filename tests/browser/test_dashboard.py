"""The dashboard in Chromium: what the graph specifies is drawn, leads to the rows behind it, and figures come live."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from zoneinfo import ZoneInfo

import pytest
from playwright.async_api import Locator, Page, Response, expect

from tests.browser.conftest import Browser, a_browser
from tests.clients_of_graph import Client
from tests.conftest import Server
from tests.talking import eventually

pytestmark = pytest.mark.anyio

PATIENCE_MS = 20_000
ZONE = "Asia/Tokyo"
CREATE = 'mutation { createSession(input: {title: "Counted"}) { session { id } } }'
SEND = "mutation ($id: ID!, $text: String!) { sendMessage(input: {sessionId: $id, text: $text}) { run { id } } }"
COUNTED = """{
  metricSeries(metric: "tools.calls", range: LAST_24_HOURS, filter: {dimension: "tool", values: ["list_files"]}) {
    groups { total }
  }
}"""
# Nobody decides: the session waits.
ASKS = '/tool write_file {"path": "hello.txt", "content": "Hello"}'
PLACES = "() => [...document.querySelectorAll('figure, dd')].map(each => JSON.stringify(each.getBoundingClientRect()))"


async def use_a_tool(client: Client, text: str = "/tool list_files {}") -> None:
    session = (await client(CREATE))["createSession"]["session"]
    await client(SEND, id=session["id"], text=text)


async def is_counted(client: Client) -> bool:
    groups = (await client(COUNTED))["metricSeries"]["groups"]
    return any(group["total"] for group in groups)


def panel(page: Page, metric: str) -> Locator:
    """A chart that is up to date."""
    return page.locator(f"figure[data-metric='{metric}'][aria-busy='false']")


def answers(metric: str, about: str) -> Callable[[Response], bool]:
    """Whether a response brings a metric's chart, of what the variables say."""
    return lambda response: {metric, about} <= set(re.findall(r'"([^"]*)"', response.request.post_data or ""))


@pytest.fixture(scope="module")
async def dashboard(server: Server) -> AsyncIterator[Browser]:
    """The page of somebody who signed in, with a tool call that is counted."""
    async with a_browser(timezone=ZONE) as browser:
        page = browser.page
        await use_a_tool(server.client)
        await page.goto(f"{server.base}/dashboard")
        assert "/sign-in" in page.url
        viewer = await server.client("{ viewer { user { email } } }")
        printed = server.command("user", "link", viewer["viewer"]["user"]["email"])
        link = re.search(r"http\S+/sign-in/link/\S+", printed)
        assert link, printed
        await page.goto(link.group())
        await page.wait_for_url(server.url)
        await eventually(partial(is_counted, server.client))
        browser.troubles.clear()
        yield browser


async def test_vega_draws_what_the_graph_specifies(dashboard: Browser, server: Server) -> None:
    page = dashboard.page
    async with page.expect_response(answers("tools.calls", "LAST_24_HOURS")) as asked:
        await page.goto(f"{server.base}/dashboard")
    spec = (await (await asked.value).json())["data"]["metricChart"]
    meta = spec["usermeta"]["quarterdeck"]
    assert meta["timezone"] == ZONE
    calls = panel(page, "tools.calls")
    await expect(calls.locator(".mark-rect path")).to_have_count(len(spec["data"]["values"]), timeout=PATIENCE_MS)
    await expect(calls.locator("h2")).to_have_text(spec["title"]["text"])
    names = [group["name"] for group in meta["groups"]]
    assert "list_files" in names
    legend = await calls.locator(".role-legend-label text").all_text_contents()
    assert all(name.startswith(text.rstrip("…")) for name, text in zip(names, legend, strict=True))
    times, numbers = [
        await calls.locator(".role-axis-label").nth(number).locator("text").all_text_contents() for number in (0, 1)
    ]
    # Hours as the browser's zone has them, and a date at its midnight; whole numbers of calls.
    hour = datetime.fromisoformat(meta["edges"][0]).astimezone(ZoneInfo(ZONE)).hour
    assert 4 <= len(times) <= 10
    assert all(re.fullmatch(r"\d\d:00|\d+ [A-Z][a-z]+", time) for time in times)
    assert abs(int(times[0][:2]) - hour) <= 3 or hour >= 21
    assert numbers[0] == "0"
    assert all(number.isdecimal() for number in numbers)
    await expect(page.locator("figure[aria-busy='false'] svg")).to_have_count(6, timeout=PATIENCE_MS)
    assert dashboard.troubles == []
    assert len(dashboard.hosts) == 1


async def test_a_click_and_the_keyboard_lead_to_the_rows_behind(dashboard: Browser) -> None:
    page = dashboard.page
    calls = panel(page, "tools.calls")
    await calls.locator(".mark-rect path").first.hover()
    told = await calls.locator(".tip .chosen").inner_text()
    await calls.locator(".mark-rect path").first.click()
    rows = page.locator("#rows tbody tr")
    await expect(page.locator("#rows-said")).to_contain_text("the latest first", timeout=PATIENCE_MS)
    name, count = told.split()
    await expect(rows).to_have_count(int(count))
    await expect(page.locator("#rows h2")).to_contain_text(name)
    # Other tests at this server have called tools, too.
    await expect(rows.first).to_contain_text(re.compile("SUCCEEDED|DENIED|FAILED"))
    await page.keyboard.press("Escape")
    await expect(page.locator("#rows")).to_be_hidden()
    await page.mouse.move(0, 0)
    await calls.locator(".drawing").focus()
    await page.keyboard.press("End")
    await expect(calls.locator("[aria-live]")).to_contain_text(re.compile(r"\d\d:\d\d\. .+: \d+"))
    await page.set_viewport_size({"width": 1300, "height": 860})
    await expect(calls.locator(".tip")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(rows.first).to_be_visible(timeout=PATIENCE_MS)
    await page.keyboard.press("Escape")
    await calls.locator("summary").click()
    await calls.locator("details button").first.click()
    await expect(rows.first).to_be_visible(timeout=PATIENCE_MS)
    await page.get_by_role("button", name="Close").click()
    await calls.locator("summary").click()
    assert dashboard.troubles == []


async def test_figures_of_now_come_live(dashboard: Browser, server: Server) -> None:
    active = dashboard.page.locator("dd[data-metric='sessions.active']")
    before = await active.inner_text()
    await use_a_tool(server.client, ASKS)
    await expect(active).not_to_have_text(before, timeout=PATIENCE_MS)
    assert int(await active.inner_text()) > int(before)


async def test_another_range_and_another_group_are_drawn_in_the_same_places(dashboard: Browser) -> None:
    page = dashboard.page
    places = await page.evaluate(PLACES)
    async with page.expect_response(answers("tools.calls", "LAST_7_DAYS")):
        await page.get_by_label("7 days").check()
    calls = panel(page, "tools.calls")
    await expect(calls.locator(".role-axis-label").first).to_contain_text(re.compile(r"^(\d+ [A-Z][a-z]+|00:00)"))
    async with page.expect_response(answers("tools.calls", "outcome")):
        await calls.locator("select").select_option("outcome")
    await expect(calls.locator(".role-legend-label text").first).to_have_text("SUCCEEDED")
    await expect(page.locator("figure[aria-busy='false'] svg")).to_have_count(6, timeout=PATIENCE_MS)
    assert await page.evaluate(PLACES) == places
    await page.reload()
    await expect(page.get_by_label("7 days")).to_be_checked()
    await expect(calls.locator(".role-legend-label text").first).to_have_text("SUCCEEDED", timeout=PATIENCE_MS)
    assert dashboard.troubles == []


async def test_what_the_graph_refuses_is_said_in_its_place_on_a_narrow_dark_page(
    dashboard: Browser, server: Server
) -> None:
    page = dashboard.page
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": 390, "height": 844})
    await page.goto(f"{server.base}/dashboard?tools.calls=moon")
    await expect(panel(page, "tools.calls").get_by_role("alert")).to_contain_text("no dimension 'moon'")
    drawn = panel(page, "runs.count").locator("svg")
    await expect(drawn).to_be_visible(timeout=PATIENCE_MS)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    text = drawn.locator(".role-axis-label text").first
    assert await text.evaluate("each => getComputedStyle(each).fill") == "rgb(165, 177, 189)"
    assert dashboard.troubles == []
