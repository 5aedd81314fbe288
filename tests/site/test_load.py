"""A page is not choked by 10,000 events a second: it says what it leaves out, answers at once, and does not grow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import CDPSession, expect

from tests.processes import address, running
from tests.site.conftest import MakeTab
from tests.site.live import script
from tests.site.tab import Tab

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(800)]

RATE = 10_000  # events a second
AT_ONCE = 200  # milliseconds in which a click or a key is to show
CHOKED = 1_000  # and in a short run, which shares the machine with what came before
ROWS = 100
GROWTH = 1.2  # of what the page held in memory after its first seconds
BESIDE = 3_000_000  # bytes that may come and go

WATCH = """() => {
  window.slow = [];
  new PerformanceObserver((list) => {
    for (const each of list.getEntries()) {
      if (!each.interactionId) continue; // the pointer only moved
      const { name, duration, startTime, processingStart, processingEnd } = each;
      window.slow.push([duration, name, processingStart - startTime, processingEnd - processingStart]);
    }
    window.slow.sort((one, other) => other[0] - one[0]).splice(5);
  }).observe({ type: "event", durationThreshold: 16 });
}"""
"""The slowest keys and clicks, until what they did was drawn, as the browser itself measures it: milliseconds, its
name, how much of it was waiting and how much was spent in scripts."""


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[str]:
    """Where a service is whose log takes RATE events a second from another process."""
    engine = f"sqlite:///{tmp_path}/events.db"
    with (
        running(tmp_path, "wowevent", "serve", "--url", engine, "--http-port", "0", "--port", "0"),
        script("flood.py", tmp_path, engine, str(RATE)),
    ):
        yield address(tmp_path)


async def held(session: CDPSession) -> tuple[float, float]:
    """What the page's scripts hold, once what nobody holds any more is thrown away: bytes, and nodes, shown or not."""
    await session.send("HeapProfiler.collectGarbage")
    metrics = {each["name"]: each["value"] for each in (await session.send("Performance.getMetrics"))["metrics"]}
    return metrics["JSHeapUsedSize"], metrics["Nodes"]


async def use(tab: Tab) -> None:
    """Do what people do on the page of events."""
    await tab.page.get_by_role("button", name="Hold").click()
    await tab.page.get_by_role("button", name="Go on").click()
    await tab.page.get_by_label("Sources").press_sequentially("nobody", delay=60)
    await tab.page.get_by_label("Sources").fill("")
    await tab.page.get_by_role("button", name="Dark").click()
    await tab.page.get_by_role("button", name="Light").click()
    await tab.reach("Subscriptions")
    await tab.reach("Overview")
    await tab.reach("Events")


async def least(tab: Tab) -> list[Any]:
    """The slowest of a round of them, of the best round: the machine may have other things to do."""
    rounds = []
    for _ in range(3):
        await tab.page.evaluate("window.slow.length = 0")
        await use(tab)
        rounds.append(await tab.page.evaluate("window.slow"))
        if rounds[-1][0][0] < AT_ONCE:
            break
    return min(rounds)


async def test_many_events(open_tab: MakeTab, flooded: str, *, long_form: bool) -> None:
    tab = await open_tab(flooded)
    await tab.open("#/events")
    await tab.page.evaluate(WATCH)
    left_out = tab.page.get_by_text(re.compile("at most 20 a second are shown, .* were left out"))
    await expect(left_out).to_be_visible()
    await use(tab)
    await expect(left_out).to_be_visible()
    session = await tab.page.context.new_cdp_session(tab.page)
    await session.send("Performance.enable")
    rows = tab.page.locator("tbody tr")
    await expect(rows).to_have_count(ROWS, timeout=20_000)
    before, nodes = await held(session)
    await asyncio.sleep(600 if long_form else 5)
    assert await rows.count() == ROWS
    after, still = await held(session)
    slowest = await least(tab)
    rate = (await (await tab.page.request.get(f"{flooded}/overview")).json())["published_per_second"]
    figures = f"{before / 1e6:.1f} MB, then {after / 1e6:.1f} MB; {nodes:.0f} nodes, then {still:.0f}"
    print(f"{rate:.0f} events/s; the slowest: {slowest}; {figures}")  # noqa: T201 - figures
    assert slowest[0][0] < (AT_ONCE if long_form else CHOKED)
    assert after < GROWTH * before + BESIDE
    assert still < GROWTH * nodes  # a row that is not shown any more is gone, and what it held
    tab.quiet()
