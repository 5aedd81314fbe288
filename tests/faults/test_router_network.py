"""Bad lines between clients and the router: every event is stored once, in the order of its client, and handled."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import pytest

from tests.faults.lab import Program
from tests.faults.proxy import Proxy
from tests.faults.raw import Raw
from tests.faults.router_lab import RouterLab
from wowevent import EventBus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


class Load:
    """Named and anonymous clients and publishers, all behind one proxy."""

    def __init__(self, routed: RouterLab, proxy: Proxy) -> None:
        self._routed = routed
        self._proxy = proxy
        self.receivers: list[Program] = []
        self.publishers: list[Program] = []
        self.counts: dict[str, int] = {}

    async def start(self, pause: float = 0.04, **settings: float) -> None:
        """Four subscriptions of either kind, then two publishers, which pause so many seconds between events."""
        link = {"url": self._proxy.url, "reconnect": 0.2, **settings}
        self.receivers = [await self._routed.receiver(clients=4, named=named, **link) for named in (True, False)]
        self.publishers = [self._routed.publisher(pause=pause, tasks=2, **link) for _ in range(2)]
        for each in self.publishers:
            await self._routed.lab.written(1, "ready", process=each.name)
        await self.pass_on(50)

    async def pass_on(self, count: int, *, timeout: float = 30.0) -> float:
        """Wait until so many more events were handled; how many seconds that took."""
        return await self._routed.lab.written(
            len(self._routed.lab.history("effect")) + count, "effect", timeout=timeout
        )

    async def finish(self) -> int:
        """Let everything be confirmed and handled; how many events were published."""
        published = await self._routed.confirmed(*self.publishers)
        await self._routed.handled()
        self.counts = await self._routed.end(*self.receivers)
        return published


async def judge(routed: RouterLab, measured, rounds: int, **facts: object) -> None:
    """Nothing lost anywhere, every event in the log once, those of a client in the order of its publishing."""
    report = await routed.verdict()
    measured(rounds, report, **facts)
    assert not report.broken()
    assert report.handled == report.ok
    async with EventBus(routed.lab.url) as bus:
        stored = [each.event.event_id async for each in bus.history()]
    assert len(stored) == len(set(stored))
    invoked: dict[str, list[str]] = defaultdict(list)
    for entry in routed.lab.history("invoked"):
        invoked[entry.process].append(entry.id)
    assert set(stored) == {id for ids in invoked.values() for id in ids}
    for name, ids in invoked.items():
        assert [id for id in stored if id.startswith(f"{name}-")] == ids


def anonymous_once(routed: RouterLab, load: Load) -> bool:
    """Whether the anonymous ones, which have no second chance, had none either."""
    live = load.receivers[1].name
    found = [(entry.key.partition("|")[0], entry.id) for entry in routed.lab.history("effect", process=live)]
    return len(found) == len(set(found)) > 0


@pytest.mark.parametrize("kind", ["slow", "chopped", "crowded"])
async def test_a_bad_line_is_no_dead_one(routed: RouterLab, long_form: bool, kind: str, measured):
    """100 ms each way, pieces of 1 to 7 bytes, or more than such a line carries: nobody is taken to be gone."""
    router = await routed.router(ping_interval=25.0 if kind == "crowded" else 1.0)
    async with Proxy(routed.port) as proxy:
        proxy.delay, proxy.chopped = (0.1, False) if kind == "slow" else (0.0, True)
        load = Load(routed, proxy)
        await load.start(heartbeat=1.0, timeout=2.0, pause=0.04 if kind == "crowded" else 0.4)
        longest = 15 if kind == "crowded" else 60  # longer, and what waits is more than an outbox may hold
        await asyncio.sleep(longest if long_form else 4)  # several heartbeats of both sides
        published = await load.finish()
        assert proxy.connections == 10
    await judge(routed, measured, 1, published=published)
    assert not (await routed.verdict()).duplicates
    assert not load.counts["reconnects"]
    await routed.end(router)


async def test_a_reset_each_second(routed: RouterLab, long_form: bool, measured):
    """For 10 s, or a minute: everything goes on between the resets."""
    router = await routed.serve()
    rounds, slowest = 60 if long_form else 10, 0.0
    async with Proxy(routed.port) as proxy:
        load = Load(routed, proxy)
        await load.start()
        for _ in range(rounds):
            await asyncio.sleep(1)
            proxy.reset()
            slowest = max(slowest, await load.pass_on(1))
        published = await load.finish()
        await judge(routed, measured, rounds, published=published, connections=proxy.connections, recovery=slowest)
    assert anonymous_once(routed, load)
    assert not load.counts["resets"]
    assert slowest < 5
    await routed.end(router)


async def test_a_black_hole(routed: RouterLab, long_form: bool, measured):
    """Nothing passes for longer than both sides wait; then all resumes within 15 s."""
    router = await routed.router(ping_interval=1.0)
    rounds, slowest = 5 if long_form else 1, 0.0
    async with Proxy(routed.port) as proxy:
        load = Load(routed, proxy)
        await load.start(heartbeat=1.0, timeout=2.0)
        for _ in range(rounds):
            proxy.stop_passing()
            await asyncio.sleep(6)  # clients give up after 3 s, the router after 2
            told = (await routed.health())["clients"]
            assert told == 1, "the router has given up on all but the one that asks"
            proxy.pass_on()
            began = time.monotonic()
            await routed.subscribed(8)
            slowest = max(slowest, time.monotonic() - began)
            await load.pass_on(50)
        published = await load.finish()
    await judge(routed, measured, rounds, published=published, recovery=slowest)
    assert anonymous_once(routed, load)
    assert slowest < 15
    await routed.end(router)


async def test_an_acknowledgement_alone_is_lost(routed: RouterLab, long_form: bool, measured):
    """The router stored it, and the answer never comes: what is sent again is known, and stored once."""
    router = await routed.serve()
    rounds = 100 if long_form else 10
    async with Proxy(routed.port) as proxy:
        load = Load(routed, proxy)
        await load.start()
        for lost in range(rounds):
            proxy.lose = lambda message: message.startswith(b'{"type":"published"')
            await routed.lab.until(lambda lost=lost: proxy.lost > lost)
            proxy.lose = None
            await load.pass_on(8)
        published = await load.finish()
        await judge(routed, measured, rounds, published=published, lost_answers=proxy.lost)
    assert anonymous_once(routed, load)
    await routed.end(router)


async def test_a_raw_client_is_told_that_it_said_so_before(routed: RouterLab):
    """The same event on two connections: the second answer names the position of the first."""
    router = await routed.serve()
    answers = []
    for _ in range(2):
        client = await Raw.connect(routed.port)
        await client.send(type="publish", event={"topic": "load.made", "event_id": "same", "payload": {"n": 1}})
        answers.append(await client.until("published"))
        client.close(reset=True)
    assert answers[0]["position"] == answers[1]["position"]
    assert [answer.get("duplicate", False) for answer in answers] == [False, True]
    await routed.end(router)
