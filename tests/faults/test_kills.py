"""Processes that are killed, stopped and terminated while they use one file."""

from __future__ import annotations

import signal
import time
from random import Random

import pytest

from tests.faults.lab import Lab

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


async def test_killed_publishers_lose_nothing_that_was_confirmed(lab: Lab, long_form: bool, measured):
    """SIGKILL at any moment under load: what was confirmed is in the log once, whatever was in flight."""
    rounds, random = 200 if long_form else 5, Random(1)
    await lab.declare()
    for _ in range(rounds):
        publisher = lab.publisher()
        await lab.written(random.randint(50, 600), "ok", process=publisher.name)
        publisher.kill()
    stored = await lab.stored()
    report = await lab.verdict(retained=stored)
    assert not report.broken()
    assert len(stored) == len(set(stored))
    assert len(report.ok) >= 50 * rounds
    took = await lab.drain(timeout=300)
    report = await lab.verdict()
    measured(rounds, report, drain=took)
    assert not report.broken()
    assert not report.duplicates
    assert not report.inversions
    assert report.handled == frozenset(stored)


@pytest.mark.parametrize("point", ["before", "effect", "acked"])
async def test_killed_consumers_lose_nothing(lab: Lab, long_form: bool, point: str, measured):
    """SIGKILL before the effect, after it, and after the acknowledgement: what was in its hands comes again."""
    rounds, random = 100 if long_form else 5, Random(2)
    await lab.declare()
    publisher = lab.publisher(count=40 * rounds)
    for _ in range(rounds):
        consumer = lab.consumer(die=point, die_at=random.randint(1, 30))
        assert await lab.ended(consumer) == -signal.SIGKILL
    assert await lab.ended(publisher, timeout=120) == 0
    took = await lab.drain()
    report = await lab.verdict()
    measured(rounds, report, recovery=took)
    assert not report.broken()
    assert report.handled == report.ok
    assert len(report.ok) == 40 * rounds


async def test_two_processes_share_a_file(lab: Lab, long_form: bool, measured):
    """Two publish and two compete; without a fault nothing is handled twice."""
    count = 20_000 if long_form else 1_500
    consumers = [lab.consumer(), lab.consumer()]
    await lab.written(2, "ready")
    publishers = [lab.publisher(count=count), lab.publisher(count=count)]
    for publisher in publishers:
        assert await lab.ended(publisher, timeout=300) == 0
    await lab.until(lambda: len(lab.history("acked")) >= 2 * count, timeout=300)
    for consumer in consumers:
        consumer.signal(signal.SIGTERM)
        assert await lab.ended(consumer) == 0
    report = await lab.verdict()
    measured(1, report)
    assert not report.broken()
    assert not report.duplicates
    assert len(report.handled) == 2 * count
    shares = [len(lab.history("effect", process=consumer.name)) for consumer in consumers]
    assert min(shares) > 0


async def test_a_stopped_consumer_is_too_late(lab: Lab, long_form: bool, measured):
    """SIGSTOP beyond the lease: another one settles the event, and the late acknowledgement changes nothing."""
    rounds = 30 if long_form else 3
    for _ in range(rounds):
        stopped = lab.consumer(slow=0.2, lease=1.0)
        await lab.written(1, "ready", process=stopped.name)
        publisher = lab.publisher(count=5, tasks=1)
        await lab.written(1, "delivered", process=stopped.name)
        stopped.signal(signal.SIGSTOP)
        other = lab.consumer(lease=1.0)
        assert await lab.ended(publisher) == 0
        mine = {f"{publisher.name}-{number}" for number in range(5)}
        await lab.until(lambda ids: ids <= {entry.id for entry in lab.history("acked")}, mine)
        stopped.signal(signal.SIGCONT)
        await lab.written(1, "stale", process=stopped.name)
        for consumer in (stopped, other):
            consumer.signal(signal.SIGTERM)
            assert await lab.ended(consumer) == 0
    report = await lab.verdict()
    measured(rounds, report, stale=len(lab.history("stale")))
    assert not report.broken()  # settled_twice among them
    assert report.handled == report.ok


async def test_sigterm_drains(lab: Lab, long_form: bool, measured):
    """Exit 0 within 20 s, nothing left behind half done: what had not begun comes to another at once, uncharged."""
    rounds, slowest = 20 if long_form else 3, 0.0
    for _ in range(rounds):
        consumer = lab.consumer(slow=0.05, concurrency=4, lease=30.0)
        publisher = lab.publisher(count=100)
        await lab.written(5, "effect", process=consumer.name)
        consumer.signal(signal.SIGTERM)
        began = time.monotonic()
        assert await lab.ended(consumer, timeout=20) == 0
        slowest = max(slowest, time.monotonic() - began)
        assert len(lab.history("stopped", process=consumer.name)) == 1
        assert await lab.ended(publisher) == 0
        await lab.drain(lease=30.0, timeout=15)
    report = await lab.verdict()
    measured(rounds, report, slowest=slowest)
    assert not report.broken()
    assert not report.duplicates
    assert {entry.attempt for entry in lab.history("delivered")} == {1}
    assert not lab.history("stale")


async def test_killed_writers_leave_no_lock(lab: Lab, long_form: bool, measured):
    """While one process is killed again and again, the other's publishes are confirmed without a long pause."""
    steady = lab.publisher(tasks=1)
    await lab.written(1, "ok", process=steady.name)
    rounds, slowest = 50 if long_form else 4, 0.0
    for _ in range(rounds):
        other = lab.publisher()
        await lab.written(20, "ok", process=other.name)
        other.kill()
        before = len(lab.history("ok", process=steady.name))
        slowest = max(slowest, await lab.written(before + 1, "ok", process=steady.name, timeout=5))
    steady.kill()
    assert not lab.history("unknown", "failed")
    report = await lab.verdict(retained=await lab.stored())
    measured(rounds, report, slowest=slowest)
    assert not report.broken()
