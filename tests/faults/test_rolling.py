"""Three routers on one port, exchanged or killed one after another under load: their clients lose nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.conformance.engines import url_of
from tests.faults.checker import Report
from tests.faults.lab import Program
from tests.faults.router_lab import RouterLab
from tests.rabbitmq import shared_rabbit
from wowevent.router.session import CREDIT

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

ROUTERS = 3
HANDLER = 0.005
"""Seconds that it takes."""
SHARING = 10
"""Clients of one name."""
EXCHANGE = ROUTERS * 50.0
"""Seconds: each has 30 to serve, and the one before it 18 to drain."""


class Size(Struct, frozen=True):
    """How much goes on."""

    clients: int
    events: int
    """A second."""


@pytest.fixture
def size(long_form: bool) -> Size:
    return Size(clients=300, events=500) if long_form else Size(clients=30, events=100)


@pytest.fixture
def engine(broker_name: str, routed: RouterLab, tmp_path: Path) -> Iterator[str]:
    """The lab's log is on that engine."""
    if broker_name == "memory":
        pytest.skip("a log in one process has one router")
    routed.lab.url = url_of(broker_name, tmp_path)
    yield broker_name
    routed.lab.close()  # first: who is connected would only be cut off
    shared_rabbit.erase(tmp_path)


async def start_load(routed: RouterLab, size: Size) -> tuple[list[Program], list[Program]]:
    """Clients with a name each, two to a topic, and those that share one and get everything; then publishers."""
    own = size.clients - SHARING
    handling = {"slow": HANDLER, "lease": 10.0, "within": 120.0}  # a queue of RabbitMQ takes a moment to make
    each = [await routed.receiver(clients=own // 2, topics=own // 2, **handling) for _ in range(2)]
    shared = await routed.receiver(clients=SHARING, subscription="shared", **handling)
    publishers = [routed.publisher(topics=own // 2, tasks=size.events // 20, period=0.1) for _ in range(2)]
    await routed.lab.written(4 * size.events, "effect")
    return [*each, shared], publishers


def workers(routed: RouterLab) -> dict[int, int | None]:
    """The routers' processes, by their numbers."""
    (file,) = routed.lab.folder.rglob("wowevent.pid")
    return {each["number"]: each["pid"] for each in json.loads(file.read_bytes())["workers"]}


def log(routed: RouterLab) -> str:
    (file,) = routed.lab.folder.rglob("wowevent.log")
    return file.read_text()


def rate(routed: RouterLab, since: float) -> float:
    """Events a second that were confirmed."""
    confirmed = sum(entry.time >= since for entry in routed.lab.history("ok"))
    return confirmed / (time.monotonic() - since)


def repeats(report: Report) -> tuple[int, int]:
    """How often an event was handled once more: by clients with a name of their own, and by those that share one."""
    more = {id: count - 1 for id, count in report.duplicates.items()}
    shared = sum(count for id, count in more.items() if id.startswith("shared/"))
    return sum(more.values()) - shared, shared


async def test_routers_that_are_exchanged_lose_nothing_and_repeat_nothing(
    routed: RouterLab, engine: str, size: Size, long_form: bool, measured
):
    """SIGHUP: each router drains while the others serve; its clients go on at another one, or at the new one."""
    rounds = 3 if long_form else 1
    served = await routed.serve("--workers", str(ROUTERS))
    receivers, publishers = await start_load(routed, size)
    began, slowest = time.monotonic(), 0.0
    for round in range(rounds):
        before, told = workers(routed), time.monotonic()
        served.signal(signal.SIGHUP)
        await routed.lab.until(
            lambda done=round + 1: log(routed).count("workers were exchanged") == done, timeout=EXCHANGE
        )
        slowest = max(slowest, time.monotonic() - told)
        assert not {*before.values()} & {*workers(routed).values()}
    throughput = rate(routed, began)
    published = await routed.confirmed(*publishers)
    drain = await routed.handled(timeout=120)
    counts = await routed.end(*receivers)
    report = await routed.verdict()
    facts = {"published": published, "events_a_second": throughput, "exchange": slowest, "drain": drain}
    measured(rounds, report, **facts, reconnects=counts["reconnects"])
    assert not report.broken()
    assert report.handled == report.ok
    assert not report.duplicates, "they were drained: nothing was in hand when a router went away"
    assert counts["reconnects"] >= size.clients * rounds * 0.8
    await routed.end(served)


async def test_routers_that_are_killed_lose_nothing(
    routed: RouterLab, engine: str, size: Size, long_form: bool, measured
):
    """SIGKILL of each router in turn: what its clients had in hand may come once more, and nothing else does.

    A client does not handle again what it has handled. Of those that share a name another one may, once the lease has
    ended: at most all that they held.
    """
    served = await routed.serve("--workers", str(ROUTERS))
    receivers, publishers = await start_load(routed, size)
    began, recoveries, kills = time.monotonic(), [], ROUTERS * (2 if long_form else 1)
    for kill in range(kills):
        number = kill % ROUTERS + 1
        victim = workers(routed)[number]
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        await routed.lab.until(lambda n=number, pid=victim: workers(routed)[n] not in {None, pid}, timeout=60)
        recoveries.append(time.monotonic() - killed)
        await asyncio.sleep(3.0)  # its clients are back
    throughput = rate(routed, began)
    published = await routed.confirmed(*publishers)
    drain = await routed.handled(timeout=120)
    counts = await routed.end(*receivers)
    report = await routed.verdict()
    own, shared = repeats(report)
    facts = {"published": published, "events_a_second": throughput, "own": own, "shared": shared}
    facts["recovery"] = max(recoveries)
    measured(kills, report, **facts, drain=drain, reconnects=counts["reconnects"])
    assert not report.broken()
    assert report.handled == report.ok
    assert own <= counts["reconnects"], "one handler a client was at work when its router was killed"
    assert shared <= kills * SHARING * CREDIT, "more came again than its clients held"
    await routed.end(served)
