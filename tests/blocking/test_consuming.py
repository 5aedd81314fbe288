"""Consuming: both forms and their ends, threads, retries, what expires, and engines that were away."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pydantic
import pytest

import wowevent
from tests.blocking.conftest import QUICK, Open, Seen, task
from tests.processes import until
from tests.servers import redis_running
from wowevent import (
    Event,
    InvalidEvent,
    InvalidTopic,
    PauseSubscription,
    Reject,
    RetryPolicy,
    SubscriptionConflict,
    SubscriptionNotFound,
)
from wowevent import EventBus as AsyncBus
from wowevent.blocking import EventBus


def in_thread(job: Any) -> threading.Thread:
    thread = threading.Thread(target=job)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(15)
    return not thread.is_alive()


def count(bus: EventBus, queue: str) -> int:
    info = bus.get_queue_info(queue)
    return -1 if info is None else int(info["message_count"])


# --- begin and end --------------------------------------------------------------------------------------------------


def test_what_came_before_is_consumed_too(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("q", ["task.*.#"], seen)
    for n in range(5):
        bus.publish(task(n))
    bus.start_consuming("q", blocking=False)
    until(lambda: len(seen.events) == 5, "the backlog")
    assert seen.numbers == list(range(5))


def test_the_blocking_form_returns_when_another_thread_stops_it(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    thread = in_thread(lambda: bus.start_consuming("q"))
    bus.publish(task())
    until(lambda: seen.events, "the event")
    assert thread.is_alive()
    bus.stop_consuming("q")
    assert ended(thread)
    bus.publish(task(1))
    time.sleep(0.2)
    assert seen.numbers == [0]
    assert bus.get_queue_info("q") == {"queue_name": "q", "message_count": 1, "consumer_count": 0}


@pytest.mark.parametrize("what", ["stop", "close"])
def test_a_callback_may_end_it(opened: Open, what: str) -> None:
    bus, seen = opened(), Seen()

    def last(event: Event) -> None:
        seen(event)
        bus.stop_consuming("q") if what == "stop" else bus.close()

    bus.subscribe("q", ["#"], last)
    bus.publish(task(0))
    started = time.monotonic()
    thread = in_thread(lambda: bus.start_consuming("q"))
    assert ended(thread)
    assert time.monotonic() - started < 8  # it did not wait for itself
    other = opened()
    assert seen.numbers == [0]
    assert count(other, "q") == 0  # it was acknowledged


@pytest.mark.parametrize("what", ["stop", "close"])
def test_a_callback_may_end_it_before_it_is_known_to_have_begun(
    opened: Open, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, seen, serve = opened(), Seen(), AsyncBus.serve

    async def slow(*settings: Any) -> Any:
        handle = await serve(*settings)
        await asyncio.sleep(0.3)
        return handle

    def last(event: Event) -> None:
        seen(event)
        bus.stop_consuming("q") if what == "stop" else bus.close()

    monkeypatch.setattr(AsyncBus, "serve", slow)
    bus.subscribe("q", ["#"], last)
    bus.publish(task(0))
    assert ended(in_thread(lambda: bus.start_consuming("q")))
    assert seen.numbers == [0]
    if what == "stop":
        bus.publish(task(1))
        info = {"queue_name": "q", "message_count": 1, "consumer_count": 0}
        until(lambda: bus.get_queue_info("q") == info, "nobody consumes any more")
        assert seen.numbers == [0]


def test_a_callback_may_publish_subscribe_and_consume(bus: EventBus) -> None:
    seen = Seen()

    def first(event: Event) -> None:
        bus.subscribe("second", ["second.*"], seen)
        bus.start_consuming("second", blocking=False)
        assert bus.publish(Event(topic="second", payload={"n": 2}))

    bus.subscribe("first", ["task.*.*"], first)
    bus.start_consuming("first", blocking=False)
    bus.publish(task())
    until(lambda: seen.numbers == [2], "the second event")


def test_a_queue_is_consumed_again_after_it_was_stopped(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    for n in range(3):
        bus.start_consuming("q", blocking=False)
        bus.start_consuming("q", blocking=False)  # starting twice is starting once
        bus.publish(task(n))
        until(lambda n=n: len(seen.events) == n + 1, "the event")  # type: ignore[misc]
        bus.stop_consuming("q")
        bus.stop_consuming("q")
    assert seen.numbers == [0, 1, 2]


def test_callbacks_of_a_queue_run_one_at_a_time_in_its_thread(bus: EventBus) -> None:
    names: set[str] = set()
    running, most = 0, 0

    def callback(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
        time.sleep(0.005)
        running -= 1

    bus.subscribe("q", ["#"], callback)
    for n in range(20):
        bus.publish(task(n))
    bus.start_consuming("q", blocking=False)
    until(lambda: count(bus, "q") == 0 and running == 0, "the last one")
    assert names == {"wowevent-q"}
    assert most == 1


def test_a_slow_queue_delays_no_other(bus: EventBus) -> None:
    free, seen = threading.Event(), Seen()
    bus.subscribe("slow", ["#"], lambda event: free.wait(10))
    bus.subscribe("quick", ["#"], seen)
    bus.start_consuming("slow", blocking=False)
    bus.start_consuming("quick", blocking=False)
    for n in range(20):
        bus.publish(task(n))
    until(lambda: len(seen.events) == 20, "the quick ones")
    free.set()


def test_a_deleted_queue_ends_who_consumes_it(opened: Open) -> None:
    bus, other = opened(), opened()
    bus.subscribe("q", ["#"], Seen())
    errors: list[Exception] = []

    def consume() -> None:
        try:
            bus.start_consuming("q")
        except SubscriptionNotFound as error:
            errors.append(error)

    thread = in_thread(consume)
    until(lambda: (other.get_queue_info("q") or {}).get("consumer_count"), "the consumer")
    assert other.delete_queue("q") is True
    assert ended(thread)
    assert "deleted" in str(errors[0])


# --- declarations ---------------------------------------------------------------------------------------------------


def test_the_newest_declaration_holds_and_says_so(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bus, other, seen = opened(), opened(), Seen()
    bus.subscribe("q", ["task.*.*"], seen)
    bus.subscribe("q", ["task.*.*"], seen)
    assert "new settings" not in caplog.text
    bus.subscribe("q", ["agent.*.*"], seen)
    assert "subscription has new settings subscription=q patterns=agent.*.*" in caplog.text
    other.publish(task(1))
    other.publish(Event(topic="agent.started", payload={"n": 2}))
    bus.start_consuming("q", blocking=False)
    until(lambda: seen.events, "an event")
    other.subscribe("q", ["plan.*.*"], seen)  # elsewhere, while it is consumed here
    other.publish(Event(topic="plan.created", payload={"n": 3}))
    until(lambda: len(seen.events) == 2, "the second event")
    assert seen.numbers == [2, 3]


def test_starting_declares_nothing_anew(opened: Open) -> None:
    old, new, seen = opened(), opened(), Seen()
    old.subscribe("q", ["task.*.*"], seen)
    new.subscribe("q", ["plan.*.*"], seen)
    old.start_consuming("q", blocking=False)
    new.publish(Event(topic="plan.created", payload={"n": 1}))
    until(lambda: seen.numbers == [1], "the event of the newest declaration")


def test_another_callback_for_a_queue_that_is_consumed_is_a_conflict(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], Seen())
    bus.subscribe("q", ["#"], seen)  # not consumed yet: the newest holds
    bus.start_consuming("q", blocking=False)
    bus.subscribe("q", ["task.#"], seen)  # the same callback: other patterns
    with pytest.raises(SubscriptionConflict):
        bus.subscribe("q", ["#"], Seen())
    with pytest.raises(SubscriptionConflict):
        bus.subscribe("q", ["#"], seen, auto_ack=True)
    bus.stop_consuming("q")
    bus.subscribe("q", ["#"], Seen())


def test_what_makes_no_sense_is_refused(bus: EventBus) -> None:
    async def callback(event: Event) -> None: ...

    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (InvalidEvent, {"queue_name": "a b"}),
        (InvalidEvent, {"queue_name": "dlq."}),
        (InvalidEvent, {"queue_name": None}),
        (InvalidTopic, {"routing_patterns": ["task*"]}),
        (InvalidTopic, {"routing_patterns": []}),
        (TypeError, {"callback": None}),
        (TypeError, {"callback": "print"}),
        (TypeError, {"callback": callback}),
        (TypeError, {"callback": lambda: None}),
        (ValueError, {"message_ttl_ms": 0}),
        (ValueError, {"message_ttl_ms": 1.5}),
        (ValueError, {"queue_name": "dlq.q", "message_ttl_ms": 1000}),
    ]
    for error, given in wrong:
        with pytest.raises(error):
            bus.subscribe(**{"queue_name": "q", "routing_patterns": ["#"], "callback": Seen(), **given})
    with pytest.raises(SubscriptionNotFound):
        bus.start_consuming("never-subscribed")


def test_buses_of_one_queue_share_and_other_queues_have_a_copy(opened: Open) -> None:
    first, second, third = opened(prefetch_count=1), opened(prefetch_count=1), opened()
    seen = {name: Seen() for name in ("first", "second", "copy")}

    def slow(name: str) -> Any:
        def callback(event: Event) -> None:
            time.sleep(0.01)
            seen[name](event)

        return callback

    first.subscribe("q", ["#"], slow("first"))
    second.subscribe("q", ["#"], slow("second"))
    third.subscribe("other", ["#"], seen["copy"])
    for bus, queue in ((first, "q"), (second, "q"), (third, "other")):
        bus.start_consuming(queue, blocking=False)
    for n in range(40):
        third.publish(task(n))
    until(lambda: len(seen["first"].events) + len(seen["second"].events) == 40, "the shared ones")
    until(lambda: len(seen["copy"].events) == 40, "the copies")
    assert sorted(seen["first"].numbers + seen["second"].numbers) == list(range(40))
    assert min(len(seen["first"].events), len(seen["second"].events)) >= 5  # prefetch spreads work
    assert third.get_queue_info("q") == {"queue_name": "q", "message_count": 0, "consumer_count": 2}


@pytest.mark.parametrize("prefetch", [1, 5])
def test_no_more_is_held_than_prefetch_says(opened: Open, prefetch: int) -> None:
    bus, free, seen = opened(prefetch_count=prefetch), threading.Event(), Seen()

    def callback(event: Event) -> None:
        seen(event)
        if event.payload["n"] >= 30:  # quick ones first: a consumer that learns has grown by then
            free.wait(10)

    bus.subscribe("q", ["#"], callback)
    for n in range(50):
        bus.publish(task(n))
    bus.start_consuming("q", blocking=False)
    until(lambda: len(seen.events) == 31, "the one that waits")
    time.sleep(0.1)
    assert 20 - prefetch <= count(bus, "q") <= 19
    free.set()


# --- retries --------------------------------------------------------------------------------------------------------


def test_three_retries_and_then_the_dead_letters(bus: EventBus) -> None:
    seen = Seen(fails=99)
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    bus.publish(task())
    until(lambda: count(bus, "dlq.q") == 1, "the dead letter")
    assert seen.retries == [0, 1, 2, 3]
    assert count(bus, "q") == 0


def test_the_events_own_number_of_retries_wins(bus: EventBus) -> None:
    seen = Seen(fails=99)
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    bus.publish(task(max_retries=1))
    until(lambda: count(bus, "dlq.q") == 1, "the dead letter")
    assert seen.retries == [0, 1]


def test_the_policy_is_one_two_and_four_seconds_unless_it_is_given(tmp_path: Path) -> None:
    from wowevent.blocking import RETRY

    assert [RETRY.delay(n) for n in (1, 2, 3)] == [1, 2, 4]
    assert RETRY.max_retries == 3
    seen = Seen(fails=1)
    with EventBus(f"memory://{tmp_path.name}") as bus:
        bus.subscribe("q", ["#"], seen)
        bus.start_consuming("q", blocking=False)
        started = time.monotonic()
        bus.publish(task())
        until(lambda: len(seen.events) == 2, "the retry")
        assert 0.9 < time.monotonic() - started < 3  # a poison message once looped for ever, hot


def test_reject_goes_straight_to_the_dead_letters(bus: EventBus) -> None:
    def refuse(event: Event) -> None:
        raise Reject("never")

    bus.subscribe("q", ["#"], refuse)
    bus.start_consuming("q", blocking=False)
    bus.publish(task())
    until(lambda: count(bus, "dlq.q") == 1, "the dead letter")


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError])
def test_whatever_a_callback_raises_is_a_failure_of_its(bus: EventBus, raised: type[BaseException]) -> None:
    seen = Seen()

    def callback(event: Event) -> None:
        seen(event)
        if len(seen.events) == 1:
            raise raised

    bus.subscribe("q", ["#"], callback)
    bus.start_consuming("q", blocking=False)
    bus.publish(task())
    until(lambda: seen.retries == [0, 1], "the retry")


def test_without_dead_letters_it_is_dropped_counted_and_said(bus: EventBus, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen(fails=99)
    bus.subscribe("q", ["#"], seen, enable_dlq=False)
    bus.start_consuming("q", blocking=False)
    bus.publish(task())
    until(lambda: bus.health_check()["details"]["here"]["q"]["dropped"] == 1, "the drop")
    assert seen.retries == [0, 1, 2, 3]
    assert count(bus, "dlq.q") == 0
    assert [r.levelname for r in caplog.records if "event dropped" in r.message] == ["ERROR"]


def test_auto_ack_is_at_most_once(bus: EventBus) -> None:
    seen = Seen(fails=99)
    bus.subscribe("q", ["#"], seen, auto_ack=True)
    bus.start_consuming("q", blocking=False)
    bus.publish(task(0))
    bus.publish(task(1))
    until(lambda: len(seen.events) == 2, "both")
    time.sleep(0.2)
    assert seen.numbers == [0, 1]
    assert (count(bus, "q"), count(bus, "dlq.q")) == (0, 0)


def test_what_is_too_old_expires_and_is_no_dead_letter(bus: EventBus) -> None:
    """TTL'd heartbeats once piled up among the dead letters."""
    seen = Seen()
    bus.subscribe("q", ["#"], seen, message_ttl_ms=60_000)
    old = "2025-01-01T00:00:00Z"
    for n in range(20):
        bus.publish(task(n, timestamp=old))
    bus.publish(task(20, timestamp=old, not_before="2025-01-02T00:00:00Z"))
    bus.publish(task(99))
    bus.start_consuming("q", blocking=False)
    until(lambda: seen.events, "the young one")
    assert seen.numbers == [99]
    assert bus.health_check()["details"]["here"]["q"]["expired"] == 21
    assert (count(bus, "q"), count(bus, "dlq.q")) == (0, 0)


def test_what_is_sent_again_from_the_dead_letters_is_not_too_old(opened: Open, url: str) -> None:
    bus, seen = opened(retry=RetryPolicy(max_retries=0)), Seen(fails=1)
    bus.subscribe("q", ["#"], seen, message_ttl_ms=300)
    bus.start_consuming("q", blocking=False)
    bus.publish(task(1))
    until(lambda: count(bus, "dlq.q") == 1, "the dead letter")
    time.sleep(0.4)

    async def redeliver() -> int:
        async with wowevent.EventBus(url) as other:
            return await other.dead_letters.redeliver(subscription="q")

    assert asyncio.run(redeliver()) == 1
    until(lambda: seen.numbers == [1, 1], "the second delivery")


# --- what a callback takes and gives --------------------------------------------------------------------------------


class Work(pydantic.BaseModel):
    n: int


def test_a_callback_may_take_a_payload_model(bus: EventBus) -> None:
    seen: list[Work] = []

    def callback(work: Work) -> None:
        seen.append(work)

    bus.subscribe("q", ["#"], callback)
    bus.start_consuming("q", blocking=False)
    bus.publish(Event(topic="task.created", payload={"n": "seven"}))
    bus.publish(task(7))
    until(lambda: seen, "the model")
    assert seen == [Work(n=7)]
    until(lambda: count(bus, "dlq.q") == 1, "the one that does not fit")


def test_what_a_callback_returns_answers_a_request(opened: Open) -> None:
    server, client = opened(), opened()
    server.subscribe("double", ["math.double.*"], lambda event: event.payload["n"] * 2)
    server.start_consuming("double", blocking=False)
    assert client.request("math.double", {"n": 21}) == 42
    with pytest.raises(wowevent.NoResponders):
        client.request("math.halve", {"n": 21})


# --- an engine that was away ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_consumers_come_back_after_the_engine_was_away(tmp_path: Path) -> None:
    """Consumers were not restored after a reconnect, and what was lost was still called published."""
    seen, background = Seen(), Seen()
    with redis_running(tmp_path) as redis:
        bus = EventBus(f"redis://127.0.0.1:{redis.port}", retry=QUICK)
        bus.subscribe("front", ["#"], seen)
        bus.subscribe("back", ["#"], background)
        thread = in_thread(lambda: bus.start_consuming("front"))
        bus.start_consuming("back", blocking=False)
        assert bus.publish(task(1))
        until(lambda: seen.events and background.events, "the first event")
        redis.kill()
        assert bus.health_check()["connected"] is False
        time.sleep(1)
        redis.start()
        until(lambda: bus.publish(task(2)), "a publish")
        until(lambda: 2 in seen.numbers and 2 in background.numbers, "the second event")
        until(lambda: bus.health_check()["status"] == "healthy", "health")
        bus.stop_consuming("front")
        assert ended(thread)
        bus.close()
    assert set(seen.numbers) == {1, 2}


# --- pauses ---------------------------------------------------------------------------------------------------------


def test_a_callback_may_pause_its_queue(bus: EventBus) -> None:
    seen, other = Seen(), Seen()

    def limited(event: Event) -> None:
        seen(event)
        if len(seen.events) == 1:
            raise PauseSubscription(1.0, "quota")

    bus.subscribe("q", ["task.*.#"], limited)
    bus.subscribe("r", ["task.*.#"], other)
    for n in range(5):
        bus.publish(task(n))
    began = time.monotonic()
    for queue in ("q", "r"):
        bus.start_consuming(queue, blocking=False)
    until(lambda: len(other.events) == 5, "the other queue")
    until(lambda: len(seen.events) == 6, "the end of the pause")
    assert time.monotonic() - began > 0.9
    assert sorted(seen.numbers) == [0, 0, 1, 2, 3, 4]
    assert set(seen.retries) == {0}
