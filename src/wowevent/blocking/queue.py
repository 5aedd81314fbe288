"""What a user says of a queue, and what it means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from wowevent.blocking.line import DEAD
from wowevent.broker import Subscription
from wowevent.consumer import Options
from wowevent.errors import InvalidEvent, InvalidTopic
from wowevent.event import check_name, checked
from wowevent.handler import adapt, is_async
from wowevent.retry import RetryPolicy
from wowevent.topic import check_pattern


class Queue(Struct, frozen=True):
    """One queue as `subscribe` was told."""

    name: str
    spec: Subscription | None
    """What the engine is told; None for `dlq.…`, of which it is told nothing."""
    callback: Callable[..., Any]
    options: Options

    def handled_as(self, other: Queue) -> bool:
        """Whether both handle what they get in the same way."""
        return self.callback == other.callback and self.options == other.options


def declared(
    name: str,
    patterns: Sequence[str] | str,
    callback: Callable[..., Any] | None,
    *,
    auto_ack: bool,
    dead_letters: bool,
    ttl: int | None,
    policy: RetryPolicy,
    prefetch: int,
) -> Queue:
    """A queue, checked; `ttl` in milliseconds. Raises InvalidEvent, InvalidTopic, ValueError, TypeError."""
    name = checked(check_name, name)
    is_view = name.startswith(DEAD)
    if is_view and ttl is not None:
        raise ValueError("message_ttl_ms: dead letters are kept until they are discarded")
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int) or ttl <= 0):
        raise ValueError(f"message_ttl_ms: {ttl!r:.40} is not a whole number of milliseconds above 0")
    options = Options(
        policy=policy,
        auto_ack=auto_ack,
        dead_letters=dead_letters,
        max_age=None if ttl is None else ttl / 1000,
        prefetch=prefetch,
    )
    spec = None if is_view else Subscription(id=name, patterns=_patterns(name, patterns), keyed=True)
    if name == DEAD:
        raise InvalidEvent(f"{name!r} names no queue: {DEAD}{{queue}}")
    return Queue(name, spec, _plain(callback), options)


def _patterns(name: str, given: Sequence[str] | str) -> tuple[str, ...]:
    patterns = [given] if isinstance(given, str) else list(given)
    if not patterns:
        raise InvalidTopic(f"queue {name!r} needs a routing pattern; '#' is every event")
    return tuple(dict.fromkeys(checked(check_pattern, pattern) for pattern in patterns))


def _plain(callback: Callable[..., Any] | None) -> Callable[..., Any]:
    """The callback itself; TypeError for one that cannot be called in a thread with an event."""
    if callback is None:
        raise TypeError("a queue needs a callback")
    adapt(callback)
    if is_async(callback):
        raise TypeError("a callback of the blocking bus is a plain function; async ones are for wowevent.EventBus")
    return callback
