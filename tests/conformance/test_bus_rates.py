"""The bus over each engine: how much each subscription gets a second, in all processes together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import event
from wowevent import Event, EventBus, Reject, directory, pulses

SECONDS = 3  # of the clock that the test moves, since the buses began


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is asked sees it soon, and says something soon."""
    monkeypatch.setattr(directory, "_LOOK", 0.05)
    monkeypatch.setattr(pulses, "_ANSWERS", 0.5)
    monkeypatch.setattr(pulses, "PERIOD", 0.1)


async def rate(bus: EventBus, id: str = "worker") -> tuple[float, float] | None:
    return (await bus.pulses.look()).rates(bus.pulses.now).of(id)


async def test_a_subscription_s_rate_is_the_sum_of_its_processes(rig: Rig):
    one, two = await rig.bus(), await rig.bus()
    looking = await rig.bus()
    done, failed = Counter[EventBus](), Counter[EventBus]()

    def handler(bus: EventBus):
        async def handle(event: Event) -> None:
            (failed if event.payload["n"] % 4 == 0 else done)[bus] += 1
            if event.payload["n"] % 4 == 0:
                raise Reject("each fourth")

        return handle

    def handled(count: int) -> Callable[[], bool]:
        return lambda: done.total() + failed.total() == count

    for bus in (one, two):
        await bus.subscribe("task.*", handler(bus), subscription="worker")
    await looking.subscribe("task.*", handler(looking), subscription="other")
    while not (done[one] and done[two] and failed[one] and failed[two]):  # whoever is free takes them
        before = done.total() + failed.total()
        await looking.publish_many([event(n=n) for n in range(40)])
        await eventually(handled(before + 80))
    await rig.advance(SECONDS)

    def of(*buses: EventBus) -> tuple[float, float]:
        return sum(done[bus] for bus in buses) / SECONDS, sum(failed[bus] for bus in buses) / SECONDS

    async def says(*buses: EventBus, id: str = "worker") -> bool:
        return await rate(looking, id) == pytest.approx(of(*buses), abs=0.01)

    await eventually(lambda: says(one, two), 8)
    assert await says(looking, id="other")
    assert await rate(looking, "nobody") == (0, 0)
    assert await rate(one) == pytest.approx(of(one, two), abs=0.01)
    await two.stop()
    await eventually(lambda: says(one), 5)
    await rig.advance(12)
    await eventually(says, 8)
