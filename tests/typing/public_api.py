"""The public API as users write it, checked by mypy and pyright in `make check`; it is not run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, assert_type

import msgspec
import pydantic

import wowevent
from wowevent import (
    AgentInfo,
    BreakerPolicy,
    Conversation,
    Correction,
    DeadLetter,
    DeadLetterQueue,
    Delivered,
    Delivery,
    Event,
    EventBus,
    EventMetadata,
    EventMetrics,
    EventPriority,
    EventReplayer,
    EventSchema,
    EventStore,
    EventType,
    EventValidator,
    FailedEvent,
    FailureReason,
    LetterGroups,
    Pause,
    PauseSubscription,
    Position,
    Receipt,
    Reject,
    ReplayConfig,
    ReplayControl,
    RetryAfter,
    RetryPolicy,
    ScheduleInfo,
    SchemaRegistry,
    Stored,
    Storm,
    StormPolicy,
    Subscription,
    SubscriptionInfo,
    create_task_event,
)
from wowevent.blocking import EventBus as BlockingBus
from wowevent.testing import TestBus


class Task(pydantic.BaseModel):
    task_id: str


class Plan(msgspec.Struct):
    steps: int


async def on_event(event: Event) -> None:
    assert_type(event.event_type, EventType)
    assert_type(event.topic, str)
    assert_type(event.payload, dict[str, Any])
    assert_type(event.metadata, EventMetadata)
    assert_type(event.target, str | None)
    if event.priority == 1:
        raise PauseSubscription(datetime.now(UTC), "quota")
    raise Reject("no") if event.retry_count else RetryAfter(1.5)


def on_task(event: Event, payload: Task, delivery: Delivery) -> str:
    assert_type(delivery.attempt, int)
    assert_type(delivery.position, Position | None)
    return f"{event.event_id} {payload.task_id}"


async def on_plan(payload: Plan) -> int:
    return payload.steps


async def on_batch(events: list[Event]) -> None:
    assert_type(events[0].priority, int)


async def use(bus: EventBus) -> None:
    subscription = await bus.subscribe(
        "task.*", on_event, "worker-1", retry=RetryPolicy(max_retries=3), order_by="topic"
    )
    assert_type(subscription, Subscription)
    await bus.subscribe(["task.*", "plan.#"], on_task, priorities=["high", EventPriority.CRITICAL], start="first")
    await bus.subscribe("task.*", on_batch, "archive", batch=100, rate="50/s", start=datetime.now(UTC))
    await subscription.cancel()

    @bus.on("plan.*", name="planner")
    async def planner(payload: Plan) -> None:
        assert_type(payload.steps, int)

    receipt = await bus.publish(Event(topic="task.created", payload={"n": 1}, priority="high", source="api"), delay=5)
    assert_type(receipt, Receipt)
    assert_type(receipt.unserved, tuple[str, ...])
    assert_type(await bus.agents(), Sequence[AgentInfo])
    assert_type(await bus.deliveries("id"), Sequence[Delivered])
    assert_type(receipt.position, Position | None)
    assert_type(await bus.publish_many([create_task_event(EventType.TASK_CREATED, "a", "t")]), Sequence[Receipt])
    assert_type(await bus.cancel(receipt.event_id), bool)
    await bus.request("agent.ask", {"q": 1}, timeout=5.0)
    async for stored in bus.history("task.*", start_time="2026-01-01", after=receipt.position, limit=10):
        assert_type(stored, Stored)
        assert_type(stored.event, Event)
    assert_type(await bus.replay(on_event, ReplayConfig(pattern="task.*", speed_multiplier=0)), int)
    assert_type(await bus.dead_letters.list(reason=FailureReason.TIMEOUT), Sequence[DeadLetter])
    assert_type(await bus.dead_letters.redeliver(["1"], rate=5), int)
    assert_type(await bus.dead_letters.groups(subscription="worker-1"), LetterGroups)
    assert_type((await bus.dead_letters.count(["1"])).by_subscription, dict[str, int])
    assert_type(await bus.dead_letters.resend("1", {"n": 1}, reason="it was text"), Correction)
    conversation = await bus.trace(receipt.event_id, limit=100)
    assert_type(conversation, Conversation)
    assert_type([step.after for step in conversation.steps], list[float | None])
    assert_type(await bus.info("worker-1"), SubscriptionInfo | None)
    assert_type(await bus.subscriptions(), Sequence[SubscriptionInfo])
    assert_type(wowevent.current(), Delivery | None)
    await bus.join(timeout=5)


async def parts(bus: EventBus) -> None:
    registry = SchemaRegistry(compatibility="backward")
    schema = EventSchema(event_type="task.created", version="1.0.0", json_schema={"type": "object"})
    registry.register_schema(schema)
    assert_type(registry.get_schema("task.created"), EventSchema)
    validator = EventValidator(registry=registry, strict=True)
    assert_type(validator.is_valid(create_task_event(EventType.TASK_CREATED, "a", "t")), bool)
    await bus.register_schema(schema)
    assert_type(await bus.schedules.add("nightly", "report.due", {"n": 1}, cron="30 2 * * *"), ScheduleInfo)
    assert_type(await bus.schedules.list(), Sequence[ScheduleInfo])
    assert_type(bus.registry, SchemaRegistry | None)

    await bus.subscribe("task.*", on_event, "careful", breaker=BreakerPolicy(minimum=10))
    await bus.pause("careful")
    assert_type(bus.paused("careful~task.*"), bool)
    await bus.resume("careful")
    assert_type(await bus.pause(agent="planner", until=600, reason="too loud"), Sequence[Pause])
    await bus.pause(topic="pay.#", until=datetime.now(UTC))
    await bus.pause(correlation_id="order-7", by="ops")
    await bus.pause(everything=True)
    assert_type(await bus.resume(everything=True), Sequence[Pause])
    assert_type((await bus.pauses())[0].until, float | None)

    EventBus("memory://", storms=StormPolicy(max_hops=None, max_visits=256))
    EventBus("memory://", storms=False)
    assert_type(bus.storms.list(), Sequence[Storm])
    assert_type(await bus.storms.release("order-7"), Sequence[Storm])
    assert_type(bus.storms.list()[0].why, str)

    metrics = EventMetrics(window_seconds=60)
    await metrics.record_delivery("task.created", "worker-1", 0.05, success=True)
    assert_type(await bus.metrics.get_metrics(), dict[str, Any])

    store = EventStore(max_size=10_000)
    store.store(create_task_event(EventType.TASK_CREATED, "a", "t"))
    control = ReplayControl()
    assert_type(await EventReplayer(store).replay(on_event, ReplayConfig(), control=control), int)
    control.pause()
    queue = DeadLetterQueue()
    failed = await queue.add_failed_event(
        create_task_event(EventType.TASK_CREATED, "a", "t"),
        subscription_id="s",
        subscriber_agent="worker-1",
        failure_reason=FailureReason.TIMEOUT,
        error_message="late",
    )
    assert_type(failed, FailedEvent)
    assert_type(failed.should_retry(), bool)


def without_a_loop() -> None:
    with BlockingBus("sqlite:///events.db", prefetch_count=10) as bus:
        bus.subscribe("my_queue", ["agent.*.normal"], callback=on_task, enable_dlq=True)
        assert_type(bus.publish(create_task_event(EventType.TASK_CREATED, "a", "t"), persistent=False), bool)
        assert_type(bus.get_queue_info("my_queue"), dict[str, Any] | None)
        assert_type(bus.purge_queue("my_queue"), int)
        bus.start_consuming("my_queue", blocking=False)
        bus.stop_consuming("my_queue")
        assert_type(bus.health_check(), dict[str, Any])


async def main() -> None:
    async with EventBus("memory://", namespace="default") as bus:
        await use(bus)
    async with TestBus() as test_bus:
        await test_bus.advance(60)
