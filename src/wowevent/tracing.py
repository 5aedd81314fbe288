"""Traces across the bus: W3C trace context in events, and OpenTelemetry spans around publishing and handling.

    publish          span "send {topic}"       its context travels in the event's `traceparent`
      -> handler     span "process {topic}"    child of that; current while the handler runs
           -> publish ...                      child of that

Only where OpenTelemetry is installed and has a tracer provider. Without, events still carry and inherit `traceparent`.
Names are those of OpenTelemetry's semantic conventions for messaging; what an event holds is never among them.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from os import environ
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from wowevent.delivery import current
from wowevent.errors import PauseSubscription, RetryAfter, ValidationError, printable
from wowevent.event import Event

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TracerProvider

Handler = Callable[[Any], Awaitable[Any]]
"""As `handler.adapt` makes it."""

_PARTS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED: Final = 1
_ASKED_FOR: Final = "OTEL_PYTHON_TRACER_PROVIDER"  # names a provider that is set as soon as somebody asks for it


class TraceContext(Struct, frozen=True, gc=False):
    """Which span of which trace something follows from."""

    trace_id: str
    """32 hexadecimal digits, not all zero."""
    span_id: str
    """16 hexadecimal digits, not all zero."""
    flags: int = 0
    """0 to 255; the lowest bit is `sampled`."""

    @property
    def sampled(self) -> bool:
        """Whether whoever began it may have recorded it."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """As it travels."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(traceparent: str | None) -> TraceContext | None:
    """What a `traceparent` says; None for one that says nothing by https://www.w3.org/TR/trace-context/.

    A later version than 00 may be longer; of that, the parts of 00 and the sampled flag are understood.
    """
    found = _PARTS.fullmatch(traceparent) if traceparent is not None else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    known = 0xFF if version == "00" else _SAMPLED
    return TraceContext(trace_id, span_id, int(flags, 16) & known)


def tracer() -> Tracer | None:
    """The way to the process's tracer provider; None where there is none, which costs next to nothing.

    Who has set a provider has imported OpenTelemetry: nobody else pays for that.
    """
    if "opentelemetry.trace" not in sys.modules and _ASKED_FOR not in environ:
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - see above
    except ImportError:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Tracer(provider)


class Tracer:
    """Spans for the events of one bus."""

    def __init__(self, provider: TracerProvider) -> None:
        """Needs OpenTelemetry's API."""
        from opentelemetry import context, trace  # noqa: PLC0415 - not everywhere

        self._trace = trace
        self._context = context
        self._tracer = provider.get_tracer("wowevent")

    # --- publish ------------------------------------------------------------------------------------------------

    @contextmanager
    def published(self, events: Sequence[Event]) -> Iterator[Sequence[Event]]:
        """A span around what publishes these events, and the events with its context to be published instead.

        An event whose `traceparent` was given by its maker keeps that; the span then links to it.
        """
        if not events:
            yield events
            return
        given = [_given(event) for event in events]
        links = [self._link(found, event) for event, found in zip(events, given, strict=True) if found is not None]
        kind = self._trace.SpanKind.CLIENT if len(links) == len(events) else self._trace.SpanKind.PRODUCER
        parent = self._context.get_current()
        if not self._trace.get_current_span().get_span_context().is_valid:
            parent = self._after(_followed(events, given), parent)
        with self._span(kind, _attributes("send", events, many=len(events) > 1), parent, links) as span:
            yield [event if found else _stamped(event, span) for event, found in zip(events, given, strict=True)]

    # --- handle -------------------------------------------------------------------------------------------------

    def traced(self, handler: Handler, subscription: str, *, batch: bool = False) -> Handler:
        """The handler with a span around each call: child of its event's, or linked to those of a batch."""
        group = {"messaging.consumer.group.name": subscription}
        kind = self._trace.SpanKind.CONSUMER

        async def handle(given: Any) -> Any:
            events: Sequence[Event] = given if batch else (given,)
            found = [parse(event.traceparent) for event in events]
            links = [self._link(each, event) for event, each in zip(events, found, strict=True) if batch and each]
            # Not the context of this task: that is from wherever the subscription was made.
            parent = self._after(None if batch else found[0], self._context.Context())
            attributes = _attributes("process", events, many=batch) | group
            if (delivery := current()) is not None:
                attributes["wowevent.attempt"] = delivery.attempt
            with self._span(kind, attributes, parent, links):
                return await handler(given)

        return handle

    # --- spans --------------------------------------------------------------------------------------------------

    @contextmanager
    def _span(
        self, kind: SpanKind, attributes: dict[str, Any], parent: Context, links: Sequence[Link]
    ) -> Iterator[Span]:
        """A span that is current in the body, and says how that ended."""
        words = (attributes["messaging.operation.name"], attributes.get("messaging.destination.name", ""))
        span = self._tracer.start_span(" ".join(words).strip(), parent, kind, attributes, links)
        token = self._context.attach(self._trace.set_span_in_context(span, parent))
        try:
            yield span
        except RetryAfter as later:
            span.set_attribute("wowevent.retry_after", later.seconds)
            raise
        except PauseSubscription as halt:
            span.set_attribute("wowevent.paused", str(halt.until))
            raise
        except BaseException as error:
            self._failed(span, error)
            raise
        finally:
            self._context.detach(token)
            span.end()

    def _failed(self, span: Span, error: BaseException) -> None:
        module, name = type(error).__module__, type(error).__qualname__
        kind = name if module == "builtins" else f"{module}.{name}"
        said = printable(str(error))
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, f"{name}: {said}" if said else name))
        # The cause of ours is what a model said of the payload, and holds parts of it.
        lines = traceback.format_exception(error, chain=not isinstance(error, ValidationError))
        details = {"type": kind, "message": said, "stacktrace": printable("".join(lines))}
        span.add_event("exception", {f"exception.{key}": value for key, value in details.items()})

    def _after(self, before: TraceContext | None, context: Context) -> Context:
        """A context in which that span, of another process perhaps, is the current one."""
        if before is None:
            return context
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(self._remote(before)), context)

    def _link(self, before: TraceContext, event: Event) -> Link:
        return self._trace.Link(self._remote(before), {"messaging.message.id": event.event_id})

    def _remote(self, before: TraceContext) -> SpanContext:
        flags = self._trace.TraceFlags(before.flags)
        ids = int(before.trace_id, 16), int(before.span_id, 16)
        return self._trace.SpanContext(*ids, is_remote=True, trace_flags=flags)


def _given(event: Event) -> TraceContext | None:
    """What its maker said it follows from; None if that was only inherited, or says nothing."""
    delivery = current()
    if delivery is not None and event.traceparent == delivery.event.traceparent:
        return None
    return parse(event.traceparent)


def _followed(events: Sequence[Event], given: Sequence[TraceContext | None]) -> TraceContext | None:
    """What a span follows from where no other is current: what its event does, or the delivery that is handled."""
    if len(events) == 1 and given[0] is not None:
        return given[0]
    delivery = current()
    return None if delivery is None or delivery.replayed else parse(delivery.event.traceparent)


def _stamped(event: Event, span: Span) -> Event:
    """The event as one that follows from the span."""
    own = span.get_span_context()
    if not own.is_valid:
        return event
    made = TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags)
    return structs.replace(event, traceparent=made.traceparent, trace_id=event.trace_id or made.trace_id)


def _attributes(operation: str, events: Sequence[Event], *, many: bool) -> dict[str, Any]:
    """What the conventions want to be known: of the one event, or what several have in common."""
    found: dict[str, Any] = {
        "messaging.system": "wowevent",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    topics = {event.topic for event in events}
    if len(topics) == 1:
        found["messaging.destination.name"] = topics.pop()
    if many:
        found["messaging.batch.message_count"] = len(events)
    else:
        found["messaging.message.id"] = events[0].event_id
        found["messaging.message.conversation_id"] = events[0].correlation_id
    return found
