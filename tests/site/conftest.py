"""A browser and a live system for a session, and a tab for a test."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.site.live import Live, system
from tests.site.tab import SCREEN, Tab

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
)

MakeTab = Callable[[str], Awaitable[Tab]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("there is no Chromium here: make servers")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The service on sqlite, and agents, of which one fails."""
    with system(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest_asyncio.fixture(loop_scope="session")
async def api(live: Live) -> AsyncIterator[httpx.AsyncClient]:
    """The live system, past its pages."""
    async with httpx.AsyncClient(base_url=live.url, timeout=10) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def open_tab(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[MakeTab]:
    """`open_tab(url)`: a tab of its own, as a new visitor's; closed with the test."""
    async with AsyncExitStack() as stack:

        async def make(url: str) -> Tab:
            context = await browser.new_context(viewport=SCREEN, color_scheme="light", locale="en")  # type: ignore[arg-type]  # a TypedDict
            stack.push_async_callback(context.close)
            page = await context.new_page()
            return Tab(page, url, screenshots=request.config.getoption("--screenshots"))

        yield make


@pytest_asyncio.fixture(loop_scope="session")
async def tab(open_tab: MakeTab, live: Live) -> Tab:
    """A tab at the live system."""
    return await open_tab(live.url)
