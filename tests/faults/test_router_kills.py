"""The router and its clients, killed, stopped and terminated under load."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.lab import Program
from tests.faults.router_lab import RouterLab

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

TOPICS = 20


async def start_load(routed: RouterLab, **settings: object) -> tuple[list[Program], list[Program]]:
    """200 clients in two processes, a tenth of them for each event, and three publishers."""
    receivers = [await routed.receiver(clients=100, topics=TOPICS, **settings) for _ in range(2)]
    publishers = [routed.publisher(topics=TOPICS, pause=0.1) for _ in range(3)]
    await routed.lab.written(200, "effect")
    return receivers, publishers


async def test_a_killed_router_loses_nothing(routed: RouterLab, long_form: bool, measured):
    """SIGKILL of `wowevent serve` with 200 clients: all are back within 10 s, and no event is missing."""
    rounds, recoveries = 5 if long_form else 1, []
    router = await routed.serve()
    receivers, publishers = await start_load(routed)
    for _ in range(rounds):
        before = len(routed.lab.history("effect"))
        await routed.lab.written(before + 1_000, "effect")
        router.kill()
        killed = time.monotonic()
        router = await routed.serve()
        await routed.subscribed(200)
        recoveries.append(time.monotonic() - killed)
    published = await routed.confirmed(*publishers)
    drain = await routed.handled()
    counts = await routed.end(*receivers)
    report = await routed.verdict()
    measured(rounds, report, published=published, recovery=max(recoveries), drain=drain)
    assert not report.broken()
    assert report.handled == report.ok
    assert max(recoveries) < 10, recoveries
    assert counts["reconnects"] == 200 * rounds
    await routed.end(router)


async def test_a_router_that_is_terminated_drains(routed: RouterLab, long_form: bool, measured):
    """SIGTERM of `wowevent serve` with named and anonymous clients: exit 0 within 20 s, and they find the next one."""
    rounds, slowest, recoveries = 5 if long_form else 1, 0.0, []
    router = await routed.serve()
    named = await routed.receiver(clients=50, topics=TOPICS, slow=0.02)
    live = await routed.receiver(clients=50, topics=TOPICS, named=False)
    publishers = [routed.publisher(topics=TOPICS, pause=0.1) for _ in range(3)]
    for _ in range(rounds):
        before = len(routed.lab.history("effect"))
        await routed.lab.written(before + 500, "effect")
        began = time.monotonic()
        router.signal(signal.SIGTERM)
        assert await routed.lab.ended(router, timeout=20) == 0
        slowest = max(slowest, time.monotonic() - began)
        router = await routed.serve()
        await routed.subscribed(100)
        recoveries.append(time.monotonic() - began)
    published = await routed.confirmed(*publishers)
    await routed.handled()
    counts = await routed.end(named, live)
    report = await routed.verdict()
    measured(rounds, report, published=published, slowest=slowest, recovery=max(recoveries))
    assert not report.broken()
    assert report.handled == report.ok
    assert not report.duplicates
    assert not counts["resets"]
    assert max(recoveries) < 10, recoveries
    await routed.end(router)
