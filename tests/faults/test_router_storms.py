"""Many clients at once: one that does not read among a thousand, two thousand, and five hundred that come and go."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from typing import Any

import pytest

from tests.faults.lab import Program
from tests.faults.raw import Frames, Raw
from tests.faults.router_lab import RouterLab
from wowevent import Event
from wowevent.client import EventRouterClient
from wowevent.router.wire import message

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FOR_LONG = {"test_a_thousand_then_two_thousand"}

OTHERS = 998
"""With the one that does not read and the publisher they are as many as a router takes."""
BULK = "x" * 200_000
WANTED = {"topics": ["tick.*", "bulk.*"]}
PAUSE = 0.1
THOUSAND = 1_000
TICKS = 100
FILES = 4_096  # that a router of two thousand clients may have open, with room


class Ticker:
    """Publishes ticks for all, and with each a bulk event for the slow one alone."""

    def __init__(self, client: EventRouterClient) -> None:
        self.ids: list[str] = []
        self.counts: dict[str, int] = {}
        self.bytes = 0
        self.client = client

    async def tick(self, phase: str) -> None:
        """One of either."""
        self.counts[phase] = self.counts.get(phase, 0) + 1
        for topic, padding in (("bulk.made", BULK), ("tick.made", "")):
            payload = {"at": round(time.monotonic(), 6), "phase": phase, "padding": padding}
            event = Event(topic=topic, payload=payload)
            self.bytes += len(event.body)
            self.ids.append(await self.client.publish(event))

    async def tick_until(self, phase: str, count: int) -> None:
        """So many in all."""
        while self.counts.get(phase, 0) < count:
            await self.tick(phase)
            await asyncio.sleep(PAUSE)


class Slow:
    """What the slow one got, over all of its connections."""

    def __init__(self, port: int) -> None:
        self.got: list[str] = []
        self.position = ""
        self._port = port

    async def subscribe(self, **settings: Any) -> Raw:
        """A connection that is served, and keeps nothing back."""
        raw = await Raw.connect(self._port, receive_buffer=64 * 1024)
        await raw.send(type="subscribe", subscription={**WANTED, **settings})
        assert (await raw.until("subscribed"))["recovered"] is True
        return raw

    async def take(self, raw: Raw, count: int) -> None:
        """Read until so many events came in all, or the connection ends."""
        while len(self.got) < count and (message := await raw.receive()) is not None:
            if message["type"] == "event":
                self.got.append(message["event"]["event_id"])
                self.position = message["position"]


async def test_one_that_does_not_read_among_a_thousand(routed: RouterLab, long_form: bool, measured):
    """It is cut off at its cap, and goes on where it was; the others notice nothing."""
    router = await routed.serve()
    ticks = 100 if long_form else 20
    readers = [await routed.readers(clients=OTHERS // 2) for _ in range(2)]
    async with EventRouterClient(routed.url) as client:
        ticker, slow = Ticker(client), Slow(routed.port)
        raw = await slow.subscribe()
        for count in range(1, ticks + 1):
            await ticker.tick_until("before", count)
            await slow.take(raw, 2 * count)
        sent, kept = await stop_reading(ticker, slow, raw)
        read = len(slow.got)
        again = await slow.subscribe(after=slow.position)
        await ticker.tick("after")
        await slow.take(again, len(ticker.ids))
        again.close()
        await ticker.tick_until("during", ticks)
        await asyncio.sleep(1.0)
    assert slow.got == ticker.ids[: len(slow.got)]
    assert read < len(slow.got)
    p99 = await ages(routed, readers, ticker.counts)
    measured(1, sent_until_cut=f"{sent:.1f} MiB", kernel_kept=f"{kept:.1f} MiB", before=p99[0], during=p99[1])
    assert p99[1] < max(2 * p99[0], 1.0)
    assert sent < 1 + 6, "the cap, and what the kernel may keep for both sides"
    await routed.end(router)


async def stop_reading(ticker: Ticker, slow: Slow, raw: Raw) -> tuple[float, float]:
    """Read nothing until it is cut off: how many MiB were for it by then, and how many the kernel had kept."""
    ticker.bytes = 0
    while not (await health(ticker)):
        await ticker.tick("during")
        await asyncio.sleep(PAUSE)
        assert ticker.bytes < 16 * 2**20, "it is not cut off"
    sent, before = ticker.bytes, raw.bytes
    await slow.take(raw, 10**9)  # what the kernel kept for it, and why it was cut off
    assert raw.close_code == 4000
    assert raw.close_reason.startswith("you did not read; ")
    raw.close()
    return sent / 2**20, (raw.bytes - before) / 2**20


async def health(ticker: Ticker) -> int:
    """How many clients were cut off because they did not read."""
    return int((await ticker.client.get_health())["slow_clients"])


async def ages(routed: RouterLab, readers: list[Program], counts: dict[str, int]) -> list[float]:
    """The p99 of all readers before and during, in seconds; every one of them got every tick."""
    for each in readers:
        each.signal(signal.SIGTERM)
        assert await routed.lab.ended(each) == 0, routed.lab.output()
    words = [routed.last_words(each) for each in readers]
    for phase, count in counts.items():
        assert [word[phase]["fewest"] for word in words] == [count, count]
    return [percentile(words, phase) for phase in ("before", "during")]


def percentile(words: list[Any], phase: str) -> float:
    """The 99th of all readers' ages, in seconds."""
    ages = sorted(age for word in words for age in word[phase]["ages"])
    return float(ages[len(ages) * 99 // 100])


async def test_a_thousand_then_two_thousand(routed: RouterLab, measured):
    """All of them get everything; the second thousand costs what the first one did."""
    allow_files(FILES)
    router = await routed.router(max_clients=2 * THOUSAND + 1)
    async with EventRouterClient(routed.url) as client:
        empty = await routed.facts(router)
        half, first = await joined(routed)
        one = await routed.facts(router)
        await tick(client, "before")
        rest, second = await joined(routed)
        two = await routed.facts(router)
        await tick(client, "after")
    for each in half + rest:
        each.signal(signal.SIGTERM)
        assert await routed.lab.ended(each) == 0, routed.lab.output()
    early, late = [routed.last_words(each) for each in half], [routed.last_words(each) for each in rest]
    assert [word["before"]["fewest"] for word in early] == [TICKS] * len(early)
    assert [word["after"]["fewest"] for word in early + late] == [TICKS] * len(early + late)
    p99 = percentile(early, "before"), percentile(early + late, "after")
    grown = one["memory"] - empty["memory"], two["memory"] - one["memory"]
    measured(
        1,
        connecting=f"{first:.1f} s, {second:.1f} s",
        memory=f"{empty['memory']:.0f} MiB, {one['memory']:.0f} MiB, {two['memory']:.0f} MiB",
        handles=two["handles"],
        p99_of_1000=p99[0],
        p99_of_2000=p99[1],
    )
    assert two["connections"] == 2 * THOUSAND + 1
    assert p99[1] < max(4 * p99[0], 1.0)
    assert grown[1] < 2 * grown[0] + 10
    left = await quiet(routed, router)
    assert left["connections"] == 0
    assert left["handles"] <= empty["handles"] + 2
    await routed.end(router)


def allow_files(count: int) -> None:
    """So many open files for the programs that follow: they begin with what this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


async def joined(routed: RouterLab) -> tuple[list[Program], float]:
    """A thousand readers more, and in how many seconds all of them were subscribed."""
    began = time.monotonic()
    return [await routed.readers(clients=THOUSAND // 2) for _ in range(2)], time.monotonic() - began


async def tick(client: EventRouterClient, phase: str) -> None:
    """One event for all, again and again."""
    for _ in range(TICKS):
        await client.publish(Event(topic="tick.made", payload={"at": round(time.monotonic(), 6), "phase": phase}))
        await asyncio.sleep(PAUSE)
    await asyncio.sleep(1.0)  # what is on its way


async def test_five_hundred_that_come_and_go(routed: RouterLab, long_form: bool, measured):
    """Round after round, all at once: afterwards the router holds what it held before."""
    router = await routed.router()
    rounds = 40 if long_form else 4
    await routed.storm(500, 1)
    before = await quiet(routed, router)
    await routed.storm(500, rounds // 2)
    halfway = await quiet(routed, router)
    await routed.storm(500, rounds // 2)
    began = time.monotonic()
    after = await quiet(routed, router)
    took = time.monotonic() - began
    measured(rounds, before=str(before), halfway=str(halfway), after=str(after), quiet_after=took)
    assert after["connections"] == after["members"] == after["couriers"] == 0
    assert after["tasks"] == before["tasks"]
    assert after["handles"] <= before["handles"] + 2
    assert after["memory"] < before["memory"] * 1.25 + 5
    assert not long_form or after["memory"] < halfway["memory"] * 1.05, "it grows with every round"
    await routed.end(router)


async def quiet(routed: RouterLab, router: Any, *, timeout: float = 30.0) -> dict[str, float]:
    """What the router holds once nobody is there and nothing is waited for."""
    deadline = time.monotonic() + timeout
    while True:
        facts = await routed.facts(router)
        if not (facts["connections"] or facts["members"] or facts["couriers"]) or time.monotonic() > deadline:
            await asyncio.sleep(1.0)  # what was on its way out
            return await routed.facts(router)
        await asyncio.sleep(0.1)


async def test_resets_that_find_data_unread_are_noticed(routed: RouterLab, measured):
    """A client that is killed while it sends resets its connection: that is its end, not the third missed ping."""
    router = await routed.router()
    event = {"topic": "storm.made", "payload": {"padding": "x" * 250_000}}

    async def flood() -> None:
        client = await Raw.connect(routed.port)
        await client.send_part(200_000, type="publish", event=event)
        client.close(reset=True)

    for _ in range(25):
        await asyncio.gather(*(flood() for _ in range(8)))
    began = time.monotonic()
    facts = await quiet(routed, router, timeout=3.0)
    measured(200, left=facts["connections"], gone_after=time.monotonic() - began)
    assert facts["connections"] == 0
    await routed.end(router)


def test_frames_are_cut_where_they_end():
    """The parser that these tests rely on, with all three lengths, however the stream is cut."""
    texts = [b"x" * size for size in (0, 1, 125, 126, 300, 65_535, 65_536)]
    stream = b"".join(map(message, texts))
    for step in (997, 1000, len(stream)):
        frames = Frames()
        found = [frames.feed(stream[at : at + step]) for at in range(0, len(stream), step)]
        assert [payload for part in found for _, payload, _ in part] == texts
    frames = Frames()
    assert [len(frames.feed(bytes([byte]))) for byte in message(b"x" * 126)] == [0] * 129 + [1]
