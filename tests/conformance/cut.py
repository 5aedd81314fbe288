"""A line to an engine that a test can cut."""

from __future__ import annotations

from typing import Any

from tests.conformance.engines import Rig
from wowevent import BrokerUnavailable, EventBus
from wowevent.broker import Broker


class Cut:
    """The same engine behind a line that can be cut: calls raise as they would if nothing answered."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.down: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._broker, name)
        if name not in {"publish", "fetch", "settle", "ping", "subscriptions", "info", "resolve"}:
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in self.down:
                raise BrokerUnavailable("the line is cut")
            result = await found(*args, **kwargs)
            if f"answer of {name}" in self.down:
                self.down.discard(f"answer of {name}")
                raise BrokerUnavailable("the line was cut before the answer came")
            return result

        return call


async def bus_on(cut: Cut, rig: Rig) -> EventBus:
    bus = EventBus(cut, clock=rig.clock)
    await bus.start()
    return bus
