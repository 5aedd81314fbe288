"""The dead-letter queue, the event store and the replayer on a bus: what they show is the engine's truth, on each."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually, url_of
from tests.conformance.making import Seen, event, events, failing
from wowevent import (
    Closed,
    DeadLetterQueue,
    Event,
    EventBus,
    EventReplayer,
    EventStore,
    FailedEvent,
    FailureReason,
    InvalidTopic,
    NotSupported,
    Reject,
    ReplayConfig,
    ReplayControl,
    RetryPolicy,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
AT_ONCE = RetryPolicy(max_retries=2, initial=0)


class Worker(Seen):
    """Fails at everything until it is repaired, and rejects what has an odd number."""

    def __init__(self) -> None:
        super().__init__(self._fail)
        self.repaired = False

    def _fail(self, event: Event, _attempt: int) -> Exception | None:
        if self.repaired:
            return None
        return Reject("never") if event.payload["n"] % 2 else OSError("on purpose")


async def buried(rig: Rig, count: int = 4) -> tuple[EventBus, Worker, list[Event]]:
    """A bus whose worker could not handle any of these."""
    bus, worker = await rig.bus(), Worker()
    await bus.subscribe("task.*", worker, "worker", subscription="sub", retry=AT_ONCE)
    sent = [event(n=n, correlation_id=f"c-{n % 2}") for n in range(count)]
    await bus.publish_many(sent)
    await bus.join(10)
    return bus, worker, sent


def ids(found: list[FailedEvent]) -> list[str]:
    return [failed.event.event_id for failed in found]


# --- dead letters -------------------------------------------------------------------------------------------------


async def test_the_queue_shows_the_letters_of_the_engine(rig: Rig):
    bus, _, sent = await buried(rig)
    for dlq in (DeadLetterQueue(bus=bus), DeadLetterQueue(bus=await rig.bus())):  # another process sees the same
        letters = {failed.event.event_id: failed for failed in await dlq.get_dead_letters()}
        assert set(letters) == {each.event_id for each in sent}
        failed, rejected = letters[sent[0].event_id], letters[sent[1].event_id]
        assert (failed.event, failed.subscription_id, failed.subscriber_agent) == (sent[0], "sub", "worker")
        assert (failed.failure_reason, rejected.failure_reason) == (FailureReason.HANDLER_ERROR, FailureReason.REJECTED)
        assert "on purpose" in failed.error_message
        assert (failed.retry_count, rejected.retry_count) == (2, 0)
        assert abs(failed.last_failed_at.timestamp() - rig.clock.time()) < 60
        assert failed.first_failed_at <= failed.last_failed_at
        assert (failed.should_retry(), failed.is_permanent) == (True, False)
        assert (rejected.should_retry(), rejected.is_permanent, rejected.next_retry_at) == (False, True, None)
        assert set(ids(await dlq.get_retry_queue())) == {sent[0].event_id, sent[2].event_id}
        assert set(ids(await dlq.get_permanent_failures())) == {sent[1].event_id, sent[3].event_id}
        assert await dlq.get_stats() == {
            "total": 4, "waiting": 0, "due": 2, "permanent": 2, "by_reason": {"handler_error": 2, "rejected": 2},
            "retried": 0, "resolved": None,
        }  # fmt: skip


async def test_letters_are_found_by_what_is_known_of_them(rig: Rig):
    bus, _, sent = await buried(rig)
    dlq = DeadLetterQueue(bus=bus)
    queries: list[tuple[dict[str, Any], set[int]]] = [
        ({"subscription_id": "sub"}, {0, 1, 2, 3}),
        ({"subscription_id": "worker"}, {0, 1, 2, 3}),
        ({"subscription_id": "nobody"}, set()),
        ({"reason": "rejected"}, {1, 3}),
        ({"correlation_id": "c-0", "reason": FailureReason.HANDLER_ERROR}, {0, 2}),
        ({"correlation_id": "c-1", "reason": FailureReason.HANDLER_ERROR}, set()),
    ]
    for query, found in queries:
        assert set(ids(await dlq.get_dead_letters(**query))) == {sent[n].event_id for n in found}, query


async def test_the_loop_of_the_page_hands_them_to_their_subscription_again(rig: Rig):
    bus, worker, sent = await buried(rig)
    dlq, before = DeadLetterQueue(bus=bus), len(worker.events)
    worker.repaired = True
    for failed in await dlq.get_retry_queue():
        if failed.should_retry():
            dlq.retry_dead_letter(failed.event.correlation_id)
    await dlq.close()
    await bus.join(10)
    await eventually(lambda: len(worker.events) >= before + 2)
    again = list(zip(worker.events[before:], worker.deliveries[before:], strict=True))
    assert sorted(each.event_id for each, _ in again) == sorted([sent[0].event_id, sent[2].event_id])
    assert all(delivery.redelivered and delivery.attempt == 1 for _, delivery in again)
    assert set(ids(await dlq.get_dead_letters())) == {sent[1].event_id, sent[3].event_id}
    stats = await dlq.get_stats()
    assert (stats["total"], stats["permanent"], stats["retried"]) == (2, 2, 2)


async def test_awaited_it_says_how_many_and_what_still_fails_comes_back(rig: Rig):
    bus, worker, sent = await buried(rig)
    dlq = DeadLetterQueue(bus=bus)
    assert await dlq.retry_dead_letter(sent[0].event_id) == 1
    assert await dlq.retry_dead_letter("c-1") == 2
    assert await dlq.retry_dead_letter("nobody") == 0
    await eventually(lambda: len(worker.events) >= 8 + 3 + 2)  # three attempts at one, one at each that is rejected
    await bus.join(10)
    await eventually(lambda: total(dlq, 4))
    assert (await dlq.get_stats())["retried"] == 3


async def total(dlq: DeadLetterQueue, count: int) -> bool:
    return bool((await dlq.get_stats())["total"] == count)


async def test_of_two_subscriptions_one_is_meant(rig: Rig):
    bus, task = await rig.bus(), event()
    for name in ("one", "two"):
        await bus.subscribe("task.*", Worker(), name, subscription=name, retry=AT_ONCE)
    await bus.publish(task)
    await bus.join(10)
    dlq = DeadLetterQueue(bus=bus)
    (two,) = await dlq.get_dead_letters("two")
    assert await dlq.discard(two) == 1
    assert await dlq.retry_dead_letter(two) == 0
    assert [failed.subscription_id for failed in await dlq.get_dead_letters()] == ["one"]
    assert await dlq.discard(task.correlation_id) == 1
    assert await dlq.get_dead_letters() == []


async def test_what_only_the_engine_knows_must_be_awaited(rig: Rig):
    bus, _, sent = await buried(rig, 1)
    dlq = DeadLetterQueue(bus=bus)
    for letters in (dlq.get_retry_queue(), dlq.get_permanent_failures(), dlq.get_dead_letters()):
        with pytest.raises(NotSupported, match="await"):
            list(letters)
        with pytest.raises(NotSupported, match="await"):
            len(letters)
    with pytest.raises(NotSupported, match="by itself"):
        await dlq.add_failed_event(sent[0], "sub")


async def test_a_redelivery_that_nobody_awaits_is_logged_when_it_fails(rig: Rig, caplog: pytest.LogCaptureFixture):
    bus, _, sent = await buried(rig, 1)
    dlq = DeadLetterQueue(bus=bus)
    await bus.stop()
    await bus.broker.close()
    with caplog.at_level(logging.ERROR, "wowevent"):
        dlq.retry_dead_letter(sent[0].event_id)
        await dlq.close()
    assert "dead_letter could not be redelivered" in caplog.text
    with pytest.raises(Closed):
        dlq.retry_dead_letter(sent[0].event_id)


async def test_one_that_is_under_way_when_the_bus_stops_leaves_nothing_behind(broker_name: str, tmp_path: Path):
    async with EventBus(url_of(broker_name, tmp_path)) as bus:
        await bus.subscribe("task.*", Worker(), "worker", retry=AT_ONCE)
        task = event()
        await bus.publish(task)
        await bus.join(10)
        dlq = DeadLetterQueue(bus=bus)
        dlq.retry_dead_letter(task.event_id)
    await dlq.close()


# --- the log ------------------------------------------------------------------------------------------------------


async def happened(rig: Rig, count: int = 4) -> EventBus:
    """A bus on which an event happened every ten seconds."""
    bus = await rig.bus()
    await bus.publish_many(
        [
            event(
                "task.done" if n % 2 else "plan.made", n, event_id=f"id-{n}", correlation_id=f"c-{n % 2}",
                timestamp=NOON + timedelta(seconds=10 * n),
            )
            for n in range(count)
        ]
    )  # fmt: skip
    return bus


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"pattern": "task.*"}, [1, 3]),
        ({"start_time": "2030-01-01T12:00:10", "end_time": "2030-01-01T12:00:20"}, [1, 2]),
        ({"correlation_id": "c-0"}, [0, 2]),
        ({"limit": 1}, [0]),
    ],
    ids=str,
)
async def test_the_store_shows_the_log_of_the_bus(rig: Rig, query: dict[str, Any], found: list[int]):
    bus = await happened(rig)
    for each in (bus, await rig.bus()):
        stored = [stored async for stored in EventStore(bus=each).history(**query)]
        assert [one.event.payload["n"] for one in stored] == found
    log = [stored.position async for stored in bus.history(**query)]
    assert [one.position for one in stored] == log


async def test_a_store_that_shows_a_log_keeps_and_drops_nothing_itself(rig: Rig):
    store = EventStore(bus=await happened(rig))
    for use in (lambda: store.store(event()), store.clear, store.get_events, lambda: len(store)):
        with pytest.raises(NotSupported, match="log of a bus"):
            use()
    assert len([stored async for stored in store.history()]) == 4


@pytest.mark.parametrize("of", ["bus", "store"])
async def test_the_replayer_replays_the_log(rig: Rig, of: str):
    bus, seen = await happened(rig), Seen()
    replayer = EventReplayer(bus if of == "bus" else EventStore(bus=bus))
    config = ReplayConfig(start_time="2030-01-01T12:00:10", pattern="task.*", speed_multiplier=0)
    assert await replayer.replay(seen, config) == 2
    assert seen.numbers == [1, 3]
    assert all(delivery.replayed and delivery.position for delivery in seen.deliveries)
    assert await replayer.replay(seen, ReplayConfig(event_ids=["id-2"], speed_multiplier=0)) == 1
    assert await replayer.replay(seen) == 4


async def test_an_agent_that_was_away_catches_up(rig: Rig):
    bus, control = await happened(rig), ReplayControl()
    replayer = EventReplayer(bus)
    broken = Seen(failing(2))
    with pytest.raises(OSError, match="on purpose"):
        await replayer.catch_up(broken, "2030-01-01T12:00:10", control=control)
    assert (broken.numbers, control.replayed) == ([1, 2], 1)
    assert control.position is not None

    async def handler(seen: Event) -> None:
        found.append(seen.payload["n"])
        await bus.publish(event("task.done", 100 + seen.payload["n"]))  # which is none of what it missed

    found: list[int] = []
    assert await replayer.catch_up(handler, control.position) == 2
    assert found == [2, 3]
    assert await replayer.catch_up(Seen(), control.position, "plan.*") == 1


# --- replayed elsewhere, held and cancelled -----------------------------------------------------------------------


async def test_into_another_namespace_each_keeps_its_topic(broker_name: str, tmp_path: Path):
    url, seen = url_of(broker_name, tmp_path), Seen()
    async with EventBus(url) as bus, EventBus(url, namespace="staging") as staging:
        sent = [
            event(topic, n, correlation_id="c") for n, topic in enumerate(("task.created", "plan.made", "task.done"))
        ]
        await bus.publish_many(sent)
        await staging.subscribe("task.*", seen, "worker")
        assert await bus.replay_into(to=staging) == 3
        await staging.join(10)
        copies = [stored.event async for stored in staging.history()]
        assert [copy.topic for copy in copies] == [each.topic for each in sent]
        assert [copy.replay_of for copy in copies] == [each.event_id for each in sent]
        assert not {copy.event_id for copy in copies} & {each.event_id for each in sent}
        assert seen.numbers == [0, 2]
        assert not any(delivery.replayed for delivery in seen.deliveries)
        assert await bus.replay_into("again", ReplayConfig(pattern="task.*", speed_multiplier=0), to=staging) == 2
        assert [stored.event.payload["n"] async for stored in staging.history("again")] == [0, 2]
        assert len([stored async for stored in bus.history()]) == 3


async def test_from_one_engine_into_another(rig: Rig):
    bus = await happened(rig)
    async with EventBus("memory://") as memory:
        assert await bus.replay_into(to=memory) == 4
        assert [stored.event.payload["n"] async for stored in memory.history()] == [0, 1, 2, 3]


async def test_under_their_own_topics_they_do_not_go_into_their_own_log(rig: Rig):
    """They would be handled again by all that handled them."""
    bus = await happened(rig)
    for to in (None, bus, await rig.bus()):
        with pytest.raises(InvalidTopic, match="another log"):
            await bus.replay_into(to=to)
    with pytest.raises(InvalidTopic, match="bus's own"):
        await bus.replay_into(config=ReplayConfig(pattern="_bus.*"), to=await rig.another_log().bus())
    assert len([stored async for stored in bus.history()]) == 4


async def test_a_replay_is_held_goes_on_at_its_own_pace_and_is_cancelled(rig: Rig):
    bus, seen, control = await happened(rig), Seen(), ReplayControl()
    replaying = asyncio.create_task(bus.replay(seen, ReplayConfig(speed_multiplier=1), control=control))
    await eventually(seen.count(1))
    await rig.advance(5)
    control.pause()
    await rig.advance(100)
    assert (control.state, seen.numbers) == ("paused", [0])
    control.resume()
    await rig.advance(4)
    assert (control.state, seen.numbers) == ("running", [0])
    await rig.advance(1.5)
    await eventually(seen.count(2))
    await rig.advance(8)
    assert seen.numbers == [0, 1]  # it does not rush
    control.cancel()
    assert await replaying == 2
    positions = [stored.position async for stored in bus.history()]
    assert (control.state, control.replayed, control.position) == ("cancelled", 2, positions[1])


async def test_a_replay_into_a_topic_is_held_and_cancelled_between_two_steps(rig: Rig):
    bus, control = await rig.bus(), ReplayControl()
    await bus.publish_many(events(450))
    replaying = asyncio.create_task(
        bus.replay_into("again", control=control, progress=lambda count, _: control.pause() if count == 200 else None)
    )
    await eventually(lambda: control.state == "paused")
    await rig.breathe()
    assert (control.replayed, len([stored async for stored in bus.history("again")])) == (200, 200)
    control.cancel()
    assert await replaying == 200
    assert control.state == "cancelled"
    assert len([stored async for stored in bus.history("again")]) == 200
