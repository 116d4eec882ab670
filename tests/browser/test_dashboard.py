"""The dashboard in Chromium: charts are drawn, and figures come live."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Browser
from tests.conftest import Server

pytestmark = pytest.mark.anyio

PATIENCE_MS = 20_000
LOADED = "() => [...document.images].length === 6 && [...document.images].every(i => i.complete && i.naturalWidth > 0)"


async def test_charts_are_drawn_and_figures_come_live(browser: Browser, server: Server) -> None:
    page = browser.page
    await page.goto(f"{server.base}/dashboard")
    assert "/sign-in" in page.url
    viewer = await server.client("{ viewer { user { email } } }")
    printed = server.command("user", "link", viewer["viewer"]["user"]["email"])
    link = re.search(r"http\S+/sign-in/link/\S+", printed)
    assert link, printed
    await page.goto(link.group())
    await page.wait_for_url(server.url)
    browser.troubles.clear()
    await page.goto(f"{server.base}/dashboard")
    await page.wait_for_function(LOADED, timeout=PATIENCE_MS)
    await expect(page.locator("dd")).to_have_count(7, timeout=PATIENCE_MS)
    first = await page.locator("#state").inner_text()
    await expect(page.locator("#state")).not_to_have_text(first, timeout=PATIENCE_MS)
    await page.locator("#range").select_option("LAST_7_DAYS")
    await page.wait_for_function(LOADED, timeout=PATIENCE_MS)
    assert "range=LAST_7_DAYS" in (await page.locator("img").first.get_attribute("src") or "")
    assert browser.troubles == []
    assert len(browser.hosts) == 1
