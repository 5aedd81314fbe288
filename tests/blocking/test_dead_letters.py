"""`dlq.{queue}`: one queue's dead letters, as its callback sees them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from tests.blocking.conftest import Open, Seen, task
from tests.processes import until
from wowevent import Event, PauseSubscription, RetryAfter, RetryPolicy, current
from wowevent.blocking import EventBus
from wowevent.blocking.running import Running

ONCE = RetryPolicy(max_retries=0, initial=0.02, multiplier=1)


def count(bus: EventBus, queue: str) -> int:
    info = bus.get_queue_info(queue)
    assert info is not None
    return int(info["message_count"])


def bury(bus: EventBus, queue: str, numbers: Sequence[int]) -> None:
    """Make dead letters of a queue; nobody consumes it afterwards."""
    bus.subscribe(queue, [f"{queue}.*"], Seen(fails=10**6))
    bus.start_consuming(queue, blocking=False)
    for n in numbers:
        bus.publish(Event(topic=queue, payload={"n": n}))
    until(lambda: count(bus, f"dlq.{queue}") == len(numbers), "the dead letters")
    bus.stop_consuming(queue)


def test_one_queues_dead_letters_are_its_own(opened: Open) -> None:
    """A consumer of dead letters once saw every event there was."""
    bus, seen = opened(retry=ONCE), Seen()
    bury(bus, "one", [1, 2])
    bury(bus, "two", [3])
    bus.subscribe("dlq.one", ["#"], seen, enable_dlq=False)
    bus.start_consuming("dlq.one", blocking=False)
    bus.publish(task(4))
    until(lambda: count(bus, "dlq.one") == 0, "the letters of one")
    assert seen.numbers == [1, 2]
    assert count(bus, "dlq.two") == 1


def test_the_retry_count_is_true_there_too(bus: EventBus) -> None:
    seen, letters = Seen(fails=99), Seen()
    bus.subscribe("q", ["#"], seen)
    bus.subscribe("dlq.q", [], letters)
    bus.start_consuming("q", blocking=False)
    bus.start_consuming("dlq.q", blocking=False)
    bus.publish(task())
    until(lambda: letters.events, "the dead letter")
    assert seen.retries == [0, 1, 2, 3]
    assert letters.retries == [4]  # so often it failed


def test_a_callback_that_raises_keeps_the_letter_and_is_not_asked_at_once(opened: Open) -> None:
    bus, seen = opened(retry=ONCE), Seen(fails=1)
    bury(bus, "q", [1])
    bus.subscribe("dlq.q", ["#"], seen)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: seen.events, "the first time")
    time.sleep(0.2)
    assert len(seen.events) == 1
    assert count(bus, "dlq.q") == 1
    until(lambda: count(bus, "dlq.q") == 0, "the second time")
    assert seen.numbers == [1, 1]


def test_letters_behind_one_that_is_kept_are_shown(opened: Open) -> None:
    bus, seen = opened(retry=RetryPolicy(max_retries=0, initial=60)), Seen(fails=1)
    bury(bus, "q", [1, 2, 3])
    bus.subscribe("dlq.q", ["#"], seen)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: count(bus, "dlq.q") == 1, "the others")
    time.sleep(1.2)  # a minute is not over yet
    assert seen.numbers == [1, 2, 3]


def test_a_callback_may_say_when_it_wants_to_see_it_again(opened: Open) -> None:
    bus, seen = opened(retry=RetryPolicy(max_retries=0, initial=60)), Seen()

    def later(event: Event) -> None:
        seen(event)
        if len(seen.events) == 1:
            raise RetryAfter(0.1)

    bury(bus, "q", [1])
    bus.subscribe("dlq.q", ["#"], later)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: count(bus, "dlq.q") == 0, "the second time")
    assert seen.numbers == [1, 1]


def test_a_callback_may_want_to_see_none_for_a_while(opened: Open) -> None:
    bus, seen = opened(), Seen()

    def later(event: Event) -> None:
        seen(event)
        if len(seen.events) == 1:
            raise PauseSubscription(1.5)

    bury(bus, "q", [1, 2])
    bus.subscribe("dlq.q", ["#"], later)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: seen.events, "the first time")
    time.sleep(0.7)
    assert seen.numbers == [1]
    until(lambda: count(bus, "dlq.q") == 0, "the others")
    assert sorted(seen.numbers) == [1, 1, 2]


def test_letters_are_held_by_a_pause_of_everything(opened: Open) -> None:
    bus, seen = opened(), Seen()
    bury(bus, "q", [1])

    async def pause(running: Running) -> None:
        await (await running.line.started()).pause(everything=True)

    async def resume(running: Running) -> None:
        await (await running.line.started()).resume(everything=True)

    bus._call(pause)  # noqa: SLF001 - it has no such call itself
    bus.subscribe("dlq.q", ["#"], seen)
    bus.start_consuming("dlq.q", blocking=False)
    time.sleep(0.7)
    assert seen.numbers == []
    bus._call(resume)  # noqa: SLF001 - as above
    until(lambda: count(bus, "dlq.q") == 0, "the letter")


def test_two_consumers_of_one_process_share_the_letters(opened: Open) -> None:
    buses = [opened(retry=ONCE) for _ in range(2)]
    seen = [Seen() for _ in buses]
    bury(buses[0], "q", list(range(30)))

    def slow(callback: Seen) -> object:
        def handle(event: Event) -> None:
            callback(event)
            time.sleep(0.02)

        return handle

    for bus, callback in zip(buses, seen, strict=True):
        bus.subscribe("dlq.q", ["#"], slow(callback))  # type: ignore[arg-type]
        bus.start_consuming("dlq.q", blocking=False)
    assert buses[0].get_queue_info("dlq.q")["consumer_count"] == 2  # type: ignore[index]
    until(lambda: count(buses[0], "dlq.q") == 0, "the last letter")
    assert sorted(seen[0].numbers + seen[1].numbers) == list(range(30))
    assert min(len(callback.events) for callback in seen) > 0
    for bus in buses:
        bus.stop_consuming("dlq.q")
    assert buses[0].get_queue_info("dlq.q")["consumer_count"] == 0  # type: ignore[index]


def test_what_another_bus_was_through_with_is_not_shown_again(opened: Open) -> None:
    """A list of letters is old as soon as it is made."""
    slow, quick = opened(retry=ONCE), opened(retry=ONCE)
    bury(slow, "q", [1, 2, 3])
    first, seen, free = Seen(), Seen(), threading.Event()

    def wait(event: Event) -> None:
        first(event)
        free.wait(10)

    slow.subscribe("dlq.q", ["#"], wait)
    slow.start_consuming("dlq.q", blocking=False)
    until(lambda: first.events, "the first letter, of a list of three")
    quick.subscribe("dlq.q", ["#"], seen)
    quick.start_consuming("dlq.q", blocking=False)
    until(lambda: count(quick, "dlq.q") == 1, "the two others")
    free.set()
    until(lambda: count(quick, "dlq.q") == 0, "the first one's end")
    slow.stop_consuming("dlq.q")
    assert (first.numbers, seen.numbers) == ([1], [2, 3])


def test_stopping_waits_for_the_callback_and_the_letter_is_gone(opened: Open) -> None:
    bus, began, free = opened(retry=ONCE), threading.Event(), threading.Event()
    bury(bus, "q", [1, 2])

    def callback(event: Event) -> None:
        began.set()
        free.wait(5)

    bus.subscribe("dlq.q", ["#"], callback)
    bus.start_consuming("dlq.q", blocking=False)
    assert began.wait(10)
    threading.Timer(0.2, free.set).start()
    bus.stop_consuming("dlq.q")
    assert free.is_set()
    assert count(bus, "dlq.q") == 1


def test_auto_ack_discards_before_the_callback_sees_it(opened: Open) -> None:
    bus, seen = opened(retry=ONCE), Seen(fails=9)
    bury(bus, "q", [1])
    bus.subscribe("dlq.q", ["#"], seen, auto_ack=True)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: seen.events, "the letter")
    until(lambda: count(bus, "dlq.q") == 0, "its end")
    assert seen.numbers == [1]


def test_what_a_callback_publishes_follows_from_the_letter(opened: Open) -> None:
    bus, seen, after = opened(retry=ONCE), Seen(), list[str]()

    def alarm(event: Event) -> None:
        delivery = current()
        assert delivery is not None
        after.append(delivery.subscription)
        event.payload["n"] = 99  # its own copy
        bus.publish(Event(topic="alarm", payload={"n": 0}))

    bury(bus, "q", [1])
    bus.subscribe("alarms", ["alarm.*"], seen)
    bus.subscribe("dlq.q", ["#"], alarm)
    bus.start_consuming("alarms", blocking=False)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: seen.events, "the alarm")
    assert after == ["dlq.q"]
    assert seen.events[0].hops == 1


def test_purging_discards_all(opened: Open) -> None:
    bus = opened(retry=ONCE)
    bury(bus, "q", list(range(7)))
    bus.publish(Event(topic="q", payload={"n": 7}))
    assert bus.purge_queue("dlq.q") == 7
    assert bus.purge_queue("dlq.q") == 0
    assert bus.purge_queue("q") == 1


def test_private_logs_have_nothing_to_do_with_each_other() -> None:
    both = threading.Barrier(2)  # each letter is held until the other one is, too
    with EventBus("memory://", retry=ONCE) as one, EventBus("memory://", retry=ONCE) as two:
        for bus in (one, two):
            bury(bus, "q", [1])
            bus.subscribe("dlq.q", ["#"], lambda event: both.wait(10))
            bus.start_consuming("dlq.q", blocking=False)
        until(lambda: count(one, "dlq.q") == count(two, "dlq.q") == 0, "both")


@pytest.mark.parametrize("queue", ["missing", "dlq.missing"])
def test_what_nobody_knows_is_none(bus: EventBus, queue: str) -> None:
    """Asking about a missing queue once killed the channel."""
    assert bus.get_queue_info(queue) is None
    assert bus.purge_queue(queue) == 0
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    bus.publish(task())
    until(lambda: seen.events, "the event, afterwards")
