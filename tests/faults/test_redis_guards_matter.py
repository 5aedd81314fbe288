"""What holds Redis' promises, taken out: the checker has to notice.

The note of lost answers stands in test_redis_network.py. Syncing is no guard that a SIGKILL can show: the page cache
survives it, with `appendfsync no` too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.proxy import Proxy
from tests.faults.redis import KEY, say
from tests.faults.test_guards_matter import (  # noqa: F401 - the same guard above this engine
    test_acknowledging_before_the_handler_loses,
    test_acknowledging_behind_it_does_not,
)
from tests.faults.worker import Publisher, build, publish_noted
from tests.servers import Server
from wowevent import Event, EventBus
from wowevent.broker import Ack, Appended
from wowevent.brokers import open_broker
from wowevent.brokers.redis import RedisBroker, session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.usefixtures("redis")]

SOURCE = Publisher(url="", journal="", name="p")


async def publish(lab: Lab, *numbers: int) -> None:
    with lab.journal("test") as journal:
        async with EventBus(lab.url) as bus:
            await publish_noted(bus, journal, [build(SOURCE, number) for number in numbers])


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_known_ids_an_event_is_stored_twice(lab: Lab, redis: Server, guarded: bool):
    """The ids of the log are what makes publishing again safe."""
    await lab.declare()
    await publish(lab, *range(20))
    if not guarded:
        await say(redis, "DEL", f"{KEY}:ids", f"{KEY}:ids:old")
    await publish(lab, *range(20))
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.broken()) is not guarded
    assert len(report.duplicates) == (0 if guarded else 20)
    assert len(report.conflicts) == (0 if guarded else 20)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_awaiting_confirms_what_was_sent_is_lost(
    lab: Lab, redis: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """What is written into a line that is dead is with nobody."""
    await lab.declare()
    real, sent = RedisBroker.publish, []

    async def hasty(self: RedisBroker, events: Sequence[Event]) -> list[Appended]:
        sent.append(asyncio.create_task(real(self, events)))
        return [Appended(None)] * len(events)

    async with Proxy(redis.port, plain=True) as proxy, EventBus(f"redis://127.0.0.1:{proxy.port}") as bus:
        with lab.journal("test") as journal:
            await publish_noted(bus, journal, [build(SOURCE, 0)])
            if not guarded:
                monkeypatch.setattr(RedisBroker, "publish", hasty)
            proxy.stop_passing()
            publishing = asyncio.create_task(publish_noted(bus, journal, [build(SOURCE, 1)]))
            await asyncio.sleep(0.5)
            proxy.strand()
            proxy.reset()
            await publishing
            monkeypatch.undo()
            await asyncio.gather(*sent, return_exceptions=True)
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.lost) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_log_that_is_not_written_is_lost_with_its_server(lab: Lab, redis: Server, guarded: bool):
    """Without the append-only file a restart goes back to what was written before."""
    await lab.declare()
    await publish(lab, *range(10))
    if not guarded:
        await say(redis, "CONFIG", "SET", "appendonly", "no")
    await publish(lab, *range(10, 20))
    await asyncio.to_thread(redis.kill)
    await asyncio.to_thread(redis.start)
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.lost) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_tokens_that_do_not_name_the_attempt_settle_what_another_one_holds(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """A late acknowledgement would take away what the next one is at work on."""
    if not guarded:
        monkeypatch.setattr(session.Session, "next_prefix", lambda _: "1.1")
    await lab.declare(lease=0.3)
    await publish(lab, 0)
    late, following = open_broker(lab.url), open_broker(lab.url)
    (first,) = await late.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    (second,) = await following.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    assert await late.settle(SUBSCRIPTION, [Ack(first.token)]) == (0 if guarded else 1)
    assert await following.settle(SUBSCRIPTION, [Ack(second.token)]) == (1 if guarded else 0)
    await late.close()
    await following.close()
