"""What holds NATS' promises, taken out: the checker has to notice.

Syncing is no guard that a SIGKILL can show: the page cache survives it, with `sync_interval: 2m` too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from nats.aio.client import Client

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.nats import line_to, stream, tell
from tests.faults.recorder import Recorder
from tests.faults.test_guards_matter import (  # noqa: F401 - the same guard above this engine
    test_acknowledging_before_the_handler_loses,
    test_acknowledging_behind_it_does_not,
)
from tests.faults.worker import Publisher, build, publish_noted
from tests.servers import Server
from wowevent import Event, EventBus
from wowevent.broker import Ack, Retry, Settlement
from wowevent.brokers import open_broker
from wowevent.brokers.nats import consumers, driver, tags
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Confirm, Message
from wowevent.brokers.nats.serving import Serving
from wowevent.brokers.nats.successors import Successors
from wowevent.errors import BrokerError, BrokerUnavailable, BusError
from wowevent.testing import ManualClock

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.usefixtures("nats")]

FOR_LONG = {"test_acknowledging_behind_it_does_not"}
"""test_consumers_killed_at_each_point_lose_nothing says it, too."""

_GOES_ON = 6  # seconds; a publish is given up after 10
_connect = Client.connect

SOURCE = Publisher(url="", journal="", name="p")
SMUGGLED = "load.made 12 12\r\nNATS/1.0\r\n\r\n\r\nPUB smuggled 2\r\nhi\r\nPUB rest"
"""As a topic: the end of one message, a whole one, and the beginning of a third."""


async def publish(lab: Lab, *numbers: int) -> None:
    """Written down as any other."""
    with lab.journal("test") as journal:
        async with EventBus(lab.url) as bus:
            await publish_noted(bus, journal, [build(SOURCE, number) for number in numbers])


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_known_ids_an_event_is_stored_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    """The ids that the server knows are what makes publishing again safe."""
    if not guarded:
        monkeypatch.setattr(tags, "_ID", b"No-Id")
    await lab.declare()
    await publish(lab, *range(20))
    await publish(lab, *range(20))
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.broken()) is not guarded
    assert len(report.duplicates) == (0 if guarded else 20)
    assert len(report.conflicts) == (0 if guarded else 20)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_awaiting_confirms_what_was_sent_is_lost(
    lab: Lab, nats: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """What is written into a line that is dead is with nobody."""
    await lab.declare()
    real = Link.publish

    async def hasty(self: Link, messages: Sequence[Message]) -> Sequence[Confirm]:
        if any(".n.load." in message.subject for message in messages):
            for message in messages:
                self.send(message.subject, message.body, "", message.headers)
            return [Confirm(seq=1)] * len(messages)
        return await real(self, messages)

    async with line_to(nats) as (proxy, url), EventBus(url) as bus:
        with lab.journal("test") as journal:
            await publish_noted(bus, journal, [build(SOURCE, 0)])
            if not guarded:
                monkeypatch.setattr(Link, "publish", hasty)
            proxy.stop_passing()
            publishing = asyncio.create_task(publish_noted(bus, journal, [build(SOURCE, 1)]))
            await asyncio.sleep(0.5)
            proxy.strand()
            proxy.reset()
            await publishing
            monkeypatch.undo()
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.lost) is not guarded


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has heard nothing of for two seconds it gives to the next: twelve are not waited for here."""
    monkeypatch.setattr(consumers, "_LEAST", 1.5)
    monkeypatch.setattr(consumers, "_MARGIN", 1.0)
    monkeypatch.setattr(Serving, "touch", lambda _: None)


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("guarded", [True, False])
async def test_an_acknowledgement_before_its_copy_is_stored_loses(
    lab: Lab, nats: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The stream of what is delayed takes nothing just when a retry is to go there, and then this instance is gone."""
    real = Serving._settle  # noqa: SLF001 - the guard is in there

    async def hasty(self: Serving, settlements: Sequence[Settlement], popped: dict[str, Any]) -> int:
        await self.lanes.ack([self.leases[order.token].here for order in settlements])
        return await real(self, settlements, popped)

    if not guarded:
        monkeypatch.setattr(Serving, "_settle", hasty)
    await lab.declare()
    await publish(lab, 0)
    config = (await tell(nats, f"STREAM.INFO.{stream('later')}"))["config"]
    await tell(nats, f"STREAM.UPDATE.{stream('later')}", **{**config, "max_bytes": 1})
    async with line_to(nats) as (proxy, url):
        broker = open_broker(url)
        (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)
        with pytest.raises(BrokerError):
            await broker.settle(SUBSCRIPTION, [Retry(lease.token, delay=60.0, error="failed")])
        proxy.reset()
        await asyncio.sleep(0.1)
        await broker.close()
    await tell(nats, f"STREAM.UPDATE.{stream('later')}", **config)
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.broken()) is not guarded
    assert bool(report.lost) is not guarded


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("guarded", [True, False])
async def test_without_the_holders_clock_an_event_is_settled_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server takes a late acknowledgement of what it has given to the next one: who was late has to know."""
    if not guarded:
        monkeypatch.setattr(Serving, "_stale", lambda *_: False)
    await lab.declare(lease=1.0)
    await publish(lab, 0)
    with lab.journal("late") as one, lab.journal("next") as two:
        late = Recorder(open_broker(lab.url, clock=ManualClock()), one)  # its leases never end by themselves
        following = Recorder(open_broker(lab.url), two)
        held = [(broker, await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)) for broker in (late, following)]
        for broker, (lease,) in reversed(held):
            await broker.settle(SUBSCRIPTION, [Ack(lease.token)])
        await late.close()
        await following.close()
    report = await lab.verdict()
    assert bool(report.broken().get("settled_twice")) is not guarded


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize("guarded", [True, False])
async def test_without_the_name_of_its_predecessor_a_message_has_two_successors(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Two hold one event, and both send it on."""
    monkeypatch.setattr(Serving, "_stale", lambda *_: False)  # else the first one would know that it is late
    if not guarded:
        monkeypatch.setattr(Successors, "_id_of", lambda *_: "")
    await lab.declare(lease=1.0)
    await publish(lab, 0)
    late, following = open_broker(lab.url, clock=ManualClock()), open_broker(lab.url)
    (first,) = await late.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    (second,) = await following.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    assert await late.settle(SUBSCRIPTION, [Retry(first.token, charge=False)]) == 1
    assert await following.settle(SUBSCRIPTION, [Ack(second.token)]) == 1
    assert len(await following.fetch(SUBSCRIPTION, limit=1, wait=1.0)) == (0 if guarded else 1)
    await following.close()
    await late.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_by_the_drivers_own_pings_a_dead_line_goes_unnoticed(
    nats: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Who only waits asks nothing: with ours, each second here, it is told; the driver's take four minutes."""
    monkeypatch.setattr(driver, "_PING", 1 if guarded else 120)
    async with line_to(nats) as (proxy, url):
        link = await Link.dial([url], {})
        ended = asyncio.Event()
        link.on_end.append(ended.set)
        proxy.strand()
        waiting = asyncio.ensure_future(ended.wait())
        await asyncio.wait([waiting], timeout=15.0 if guarded else 5.0)
        assert waiting.done() is guarded
        await link.close()
        await waiting


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_an_allow_list_a_topic_carries_messages_of_its_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server takes what follows a line break for the next command."""
    heard: list[bytes] = []
    listening = await Link.dial([lab.url], {})
    listening.hear("smuggled", lambda _subject, _reply, body, _headers: heard.append(body))
    await listening.reach()
    broker = open_broker(lab.url)
    await broker.ping()
    if not guarded:
        monkeypatch.setattr("wowevent.event.check_topic", str)
    async with asyncio.timeout(30):
        with suppress(BusError):
            await broker.publish([Event(topic=SMUGGLED)])
    await listening.reach()
    assert heard == ([] if guarded else [b"hi"])
    await broker.close()
    await listening.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_who_leaves_reconnecting_to_the_driver_is_served_no_more(
    lab: Lab, nats: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool, measured
):
    """It subscribes again what it knows of, which is not ours; and what was given up lies in its buffer."""
    if not guarded:
        monkeypatch.setattr(Client, "connect", by_itself)
    handled: list[str] = []
    async with EventBus(lab.url) as bus:
        await bus.subscribe(
            "load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION, subscription=SUBSCRIPTION
        )
        await bus.publish(build(SOURCE, 0))
        await bus.join(5)
        await asyncio.to_thread(nats.kill)
        await asyncio.to_thread(nats.start)
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOES_ON):
                while len(handled) < 2:
                    with suppress(BrokerUnavailable):
                        await bus.publish(Event(topic="load.made"))
                    await asyncio.sleep(0.1)
        measured(1, recovery=time.monotonic() - began)
        assert (len(handled) > 1) is guarded


async def by_itself(self: Client, **options: Any) -> None:
    """As the driver does if nobody says otherwise."""
    del options["disconnected_cb"]
    options |= {"allow_reconnect": True, "max_reconnect_attempts": 60, "reconnect_time_wait": 0.1}
    await _connect(self, **options | {"pending_size": 2 * 2**20})
