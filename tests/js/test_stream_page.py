"""The lines of docs/http.md for a browser: an EventSource on the service's own page shows what is published."""

from __future__ import annotations

import asyncio
from typing import Any

from playwright.async_api import BrowserContext, Page

from tests.documents.pages import Block, blocks
from tests.js.conftest import PATIENCE, Chrome
from tests.service.sockets import serving
from wowevent import Event, EventBus

(STREAM,) = blocks("docs/http.md", "js")


async def listen(context: BrowserContext, url: str, block: Block) -> Page:
    """A page on which the block has run, with `show` and `reload` as a reader would have them."""
    page = await context.new_page()
    await page.goto(f"{url}/openapi.json")
    await page.evaluate(
        "() => { window.shown = []; const show = (event) => shown.push(event), reload = (lost) => shown.push({ lost });"
        f"{block.text} return new Promise((resolve) => {{ source.onopen = resolve; }}); }}"
    )
    return page


async def test_the_block_of_the_http_page_shows_an_event(chrome: Chrome, context: BrowserContext, bus: EventBus):
    async with serving(bus) as served, asyncio.timeout(3 * PATIENCE):
        page = await chrome.call(listen(context, served.url, STREAM))
        await bus.publish(Event(topic="mail.sent", payload={"n": 1}))
        sent = await bus.publish(Event(topic="task.created", payload={"n": 2}))
        await chrome.call(page.wait_for_function("window.shown.length"))
        shown: list[dict[str, Any]] = await chrome.call(page.evaluate("window.shown"))
        await chrome.call(page.close())
    assert [each["event_id"] for each in shown] == [sent.event_id]
    assert shown[0]["payload"] == {"n": 2}
