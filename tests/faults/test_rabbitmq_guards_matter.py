"""What holds RabbitMQ's promises, taken out: the checker has to notice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiormq
import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.proxy import Proxy
from tests.faults.rabbit import Rabbit
from tests.faults.test_guards_matter import (  # noqa: F401 - the same guard above this engine
    test_acknowledging_before_the_handler_loses,
    test_acknowledging_behind_it_does_not,
)
from tests.faults.test_rabbitmq_kills import promises
from tests.faults.worker import Publisher, build, publish_noted
from wowevent import EventBus
from wowevent.broker import Retry, Settlement
from wowevent.brokers import open_broker, rabbitmq
from wowevent.brokers.rabbitmq.control import Control
from wowevent.brokers.rabbitmq.link import Link, Message
from wowevent.brokers.rabbitmq.registry import Returned
from wowevent.brokers.rabbitmq.serving import Serving
from wowevent.errors import BrokerUnavailable

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.usefixtures("rabbit")]

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
            self._queue += [(message, self._writing.get_loop().create_future()) for message in messages]
            self._news.notify()
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
    assert bool(promises(report)) is not guarded
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
