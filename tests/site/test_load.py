"""A page is not choked by 10,000 events a second: it says what it leaves out, answers at once, and does not grow."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import CDPSession, expect

from tests.processes import address, running
from tests.site.conftest import MakeTab
from tests.site.live import script
from tests.site.tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(800)]

RATE = 10_000  # events a second
AT_ONCE = 200  # milliseconds in which a click or a key is to show
ROWS = 200
GROWTH = 1.2  # of what the page held in memory after its first seconds
BESIDE = 3_000_000  # bytes that may come and go

WATCH = """() => {
  window.slowest = 0;
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) window.slowest = Math.max(window.slowest, each.duration);
  }).observe({ type: "event", durationThreshold: 16 });
}"""
"""How long it took from a key or a click until what it did was drawn, as the browser itself measures it."""


async def held_bytes(session: CDPSession) -> float:
    """What the page's scripts hold, once what nobody holds any more is thrown away."""
    await session.send("HeapProfiler.collectGarbage")
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize")


async def use(tab: Tab) -> None:
    """Do what people do on the page of events."""
    await tab.page.get_by_role("button", name="Hold").click()
    await tab.page.get_by_role("button", name="Go on").click()
    await tab.page.get_by_label("Types").press_sequentially("flood", delay=60)
    await tab.page.get_by_label("Types").fill("")
    await tab.page.get_by_role("button", name="Dark").click()
    await tab.page.get_by_role("button", name="Light").click()
    await tab.reach("Subscriptions")
    await tab.reach("Overview")
    await tab.reach("Events")


async def test_many_events(open_tab: MakeTab, tmp_path: Path, *, long_form: bool) -> None:
    engine = f"sqlite:///{tmp_path}/events.db"
    with running(tmp_path, "wowevent", "serve", "--url", engine, "--http-port", "0", "--port", "0"):
        tab = await open_tab(address(tmp_path))
        await tab.open("#/events")
        await expect(tab.page.get_by_text("Listening")).to_be_visible()
        with script("flood.py", tmp_path, engine, str(RATE)):
            await tab.page.evaluate(WATCH)
            left_out = tab.page.get_by_text(re.compile("at most 20 a second are shown, .* were left out"))
            await expect(left_out).to_be_visible()
            await use(tab)
            await expect(left_out).to_be_visible()
            session = await tab.page.context.new_cdp_session(tab.page)
            await session.send("Performance.enable")
            await expect(tab.page.locator("tbody tr")).to_have_count(ROWS, timeout=20_000)
            before = await held_bytes(session)
            await asyncio.sleep(600 if long_form else 6)
            assert await tab.page.locator("tbody tr").count() == ROWS
            after = await held_bytes(session)
            await use(tab)
            slowest = await tab.page.evaluate("window.slowest")
    sent = int((tmp_path / "flood.py.txt").read_text().split()[-1])
    print(f"{sent} events/s; the slowest interaction {slowest:.0f} ms; {before / 1e6:.1f} MB, then {after / 1e6:.1f} MB")
    assert slowest < AT_ONCE
    assert after < GROWTH * before + BESIDE
    tab.quiet()
