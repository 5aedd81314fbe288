"""Questions of pages, and pages that answer."""

from __future__ import annotations

import pytest

from tests.client.scripted import Peer, envelope, line, scripted
from tests.js.conftest import Tab
from tests.router.conftest import eventually
from wowevent import Event, EventBus, NoResponders, RequestFailed
from wowevent.router import EventRouter


async def test_a_page_asks_an_agent(client: Tab, bus: EventBus):
    async def answer(event: Event) -> dict[str, int]:
        return {"sum": event.payload["count"] * 3}

    await bus.subscribe("price.*", answer, "prices")
    assert await client.run("return client.request('price.asked', { count: 4 });") == {"sum": 12}


@pytest.mark.parametrize("name", [None, "prices"])
async def test_a_page_answers(client: Tab, bus: EventBus, name: str | None):
    wanted = {} if name is None else {"name": name}
    await client.run(
        "await client.subscribe('price.*', ({ payload }) => ({ sum: payload.count * 3 }), wanted);", wanted=wanted
    )
    assert await bus.request(Event(topic="price.asked", payload={"count": 4})) == {"sum": 12}


async def test_an_answer_that_is_falsy_or_nothing(client: Tab, bus: EventBus):
    await client.run("await client.subscribe('zero', () => 0); await client.subscribe('null', () => null);")
    assert await bus.request(Event(topic="zero")) == 0
    assert await bus.request(Event(topic="null")) is None
    assert await client.run("return client.request('zero');") == 0


async def test_a_failure_is_the_answer(client: Tab, bus: EventBus):
    await client.run("await client.subscribe('price.*', () => { throw new TypeError('no price'); });")
    with pytest.raises(RequestFailed, match="TypeError: no price"):
        await bus.request(Event(topic="price.asked"))
    assert await client.fails("return client.request('price.asked');") == "request_failed"


@pytest.mark.parametrize("value", ["0 / 0", "'x'.repeat(400_000)"])
async def test_an_answer_that_cannot_be_sent_is_a_failure_of_the_answer_alone(client: Tab, bus: EventBus, value: str):
    await client.run(f"await client.subscribe('price.*', () => ({{ sum: {value} }}), {{ name: 'prices' }});")
    with pytest.raises(RequestFailed, match="cannot be sent"):
        await bus.request(Event(topic="price.asked"))
    assert not await bus.dead_letters.list()
    assert await client.states() == ["connecting", "connected"]


async def test_nobody_answers(client: Tab, bus: EventBus):
    assert await client.fails("return client.request('price.asked');") == "no_responders"
    await client.run("await client.subscribe('price.*', () => new Promise(() => {}));")
    assert await client.fails("return client.request('price.asked', {}, { timeout: 0.1 });") == "request_timeout"
    with pytest.raises(NoResponders):
        await bus.request(Event(topic="other.asked"))


async def test_a_question_waits_for_the_connection_and_ends_with_the_one_that_carried_it(
    tab: Tab, router: EventRouter, bus: EventBus
):
    async with line(router.port) as way:
        await tab.connect(way.url)
        await tab.run("await client.subscribe('price.*', () => new Promise(() => {}));")
        await tab.run("window.lost = codeOf(() => client.request('price.asked'));")
        way.swallowing = True
        await way.cut()
        assert await tab.run("return lost;") == "broker_unavailable"
        await tab.run("window.health = client.health();")
        way.swallowing = False
        await way.open()
        assert (await tab.run("return health;"))["status"] == "healthy"
        await tab.run("await client.close();")


async def test_an_answer_waits_for_the_next_connection(tab: Tab):
    answers: list[object] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        if peer.number == 1:
            await peer.deliver(envelope(1, reply_to="_live.reply.1"), position="e-1")
            await tab.until("window.go")
            await peer.socket.close(1011)
            return
        answers.append((await peer.expect("reply"))["reply"])
        await peer.silent()

    async with scripted(script) as url:
        await tab.run(
            "make(url, { onState: (state) => state === 'away' && go(12) });"
            "await client.subscribe('task.*', () => new Promise((resolve) => (window.go = resolve)));"
            "await client.connect();",
            url=url,
        )
        await eventually(lambda: answers == [12])


async def test_what_follows_from_an_event_belongs_to_its_conversation(client: Tab, bus: EventBus):
    await client.run(
        "await client.subscribe('order.placed', (event) => client.publish('order.checked', {}, following(event)));"
        "await client.subscribe('order.checked', keep);"
    )
    headers = {"wowevent-lineage": '{"root":"o-1"}'}
    await bus.publish(Event(topic="order.placed", event_id="o-2", correlation_id="o-1", hops=3, headers=headers))
    await client.until("seen.length")
    (event,) = await client.run("return seen;")
    assert (event["correlation_id"], event["parent_event_id"], event["hops"]) == ("o-1", "o-2", 4)
    assert event["headers"] == headers
