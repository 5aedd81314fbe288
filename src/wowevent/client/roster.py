"""The subscriptions of one client: served by the router whenever there is a connection, and what they have to say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from msgspec import Struct

from wowevent.client.connection import Answer, Connection
from wowevent.client.inbox import Seen
from wowevent.client.link import Link
from wowevent.client.subscription import Counters, Subscription
from wowevent.client.workers import Reply, Workers
from wowevent.clock import Clock, Timer
from wowevent.errors import BrokerUnavailable, BusError, NotPermitted, SubscriptionConflict, SubscriptionNotFound
from wowevent.handler import adapt
from wowevent.log import logger
from wowevent.router.wire import (
    Delivered,
    Item,
    Ping,
    Pong,
    Reset,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Wanted,
    encode,
)

_CONFIRM: Final = 0.5  # seconds after which the router is asked whether it has heard acknowledgements


class Member(Struct, eq=False):
    """One subscription, and who is woken when something comes."""

    subscription: Subscription
    wake: Callable[[], None]
    workers: Workers | None = None
    callback: Any = None


class Roster:
    """All of them, by their ids."""

    def __init__(self, link: Link, *, retry: float, clock: Clock, counters: Counters, reply: Reply) -> None:
        """A subscription that the router cannot serve now is asked for again after `retry` seconds."""
        self._link = link
        self._retry = retry
        self._clock = clock
        self._counters = counters
        self._reply = reply
        self._count = 0
        self._members: dict[str, Member] = {}
        self._served: dict[str, Member] = {}  # by the router's ids, of this connection
        self._seen: dict[object, Seen] = {}
        self._leaving: list[Workers] = []
        self._due: dict[str, Member] = {}  # have something to say
        self._confirming: Timer | None = None

    @property
    def workers(self) -> Iterator[Workers]:
        """Of all of them, and those of handlers that outlive their subscription."""
        self._leaving = [workers for workers in self._leaving if workers.running]
        yield from self._leaving
        yield from [member.workers for member in self._members.values() if member.workers is not None]

    # --- coming and going -------------------------------------------------------------------------------------------

    def listen(self, want: Wanted, callback: Callable[..., Any], concurrency: int = 1) -> Member:
        """A new one, handled by a callback; asked for in this turn if there is a connection.

        Raises TypeError for a callback that takes what there is not, SubscriptionConflict for a name that is taken.
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise ValueError(f"concurrency: {concurrency!r} is not a whole number from 1 on")
        handler = adapt(callback)
        member = self._make(want, None if want.named else self._seen_of(callback))
        member.callback = callback
        member.workers = Workers(
            member.subscription,
            handler,
            concurrency,
            counters=self._counters,
            reply=self._reply,
            progress=lambda _: self.progress(member),
        )
        member.wake = member.workers.wake
        return self._add(member)

    def pull(self, want: Wanted, wake: Callable[[], None]) -> Member:
        """A new one whose inbox somebody empties who is woken."""
        member = self._make(want, None)
        member.wake = wake
        return self._add(member)

    def get(self, id: str) -> Member | None:
        """The one of this id, unless it is about to go."""
        member = self._members.get(id)
        return None if member is None or member.subscription.over else member

    def _make(self, want: Wanted, seen: Seen | None) -> Member:
        self._count += 1
        subscription = Subscription(f"sub-{self._count}", want, self._counters, seen)
        identity = subscription.identity
        for other in self._members.values():
            if identity is not None and other.subscription.identity == identity and not other.subscription.over:
                raise SubscriptionConflict(f"this client has a subscription of that name already: {identity}")
        return Member(subscription, wake=_nothing)

    def _seen_of(self, callback: Any) -> Seen:
        seen = self._seen.setdefault(_key(callback), Seen())
        seen.subscriptions += 1
        return seen

    def _add(self, member: Member) -> Member:
        self._members[member.subscription.id] = member
        self._serve(member)
        return member

    def drop(self, member: Member) -> None:
        """Forget one."""
        subscription = member.subscription
        subscription.over = True
        self._members.pop(subscription.id, None)
        self._due.pop(subscription.id, None)
        if subscription.server_id is not None:
            self._served.pop(subscription.server_id, None)
            subscription.server_id = None
        if subscription.seen is not None:
            subscription.seen.leave()
            if not subscription.seen.subscriptions:
                self._seen.pop(_key(member.callback), None)
            subscription.seen = None

    def removed(self, frame: Unsubscribed) -> None:
        """Somebody has removed a named subscription, with what waited for it: here it is over, too."""
        member = self._served.get(frame.subscription_id)
        if member is None:  # the answer to a question that nobody waits for
            return
        subscription, workers = member.subscription, member.workers
        logger.warning("subscription was removed", subscription=subscription.id, topics=subscription.wanted.topics)
        if workers is not None:
            workers.stopped = True
            self._leaving.append(workers)
        self.drop(member)
        member.wake()

    async def leave(self, member: Member, timeout: float) -> None:
        """End one; returns when the router has said that it ended.

        What runs of a named one is waited for, since it must be acknowledged before; after `timeout` it is cancelled.
        """
        subscription, workers = member.subscription, member.workers
        subscription.over = True
        if workers is not None:
            workers.stopped = True
            self._leaving.append(workers)
            if subscription.settling is not None:
                await workers.finish(timeout)
        self.say()
        connection, id = self._link.connection, subscription.server_id
        self.drop(member)
        if connection is None or id is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await connection.ask(Unsubscribe(subscription_id=id))
        except TimeoutError as error:
            raise BrokerUnavailable(f"the router did not answer an unsubscribe within {timeout:g} s") from error
        except (BrokerUnavailable, SubscriptionNotFound):
            return  # it forgets with the connection

    def resume(self) -> None:
        """What `disconnect` has stopped may begin again, unless its subscription is over."""
        for member in self._members.values():
            if member.workers is not None and not member.subscription.over:
                member.workers.stopped = False

    def reset(self) -> None:
        """Goodbye was said: streams are over, and the others begin anew with the next connection."""
        for member in list(self._members.values()):
            if member.workers is None:
                self.drop(member)
                member.wake()
            else:
                member.subscription.reset()

    # --- being served -----------------------------------------------------------------------------------------------

    @property
    def restored(self) -> bool:
        """Whether the router has answered for all of them."""
        return not any(member.subscription.state == "asked" for member in self._members.values())

    def opened(self, _connection: Connection) -> None:
        """Ask for all of them again."""
        for member in self._members.values():
            self._serve(member)

    def lost(self) -> None:
        """Nothing is served."""
        self._served.clear()
        self._stop_confirming()
        for member in self._members.values():
            subscription = member.subscription
            subscription.leave("paused" if subscription.state == "paused" else "wanted")
            member.wake()  # a stream looks whether there is more to wait for

    def _serve(self, member: Member) -> None:
        connection = self._link.connection
        subscription = member.subscription
        leaving = subscription.over and subscription.settling is None
        if connection is not None and subscription.state == "wanted" and not leaving:
            connection.call(subscription.ask(), partial(self._answered, member, connection))

    def _answered(self, member: Member, connection: Connection, answer: Answer) -> None:
        subscription = member.subscription
        if isinstance(answer, Subscribed):
            if subscription.id not in self._members:  # it was given up meanwhile
                connection.send(encode(Unsubscribe(subscription_id=answer.subscription_id)))
                return
            self._served[answer.subscription_id] = member
            subscription.serve(answer)
            self._say_soon(member)
        elif self._link.connection is not connection:
            subscription.tell(self._link.ended)  # it will be asked for again, unless there is no again
        elif isinstance(answer, BusError):
            subscription.state = "wanted"
            if isinstance(answer, NotPermitted) and subscription.begin_anew():
                self._serve(member)
            else:
                self._refused(member, answer)
        self._link.changed.notify()

    def _refused(self, member: Member, error: BusError) -> None:
        subscription = member.subscription
        if subscription.answered is not None and not subscription.answered.done():
            subscription.tell(error)
            return
        logger.error(
            "subscription refused", subscription=subscription.id, topics=subscription.wanted.topics, error=error
        )
        if error.retryable:
            self._clock.call_later(self._retry, lambda: self._again(member))

    def _again(self, member: Member) -> None:
        if member.subscription.id in self._members:
            self._serve(member)

    # --- what comes -------------------------------------------------------------------------------------------------

    def take(self, item: Item | Delivered) -> None:
        """One delivery; one of a subscription that is no more is left to the router."""
        member = self._served.get(item.subscription_id)
        if member is None:
            return
        subscription = member.subscription
        subscription.take(item)
        if subscription.settling is not None and subscription.settling.pending:
            self._say_soon(member)
        elif subscription.settling is None and subscription.inbox.full:
            self._pause(member)
        member.wake()

    def lose(self, frame: Reset) -> None:
        """A gap in one."""
        if (member := self._served.get(frame.subscription_id)) is not None:
            member.subscription.lose(frame.lost)

    def _pause(self, member: Member) -> None:
        """The log holds what this one cannot hold now; the socket is read on."""
        subscription = member.subscription
        connection, id = self._link.connection, subscription.server_id
        if connection is not None and id is not None:
            logger.info("subscription pauses, its handlers are slow", subscription=subscription.id)
            connection.send(encode(Unsubscribe(subscription_id=id)))
            del self._served[id]
            subscription.leave("paused")

    def progress(self, member: Member) -> None:
        """Something of it was handled."""
        subscription = member.subscription
        if subscription.settling is not None:
            if subscription.settling.pending:
                self._say_soon(member)
        elif subscription.state == "paused" and subscription.inbox.half_empty and not subscription.over:
            subscription.state = "wanted"
            self._serve(member)

    # --- what is said of it -----------------------------------------------------------------------------------------

    def _say_soon(self, member: Member) -> None:
        """At the end of this turn, together with what else is handled in it."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self.say)
        self._due[member.subscription.id] = member

    def say(self) -> None:
        """Acknowledge what was handled."""
        due, self._due = self._due, {}
        connection = self._link.connection
        for member in due.values():
            subscription = member.subscription
            if connection is None or subscription.server_id is None or subscription.settling is None:
                continue
            for frame in subscription.settling.frames(subscription.server_id):
                connection.send(encode(frame))
            if self._confirming is None and subscription.settling.sent:
                self._confirming = self._clock.call_later(_CONFIRM, self._confirm)

    def _confirm(self) -> None:
        """What the router has heard before a ping, it has heard when the answer comes."""
        sent = [
            (settling, settling.sent) for each in self._members.values() if (settling := each.subscription.settling)
        ]

        def ponged(answer: Answer) -> None:
            if not isinstance(answer, Pong):
                return
            for settling, count in sent:
                settling.confirm(count)
            self._confirming = None
            if any(settling.sent for settling, _ in sent):
                self._confirming = self._clock.call_later(_CONFIRM, self._confirm)

        if self._link.connection is not None:
            self._link.connection.call(Ping(), ponged)

    def _stop_confirming(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            self._confirming = None


def _nothing() -> None:
    """Nobody is woken yet."""


def _key(callback: Any) -> object:
    """By what a callback is known; bound methods of one object are equal."""
    try:
        hash(callback)
    except TypeError:
        return id(callback)
    return callback
