"""The queue of failed events that stands alone: backoff, counts, retries by hand, bounds."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.making import event
from wowevent import (
    DeadLetterQueue,
    Event,
    FailedEvent,
    FailureReason,
    InvalidEvent,
    NotSupported,
    RetryPolicy,
    StorageFull,
)
from wowevent.dead_letter_queue import Letters, Redelivery
from wowevent.testing import ManualClock

START = 1_900_000_000.0


class Queue:
    """A queue on a clock that stands still until it is moved."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(START)
        self.dlq = DeadLetterQueue(clock=self.clock, **settings)

    async def fail(self, event: Event, subscription: str = "sub", **settings: Any) -> FailedEvent:
        given = {"subscriber_agent": "worker", "failure_reason": FailureReason.HANDLER_ERROR, "error_message": "no"}
        return await self.dlq.add_failed_event(event, subscription_id=subscription, **{**given, **settings})

    def due(self) -> list[str]:
        """The ids of what is due, as a consumer sees them."""
        return [failed.event.event_id for failed in self.dlq.get_retry_queue() if failed.should_retry()]

    async def stats(self, *names: str) -> tuple[Any, ...]:
        found = await self.dlq.get_stats()
        return tuple(found[name] for name in names)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(START + seconds, UTC)


async def test_a_failure_is_kept_with_all_that_is_known_of_it():
    queue, task = Queue(), event()
    failed = await queue.fail(task)
    assert failed.event is task
    assert (failed.subscription_id, failed.subscriber_agent) == ("sub", "worker")
    assert (failed.failure_reason, failed.error_message) == (FailureReason.HANDLER_ERROR, "no")
    assert (failed.retry_count, failed.is_permanent, failed.should_retry()) == (0, False, False)
    assert failed.first_failed_at == failed.last_failed_at == moment(0)
    assert failed.next_retry_at == moment(1)
    assert list(queue.dlq.get_retry_queue()) == [failed]
    assert list(queue.dlq.get_permanent_failures()) == []


async def test_retries_come_after_1_2_4_8_and_16_seconds_and_then_it_is_permanent():
    queue, task, at = Queue(), event(), 0.0
    failed = await queue.fail(task)
    for number, wait in enumerate([1, 2, 4, 8, 16]):
        assert failed.retry_count == number
        await queue.clock.advance(wait - 0.01)
        assert queue.due() == []
        await queue.clock.advance(0.01)
        at += wait
        assert queue.due() == [task.event_id]
        assert queue.dlq.retry_dead_letter(task.correlation_id)
        assert len(queue.dlq.get_retry_queue()) == 0
        failed = await queue.fail(task, error_message=f"again {number}")
    assert (failed.retry_count, failed.is_permanent, failed.next_retry_at) == (5, True, None)
    assert (failed.first_failed_at, failed.last_failed_at) == (moment(0), moment(at))
    assert failed.error_message == "again 4"
    await queue.clock.advance(10_000)
    assert not failed.should_retry()
    assert list(queue.dlq.get_retry_queue()) == []
    assert [each.event for each in queue.dlq.get_permanent_failures()] == [task]


async def test_the_backoff_is_configured_by_numbers_or_by_a_policy():
    numbers: dict[str, Any] = {"max_retries": 2, "initial": 10.0, "multiplier": 3.0, "maximum": 20.0}
    for queue in (Queue(**numbers), Queue(retry=RetryPolicy(**numbers))):
        task = event()
        waits = []
        while not (failed := await queue.fail(task)).is_permanent:
            assert failed.next_retry_at is not None
            waits.append((failed.next_retry_at - failed.last_failed_at).total_seconds())
        assert waits == [10, 20]


async def test_the_wait_is_spread_by_the_jitter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert (await Queue(jitter=0.5).fail(event())).next_retry_at == moment(1.5)


async def test_an_events_own_number_of_retries_wins():
    queue = Queue()
    assert (await queue.fail(event(max_retries=0))).is_permanent
    once = event(max_retries=1)
    assert not (await queue.fail(once)).is_permanent
    assert (await queue.fail(once)).is_permanent


async def test_what_is_due_stays_until_somebody_takes_it():
    queue = Queue()
    late, soon = event(), event()
    await queue.fail(late)
    await queue.fail(late)
    await queue.fail(soon)
    for _ in range(3):
        assert [each.event for each in queue.dlq.get_retry_queue()] == [soon, late]
        assert queue.due() == []
    await queue.clock.advance(60)
    for _ in range(3):
        assert queue.due() == [soon.event_id, late.event_id]
    assert await queue.stats("total", "waiting", "due", "permanent") == (2, 0, 2, 0)


async def test_a_clock_that_is_set_moves_no_retry():
    queue = Queue()
    await queue.fail(event())
    queue.clock.jump(3600)
    assert queue.due() == []
    queue.clock.jump(-7200)
    await queue.clock.advance(1)
    assert len(queue.due()) == 1


async def test_one_event_fails_for_each_subscription_apart():
    queue, task = Queue(), event()
    await queue.fail(task, "one")
    await queue.fail(task, "one")
    await queue.fail(task, "two")
    counts = {each.subscription_id: each.retry_count for each in queue.dlq.get_retry_queue()}
    assert counts == {"one": 1, "two": 0}
    await queue.clock.advance(2)
    assert len(queue.due()) == 2
    (two,) = queue.dlq.get_dead_letters("two")
    assert await queue.dlq.retry_dead_letter(two) == 1
    assert await queue.dlq.retry_dead_letter(two) == 0
    assert [each.subscription_id for each in queue.dlq.get_retry_queue()] == ["one"]


# --- a consumer that retries by hand ------------------------------------------------------------------------------


async def consume(queue: Queue, failing: set[str], *, logic_first: bool = False) -> list[str]:
    """One round of the page's loop; returns the ids that were handled."""
    handled = []
    for failed in queue.dlq.get_retry_queue():
        if failed.should_retry():
            if not logic_first:
                queue.dlq.retry_dead_letter(failed.event.correlation_id)
            handled.append(failed.event.event_id)
            if failed.event.event_id in failing:
                await queue.fail(failed.event, failed.subscription_id)
            if logic_first:
                queue.dlq.retry_dead_letter(failed.event.correlation_id)
    return handled


@pytest.mark.parametrize("family", [False, True])
@pytest.mark.parametrize("logic_first", [False, True])
async def test_the_loop_retries_each_until_it_succeeds_or_is_permanent(logic_first: bool, family: bool):
    """Three of one correlation: what is said of one must not touch the others, also if it is the id of one of them."""
    queue = Queue()
    good, poison = (event(correlation_id="job") for _ in range(2))
    bad = event(correlation_id="job", event_id="job" if family else None)
    for each in (good, poison, bad):
        await queue.fail(each)
    rounds = []
    for _ in range(100):
        await queue.clock.advance(1)
        if handled := await consume(queue, {poison.event_id, bad.event_id}, logic_first=logic_first):
            rounds.append(handled)
    both = [poison.event_id, bad.event_id]
    assert rounds == [[good.event_id, *both], both, both, both, both]
    assert {each.event.event_id for each in queue.dlq.get_permanent_failures()} == set(both)
    assert await queue.stats("total", "permanent") == (2, 2)


async def test_of_two_consumers_one_takes_it():
    queue, task = Queue(), event()
    await queue.fail(task)
    await queue.clock.advance(1)
    (one,), (two,) = queue.dlq.get_retry_queue(), queue.dlq.get_retry_queue()
    assert one.should_retry()
    assert two.should_retry()
    assert [bool(queue.dlq.retry_dead_letter(task.event_id)) for _ in range(2)] == [True, False]


async def test_by_hand_what_is_permanent_gets_fresh_retries_and_what_waits_is_due():
    queue, dead, waiting = Queue(max_retries=1), event(correlation_id="job"), event(correlation_id="job")
    await queue.fail(dead)
    await queue.fail(dead)
    await queue.fail(waiting)
    assert await queue.dlq.retry_dead_letter("job") == 2
    assert await queue.dlq.retry_dead_letter("job") == 2  # pressed twice: nothing is taken that nobody was given
    counts = {each.event.event_id: each.retry_count for each in queue.dlq.get_retry_queue() if each.should_retry()}
    assert counts == {dead.event_id: 0, waiting.event_id: 0}
    assert list(queue.dlq.get_permanent_failures()) == []
    assert set(await consume(queue, {dead.event_id})) == {dead.event_id, waiting.event_id}
    assert [each.is_permanent for each in queue.dlq.get_dead_letters()] == [True]  # its one fresh retry failed


async def test_by_hand_what_waits_keeps_its_count():
    queue, task = Queue(), event()
    for _ in range(3):
        await queue.fail(task)
    queue.dlq.retry_dead_letter(task.event_id)
    assert queue.due() == [task.event_id]
    assert queue.dlq.get_retry_queue()[0].retry_count == 2


async def test_what_is_not_there_is_not_retried():
    queue = Queue()
    await queue.fail(event())
    outcome = queue.dlq.retry_dead_letter("nobody")
    assert not outcome
    assert await outcome == 0


async def test_the_counts_are_exact():
    queue, tasks = Queue(max_retries=1), [event(n=n) for n in range(6)]
    for task in tasks:
        await queue.fail(task)
    await queue.clock.advance(1)
    await consume(queue, {tasks[0].event_id, tasks[1].event_id})
    await queue.fail(event(), failure_reason="timeout")
    await queue.fail(event(), failure_reason=FailureReason.UNKNOWN)
    assert await queue.dlq.discard(tasks[0].correlation_id) == 1
    assert await queue.dlq.get_stats() == {
        "total": 3, "waiting": 2, "due": 0, "permanent": 1, "retried": 6, "resolved": 4,
        "by_reason": {"handler_error": 1, "timeout": 1, "unknown": 1},
    }  # fmt: skip
    await queue.clock.advance(2)
    assert await queue.stats("waiting", "due", "permanent") == (0, 2, 1)
    for failed in queue.dlq.get_dead_letters():
        await queue.dlq.discard(failed.event.event_id)
    assert await queue.stats("total", "by_reason", "retried") == (0, {}, 6)


# --- found, forgotten, bounded ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"subscription_id": "a"}, [0, 1]),
        ({"subscription_id": "two"}, [2, 3]),  # an agent
        ({"reason": "timeout"}, [1, 2]),
        ({"reason": FailureReason.HANDLER_ERROR, "correlation_id": "c-1"}, [3]),
        ({"correlation_id": "c-0"}, [0, 2]),
        ({"correlation_id": "c-9"}, []),
    ],
    ids=str,
)
async def test_letters_are_found(filters: dict[str, Any], found: list[int]):
    queue = Queue()
    for n, (subscription, reason) in enumerate(
        [("a", "handler_error"), ("a", "timeout"), ("b", "timeout"), ("b", "handler_error")]
    ):
        agent = "two" if subscription == "b" else "one"
        await queue.fail(
            event(n=n, correlation_id=f"c-{n % 2}"), subscription, failure_reason=reason, subscriber_agent=agent
        )
        await queue.clock.advance(1)
    assert [each.event.payload["n"] for each in queue.dlq.get_dead_letters(**filters)] == found


async def test_discarding_forgets_by_event_by_correlation_and_what_was_listed():
    queue = Queue()
    first, second, third = (event(correlation_id="job") for _ in range(3))
    for task in (first, second, third):
        for subscription in ("one", "two"):
            await queue.fail(task, subscription)
    assert await queue.dlq.discard(first.event_id) == 2
    assert await queue.dlq.discard(queue.dlq.get_dead_letters("two")[0]) == 1
    assert [each.subscription_id for each in queue.dlq.get_dead_letters()] == ["one", "one", "two"]
    assert await queue.dlq.discard("job") == 3
    assert await queue.dlq.discard("job") == 0
    assert await queue.stats("total") == (0,)


async def test_what_was_discarded_after_it_was_given_is_not_there():
    queue, task = Queue(), event()
    await queue.fail(task)
    await queue.clock.advance(1)
    (failed,) = queue.dlq.get_retry_queue()
    await queue.dlq.discard(failed)
    assert not queue.dlq.retry_dead_letter(failed)
    assert not queue.dlq.retry_dead_letter(task.correlation_id)


async def test_a_full_queue_refuses_and_drops_nothing():
    queue, first = Queue(max_size=2), event()
    await queue.fail(first)
    await queue.fail(event())
    with pytest.raises(StorageFull, match="2 failed events"):
        await queue.fail(event())
    assert (await queue.fail(first)).retry_count == 1  # it is there already
    assert await queue.stats("total") == (2,)
    await queue.dlq.discard(first.event_id)
    await queue.fail(event())


async def test_nothing_is_left_of_what_has_gone():
    """Neither the index nor what is remembered of retries grows for ever."""
    queue = Queue(max_size=10)
    for _ in range(100):
        task = event(correlation_id="always")
        await queue.fail(task)
        await queue.clock.advance(1)
        await consume(queue, set())
    shelf = queue.dlq._shelf  # noqa: SLF001 - what it holds cannot be seen from outside
    assert (len(shelf._failed), len(shelf._named), len(shelf._given), len(shelf._taken)) == (0, 0, 0, 10)  # noqa: SLF001


@pytest.mark.parametrize("by", ["event_id", "correlation_id"])
async def test_ten_thousand_of_one_correlation_are_worked_off_in_time(by: str):
    queue = Queue()
    for n in range(10_000):
        await queue.fail(event(n=n, correlation_id="job"))
        if n % 500 == 0:
            await asyncio.sleep(0)
    await queue.clock.advance(1)
    began = time.perf_counter()
    for n, failed in enumerate(queue.dlq.get_retry_queue()):
        queue.dlq.retry_dead_letter(getattr(failed.event, by))
        if n % 500 == 0:
            await asyncio.sleep(0)
    assert time.perf_counter() - began < 5
    assert await queue.stats("total", "retried") == (0, 10_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": {"topic": "a"}},
        {"event": None},
        {"subscription_id": ""},
        {"subscription_id": 5},
        {"subscription_id": "s" * 513},
        {"subscriber_agent": "two words"},
        {"failure_reason": "bad_luck"},
        {"failure_reason": None},
        {"failure_reason": ["timeout"]},
    ],
    ids=lambda wrong: "-".join(str(each)[:20] for each in next(iter(wrong.items()))),
)
async def test_what_cannot_be_is_refused(wrong: dict[str, Any]):
    queue = Queue()
    given = {"event": event(), "subscription_id": "sub", "subscriber_agent": "worker", "failure_reason": "timeout"}
    with pytest.raises(InvalidEvent):
        await queue.dlq.add_failed_event(**{**given, **wrong})
    assert await queue.stats("total") == (0,)


@pytest.mark.parametrize("reason", list(FailureReason))
async def test_every_reason_is_taken_as_itself_and_as_its_value(reason: FailureReason):
    queue = Queue()
    for given in (reason, reason.value):
        failed = await queue.fail(event(), failure_reason=given, error_message=OSError("no"))
        assert (failed.failure_reason, failed.error_message) == (reason, "no")
    assert len(queue.dlq.get_dead_letters(reason=reason.value)) == 2
    with pytest.raises(InvalidEvent):
        queue.dlq.get_dead_letters(reason="bad_luck")


@pytest.mark.parametrize(
    "wrong",
    [{"max_size": 0}, {"max_retries": -1}, {"multiplier": 0}, {"retry": RetryPolicy(), "initial": 2.0}],
    ids=["size", "retries", "multiplier", "both"],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"max_size|retry policy|RetryPolicy"):
        DeadLetterQueue(**wrong)


async def test_what_is_listed_is_a_list_and_can_be_awaited():
    queue, task = Queue(), event()
    await queue.fail(task)
    found = queue.dlq.get_retry_queue()
    assert (len(found), found[0].event, bool(found), list(found)) == (1, task, True, await found)
    assert not queue.dlq.get_permanent_failures()


async def test_what_must_be_awaited_says_so():
    async def ask() -> list[FailedEvent]:
        return []

    letters = Letters(ask)
    for use in (iter, len, bool, lambda found: found[0]):
        with pytest.raises(NotSupported, match="await"):
            use(letters)
    assert await letters == []
    job = asyncio.create_task(asyncio.sleep(0, 3))
    with pytest.raises(NotSupported, match="await"):
        bool(Redelivery(job))
    assert await Redelivery(job) == 3


async def test_the_queue_that_stands_alone_has_nothing_to_close():
    queue = Queue()
    await queue.dlq.close()
    failed = await queue.fail(event())
    assert failed.next_retry_at == failed.last_failed_at + timedelta(seconds=1)
