"""The Broker protocol, and the values that cross it; no code.

A broker is one engine seen as one log with many cursors, within one namespace. Above it nothing knows which engine it
is; below it nothing knows of handlers. Batches go in and batches come out. Drivers never retry: the layer above does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, Protocol

from msgspec import Struct

from wowevent.event import Event
from wowevent.finding import Check, Look

URGENT: Final = 7
"""The lowest priority that overtakes (obligation 7)."""
URGENT_RUN: Final = 8
"""So many urgent ones, then one other, so that urgent traffic starves nothing."""
KNOWN_SECONDS: Final = 120.0
"""For so long at least an id is known (obligation 4),"""
KNOWN_IDS: Final = 10_000
"""and so many of the last ones."""
LIVE: Final = "_reply."
"""How the topics begin that go by the live path (obligation 10)."""
CONTROL: Final = "_bus."
"""How the topics begin that carry facts (obligation 11)."""


class Capabilities(Struct, frozen=True, kw_only=True):
    """What an engine declares of itself; a call that it cannot serve raises NotSupported."""

    name: str
    """The engine's own name, the key in health answers: memory, sqlite, redis, rabbitmq, nats."""
    durable: bool
    """What was published survives the process. Else it is gone with it."""
    shared: bool
    """Other processes can use the same log. Else several workers are refused."""
    promise: str
    """One sentence: what is lost, and when, with the settings in force."""
    private: bool = False
    """No other instance can use this log either: nothing in it changes but through this one. Else each looks once a
    second for what others changed."""
    positions: bool = True
    """Receipts and leases name positions, which count the events. Else only what is read has some, and between them may
    be such that no event has."""
    dedup: bool = True
    """An id is stored once, whoever publishes it. Else each instance stores its own ones once, and drops at a fetch
    what it settled before."""
    exact: bool = True
    """`leased`, `delayed`, `oldest` and `lost` are known. Else they may be None."""
    lasting_leases: bool = True
    """A lease outlives the instance that holds it. Else it ends with that one's connection, as a crash."""
    matches: bool = True
    """`matched` is what the engine found when it stored. Else it is what the publisher knew, perhaps a moment ago."""
    rounds: int = 1
    """So many calls of `publish` are best under way at a time: more than one where confirms come one by one."""
    bounds_unread: bool = True
    """The limits by bytes and count look at what is unread, too. Else they hold for the history alone."""


class Retention(Struct, frozen=True, kw_only=True):
    """How long a log keeps its events. None is no limit."""

    max_age: float | None = None
    """Seconds. Hard: unread events go too, and their subscriptions are told (PositionLost)."""
    max_bytes: int | None = None
    """Bytes of stored events. Hard, as age is."""
    max_count: int | None = None
    """Events. Soft: only what every subscription has left behind goes."""
    unserved_after: float = 7 * 86_400.0
    """Seconds after which a subscription that nobody served lapses: its backlog goes, and it is told."""


class Position(Struct, frozen=True, order=True, gc=False):
    """A place in one log: `offset` counts from 1, `epoch` names the log, so that a recreated one is noticed."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        """`{epoch}-{offset}`, which `Position.parse` reads."""
        return f"{self.epoch}-{self.offset}"

    def covers(self, other: Position) -> bool:
        """Whether `other` lies in the same log, and not behind this. Of two logs, nothing can be said."""
        return self.epoch == other.epoch and other.offset <= self.offset

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position of its text; ValueError if it is none."""
        epoch, _, offset = text.rpartition("-")
        if not epoch:
            raise ValueError(f"{text!r:.80} is not a position")
        if not (offset.isascii() and offset.isdigit()):  # int() would take blanks, underscores and signs
            raise ValueError(f"{text!r:.80} is not a position")
        return cls(epoch, int(offset))


class Appended(Struct, frozen=True, gc=False):
    """What became of one published event."""

    position: Position | None
    """None for one that is held until its `not_before`, and where a confirm carries no place."""
    duplicate: bool = False
    """Its id was stored before; nothing was added."""
    matched: tuple[str, ...] = ()
    """The ids of the known subscriptions, live ones included, that it goes to."""


class Filter(Struct, frozen=True, kw_only=True):
    """What a subscription wants of the topics it matches; None is no wish."""

    types: frozenset[str] | None = None
    priorities: frozenset[int] | None = None
    sources: frozenset[str] | None = None


class Subscription(Struct, frozen=True, kw_only=True):
    """A declaration. The newest one of an id holds for what is published from then on."""

    id: str
    patterns: tuple[str, ...]
    agent: str = ""
    """The subscriber; an event with a target goes only to subscriptions of that agent."""
    filter: Filter | None = None
    durable: bool = True
    """False: only the presence of a live reader, so that others know of it; nothing is kept for it."""
    exclusive: bool = False
    """One broker instance at a time may hold leases, and lanes are off: for `order_by`."""
    keyed: bool = False
    """Patterns are AMQP style and match the routing key (and the topic alone where it differs from the type)."""
    start: Literal["new", "first"] | datetime | Position = "new"
    """Where a new subscription begins; without meaning for one that exists."""
    lease: float = 30.0
    """Seconds for which a fetched event is this instance's alone."""


class SubscriptionInfo(Struct, frozen=True, kw_only=True):
    """One subscription as the engine sees it now."""

    subscription: Subscription
    ready: int = 0
    """Events that wait to be handed out."""
    leased: int | None = 0
    """Events that are out; None, here and below, where the engine cannot tell."""
    delayed: int | None = 0
    """Events that wait for their moment: a retry's, or their own."""
    dead: int = 0
    """Its dead letters."""
    consumers: int = 0
    """Broker instances that fetch from it, or read live for it."""
    oldest: float | None = None
    """Seconds since the oldest unsettled event was stored."""
    lost: int | None = 0
    """Unread events that were dropped and not yet reported by PositionLost."""
    lapsed: bool = False
    """Unserved for too long: nothing is kept for it until it is fetched from again."""


class Present(Struct, frozen=True, gc=False):
    """One subscription, and who is there for it; no numbers."""

    subscription: Subscription
    consumers: int
    """As in SubscriptionInfo."""


class Attempt(Struct, frozen=True, gc=False):
    """One failed attempt at one event: its number from 1, when it ended (Unix seconds), and why."""

    number: int
    time: float
    error: str


class Lease(Struct, frozen=True, kw_only=True, gc=False):
    """One event, ours until the lease ends."""

    event: Event
    token: str
    """Names the event's place *and* this attempt at it."""
    position: Position | None
    """None where the engine's queues do not know it."""
    failures: int = 0
    crashes: int = 0
    attempts: tuple[Attempt, ...] = ()
    redelivered: bool = False
    """Sent again from the dead letters."""


class Ack(Struct, frozen=True, gc=False):
    """Done: the event leaves the subscription."""

    token: str


class Retry(Struct, frozen=True, gc=False):
    """Deliver again in `delay` seconds. `charge=False` gives it back as it was: no failure is counted."""

    token: str
    delay: float = 0.0
    error: str = ""
    charge: bool = True


class Extend(Struct, frozen=True, gc=False):
    """Keep the lease for `seconds` from now. With an error, a failure is counted and the lease stays."""

    token: str
    seconds: float
    error: str | None = None


class Reason(StrEnum):
    """Why an event became a dead letter."""

    HANDLER_ERROR = "handler_error"
    TIMEOUT = "timeout"
    VALIDATION_ERROR = "validation_error"
    SUBSCRIBER_UNAVAILABLE = "subscriber_unavailable"
    DESERIALIZATION_ERROR = "deserialization_error"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    CRASHED = "crashed"
    LOOP_DETECTED = "loop_detected"


class Bury(Struct, frozen=True):
    """Put it with the dead letters. A last attempt that failed is given by `error`; None adds no attempt."""

    token: str
    reason: Reason
    error: str | None = None
    traceback: str = ""


Settlement = Ack | Retry | Extend | Bury


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One event that one subscription could not handle."""

    id: str
    """The letter's own, in its log."""
    event: Event
    """As it was published."""
    subscription: str
    """The id of the one that could not handle it."""
    reason: Reason
    error: str
    """The last attempt's, as "Class: message"."""
    traceback: str
    """The last attempt's; "" where there is none."""
    attempts: tuple[Attempt, ...]
    """Those that failed, the first one first."""
    time: float
    """When it was buried, Unix seconds."""


class DeadQuery(Struct, frozen=True, kw_only=True):
    """Which dead letters, oldest first; None is any."""

    ids: tuple[str, ...] | None = None
    subscription: str | None = None
    reason: Reason | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    limit: int = 100


class Redeliver(Struct, frozen=True):
    """Hand a dead letter to its subscription again, with fresh counts, as one that was redelivered."""

    id: str


class Discard(Struct, frozen=True):
    """Forget a dead letter."""

    id: str


class Query(Struct, frozen=True, kw_only=True):
    """Which events of the log; None is any. Times are those of the events, ends included."""

    patterns: tuple[str, ...] = ("#",)
    start_time: datetime | None = None
    end_time: datetime | None = None
    correlation_id: str | None = None
    event_ids: tuple[str, ...] | None = None
    limit: int | None = None
    conversation: str | None = None
    """An id: the event of that id, and those of that correlation id."""
    since: float | None = None
    """What was stored before this moment (Unix seconds) is not wanted. An engine that looks through its log begins
    there, by whichever clock it has for that; what lies a little before may come all the same. Only for a read without
    `follow` and `after`."""
    upto: Position | None = None
    """What lies behind this place of the log is not wanted, and not looked at: a read that finds nothing ends there.
    Only for a read without `follow`, and not of facts."""


class Stored(Struct, frozen=True, gc=False):
    """One event of the log."""

    event: Event
    position: Position
    stored_at: float
    """Unix seconds, by the engine's clock; never decreasing along the log."""


class Ping(Struct, frozen=True):
    """That the engine answers: after how many seconds, and where its log ends now."""

    latency: float
    head: Position


class Examination(Struct, frozen=True):
    """What can be looked at of an engine that was reached, from outside: nothing is made or changed by that."""

    looks: Mapping[Check, Look]
    subscriptions: Callable[[], Awaitable[Sequence[SubscriptionInfo] | None]]
    """All that are remembered, as far as can be told from outside; None where there is no log yet."""


class Iteration(Protocol):
    """Events of a log, one after the other. Who does not come to their end closes it: `async with aclosing(…)`."""

    def __aiter__(self) -> AsyncIterator[Stored]:
        """Itself."""
        ...

    def __anext__(self) -> Awaitable[Stored]:
        """The next one; StopAsyncIteration where there are no more."""
        ...

    def aclose(self) -> Awaitable[None]:
        """Read no more."""
        ...


class Broker(Protocol):
    """One engine, with these obligations, which the conformance suite proves of every one.

    1. A token names position and attempt: settling with the token of a lease that ended settles nothing.
    2. Failures (the handler raised or timed out) and crashes (a lease ended unsettled) are counted apart, and both are
       kept. A lease with crashes > 0 is a suspect: a fetch that returns one returns nothing else.
    3. Trouble of the engine is raised as BrokerError, retryable where it is, and never charged to an event.
    4. `publish` may have stored any prefix when it raises; publishing the same ids again adds none twice. An id is
       known for 2 minutes at least, and among the last 10,000 where the engine counts them.
    5. A reader or subscription whose events are gone gets PositionLost, once, and goes on behind the gap.
    6. Delays (of a retry, of a publish) hold up nothing behind them, and survive what the log survives.
    7. A fetch takes priority 7 and up first, and after every 8 of those one other, unless `exclusive`.
    8. Calls may be made concurrently. `close` is idempotent, wakes every waiting fetch and read, and ends every call.
    9. No call outlasts 10 s of the engine's silence (beyond what `wait` asks for): it raises BrokerUnavailable.
    10. Topics under `_reply.` are live: read only with `follow`, never part of the history, gone after a minute or so.
    11. Topics under `_bus.` carry facts: the newest event of each is kept as long as the log exists, whatever retention
        takes. A read without `follow` whose patterns all begin with `_bus.` yields the newest of each topic, where the
        query wants that one, in the order of their positions, those behind `after` if given; one that changes while
        it is read may come again. It costs by facts, not by the log. PositionLost tells that `after` is of another log,
        never what retention took.
    """

    capabilities: Capabilities

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        """Store and route; returns when the engine has them as durably as it promises. One `Appended` an event.

        An event whose `not_before` lies ahead is kept outside the log until then. Raises StorageFull,
        BrokerUnavailable.
        """
        ...

    async def cancel(self, event_id: str) -> bool:
        """Drop a delayed event that has not left yet; False if there is none of that id."""
        ...

    async def declare(self, subscription: Subscription) -> SubscriptionInfo:
        """Make it known, or renew its settings; idempotent. Returns what is there afterwards."""
        ...

    async def detach(self, id: str) -> None:
        """This instance serves it no longer: the consumer count drops now, its waiting fetches return empty.

        Open leases end in their own time. A later fetch serves it again.
        """
        ...

    async def remove(self, id: str) -> None:
        """Forget it, its backlog and its dead letters; unknown ids are ignored."""
        ...

    async def subscriptions(self) -> Sequence[SubscriptionInfo]:
        """All that are remembered, and the live ones that are there now."""
        ...

    async def presence(self, *, fresh: bool = True) -> Sequence[Present]:
        """The same ones, and who serves them: what can be known of all at once, without counting what each has.

        What was said before the call is in it; without `fresh` what others said in the last moment may be missing, and
        an engine whose instances tell each other asks nobody.
        """
        ...

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """Lease up to `limit` events, waiting up to `wait` seconds for the first; empty if none came.

        The call marks this instance as a consumer; `limit=0` does only that. Raises SubscriptionNotFound, PositionLost
        (once for each loss), Closed.
        """
        ...

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """Carry them out; returns how many were. The others were stale: their lease had ended."""
        ...

    async def dead(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """The dead letters asked for, oldest first."""
        ...

    def letters(self, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
        """All of the dead letters asked for, some at a time and in no order; the query's limit is not heeded.

        What is buried or resolved meanwhile may come once, twice or not at all. The engine keeps no more in memory than
        one part: a page, or where it can only take them whole, those of one subscription.
        """
        ...

    async def resolve(self, letters: Sequence[Redeliver | Discard]) -> int:
        """Redeliver or discard; returns how many were there. One whose subscription is gone can only be discarded."""
        ...

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        """Events of the log in its order, from its beginning or behind `after`.

        With `follow` it never ends: it waits for more until the broker closes. Raises PositionLost where events behind
        `after` are gone, or where `after` belongs to another log.
        """
        ...

    async def info(self, id: str) -> SubscriptionInfo | None:
        """One subscription's numbers; None if it is unknown."""
        ...

    async def purge(self, id: str) -> int:
        """Drop what is ready; leased, delayed and dead stay. Returns how many were dropped."""
        ...

    async def ping(self) -> Ping:
        """Raises BrokerUnavailable if the engine does not answer."""
        ...

    def examine(self) -> AbstractAsyncContextManager[Examination]:
        """Reach the engine and look at it, without joining its log: nothing is made, changed, trimmed or let lapse.

        Entering raises what a first call would raise if the engine cannot be reached. For an instance that is used for
        nothing else; its `capabilities.promise` is known once it is entered, as far as it can be told.
        """
        ...

    async def close(self) -> None:
        """End every call and release everything."""
        ...
