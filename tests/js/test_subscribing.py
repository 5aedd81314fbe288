"""Subscriptions without a name: what matches, in the order of the log, once, and gaps are said."""

from __future__ import annotations

from typing import Any

from tests.client.scripted import Peer, envelope, line, scripted
from tests.js.conftest import Open, Site, Tab
from tests.router.conftest import eventually
from wowevent import Event, EventBus
from wowevent.router import EventRouter


async def served(router: EventRouter, count: int) -> None:
    """Return once the router serves so many subscriptions."""

    async def look() -> bool:
        return bool((await router.health())["subscriptions"] == count)

    await eventually(look)


async def publish(bus: EventBus, *ns: int, topic: str = "task.created", **fields: Any) -> None:
    for n in ns:
        await bus.publish(Event(topic=topic, payload={"n": n}, **fields))


async def test_what_matches_comes_in_order(client: Tab, bus: EventBus):
    await client.subscribe("task.*")
    await publish(bus, *range(100))
    await publish(bus, 100, topic="other.topic")
    await publish(bus, 101)
    assert await client.seen(101) == [*range(100), 101]
    event = (await client.run("return seen;"))[0]
    assert (event["topic"], event["payload"], event["priority"]) == ("task.created", {"n": 0}, 5)
    delivery = (await client.run("return deliveries;"))[0]
    assert delivery["position"]
    assert (delivery["attempt"], delivery["redelivered"]) == (1, False)


async def test_filters(client: Tab, bus: EventBus):
    wanted = [{"min_priority": "high"}, {"priorities": [9]}, {"types": ["task.done"]}, {"sources": ["other"]}]
    await client.run(
        "window.by = wanted.map(() => []); await Promise.all(wanted.map((each, at) =>"
        "  client.subscribe('#', ({ payload }) => by[at].push(payload.n), each)));",
        wanted=wanted,
    )
    await publish(bus, 1)
    await publish(bus, 2, priority=9)
    await publish(bus, 3, type="task.done")
    await publish(bus, 4, source="other")
    await publish(bus, 5, priority=9, type="task.done", source="other")
    assert await client.until("by.every((each) => each.length > 1) && by") == [[2, 5], [2, 5], [3, 5], [4, 5]]


async def test_after_unsubscribe_nothing_comes(client: Tab, router: EventRouter, bus: EventBus):
    await client.subscribe("task.*")
    await client.run("await sub.unsubscribe(); await sub.unsubscribe();")
    await served(router, 0)
    await client.subscribe("mark")
    await publish(bus, 1)
    await publish(bus, 2, topic="mark")
    assert await client.seen(1) == [2]


async def test_one_that_is_given_up_while_it_is_asked_for_is_not_served(tab: Tab, router: EventRouter, bus: EventBus):
    await tab.run(
        "make(url, { onState: (state) => state === 'connected' && window.sub.unsubscribe() });"
        "window.sub = await client.subscribe('task.*', keep); await client.subscribe('mark', keep);"
        "await client.connect(); await client.health();",
        url=router.url,
    )
    await served(router, 1)
    await publish(bus, 1)
    await publish(bus, 2, topic="mark")
    assert await tab.seen(1) == [2]


async def test_what_a_router_refuses_is_rejected_and_forgotten(client: Tab, router: EventRouter):
    assert await client.fails("return client.subscribe('task*', keep);") == "invalid_topic"
    assert await client.fails("return client.subscribe('a', keep, { min_priority: 0 / 0 });") == "invalid_event"
    assert await client.fails("return client.subscribe('a');") == "TypeError"
    await served(router, 0)
    assert not await client.run("return ends;")


async def test_before_connect_and_while_away_a_subscription_is_noted(tab: Tab, router: EventRouter, bus: EventBus):
    await tab.run("make(url); await client.subscribe('a.*', keep); await client.connect();", url=router.url)
    await served(router, 1)
    await publish(bus, 1, topic="a.b")
    assert await tab.seen(1) == [1]


async def test_a_break_leaves_no_gap_and_repeats_nothing(tab: Tab, router: EventRouter, bus: EventBus):
    async with line(router.port) as way:
        await tab.connect(way.url)
        await tab.subscribe("task.*")
        for n in range(5):
            await publish(bus, 3 * n)
            way.break_now()
            await publish(bus, 3 * n + 1, 3 * n + 2)
        assert await tab.seen(15) == list(range(15))
        await publish(bus, 15)
        assert await tab.seen(16) == list(range(16))
        assert not await tab.run("return gaps;")
        await tab.run("await client.close();")


async def test_a_position_that_was_noted_goes_on_in_another_page(
    client: Tab, open_tab: Open, router: EventRouter, bus: EventBus
):
    await client.subscribe("task.*")
    await publish(bus, *range(3))
    await client.seen(3)
    place = (await client.run("return deliveries;"))[1]["position"]
    assert await client.run("return sub.position;") != place
    await client.close()
    await publish(bus, 3)
    later = await open_tab()
    await later.connect(router.url)
    await later.subscribe("task.*", after=place)
    assert await later.seen(2) == [2, 3]


async def test_a_handler_that_is_slow_leaves_events_in_the_log(client: Tab, router: EventRouter, bus: EventBus):
    """The inbox holds a thousand; the others come when half of them are handled."""
    await client.run(
        "window.gate = new Promise((resolve) => (window.go = resolve));"
        "window.busy = 0; window.most = 0;"
        "await client.subscribe('task.*', async (event) => {"
        "  window.most = Math.max(most, (window.busy += 1)); await gate; keep(event); window.busy -= 1; });"
    )
    await bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(3_000)])
    await served(router, 0)
    await client.run("go();")
    assert await client.seen(3_000) == list(range(3_000))
    assert await client.run("return most;") == 1
    await served(router, 1)


async def test_concurrency_is_what_was_asked_for(client: Tab, bus: EventBus):
    await client.run(
        "window.busy = 0; window.most = 0;"
        "await client.subscribe('task.*', async (event) => {"
        "  window.most = Math.max(most, (window.busy += 1)); await new Promise((done) => setTimeout(done, 5));"
        "  keep(event); window.busy -= 1; }, { concurrency: 4 });"
    )
    await publish(bus, *range(20))
    await client.seen(20)
    assert await client.run("return most;") == 4


async def test_a_handler_that_fails_stops_nothing(client: Tab, bus: EventBus):
    await client.run("await client.subscribe('#', (event) => { keep(event); throw new Error('no such thing'); });")
    await publish(bus, 1, 2)
    assert await client.seen(2) == [1, 2]
    assert "no such thing" in (await client.run("return logged;"))[0]


# --- gaps and repetitions, as a router may make them ------------------------------------------------------------------


async def test_a_gap_is_said_and_what_comes_twice_is_taken_once(tab: Tab):
    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        if peer.number == 1:
            await peer.serve(frame, position="e-5")
            for offset in (6, 7, 6, 7, 9_007_199_254_740_993, 9_007_199_254_740_992, 9_007_199_254_740_993):
                await peer.deliver(envelope(offset), position=f"e-{offset}")
            await peer.send({"type": "reset", "subscription_id": "sub-1"})
            await peer.socket.close(1011)
        elif peer.number == 2:
            assert frame["subscription"]["after"] == "e-9007199254740993"
            await peer.serve(frame, position="e-9007199254740999", recovered=False, lost=4)
            await peer.deliver(envelope(10), position="e-9007199254740998")
            await peer.socket.close(1011)
        elif peer.number == 3:  # another log
            await peer.serve(frame, position="f-3", recovered=False)
            await peer.socket.close(1011)
        else:  # it comes from its beginning
            assert frame["subscription"]["after"] == "f-0"
            await peer.serve(frame, position="f-3")
            for offset in (1, 2, 2):
                await peer.deliver(envelope(offset), position=f"f-{offset}")
            await peer.silent()

    async with scripted(script) as url:
        await tab.run("make(url); await client.subscribe('task.*', keep, told); await client.connect();", url=url)
        assert await tab.seen(6) == [6, 7, 9_007_199_254_740_992, 10, 1, 2]  # as numbers of JavaScript
        assert await tab.run("return gaps;") == [None, 4, None]


async def test_a_gap_that_nobody_asks_about_stands_in_the_console(tab: Tab):
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        await peer.send({"type": "reset", "subscription_id": "sub-1", "lost": 7})
        await peer.silent()

    async with scripted(script) as url:
        await tab.run(
            "make(url, { timeout: undefined }); await client.subscribe('task.*', keep, { lost: undefined });"
            "await client.connect();",
            url=url,
        )
        assert "7" in await tab.until("logged[0]")


async def test_a_router_that_comes_back_with_another_log_is_a_gap(
    tab: Tab, router: EventRouter, bus: EventBus, site: Site
):
    await tab.connect(router.url)
    await tab.subscribe("task.*")
    await publish(bus, 1)
    await tab.seen(1)
    await router.stop()
    async with EventBus("memory://") as other:
        await publish(other, 2)
        async with EventRouter(port=router.port, bus=other, origins=[site.origin]):
            await tab.until("gaps.length")
            await publish(other, 3)
            assert await tab.seen(3) == [1, 2, 3]  # what the new log holds, from its beginning


async def test_a_subscription_that_is_not_asked_for_any_more_is_given_back(tab: Tab):
    """An answer that came too late: the router would serve it for ever."""
    ended: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.expect("subscribe")
        await peer.expect("ping")
        await peer.serve(frame, id="sub-9")
        ended.append((await peer.expect("unsubscribe"))["subscription_id"])
        await peer.silent()

    async with scripted(script) as url:
        await tab.connect(url, timeout=0.3, heartbeatInterval=0.5)
        assert await tab.fails("return client.subscribe('a', keep);") == "request_timeout"
        await eventually(lambda: ended == ["sub-9"])
