"""Publishing: what a routing key means, what True and False say, and threads that publish side by side."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.blocking.conftest import Open, Seen, task
from tests.processes import until
from tests.servers import free_port, redis_running
from wowevent import Closed, Event, EventPriority, EventType, InvalidEvent, InvalidTopic, PayloadTooLarge
from wowevent.blocking import EventBus, outbox


def test_true_says_that_the_engine_has_it(bus: EventBus) -> None:
    bus.subscribe("q", ["task.*.normal"], Seen())
    assert bus.publish(task())
    assert bus.get_queue_info("q") == {"queue_name": "q", "message_count": 1, "consumer_count": 0}


def test_false_and_an_error_line_say_that_it_has_not(caplog: pytest.LogCaptureFixture) -> None:
    with EventBus(f"redis://127.0.0.1:{free_port()}", connection_timeout=0.5) as bus:
        assert bus.publish(task()) is False
    assert "publish failed" in caplog.text
    assert [record.levelname for record in caplog.records if "publish failed" in record.message] == ["ERROR"]


def test_a_full_engine_is_false_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        redis_running(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as redis,
        EventBus(f"redis://127.0.0.1:{redis.port}") as bus,
    ):
        big = "x" * 200_000
        said = [bus.publish(Event(topic="task.created", payload={"big": big})) for _ in range(30)]
    assert said[0] is True
    assert said[-1] is False
    assert "publish failed" in caplog.text


@pytest.mark.parametrize("persistent", [True, False])
def test_bad_input_is_refused_before_anything_is_sent(bus: EventBus, persistent: bool) -> None:
    wrong: list[tuple[Any, Any, type[Exception]]] = [
        ({"topic": "task.created"}, None, InvalidEvent),
        (None, None, InvalidEvent),
        (task(), "a b", InvalidTopic),
        (task(), "", InvalidTopic),
        (task(), 7, InvalidTopic),
        (task(), "_bus.fact", InvalidTopic),
        (Event(topic="task.created", payload={"big": "x" * 300_000}), None, PayloadTooLarge),
    ]
    bus.subscribe("q", ["#"], Seen())
    for event, key, error in wrong:
        with pytest.raises(error):
            bus.publish(event, key, persistent)
    info = bus.get_queue_info("q")
    assert info is not None
    assert info["message_count"] == 0


@pytest.mark.parametrize("persistent", [True, False])
def test_a_closed_bus_says_so(bus: EventBus, persistent: bool) -> None:
    bus.publish(task())
    bus.close()
    with pytest.raises(Closed):
        bus.publish(task(), persistent=persistent)


@pytest.mark.parametrize(
    ("key", "priority", "topic", "level"),
    [
        ("custom.routing.key", 5, "custom.routing.key", 5),
        ("task.urgent.high", 5, "task.urgent", 7),
        ("task.urgent.high", 8, "task.urgent", 8),
        ("task.urgent.critical", 1, "task.urgent", 9),
        ("task.urgent.normal", 10, "task.urgent", 5),
        ("task.urgent.low", 4, "task.urgent", 3),
        ("high", 5, "high", 5),
    ],
)
def test_a_routing_key_says_where_an_event_goes(
    tmp_path: Path, key: str, priority: int, topic: str, level: int
) -> None:
    seen = Seen()
    with EventBus(f"memory://{tmp_path.name}") as bus:
        bus.subscribe("q", ["#"], seen)
        assert bus.publish(Event(event_type=EventType.TASK_CREATED, priority=priority), routing_key=key)
        bus.start_consuming("q", blocking=False)
        until(lambda: seen.events, "the event")
    (event,) = seen.events
    assert (event.topic, event.event_type, event.priority) == (topic, "task.created", level)


def test_an_event_with_a_key_of_its_own_matches_by_the_topic_alone_too(bus: EventBus) -> None:
    for queue, pattern in {"key": "custom.*", "band": "custom.*.normal", "type": "task.#"}.items():
        bus.subscribe(queue, [pattern], Seen())
    bus.publish(task(), "custom.key")
    bus.publish(task())
    counts = {queue: bus.get_queue_info(queue)["message_count"] for queue in ("key", "band", "type")}  # type: ignore[index]
    assert counts == {"key": 1, "band": 1, "type": 1}


def test_a_callback_hands_down_what_is_inherited(bus: EventBus) -> None:
    seen = Seen()

    def respond(event: Event) -> None:
        bus.publish(Event(topic="step.one"))
        bus.publish(Event(topic="step.two"), persistent=False)

    bus.subscribe("work", ["task.*.*"], respond)
    bus.subscribe("steps", ["step.*.*"], seen)
    bus.start_consuming("work", blocking=False)
    bus.start_consuming("steps", blocking=False)
    first = task(trace_id="trace-1")
    bus.publish(first)
    until(lambda: len(seen.events) == 2, "both steps")
    assert {(e.parent_event_id, e.correlation_id, e.trace_id, e.hops) for e in seen.events} == {
        (first.event_id, first.event_id, "trace-1", 1)
    }


# --- without waiting ------------------------------------------------------------------------------------------------


def test_events_that_nobody_waits_for_all_arrive_in_their_order(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    for n in range(3_000):
        assert bus.publish(task(n), persistent=False)
    until(lambda: len(seen.events) == 3_000, "the last one")
    assert seen.numbers == list(range(3_000))


def test_closing_sends_what_is_on_its_way(opened: Open) -> None:
    bus, other = opened(), opened()
    other.subscribe("q", ["#"], Seen())
    for n in range(1_000):
        bus.publish(task(n), persistent=False)
    bus.close()
    info = other.get_queue_info("q")
    assert info is not None
    assert info["message_count"] == 1_000


def test_a_full_outbox_drops_counts_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "CAPACITY", 5)
    monkeypatch.setattr(outbox, "_ROOM_SECONDS", 0.1)
    with EventBus(f"redis://127.0.0.1:{free_port()}", connection_timeout=5) as bus:
        said = [bus.publish(task(n), persistent=False) for n in range(14)]  # 5 wait, 5 are on their way
        assert said.count(False) >= 3
        until(lambda: bus.health_check()["details"].get("not_sent", 0) or "event dropped" in caplog.text, "the line")
        bus.close(timeout=0)
    assert "the outbox is full" in caplog.text


def test_a_full_outbox_waits_for_room_where_there_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CAPACITY", 5)
    with EventBus(f"memory://{tmp_path.name}") as bus:
        bus.subscribe("q", ["#"], Seen())
        assert all(bus.publish(task(n), persistent=False) for n in range(500))
        until(lambda: bus.get_queue_info("q") == {"queue_name": "q", "message_count": 500, "consumer_count": 0}, "all")


# --- threads --------------------------------------------------------------------------------------------------------


def test_eight_threads_publish_while_four_queues_consume(bus: EventBus, broker_name: str, long_form: bool) -> None:
    """Four producers once delivered 0 of 800: here nothing is lost, and nothing comes twice."""
    threads, each, queues = 8, 2_000, 4
    if (
        broker_name in {"rabbitmq", "nats"} and not long_form
    ):  # on a slow machine a minute is not enough for all of them
        each = 500
    seen = [Seen() for _ in range(queues)]
    for number, callback in enumerate(seen):
        bus.subscribe(f"q{number}", [f"task.{number}.*"], callback)
        bus.start_consuming(f"q{number}", blocking=False)
    failed: list[int] = []

    def produce(thread: int) -> None:
        for k in range(each):
            n = thread * each + k
            event = Event(topic=f"task.{n % queues}", payload={"n": n}, priority=1 + n % 10)
            if not bus.publish(event, persistent=k % 8 != 0):
                failed.append(n)

    producers = [threading.Thread(target=produce, args=(thread,)) for thread in range(threads)]
    started = time.monotonic()
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(60)
    deadline = time.monotonic() + 30
    while sum(len(callback.events) for callback in seen) < threads * each and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not failed
    counts = Counter(n for callback in seen for n in callback.numbers)
    assert counts == Counter(range(threads * each)), f"after {time.monotonic() - started:.1f} s"


def test_priorities_have_names(bus: EventBus) -> None:
    seen = Seen()
    bus.subscribe("urgent", ["task.*.critical", "task.*.high"], seen)
    bus.start_consuming("urgent", blocking=False)
    for n, priority in enumerate(EventPriority):
        bus.publish(task(n, priority=priority))
    until(lambda: len(seen.events) == 3, "the urgent ones")
    assert sorted(seen.numbers) == [3, 4, 5]
