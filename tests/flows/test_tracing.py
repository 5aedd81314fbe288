"""One trace through the bus: publisher, handler, what that publishes, its handler; retries and failures among them."""

from __future__ import annotations

from collections.abc import Sequence

import opentelemetry.trace
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from wowevent import Event, EventBus, RetryPolicy
from wowevent.testing import TestBus


class Spans:
    """What was traced so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str) -> Sequence[ReadableSpan]:
        """Those of that name, in the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """A provider that counts as the process's own for as long as the test runs."""
    spans = Spans()
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", spans.provider)
    return spans


def follows(child: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return child.parent is not None and child.parent.span_id == parent.context.span_id


def traces(*spans: ReadableSpan) -> set[int]:
    return {span.context.trace_id for span in spans if span.context is not None}


async def test_a_trace_goes_through_two_handlers(spans: Spans):
    async with EventBus("memory://") as bus:

        async def plan(event: Event) -> None:
            await bus.publish(Event(topic="plan.created"))

        async def carry_out(event: Event) -> None:
            pass

        await bus.subscribe("task.*", plan, "planner")
        await bus.subscribe("plan.*", carry_out, "worker")
        await bus.publish(Event(topic="task.created"))
        await bus.join()
        task, made = [stored.event async for stored in bus.history()]
    names = ("send task.created", "process task.created", "send plan.created", "process plan.created")
    first, planned, second, done = (spans.one(name) for name in names)
    assert first.parent is None
    assert follows(planned, first)
    assert follows(second, planned)
    assert follows(done, second)
    assert len(traces(first, planned, second, done)) == 1
    assert task.trace_id == made.trace_id
    assert task.traceparent != made.traceparent
    assert (done.attributes or {})["messaging.consumer.group.name"] == "worker~plan.*"


async def test_a_publisher_s_own_span_is_where_it_begins(spans: Spans):
    async with EventBus("memory://") as bus:
        await bus.subscribe("task.*", lambda event: None, "worker")
        with spans.provider.get_tracer("app").start_as_current_span("order"):
            await bus.publish(Event(topic="task.created"))
        await bus.join()
    assert follows(spans.one("send task.created"), spans.one("order"))
    assert len(traces(spans.one("order"), spans.one("process task.created"))) == 1


async def test_each_attempt_is_a_span_and_failures_are_said(spans: Spans):
    async with TestBus() as bus:

        async def flaky(event: Event) -> None:
            if event.retry_count == 0:
                raise OSError("on purpose")

        await bus.subscribe("task.*", flaky, "worker", retry=RetryPolicy(initial=1))
        await bus.publish(Event(topic="task.created"))
        await bus.advance(2)
    failed, worked = spans.named("process task.created")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "OSError: on purpose")
    assert (failed.attributes or {})["error.type"] == "OSError"
    assert worked.status.status_code is StatusCode.UNSET
    assert [(span.attributes or {})["wowevent.attempt"] for span in (failed, worked)] == [1, 2]
    send = spans.one("send task.created")
    assert follows(failed, send)
    assert follows(worked, send)


async def test_a_sync_handler_in_its_thread_is_in_the_trace(spans: Spans):
    seen: list[int] = []
    async with EventBus("memory://") as bus:

        def handler(event: Event) -> None:
            seen.append(opentelemetry.trace.get_current_span().get_span_context().trace_id)

        await bus.subscribe("task.*", handler, "worker")
        await bus.publish(Event(topic="task.created"))
        await bus.join()
    assert set(seen) == traces(spans.one("send task.created"))


async def test_a_batch_links_to_what_it_handles(spans: Spans):
    async with TestBus() as bus:

        async def handler(events: list[Event]) -> None:
            pass

        await bus.subscribe("task.*", handler, "worker", batch=10)
        await bus.publish_many([Event(topic="task.created") for _ in range(3)])
        await bus.advance()
    send = spans.one("send task.created")
    assert (send.attributes or {})["messaging.batch.message_count"] == 3
    links = [link for span in spans.named("process task.created") for link in span.links]
    assert len(links) == 3
    assert {link.context.span_id for link in links} == {send.context.span_id if send.context else 0}


async def test_a_request_and_its_handler_are_one_trace(spans: Spans):
    async with EventBus("memory://") as bus:

        async def answer(event: Event) -> str:
            return "yes"

        await bus.subscribe("ask.*", answer, "oracle")
        assert await bus.request("ask.this") == "yes"
    assert follows(spans.one("process ask.this"), spans.one("send ask.this"))


async def test_what_was_subscribed_before_the_start_is_traced_too(spans: Spans):
    bus = EventBus("memory://")

    @bus.on("task.*", name="worker")
    async def handler(event: Event) -> None:
        pass

    await bus.subscribe("task.*", handler, "other")
    async with bus:
        await bus.publish(Event(topic="task.created"))
        await bus.join()
    assert len(spans.named("process task.created")) == 2


async def test_without_a_provider_a_traceparent_is_carried_and_inherited(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", None)
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with EventBus("memory://") as bus:

        async def plan(event: Event) -> None:
            await bus.publish(Event(topic="plan.created"))

        await bus.subscribe("task.*", plan, "planner")
        await bus.publish(Event(topic="task.created", traceparent=parent))
        await bus.join()
        assert [stored.event.traceparent async for stored in bus.history()] == [parent, parent]
