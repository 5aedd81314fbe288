"""Asking for a conversation: where a log is begun, and what cannot be read or goes meanwhile."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from wowevent import ConversationNotFound, Event, EventBus, InvalidEvent, PositionLost, Retention, StorageDamaged
from wowevent.broker import Position, Query, Stored
from wowevent.brokers.memory import MemoryBroker
from wowevent.causation import find
from wowevent.errors import BusError
from wowevent.id import made_at, new_id
from wowevent.reading import Reading, reached


class Watched:
    """The memory engine, whose reads are noted and can fail."""

    def __init__(self, *trouble: BusError) -> None:
        self.broker = MemoryBroker()
        self.queries: list[Query] = []
        self.places: list[Position | None] = []
        self.trouble: list[BusError] = list(trouble)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    def read(self, query: Query, *, after: Position | None = None) -> AsyncIterator[Stored]:
        self.queries.append(query)
        self.places.append(after)
        log = self.broker.read(query, after=after)

        async def turn() -> Sequence[Stored | BusError] | None:
            if self.trouble and query.limit != 1:
                return [self.trouble.pop(0)]
            return [each] if (each := await anext(log, None)) is not None else None

        return Reading(turn, query.limit)


def id_of(moment: float) -> str:
    """An id that was made then."""
    milliseconds = f"{int(moment * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}{new_id()[13:]}"


def test_the_moment_of_an_id() -> None:
    before = time.time()
    assert before - 0.001 <= (made_at(new_id()) or 0) <= time.time() + 1
    assert made_at(id_of(1e9)) == 1e9
    assert made_at("017F22E2-79B0-7CC3-98C4-DC0C0C07398F") == 1645557742.0  # RFC 9562, A.6
    for other in ("919108f7-52d1-4320-9bac-f847db4148a8", "job-1", "", f"{new_id()}\n", "x" + new_id()[1:]):
        assert made_at(other) is None


async def test_a_log_is_read_from_when_the_id_was_made() -> None:
    engine, now = Watched(), time.time()
    root = id_of(now - 100)
    leaf = Event(topic="a", correlation_id=root)
    await engine.publish([Event(topic="a", event_id=root), leaf])

    found = await find(engine, root, 10, now)  # type: ignore[arg-type]  # what it does not note it passes on
    assert [each.event.event_id for each in found.stored] == [root, leaf.event_id]
    assert [query.since for query in engine.queries] == [pytest.approx(now - 130, abs=0.01), None]
    assert engine.places == [None, found.stored[0].position]  # what lies before was looked at

    engine.queries.clear()
    assert (await find(engine, leaf.event_id, 10, now)) == found  # type: ignore[arg-type]  # as above
    assert [query.since for query in engine.queries] == [
        pytest.approx((made_at(leaf.event_id) or 0) - 30),
        pytest.approx(now - 130, abs=0.01),
    ]


@pytest.mark.parametrize("asked", ["job-1", id_of(4e9)], ids=["says nothing", "says a time to come"])
async def test_an_id_that_says_no_moment_is_looked_for_everywhere(asked: str) -> None:
    engine = Watched()
    await engine.publish([Event(topic="a", correlation_id=asked)])
    assert len((await find(engine, asked, 10, time.time())).stored) == 1  # type: ignore[arg-type]  # as above
    assert engine.queries[0].since is None


async def test_what_was_stored_long_before_its_id_says_is_found_all_the_same() -> None:
    engine, ahead = Watched(), time.time() + 1_000  # the clock of who published
    sent = [Event(topic="a", event_id=id_of(ahead), correlation_id=id_of(ahead - 100)) for _ in range(3)]
    sent = [Event(topic="a", event_id=each.event_id, correlation_id=sent[0].correlation_id) for each in sent]
    await engine.publish(sent)
    assert len((await find(engine, sent[2].event_id, 10, ahead)).stored) == 3  # type: ignore[arg-type]  # as above


async def test_a_bound_says_that_it_was_reached() -> None:
    async with EventBus("memory://") as bus:
        await bus.publish_many([Event(topic="a", correlation_id="c") for _ in range(5)])
        all, some = await bus.trace("c", limit=5), await bus.trace("c", limit=4)
        assert (len(all.steps), all.more) == (5, False)
        assert (len(some.steps), some.more) == (4, True)
        with pytest.raises(ValueError, match="limit"):
            await bus.trace("c", limit=0)


async def test_an_unknown_id_and_what_is_none() -> None:
    async with EventBus("memory://") as bus:
        await bus.publish(Event(topic="a"))
        for unknown in (new_id(), "job-1"):
            with pytest.raises(ConversationNotFound, match=unknown):
                await bus.trace(unknown)
        with pytest.raises(InvalidEvent):
            await bus.trace("a b")


async def test_what_cannot_be_read_is_counted() -> None:
    engine = Watched(StorageDamaged("at 1"), StorageDamaged("at 2"))
    await engine.publish([Event(topic="a", correlation_id="c")])
    found = await find(engine, "c", 10, time.time())  # type: ignore[arg-type]  # as above
    assert (len(found.stored), found.unreadable) == (1, 2)


async def test_a_log_that_cannot_be_read_is_not_read_for_ever() -> None:
    engine = Watched(*[StorageDamaged("all of it")] * 2_000)
    await engine.publish([Event(topic="a", correlation_id="c")])
    with pytest.raises(StorageDamaged):
        await find(engine, "c", 10, time.time())  # type: ignore[arg-type]  # as above


async def test_a_log_whose_beginning_goes_meanwhile_is_read_again() -> None:
    engine = Watched(PositionLost("3 events are gone", 3))
    await engine.publish([Event(topic="a", correlation_id="c") for _ in range(3)])
    assert len((await find(engine, "c", 10, time.time())).stored) == 3  # type: ignore[arg-type]  # as above
    engine.trouble = [PositionLost("again")] * 100
    with pytest.raises(PositionLost):
        await find(engine, "c", 10, time.time())  # type: ignore[arg-type]  # as above


async def test_what_the_log_let_go_and_a_dead_letter_kept() -> None:
    async with EventBus("memory://", retention=Retention(max_count=2)) as bus:

        async def refuse(event: Event) -> None:
            raise ValueError("never")

        await bus.subscribe("task.*", refuse, "worker", retry=None)
        first = Event(topic="task.a", max_retries=0)
        await bus.publish(first)
        await bus.join(5)
        await bus.publish_many([Event(topic="b") for _ in range(10)])
        (letter,) = await bus.dead_letters.list()
        found = await bus.trace(letter.event.event_id)
    (step,) = found.steps
    assert (step.event_id, step.position, len(step.failures)) == (first.event_id, None, 1)


@pytest.mark.parametrize(
    ("times", "moment", "place"),
    [
        ({}, 5.0, 1),
        ({1: 4.0, 2: 5.0, 3: 5.0, 4: 6.0}, 5.0, 2),
        ({1: 4.0, 2: 4.5, 4: 6.0}, 5.0, 3),
        ({1: 4.0, 3: 4.5, 4: 6.0}, 5.0, 2),
        ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}, 5.0, 5),
        ({1: 7.0, 2: 8.0, 3: 9.0, 4: 9.0}, 5.0, 1),
    ],
)
async def test_where_a_log_comes_to_a_moment(times: dict[int, float], moment: float, place: int) -> None:
    async def at(offset: int) -> float | None:
        return times.get(offset)

    assert await reached(at, 1, 4, moment) == place
