"""Several routers over one engine, and a bus beside them, act as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.router import conftest
from tests.router.conftest import (
    Frame,
    Join,
    Serve,
    Talker,
    bus_of,
    events,
    eventually,
    numbers,
)
from wowevent import Event, EventBus
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter, courier

url, serve, join, quiet = conftest.url, conftest.serve, conftest.join, conftest.quiet
NAME = "worker"


@pytest.fixture
async def routers(serve: Serve) -> list[EventRouter]:
    """Two, each with a bus of its own: to the engine, two processes."""
    return [await serve(), await serve()]


@pytest.fixture
async def bus(url: str, routers: list[EventRouter]) -> AsyncIterator[EventBus]:
    """One more process, without a router."""
    async with EventBus(url) as bus:
        yield bus


async def ack(client: Talker, *deliveries: Frame) -> Frame:
    tokens = [each["token"] for each in deliveries]
    return await client.ask("ack", subscription_id=deliveries[0]["subscription_id"], tokens=tokens)


async def publish(bus: EventBus, *ns: int, topic: str = "task.created") -> None:
    await bus.publish_many([Event(topic=topic, payload={"n": n}) for n in ns])


async def nothing_is_left(bus: EventBus) -> None:
    async def settled() -> bool:
        info = await bus.broker.info(f"{NAME}~*")
        return info is not None and not (info.ready or info.leased or info.delayed or info.dead)

    await eventually(settled)


# --- named subscriptions --------------------------------------------------------------------------------------------


async def test_a_named_subscription_goes_on_at_the_other_router(routers: list[EventRouter], bus: EventBus, join: Join):
    """What was acknowledged does not come again, what was not and what came meanwhile does: nothing is lost."""
    first = await join(routers[0], client="c-1")
    await first.subscribe(name=NAME)
    await publish(bus, 0, 1, 2)
    got = await first.events(3)
    await ack(first, *got[:2])
    await first.socket.close()
    await publish(bus, 3, 4)
    second = await join(routers[1], client="c-1")
    assert (await second.subscribe(name=NAME))["recovered"] is True
    await publish(bus, 5)
    rest = await second.events(4)
    assert sorted(numbers(rest)) == sorted([numbers(got)[2], 3, 4, 5])
    assert all("attempt" not in each for each in rest), "given back uncharged"
    await ack(second, *rest)
    await second.nothing()
    await nothing_is_left(bus)


async def test_it_moves_to_and_fro_while_events_come(routers: list[EventRouter], bus: EventBus, join: Join):
    handled: list[int] = []

    async def write() -> None:
        for n in range(60):
            await publish(bus, n)

    before = await join(routers[0], client="c-1")
    await before.subscribe(name=NAME, credit=3)
    writing = asyncio.create_task(write())
    for turn in range(6):
        for _ in range(10):
            got = await before.events(1)
            assert (await ack(before, *got))["settled"] == 1
            handled += numbers(got)
        await before.socket.close()  # with up to three in hand
        before = await join(routers[(turn + 1) % 2], client="c-1")
        answer = await before.subscribe(name=NAME, credit=3)
        assert (answer["recovered"], answer.get("lost")) == (True, None)
    await writing
    assert sorted(handled) == list(range(60))
    await nothing_is_left(bus)


async def test_what_a_broken_connection_held_is_not_lost(
    routers: list[EventRouter], bus: EventBus, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """Where leases outlive who holds them, its client keeps it at the other router, for as long as it needs.

    Else it comes again, alone, as what may have crashed who had it.
    """
    monkeypatch.setattr(courier, "PARKED", 0.4)
    monkeypatch.setattr(courier, "_WAIT", 0.2)
    first, other = await join(routers[0], client="c-1"), await join(routers[0])
    await first.subscribe(name=NAME, lease=1.5)
    await publish(bus, 0, 1)
    got = await first.events(2)
    await ack(first, got[0])
    await other.subscribe(name=NAME, lease=1.5)
    first.cut()
    second = await join(routers[1], client="c-1")
    await second.subscribe(name=NAME, lease=1.5, held=[got[1]["token"]])
    if bus.capabilities.lasting_leases:
        await asyncio.sleep(2.5)  # longer than it would be waited for, and than the lease
        await other.nothing()
        assert (await ack(second, got[1]))["settled"] == 1
    else:
        hearing = [asyncio.create_task(each.event()) for each in (other, second)]
        (heard,), (silent,) = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
        silent.cancel()
        assert (numbers([heard.result()]), heard.result()["attempt"]) == (numbers(got[1:]), 2)
        await ack(other if heard is hearing[0] else second, heard.result())
    await second.nothing()
    await other.nothing()
    await nothing_is_left(bus)


async def test_a_queue_is_shared_by_the_clients_of_both_routers(routers: list[EventRouter], bus: EventBus, join: Join):
    workers = [await join(router) for router in routers]
    for worker in workers:
        await worker.subscribe(name=NAME, credit=5)
    seen: list[list[int]] = [[], []]

    async def work(n: int) -> None:
        while sum(map(len, seen)) < 200:
            try:
                async with asyncio.timeout(1):
                    got = await workers[n].hear("event")
            except TimeoutError:
                continue
            seen[n] += numbers([got])
            await workers[n].say("ack", subscription_id=got["subscription_id"], tokens=[got["token"]])

    working = [asyncio.create_task(work(n)) for n in range(2)]
    for at in range(0, 200, 10):
        await publish(bus, *range(at, at + 10))
    await asyncio.gather(*working)
    assert sorted(seen[0] + seen[1]) == list(range(200))
    assert min(map(len, seen)) >= 20
    await nothing_is_left(bus)


async def test_a_subscription_that_is_removed_is_gone_at_both(routers: list[EventRouter], bus: EventBus, join: Join):
    clients = [await join(router) for router in routers]
    for client in clients:
        await client.subscribe(name=NAME)
    await bus.remove(NAME)
    for client in clients:
        assert (await client.hear("unsubscribed"))["subscription_id"] == "sub-1"


# --- anonymous ones -------------------------------------------------------------------------------------------------


async def test_what_anyone_publishes_reaches_the_clients_of_both(routers: list[EventRouter], bus: EventBus, join: Join):
    clients = [await join(router) for router in (*routers, *routers)]
    for client in clients:
        await client.subscribe("task.*")
    writers = [await join(router) for router in routers]

    async def through(writer: Talker, first: int) -> None:
        for n in range(first, first + 20):
            await writer.publish(n=n)

    async def beside() -> None:
        for n in range(40, 60):
            await publish(bus, n)

    await asyncio.gather(through(writers[0], 0), through(writers[1], 20), beside())
    for client in clients:
        got = await client.events(60)
        assert sorted(numbers(got)) == list(range(60))
        places = [int(each["position"].rpartition("-")[2]) for each in got]
        assert places == sorted(places), "in the order of the log"
        await client.nothing()


async def test_an_anonymous_one_goes_on_behind_its_position_at_the_other_router(
    routers: list[EventRouter], bus: EventBus, join: Join
):
    first = await join(routers[0])
    await first.subscribe("task.*")
    await publish(bus, 0, 1, 2)
    got = await first.events(3)
    first.cut()
    await publish(bus, 3, 4)
    second = await join(routers[1])
    assert (await second.subscribe("task.*", after=got[1]["position"]))["recovered"] is True
    await publish(bus, 5)
    assert numbers(await second.events(4)) == [2, 3, 4, 5]
    await second.nothing()


# --- questions, presence, pauses ------------------------------------------------------------------------------------


async def test_questions_and_answers_cross_the_routers(routers: list[EventRouter], bus: EventBus):
    async def double(event: Event) -> Any:
        return {"of": event.payload["n"], "is": 2 * event.payload["n"]}

    async with EventRouterClient(routers[0].url) as here, EventRouterClient(routers[1].url) as there:
        await there.subscribe("ask.router", callback=double)
        await there.subscribe("ask.named", callback=double, name="doubler")
        await bus.subscribe("ask.bus", double, "doubler")
        for topic in ("ask.router", "ask.named", "ask.bus"):
            for n, ask in enumerate((here.request, there.request, bus.request)):
                answer = await ask(Event(topic=topic, payload={"n": n}), timeout=5)
                assert answer == {"of": n, "is": 2 * n}, topic


async def test_who_is_served_at_one_router_is_known_at_the_other(routers: list[EventRouter], bus: EventBus, join: Join):
    here, there = [await join(router) for router in routers]
    question = {"topic": "ask.it", "payload": {}}
    assert (await here.ask("request", event=question))["error"] == "no_responders"
    id = (await there.subscribe("ask.*"))["subscription_id"]
    await there.subscribe("ask.*", name=NAME)
    matched = (await bus.publish(Event(topic="ask.that"), require_match=True)).matched
    assert matched == 2
    info = await bus.broker.info(f"{NAME}~ask.*")
    assert info is not None
    assert info.consumers == 1
    await here.subscribe("ask.*", name=NAME)

    async def consumers() -> bool:
        info = await bus.broker.info(f"{NAME}~ask.*")
        return info is not None and info.consumers == 2

    await eventually(consumers)
    await there.ask("unsubscribe", subscription_id=id)

    async def gone() -> bool:
        return all(info.subscription.durable for info in await bus.broker.subscriptions())

    await eventually(gone)


async def test_a_pause_holds_at_both_until_it_is_over(routers: list[EventRouter], bus: EventBus, join: Join):
    clients = [await join(router) for router in routers]
    for client in clients:
        await client.subscribe(name=NAME, credit=1)
    await bus.pause(NAME)
    await eventually(lambda: all(bus_of(router).paused(f"{NAME}~*") for router in routers))
    await asyncio.sleep(0.1)  # what was on its way to them goes back
    await clients[0].publish_all(events(10))
    for client in clients:
        await client.nothing()
    await bus_of(routers[1]).resume(NAME)
    seen: list[int] = []

    async def work(client: Talker) -> None:
        while len(seen) < 10:
            try:
                async with asyncio.timeout(1):
                    got = await client.hear("event")
            except TimeoutError:
                continue
            seen.extend(numbers([got]))
            await client.say("ack", subscription_id=got["subscription_id"], tokens=[got["token"]])

    await asyncio.gather(*map(work, clients))
    assert sorted(seen) == list(range(10))
    await nothing_is_left(bus)
