"""Processes with clients that are killed, or stopped, while they handle; what they held goes to others."""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random

import pytest

from tests.faults.lab import Program
from tests.faults.router_lab import RouterLab
from wowevent import Event, EventBus
from wowevent.broker import Reason

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

SHARED = "work"


def plain(number: int, **payload: object) -> Event:
    return Event(topic="load.made", event_id=f"plain-{number}", payload={"number": number, **payload})


async def declare(routed: RouterLab, **settings: float) -> None:
    """Let the subscription exist before its consumers do."""
    await routed.end(await routed.receiver(name="declared", subscription=SHARED, **settings))


async def until_buried(routed: RouterLab, count: int, **settings: float) -> tuple[int, Program]:
    """Start a client's process whenever it was killed, until there are so many dead letters; how often it was."""
    kills = 0
    program = routed.start_receiver(subscription=SHARED, **settings)
    deadline = time.monotonic() + 60
    while len(await routed.lab.dead()) < count:
        if program.ended:
            assert program.process.returncode == -signal.SIGKILL, routed.lab.output()
            kills += 1
            program = routed.start_receiver(subscription=SHARED, **settings)
        assert time.monotonic() < deadline, routed.lab.output()
        await asyncio.sleep(0.02)
    return kills, program


@pytest.mark.parametrize(("max_retries", "concurrency"), [(1, 1), (2, 4)])
async def test_poison_that_kills_its_client_gets_its_attempts(
    routed: RouterLab, long_form: bool, max_retries: int, concurrency: int, measured
):
    """Exactly the attempts promised, each by another process that takes over the name, then one dead letter."""
    settings = {"max_retries": max_retries, "concurrency": concurrency, "lease": 1.0}
    router = await routed.serve()
    rounds, random, poisons, kills, took = 10 if long_form else 1, Random(7), set(), 0, 0.0
    await declare(routed, **settings)
    for first in range(0, 40 * rounds, 40):
        poison = first + random.randrange(40)
        poisons.add(f"plain-{poison}")
        await routed.publish([plain(n, poison=True) if n == poison else plain(n) for n in range(first, first + 40)])
        began = time.monotonic()
        killed, program = await until_buried(routed, len(poisons), **settings)
        took = max(took, time.monotonic() - began)
        kills += killed
        assert killed == len(routed.lab.history("delivered", id=f"plain-{poison}")) == 1 + max_retries
        innocents = {entry.id for entry in routed.lab.history("ok")} - poisons
        await routed.lab.until(lambda wanted=innocents: wanted <= {e.id for e in routed.lab.history("effect")})
        await routed.end(program)
    dead = await routed.lab.dead()
    report = await routed.verdict(dead=dead)
    measured(kills, report, dead=len(dead), buried_after=took)
    assert not report.broken()
    assert sorted(dead) == sorted(poisons)
    assert report.handled == report.ok - {f"{SHARED}/{id}" for id in poisons}
    async with EventBus(routed.lab.url) as bus:
        letters = await bus.dead_letters.list()
    assert {letter.reason for letter in letters} == {Reason.CRASHED}
    assert {len(letter.attempts) for letter in letters} == {1 + max_retries}
    await routed.end(router)


async def test_another_client_takes_over_from_one_that_was_killed(routed: RouterLab, long_form: bool, measured):
    """Two share a name, one is killed again and again: the other gets what it held, and all are handled."""
    settings = {"subscription": SHARED, "lease": 1.0, "slow": 0.01, "concurrency": 4}
    router = await routed.serve()
    rounds, slowest = 20 if long_form else 3, 0.0
    await declare(routed, lease=1.0)
    steady = await routed.receiver(**settings)
    publisher = routed.publisher(tasks=8, pause=0.03)  # less than the two can do
    for _ in range(rounds):
        other = await routed.receiver(**settings)
        await routed.lab.written(20, "effect", process=other.name)
        other.kill()
        killed = time.monotonic()
        begun = {e.id for e in routed.lab.history("delivered", process=other.name)}
        held = begun - {e.id for e in routed.lab.history("effect", process=other.name)}
        await routed.lab.until(lambda wanted=held: wanted <= {e.id for e in routed.lab.history("effect")})
        slowest = max(slowest, time.monotonic() - killed)
    published = await routed.confirmed(publisher)
    await routed.handled()
    await routed.end(steady)
    report = await routed.verdict(dead=await routed.lab.dead())
    measured(rounds, report, published=published, taken_over_after=slowest)
    assert not report.broken()
    assert report.handled == report.ok
    assert slowest < 10
    await routed.end(router)


async def test_a_client_that_was_stopped_is_too_late(routed: RouterLab, long_form: bool, measured):
    """SIGSTOP beyond lease and pings: another one does its work, its late word changes nothing, and it goes on."""
    router = await routed.router(ping_interval=0.5)
    rounds, slowest = 10 if long_form else 2, 0.0
    settings = {"subscription": SHARED, "lease": 1.0, "slow": 0.1, "reconnect": 0.2}
    await declare(routed, lease=1.0)
    for first in range(0, 10 * rounds, 10):
        stopped = await routed.receiver(**settings)
        await routed.publish([plain(number) for number in range(first, first + 10)])
        await routed.lab.written(2, "effect", process=stopped.name)
        stopped.signal(signal.SIGSTOP)
        began = time.monotonic()
        other = await routed.receiver(**settings)
        wanted = {f"plain-{number}" for number in range(first + 10)}
        await routed.lab.until(lambda wanted=wanted: wanted <= {e.id for e in routed.lab.history("effect")})
        slowest = max(slowest, time.monotonic() - began)
        await routed.end(other)
        stopped.signal(signal.SIGCONT)
        await routed.subscribed(1)
        late = plain(10_000 + first)
        await routed.publish([late])
        await routed.lab.until(lambda id=late.event_id: routed.lab.history("effect", id=id))
        assert (await routed.end(stopped))["reconnects"] == 1
    async with EventBus(routed.lab.url) as bus:
        info = await bus.info(SHARED)
    report = await routed.verdict(dead=await routed.lab.dead())
    measured(rounds, report, taken_over_after=slowest)
    assert info is not None
    assert (info.ready, info.leased, info.delayed) == (0, 0, 0)
    assert not report.broken()
    assert report.handled == report.ok
    assert len(report.duplicates) <= 10 * rounds  # what it holds it handles: nobody tells it whose that is now
    assert not await routed.lab.dead()
    await routed.end(router)
