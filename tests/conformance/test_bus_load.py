"""The bus over each engine: many at once, long backlogs, urgent events."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event
from wowevent import Event


async def test_fifty_publishers_and_fifty_competing_consumers(rig: Rig):
    publishers = [await rig.bus() for _ in range(5)]
    members = [await rig.bus() for _ in range(rig.crowd)]
    seen: Counter[int] = Counter()

    async def handler(event: Event) -> None:
        seen[event.payload["n"]] += 1

    for member in members:
        await member.subscribe("task.*", handler, "worker", concurrency=50 // rig.crowd)

    async def publish(n: int) -> None:
        for k in range(100):
            await publishers[n % 5].publish(event(n=n * 100 + k))

    await asyncio.gather(*(publish(n) for n in range(50)))
    await eventually(lambda: sum(seen.values()) >= 5000, seconds=40)
    await rig.breathe()
    assert seen == Counter(range(5000))


async def test_twenty_topics_and_two_groups_leak_nothing(rig: Rig):
    bus, seen = await rig.bus(), dict[tuple[str, int], list[str]]()

    def handler(group: str, topic: int):
        mine = seen.setdefault((group, topic), [])

        async def note(event: Event) -> None:
            mine.append(f"{event.topic}:{event.payload['n']}")

        return note

    for topic in range(20):
        for group in ("a", "b"):
            await bus.subscribe(f"topic.t{topic}", handler(group, topic), f"{group}-{topic}")
    await bus.publish_many([event(f"topic.t{n % 20}", n) for n in range(400)])
    await bus.join(20)
    for (_, topic), found in seen.items():
        assert found == [f"topic.t{topic}:{n}" for n in range(topic, 400, 20)]


async def test_an_urgent_event_is_handled_within_the_next_prefetch_of_a_backlog(rig: Rig):
    bus, gate = await rig.bus(), asyncio.Event()
    seen: list[int] = []

    async def handler(event: Event) -> None:
        seen.append(event.payload["n"])
        if len(seen) == 100:
            await gate.wait()

    await (await bus.subscribe("task.*", Seen(), "worker")).cancel()
    for start in range(0, 10_000, 500):
        await bus.publish_many([event(n=n) for n in range(start, start + 500)])
    await bus.subscribe("task.*", handler, "worker")
    await eventually(lambda: len(seen) == 100)
    await bus.publish(event(n=-1, priority=9))
    gate.set()
    await eventually(lambda: -1 in seen)
    assert seen.index(-1) <= 100 + 2 * 512, "what was held already, and no more than the next prefetch"
    await eventually(lambda: len(seen) == 10_001, seconds=30)


async def test_urgent_traffic_starves_nobody(rig: Rig):
    bus, other = await rig.bus(), await rig.bus()
    seen: list[int] = []

    async def handler(event: Event) -> None:
        seen.append(event.payload["n"])
        if event.priority == 9 and len(seen) < 2000:
            await bus.publish(Event(topic="task.created", priority=9, payload={"n": -1}))

    await (await other.subscribe("task.*", Seen(), "worker")).cancel()
    await other.publish_many([event(n=-1, priority=9) for _ in range(20)])
    await other.publish_many([event(n=n, priority=1) for n in range(50)])
    await bus.subscribe("task.*", handler, "worker")
    await eventually(lambda: len(seen) >= 1000, seconds=20)
    assert [n for n in seen[:1000] if n >= 0] == list(range(50))


async def test_ten_levels_in_what_a_consumer_holds(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await (await bus.subscribe("task.*", seen, "worker")).cancel()
    await bus.publish_many([event(n=n, priority=1 + n * 7 % 6) for n in range(60)])
    await bus.subscribe("task.*", seen, "worker", concurrency=100)
    await eventually(seen.count(60))
    levels = [e.priority for e in seen.events]
    assert levels == sorted(levels, reverse=True)
    assert all(
        [n for n, e in zip(seen.numbers, seen.events, strict=True) if e.priority == level]
        == [n for n in range(60) if 1 + n * 7 % 6 == level]
        for level in range(1, 7)
    )
