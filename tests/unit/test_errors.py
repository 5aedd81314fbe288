"""The exception tree: stable codes, what may be retried, and what a handler may say."""

import copy
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from wowevent import errors
from wowevent.errors import (
    BrokerError,
    BusError,
    InvalidEvent,
    PauseSubscription,
    PositionLost,
    ProtocolError,
    Reject,
    RequestTimeout,
    RetryAfter,
    SchemaConflict,
    ValidationError,
    shown,
)


def tree(root: type[BusError] = BusError) -> Iterator[type[BusError]]:
    yield root
    for branch in root.__subclasses__():
        yield from tree(branch)


CODES = {
    "bus_error",
    "invalid_event",
    "invalid_topic",
    "invalid_schedule",
    "validation_error",
    "payload_too_large",
    "broker_error",
    "broker_unavailable",
    "subscription_not_found",
    "subscription_conflict",
    "position_lost",
    "storage_full",
    "storage_damaged",
    "format_too_new",
    "unroutable",
    "no_responders",
    "request_failed",
    "request_timeout",
    "outbox_full",
    "schema_not_found",
    "schema_conflict",
    "conversation_not_found",
    "dead_letter_not_found",
    "schedule_not_found",
    "not_permitted",
    "rate_limited",
    "unauthenticated",
    "not_supported",
    "closed",
    "protocol_error",
}


def test_codes_are_stable_and_unique():
    ours = [error for error in tree() if error.__module__ == errors.__name__]
    assert {error.code for error in ours} == CODES
    assert len(ours) == len(CODES)


def test_what_the_same_call_can_survive_is_retryable_and_nothing_else_is():
    retryable = {error.code for error in tree() if error.retryable}
    assert retryable == {"broker_unavailable", "storage_full", "request_timeout", "outbox_full", "rate_limited"}


@pytest.mark.parametrize("name", ["InvalidTopic", "ValidationError", "PayloadTooLarge"])
def test_the_callers_faults_are_invalid_events(name: str):
    assert issubclass(getattr(errors, name), InvalidEvent)


@pytest.mark.parametrize(
    "name",
    [
        "BrokerUnavailable",
        "SubscriptionNotFound",
        "SubscriptionConflict",
        "PositionLost",
        "StorageFull",
        "StorageDamaged",
        "FormatTooNew",
    ],
)
def test_the_engines_troubles_are_broker_errors(name: str):
    assert issubclass(getattr(errors, name), BrokerError)


def test_a_request_that_timed_out_is_a_timeout_for_those_who_know_only_python():
    with pytest.raises(TimeoutError, match="no reply"):
        raise RequestTimeout("no reply within 5 s")


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (ValidationError("no"), "errors", ()),
        (ValidationError("no", ("a: missing", "b: not text")), "errors", ("a: missing", "b: not text")),
        (
            SchemaConflict("no", ("payload.a: required was no, is yes",)),
            "errors",
            ("payload.a: required was no, is yes",),
        ),
        (PositionLost("gone"), "lost", None),
        (PositionLost("gone", 7), "lost", 7),
        (ProtocolError("what?"), "fatal", False),
        (ProtocolError("what?", fatal=True), "fatal", True),
        (Reject(), "args", ("rejected by the handler",)),
        (Reject("no such user"), "args", ("no such user",)),
        (RetryAfter(5), "seconds", 5.0),
        (PauseSubscription(5, "quota"), "reason", "quota"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_carries_its_facts_through_copies_and_processes(error: Exception, attribute: str, value: object):
    for one in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert getattr(one, attribute) == value
        assert str(one) == str(error)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (5, 5.0),
        (0.25, 0.25),
        (-1, 0.0),
        (float("nan"), 0.0),
        (86_400, 86_400.0),
        (10**9, 86_400.0),
        (float("inf"), 86_400.0),
    ],
)
def test_retry_after_lies_between_now_and_a_day(asked: float, seconds: float):
    assert RetryAfter(asked).seconds == seconds
    assert str(RetryAfter(asked)) == f"retry after {seconds:g} s"


@pytest.mark.parametrize(
    ("until", "seconds"),
    [
        (5, 5.0),
        (-1, 0.0),
        (float("nan"), 0.0),
        (float("inf"), 31 * 86_400.0),
        (datetime(2026, 1, 1, 0, 1, tzinfo=UTC), 60.0),
        (datetime(2026, 1, 1, 0, 1), 60.0),  # noqa: DTZ001 - naive is UTC
        (datetime(2026, 1, 1, 2, 1, tzinfo=timezone(timedelta(hours=2))), 60.0),
        (datetime(2025, 1, 1, tzinfo=UTC), 0.0),
        (datetime(2999, 1, 1, tzinfo=UTC), 31 * 86_400.0),
    ],
)
def test_a_pause_that_a_handler_asks_for_lies_between_now_and_a_month(until: datetime | float, seconds: float):
    assert PauseSubscription(until).seconds(1767225600.0) == seconds


def test_a_pause_that_a_handler_asks_for_says_why():
    assert str(PauseSubscription(5, "quota")) == "pause the subscription: 5 s, quota"
    assert (
        str(PauseSubscription(datetime(2026, 1, 1, tzinfo=UTC))) == "pause the subscription: 2026-01-01T00:00:00+00:00"
    )


@pytest.mark.parametrize("verdict", [Reject, RetryAfter, PauseSubscription])
def test_a_handlers_verdict_is_not_an_error_of_the_bus(verdict: type[Exception]):
    assert not issubclass(verdict, BusError)


def deep(levels: int) -> list[object]:
    nested: list[object] = []
    for _ in range(levels):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("task", "'task'"),
        ("a\r\nSet-Cookie: b\0", r"'a\r\nSet-Cookie: b\x00'"),
        ("x" * 10_000, "'" + "x" * 79),
        (10**5000, "a int that cannot be shown"),
        (deep(100_000), "a list that cannot be shown"),
    ],
    ids=["text", "control characters", "long", "5,000 digits", "100,000 levels"],
)
def test_any_value_can_be_shown_on_one_short_line(value: object, text: str):
    assert shown(value) == text
