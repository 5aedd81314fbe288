"""The whole exception tree, on one screen.

    BusError                       code, retryable
    ├─ InvalidEvent ── InvalidTopic, ValidationError, PayloadTooLarge, InvalidSchedule
    │                 the caller's fault, never retried
    ├─ BrokerError ── BrokerUnavailable (retryable), SubscriptionNotFound, SubscriptionConflict,
    │                 PositionLost, StorageFull, StorageDamaged, FormatTooNew
    ├─ ConversationNotFound · DeadLetterNotFound
    ├─ Unroutable · NoResponders · RequestFailed · RequestTimeout (also a TimeoutError) · OutboxFull
    ├─ SchemaNotFound · SchemaConflict · ScheduleNotFound
    ├─ NotPermitted ── Unauthenticated
    ├─ NotSupported · Closed · RateLimited
    └─ ProtocolError
    Handlers raise: Reject(reason), RetryAfter(seconds), PauseSubscription(until)

`code` is stable: it is the error's name on the wire, in HTTP answers, in metrics and behind a command's exit status.
`retryable` says whether the same call can succeed later without a change by the caller.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Final

_LONGEST_WAIT: Final = 86_400.0  # 24 h
_LONGEST_PAUSE: Final = 31 * 86_400.0


class BusError(Exception):
    """Anything that WowEvent raises on purpose."""

    code: ClassVar[str] = "bus_error"
    retryable: ClassVar[bool] = False


class InvalidEvent(BusError):
    """The event, or a name in it, is not one that the bus carries; nothing was stored."""

    code = "invalid_event"


class InvalidTopic(InvalidEvent):
    """A topic or pattern outside the grammar of `wowevent.topic`."""

    code = "invalid_topic"


class ValidationError(InvalidEvent):
    """A payload that does not fit its schema or payload model; `errors` names every wrong field."""

    code = "validation_error"

    def __init__(self, message: str, errors: tuple[str, ...] = ()) -> None:
        """`errors` holds one line for each wrong field."""
        super().__init__(message)
        self.errors = errors


class PayloadTooLarge(InvalidEvent):
    """The payload has more bytes than the bus accepts (256 KiB unless configured)."""

    code = "payload_too_large"


class InvalidSchedule(InvalidEvent):
    """A schedule that says not, or not clearly, when to fire; nothing was stored."""

    code = "invalid_schedule"


class BrokerError(BusError):
    """The engine below refused or failed; the driver's own exception is the cause."""

    code = "broker_error"


class BrokerUnavailable(BrokerError):
    """The engine does not answer now. Publishing again with the same event id is safe."""

    code = "broker_unavailable"
    retryable = True


class SubscriptionNotFound(BrokerError):
    """No subscription of that identity is remembered."""

    code = "subscription_not_found"


class SubscriptionConflict(BrokerError):
    """The same identity is served in this process by another handler or with settings that cannot both hold."""

    code = "subscription_conflict"


class PositionLost(BrokerError):
    """Events that a reader or subscription had not seen are gone from the log."""

    code = "position_lost"

    def __init__(self, message: str, lost: int | None = None) -> None:
        """`lost` is how many events are gone, where the engine knows."""
        super().__init__(message)
        self.lost = lost


class StorageFull(BrokerError):
    """The engine has no room: nothing of this call was stored, reading and acknowledging go on."""

    code = "storage_full"
    retryable = True


class StorageDamaged(BrokerError):
    """The stored bytes are not what was written; they are never served as if they were."""

    code = "storage_damaged"


class FormatTooNew(BrokerError):
    """The log, or an event in it, was written by a newer version of WowEvent."""

    code = "format_too_new"


class ConversationNotFound(BusError):
    """No event and no dead letter that is there has this id, or this correlation id."""

    code = "conversation_not_found"


class DeadLetterNotFound(BusError):
    """There is no dead letter of this id, or none any more."""

    code = "dead_letter_not_found"


class Unroutable(BusError):
    """`require_match=True`, and no subscription is known to match; nothing was stored."""

    code = "unroutable"


class NoResponders(BusError):
    """Nobody who is there now would get this request."""

    code = "no_responders"


class RequestFailed(BusError):
    """The responder failed for the last time; the message is its error."""

    code = "request_failed"


class RequestTimeout(BusError, TimeoutError):
    """No reply came within the request's timeout."""

    code = "request_timeout"
    retryable = True


class OutboxFull(BusError):
    """A bounded outbox has no room for one more; nothing was taken."""

    code = "outbox_full"
    retryable = True


class SchemaNotFound(BusError):
    """No schema of that event type and version is registered."""

    code = "schema_not_found"


class SchemaConflict(BusError):
    """That version is registered with another schema, or its schema would refuse what an older version accepts."""

    code = "schema_conflict"

    def __init__(self, message: str, errors: tuple[str, ...] = ()) -> None:
        """`errors` holds one line for each break."""
        super().__init__(message)
        self.errors = errors


class ScheduleNotFound(BusError):
    """No schedule of that name is known."""

    code = "schedule_not_found"


class NotPermitted(BusError):
    """The caller's rights do not cover this."""

    code = "not_permitted"


class Unauthenticated(NotPermitted):
    """Nobody is known by this token, or there was none."""

    code = "unauthenticated"

    def __init__(self, message: str, reason: str = "") -> None:
        """`reason` is for our log: who asks is not told what is wrong with a token."""
        super().__init__(message)
        self.reason = reason


class NotSupported(BusError):
    """This engine declares that it cannot do that (see its capabilities)."""

    code = "not_supported"


class RateLimited(BusError):
    """More than this token may do in a while; nothing of the call was done."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        """`retry_after` is how many seconds to wait."""
        super().__init__(message)
        self.retry_after = retry_after


class Closed(BusError):
    """The bus was stopped, or not started yet."""

    code = "closed"


class ProtocolError(BusError):
    """A frame that the router does not understand; `fatal` says whether the connection ends."""

    code = "protocol_error"

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        """`fatal=False` keeps the connection."""
        super().__init__(message)
        self.fatal = fatal


class Reject(Exception):
    """Raised by a handler: this event will never succeed, put it with the dead letters now."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        """`reason` is kept with the dead letter."""
        super().__init__(reason)


class RetryAfter(Exception):
    """Raised by a handler: deliver this again in `seconds`, and charge no attempt (24 h at most)."""

    def __init__(self, seconds: float) -> None:
        """`seconds` from now; more than 24 h is taken as 24 h."""
        super().__init__(seconds)
        self.seconds: float = _bounded(float(seconds), _LONGEST_WAIT)

    def __str__(self) -> str:
        return f"retry after {self.seconds:g} s"


class PauseSubscription(Exception):
    """Raised by a handler: this event goes back uncharged, and nothing of the subscription comes until then.

    In any process; it goes on by itself, or when somebody resumes it. Other subscriptions are not touched. A live
    subscription, for which nothing is kept, pauses in this process alone.
    """

    def __init__(self, until: datetime | float, reason: str = "") -> None:
        """`until` is a time (naive is UTC) or seconds from now, 31 days at most; `reason` is shown with the pause."""
        super().__init__(until, reason)
        self.until: datetime | float = until if isinstance(until, datetime) else float(until)
        self.reason: str = reason

    def seconds(self, now: float) -> float:
        """How long that is from `now`, in Unix seconds; 0 for a time that is past."""
        if isinstance(self.until, datetime):
            aware = self.until if self.until.tzinfo is not None else self.until.replace(tzinfo=UTC)
            return _bounded(aware.timestamp() - now, _LONGEST_PAUSE)
        return _bounded(self.until, _LONGEST_PAUSE)

    def __str__(self) -> str:
        until = f"{self.until:g} s" if isinstance(self.until, float) else self.until.isoformat()
        return f"pause the subscription: {until}{f', {self.reason}' if self.reason else ''}"


def _bounded(seconds: float, most: float) -> float:
    return min(max(0.0, seconds), most)  # in this order NaN is 0


def printable(text: str) -> str:
    """The text without what UTF-8 cannot say: an error's message may hold a lone surrogate."""
    return text.encode("utf-8", "backslashreplace").decode()


def plain(text: str) -> str:
    """The text on one line, without what a terminal or a log would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, length: int = 80) -> str:
    """A stranger's value in an error message: escaped and short, whatever it is."""
    try:
        return repr(value)[:length]
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list of 100,000 levels
        return f"a {type(value).__name__} that cannot be shown"
