"""The roll: bounded, the same for all, and nothing of it is lost where two write at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.process import Process
from wowevent.broker import Query
from wowevent.brokers.memory import MemoryLog
from wowevent.roll import Roll

Peer = Process[Roll]


def process_of(log: MemoryLog, **settings: Any) -> Peer:
    return Process(log, lambda directory, clock: Roll(directory, "storm", clock, **settings))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def here(log: MemoryLog) -> AsyncIterator[Peer]:
    async with process_of(log) as process:
        yield process


@pytest.fixture
async def there(log: MemoryLog) -> AsyncIterator[Peer]:
    async with process_of(log) as process:
        yield process


async def test_what_is_added_is_known_to_all_until_it_is_dropped(here: Peer, there: Peer):
    told: list[tuple[str, Any]] = []
    here.part.watch(lambda key, value: told.append((key, value)))
    await here.part.add("a", {"n": 1})
    await here.part.add("b", {"n": 2})
    assert here.part.get("a") == {"n": 1}
    await there.directory.refresh()
    assert there.part.items() == {"a": {"n": 1}, "b": {"n": 2}}
    await there.part.drop("a")
    await there.part.drop("never there")
    await here.directory.refresh()
    assert here.part.items() == {"b": {"n": 2}}
    assert told == [("a", {"n": 1}), ("b", {"n": 2}), ("a", None)]
    late: list[Any] = []
    here.part.watch(lambda key, value: late.append((key, value)))
    assert late == [("b", {"n": 2})]


async def test_ten_thousand_keys_are_64_facts_and_bounded(log: MemoryLog):
    here = process_of(log, most=128)
    for n in range(1_000):
        here.clock.jump(1)
        await here.part.add(f"{n}", {"n": n})
    facts = [stored async for stored in here.broker.read(Query(patterns=("_bus.#",)))]
    assert len(facts) == 64
    items = here.part.items()
    assert len(items) == 128
    assert "999" in items  # the oldest of a slot give way
    assert "0" not in items
    await here.close()


async def test_what_two_write_at_once_is_not_lost(log: MemoryLog):
    """All in one slot, each from a process that knows nothing of the others' yet."""
    processes = [process_of(log, most=64 * 16) for _ in range(5)]
    keys = await _of_one_slot(5)
    await asyncio.gather(*(process.part.add(key, {"k": key}) for process, key in zip(processes, keys, strict=True)))

    async def all_known() -> bool:
        for process in processes:
            await process.directory.refresh()
        return all(sorted(process.part.items()) == sorted(keys) for process in processes)

    for _ in range(100):
        if await all_known():
            break
    assert await all_known()
    for process in processes:
        await process.close()


async def test_a_drop_holds_though_the_clock_of_who_drops_is_behind(here: Peer, there: Peer):
    here.clock.jump(3_600)
    await here.part.add("a", {"n": 1})
    await there.directory.refresh()
    await there.part.drop("a")
    await here.directory.refresh()
    assert here.part.get("a") is None
    await here.part.add("a", {"n": 2})
    await there.directory.refresh()
    assert there.part.get("a") == {"n": 2}


async def test_what_is_too_old_holds_no_longer_and_leaves_with_the_next(log: MemoryLog):
    here = process_of(log, keep=60.0)
    old, new = await _of_one_slot(2)
    await here.part.add(old, {})
    here.clock.jump(59)
    assert here.part.get(old) == {}
    here.clock.jump(2)
    assert here.part.get(old) is None
    assert here.part.items() == {}
    await here.part.add(new, {})
    last = [stored async for stored in here.broker.read(Query(patterns=("_bus.#",)))][-1].event.payload
    assert list(last["value"]["entries"]) == [new]
    await here.close()


@pytest.mark.parametrize(
    "value",
    [{}, {"entries": 3}, {"entries": {"a": 1}}, {"entries": {"a": {"at": "now"}}}, {"entries": {"a": {"value": 1}}}],
)
async def test_what_somebody_else_wrote_there_is_left_out(here: Peer, value: dict[str, Any]):
    for slot in range(64):
        await here.directory.put("storm", f"{slot}", value)
    assert here.part.items() == {}
    await here.part.add("a", {"n": 1})
    assert here.part.items() == {"a": {"n": 1}}


async def _of_one_slot(count: int) -> list[str]:
    """Keys that share a fact, found by trying."""
    return ["0", *[f"{n}" for n in range(1, 1_000) if await _share("0", f"{n}")][: count - 1]]


async def _share(key: str, other: str) -> bool:
    probe = process_of(MemoryLog())
    await probe.part.add(key, {})
    await probe.part.add(other, {})
    await probe.close()
    return len(probe.directory.facts("storm")) == 1
