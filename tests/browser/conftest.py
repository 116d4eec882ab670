"""A Chromium of the machine, and a page in it that notes everything that went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, async_playwright

from tests.tools import chromium_path

# Chromium can't confine itself as root; the rest keeps it from asking the internet for anything.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Browser:
    """A page and what it did: `troubles` are errors and refusals of its content policy, `hosts` all it asked."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", lambda line: self.troubles.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))


@asynccontextmanager
async def a_browser(timezone: str = "UTC") -> AsyncIterator[Browser]:
    """A browser of somebody in a time zone."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGUMENTS)
        page = await chromium.new_page(viewport={"width": 1440, "height": 860}, timezone_id=timezone)
        browser = Browser(page)
        browser.watch()
        yield browser
        await chromium.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with a_browser() as found:
        yield found
