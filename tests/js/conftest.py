"""Headless Chromium, pages that are served on loopback, and a router that lets them in."""

from __future__ import annotations

import asyncio
import mimetypes
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from wowevent import EventBus
from wowevent.router import EventRouter

T = TypeVar("T")

CLIENT: Final = Path(__file__).parents[2] / "clients" / "js"
PATIENCE: Final = 10.0
"""Seconds within which what a page waits for must come."""

_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
_QUIET: Final = [
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_START: Final = """<!doctype html><meta charset="utf-8"><title>test</title><link rel="icon" href="data:,">
<script type="module" src="page.js"></script>"""


class Site:
    """The files of clients/js and what a test puts beside them, by HTTP on loopback."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self.files: dict[str, bytes] = {
            "/": _START.encode(),
            "/page.js": (here / "page.js").read_bytes(),
            **{f"/{path.name}": path.read_bytes() for path in CLIENT.iterdir() if path.is_file()},
        }
        self.origin: str = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, and its answer."""
        try:
            asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
            body = self.files.get(asked.partition("?")[0])
            kind = "text/html" if asked == "/" else mimetypes.guess_type(asked)[0] or "text/plain"
            status = "200 OK" if body is not None else "404 Not Found"
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body or b'')}\r\n"
            writer.write(f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + (body or b""))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the browser has hung up
        finally:
            writer.close()


class Chrome:
    """The browser, whose driver has a thread and a loop of its own: those of tests end with them."""

    browser: Browser

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chrome", daemon=True)

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        self._playwright = self._now(async_playwright().start())
        self.browser = self._now(self._playwright.chromium.launch(executable_path=self._path, args=_QUIET))
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._now(self.browser.close())
        self._now(self._playwright.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _now(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(60)

    async def call(self, job: Coroutine[Any, Any, T]) -> T:
        """What it gives, from a test's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(job, self._loop))


class Tab:
    """One page with the client in it; what it does stands in page.js."""

    def __init__(self, chrome: Chrome, page: Page) -> None:
        self.page = page
        self._chrome = chrome
        self.errors: list[str] = []
        """What nobody has caught in it."""
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def run(self, script: str, **given: Any) -> Any:
        """What the body of an async function returns, which knows `given` by name."""
        names = ", ".join(given)
        async with asyncio.timeout(3 * PATIENCE):
            return await self._chrome.call(self.page.evaluate(f"async ({{ {names} }}) => {{ {script} }}", given))

    async def close(self) -> None:
        await self._chrome.call(self.page.close())

    async def until(self, expression: str, **given: Any) -> Any:
        """Its value, as soon as it is one."""
        return await self.run(f"return await until(() => {expression});", **given)

    async def connect(self, url: str, **options: Any) -> None:
        """`client`, connected, with short waits."""
        await self.run("await open(url, options);", url=url, options=options)

    async def subscribe(self, topics: str | list[str], **wanted: Any) -> None:
        """What comes is added to `seen`."""
        script = "window.sub = await client.subscribe(topics, keep, { ...told, ...wanted });"
        await self.run(script, topics=topics, wanted=wanted)

    async def publish(self, *numbers: int, topic: str = "task.created") -> list[dict[str, Any]]:
        """The receipts of events with these numbers."""
        script = "return await Promise.all(numbers.map((n) => client.publish(topic, { n })));"
        receipts: list[dict[str, Any]] = await self.run(script, numbers=numbers, topic=topic)
        return receipts

    async def seen(self, count: int) -> list[int]:
        """The numbers of what came, once there are so many."""
        await self.until("seen.length >= count", count=count)
        numbers: list[int] = await self.run("return seen.map((event) => event.payload.n);")
        return numbers

    async def fails(self, script: str, **given: Any) -> str:
        """The code of what it is rejected with, or its name."""
        return str(await self.run(f"return await codeOf(async () => {{ {script} }});", **given))

    async def states(self) -> list[str]:
        found: list[str] = await self.run("return states;")
        return found


Open = Callable[[], Awaitable[Tab]]
"""`await open_tab()`: one more page."""


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """One for all tests: to start it takes longer than most of them."""
    path = next((found for name in _CHROMIUM if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail("these tests need Chromium: apt-get install chromium")
    with Chrome(path) as chrome:
        yield chrome


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """Pages that tests may change."""
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield site


@pytest.fixture
async def context(chrome: Chrome) -> AsyncIterator[BrowserContext]:
    """A browser without a past."""
    context = await chrome.call(chrome.browser.new_context())
    yield context
    await chrome.call(context.close())


@pytest.fixture
async def open_tab(chrome: Chrome, context: BrowserContext, site: Site) -> AsyncIterator[Open]:
    """Pages in which nothing may be left uncaught."""
    tabs: list[Tab] = []

    async def load(page: Page) -> None:
        await page.goto(site.origin)
        await page.wait_for_function("window.ready")

    async def open_tab() -> Tab:
        tab = Tab(chrome, await chrome.call(context.new_page()))
        await chrome.call(load(tab.page))
        tabs.append(tab)
        return tab

    yield open_tab
    for tab in tabs:
        assert not tab.errors


@pytest.fixture
async def tab(open_tab: Open) -> Tab:
    return await open_tab()


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


Serve = Callable[..., Awaitable[EventRouter]]
"""`await serve(…)`: a router on the bus that lets the page in."""


@pytest.fixture
async def serve(bus: EventBus, site: Site) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def serve(**settings: Any) -> EventRouter:
            router = EventRouter(**{"port": 0, "bus": bus, "origins": [site.origin], **settings})
            return await stack.enter_async_context(router)

        yield serve


@pytest.fixture
async def router(serve: Serve) -> EventRouter:
    return await serve()


@pytest.fixture
async def client(tab: Tab, router: EventRouter) -> Tab:
    """A page that is connected."""
    await tab.connect(router.url)
    return tab
