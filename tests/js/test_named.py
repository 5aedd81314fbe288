"""Subscriptions with a name: acknowledged as the handler returns, tried again, and handled once over breaks."""

from __future__ import annotations

import pytest

from tests.client.scripted import Peer, envelope, line, scripted
from tests.js.conftest import Open, Tab
from tests.router.conftest import eventually
from wowevent import Event, EventBus
from wowevent.router import EventRouter

WORKER = "worker~task.*"
"""What the bus calls the subscription of `name: "worker"`."""


async def publish(bus: EventBus, *ns: int) -> None:
    for n in ns:
        await bus.publish(Event(topic="task.created", payload={"n": n}))


async def emptied(bus: EventBus) -> None:
    """Return once nothing of it waits, and nothing is in anybody's hands."""

    async def look() -> bool:
        info = await bus.info(WORKER)
        return info is not None and not (info.ready or info.leased or info.delayed)

    await eventually(look)


async def test_a_handler_that_returns_acknowledges(client: Tab, bus: EventBus):
    await client.subscribe("task.*", name="worker")
    await publish(bus, *range(100))
    assert await client.seen(100) == list(range(100))
    await emptied(bus)


async def test_it_is_remembered_while_nobody_is_there(client: Tab, open_tab: Open, router: EventRouter, bus: EventBus):
    await client.subscribe("task.*", name="worker")
    await client.run("await client.close();")
    await publish(bus, 1, 2)
    later = await open_tab()
    await later.connect(router.url)
    await later.subscribe("task.*", name="worker")
    assert await later.seen(2) == [1, 2]


async def test_what_throws_comes_again_and_is_a_dead_letter_at_last(client: Tab, bus: EventBus):
    await client.run(
        "await client.subscribe('task.*', (event, delivery) => { keep(event, delivery);"
        "  throw new RangeError('too far'); }, { name: 'worker', max_retries: 1 });"
    )
    await publish(bus, 1)
    assert await client.seen(2) == [1, 1]
    assert [each["attempt"] for each in await client.run("return deliveries;")] == [1, 2]
    await emptied(bus)
    (letter,) = await bus.dead_letters.list(subscription=WORKER)
    assert letter.error == "RangeError: too far"
    assert "RangeError" in letter.traceback


@pytest.mark.parametrize(
    ("verdict", "attempts", "dead"),
    [
        ({"retry_after": 0.05}, [1, 1], []),
        ({"reject": True, "error": "no address"}, [1], ["no address"]),
        ({"release": True}, [1, 1], []),
        ({"pause": 0.1, "error": "quota"}, [1, 1], []),
    ],
    ids=["retry_after", "reject", "release", "pause"],
)
async def test_a_nack_says_another_verdict(
    client: Tab, bus: EventBus, verdict: object, attempts: list[int], dead: object
):
    """Once; then the handler returns."""
    await client.run(
        "await client.subscribe('task.*', (event, delivery) => { keep(event, delivery);"
        "  if (seen.length === 1) throw new Nack(verdict); }, { name: 'worker' });",
        verdict=verdict,
    )
    await publish(bus, 1)
    await client.seen(len(attempts))
    await emptied(bus)
    assert [each["attempt"] for each in await client.run("return deliveries;")] == attempts
    assert [letter.error for letter in await bus.dead_letters.list(subscription=WORKER)] == dead
    assert not await client.run("return logged;")


async def test_what_waits_here_is_given_back_when_a_handler_asks_for_a_pause(client: Tab, bus: EventBus):
    """They came in one frame, before the router knew."""
    await client.subscribe("task.*", name="worker")
    await client.run("await sub.unsubscribe(); window.times = [];")
    await bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(5)])
    await client.run(
        "await client.subscribe('task.*', (event, delivery) => {"
        "  keep(event, delivery);"
        "  times.push(performance.now());"
        "  if (seen.length === 1) throw new Nack({ pause: 0.5 });"
        "}, { name: 'worker' });"
    )
    assert sorted(await client.seen(6)) == [0, 0, 1, 2, 3, 4]
    assert await client.run("return times[1] - times[0] > 400;")
    assert {each["attempt"] for each in await client.run("return deliveries;")} == {1}
    await emptied(bus)


async def test_a_nack_of_one_without_a_name_loses_nothing_that_waits(client: Tab, bus: EventBus):
    await client.run(
        "await client.subscribe('task.*', (event, delivery) => { keep(event, delivery);"
        "  if (seen.length === 1) throw new Nack({ pause: 0.1 }); });"
    )
    await bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(3)])
    assert await client.seen(3) == [0, 1, 2]


async def test_a_nack_that_json_cannot_say_is_a_failed_attempt(client: Tab, bus: EventBus):
    await client.run(
        "await client.subscribe('task.*', (event) => { keep(event);"
        "  if (seen.length === 1) throw new Nack({ retry_after: 0 / 0 }); }, { name: 'worker' });"
    )
    await publish(bus, 1)
    assert await client.seen(2) == [1, 1]
    await emptied(bus)


async def test_two_pages_of_a_name_share_the_events(client: Tab, open_tab: Open, router: EventRouter, bus: EventBus):
    other = await open_tab()
    await other.connect(router.url)
    for tab in (client, other):
        await tab.subscribe("task.*", name="worker", credit=1)
    await publish(bus, *range(40))
    await emptied(bus)
    one, two = [await tab.run("return seen.map((event) => event.payload.n);") for tab in (client, other)]
    assert sorted(one + two) == list(range(40))
    assert one
    assert two


async def test_unsubscribe_waits_for_what_runs_and_gives_the_rest_back(client: Tab, router: EventRouter, bus: EventBus):
    await client.run(
        "window.gate = new Promise((resolve) => (window.go = resolve));"
        "window.sub = await client.subscribe('task.*', async (event) => { keep(event); await gate; },"
        "  { name: 'worker' });"
    )
    await publish(bus, 1, 2, 3)
    await client.seen(1)
    await client.run("const over = sub.unsubscribe(); go(); await over;")
    await client.subscribe("task.*", name="worker")
    assert await client.seen(3) == [1, 2, 3]
    assert [each["attempt"] for each in await client.run("return deliveries.filter(Boolean);")] == [1, 1]
    await emptied(bus)


async def test_unsubscribe_says_what_was_handled_though_the_line_breaks(tab: Tab, router: EventRouter, bus: EventBus):
    async with line(router.port) as way:
        await tab.connect(way.url)
        await tab.run(
            "window.gate = new Promise((resolve) => (window.go = resolve));"
            "window.sub = await client.subscribe('task.*', async (event) => { keep(event); await gate; },"
            "  { name: 'worker' });"
        )
        await publish(bus, 1)
        await tab.seen(1)
        await tab.run("window.over = sub.unsubscribe();")
        way.break_now()
        await tab.until("client.state !== 'connected'")
        await tab.run("go(); await over;")
        info = await bus.info(WORKER)
        assert info is not None
        assert (info.ready, info.leased, info.delayed) == (0, 0, 0)
        await tab.run("await client.close();")


async def test_close_gives_back_what_was_not_begun(client: Tab, open_tab: Open, router: EventRouter, bus: EventBus):
    await client.run(
        "window.gate = new Promise((resolve) => (window.go = resolve));"
        "await client.subscribe('task.*', async (event) => { keep(event); await gate; }, { name: 'worker' });"
    )
    await publish(bus, 1, 2, 3)
    await client.seen(1)
    await client.run("const over = client.close(); go(); await over;")
    later = await open_tab()
    await later.connect(router.url)
    await later.subscribe("task.*", name="worker")
    assert await later.seen(2) == [2, 3]
    assert [each["attempt"] for each in await later.run("return deliveries;")] == [1, 1]
    await emptied(bus)


async def test_what_is_in_hand_when_the_line_breaks_is_kept_and_counts(tab: Tab, router: EventRouter, bus: EventBus):
    async with line(router.port) as way:
        await tab.connect(way.url)
        await tab.run(
            "window.gate = new Promise((resolve) => (window.go = resolve));"
            "await client.subscribe('task.*', async (event, delivery) => { await gate; keep(event, delivery); },"
            "  { name: 'worker', concurrency: 2 });"
        )
        await publish(bus, *range(5))
        for count in (2, 4, 6):
            way.break_now()
            await tab.until("states.filter((each) => each === 'connected').length > count / 2", count=count)
        await tab.run("go();")
        assert sorted(await tab.seen(5)) == list(range(5))
        await emptied(bus)
        assert {each["attempt"] for each in await tab.run("return deliveries;")} == {1}
        await tab.run("await client.close();")
    assert not await bus.dead_letters.list()


async def test_an_event_whose_acknowledgement_was_lost_is_not_handled_again(tab: Tab):
    """Under its old token, which is named and settled anew, and under a new one, which is settled at once."""
    acks: list[list[str]] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.serve(frame)
        if peer.number == 1:
            await peer.deliver(envelope(1), token="t1")
            acks.append((await peer.expect("ack"))["tokens"])
            await peer.socket.close(1011)  # it never got to the engine
            return
        assert frame["subscription"]["held"] == ["t1"]
        ack = await peer.expect("ack")
        acks.append(ack["tokens"])
        settled = {"type": "settled", "subscription_id": "sub-1", "settled": 0, "stale": 1}
        await peer.send(settled | {"ref": ack["ref"]})
        await peer.deliver(envelope(1), token="t2")
        acks.append((await peer.expect("ack"))["tokens"])
        await peer.deliver(envelope(2), token="t3")
        await peer.deliver(envelope(1), token="t4", redelivered=True)  # somebody sent it again on purpose
        await peer.silent()

    async with scripted(script) as url:
        await tab.run(
            "make(url); client.subscribe('task.*', keep, { name: 'worker' }); await client.connect();", url=url
        )
        assert await tab.seen(3) == [1, 2, 1]
        assert acks == [["t1"], ["t1"], ["t2"]]


async def test_what_comes_under_a_new_token_while_it_is_handled_is_handled_once(tab: Tab):
    acks: list[list[str]] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        await peer.deliver(envelope(1), token=f"t{peer.number}")
        if peer.number == 1:
            await tab.until("busy.length")
            await peer.socket.close(1011)
            return
        await tab.until("came.some((data) => data.includes(token))", token='"t2"')
        await tab.run("go();")
        acks.append((await peer.expect("ack"))["tokens"])
        await peer.silent()

    async with scripted(script) as url:
        await tab.run(
            "window.busy = []; window.gate = new Promise((resolve) => (window.go = resolve)); window.came = [];"
            "class Heard extends WebSocket { constructor(...given) {"
            "  super(...given); this.addEventListener('message', ({ data }) => came.push(data)); } }"
            "make(url, { WebSocket: Heard });"
            "await client.subscribe('task.*', async (event) => { busy.push(1); await gate; keep(event); },"
            "  { name: 'worker' }); await client.connect();",
            url=url,
        )
        await eventually(lambda: acks == [["t2"]])
        assert await tab.run("return busy.length;") == 1


async def test_a_letter_that_is_sent_again_is_handled_again(client: Tab, bus: EventBus):
    await client.run(
        "await client.subscribe('task.*', (event, delivery) => { keep(event, delivery);"
        "  if (seen.length === 1) throw new Nack({ reject: true }); }, { name: 'worker' });"
    )
    await publish(bus, 1)
    await client.seen(1)
    await emptied(bus)
    await bus.dead_letters.redeliver(subscription=WORKER)
    await client.seen(2)
    assert [each["redelivered"] for each in await client.run("return deliveries;")] == [False, True]


async def test_a_subscription_that_somebody_removes_is_over(client: Tab, bus: EventBus):
    await client.subscribe("task.*", name="worker")
    await bus.remove(WORKER)
    await client.until("ends.length")
    assert await client.run("return ends;") == ["subscription_not_found"]


async def test_a_name_is_taken_once_in_a_client(client: Tab):
    await client.subscribe("task.*", name="worker")
    assert await client.fails("return client.subscribe('task.*', keep, { name: 'worker' });") == "subscription_conflict"
