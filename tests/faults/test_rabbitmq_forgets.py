"""A RabbitMQ server that loses what the engine made there: it is noticed, mended and said, and all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiormq
import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.load import Traffic, history_of
from tests.faults.rabbit import Rabbit, gone
from wowevent import Event, EventBus
from wowevent.broker import Query
from wowevent.brokers import open_broker
from wowevent.errors import BrokerUnavailable, PositionLost

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("rabbit")]

_WITHIN = 10.0  # the beat of 5 s, and what mending takes on a busy machine
EVENTS = "agent_events"


async def everything(rabbit: Rabbit) -> None:
    """All that is in the virtual host."""
    queues = [name for name in rabbit.names("amqqueue") if not name.startswith(f"{EVENTS}#l")]  # live, and locks
    exchanges = [name for name in rabbit.names("exchange") if name.startswith(EVENTS)]
    await gone(rabbit, *queues, f"{EVENTS}#later", exchanges=tuple(exchanges))


async def replaced(rabbit: Rabbit) -> None:
    """The virtual host itself is deleted, and made again."""
    await asyncio.to_thread(rabbit.delete)
    await asyncio.to_thread(rabbit.make, rabbit.host)


async def unbound(rabbit: Rabbit) -> None:
    """The bindings alone."""
    connection = await aiormq.connect(rabbit.url)
    channel = await connection.channel()
    await channel.queue_unbind(f"{EVENTS}#history", EVENTS, "#")
    for band in ("low", "normal"):
        await channel.queue_unbind(SUBSCRIPTION, EVENTS, f"load.#.{band}")
    await connection.close()


LOSSES: dict[str, Callable[[Rabbit], Awaitable[None]]] = {
    "the queue": lambda rabbit: gone(rabbit, SUBSCRIPTION),
    "the urgent queue": lambda rabbit: gone(rabbit, f"{SUBSCRIPTION}#urgent"),
    "the exchange": lambda rabbit: gone(rabbit, exchanges=(EVENTS,)),
    "the bindings": unbound,
    "the history": lambda rabbit: gone(rabbit, f"{EVENTS}#history"),
    "the control log": lambda rabbit: gone(rabbit, f"{EVENTS}#control"),
    "the delays": lambda rabbit: gone(rabbit, f"{EVENTS}#later"),
    "everything": everything,
    "the virtual host": replaced,
}
UNREAD = {"the queue", "everything", "the virtual host"}
"""With these, events may be gone that nobody had read."""


@pytest.mark.parametrize("what", LOSSES)
async def test_what_somebody_deleted_is_made_again(
    lab: Lab, rabbit: Rabbit, what: str, caplog: pytest.LogCaptureFixture, measured
):
    """Within a beat, by itself; and nothing is confirmed that went nowhere."""
    async with EventBus(lab.url) as publishing, EventBus(lab.url) as consuming:
        traffic = Traffic(publishing, consuming)
        await traffic.start()
        await traffic.goes_on(within=2 * _WITHIN)
        before = set(traffic.confirmed)
        await LOSSES[what](rabbit)
        took = await traffic.goes_on(within=2 * _WITHIN)
        await asyncio.sleep(0.3)  # what was on its way
        stored = await history_of(consuming, within=_WITHIN)
        measured(1, recovery=took)
        assert traffic.confirmed - before <= stored | set(traffic.handled)
        assert took < _WITHIN
        if what in UNREAD:
            assert caplog.text.count("subscription lost unread events") == 1
        assert (await consuming.health())["status"] == "healthy"


async def test_nobody_looks_and_it_is_noticed_all_the_same(lab: Lab, rabbit: Rabbit):
    """No call is under way: the beat finds that the exchange is gone, as the reader below that the history is."""
    async with EventBus(lab.url) as bus:
        await bus.publish(Event(topic="load.made"))
        await gone(rabbit, exchanges=(EVENTS,))
        async with asyncio.timeout(_WITHIN):
            while EVENTS not in await asyncio.to_thread(rabbit.names, "exchange"):  # noqa: ASYNC110 - it is the server's
                await asyncio.sleep(0.2)


async def test_a_reader_of_a_history_that_is_gone_is_told(lab: Lab, rabbit: Rabbit):
    """Its positions are of another log."""
    broker = open_broker(lab.url)
    await broker.publish([Event(topic="load.made")])
    before = (await broker.ping()).head
    await gone(rabbit, f"{EVENTS}#history")
    async with asyncio.timeout(_WITHIN):
        while True:
            with suppress(BrokerUnavailable):
                if (await broker.ping()).head.epoch != before.epoch:
                    break
            await asyncio.sleep(0.1)
    with pytest.raises(PositionLost):
        async for _ in broker.read(Query(), after=before):
            pass
    await broker.close()
