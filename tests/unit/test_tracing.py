"""Trace context as it travels, and the spans around publishing and handling, as an exporter gets them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import opentelemetry.trace
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.baggage import get_baggage, set_baggage
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, get_current_span

from wowevent import tracing
from wowevent.delivery import Delivery, enter
from wowevent.errors import BrokerUnavailable, Reject, RetryAfter, ValidationError
from wowevent.event import Event
from wowevent.tracing import TraceContext, Tracer, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PLACE = f"{TRACE}-{SPAN}"
PARENT = f"00-{PLACE}-01"

# --- trace context --------------------------------------------------------------------------------------------------

PARSED = {
    "the standard's example": (PARENT, TraceContext(TRACE, SPAN, 1)),
    "not sampled": (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, 0)),
    "other flags": (f"00-{TRACE}-{SPAN}-fe", TraceContext(TRACE, SPAN, 0xFE)),
    "a later version": (f"cc-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, 1)),
    "a later version, with more": (f"cc-{TRACE}-{SPAN}-01-what-the-future", TraceContext(TRACE, SPAN, 1)),
    "a later version, with an end": (f"cc-{TRACE}-{SPAN}-01-", TraceContext(TRACE, SPAN, 1)),
    "a later version's flags": (f"01-{TRACE}-{SPAN}-ff", TraceContext(TRACE, SPAN, 1)),
    "none": (None, None),
    "empty": ("", None),
    "words": ("no trace at all", None),
    "00 with more": (f"{PARENT}-more", None),
    "00 with an end": (f"{PARENT}-", None),
    "a later version, with more and no dash": (f"cc-{TRACE}-{SPAN}-01.more", None),
    "version ff": (f"ff-{TRACE}-{SPAN}-01", None),
    "no trace": (f"00-{'0' * 32}-{SPAN}-01", None),
    "no span": (f"00-{TRACE}-{'0' * 16}-01", None),
    "capitals": (PARENT.upper(), None),
    "capital version": (f"CC-{TRACE}-{SPAN}-01", None),
    "a short trace": (f"00-{TRACE[1:]}-{SPAN}-01", None),
    "a long trace": (f"00-{TRACE}0-{SPAN}-01", None),
    "a short span": (f"00-{TRACE}-{SPAN[1:]}-01", None),
    "one flag": (f"00-{TRACE}-{SPAN}-1", None),
    "no flags": (f"00-{TRACE}-{SPAN}", None),
    "no version": (f"{TRACE}-{SPAN}-01", None),
    "other dashes": (PARENT.replace("-", "_"), None),
    "no digit": (f"00-{TRACE[:-1]}g-{SPAN}-01", None),
    "a digit of another script": (f"00-{TRACE[:-1]}٣-{SPAN}-01", None),
    "a space before": (f" {PARENT}", None),
    "a line after": (f"{PARENT}\n", None),
}


@pytest.mark.parametrize(("text", "found"), PARSED.values(), ids=PARSED.keys())
def test_a_traceparent_is_read_as_the_standard_says(text: str | None, found: TraceContext | None):
    assert parse(text) == found


hex_digits = st.text("0123456789abcdef", min_size=1)
ids = st.builds(
    TraceContext, *(st.integers(1, 16**n - 1).map(f"{{:0{n}x}}".format) for n in (32, 16)), st.integers(0, 255)
)


@given(ids)
def test_what_is_written_is_read_again(context: TraceContext):
    assert parse(context.traceparent) == context
    assert context.sampled is context.traceparent.endswith(tuple("13579bdf"))


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}.*", fullmatch=True))
def test_anything_is_read_or_is_not(text: str):
    found = parse(text)
    if found is not None:
        assert text[3:52] == f"{found.trace_id}-{found.span_id}"
        assert parse(found.traceparent) == found


# --- spans ----------------------------------------------------------------------------------------------------------


class Traces:
    """A tracer whose spans stay here."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **settings)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = Tracer(self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self.exporter.get_finished_spans()

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.spans
        return span

    def publish(self, *events: Event) -> Sequence[Event]:
        """What would be published."""
        with self.tracer.published(events) as stamped:
            return stamped

    def handle(self, event: Event, handler: Callable[..., Any], *, attempt: int = 1) -> None:
        """Handle a delivery as a consumer would."""
        enter(Delivery(event, attempt, "worker", None))
        try:
            asyncio.run(_call(self.tracer.traced(handler, "worker"), event))
        finally:
            enter(None)


async def _call(handler: Callable[[Any], Any], given: object) -> None:
    await handler(given)


@pytest.fixture
def traces() -> Traces:
    return Traces()


def event(topic: str = "task.created", **fields: Any) -> Event:
    return Event(topic=topic, payload={"secret": "hunter2"}, **fields)


async def nothing(_event: Event) -> None:
    pass


def attributes(span: ReadableSpan) -> dict[str, Any]:
    assert span.attributes is not None
    return dict(span.attributes)


def place(context: SpanContext) -> str:
    return f"{context.trace_id:032x}-{context.span_id:016x}"


def place_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return place(span.context)


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else place(span.parent)


def links_of(span: ReadableSpan) -> list[str]:
    return [place(link.context) for link in span.links]


def said_by(event: Event) -> str:
    """The place that an event's traceparent names."""
    found = parse(event.traceparent)
    assert found is not None
    return f"{found.trace_id}-{found.span_id}"


def test_a_publish_is_a_span_whose_context_travels_in_the_event(traces: Traces):
    made = event()
    (sent,) = traces.publish(made)
    span = traces.span
    assert (span.name, span.kind, span.status.status_code) == ("send task.created", SpanKind.PRODUCER, StatusCode.UNSET)
    assert said_by(sent) == place_of(span)
    assert sent.trace_id == said_by(sent)[:32]
    assert (sent.event_id, sent.payload) == (made.event_id, made.payload)
    assert span.parent is None
    assert attributes(span) == {
        "messaging.system": "wowevent",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "task.created",
        "messaging.message.id": made.event_id,
        "messaging.message.conversation_id": made.correlation_id,
    }


def test_a_trace_id_that_the_event_has_stays(traces: Traces):
    (sent,) = traces.publish(event(trace_id="of-mine"))
    assert (sent.trace_id, said_by(sent)) == ("of-mine", place_of(traces.span))


def test_a_publish_continues_the_span_around_it(traces: Traces):
    with traces.provider.get_tracer("app").start_as_current_span("app"):
        traces.publish(event())
    send, app = traces.spans
    assert parent_of(send) == place_of(app)


def test_what_the_maker_said_is_kept_and_linked_to(traces: Traces):
    with traces.provider.get_tracer("app").start_as_current_span("app"):
        (sent,) = traces.publish(event(traceparent=PARENT))
    send, app = traces.spans
    assert sent.traceparent == PARENT
    assert links_of(send) == [PLACE]
    assert (send.kind, parent_of(send)) == (SpanKind.CLIENT, place_of(app))


def test_without_a_span_around_it_a_publish_follows_what_the_maker_said(traces: Traces):
    traces.publish(event(traceparent=PARENT))
    assert parent_of(traces.span) == PLACE


def test_a_traceparent_that_says_nothing_is_replaced(traces: Traces):
    (sent,) = traces.publish(event(traceparent="of no use"))
    assert said_by(sent) == place_of(traces.span)
    assert traces.span.parent is None


def test_several_are_one_span(traces: Traces):
    sent = traces.publish(event(), event(traceparent=PARENT), event())
    span = traces.span
    assert [said_by(each) for each in sent] == [place_of(span), PLACE, place_of(span)]
    assert (span.name, span.kind, links_of(span)) == ("send task.created", SpanKind.PRODUCER, [PLACE])
    assert attributes(span)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes(span)


def test_several_of_different_topics_have_no_destination(traces: Traces):
    traces.publish(event("task.created"), event("task.failed"))
    assert traces.span.name == "send"
    assert "messaging.destination.name" not in attributes(traces.span)


def test_none_at_all_is_no_span(traces: Traces):
    assert traces.publish() == ()
    assert not traces.spans


def test_a_publish_that_fails_says_so(traces: Traces):
    with pytest.raises(BrokerUnavailable), traces.tracer.published([event()]):
        raise BrokerUnavailable("nobody answers")
    span = traces.span
    assert attributes(span)["error.type"] == "wowevent.errors.BrokerUnavailable"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "BrokerUnavailable: nobody answers")
    assert not get_current_span().get_span_context().is_valid


def test_a_handler_s_call_is_a_span_that_follows_its_event(traces: Traces):
    happened = event(traceparent=PARENT)
    traces.handle(happened, nothing)
    span = traces.span
    assert (span.name, span.kind, parent_of(span)) == ("process task.created", SpanKind.CONSUMER, PLACE)
    assert span.parent is not None
    assert span.parent.is_remote
    assert not span.links
    assert attributes(span) == {
        "messaging.system": "wowevent",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "task.created",
        "messaging.message.id": happened.event_id,
        "messaging.message.conversation_id": happened.correlation_id,
        "messaging.consumer.group.name": "worker",
        "wowevent.attempt": 1,
    }


def test_each_attempt_is_a_span(traces: Traces):
    for attempt in (1, 2):
        traces.handle(event(traceparent=PARENT), nothing, attempt=attempt)
    assert [attributes(span)["wowevent.attempt"] for span in traces.spans] == [1, 2]
    assert {parent_of(span) for span in traces.spans} == {PLACE}


def test_what_a_handler_publishes_follows_its_span(traces: Traces):
    async def handler(seen: Event) -> None:
        inherited = event("task.done", traceparent=seen.traceparent)
        (sent,) = traces.publish(inherited)
        assert said_by(sent) == place_of(traces.span)

    traces.handle(event(traceparent=PARENT), handler)
    send, process = traces.spans
    assert parent_of(send) == place_of(process)
    assert not send.links


def test_what_an_untraced_handler_publishes_follows_its_event(traces: Traces):
    enter(Delivery(event(traceparent=PARENT), 1, "worker", None))
    try:
        traces.publish(event(traceparent=PARENT), event(traceparent=PARENT))
    finally:
        enter(None)
    assert parent_of(traces.span) == PLACE


def test_what_a_replay_s_handler_publishes_follows_nothing(traces: Traces):
    enter(Delivery(event(traceparent=PARENT), 1, "", None, replayed=True))
    try:
        (sent,) = traces.publish(event())
    finally:
        enter(None)
    assert traces.span.parent is None
    assert said_by(sent) == place_of(traces.span)


def test_an_event_without_a_trace_begins_one(traces: Traces):
    async def handler(_event: Event) -> None:
        assert get_current_span().get_span_context().is_valid
        assert get_baggage("tenant") is None

    async def subscribed_within_another_span() -> None:
        await traces.tracer.traced(handler, "worker")(event())

    token = attach(set_baggage("tenant", "a"))
    with traces.provider.get_tracer("app").start_as_current_span("app"):
        asyncio.run(subscribed_within_another_span())
    detach(token)
    process, _ = traces.spans
    assert process.parent is None


def test_a_list_is_one_span_that_links_to_each(traces: Traces):
    async def handler(events: list[Event]) -> int:
        return len(events)

    events = [event(traceparent=PARENT), event(), event(traceparent=PARENT.replace(SPAN, SPAN[::-1]))]

    async def called() -> None:
        assert await traces.tracer.traced(handler, "worker", batch=True)(events) == 3
        assert await traces.tracer.traced(handler, "worker", batch=True)(events[:1]) == 1

    asyncio.run(called())
    span, alone = traces.spans
    assert span.parent is None
    assert links_of(span) == [said_by(events[0]), said_by(events[2])]
    assert [dict(link.attributes or {}) for link in span.links] == [
        {"messaging.message.id": each.event_id} for each in (events[0], events[2])
    ]
    assert attributes(span)["messaging.batch.message_count"] == 3
    assert attributes(alone)["messaging.batch.message_count"] == 1


FAILURES: dict[str, tuple[Exception, str, str]] = {
    "an error": (KeyError("order"), "KeyError", "KeyError: 'order'"),
    "one without words": (ValueError(), "ValueError", "ValueError"),
    "a rejection": (Reject("never"), "wowevent.errors.Reject", "Reject: never"),
    "half a character": (OSError("\ud800"), "OSError", "OSError: \\ud800"),
}


@pytest.mark.parametrize(("error", "kind", "said"), FAILURES.values(), ids=FAILURES.keys())
def test_what_a_handler_raises_is_said(traces: Traces, error: Exception, kind: str, said: str):
    async def handler(_event: Event) -> None:
        raise error

    with pytest.raises(type(error)):
        traces.handle(event(), handler)
    span = traces.span
    assert attributes(span)["error.type"] == kind
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, said)
    (happened,) = span.events
    assert happened.name == "exception"
    assert dict(happened.attributes or {})["exception.type"] == kind
    assert "in handler" in str(dict(happened.attributes or {})["exception.stacktrace"])


def test_another_moment_is_no_error(traces: Traces):
    async def handler(_event: Event) -> None:
        raise RetryAfter(30)

    with pytest.raises(RetryAfter):
        traces.handle(event(), handler)
    span = traces.span
    assert attributes(span)["wowevent.retry_after"] == 30.0
    assert (span.status.status_code, len(span.events)) == (StatusCode.UNSET, 0)


def test_nothing_of_a_payload_is_in_a_span(traces: Traces):
    async def handler(seen: Event) -> None:
        cause = ValueError(f"input_value={seen.payload}")
        raise ValidationError("validation: task.created: secret: too short") from cause

    (sent,) = traces.publish(event(headers={"x": "hunter2"}))
    with pytest.raises(ValidationError):
        traces.handle(sent, handler)
    assert len(traces.spans) == 2
    assert "too short" in "".join(span.to_json() for span in traces.spans)
    assert "hunter2" not in "".join(span.to_json() for span in traces.spans)


def test_who_does_not_sample_passes_that_on():
    traces = Traces(sampler=ALWAYS_OFF)
    (sent,) = traces.publish(event())
    assert not traces.spans
    found = parse(sent.traceparent)
    assert found is not None
    assert not found.sampled


def test_a_provider_that_is_switched_off_changes_nothing():
    made = event()
    with Tracer(opentelemetry.trace.NoOpTracerProvider()).published([made]) as sent:
        assert sent == [made]
        assert sent[0].traceparent is None


# --- whether there is a provider ------------------------------------------------------------------------------------


def test_without_a_provider_there_is_no_tracer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", None)
    assert tracing.tracer() is None
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", opentelemetry.trace.NoOpTracerProvider())
    assert tracing.tracer() is None


def test_who_does_not_trace_does_not_import_opentelemetry():
    code = "import sys; from wowevent import tracing; print(tracing.tracer(), 'opentelemetry' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None False"


def test_with_a_provider_there_is_one(traces: Traces, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(opentelemetry.trace, "_TRACER_PROVIDER", traces.provider)
    tracer = tracing.tracer()
    assert tracer is not None
    with tracer.published([event()]):
        pass
    assert traces.span.instrumentation_scope is not None
    assert traces.span.instrumentation_scope.name == "wowevent"
