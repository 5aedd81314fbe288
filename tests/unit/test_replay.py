"""Replay: which events, and how far apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wowevent import Event, InvalidEvent, InvalidTopic, ReplayConfig
from wowevent.broker import Position, Query, Stored
from wowevent.delivery import Delivery, current, enter
from wowevent.replay import REPLAY, build_query, replay
from wowevent.testing import ManualClock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def log(*seconds: float) -> AsyncIterator[Stored]:
    for n, second in enumerate(seconds, 1):
        event = Event(topic="a", timestamp=NOON + timedelta(seconds=second), payload={"n": n})
        yield Stored(event, Position("e", n), 0.0)


@pytest.mark.parametrize(
    ("speed", "at"), [(1.0, [0, 2, 2, 6]), (2.0, [0, 1, 1, 3]), (0.5, [0, 4, 4, 12]), (0, [0, 0, 0, 0])]
)
async def test_events_are_as_far_apart_as_they_were(speed: float, at: list[float]):
    clock, times = ManualClock(), list[float]()

    async def handler(_event: Event) -> None:
        times.append(clock.monotonic())

    task = asyncio.create_task(replay(log(0, 2, 1, 6), handler, speed, clock))  # one came out of order
    await clock.advance(20)
    assert await task == 4
    assert times == pytest.approx(at)


async def test_a_slow_handler_does_not_add_to_the_time_between():
    clock, times = ManualClock(), list[float]()

    async def handler(_event: Event) -> None:
        times.append(clock.monotonic())
        await clock.sleep(1.5)

    task = asyncio.create_task(replay(log(0, 1, 2, 10), handler, 1.0, clock))
    await clock.advance(20)
    await task
    assert times == [0, 1.5, 3, 10]


async def test_the_delivery_is_marked_and_the_one_around_it_comes_back():
    found: list[Any] = []

    async def handler(_event: Event) -> None:
        found.append(current())

    outer = Delivery(Event(topic="b"), attempt=1, subscription="s", position=None)

    async def run() -> Any:
        enter(outer)
        await replay(log(0), handler, 0, ManualClock())
        return current()

    assert await asyncio.create_task(run()) is outer
    (mine,) = found
    assert (mine.replayed, mine.subscription, mine.position, mine.attempt) == (True, REPLAY, Position("e", 1), 1)


def test_a_query_of_what_users_write():
    assert build_query() == Query()
    assert build_query("a.*", "2030-01-01T12:00:00", NOON, correlation_id="c", event_ids=["i"], limit=5) == Query(
        patterns=("a.*",), start_time=NOON, end_time=NOON, correlation_id="c", event_ids=("i",), limit=5
    )
    assert ReplayConfig(pattern=["a", "b"], max_events=0).query() == Query(patterns=("a", "b"), limit=0)


@pytest.mark.parametrize(
    "wrong",
    [{"speed_multiplier": -1}, {"start_time": "yesterday"}, {"end_time": 5}, {"max_events": -1}],
    ids=str,
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, Any]):
    with pytest.raises(InvalidEvent):
        ReplayConfig(**wrong).query()


def test_a_pattern_outside_the_grammar_is_refused():
    with pytest.raises(InvalidTopic):
        ReplayConfig(pattern="task*").query()
