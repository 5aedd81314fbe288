"""One subscription of a client: what is asked for, where it stands, and what came. No I/O.

wanted ── frame sent ──> asked ── subscribed ──> served ── inbox full ──> paused ── half empty ──> wanted
  ^                                                │
  └──────────────── the connection broke ──────────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct, structs

from wowevent.broker import Lease, Position
from wowevent.client.inbox import Inbox, Seen
from wowevent.client.settling import Settling, Verdict
from wowevent.errors import BusError, InvalidTopic
from wowevent.event import Event, check_name, checked, utc
from wowevent.lineage import UNNAMED
from wowevent.log import logger
from wowevent.priority import priority_level
from wowevent.router.wire import Delivered, Item, Nack, Subscribe, Subscribed, Wanted, delivered_event
from wowevent.subscription import identity
from wowevent.topic import check_pattern, check_topic

State = Literal["wanted", "asked", "served", "paused"]
Start = str | datetime | Position
"""`"new"`, `"first"`, a time, or a position."""


class Counters(Struct):
    """What a client did since it was made."""

    published: int = 0
    """Events that the router confirmed."""
    dropped: int = 0
    """Events that it refused when nobody waited for the answer any more."""
    received: int = 0
    """Events that were taken in."""
    handled: int = 0
    """Calls of handlers that returned."""
    failed: int = 0
    """Calls of handlers that raised."""
    duplicates: int = 0
    """Events that came again, and were not handled again."""
    reconnects: int = 0
    """Connections after the first."""
    resets: int = 0
    """Gaps that the router told of."""
    lost: int = 0
    """Events in these gaps, where their number is known."""


def wanted(
    topics: str | Sequence[str] | None,
    *,
    types: Iterable[str] | None = None,
    priorities: Iterable[int | str] | None = None,
    min_priority: int | str | None = None,
    sources: Iterable[str] | None = None,
    name: str | None = None,
    subscription: str | None = None,
    start: Start = "new",
    lease: float | None = None,
    max_retries: int | None = None,
    credit: int | None = None,
) -> Wanted:
    """What the router is asked for; InvalidTopic, InvalidEvent or ValueError for what it would refuse."""
    patterns = ("*",) if topics is None else (topics,) if isinstance(topics, str) else tuple(topics)
    if not patterns:
        raise InvalidTopic("a subscription needs a pattern")
    named = name is not None or subscription is not None
    if not named and (lease is not None or max_retries is not None or credit is not None):
        raise ValueError("lease, max_retries and credit are for subscriptions with a name")
    return Wanted(
        topics=tuple(dict.fromkeys(checked(check_pattern, pattern) for pattern in patterns)),
        types=None if types is None else tuple(checked(check_topic, each) for each in types),
        priorities=None if priorities is None else tuple(checked(priority_level, each) for each in priorities),
        min_priority=None if min_priority is None else checked(priority_level, min_priority),
        sources=None if sources is None else tuple(checked(check_name, each) for each in sources),
        name=None if name is None else checked(check_name, name),
        subscription=None if subscription is None else checked(check_name, subscription),
        start=_start(start) if named and start != "new" else None,
        after=_after(start) if not named and start != "new" else None,
        lease=lease,
        max_retries=max_retries,
        credit=credit,
    )


def _start(start: Start) -> str:
    return utc(start, "start").isoformat() if isinstance(start, datetime) else str(start)


def _after(start: Start) -> str:
    """A live one has no past; but it may go on from a position that somebody noted."""
    try:
        return str(start if isinstance(start, Position) else Position.parse(str(start)))
    except ValueError as error:
        raise ValueError("start is 'new' or a position, for a subscription without a name") from error


class Subscription:
    """What the client knows of one."""

    def __init__(self, id: str, wanted: Wanted, counters: Counters, seen: Seen | None) -> None:
        """`seen` is shared by the anonymous subscriptions of one callback; a named one has none."""
        self.id = id
        self.wanted = wanted
        self.state: State = "wanted"
        self.server_id: str | None = None
        """What the router calls it, in this connection."""
        self.over: bool = False
        """Nothing more is taken in, and nothing more is begun."""
        self.inbox: Inbox = Inbox()
        self.settling: Settling | None = Settling() if wanted.named else None
        self.seen = seen
        self.known_as: str = identity(wanted.topics, wanted.name, wanted.subscription) if wanted.named else UNNAMED
        """What the bus calls it; of those without a name nobody's remains."""
        self.answered: asyncio.Future[None] | None = None
        """Who waits for the router's answer."""
        self._counters = counters
        self._last = None if wanted.after is None else Position.parse(wanted.after)

    @property
    def identity(self) -> object:
        """What no two of a client's may share; None for anonymous ones, which may."""
        want = self.wanted
        return want.subscription or (want.name and (want.name, frozenset(want.topics))) or None

    # --- where it stands ----------------------------------------------------------------------------------------------

    def ask(self) -> Subscribe:
        """The frame that asks for it: from where it was before, if it was."""
        self.state = "asked"
        if self.settling is not None:
            return Subscribe(subscription=structs.replace(self.wanted, held=self.settling.held))
        after = None if self._last is None else str(self._last)
        return Subscribe(subscription=structs.replace(self.wanted, after=after))

    def serve(self, answer: Subscribed) -> None:
        """The router serves it."""
        self.state = "served"
        self.server_id = answer.subscription_id
        position = Position.parse(answer.position)
        if not answer.recovered:
            self.lose(answer.lost)
        if self._last is None:
            self._last = position
        elif self._last.epoch != position.epoch:
            self._last = Position(position.epoch, 0)  # another log: it comes from its beginning
        self.tell(None)

    def lose(self, lost: int | None) -> None:
        """The router tells of a gap."""
        self._counters.resets += 1
        self._counters.lost += lost or 0
        logger.warning("subscription lost events", subscription=self.id, topics=self.wanted.topics, lost=lost)

    def begin_anew(self) -> bool:
        """A token may not hear what is past: go on from now. False if it was not asked to go on by ourselves."""
        given = None if self.wanted.after is None else Position.parse(self.wanted.after)
        if self.settling is not None or self._last in {None, given}:
            return False
        self._last = None
        self.lose(None)
        return True

    def leave(self, state: State) -> None:
        """It is served no longer: the connection broke, or enough has come."""
        self.state, self.server_id = state, None
        if self.settling is not None:
            self.settling.lose()

    def tell(self, error: BusError | None) -> None:
        """Answer who waits for it to be served."""
        if self.answered is not None and not self.answered.done():
            if error is None:
                self.answered.set_result(None)
            else:
                self.answered.set_exception(error)

    def reset(self) -> None:
        """Goodbye was said: the next connection begins anew."""
        self.inbox.clear()
        self.state = "wanted"
        self._last = None if self.wanted.after is None else Position.parse(self.wanted.after)
        if self.settling is not None:
            self.settling.clear()

    # --- what comes -------------------------------------------------------------------------------------------------

    def take(self, item: Item | Delivered) -> None:
        """One delivery: into the inbox, unless it was there before."""
        if self.over:
            return
        position = None if item.position is None else Position.parse(item.position)
        try:
            event = delivered_event(item.event)
        except BusError as error:
            self._refuse(item, position, error)
            return
        if not (self._take_position(event, position) if item.token is None else self._take_token(event, item.token)):
            self._counters.duplicates += 1
            return
        self._counters.received += 1
        failures = item.attempt - 1
        if failures:
            event = structs.replace(event, retry_count=failures)
        self.inbox.put(
            Lease(
                event=event,
                token=item.token or "",
                position=position,
                failures=failures,
                redelivered=item.redelivered,
            )
        )

    def _take_position(self, event: Event, position: Position | None) -> bool:
        """Whether an event of an anonymous one is new; they come in the order of the log."""
        if position is not None:
            if self._last is not None and position.epoch == self._last.epoch and position <= self._last:
                return False
            self._last = position
        return self.seen is None or self.seen.add(event.event_id if position is None else str(position))

    def _take_token(self, event: Event, token: str) -> bool:
        return self.settling is None or self.settling.take(event.event_id, token)

    def _refuse(self, item: Item | Delivered, position: Position | None, error: BusError) -> None:
        """An event that cannot be read: another process may be able to."""
        logger.error("delivery cannot be read", subscription=self.id, position=item.position, error=error)
        if self.settling is not None and item.token is not None:
            text = f"{error.code}: {error}"
            self.settling.refuse("", item.token, Nack(subscription_id="", tokens=(), error=text))
        elif position is not None:
            self._last = position

    def settle(self, lease: Lease, verdict: Verdict) -> None:
        """The handler is through with it."""
        if self.settling is not None:
            self.settling.settle(lease.event.event_id, verdict)
