"""What works while something is broken: a publisher and a consumer, as processes or as two buses of this one."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from tests.faults.checker import Report
from tests.faults.lab import SUBSCRIPTION, Lab, Program
from wowevent import Event, EventBus
from wowevent.errors import BrokerUnavailable, BusError

UNANSWERED = frozenset({"settled_twice", "revived"})
"""What an acknowledgement that got lost with its line or server looks like to the checker, where that is no promise."""


async def refused(call: Awaitable[object]) -> float:
    """How long it took until the engine was said to be away."""
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(call, 30)
    return time.monotonic() - began


async def history_of(bus: EventBus, *, within: float) -> set[str]:
    """The ids that it has; who asks just when it is gone is told, and asks again."""
    async with asyncio.timeout(within):
        while True:
            with suppress(BrokerUnavailable):
                return {each.event.event_id async for each in bus.history()}
            await asyncio.sleep(0.1)


class Load:
    """A publisher and a consumer, each a process, at one URL."""

    def __init__(self, lab: Lab, url: str, *, lease: float = 60.0) -> None:
        """Such a lease is longer than any trouble of these tests, so that nothing is handled twice for its end."""
        self._lab = lab
        self._url = url
        self._lease = lease
        self.programs: list[Program] = []

    async def start(self, **settings: object) -> None:
        """Both work; `settings` are the publisher's."""
        await self._lab.declare(lease=self._lease)
        self.programs = [
            self._lab.consumer(url=self._url, concurrency=4, lease=self._lease),
            self._lab.publisher(url=self._url, tasks=4, **settings),
        ]
        await self.goes_on(20)

    async def goes_on(self, count: int, *, timeout: float = 30.0) -> float:
        """Wait until so many more were confirmed, and so many more acknowledged; how many seconds that took."""
        began = time.monotonic()
        for what in ("ok", "acked"):
            await self._lab.written(len(self._lab.history(what)) + count, what, timeout=timeout)
        return time.monotonic() - began

    async def judge(self, measured: Any, rounds: int, **facts: object) -> tuple[Report, Sequence[str]]:
        """End both. No promise of the engine is broken, what was confirmed is stored and handled; what is stored."""
        consumer, publisher = self.programs
        publisher.kill()
        consumer.signal(signal.SIGTERM)
        assert await self._lab.ended(consumer) == 0
        drain = await self._lab.drain(lease=self._lease, timeout=90)
        stored = await self._lab.stored()
        report = await self._lab.verdict()
        unknown, twice = len(self._lab.history("unknown")), len(stored) - len(set(stored))
        again = len(report.broken().get("revived", ()))
        measured(
            rounds, report, **facts, unknown=unknown, stored_twice=twice, acked_and_delivered_again=again, drain=drain
        )
        assert not self._lab.broken(report)
        assert report.ok <= report.handled
        assert report.ok <= set(stored)
        return report, stored


class Traffic:
    """Two buses: one publishes and notes what was confirmed, one has a subscription and notes what it handled."""

    def __init__(self, publishing: EventBus, consuming: EventBus, *, lease: float = 30.0) -> None:
        self._publishing = publishing
        self._consuming = consuming
        self._lease = lease
        self._number = 0
        self.handled: list[str] = []
        self.confirmed: set[str] = set()

    async def start(self) -> None:
        """Subscribe."""
        await self._consuming.subscribe(
            "load.#", self._handle, SUBSCRIPTION, subscription=SUBSCRIPTION, lease=self._lease
        )

    def _handle(self, event: Event) -> None:
        self.handled.append(event.event_id)

    async def publish(self) -> str:
        """One event, which is confirmed; its id."""
        self._number += 1
        event = Event(topic="load.made", event_id=f"n-{self._number}")
        await self._publishing.publish(event)
        self.confirmed.add(event.event_id)
        return event.event_id

    async def goes_on(self, *, within: float) -> float:
        """Until an event that is confirmed now is handled; how many seconds that took."""
        began = time.monotonic()
        while True:
            assert time.monotonic() - began < within, "nothing comes"
            id = ""
            with suppress(BusError):
                id = await self.publish()
            for _ in range(10):
                if id in self.handled:
                    return time.monotonic() - began
                await asyncio.sleep(0.02)


async def says(bus: EventBus, engine: str, state: str) -> float:
    """Wait until its health says this of its engine; how many seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(15):
        while (health := await bus.health())[engine] != state:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
    if state != "connected":
        assert health["status"] == "unhealthy"
    return time.monotonic() - began


async def all_go_on(lab: Lab) -> float:
    """Wait until every publisher and consumer has done something new; how many seconds that took."""
    began = time.monotonic()

    def busy() -> set[str]:
        return {entry.process for entry in lab.history("ok", "acked") if entry.time > began}

    known = {entry.process for entry in lab.history("ready")}
    await lab.until(lambda: known <= busy())
    return time.monotonic() - began
