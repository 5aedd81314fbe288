"""What holds RabbitMQ's promises, taken out: the checker has to notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import aiormq
import pytest

from tests.faults.journal import Journal
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.proxy import Proxy
from tests.faults.rabbit import YOUNG, Rabbit, gone, line_to
from tests.faults.test_guards_matter import (  # noqa: F401 - the same guard above this engine
    test_acknowledging_before_the_handler_loses,
    test_acknowledging_behind_it_does_not,
)
from tests.faults.worker import Publisher, build, publish_noted
from wowevent import Event, EventBus
from wowevent.broker import Broker, Retry, Settlement, Subscription
from wowevent.brokers import open_broker, rabbitmq
from wowevent.brokers.rabbitmq import lanes, link
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.lanes import Lanes
from wowevent.brokers.rabbitmq.link import Link
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.registry import Returned
from wowevent.brokers.rabbitmq.serving import Serving
from wowevent.brokers.rabbitmq.session import Session
from wowevent.brokers.rabbitmq.young import Young
from wowevent.errors import BrokerUnavailable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.usefixtures("rabbit")]

_MANY, _LEADERS = 1_500, 3
_GONE = 40  # subscriptions that come and go
_ANSWERED = 15  # seconds within which a server that was started again serves a subscription
_HEALED = 60  # seconds: silence is noticed after 9, who comes next asks for 3, to delete takes 5
_NOT_STORED = 100  # messages that go into no stream
_KILL_LEADER = (
    '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"agent_events#history">>)), '
    "exit(amqqueue:get_pid(Q), kill)."
)

SOURCE = Publisher(url="", journal="", name="p")


async def publish(lab: Lab, url: str, *numbers: int) -> None:
    """Written down as any other."""
    with lab.journal("test") as journal:
        async with EventBus(url) as bus:
            await publish_noted(bus, journal, [build(SOURCE, number) for number in numbers])


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_awaiting_confirms_what_was_sent_is_lost(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """What is written into a line that is dead is with nobody."""
    await lab.declare()
    real = Link.publish

    async def hasty(self: Link, messages: Sequence[Message]) -> None:
        if any(message.key.startswith("load.") for message in messages):
            for message in messages:
                self._outlets[message.stream].put(message)
            return
        await real(self, messages)

    if not guarded:
        monkeypatch.setattr(Link, "publish", hasty)
    async with (
        Proxy(rabbit.server.port, plain=True) as proxy,
        EventBus(f"amqp://127.0.0.1:{proxy.port}/{rabbit.host}") as bus,
    ):
        with lab.journal("test") as journal:
            await publish_noted(bus, journal, [build(SOURCE, 0)])
            proxy.stop_passing()
            publishing = asyncio.create_task(publish_noted(bus, journal, [build(SOURCE, 1)]))
            await asyncio.sleep(0.5)
            proxy.strand()
            proxy.reset()
            await publishing
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.lost) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_known_ids_what_is_published_again_is_handled_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server stores what comes again: who has settled it drops it."""
    if not guarded:
        monkeypatch.setattr(Serving, "_note_settled", lambda *_: None)
    handled: list[str] = []
    async with EventBus(lab.url) as bus:
        await bus.subscribe("load.#", lambda event: handled.append(event.event_id), "it", subscription=SUBSCRIPTION)
        await publish(lab, lab.url, *range(20))
        await lab.until(lambda: len(handled) == 20)
        await publish(lab, lab.url, *range(20), 20)
        await lab.until(lambda: "p-20" in handled)
        await bus.join()
    assert len(handled) == (21 if guarded else 41)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_mandatory_what_goes_nowhere_is_confirmed(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Somebody took the bindings away: no queue gets it, and the server confirms that."""
    await lab.declare()

    def optional(*arguments: Any, **options: Any) -> Message:
        return Message(*arguments, **{**options, "mandatory": False})

    async with EventBus(lab.url) as bus:
        if not guarded:
            monkeypatch.setattr(rabbitmq, "Message", optional)
        connection = await aiormq.connect(rabbit.url)
        channel = await connection.channel()
        await channel.queue_unbind("agent_events#history", "agent_events", "#")
        for band in ("low", "normal"):
            await channel.queue_unbind(SUBSCRIPTION, "agent_events", f"load.#.{band}")
        await connection.close()
        with lab.journal("test") as journal:
            await publish_noted(bus, journal, [build(SOURCE, 0)])
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.lost) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_acknowledgement_before_its_copy_is_confirmed_loses(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The queue of what is delayed is gone just when a retry is to go there."""
    real = Serving._settle  # noqa: SLF001 - the guard is in there

    async def hasty(self: Serving, settlements: Sequence[Settlement], popped: dict[str, Any]) -> int:
        await self.lanes.ack([self.leases[order.token].here.number for order in settlements])
        return await real(self, settlements, popped)

    if not guarded:
        monkeypatch.setattr(Serving, "_settle", hasty)
    await lab.declare()
    await publish(lab, lab.url, 0)
    broker = open_broker(lab.url)
    (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    connection = await aiormq.connect(rabbit.url)
    await (await connection.channel()).queue_delete("agent_events#later")
    await connection.close()
    with pytest.raises(BrokerUnavailable):
        await broker.settle(SUBSCRIPTION, [Retry(lease.token, delay=60.0, error="failed")])
    await broker.close()
    await lab.drain()
    report = await lab.verdict()
    assert bool(lab.broken(report)) is not guarded
    assert bool(report.lost) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_its_note_what_is_given_back_is_charged(lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    """The server counts whatever comes back: who gave it back untouched would be taken for one that crashed."""
    real = Control.append

    async def silent(self: Control, entry: Any) -> Any:
        return None if isinstance(entry, Returned) else await real(self, entry)

    if not guarded:
        monkeypatch.setattr(Control, "append", silent)
    await lab.declare()
    await publish(lab, lab.url, 0)
    broker = open_broker(lab.url)
    (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    assert await broker.settle(SUBSCRIPTION, [Retry(lease.token, charge=False)]) == 1
    (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)
    assert lease.crashes == (0 if guarded else 1)
    await broker.close()


async def publish_one_by_one(bus: EventBus, journal: Journal, events: Iterator[Event]) -> None:
    """Each of those that nobody else took."""
    for event in events:
        await publish_noted(bus, journal, [event])


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_channel_of_its_own_the_history_loses_what_follows_a_new_leader(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server takes for known what it was sent after that, and confirms it: the subscriptions have it alone."""

    def with_others(*arguments: Any, **options: Any) -> Message:
        return Message(*arguments, **{**options, "stream": ""})

    await lab.declare()
    if not guarded:
        monkeypatch.setattr(rabbitmq, "Message", with_others)
    broker = open_broker(lab.url)
    async with EventBus(broker) as bus:
        await broker.publish([Event(topic="_reply.nobody")] * _NOT_STORED)
        with lab.journal("test") as journal:
            events = iter([build(SOURCE, number) for number in range(_MANY)])
            publishers = [asyncio.create_task(publish_one_by_one(bus, journal, events)) for _ in range(8)]
            for killed in range(_LEADERS):
                await lab.written((killed + 1) * _MANY // (_LEADERS + 2), "ok", process="test")
                await asyncio.to_thread(rabbit.tell, _KILL_LEADER % rabbit.host)
            await asyncio.gather(*publishers)
    await broker.close()
    await lab.drain()
    report = await lab.verdict()
    assert not report.lost
    assert bool(report.ok - set(await lab.stored())) is not guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_bound_a_publish_waits_for_ever(rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    """Nothing passes, and no heartbeat says so yet."""
    async with line_to(rabbit) as (proxy, url):
        broker = open_broker(f"{url}?heartbeat=60")
        await broker.publish([build(SOURCE, 0)])
        monkeypatch.setattr(link, "SILENCE", 1.0 if guarded else 3_600.0)
        proxy.stop_passing()
        publishing = asyncio.ensure_future(broker.publish([build(SOURCE, 1)]))
        await asyncio.wait([publishing], timeout=3.0)
        assert publishing.done() is guarded
        monkeypatch.undo()
        proxy.pass_on()
        (told,) = await asyncio.gather(publishing, return_exceptions=True)
        assert isinstance(told, BrokerUnavailable) is guarded
        await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_by_the_drivers_own_heartbeat_a_dead_line_goes_unnoticed(
    rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Who only waits asks nothing: with ours, a second here, it is told; the driver's takes minutes."""
    monkeypatch.setattr(link, "HEARTBEAT", 1)
    if not guarded:
        monkeypatch.setattr(link, "_beating", lambda url: url)
    async with line_to(rabbit) as (proxy, url):
        line = await Link.dial([url])
        ended = asyncio.Event()
        line.on_end.append(ended.set)
        proxy.strand()
        waiting = asyncio.ensure_future(ended.wait())
        await asyncio.wait([waiting], timeout=15.0 if guarded else 5.0)
        assert waiting.done() is guarded
        await line.close()
        await waiting


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_unbinding_it_first_a_queue_that_goes_breaks_who_publishes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server ends the line on which an event is on its way into a queue that is deleted."""
    if not guarded:

        async def nothing(_: Session, __: Subscription) -> None:
            """It is deleted as it is."""

        monkeypatch.setattr(Session, "unroute", nothing)
    over, broken = asyncio.Event(), 0

    async def publish_on(bus: EventBus) -> None:
        while not over.is_set():
            await bus.publish(Event(topic="load.made", payload={}))

    async with EventBus(lab.url) as one, EventBus(lab.url) as two, asyncio.TaskGroup() as group:
        for bus in (one, two) * 4:
            group.create_task(publish_on(bus))
        for number in range(_GONE):
            try:
                await one.broker.declare(Subscription(id=f"brief-{number}", patterns=("#",)))
                await two.broker.remove(f"brief-{number}")
            except BrokerUnavailable:  # its own line was the one
                broken += 1
                if not guarded:
                    break
        over.set()
    assert (broken == 0) is guarded


async def comes_back(broker: Broker) -> bool:
    """Whether there is something to fetch soon after the server is back."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWERED):
            while True:
                with suppress(BrokerUnavailable):
                    if await broker.fetch(SUBSCRIPTION, limit=1, wait=0.5):
                        return True
    return False


async def crash(lab: Lab) -> Broker:
    """Whoever had an event lost its lease, so that the next fetch has to make the queue of suspects."""
    await lab.declare(lease=1.0)
    broker = open_broker(lab.url)
    await broker.publish([build(SOURCE, 1)])
    assert await broker.fetch(SUBSCRIPTION, limit=1, wait=5)
    await asyncio.sleep(1.0)
    return broker


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_waiting_a_queue_made_for_a_suspect_goes_with_the_server(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """A server that dies twice in a moment: its young queue answers nobody any more, and what is in it is gone."""
    if not guarded:
        monkeypatch.setattr(lanes, "YOUNG", 0.0)
    broker = await crash(lab)
    (suspect,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=5)
    assert suspect.crashes == 1
    await asyncio.to_thread(rabbit.restart)
    assert await comes_back(broker) is guarded
    await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_deleting_it_a_queue_that_was_being_made_stays_broken(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Nothing was put into it yet: it is made anew."""
    broker = await crash(lab)
    fetching = asyncio.create_task(broker.fetch(SUBSCRIPTION, limit=1, wait=5))
    async with asyncio.timeout(5):
        while f"{SUBSCRIPTION}#suspect" not in await asyncio.to_thread(rabbit.names, "amqqueue"):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
    await asyncio.to_thread(rabbit.server.kill)
    if not guarded:

        async def something(_: Link, queues: Sequence[str]) -> int:
            """As if there was something in it."""
            return len(queues)

        monkeypatch.setattr(Link, "count", something)
    await asyncio.to_thread(rabbit.server.start)
    with suppress(BrokerUnavailable):
        await fetching
    assert await comes_back(broker) is guarded
    await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_making_them_anew_the_queues_of_a_young_subscription_refuse_who_publishes(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool, measured
):
    """The server died a moment after the subscription was declared."""
    if not guarded:

        def nobody(_: Young) -> None:
            """Asks them."""

        monkeypatch.setattr(Young, "ask", nobody)
    handled: list[str] = []
    began = time.monotonic()
    async with EventBus(lab.url) as bus:
        await bus.publish(Event(topic="other"))
        await asyncio.sleep(YOUNG)  # the history, too, was made just now
        await bus.subscribe(
            "load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION, subscription=SUBSCRIPTION
        )
        await asyncio.to_thread(rabbit.restart)
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEALED if guarded else 40):
                while not handled:
                    with suppress(BrokerUnavailable):
                        await bus.publish(Event(topic="load.made"))
                    await asyncio.sleep(0.1)
    measured(1, recovery=time.monotonic() - began)
    assert bool(handled) is guarded


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_heeding_it_a_consumer_that_the_server_ended_waits_for_ever(
    lab: Lab, rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch, guarded: bool, measured
):
    """Its queue was deleted: publishing goes on, since the history has each event, and nothing comes any more."""
    if not guarded:
        monkeypatch.setattr(Lanes, "_cancelled", lambda _, __: None)
    handled: list[str] = []
    async with EventBus(lab.url) as bus:
        await bus.subscribe(
            "load.#", lambda event: handled.append(event.event_id), SUBSCRIPTION, subscription=SUBSCRIPTION
        )
        await bus.publish(build(SOURCE, 0))
        await bus.join(_ANSWERED)
        await gone(rabbit, SUBSCRIPTION)
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERED):
                while len(handled) < 2:
                    with suppress(BrokerUnavailable):
                        await bus.publish(Event(topic="load.made"))
                    await asyncio.sleep(0.1)
        measured(1, recovery=time.monotonic() - began)
    assert (len(handled) > 1) is guarded
