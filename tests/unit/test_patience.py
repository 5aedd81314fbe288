"""An engine that says nothing: a publish is not waited for without an end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wowevent import BrokerUnavailable, Event, EventBus, bus
from wowevent.broker import Appended
from wowevent.brokers.memory import MemoryBroker

SOON = 5.0


class Mute:
    """Takes events in, and does not always answer."""

    def __init__(self) -> None:
        self.answers: asyncio.Event = asyncio.Event()
        self.asked: int = 0
        self.answers.set()
        self._broker = MemoryBroker()

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """What it was given is there, whether it says so or not."""
        self.asked += 1
        appended = await self._broker.publish(events)
        await self.answers.wait()
        return appended


async def test_a_publish_that_is_not_answered_ends(monkeypatch):
    """Those that gathered meanwhile with it; sent again once the engine answers, it is known."""
    monkeypatch.setattr(bus, "_PATIENCE", 0.2)
    engine = Mute()
    async with asyncio.timeout(SOON), EventBus(engine) as lost:  # type: ignore[arg-type]  # the rest is the engine's
        engine.answers.clear()
        engine.asked = 0
        event = Event(topic="task.done", payload={})
        waiting = [lost.publish(event), *(lost.publish(Event(topic="task.done", payload={})) for _ in range(3))]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [BrokerUnavailable] * 4
        assert "did not take it" in str(ends[0])
        assert engine.asked == 1
        engine.answers.set()
        assert (await lost.publish(event)).duplicate
