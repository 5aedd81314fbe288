"""What a user says of a subscription, and what it means: declaration, options, identity, handle."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from wowevent.breaker import BreakerPolicy
from wowevent.broker import Filter, Position, Subscription
from wowevent.consumer import Consumer, Options
from wowevent.errors import InvalidTopic
from wowevent.event import Event, check_name, utc
from wowevent.id import new_id
from wowevent.priority import BANDS, band, priority_level
from wowevent.retry import RetryPolicy, parse_rate
from wowevent.tally import Tally
from wowevent.topic import check_pattern

_LONGEST = 200  # characters of an identity made of agent and patterns; a longer one is hashed


class Wish(Struct, frozen=True, kw_only=True):
    """The settings of `EventBus.subscribe`, which says what they mean."""

    subscription: str | None = None
    durable: bool | None = None
    start: Literal["new", "first"] | datetime | Position = "new"
    types: Iterable[str] | None = None
    priorities: Iterable[int | str] | None = None
    min_priority: int | str | None = None
    sources: Iterable[str] | None = None
    retry: RetryPolicy | None = None
    concurrency: int = 1
    order_by: str | Callable[[Event], Any] | None = None
    rate: str | float | None = None
    timeout: float | None = None
    lease: float = 30.0
    auto_ack: bool = False
    batch: int | None = None
    breaker: BreakerPolicy | bool | None = None


def declaration(pattern: str | Sequence[str], agent: str | None, wish: Wish) -> Subscription:
    """What the engine is told; InvalidTopic, InvalidEvent or ValueError for what makes no sense."""
    patterns = tuple(dict.fromkeys(check_pattern(p) for p in ([pattern] if isinstance(pattern, str) else pattern)))
    if not patterns:
        raise InvalidTopic("a subscription needs a pattern")
    named = agent is not None or wish.subscription is not None
    durable = named if wish.durable is None else wish.durable
    if durable and not named:
        raise ValueError("a subscription that is remembered needs a name: subscriber_agent or subscription")
    return Subscription(
        id=identity(patterns, agent, wish.subscription) if durable else f"live~{new_id()}",
        patterns=patterns,
        agent="" if agent is None else check_name(agent),
        filter=_filter(wish),
        durable=durable,
        exclusive=wish.order_by is not None and durable,
        start=utc(wish.start, "start") if isinstance(wish.start, datetime) else wish.start,
        lease=_positive("lease", wish.lease),
    )


def options(wish: Wish, *, durable: bool) -> Options:
    """How the consumer works; ValueError for what makes no sense."""
    if wish.batch is not None and wish.order_by is not None:
        raise ValueError("batch and order_by exclude each other: a list of many events, or one of each key")
    return Options(
        policy=wish.retry or (RetryPolicy() if durable else None),
        concurrency=_whole("concurrency", wish.concurrency),
        order_by=_key(wish.order_by),
        rate=None if wish.rate is None else parse_rate(wish.rate),
        timeout=None if wish.timeout is None else _positive("timeout", wish.timeout),
        lease=wish.lease,
        auto_ack=wish.auto_ack or (not durable and wish.retry is None),
        batch=None if wish.batch is None else _whole("batch", wish.batch),
        breaker=_breaker(wish.breaker) if durable and not wish.auto_ack else None,
        dead_letters=durable,
    )


def identity(patterns: Sequence[str], agent: str | None, given: str | None) -> str:
    """Given, or the agent with its sorted patterns, so that one agent may have several."""
    if given is not None:
        return check_name(given)
    text = f"{agent}~{','.join(sorted(patterns))}"
    return text if len(text) <= _LONGEST else f"{agent}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _filter(wish: Wish) -> Filter | None:
    """The engine's filter; None where nothing is wished."""
    levels: frozenset[int] | None = None
    if wish.priorities is not None:
        levels = frozenset(level for p in wish.priorities for level in BANDS[band(priority_level(p))])
    if wish.min_priority is not None:
        least = frozenset(range(priority_level(wish.min_priority), 11))
        levels = least if levels is None else least & levels
    if wish.types is None and levels is None and wish.sources is None:
        return None
    return Filter(
        types=None if wish.types is None else frozenset(str(t) for t in wish.types),
        priorities=levels,
        sources=None if wish.sources is None else frozenset(check_name(s) for s in wish.sources),
    )


def _key(order_by: str | Callable[[Event], Any] | None) -> Callable[[Event], Any] | None:
    """The key of an event: a field of it, one of its payload's (`payload.user`), or what a function says."""
    if order_by is None or callable(order_by):
        return order_by
    if order_by.startswith("payload."):
        name = order_by.removeprefix("payload.")
        return lambda event: msgspec.json.encode(event.payload.get(name))
    if not hasattr(Event, order_by):
        raise ValueError(f"order_by: an event has no field {order_by!r}; payload.{order_by} is one of its payload's")
    return lambda event: getattr(event, order_by)


def _breaker(given: BreakerPolicy | bool | None) -> BreakerPolicy | None:
    if isinstance(given, BreakerPolicy):
        return given
    return None if given is False else BreakerPolicy()


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{name}: {value!r} is not a number of seconds above 0")
    return value


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} is not a whole number from 1 on")
    return value


class Handle:
    """One subscription of a bus, as `subscribe` returns it."""

    def __init__(
        self,
        spec: Subscription,
        handler: Callable[..., Any],
        consumer: Consumer,
        tally: Tally,
        cancel: Callable[[], Awaitable[None]],
    ) -> None:
        self.spec = spec
        """What the engine was told."""
        self.handler = handler
        """What the user gave."""
        self.consumer = consumer
        """What serves it."""
        self.tally: Tally = tally
        """What its deliveries tell."""
        self._cancel = cancel

    @property
    def active(self) -> bool:
        """Whether its handler gets events now."""
        return self.consumer.serving

    @property
    def state(self) -> str:
        """healthy, degraded, slowed, paused (by hand or by its breaker) or probing: how its events may come here."""
        return self.tally.valve.state

    @property
    def subscription_id(self) -> str:
        """Its identity: given, or made of the agent and the patterns."""
        return self.spec.id

    @property
    def subscriber_agent(self) -> str | None:
        """The agent that it serves, if it has a name."""
        return self.spec.agent or None

    @property
    def pattern(self) -> str | tuple[str, ...]:
        """The pattern, or the patterns if there are several."""
        return self.spec.patterns[0] if len(self.spec.patterns) == 1 else self.spec.patterns

    async def cancel(self) -> None:
        """Detach: the handler gets nothing more. What the engine remembers stays; `bus.remove` forgets it."""
        await self._cancel()

    def __repr__(self) -> str:
        """Which one, and whether it is served."""
        return f"<Subscription {self.spec.id!r} {'active' if self.active else 'inactive'}>"
