"""The Redis engine under load, while the processes that use it, and the server itself, are killed.

The server syncs every write before it answers. A SIGKILL cannot show what that is worth: the page cache survives, so
that `appendfsync everysec` and `no` lose nothing here either. A log that is not written at all does show: see
test_redis_guards_matter.py.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from random import Random

import pytest

from tests.faults.lab import Lab
from tests.faults.load import all_go_on
from tests.faults.test_kills import (  # noqa: F401 - the same promises, kept by this engine
    test_a_stopped_consumer_is_too_late,
    test_killed_consumers_lose_nothing,
    test_killed_publishers_lose_nothing_that_was_confirmed,
    test_sigterm_drains,
    test_two_processes_share_a_file,
)
from tests.faults.test_semantics import (  # noqa: F401
    plain,
    publish,
    test_a_ledger_is_exact_after_kills,
    test_a_replay_is_the_original,
    test_an_innocent_keeps_its_own_attempts,
    test_backoff_survives_restarts,
    test_poison_gets_its_attempts_and_innocents_none_of_the_blame,
    test_poisons_side_by_side,
    test_ten_thousand_ids_are_known_after_a_restart,
)
from tests.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600), pytest.mark.usefixtures("redis")]

FOR_LONG = {"test_poisons_side_by_side"}


async def judge(lab: Lab, measured, rounds: int, **facts: object) -> None:
    """Nothing was refused, what was confirmed is stored once and handled; no position has two events."""
    assert not lab.history("failed", "unknown")
    stored = await lab.stored()
    assert len(stored) == len(set(stored))
    drain = await lab.drain(timeout=300)
    report = await lab.verdict()
    measured(rounds, report, **facts, drain=drain)
    assert not report.broken()
    assert report.handled == frozenset(stored)
    assert report.ok <= report.handled


async def test_a_killed_server_loses_nothing(lab: Lab, redis: Server, long_form: bool, measured):
    """SIGKILL at any moment, and a start on the same port and directory: everybody goes on by himself."""
    rounds, random, slowest = 100 if long_form else 5, Random(5), 0.0
    await lab.declare()
    consumers = [lab.consumer(concurrency=4, lease=5.0) for _ in range(2)]
    publishers = [lab.publisher(tasks=5) for _ in range(2)]
    for each in (*consumers, *publishers):  # a bus that starts while its server is away says so, and ends
        await lab.written(1, "ready", process=each.name)
    await lab.written(50, "acked")
    for _ in range(rounds):
        await lab.written(len(lab.history("ok")) + random.randint(50, 400), "ok")
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(redis.start)
        slowest = max(slowest, await all_go_on(lab))
    for publisher in publishers:
        publisher.kill()
    for consumer in consumers:
        consumer.signal(signal.SIGTERM)
        assert await lab.ended(consumer) == 0
    await judge(lab, measured, rounds, recovery=slowest)
    assert slowest < 5


async def test_ten_thousand_events_through_two_restarts(lab: Lab, redis: Server, long_form: bool, measured):
    """One in good order at a third, one by SIGKILL at a half."""
    count, began = 10_000 if long_form else 3_000, time.monotonic()
    await lab.declare()
    consumer = lab.consumer(concurrency=4, lease=5.0)
    await lab.written(1, "ready", process=consumer.name)
    publisher = lab.publisher(count=count)
    for reached, how in ((count // 3, signal.SIGTERM), (count // 2, signal.SIGKILL)):
        await lab.written(reached, "ok", timeout=120)
        await asyncio.to_thread(redis.kill, how)
        await asyncio.to_thread(redis.start)
    assert await lab.ended(publisher, timeout=300) == 0
    consumer.signal(signal.SIGTERM)
    assert await lab.ended(consumer) == 0
    await judge(lab, measured, 2, seconds=time.monotonic() - began)
    assert len(lab.history("ok")) == count


async def test_a_kill_at_any_message_of_a_burial_leaves_one_dead_letter(lab: Lab, long_form: bool, measured):
    """The letter is sent, it is confirmed, the delivery is acknowledged: SIGKILL before and after each of these."""
    rounds = 4 if long_form else 1
    between: list[int] = []
    letters = number = 0
    while number < 9 * rounds or (not between and number < 9 * 4):  # a heartbeat among the messages shifts the others
        await publish(lab, [plain(number)])
        consumer = lab.consumer(reject=True, die_talking=number % 9, lease=0.5)
        buried = len(lab.history("buried"))
        await lab.until(lambda c, before: c.ended or len(lab.history("buried")) > before, consumer, buried)
        consumer.kill()
        before, letters = letters, len(await lab.dead())
        if letters > before and len(lab.history("buried")) == buried:
            between.append(number % 9)
        number += 1
    took = await lab.drain(reject=True, lease=0.5)
    report = await lab.verdict()
    dead = await lab.dead()
    measured(number, report, recovery=took, between=len(between), dead=len(dead))
    assert Counter(dead) == Counter(f"plain-{each}" for each in range(number))
    assert not report.broken()
    assert between, "none died when the letter was there and the delivery was not acknowledged"
