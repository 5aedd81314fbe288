"""How a page gets in, comes back, stays away, and knows that nobody is there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.client.scripted import Peer, line, scripted
from tests.faults.proxy import Proxy
from tests.js.conftest import Serve, Site, Tab
from tests.keys import Keys
from wowevent import Event, EventBus
from wowevent.router import EventRouter


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
async def guarded(keys: Keys, serve: Serve) -> EventRouter:
    return await serve(keyring=keys.ring())


async def test_connecting_twice_is_connecting_once(tab: Tab, router: EventRouter):
    await tab.run("make(url); await Promise.all([client.connect(), client.connect()]);", url=router.url)
    await tab.run("await client.connect();")
    assert await tab.states() == ["connecting", "connected"]
    health = await tab.run("return client.health();")
    assert health["clients"] == 1


async def test_what_is_no_routers_url_or_carries_a_secret_is_refused(tab: Tab):
    for url in (
        "http://localhost:9090",
        "ws://me:secret@localhost:9090",
        "ws://localhost:9090/?token=wow_1",
        "wss://localhost:9090/?access_token=1",
    ):
        assert await tab.fails("make(url);", url=url) == "TypeError"


async def test_a_router_that_is_not_there_is_said_and_nothing_is_left_running(tab: Tab, router: EventRouter):
    async with line(router.port) as way:
        await way.cut()
        await tab.run("make(url); await client.subscribe('a.*', keep);", url=way.url)
        assert await tab.fails("await client.connect();") == "broker_unavailable"
        assert await tab.run("return client.state;") == "idle"
        await asyncio.sleep(0.2)
        assert await tab.states() == ["connecting", "idle"]
        await way.open()
        await tab.run("await client.connect();")
        assert (await tab.run("return client.health();"))["subscriptions"] == 1
        await tab.run("await client.close();")


async def test_with_retry_the_first_connection_is_tried_again_too(tab: Tab, router: EventRouter):
    async with line(router.port) as way:
        await way.cut()
        await tab.run("make(url, { retry: true }); window.connecting = client.connect();", url=way.url)
        await tab.until("states.filter((each) => each === 'away').length > 2")
        await way.open()
        await tab.run("await connecting;")
        await tab.run("await client.close();")


async def test_a_router_that_says_nothing_is_given_up(tab: Tab):
    async def script(peer: Peer) -> None:
        await peer.silent()

    async with scripted(script) as url:
        began = time.monotonic()
        assert await tab.fails("await open(url, { timeout: 0.3 });", url=url) == "broker_unavailable"
        assert time.monotonic() - began < 2


# --- who may come in --------------------------------------------------------------------------------------------------


async def test_a_page_that_is_not_listed_does_not_get_in(tab: Tab, bus: EventBus):
    async with EventRouter(port=0, bus=bus, origins=["http://other.example"]) as router:
        assert await tab.fails("await open(url);", url=router.url) == "broker_unavailable"
        assert "does not let this page in" in await tab.run("return errors[0].message;")
        assert (await router.health())["clients"] == 0


async def test_a_token_goes_in_the_first_frame_and_says_who_it_is(tab: Tab, guarded: EventRouter, keys: Keys, bus):
    await tab.connect(guarded.url, token=keys.all_of("alice"))
    await tab.publish(1)
    assert [each.event.source_agent async for each in bus.history()] == ["alice"]


@pytest.mark.parametrize("options", [{}, {"token": "wow_no_such"}])
async def test_without_a_good_token_it_is_over(tab: Tab, guarded: EventRouter, options: dict[str, str]):
    assert await tab.fails("await open(url, options);", url=guarded.url, options=options) == "unauthenticated"
    assert await tab.states() == ["connecting", "closed"]
    assert await tab.fails("await client.connect();") == "unauthenticated"


async def test_a_token_that_ends_is_followed_by_the_next_where_there_is_one(
    tab: Tab, guarded: EventRouter, keys: Keys, bus: EventBus
):
    first, second = keys.all_of("alice"), keys.all_of("alice")
    await tab.run(
        "const tokens = [first, second]; window.asked = 0;"
        "await make(url, { token: async () => tokens[asked++] }).connect();"
        "await client.subscribe('task.*', keep);",
        url=guarded.url,
        first=first,
        second=second,
    )
    await tab.publish(1)
    keys.revoke(first)
    await tab.until("states.includes('away')")
    await bus.publish(Event(topic="task.created", payload={"n": 2}))
    assert await tab.seen(2) == [1, 2]
    assert await tab.run("return asked;") == 2


async def test_a_token_that_ends_ends_what_it_let_in(tab: Tab, guarded: EventRouter, keys: Keys):
    token = keys.all_of("alice")
    await tab.connect(guarded.url, token=token)
    await tab.subscribe("task.*")
    keys.revoke(token)
    await tab.until("client.state === 'closed'")
    assert await tab.run("return ends;") == ["unauthenticated"]
    assert await tab.states() == ["connecting", "connected", "closed"]
    assert await tab.fails("return client.publish('a.b');") == "unauthenticated"


async def test_a_token_that_cannot_be_had_is_asked_for_again(tab: Tab, guarded: EventRouter, keys: Keys):
    await tab.run(
        "window.asked = 0; const options = { retry: true, token: () => {"
        "  if ((asked += 1) < 3) throw new Error('not now'); return token; } };"
        "await make(url, options).connect();",
        url=guarded.url,
        token=keys.all_of("alice"),
    )
    assert await tab.run("return asked;") == 3


async def test_a_token_without_the_past_goes_on_from_now_and_says_so(tab: Tab, guarded: EventRouter, keys: Keys, bus):
    async with line(guarded.port) as way:
        await tab.connect(way.url, token=keys.token("alice", subscribe=["#"]))
        await tab.subscribe("task.*")
        await bus.publish(Event(topic="task.created", payload={"n": 1}))
        await tab.seen(1)
        way.break_now()
        await tab.until("gaps.length && sub.position")  # it is served again
        await bus.publish(Event(topic="task.created", payload={"n": 2}))
        assert await tab.seen(2) == [1, 2]
        assert await tab.run("return gaps;") == [None]
        await tab.run("await client.close();")


async def test_what_a_token_does_not_grant_is_told(tab: Tab, guarded: EventRouter, keys: Keys):
    await tab.connect(guarded.url, token=keys.token("alice", publish=["a.*"], subscribe=["a.*"]))
    assert await tab.fails("return client.publish('b.c');") == "not_permitted"
    assert await tab.fails("return client.subscribe('#', keep);") == "not_permitted"
    assert await tab.fails("return client.subscribe('a.*', keep, { after: 'e-1' });") == "not_permitted"
    await tab.subscribe("a.*")


async def test_who_publishes_too_fast_is_told_when_to_come_again(tab: Tab, guarded: EventRouter, keys: Keys):
    await tab.connect(guarded.url, token=keys.token("alice", publish=["#"], limits={"events": "2/s"}))
    told = await tab.run(
        "for (;;) { try { await client.publish('a.b'); } catch (error) {"
        "  return { code: error.code, retryable: error.retryable, wait: error.retryAfter }; } }"
    )
    assert (told["code"], told["retryable"]) == ("rate_limited", True)
    assert 0 < told["wait"] <= 1


async def test_another_name_than_the_tokens_is_refused_for_good(tab: Tab, guarded: EventRouter, keys: Keys):
    options = {"token": keys.all_of("alice"), "agent": "bob"}
    assert await tab.fails("await open(url, options);", url=guarded.url, options=options) == "not_permitted"
    assert await tab.run("return client.state;") == "closed"


# --- coming back ------------------------------------------------------------------------------------------------------


AGAIN = (1000, 1001, 1011, 1013, 3000, 4000, 4001, 4499)
REFUSED, NOT_KNOWN = "not_permitted", "unauthenticated"
FINAL = {1008: REFUSED, 4500: REFUSED, 4501: NOT_KNOWN, 4502: NOT_KNOWN, 4999: REFUSED}


async def test_close_codes_say_whether_to_come_back(tab: Tab):
    """Every other connection is closed with the next code when it has heard an event; the one behind it confirms."""
    codes = iter([each for code in AGAIN for each in (code, None)] + list(FINAL))

    async def script(peer: Peer) -> None:
        code = next(codes)
        await peer.greet()
        frame = await peer.expect("publish")
        if code is None:
            await peer.confirm(frame)
            await peer.silent()
        else:
            await peer.socket.close(code, "because")

    async with scripted(script) as url:
        for code in AGAIN:
            await tab.connect(url)
            assert (code, await tab.fails("return (await client.publish('a.b')).duplicate;")) == (
                code,
                "fulfilled: false",
            )
            await tab.run("await client.close();")
        for code, kind in FINAL.items():
            await tab.connect(url)
            assert (code, await tab.fails("return client.publish('a.b');")) == (code, kind)
            assert "because" in await tab.run("return errors.at(-2).message + errors.at(-1).message;")
            assert await tab.run("return client.state;") == "closed"


async def test_pauses_grow_to_their_most_and_are_short_again_after_a_connection_that_held(
    tab: Tab, router: EventRouter
):
    async with line(router.port) as way:
        await tab.run(
            "Math.random = () => 1; window.times = [];"
            "const onState = (state) => { states.push(state); times.push(performance.now()); };"
            "const pace = { reconnectInterval: 0.1, maxReconnectInterval: 0.3, reconnectDecay: 2 };"
            "await open(url, { ...pace, onState });",
            url=way.url,
        )
        await asyncio.sleep(0.15)
        await way.cut()
        await tab.until("states.filter((each) => each === 'away').length > 3")
        await way.open()
        await tab.until("client.state === 'connected'")
        await asyncio.sleep(0.15)
        way.break_now()
        await tab.until("states.filter((each) => each === 'connected').length > 2")
        states, times = await tab.run("return [states, times];")
        pauses = [later - at for state, at, later in zip(states, times, times[1:], strict=False) if state == "away"]
        expected = [100, 200, 300, 300]
        assert all(abs(pause - wanted) < 90 for pause, wanted in zip(pauses, expected, strict=False)), pauses
        assert abs(pauses[-1] - 100) < 90, pauses
        await tab.run("await client.close();")


async def test_a_dead_line_is_left(tab: Tab, router: EventRouter, bus: EventBus):
    async with Proxy(router.port) as proxy:
        await tab.connect(proxy.url, heartbeatInterval=0.2, timeout=0.5)
        await tab.subscribe("task.*")
        proxy.strand()
        await tab.until("states.filter((each) => each === 'connected').length > 1")
        await bus.publish(Event(topic="task.created", payload={"n": 1}))
        assert await tab.seen(1) == [1]
        assert proxy.connections == 2
        await tab.run("await client.close();")


async def test_a_slow_line_is_no_dead_one(tab: Tab, router: EventRouter, bus: EventBus):
    """Its pongs come late, behind other things."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            await peer.send({"type": "news of a later protocol"})
            await asyncio.sleep(0.05)

    async with scripted(script) as url:
        await tab.connect(url, heartbeatInterval=0.2, timeout=1.0)
        await asyncio.sleep(2.0)
        assert await tab.states() == ["connecting", "connected"]


async def test_a_chopped_line_is_read(tab: Tab, router: EventRouter, bus: EventBus, site: Site):
    async with Proxy(router.port) as proxy:
        proxy.chopped = True
        await tab.connect(proxy.url)
        await tab.subscribe("task.*")
        await tab.publish(*range(20))
        assert await tab.seen(20) == list(range(20))
        await tab.run("await client.close();")
        assert proxy.connections == 1
