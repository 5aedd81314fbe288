"""The bus over each engine: what a handler may be, and how its calls are arranged."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pydantic
import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events, failing, same
from wowevent import Delivery, Event, FailureReason, RetryPolicy, current


class Strict(pydantic.BaseModel):
    n: int


class Packed(msgspec.Struct):
    n: int


@dataclasses.dataclass
class Plain:
    n: int


def handlers(got: list[Any]) -> dict[str, Callable[..., Any]]:
    async def pydantic_model(payload: Strict) -> None:
        got.append(payload)

    async def struct(payload: Packed) -> None:
        got.append(payload)

    async def dataclass(payload: Plain) -> None:
        got.append(payload)

    def sync(event: Event) -> None:
        got.append(event.payload["n"])

    async def everything(event: Event, payload: Strict, delivery: Delivery) -> None:
        assert delivery is current()
        assert delivery.event is event
        got.append(payload.n)

    async def plain_payload(payload: dict[str, Any]) -> None:
        got.append(payload["n"])

    async def with_default(event: Event, extra: int = 7) -> None:
        got.append(event.payload["n"] + extra - 7)

    class Handler:
        async def __call__(self, event: Event) -> None:
            got.append(event.payload["n"])

    def sync_partial(prefix: str, event: Event) -> None:
        got.append(event.payload["n"])

    return {
        "pydantic": pydantic_model,
        "msgspec": struct,
        "dataclass": dataclass,
        "sync": sync,
        "everything": everything,
        "plain payload": plain_payload,
        "with a default": with_default,
        "object": Handler(),
        "partial": partial(sync_partial, "prefix"),
        "lambda": lambda event: got.append(event.payload["n"]),
    }


@pytest.mark.parametrize("kind", handlers([]))
async def test_a_handler_may_be_any_callable(rig: Rig, kind: str):
    got: list[Any] = []
    bus = await rig.bus()
    await bus.subscribe("task.*", handlers(got)[kind], "worker")
    await bus.publish(event(n=5))
    await bus.join(5)
    assert got in ([5], [Strict(n=5)], [Packed(n=5)], [Plain(n=5)])


@pytest.mark.parametrize("kind", ["pydantic", "msgspec", "dataclass"])
async def test_a_payload_that_does_not_fit_the_model_is_dead_at_once(rig: Rig, kind: str):
    bus = await rig.bus()
    await bus.subscribe("task.*", handlers([])[kind], "worker")
    await bus.publish(Event(topic="task.created", payload={"n": "many"}))
    await bus.join(5)
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (letter.reason, len(letter.attempts)) == (FailureReason.VALIDATION_ERROR, 1)
    assert "n" in letter.error


async def test_a_handler_that_cannot_be_called_is_refused_at_once(rig: Rig):
    bus = await rig.bus()

    async def none() -> None: ...

    async def too_many(event: Event, other: int) -> None: ...

    for wrong in (none, too_many, "text", None):
        with pytest.raises(TypeError):
            await bus.subscribe("task.*", wrong, "worker")  # type: ignore[arg-type]  # that is the test
        with pytest.raises(TypeError):
            bus.on("task.*")(wrong)
    assert await bus.info("worker") is None


async def test_sync_handlers_run_beside_the_loop_and_know_their_delivery(rig: Rig):
    bus, found = await rig.bus(), list[Any]()

    def handler(event: Event) -> None:
        delivery = current()
        found.append((threading.current_thread() is threading.main_thread(), delivery and delivery.attempt))

    await bus.subscribe("task.*", handler, "worker")
    await bus.publish(event())
    await bus.join(5)
    assert found == [(False, 1)]
    assert current() is None


async def test_middleware_wraps_every_handler_the_first_used_outermost(rig: Rig):
    bus, calls = await rig.bus(), list[str]()

    def named(name: str) -> Any:
        def middleware(handler: Any) -> Any:
            async def wrapped(event: Any) -> Any:
                calls.append(f"{name} before")
                try:
                    return await handler(event)
                finally:
                    calls.append(f"{name} after")

            return wrapped

        return middleware

    bus.use(named("outer"))
    bus.use(named("inner"))
    await bus.subscribe("task.*", lambda event: calls.append("handler"), "worker")
    await bus.publish(event())
    await bus.join(5)
    assert calls == ["outer before", "inner before", "handler", "inner after", "outer after"]


# --- batches ------------------------------------------------------------------------------------------------------


async def test_a_batch_handler_gets_lists(rig: Rig):
    bus, sizes, got = await rig.bus(), list[int](), list[int]()

    async def handler(events: list[Event]) -> None:
        sizes.append(len(events))
        got.extend(each.payload["n"] for each in events)

    await bus.publish_many(events(250))
    await bus.subscribe("task.*", handler, "worker", start="first", batch=100)
    await eventually(lambda: len(got) == 250)
    assert got == list(range(250))
    assert max(sizes) == 100


async def test_a_typed_batch_handler_gets_lists_of_models(rig: Rig):
    bus, got = await rig.bus(), list[Any]()

    async def handler(payloads: list[Strict]) -> None:
        got.extend(payloads)

    await bus.subscribe("task.*", handler, "worker", batch=10)
    await bus.publish_many(events(5))
    await bus.join(5)
    assert got == [Strict(n=n) for n in range(5)]


async def test_what_failed_in_a_batch_comes_again_alone(rig: Rig):
    bus, calls = await rig.bus(), list[list[int]]()

    async def handler(events: list[Event]) -> None:
        calls.append([each.payload["n"] for each in events])
        if 2 in calls[-1]:
            raise OSError("on purpose")

    await bus.publish_many(events(4))
    policy = RetryPolicy(max_retries=1, initial=1)
    await bus.subscribe("task.*", handler, "worker", start="first", batch=10, retry=policy)
    await eventually(lambda: calls)
    await rig.breathe()
    await rig.advance(1.1)
    await eventually(bus.dead_letters.list)
    assert calls[0] == [0, 1, 2, 3]
    assert sorted(calls[1:]) == [[0], [1], [2], [3]]
    (letter,) = await bus.dead_letters.list()
    assert letter.event.payload == {"n": 2}


async def test_batch_and_order_by_exclude_each_other(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(ValueError, match="exclude"):
        await bus.subscribe("task.*", Seen(), "worker", batch=5, order_by="correlation_id")


# --- how many, how fast -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_so_many_handlers_run_at_a_time(rig: Rig, concurrency: int):
    bus = await rig.bus()
    running = most = done = 0

    async def handler(event: Event) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        done += 1

    await bus.subscribe("task.*", handler, "worker", concurrency=concurrency)
    await bus.publish_many(events(40))
    await eventually(lambda: done == 40)
    assert most == concurrency


async def test_subscriptions_do_not_wait_for_each_other(rig: Rig):
    bus, gate, seen = await rig.bus(), asyncio.Event(), Seen()

    async def slow(event: Event) -> None:
        await gate.wait()

    await bus.subscribe("task.*", slow, "slow")
    await bus.subscribe("task.*", seen, "fast")
    await bus.publish_many(events(20))
    await eventually(seen.count(20))
    gate.set()


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_a_rate_is_kept(rig: Rig, concurrency: int):
    bus, seen = await rig.bus(), Seen()
    seen.clock = rig.clock
    await bus.subscribe("task.*", seen, "worker", rate="2/s", concurrency=concurrency)
    began = rig.clock.monotonic()
    await bus.publish_many(events(6))
    await eventually(lambda: seen.times)
    for _ in range(30):
        await rig.advance(0.1)
    assert [round(at - began, 1) for at in seen.times] == [0, 0.5, 1, 1.5, 2, 2.5]


async def test_the_rate_of_a_batch_handler_counts_its_events(rig: Rig):
    bus, times = await rig.bus(), list[float]()

    async def handler(events: list[Event]) -> None:
        times.extend(rig.clock.monotonic() for _ in events)

    await bus.publish_many(events(40))
    began = rig.clock.monotonic()
    await bus.subscribe("task.*", handler, "worker", start="first", batch=10, rate=10)
    for _ in range(9):
        await rig.advance(0.5)
    assert sum(1 for at in times if at - began <= 2.1) <= 30
    await eventually(lambda: len(times) == 40)


async def test_what_waits_for_its_slot_is_given_back_uncharged_when_the_bus_stops(rig: Rig):
    bus, seen, rest = await rig.bus(), Seen(), Seen()
    await bus.subscribe("task.*", seen, "worker", rate="1/min")
    await bus.publish_many(events(3))
    await eventually(seen.count(1))
    await rig.breathe()
    async with asyncio.timeout(5):
        await bus.stop(timeout=0.1)
    other = await rig.bus()
    found = await other.info("worker")
    assert found
    assert found.ready == 2
    assert same(other, found.leased, 0)
    await other.subscribe("task.*", rest, "worker")
    await eventually(rest.count(2))
    assert [delivery.attempt for delivery in rest.deliveries] == [1, 1]


async def test_auto_ack_is_at_most_once(rig: Rig):
    bus, seen = await rig.bus(), Seen(failing(0))
    handle = await bus.subscribe("task.*", seen, "worker", auto_ack=True)
    await bus.publish_many(events(2))
    await bus.join(5)
    await rig.advance(60)
    assert seen.numbers == [0, 1]
    assert not await bus.dead_letters.list()
    counts = (await bus.health())["details"]["here"][handle.subscription_id]
    assert (counts["handled"], counts["failed"]) == (1, 1)


async def test_auto_ack_acknowledges_before_handling(rig: Rig):
    bus, gate, seen = await rig.bus(), asyncio.Event(), Seen()

    async def handler(event: Event) -> None:
        seen.events.append(event)
        await gate.wait()

    await bus.subscribe("task.*", handler, "worker", auto_ack=True)
    await bus.publish(event())
    await eventually(seen.count(1))
    found = await bus.info("worker")
    assert found
    assert found.ready == 0
    assert same(bus, found.leased, 0)
    gate.set()


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"batch": 0},
        {"rate": "fast"},
        {"rate": 0},
        {"timeout": 0},
        {"lease": -1},
        {"order_by": "no_such_field"},
    ],
    ids=str,
)
async def test_settings_that_make_no_sense_are_refused(rig: Rig, wrong: dict[str, Any]):
    bus = await rig.bus()
    with pytest.raises(ValueError, match=r".+"):
        await bus.subscribe("task.*", Seen(), "worker", **wrong)


async def test_durable_needs_a_name(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(ValueError, match="name"):
        await bus.subscribe("task.*", Seen(), durable=True)
