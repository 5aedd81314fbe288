"""The NATS engine under load, while the processes that use it, and the server itself, are killed.

The server syncs every write before it answers. What it knows of consumers it writes a moment later, so that what was
acknowledged when the server was killed may come once more: it is counted among the duplicates, and no promise is broken
by it (`UNANSWERED`). After a kill of a client nothing of the kind may happen. What a dead client held comes 12 s later,
the least time for which the server waits for a word of it: that is what these tests take so long for.
"""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random

import pytest

from tests.faults import test_semantics
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import UNANSWERED, all_go_on, says
from tests.faults.nats import restart
from tests.faults.test_kills import (  # noqa: F401 - the same promises, kept by this engine
    test_killed_consumers_lose_nothing,
    test_killed_publishers_lose_nothing_that_was_confirmed,
    test_sigterm_drains,
    test_two_processes_share_a_file,
)
from tests.faults.test_redis_kills import (  # noqa: F401
    test_a_kill_at_any_message_of_a_burial_leaves_one_dead_letter,
)
from tests.faults.test_semantics import (  # noqa: F401
    test_a_ledger_is_exact_after_kills,
    test_a_replay_is_the_original,
    test_an_innocent_keeps_its_own_attempts,
    test_poison_gets_its_attempts_and_innocents_none_of_the_blame,
    test_poisons_side_by_side,
    test_ten_thousand_ids_are_known_after_a_restart,
)
from tests.servers import Server
from wowevent import Event, EventBus, Reject, RetryPolicy, current

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600), pytest.mark.usefixtures("nats")]

FOR_LONG = {
    "test_a_kill_at_any_message_of_a_burial_leaves_one_dead_letter",
    "test_a_ledger_is_exact_after_kills",
    "test_a_replay_is_the_original",
    "test_an_innocent_keeps_its_own_attempts",
    "test_backoff_survives_a_kill_of_who_sends_on",
    "test_backoff_survives_kills_of_consumers",
    "test_killed_consumers_lose_nothing[acked]",
    "test_killed_consumers_lose_nothing[before]",
    "test_killed_consumers_lose_nothing[effect]",
    "test_poison_gets_its_attempts_and_innocents_none_of_the_blame[1-4]",
    "test_poison_gets_its_attempts_and_innocents_none_of_the_blame[3-4]",
    "test_poison_gets_its_attempts_and_innocents_none_of_the_blame[1-1]",
    "test_poisons_side_by_side",
}
"""Each kill costs them 12 s."""
_LATER = 6.0  # seconds: longer than a server takes to be there again


async def judge(lab: Lab, measured, rounds: int, **facts: object) -> None:
    """Nothing was refused, what was confirmed is stored once and handled; no position has two events."""
    assert not lab.history("failed", "unknown")
    stored = await lab.stored()
    assert len(stored) == len(set(stored))
    drain = await lab.drain(timeout=300)
    report = await lab.verdict()
    again = len(report.broken().get("revived", ()))
    measured(rounds, report, **facts, acked_and_delivered_again=again, drain=drain)
    lab.forgiven = UNANSWERED
    assert not lab.broken(report)
    assert report.handled == frozenset(stored)
    assert report.ok <= report.handled


async def test_consumers_killed_at_each_point_lose_nothing(lab: Lab, measured):
    """SIGKILL before the effect, after it, and after the acknowledgement, one after the other on one log."""
    random = Random(2)
    await lab.declare()
    publisher = lab.publisher(count=200)
    for point in ("before", "effect", "acked"):
        consumer = lab.consumer(die=point, die_at=random.randint(1, 30))
        assert await lab.ended(consumer) == -signal.SIGKILL
    assert await lab.ended(publisher, timeout=120) == 0
    took = await lab.drain()
    report = await lab.verdict()
    measured(3, report, recovery=took)
    assert not report.broken()
    assert report.handled == report.ok
    assert len(report.ok) == 200


async def test_a_stopped_consumer_is_too_late(lab: Lab, long_form: bool, measured):
    """SIGSTOP until the server gives away what it held: another one settles it, and the late one changes nothing."""
    rounds = 20 if long_form else 1
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


async def test_backoff_survives_kills_of_consumers(lab: Lab, long_form: bool, measured):
    """Retries come within 20 % of their time, with their counts, as long as the one lives that sends them on."""
    async with EventBus(lab.url):  # that is the first one that came
        await test_semantics.test_backoff_survives_restarts(lab, long_form, measured)


async def test_backoff_survives_a_kill_of_who_sends_on(lab: Lab, measured):
    """Then another one sends on when it has heard nothing for 2 s; none comes too early, and each has its counts."""
    await test_semantics.publish(lab, [test_semantics.plain(number) for number in range(5)])
    consumer = lab.consumer(fail=1, initial=1.5)
    await lab.written(5, "retried")
    consumer.kill()
    await lab.drain(fail=1, initial=1.5)
    waits: list[float] = []
    for number in range(5):
        (first, second), (failed,) = (lab.history(what, id=f"plain-{number}") for what in ("delivered", "retried"))
        assert (first.attempt, second.attempt) == (1, 2)
        waits.append(second.time - failed.time)
    report = await lab.verdict()
    measured(5, report, promised=1.5, earliest=min(waits), latest=max(waits))
    assert not report.broken()
    assert min(waits) >= 1.45
    assert max(waits) <= 5  # it joins after the kill, and listens for 2 s first


async def test_what_is_due_leaves_within_three_seconds_of_a_kill_of_who_sends_on(lab: Lab, long_form: bool, measured):
    """Events that fall due all the time; each is stored once, however many of them both had in their hands."""
    rounds, count, latest = 10 if long_form else 2, 40, 0.0
    came: dict[str, float] = {}
    due: dict[str, float] = {}

    def handler(event: Event) -> None:
        came.setdefault(event.event_id, time.monotonic())

    sender = lab.consumer()
    await lab.written(1, "ready", process=sender.name)
    async with EventBus(lab.url) as one, EventBus(lab.url) as two:
        await one.subscribe("other.#", handler, "other")
        for number in range(rounds):
            for each in range(count):
                id = f"o-{number}-{each}"
                due[id] = time.monotonic() + 1.0
                await two.publish(Event(topic="other.made", event_id=id), delay=1.0)
                if each == count // 3:
                    sender.kill()
                await asyncio.sleep(0.05)
            await lab.until(lambda: len(came) == len(due))
            latest = max(latest, *(came[id] - due[id] for id in due))
            sender = lab.consumer()
            await lab.written(1, "ready", process=sender.name)
        stored = [each.event.event_id async for each in one.history(pattern="other.#")]
    measured(rounds, latest=latest)
    assert sorted(stored) == sorted(due)
    assert latest < 3


async def test_a_killed_server_loses_nothing(lab: Lab, nats: Server, long_form: bool, measured):
    """SIGKILL at any moment, and a start on the same port and directory: everybody goes on by himself, and says so."""
    rounds, random, slowest, told = 50 if long_form else 2, Random(5), 0.0, 0.0
    await lab.declare()
    consumers = [lab.consumer(concurrency=4, lease=5.0) for _ in range(2)]
    publishers = [lab.publisher(tasks=5) for _ in range(2)]
    for each in (*consumers, *publishers):  # a bus that starts while its server is away says so, and ends
        await lab.written(1, "ready", process=each.name)
    await lab.written(50, "acked")
    async with EventBus(lab.url) as bus:
        assert (await bus.health())["status"] == "healthy"
        for _ in range(rounds):
            await lab.written(len(lab.history("ok")) + random.randint(50, 400), "ok")
            await asyncio.to_thread(nats.kill)
            told = max(told, await says(bus, "nats", "unreachable"))
            await asyncio.to_thread(nats.start)
            slowest = max(slowest, await all_go_on(lab) + await says(bus, "nats", "connected"))
    for publisher in publishers:
        publisher.kill()
    for consumer in consumers:
        consumer.signal(signal.SIGTERM)
        assert await lab.ended(consumer) == 0
    await judge(lab, measured, rounds, recovery=slowest, told_after=told)
    assert slowest < 15


async def test_ten_thousand_events_through_two_restarts(lab: Lab, nats: Server, long_form: bool, measured):
    """One in good order at a third, one by SIGKILL at a half."""
    count, began = 10_000 if long_form else 3_000, time.monotonic()
    await lab.declare()
    consumer = lab.consumer(concurrency=4, lease=5.0)
    await lab.written(1, "ready", process=consumer.name)
    publisher = lab.publisher(count=count)
    for reached, how in ((count // 3, signal.SIGTERM), (count // 2, signal.SIGKILL)):
        await lab.written(reached, "ok", timeout=120)
        await restart(nats, how)
    assert await lab.ended(publisher, timeout=300) == 0
    consumer.signal(signal.SIGTERM)
    assert await lab.ended(consumer) == 0
    await judge(lab, measured, 2, seconds=time.monotonic() - began)
    assert len(lab.history("ok")) == count


async def test_what_waits_survives_a_kill_of_the_server(lab: Lab, nats: Server, measured):
    """A delayed event, a retry and a dead letter; the first two come at their time, once, with their counts.

    The server may have forgotten that it delivered the others: they are handled once more, and leave one letter.
    """
    came: list[tuple[str, int, float]] = []

    def handler(event: Event) -> None:
        delivery = current()
        assert delivery is not None
        came.append((event.event_id, event.retry_count, time.monotonic()))
        if event.event_id == "dead":
            raise Reject("not this one")
        if event.event_id == "again" and event.retry_count == 0:
            raise RuntimeError("once")

    async with EventBus(lab.url) as bus:
        policy = RetryPolicy(max_retries=3, initial=_LATER)
        await bus.subscribe("load.#", handler, SUBSCRIPTION, subscription=SUBSCRIPTION, retry=policy)
        began = time.monotonic()
        await bus.publish(Event(topic="load.made", event_id="later"), delay=_LATER)
        for id in ("again", "dead"):
            await bus.publish(Event(topic="load.made", event_id=id))
        await lab.until(lambda: len(came) == 2)
        while not await bus.dead_letters.list():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)
        await restart(nats)
        back = time.monotonic() - began
        await lab.until(lambda: {("again", 1), ("later", 0)} <= {(id, count) for id, count, _ in came}, timeout=60)
        letters = await bus.dead_letters.list()
    assert [letter.event.event_id for letter in letters] == ["dead"]
    counts = [(id, count) for id, count, _ in came]
    assert set(counts) == {("again", 0), ("again", 1), ("dead", 0), ("later", 0)}
    assert counts.count(("later", 0)) == counts.count(("again", 1)) == 1
    late = max(at - began for _, _, at in came) - max(_LATER, back)
    measured(1, late=late, handled_twice=len(counts) - 4)
    assert late < 5
