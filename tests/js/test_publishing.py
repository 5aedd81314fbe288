"""What a page publishes is stored, once, in its order, or it is told why not."""

from __future__ import annotations

import asyncio
import re

from tests.client.scripted import Peer, line, scripted
from tests.faults.proxy import Proxy
from tests.js.conftest import Tab
from wowevent import Event, EventBus
from wowevent.id import made_at
from wowevent.router import EventRouter


async def stored(bus: EventBus) -> list[Event]:
    """What the log holds, in its order."""
    return [each.event async for each in bus.history()]


def numbers(events: list[Event]) -> list[int]:
    return [event.payload["n"] for event in events]


async def test_it_is_fulfilled_once_the_event_is_stored(tab: Tab, router: EventRouter, bus: EventBus):
    await tab.connect(router.url, agent="page")
    receipt = await tab.run("return client.publish('order.placed', { n: 1, name: 'Zoë 🦉' }, { priority: 'high' });")
    (event,) = await stored(bus)
    assert receipt["event_id"] == event.event_id
    assert receipt["position"]
    assert (event.topic, event.source_agent, event.priority) == ("order.placed", "page", 7)
    assert event.payload == {"n": 1, "name": "Zoë 🦉"}


async def test_what_json_can_say_comes_back_as_it_was(client: Tab, bus: EventBus):
    deep: list[object] = []
    for _ in range(30):
        deep = [deep]
    given = {"half": r"a\ud800 \\udfff \\\ud900 🦉", "deep": deep, "least": 5e-324, r"\ud800": None}
    await client.subscribe("a.b")
    await client.run("await client.publish('a.b', given);", given=given)
    await client.until("seen.length")
    assert await client.run("return seen[0].payload;") == given
    (event,) = await stored(bus)
    assert event.payload == given


async def test_ids_say_when_and_are_as_random_as_they_should_be(client: Tab, bus: EventBus):
    receipts = await client.publish(*range(300))
    ids = [receipt["event_id"] for receipt in receipts]
    assert len(set(ids)) == 300
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", id) for id in ids)
    for event in await stored(bus):
        assert abs((made_at(event.event_id) or 0.0) - event.timestamp.timestamp()) < 1.0


async def test_the_same_id_is_stored_once(client: Tab, bus: EventBus):
    script = "return client.publish('a.b', { n: 1 }, { event_id: 'order-17' });"
    assert not (await client.run(script))["duplicate"]
    assert (await client.run(script))["duplicate"]
    assert [event.event_id for event in await stored(bus)] == ["order-17"]


async def test_while_the_router_is_away_events_wait_in_their_order(tab: Tab, router: EventRouter, bus: EventBus):
    async with line(router.port) as way:
        await tab.connect(way.url)
        await way.cut()
        await tab.until("client.state !== 'connected'")
        await tab.run("window.all = Promise.all([...Array(20).keys()].map((n) => client.publish('a.b', { n })));")
        await asyncio.sleep(0.2)  # attempts to come back, which fail
        assert not await stored(bus)
        await way.open()
        assert len(await tab.run("return all;")) == 20
        assert numbers(await stored(bus)) == list(range(20))
        await tab.run("await client.close();")


async def test_a_confirmation_that_is_lost_stores_nothing_twice(tab: Tab, router: EventRouter, bus: EventBus):
    async with Proxy(router.port) as proxy:
        await tab.connect(proxy.url)
        proxy.lose = lambda message: b'"published"' in message and proxy.lost < 3
        receipts = await tab.publish(*range(50))
        assert proxy.lost == 3
        assert any(receipt["duplicate"] for receipt in receipts)
        assert numbers(await stored(bus)) == list(range(50))
        await tab.run("await client.close();")


async def test_the_outbox_is_bounded(tab: Tab, router: EventRouter, bus: EventBus):
    async with line(router.port) as way:
        await tab.connect(way.url, maxOutbox=3, maxOutboxSize=2_000)
        await way.cut()
        await tab.until("client.state !== 'connected'")
        publish = "const one = client.publish('a.b', { n, text: 'x'.repeat(size) });"
        assert await tab.fails(publish + "return one;", n=9, size=2_000) == "outbox_full"
        await tab.run("window.kept = [0, 1, 2].map((n) => client.publish('a.b', { n }));")
        assert await tab.fails(publish + "return one;", n=3, size=0) == "outbox_full"
        await way.open()
        await tab.run("await Promise.all(kept);")
        for n in (4, 5, 6):  # there is room again, each time
            await tab.run(publish + "await one;", n=n, size=1_000)
        assert numbers(await stored(bus)) == [0, 1, 2, 4, 5, 6]
        await tab.run("await client.close();")


REFUSED = [
    ("client.publish('not a topic')", "invalid_topic"),
    ("client.publish('_bus.own')", "invalid_topic"),
    ("client.publish('a.b', { sum: 0 / 0 })", "invalid_event"),
    ("client.publish('a.b', { text: '\\ud800' })", "invalid_event"),
    ("client.publish('a.b', { text: 'a\\\\\\ud800' })", "invalid_event"),
    ("client.publish('a.b', { ['\\udfff']: 1 })", "invalid_event"),
    ("client.publish('a.b', JSON.parse('{\"a\":'.repeat(33) + '1' + '}'.repeat(33)))", "invalid_event"),
    ("client.publish('a.b', JSON.parse('{\"a\":'.repeat(40) + '1' + '}'.repeat(40)))", "invalid_event"),
    ("client.publish('a.b', [])", "invalid_event"),
    ("client.publish('a.b', { text: 'x'.repeat(300_000) })", "payload_too_large"),
    ("client.publish('a.b', { text: 'ü'.repeat(200_000) })", "payload_too_large"),
    ("client.request('a.b', { text: 'ü'.repeat(200_000) })", "payload_too_large"),
]


async def test_what_cannot_be_stored_says_why(client: Tab, bus: EventBus):
    for call, code in REFUSED:
        assert (call, await client.fails(f"return {call};")) == (call, code)
    await client.publish(1)
    assert numbers(await stored(bus)) == [1]
    assert await client.states() == ["connecting", "connected"]  # by that nobody hangs up


async def test_a_router_that_goes_away_takes_the_event_when_it_is_back(tab: Tab):
    """`closed` is its word for that, and no refusal; what is refused for another reason is told."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for reason in ("closed", "storage_full") if peer.number == 1 else ():
            frame = await peer.expect("publish")
            answer = {"type": "published", "ref": frame["ref"], "event_id": "e", "status": "dropped", "retryable": True}
            await peer.send(answer | {"reason": reason, "message": "no"})
        if peer.number == 1:
            await peer.socket.close(1001)
            return
        await peer.confirm(await peer.expect("publish"))
        await peer.silent()

    async with scripted(script) as url:
        await tab.connect(url)
        await tab.run("window.first = client.publish('a.b', { n: 1 });")
        refused = "try { await client.publish('a.b', {}); } catch (error) { return [error.code, error.retryable]; }"
        assert await tab.run(refused) == ["storage_full", True]
        assert (await tab.run("return first;"))["event_id"]


async def test_what_a_router_takes_no_more_is_told_and_the_rest_goes_on(tab: Tab):
    """It was started anew with a smaller limit: sent to it, the event would end each connection."""

    async def script(peer: Peer) -> None:
        await peer.greet(max_frame=320_000 if peer.number == 1 else 1_000)
        if peer.number == 1:
            await peer.expect("publish")
            await peer.socket.close(1001)
            return
        await peer.confirm(await peer.expect("publish"))
        await peer.silent()

    async with scripted(script) as url:
        await tab.connect(url)
        publish = (
            "window.{0} = codeOf(async () => (await client.publish('a.b', {{ text: 'x'.repeat({1}) }})).duplicate);"
        )
        await tab.run(publish.format("large", 2_000) + publish.format("small", 10))
        assert await tab.run("return Promise.all([large, small]);") == ["payload_too_large", "fulfilled: false"]


async def test_close_waits_for_confirmations_and_rejects_what_comes_after(client: Tab, bus: EventBus):
    await client.run(
        "window.all = [...Array(50).keys()].map((n) => client.publish('a.b', { n })); await client.close();"
    )
    assert numbers(await stored(bus)) == list(range(50))
    assert len(await client.run("return Promise.all(all);")) == 50
    assert await client.fails("return client.publish('a.b');") == "closed"
    assert await client.fails("return client.subscribe('a.b', keep);") == "closed"
    assert (await client.states())[-1] == "closed"


async def test_what_is_not_confirmed_when_it_closes_is_told(tab: Tab, router: EventRouter):
    async with Proxy(router.port) as proxy:
        await tab.connect(proxy.url, timeout=0.3)
        proxy.stop_passing()
        await tab.run("window.open_ = codeOf(() => client.publish('a.b'));")
        await tab.run("await client.close();")
        assert await tab.run("return open_;") == "closed"


async def test_before_connect_nothing_is_published(tab: Tab, router: EventRouter):
    await tab.run("make(url);", url=router.url)
    assert await tab.fails("return client.publish('a.b');") == "closed"
    assert await tab.fails("return client.health();") == "closed"
