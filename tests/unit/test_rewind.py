"""The log backwards: how much of it one page looks at, and a log that is made anew meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from msgspec import structs

from wowevent import Event, PositionLost, rewind
from wowevent.broker import Position, Query, Retention, Stored
from wowevent.brokers.memory import MemoryBroker
from wowevent.rewind import LOOKED, WIDEST, newest, stretch


class Watched:
    """The memory engine; what was looked at is noted, and it can become another log."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(retention=Retention(max_count=10**6))
        self.windows: list[tuple[int, int]] = []
        self.epoch = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def read(self, query: Query, *, after: Position | None = None) -> AsyncGenerator[Stored]:
        assert query.upto is not None
        self.windows.append((0 if after is None else after.offset, query.upto.offset))
        async for stored in self.broker.read(query, after=after):
            yield structs.replace(
                stored, position=Position(self.epoch or stored.position.epoch, stored.position.offset)
            )


async def filled(count: int) -> Any:
    broker = Watched()
    await broker.publish([Event(topic="task.created", payload={"n": n}) for n in range(count)])
    return broker


async def test_a_page_looks_at_so_many_places_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewind, "PATIENCE", 60.0)
    broker, query = await filled(LOOKED + 5_000), Query(patterns=("rare.*",))
    page = await newest(broker, query, await stretch(broker, query), 10)
    assert sum(last - first for first, last in broker.windows) == LOOKED
    assert max(last - first for first, last in broker.windows) <= WIDEST
    assert [last for _, last in broker.windows[1:]] == [first for first, _ in broker.windows[:-1]], "none is read twice"
    assert (page.found, page.before and page.before.offset) == ([], 5_001)
    rest = await newest(broker, query, await stretch(broker, query, before=page.before), 10)
    assert (rest.found, rest.before) == ([], None)


async def test_an_engine_that_takes_long_is_asked_for_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewind, "PATIENCE", 0.0)
    broker, query = await filled(2_000), Query(patterns=("rare.*",))
    page = await newest(broker, query, await stretch(broker, query), 10)
    assert broker.windows == [(1_750, 2_000)]
    assert (page.found, page.before and page.before.offset) == ([], 1_751)


async def test_a_page_of_what_is_there_is_one_window_and_reads_no_more_than_twice_as_much() -> None:
    broker, query = await filled(5_000), Query()
    page = await newest(broker, query, await stretch(broker, query), 500)
    assert [stored.event.payload["n"] for stored in page.found] == list(range(4_999, 4_499, -1))
    assert broker.windows == [(4_000, 5_000)]


async def test_what_may_not_be_seen_is_left_out() -> None:
    broker, query = await filled(20), Query()
    page = await newest(broker, query, await stretch(broker, query), 3, lambda event: event.payload["n"] % 2 == 0)
    assert [stored.event.payload["n"] for stored in page.found] == [18, 16, 14]


async def test_a_log_that_is_made_anew_meanwhile_is_lost() -> None:
    broker, query = await filled(20), Query()
    part = await stretch(broker, query)
    broker.epoch = "another"
    with pytest.raises(PositionLost):
        await newest(broker, query, part, 3)
