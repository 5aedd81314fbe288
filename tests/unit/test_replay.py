"""Replay: which events, how far apart, and steered from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wowevent import Event, InvalidEvent, InvalidTopic, ReplayConfig, ReplayControl
from wowevent.broker import Position, Query, Stored
from wowevent.delivery import Delivery, current, enter
from wowevent.handler import adapt
from wowevent.replay import REPLAY, build_query, check_elsewhere, replay, replay_into
from wowevent.testing import ManualClock, settle

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def log(*seconds: float) -> AsyncGenerator[Stored]:
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


# --- steered ------------------------------------------------------------------------------------------------------


class Running:
    """A replay of events at these seconds, at 1.0, with its control, its clock and the times of its calls."""

    def __init__(self, *seconds: float, speed: float = 1.0, takes: float = 0.0) -> None:
        self.clock = ManualClock()
        self.control = ReplayControl()
        self.times: list[float] = []
        self._takes = takes
        self.task = asyncio.create_task(replay(log(*seconds), self._handle, speed, self.clock, self.control))

    async def _handle(self, _event: Event) -> None:
        self.times.append(self.clock.monotonic())
        if self._takes:
            await self.clock.sleep(self._takes)


async def test_a_pause_is_no_time():
    running = Running(0, 1, 2, 10)
    assert running.control.state == "new"
    await running.clock.advance(1.5)
    assert (running.control.state, running.control.replayed) == ("running", 2)
    running.control.pause()
    running.control.pause()
    await running.clock.advance(100)
    assert (running.control.state, running.control.replayed, running.control.position) == (
        "paused", 2, Position("e", 2),
    )  # fmt: skip
    running.control.resume()
    running.control.resume()
    await running.clock.advance(20)
    assert await running.task == 4
    assert running.times == pytest.approx([0, 1, 102, 110])
    assert (running.control.state, running.control.replayed) == ("done", 4)


async def test_two_pauses_are_no_time_either():
    running = Running(0, 4)
    for _ in range(2):
        await running.clock.advance(1)
        running.control.pause()
        await running.clock.advance(10)
        running.control.resume()
    await running.clock.advance(3)
    assert await running.task == 2
    assert running.times == pytest.approx([0, 24])


async def test_a_pause_within_a_call_counts_from_then_on_and_begins_behind_it():
    running = Running(0, 1, 2, takes=3)
    await running.clock.advance(0.5)
    running.control.pause()
    await running.clock.advance(10)
    assert (running.control.replayed, running.times) == (1, [0])  # the call was finished
    running.control.resume()
    await running.clock.advance(20)
    assert await running.task == 3
    assert running.times == pytest.approx([0, 11, 14])


async def test_a_pause_that_ended_before_it_could_begin_is_no_time_either():
    running = Running(0, 5, takes=3)
    await running.clock.advance(1)
    running.control.pause()
    await running.clock.advance(1)
    running.control.resume()
    await running.clock.advance(10)
    assert running.times == pytest.approx([0, 6])
    assert await running.task == 2


async def test_one_that_was_held_before_it_began_begins_held():
    running = Running(0, 1)
    running.control.pause()
    assert running.control.state == "new"
    await running.clock.advance(5)
    assert (running.control.state, running.times) == ("paused", [])
    running.control.resume()
    await running.clock.advance(5)
    assert running.times == pytest.approx([5, 6])
    assert await running.task == 2


@pytest.mark.parametrize("held", [False, True], ids=["waiting", "held"])
async def test_cancelled_it_ends_before_the_next_event(held: bool):
    running = Running(0, 1, 100)
    await running.clock.advance(2)
    if held:
        running.control.pause()
        await settle()
    running.control.cancel()
    assert await running.task == 2
    assert (running.control.state, running.control.replayed, running.control.position) == (
        "cancelled", 2, Position("e", 2),
    )  # fmt: skip
    for steer in (running.control.pause, running.control.resume, running.control.cancel):
        steer()
        assert running.control.state == "cancelled"


async def test_cancelled_before_it_began_it_does_nothing():
    running = Running(0, 1)
    running.control.cancel()
    assert running.control.state == "cancelled"
    assert await running.task == 0
    assert running.times == []


async def test_a_handler_cancels_its_own_replay_from_its_thread():
    control, seen = ReplayControl(), list[Event]()

    def handler(event: Event) -> None:
        seen.append(event)
        if len(seen) == 2:
            control.cancel()

    assert await replay(log(0, 0, 0, 0), adapt(handler), 0, ManualClock(), control) == 2
    assert control.state == "cancelled"


async def test_one_that_is_held_is_let_go_from_another_thread():
    running = Running(0, 0, speed=0)
    running.control.pause()
    await settle()
    await asyncio.to_thread(running.control.resume)
    async with asyncio.timeout(5):
        assert await running.task == 2


async def test_cancelled_behind_its_last_event_it_is_done():
    control = ReplayControl()

    async def handler(_event: Event) -> None:
        if control.replayed == 1:
            control.cancel()

    assert await replay(log(0, 0), handler, 0, ManualClock(), control) == 2
    assert control.state == "done"


async def test_what_a_handler_raises_is_a_failure_and_a_cancelled_task_is_not():
    async def handler(_event: Event) -> None:
        raise OSError("stop")

    control = ReplayControl()
    with pytest.raises(OSError, match="stop"):
        await replay(log(0), handler, 0, ManualClock(), control)
    assert (control.state, control.replayed, control.position) == ("failed", 0, None)

    running = Running(0, 100)
    await running.clock.advance(1)
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)
    assert (running.control.state, running.control.replayed) == ("cancelled", 1)


async def test_a_control_steers_one_replay():
    control = ReplayControl()

    async def handler(_event: Event) -> None:
        pass

    await replay(log(0), handler, 0, ManualClock(), control)
    with pytest.raises(ValueError, match="one replay"):
        await replay(log(0), handler, 0, ManualClock(), control)
    assert (control.state, control.replayed) == ("done", 1)


async def test_many_at_once_are_held_and_cancelled_between_two_calls():
    control, sent = ReplayControl(), list[int]()

    async def publish(events: Sequence[Event]) -> None:
        sent.append(len(events))
        if len(sent) == 1:
            control.pause()
        if len(sent) == 2:
            control.cancel()

    run = replay_into("b", log(*[0.0] * 250), publish, speed=0, clock=ManualClock(), control=control)
    task = asyncio.create_task(run)
    await settle()
    assert (sent, control.state, control.replayed) == ([100], "paused", 100)
    control.resume()
    assert await task == 200
    assert (sent, control.state, control.position) == ([100, 100], "cancelled", Position("e", 200))


async def test_without_a_topic_each_keeps_its_own():
    sent = list[Event]()

    async def publish(events: Sequence[Event]) -> None:
        sent.extend(events)

    assert await replay_into(None, log(0, 1), publish, speed=0, clock=ManualClock()) == 2
    assert [event.topic for event in sent] == ["a", "a"]
    assert all(event.replay_of for event in sent)


@pytest.mark.parametrize(
    ("pattern", "there"),
    [(None, None), (None, Position("e", 9)), ("_bus.*", Position("f", 9)), (["a", "_bus.x"], Position("f", 9))],
)
def test_where_events_cannot_keep_their_topics(pattern: Any, there: Position | None):
    config = ReplayConfig(pattern=pattern)
    with pytest.raises(InvalidTopic):
        check_elsewhere(config, Position("e", 5), there)
    check_elsewhere(ReplayConfig(pattern="a"), Position("e", 5), Position("f", 9))
