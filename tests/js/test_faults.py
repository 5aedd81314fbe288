"""A page under fault: what it was told is stored is not lost, and nothing comes twice."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import url_of
from tests.faults.lab import Lab, Program
from tests.faults.proxy import Proxy
from tests.faults.router_lab import free_port, takes_clients
from tests.js.conftest import Site, Tab
from tests.processes import environment
from wowevent.router import EventRouter

LOAD = """
window.ok = []; window.named = []; window.refused = []; window.waiting = 0; window.going = true;
await client.subscribe("load.*", (event) => seen.push(event.event_id), told);
await client.subscribe("load.*", (event) => named.push(event.event_id), { name: "page", ...told });
const one = async () => {
  waiting += 1;
  try {
    ok.push((await client.publish("load.event", { text: "x".repeat(100) })).event_id);
  } catch (error) {
    refused.push(error.code);
  }
  waiting -= 1;
};
const tick = setInterval(() => (going ? Array.from({ length: 5 }, one) : clearInterval(tick)), 50);
"""
"""100 events a second, and a subscription of either kind."""


async def verdict(tab: Tab, *, least: int) -> None:
    """End the load and wait for what is under way; lost = ok - seen is nothing, and nothing was seen twice."""
    await tab.run("going = false; await new Promise((resolve) => setTimeout(resolve, 50));")
    await so(tab, "!waiting && seen.length >= ok.length && named.length >= ok.length")
    await tab.run("await client.close();")
    found: dict[str, Any] = await tab.run("return { ok, seen, named, refused, gaps, ends };")
    assert not found["refused"] + found["gaps"] + found["ends"]
    assert len(found["ok"]) >= least
    assert found["seen"] == found["ok"]  # in the order of the publishing, too
    assert sorted(found["named"]) == sorted(found["ok"])


async def handled(tab: Tab, more: int) -> None:
    """Wait until so many more came to both."""
    await tab.run("window.goals = [seen.length + more, named.length + more];", more=more)
    await so(tab, "seen.length >= goals[0] && named.length >= goals[1]")


async def so(tab: Tab, condition: str) -> None:
    """Return once it is so; a busy machine takes its time to start a router."""
    async with asyncio.timeout(60):
        while not await tab.run(f"return {condition};"):  # noqa: ASYNC110 - a page tells nobody
            await asyncio.sleep(0.02)


async def test_a_line_that_is_cut_again_and_again(
    tab: Tab, site: Site, broker_name: str, tmp_path: Path, long_form: bool
):
    """On every engine, by RST, without a word."""
    url = url_of(broker_name, tmp_path)
    async with EventRouter(port=0, url=url, origins=[site.origin]) as router, Proxy(router.port) as proxy:
        await tab.connect(proxy.url)
        await tab.run(LOAD)
        rounds = 30 if long_form else 4
        for _ in range(rounds):
            await handled(tab, 20)
            proxy.reset()
        await handled(tab, 20)
        await verdict(tab, least=20 * rounds)
        assert proxy.connections > rounds


async def serve(lab: Lab, port: int, origin: str) -> Program:
    """`wowevent serve`, once it takes clients."""
    where = ["--url", lab.url, "--port", str(port), "--http-port", "0"]
    home = environment(lab.folder, WOWEVENT_ORIGINS=f'["{origin}"]')
    program = lab.run("serve", [sys.executable, "-m", "wowevent", "serve", *where], home)
    await lab.until(lambda: program.ended or takes_clients(port))
    assert not program.ended, lab.output()
    return program


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_a_router_that_is_killed_and_started_again_under_load(
    tab: Tab, site: Site, tmp_path: Path, long_form: bool
):
    """By SIGKILL and by SIGTERM, in turn."""
    lab, port, rounds = Lab(tmp_path), free_port(), 20 if long_form else 2
    try:
        program = await serve(lab, port, site.origin)
        await tab.connect(f"ws://localhost:{port}", timeout=10)
        await tab.run(LOAD)
        for number in range(rounds):
            await handled(tab, 50)
            if number % 2:
                program.signal(15)
                await lab.ended(program)
            else:
                program.kill()
            await asyncio.sleep(0.1)
            program = await serve(lab, port, site.origin)
        await handled(tab, 50)
        await verdict(tab, least=50 * rounds)
    finally:
        lab.close()
