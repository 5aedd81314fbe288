"""Anonymous subscriptions: filters, many clients at once, slow ones, and going on where a connection broke."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.router.conftest import (
    Join,
    Serve,
    Talker,
    bus_of,
    event,
    events,
    eventually,
    numbers,
    part,
    place,
    talking,
)
from wowevent import EventBus
from wowevent.broker import Broker, Iteration, Position, Query, Retention, Stored, Subscription, SubscriptionInfo
from wowevent.brokers import open_broker
from wowevent.errors import BrokerUnavailable
from wowevent.live import Feed
from wowevent.router import EventRouter, fanout, wire
from wowevent.testing import ManualClock


async def test_four_producers_of_two_hundred_are_all_delivered(router: EventRouter, client: Talker, join: Join):
    await client.subscribe("load.*")
    producers = [await join(router) for _ in range(4)]
    await asyncio.gather(
        *(producer.publish_all(events(200, topic=f"load.p{n}")) for n, producer in enumerate(producers))
    )
    got = await client.events(800)
    for n in range(4):
        assert numbers([each for each in got if each["event"]["topic"] == f"load.p{n}"]) == list(range(200))


@pytest.mark.parametrize("priority", [1, 8, 10, "lowest", "system"])
async def test_every_priority_is_taken(client: Talker, priority: int | str):
    await client.subscribe()
    assert (await client.publish(priority=priority))["status"] == "queued"
    assert 1 <= (await client.event())["event"]["priority"] <= 10


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"topics": ["task.*"]}, [0, 1, 2, 3, 4]),
        ({"topics": ["*"]}, [0, 1, 2, 3, 4, 5]),
        ({"topics": ["task.created", "other"]}, [0, 1, 2, 3, 4, 5]),
        ({"topics": ["other", "*", "#"]}, [0, 1, 2, 3, 4, 5]),
        ({"types": ["order.paid"]}, [1]),
        ({"priorities": [8]}, [2]),
        ({"priorities": ["high", 1]}, [2, 3]),
        ({"min_priority": 7}, [2]),
        ({"min_priority": 6}, [2]),
        ({"sources": ["shop"]}, [4]),
        ({"topics": ["task.*"], "sources": ["shop", "tester"], "min_priority": "normal"}, [0, 1, 2, 4]),
        ({"sources": []}, []),
    ],
)
async def test_filters_by_topic_type_priority_and_source(router: EventRouter, join: Join, wanted, expected):
    client, writer = await join(router), await join(router)
    await client.ask("subscribe", subscription=wanted)
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"type": "order.paid"},
        {"priority": 7},
        {"priority": 2},
        {"source_agent": "shop"},
    )
    for n, fields in enumerate(kinds):
        await writer.publish(n=n, **fields)
    await writer.publish("other", 5)
    assert numbers(await client.events(len(expected))) == expected
    await client.nothing()


async def test_a_target_gets_what_is_for_it_and_nobody_else_does(router: EventRouter, join: Join):
    one, other, nobody = await join(router, agent="one"), await join(router, agent="other"), await join(router)
    for each in (one, other, nobody):
        await each.subscribe()
    await nobody.publish(n=1, target="one")
    await nobody.publish(n=2)
    assert numbers(await one.events(2)) == [1, 2]
    for each in (other, nobody):
        assert numbers(await each.events(1)) == [2]
        await each.nothing()


async def test_two_overlapping_subscriptions_of_a_client_each_get_an_event_once(client: Talker):
    first = (await client.subscribe("task.*"))["subscription_id"]
    second = (await client.subscribe("task.created"))["subscription_id"]
    await client.publish()
    got = await client.events(2)
    assert {each["subscription_id"] for each in got} == {first, second}
    await client.nothing()


async def test_the_same_bytes_reach_a_hundred_clients_and_an_event_is_encoded_once(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    calls = []

    def counted(*given: Any) -> bytes:
        calls.append(given)
        return wire.shared_part(*given)

    monkeypatch.setattr(fanout, "shared_part", counted)
    readers = [await join(router) for _ in range(100)]
    for reader in readers:
        await reader.subscribe("task.*")
    await (await join(router)).publish(n=1)
    async with asyncio.timeout(10):
        texts = {await reader.socket.recv(decode=False) for reader in readers}
    assert len(texts) == 1
    assert len(calls) == 1


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [False, True])
async def test_after_a_position_nothing_is_missing_and_nothing_comes_twice_while_a_thousand_are_published(
    router: EventRouter, join: Join, batch: bool
):
    writer = await join(router)
    await writer.publish_all(events(300))
    publishing = asyncio.create_task(writer.publish_all([event(n=n) for n in range(300, 1300)]))
    got: list[int] = []
    position = None
    first = await join(router)
    epoch = (await first.subscribe("never"))["position"].rpartition("-")[0]
    position = f"{epoch}-0"
    while len(got) < 1300:  # connections that break again and again
        reader = await join(router, batch=batch)
        assert (await reader.subscribe(after=position))["recovered"] is True
        count = 0
        while count < 250 and len(got) < 1300:
            frame = await reader.hear("event", "events")
            for item in frame["events"] if batch else [frame]:
                got.append(item["event"]["payload"]["n"])
                position = item["position"]
                count += 1
        reader.cut()
    await publishing
    assert got == list(range(1300))
    last = await join(router, batch=batch)
    await last.subscribe(after=position)
    await last.nothing()


async def test_what_is_behind_a_position_is_filtered_as_what_is_new(router: EventRouter, join: Join):
    writer = await join(router)
    before = await writer.publish(n=0)
    await writer.publish(n=1, priority=9)
    await writer.publish(n=2)
    await writer.publish("other", n=3, priority=9)
    await writer.publish(n=4, priority=9, target="somebody")
    reader = await join(router)
    await reader.subscribe("task.*", min_priority=9, after=await place(router, before))
    await writer.publish(n=5, priority=9)
    assert numbers(await reader.events(2)) == [1, 5]
    await reader.nothing()


async def test_who_goes_on_from_a_position_is_not_given_what_a_pause_holds(router: EventRouter, join: Join):
    writer = await join(router)
    before = await writer.publish(n=0)
    await bus_of(router).pause(topic="held.#")
    for n in (1, 2):
        await writer.publish("held.now", n=n)
    await writer.publish(n=3)
    reader = await join(router)
    await reader.subscribe("#", after=await place(router, before))
    assert numbers(await reader.events(1)) == [3]
    assert (await reader.hear("reset"))["lost"] == 2
    await reader.nothing()


async def test_a_position_of_another_log_is_a_loss_and_all_that_is_there_comes(client: Talker):
    await client.publish(n=1)
    answer = await client.subscribe(after="00000bad-1")
    assert answer["recovered"] is False
    await client.publish(n=2)
    assert numbers(await client.events(2)) == [1, 2]


async def test_a_position_beyond_the_logs_end_is_a_loss_too(router: EventRouter, client: Talker):
    epoch, _, offset = (await place(router, await client.publish(n=1))).rpartition("-")
    answer = await client.subscribe("task.*", after=f"{epoch}-{int(offset) + 1000}")
    assert answer["recovered"] is False
    await client.publish(n=2)
    assert (await client.events(2))[-1]["event"]["payload"]["n"] == 2


async def test_a_log_that_was_trimmed_says_how_many_are_lost(serve: Serve, join: Join, url: str):
    clock = ManualClock()
    broker = open_broker(url, retention=Retention(max_bytes=200_000), clock=clock)
    async with aclosing(Closing(broker)), EventBus(broker, clock=clock) as bus:
        router = await serve(bus=bus)
        writer, reader = await join(router), await join(router)
        first = await place(router, await writer.publish(n=0))
        for n in range(1, 12):
            await writer.publish(n=n, payload={"n": n, "text": "x" * 50_000})
            await clock.advance(12)  # engines trim when they publish, or some seconds later
            await writer.ask("ping")
        answer = await reader.subscribe(after=first)
        assert answer["recovered"] is False
        if bus.capabilities.exact or "lost" in answer:
            lost = answer["lost"]
        else:  # then the first one that is left says it
            frame = await reader.hear("event")
            lost = numbers([frame])[0] - 1
            reader.kept.appendleft(frame)
        assert lost > 0
        kept = await reader.events(11 - lost)
        assert numbers(kept) == list(range(1 + lost, 12))
        await writer.publish(n=12)
        assert numbers(await reader.events(1)) == [12]
        for each in (writer, reader):
            await each.socket.close()
        await router.stop()


class Closing:
    """Closes a broker with `aclosing`."""

    def __init__(self, broker: Broker) -> None:
        self.aclose = broker.close


async def test_more_than_is_held_while_a_client_catches_up_is_read_from_the_log(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fanout, "_HELD", 5)
    writer = await join(router)
    first = await writer.publish(n=0)
    await writer.publish_all([event(n=n) for n in range(1, 500)])
    publishing = asyncio.create_task(writer.publish_all([event(n=n) for n in range(500, 1000)]))
    reader = await join(router)
    await reader.subscribe(after=await place(router, first))
    assert numbers(await reader.events(999)) == list(range(1, 1000))
    await publishing
    await writer.publish(n=1000)
    assert numbers(await reader.events(1)) == [1000]


async def test_trouble_of_the_engine_while_a_client_catches_up_is_waited_out(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """It was told that it is served."""
    writer, client = await join(router), await join(router)
    first = await writer.publish(n=0)
    await writer.publish_all(events(6))
    broker = bus_of(router).broker
    read, troubles = broker.read, [2, 0]

    async def torn(log: Iteration, count: int) -> AsyncGenerator[Stored, None]:
        async with aclosing(log):
            for _ in range(count):
                yield await anext(log)
        raise BrokerUnavailable("the engine is away")

    def reading(query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        log = read(query, after=after, follow=follow)
        return torn(log, troubles.pop(0)) if query.patterns == ("task.*",) and troubles else log

    monkeypatch.setattr(broker, "read", reading)
    monkeypatch.setattr(fanout, "_TURN", 1)  # so that it is served before that
    await client.subscribe("task.*", after=await place(router, first))
    assert numbers(await client.events(6)) == list(range(6))
    await writer.publish(n=6)
    assert numbers(await client.events(1)) == [6]
    assert not troubles


async def test_who_subscribes_after_a_call_sees_nothing_of_it(
    serve: Serve, join: Join, monkeypatch: pytest.MonkeyPatch
):
    """Though the feed has not come so far, and the last of the call was there already, or leaves later."""
    pass_on, let = Feed._pass_on, asyncio.Event()  # noqa: SLF001 - to hold it up

    async def late(self: Feed, log: Iteration) -> None:
        async def held() -> AsyncGenerator[Stored, None]:
            async for stored in log:
                await let.wait()
                yield stored

        await pass_on(self, held())

    monkeypatch.setattr(Feed, "_pass_on", late)
    router = await serve()
    if not bus_of(router).capabilities.positions:
        pytest.skip("what was stored is known by the feed alone")
    writer, client = await join(router), await join(router)
    let.set()
    await writer.publish(n=0, event_id="0" * 32)
    due = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for last in (event(n=0, event_id="0" * 32), event(n=9, not_before=due)):
        await client.nothing()
        let.clear()
        for ref, each in enumerate([event(n=1), event(n=2), last]):
            await writer.say("publish", event=each, ref=ref)
        for _ in range(3):
            await writer.hear("published")
        id = (await client.subscribe("task.*"))["subscription_id"]
        let.set()
        await client.nothing()
        await client.ask("unsubscribe", subscription_id=id)


async def test_an_engine_that_was_in_trouble_when_a_client_subscribed_knows_of_it_later(
    router: EventRouter, client: Talker, monkeypatch: pytest.MonkeyPatch
):
    """Else nobody would know that somebody listens there, for as long as the client stays."""
    broker = bus_of(router).broker
    declare, troubles = broker.declare, iter([True, True, False])

    async def refuse(spec: Subscription) -> SubscriptionInfo:
        if next(troubles):
            raise BrokerUnavailable("the engine is away")
        return await declare(spec)

    monkeypatch.setattr(fanout, "BACKOFF", (0.01, 0.02))
    monkeypatch.setattr(broker, "declare", refuse)
    id = (await client.subscribe("task.*"))["subscription_id"]

    async def known() -> bool:
        return any(info.subscription.patterns == ("task.*",) for info in await broker.subscriptions())

    assert not await known()
    await eventually(known)
    await client.ask("unsubscribe", subscription_id=id)

    async def forgotten() -> bool:
        return not await known()

    await eventually(forgotten)


async def test_what_was_lost_in_the_midst_of_things_is_told_in_its_place(serve: Serve, join: Join, url: str):
    router = await serve()
    client = await join(router)
    id = (await client.subscribe())["subscription_id"]
    await client.publish(n=1)
    await client.event()
    for sink in list(part(bus_of(router).feed, "_sinks").values()):
        sink.lose(3)  # as the feed does when it falls behind the log's trimming
    await client.publish(n=2)
    assert await client.hear("event", "reset") == {"type": "reset", "subscription_id": id, "lost": 3}
    assert numbers(await client.events(1)) == [2]


# --- who does not read ----------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stalls_nobody_and_is_cut_with_its_position(serve: Serve, join: Join):
    router = await serve(max_outbox=256 * 1024)
    slow, quick, writer = await join(router), await join(router), await join(router)
    for each in (slow, quick):
        await each.subscribe()
    slow.socket.transport.pause_reading()
    waits = []
    count = 0

    async def more() -> bool:
        nonlocal count
        began = time.monotonic()
        await writer.publish(n=count, payload={"n": count, "text": "x" * 100_000})
        assert numbers(await quick.events(1)) == [count]
        waits.append(time.monotonic() - began)
        count += 1
        return bool((await writer.health())["slow_clients"] or count > 500)

    await eventually_cut(more)
    slow.socket.transport.resume_reading()
    code, reason = await slow.closed()
    assert code == 4000
    got = numbers([frame for frame in slow.kept if frame["type"] == "event"])
    assert got == list(range(len(got)))
    last = [frame for frame in slow.kept if frame["type"] == "event"][-1]["position"]
    assert last in reason, "everything that was sent could be read"
    again = await join(router)
    assert (await again.subscribe(after=last))["recovered"] is True
    assert numbers(await again.events(count - len(got))) == list(range(len(got), count))
    assert max(waits) < 1.0


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_cap_a_client_that_does_not_read_is_kept_with_all_that_waits(
    serve: Serve, join: Join, guarded: bool
):
    router = await serve(max_outbox=256 * 1024 if guarded else 2**30)
    slow, writer = await join(router), await join(router)
    await slow.subscribe()
    slow.socket.transport.pause_reading()
    for n in range(100):
        await writer.publish(n=n, payload={"n": n, "text": "x" * 100_000})
    assert (await writer.health())["slow_clients"] == (1 if guarded else 0)
    slow.socket.transport.resume_reading()


async def eventually_cut(more) -> None:
    async with asyncio.timeout(30):
        while not await more():
            pass


async def test_a_client_that_reads_slowly_catches_up_on_a_long_log_without_being_cut(router: EventRouter, join: Join):
    writer = await join(router)
    first = await writer.publish(n=0)
    for n in range(1, 60):
        await writer.publish(n=n, payload={"n": n, "text": "x" * 100_000})
    async with talking(router, max_queue=1) as reader:
        await reader.subscribe(after=await place(router, first))
        for n in range(1, 60):
            assert numbers(await reader.events(1)) == [n]
            await asyncio.sleep(0.005)


async def test_what_other_processes_publish_comes_too(router: EventRouter, client: Talker, url: str):
    from wowevent import Event

    async with EventBus(url) as bus:
        await client.subscribe("task.*")
        await bus.publish_many([Event(topic="task.created", payload={"n": n}, source_agent="b") for n in range(100)])
        assert numbers(await client.events(100)) == list(range(100))


async def test_engines_forget_what_clients_leave(router: EventRouter, join: Join):
    client = await join(router)
    await client.subscribe("a.*")
    bus = bus_of(router)
    await eventually(lambda: _live(bus))
    client.cut()
    await eventually(lambda: _no_live(bus))


async def _live(bus: EventBus) -> bool:
    return any(not info.subscription.durable for info in await bus.broker.subscriptions())


async def _no_live(bus: EventBus) -> bool:
    return not await _live(bus)
