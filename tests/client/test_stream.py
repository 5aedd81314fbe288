"""`async for event in client.stream(…)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from tests.client.scripted import line, until
from wowevent import BrokerUnavailable, Closed, Event, EventBus, InvalidTopic
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

Make = Callable[..., EventRouterClient]


async def subscriptions(client: EventRouterClient, count: int) -> None:
    """Return once the router serves so many."""

    async def look() -> bool:
        return bool((await client.get_health())["subscriptions"] == count)

    await until(look)


async def test_events_come_in_order_and_leaving_the_loop_unsubscribes(client: EventRouterClient):
    async def feed() -> None:
        await subscriptions(client, 1)
        for n in range(10):
            await client.publish("a.b", {"n": n})

    feeding = asyncio.create_task(feed())
    got = []
    async for event in client.stream(["a.*", "b.*"]):
        got.append(event.payload["n"])
        if len(got) == 5:
            break
    await feeding
    assert got == [0, 1, 2, 3, 4]
    await subscriptions(client, 0)


async def test_a_named_one_acknowledges_what_was_left_behind_and_gives_back_where_it_ended(
    client: EventRouterClient, bus: EventBus
):
    async with aclosing(client.stream("a.*", name="w")) as stream:
        first = asyncio.ensure_future(anext(stream))
        await subscriptions(client, 1)
        for n in range(5):
            await client.publish("a.b", {"n": n})
        assert (await first).payload == {"n": 0}
        assert (await anext(stream)).payload == {"n": 1}
    await subscriptions(client, 0)
    async with aclosing(client.stream("a.*", name="w")) as stream:
        events = [await anext(stream) for _ in range(4)]
    assert [event.payload["n"] for event in events] == [1, 2, 3, 4]
    assert {event.retry_count for event in events} == {0}


async def test_it_goes_on_after_a_break(router: EventRouter, bus: EventBus, make: Make):
    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        async with aclosing(client.stream("a.*")) as stream:
            first = asyncio.ensure_future(anext(stream))
            await subscriptions(client, 1)
            await bus.publish(Event(topic="a.b", payload={"n": 0}))
            await first
            wire.break_now()
            await bus.publish(Event(topic="a.b", payload={"n": 1}))
            async with asyncio.timeout(5.0):
                assert (await anext(stream)).payload == {"n": 1}
        await client.disconnect()


async def test_disconnect_ends_the_loop(router: EventRouter):
    client = EventRouterClient(router.url)
    await client.connect()

    async def read() -> list[Event]:
        return [event async for event in client.stream("a.*")]

    reading = asyncio.create_task(read())
    await subscriptions(client, 1)
    await client.publish("a.b")
    await until(lambda: client.counters.received)
    await client.disconnect()
    assert len(await asyncio.wait_for(reading, 2.0)) == 1


async def test_the_end_of_a_connection_that_does_not_come_back_is_raised_in_the_loop(bus: EventBus):
    async with EventRouter(port=0, bus=bus) as router:
        client = EventRouterClient(router.url, auto_reconnect=False)
        await client.connect()
        reading = asyncio.ensure_future(anext(client.stream("a.*")))
        await subscriptions(client, 1)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(reading, 2.0)
    await client.disconnect()


async def test_what_makes_no_sense_is_told_with_the_first_step(client: EventRouterClient):
    with pytest.raises(InvalidTopic):
        await anext(client.stream("a*"))
    with pytest.raises(Closed):
        await anext(EventRouterClient().stream("a.*"))
    await subscriptions(client, 0)
