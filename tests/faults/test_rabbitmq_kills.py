"""The RabbitMQ engine under load, while the processes that use it, and the server itself, are killed.

An acknowledgement is answered by nobody, so that what was acknowledged at the moment of a kill may come once more: it
is counted among the duplicates, and no promise is broken by it (`UNANSWERED`).
"""

from __future__ import annotations

import asyncio
import signal
import time
from random import Random

import pytest

from tests.faults import test_kills
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import all_go_on, says
from tests.faults.rabbit import YOUNG, Rabbit
from tests.faults.test_kills import (  # noqa: F401 - the same promises, kept by this engine
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
    test_backoff_survives_restarts,
    test_poison_gets_its_attempts_and_innocents_none_of_the_blame,
    test_poisons_side_by_side,
)
from tests.faults.worker import empty
from wowevent import Event, EventBus, Reject, RetryPolicy, current

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600), pytest.mark.usefixtures("rabbit")]

FOR_LONG = {
    "test_a_ledger_is_exact_after_kills",
    "test_a_replay_is_the_original",
    "test_backoff_survives_restarts",
    "test_poison_gets_its_attempts_and_innocents_none_of_the_blame[1-1]",
    "test_poison_gets_its_attempts_and_innocents_none_of_the_blame[3-4]",
    "test_poisons_side_by_side",
    "test_sigterm_drains",
    "test_two_processes_share_a_file",
}
"""What the others show in a short time: this server writes each event to three logs, and takes its own time."""
_LATER = 10.0  # seconds: longer than a server takes to be there again
_DROPPED = 2.0  # seconds in which a consumer drops what it has in hand, hundreds at most


async def judge(lab: Lab, measured, rounds: int, **facts: object) -> None:
    """What was confirmed is in the history and handled; what nobody confirmed may be in either."""
    assert not lab.history("failed")
    drain = await lab.drain(timeout=300)
    stored = await lab.stored()
    report = await lab.verdict()
    unknown = frozenset(entry.id for entry in lab.history("unknown"))
    twice = len(stored) - len(set(stored))
    measured(rounds, report, **facts, unknown=len(unknown), stored_twice=twice, drain=drain)
    assert not lab.broken(report)
    assert report.ok <= report.handled
    assert report.ok <= set(stored)
    assert report.handled ^ set(stored) <= report.invoked - report.ok


@pytest.mark.parametrize("point", ["before", "effect", "acked"])
async def test_killed_consumers_lose_nothing(lab: Lab, long_form: bool, point: str, measured):
    """SIGKILL before the effect, after it, and after the acknowledgement: what was in its hands comes again."""
    rounds, random = 100 if long_form else 2, Random(2)
    await lab.declare()
    publisher = lab.publisher(count=40 * rounds)
    for _ in range(rounds):
        consumer = lab.consumer(die=point, die_at=random.randint(1, 30))
        assert await lab.ended(consumer) == -signal.SIGKILL
    assert await lab.ended(publisher, timeout=120) == 0
    took = await lab.drain()
    report = await lab.verdict()
    again = report.broken().get("revived", ())
    measured(rounds, report, recovery=took, acked_and_delivered_again=len(again))
    assert not lab.broken(report)
    assert len(again) <= (rounds if point == "acked" else 0)
    assert report.handled == report.ok
    assert len(report.ok) == 40 * rounds


async def test_a_stopped_consumer_is_too_late(lab: Lab, long_form: bool, measured):
    """SIGSTOP beyond the lease, and beyond the heartbeat, when the server hands on what it had."""
    lab.url += "?heartbeat=1"
    await test_kills.test_a_stopped_consumer_is_too_late(lab, long_form, measured)


async def test_a_killed_server_loses_nothing(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """SIGKILL at any moment, and a start on the same port and directory: everybody goes on by himself, and says so."""
    rounds, random, slowest, told = 30 if long_form else 2, Random(5), 0.0, 0.0
    await lab.declare()
    consumers = [lab.consumer(concurrency=4, lease=30.0) for _ in range(2)]
    publishers = [lab.publisher(tasks=2) for _ in range(2)]
    for each in (*consumers, *publishers):  # a bus that starts while its server is away says so, and ends
        await lab.written(1, "ready", process=each.name)
    async with EventBus(lab.url) as bus:
        assert (await bus.health())["status"] == "healthy"
        for _ in range(rounds):
            await asyncio.sleep(YOUNG)
            await lab.written(len(lab.history("ok")) + random.randint(50, 400), "ok")
            await asyncio.to_thread(rabbit.server.kill)
            told = max(told, await says(bus, "rabbitmq", "unreachable"))
            await asyncio.to_thread(rabbit.server.start)
            slowest = max(slowest, await all_go_on(lab) + await says(bus, "rabbitmq", "connected"))
    for publisher in publishers:
        publisher.kill()
    for consumer in consumers:
        consumer.signal(signal.SIGTERM)
        assert await lab.ended(consumer) == 0
    await judge(lab, measured, rounds, recovery=slowest, told_after=told)
    assert slowest < 15


async def test_ten_thousand_events_through_two_restarts(lab: Lab, rabbit: Rabbit, long_form: bool, measured):
    """One in good order at a third, one by SIGKILL at a half."""
    count, began = 10_000 if long_form else 1_500, time.monotonic()
    await lab.declare()
    consumer = lab.consumer(concurrency=4, lease=30.0)
    await lab.written(1, "ready", process=consumer.name)
    publisher = lab.publisher(count=count)
    for reached, how in ((count // 3, signal.SIGTERM), (count // 2, signal.SIGKILL)):
        await lab.written(reached, "ok", timeout=120)
        await asyncio.to_thread(rabbit.server.kill, how)
        await asyncio.to_thread(rabbit.server.start)
    assert await lab.ended(publisher, timeout=300) == 0
    consumer.signal(signal.SIGTERM)
    assert await lab.ended(consumer) == 0
    await judge(lab, measured, 2, seconds=time.monotonic() - began)
    assert len(lab.history("ok", "unknown")) == count


async def test_what_is_published_again_is_handled_once(lab: Lab, long_form: bool, measured):
    """The same ids by another process, which cannot know them: who settled them drops them where they are fetched."""
    count = 10_000 if long_form else 1_000
    await lab.declare(lease=30.0)
    consumer = lab.consumer(concurrency=4, lease=30.0)
    await lab.written(1, "ready", process=consumer.name)
    first = lab.publisher(name="same", count=count, tasks=4, many=100)
    assert await lab.ended(first, timeout=120) == 0
    await lab.written(count, "acked", timeout=120)
    again = lab.publisher(name="same", count=count, tasks=4, many=100)
    assert await lab.ended(again, timeout=120) == 0
    async with EventBus(lab.url) as bus, asyncio.timeout(60):
        await empty(bus, SUBSCRIPTION)
    await asyncio.sleep(_DROPPED)
    consumer.signal(signal.SIGTERM)
    assert await lab.ended(consumer) == 0
    await lab.drain(lease=30.0)
    report = await lab.verdict()
    measured(1, report)
    assert not lab.broken(report)
    assert len(lab.history("ok")) == 2 * count
    assert not report.duplicates


async def test_what_waits_survives_a_kill_of_the_server(lab: Lab, rabbit: Rabbit, measured):
    """A delayed event, a retry and a dead letter; the first two come at their time, with their counts."""
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
        await asyncio.sleep(YOUNG)
        await asyncio.to_thread(rabbit.restart)
        back = time.monotonic() - began
        await lab.until(lambda: len(came) == 4, timeout=60)
        letters = await bus.dead_letters.list()
    assert [letter.event.event_id for letter in letters] == ["dead"]
    assert sorted((id, count) for id, count, _ in came) == [("again", 0), ("again", 1), ("dead", 0), ("later", 0)]
    late = max(at - began for _, _, at in came) - max(_LATER, back)
    measured(1, late=late)
    assert late < 5
