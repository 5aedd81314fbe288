"""A NATS server that loses what the engine made there: it is noticed, mended and said, and all goes on."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import Traffic, history_of
from tests.faults.nats import LEASE, STREAMS, restart, stream, tell
from tests.servers import Server
from wowevent import Event, EventBus
from wowevent.broker import Ack, Query, Retry
from wowevent.brokers import open_broker
from wowevent.errors import BrokerError, BrokerUnavailable, PositionLost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("nats")]

_WITHIN = 15.0  # a beat of 5 s, silence that is noticed after 9.5 s


async def gone(server: Server, *names: str) -> None:
    """Delete streams, as an operator would."""
    for name in names:
        await tell(server, f"STREAM.DELETE.{stream(name)}")


async def consumers(server: Server, *sources: str) -> None:
    """Delete durable consumers of the subscription."""
    for source in sources:
        await tell(server, f"CONSUMER.DELETE.{stream('log')}.{SUBSCRIPTION}-{source}")


async def store(server: Server) -> None:
    """All that JetStream has, with the server."""
    await asyncio.to_thread(server.kill)
    shutil.rmtree(server.folder / "store")
    await asyncio.to_thread(server.start)


LOSSES: dict[str, Callable[[Server], Awaitable[None]]] = {
    "the log": lambda server: gone(server, "log"),
    "what comes again": lambda server: gone(server, "again"),
    "what is delayed": lambda server: gone(server, "later"),
    "the dead letters": lambda server: gone(server, "dead"),
    "the control stream": lambda server: gone(server, "control"),
    "everything": lambda server: gone(server, *STREAMS),
    "a consumer": lambda server: consumers(server, "n"),
    "both consumers": lambda server: consumers(server, "u", "n"),
    "the store": store,
}
UNREAD = {"the log", "everything", "the store"}
"""With these, events may be gone that nobody had read."""


async def healthy(bus: EventBus) -> float:
    """Wait until it says so: what nobody needs just now is missed by the beat. How many seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(_WITHIN):
        while (await bus.health())["status"] != "healthy":  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.parametrize("what", LOSSES)
async def test_what_somebody_deleted_is_made_again(
    lab: Lab, nats: Server, what: str, caplog: pytest.LogCaptureFixture, measured
):
    """By itself; nothing is confirmed that went nowhere, and what may be gone unread is said once."""
    async with EventBus(lab.url) as publishing, EventBus(lab.url) as consuming:
        traffic = Traffic(publishing, consuming, lease=LEASE)
        await traffic.start()
        await traffic.goes_on(within=_WITHIN)
        before = set(traffic.confirmed)
        await LOSSES[what](nats)
        took = await traffic.goes_on(within=2 * _WITHIN)
        await asyncio.sleep(0.3)  # what was on its way
        stored = await history_of(consuming, within=_WITHIN)
        mended = await healthy(consuming)
        twice = len(traffic.handled) - len(set(traffic.handled))
        measured(1, recovery=took, healthy_after=mended, handled_twice=twice)
        assert traffic.confirmed - before <= stored
        assert traffic.confirmed - before <= set(traffic.handled)
        assert took < _WITHIN
        assert caplog.text.count("subscription lost unread events") == (what in UNREAD)


async def test_what_nobody_needs_just_now_is_made_again_too(lab: Lab, nats: Server, measured):
    """No call is under way: the beat finds that the streams are gone."""
    async with EventBus(lab.url) as bus:
        await bus.publish(Event(topic="load.made"))
        await gone(nats, "again", "later", "dead")
        began = time.monotonic()
        async with asyncio.timeout(_WITHIN):
            while await there(nats) != {stream(name) for name in STREAMS}:  # noqa: ASYNC110 - they are the server's
                await asyncio.sleep(0.2)
        measured(1, recovery=time.monotonic() - began)
        await healthy(bus)


async def there(server: Server) -> set[str]:
    """The names of its streams."""
    return set((await tell(server, "STREAM.NAMES"))["streams"])


async def test_what_is_settled_stays_so_when_its_consumer_is_made_again(lab: Lab, nats: Server, measured):
    """The server's cursor is gone: what was published before may come once more, and what comes later comes once."""
    async with EventBus(lab.url) as publishing, EventBus(lab.url) as consuming:
        traffic = Traffic(publishing, consuming, lease=LEASE)
        await traffic.start()
        for _ in range(50):
            await traffic.publish()
        await lab.until(lambda: len(traffic.handled) == 50)
        await consumers(nats, "u", "n")
        await traffic.goes_on(within=_WITHIN)
        for _ in range(50):
            await traffic.publish()
        await lab.until(lambda: traffic.confirmed <= set(traffic.handled))
        await asyncio.sleep(0.5)  # what came twice would come now
    repeated = len(traffic.handled) - len(traffic.confirmed)
    measured(1, repeated=repeated)
    assert repeated <= 50


@pytest.mark.parametrize("what", ["log", "again", "control"])
async def test_what_was_leased_when_it_went_ends_somehow(lab: Lab, nats: Server, what: str):
    """The stream of a leased event, or of its copy, is gone: no call hangs, and what is published then is handled."""
    await lab.declare()
    broker = open_broker(lab.url)
    await broker.publish([Event(topic="load.made", event_id=f"n-{number}") for number in range(2)])
    first, second = await broker.fetch(SUBSCRIPTION, limit=2, wait=5)
    await gone(nats, what)
    for order in (Ack(first.token), Retry(second.token, error="failed")):
        with suppress(BrokerError):
            async with asyncio.timeout(_WITHIN):
                await broker.settle(SUBSCRIPTION, [order])
    seen: set[str] = set()
    async with asyncio.timeout(3 * _WITHIN):
        while "n-2" not in seen:
            with suppress(BrokerError):
                await broker.publish([Event(topic="load.made", event_id="n-2")])
                leases = await broker.fetch(SUBSCRIPTION, limit=5, wait=1)
                seen |= {lease.event.event_id for lease in leases}
                await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases])
    await broker.close()


async def test_a_reader_of_a_log_that_is_gone_is_told(lab: Lab, nats: Server):
    """Its positions are of another log."""
    broker = open_broker(lab.url)
    await broker.publish([Event(topic="load.made")])
    before = (await broker.ping()).head
    await gone(nats, "log")
    async with asyncio.timeout(_WITHIN):
        while True:
            with suppress(BrokerUnavailable):
                await broker.publish([Event(topic="load.made")])
                break
    assert (await broker.ping()).head.epoch != before.epoch
    with pytest.raises(PositionLost):
        async for _ in broker.read(Query(), after=before):
            pass
    await broker.close()


async def test_who_follows_a_log_that_is_gone_is_told(lab: Lab, nats: Server, measured):
    """Not by the server, which says nothing to who waits for more."""
    broker = open_broker(lab.url)
    (first,) = await broker.publish([Event(topic="load.made")])
    assert first.position is not None
    following = aiter(broker.read(Query(), after=first.position, follow=True))
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.5)
    await gone(nats, "log")
    began = time.monotonic()
    with pytest.raises(BrokerError):
        await asyncio.wait_for(waiting, 40)
    took = time.monotonic() - began
    measured(1, told_after=took)
    assert took < 2 * _WITHIN
    await broker.close()


async def test_positions_of_a_restarted_server_go_on(lab: Lab, nats: Server):
    """A restart is no new log: who has a position goes on from there."""
    broker = open_broker(lab.url)
    (first,) = await broker.publish([Event(topic="load.made")])
    await restart(nats)
    with suppress(BrokerUnavailable):
        await broker.ping()
    (second,) = await broker.publish([Event(topic="load.made", event_id="next")])
    assert first.position is not None
    assert second.position is not None
    assert first.position.covers(first.position)
    assert second.position.epoch == first.position.epoch
    found = [each.event.event_id async for each in broker.read(Query(), after=first.position)]
    assert found == ["next"]
    await broker.close()
