"""The log backwards: pages of the newest, parts of it by place and by when it was stored, what is gone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from tests.conformance.engines import Rig
from tests.conformance.making import event, events, numbers, read, store
from wowevent import InvalidEvent, PositionLost, rewind
from wowevent.broker import Broker, Position, Query, Retention
from wowevent.rewind import newest, stretch


async def pages(broker: Broker, limit: int, query: Query = Query(), **part: Any) -> list[list[int]]:  # noqa: B008 - frozen
    """Each page up to the last one."""
    found: list[list[int]] = []
    while True:
        page = await newest(broker, query, await stretch(broker, query, **part), limit)
        found.append(numbers(page.found))
        assert len(page.found) <= limit
        if page.before is None:
            return found
        part["before"] = page.before


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several windows where a log is short, and pages that come to their bound."""
    monkeypatch.setattr(rewind, "_NARROWEST", 10)
    monkeypatch.setattr(rewind, "WIDEST", 40)
    monkeypatch.setattr(rewind, "LOOKED", 100)
    monkeypatch.setattr(rewind, "PATIENCE", 60.0)  # the machine may have other things to do


async def test_the_newest_come_first_in_pages(rig: Rig):
    broker = rig.broker()
    assert await pages(broker, 10) == [[]]
    await broker.publish(events(30))
    assert await pages(broker, 20) == [list(range(29, 9, -1)), list(range(9, -1, -1))]
    assert await pages(broker, 30) == [list(range(29, -1, -1))]


@pytest.mark.usefixtures("narrow")
async def test_what_is_rare_is_found_a_part_of_the_log_at_a_time(rig: Rig):
    broker = rig.broker()
    await broker.publish([event("rare.one" if n % 150 == 0 else "task.created", n) for n in range(400)])
    found = await pages(broker, 2, Query(patterns=("rare.*",)))
    assert [n for page in found for n in page] == [300, 150, 0]
    assert len(found) > 2, "a page looks at so many places at most"
    assert [n for page in await pages(broker, 90) for n in page] == list(range(399, -1, -1))


async def test_pages_stay_as_they_are_while_more_is_published(rig: Rig):
    broker, query = rig.broker(), Query()
    await broker.publish(events(4))
    first = await newest(broker, query, await stretch(broker, query), 2)
    await broker.publish([event(n=9)])
    second = await newest(broker, query, await stretch(broker, query, before=first.before), 2)
    assert (numbers(first.found), numbers(second.found), second.before) == ([3, 2], [1, 0], None)


async def test_a_part_by_places(rig: Rig):
    broker = rig.broker()
    places = await store(broker, events(6))
    assert await pages(broker, 10, after=places[1], before=places[4]) == [[3, 2]]
    assert await pages(broker, 1, after=places[1], before=places[4]) == [[3], [2]]
    assert await pages(broker, 10, after=places[4], before=places[1]) == [[]]


async def test_a_part_by_when_it_was_stored_its_ends_included(rig: Rig):
    broker, query = rig.broker(), Query()
    for start in (0, 3, 6):
        await broker.publish([event(n=n) for n in range(start, start + 3)])
        await rig.advance(100)
    at = [stored.stored_at for stored in await read(broker)]
    for begin, end, wanted in ((at[3], at[5], [5, 4, 3]), (None, at[2], [2, 1, 0]), (at[6], None, [8, 7, 6])):
        part: dict[str, Any] = {"stored_from": begin, "stored_until": end}
        assert await pages(broker, 10, **part) == [wanted]
        found = await stretch(broker, query, **part)
        forward = [each async for each in broker.read(structs.replace(query, upto=found.upto), after=found.after)]
        assert numbers(forward) == wanted[::-1]
    for begin, end in ((at[8] + 50, None), (None, at[0] - 50), (at[2] + 50, at[3] - 50), (at[6], at[2])):
        assert await pages(broker, 10, stored_from=begin, stored_until=end) == [[]]


@pytest.mark.usefixtures("narrow")
async def test_what_retention_took_ends_the_pages_and_is_no_failure(rig: Rig):
    broker = rig.broker(retention=Retention(max_age=100))
    places = await store(broker, events(100))
    await rig.advance(200)
    await broker.publish([event(n=n) for n in range(100, 115)])
    left = numbers(await read(broker))
    assert left[-15:] == list(range(100, 115))
    left.reverse()
    assert await pages(broker, 10) == [left[at : at + 10] for at in range(0, len(left), 10)]
    if left[-1] == 100:
        assert await pages(broker, 10, before=places[50]) == [[]]


async def test_the_place_of_another_log_is_lost_and_facts_have_no_pages(rig: Rig):
    broker, elsewhere = rig.broker(), Position("elsewhere", 1)
    await broker.publish(events(1))
    parts: list[dict[str, Any]] = [{"after": elsewhere}, {"before": elsewhere}]
    for part in parts:
        with pytest.raises(PositionLost):
            await pages(broker, 10, **part)
    with pytest.raises(InvalidEvent):
        await pages(broker, 10, Query(patterns=("_bus.#",)))
