"""One named subscription on this router: leases go out to clients, and what they say of them is settled.

    fetcher   leases as many as the seats have credit for  -> seats in turn -> clients
    clients   ack | nack                                     -> judge         -> settler
    keeper    extends the leases of what clients hold

A seat is one client's share. When a connection breaks, what its seat held is parked: the client may come back and keep
it. If it does not, its process is taken to have crashed, and the leases end unsettled, which the engine counts. Whoever
parks them only shortens them: so a client that has gone to another router keeps what it says that it holds, if that one
extends them in time. A suspect goes to a client that holds nothing else.

Where clients are known by tokens, a seat gets only what its token lets it hear, whatever the subscription was declared
to take, here or at another router. What nobody here may hear is left to others.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol

from wowevent.broker import Ack, Bury, Extend, Lease, Position, Reason, Retry, Settlement, Subscription
from wowevent.clock import Clock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, PositionLost, SubscriptionNotFound
from wowevent.event import Event
from wowevent.holds import Holds
from wowevent.judge import Counts, Judge
from wowevent.log import logger
from wowevent.retry import Done, Failed, GivenBack, Halted, Later, Outcome, Rejected, RetryPolicy
from wowevent.router.wire import Reset, encode, leased_item, message, messages
from wowevent.settler import BACKOFF, Settler, Source
from wowevent.storm import Guard
from wowevent.tally import Tally
from wowevent.wakeup import Wakeup

PARKED: Final = 5.0
"""Seconds for which the leases of a broken connection wait for their client."""
_WAIT: Final = 5.0  # seconds that one fetch waits
_MOST: Final = 512  # events of one fetch
_PIECE: Final = 128 * 1024  # bytes of payloads that go to one client at a time
_ELSEWHERE: Final = 1.0  # seconds for which what nobody with room here may hear is left to others
_AHEAD: Final = 0.2  # seconds by which those may then ask for it before this router does
_DONE: Final = Done()


class Client(Protocol):
    """One client as couriers see it."""

    outstanding: int
    """Events of all its named subscriptions that it holds."""
    reserved: bool
    """A suspect is with it, or about to be: nothing else goes there."""
    idle: Wakeup
    """Something it held was settled."""

    @property
    def congested(self) -> bool:
        """Whether it has not read yet what was sent, or is on its way out and will not."""
        ...

    def release(self) -> None:
        """Reserve it no longer, and wake every courier that serves it."""
        ...

    @property
    def batch(self) -> bool:
        """Whether it takes `events` frames."""
        ...

    @property
    def owner(self) -> str | None:
        """Whose client it is, by its token."""
        ...

    def hears(self, event: Event) -> bool:
        """Whether it may get this event."""
        ...

    def asked(self, request: Event) -> None:
        """A request is brought to it, which it may answer."""
        ...

    def push(self, data: bytes, events: int, position: Position | None) -> None:
        """Send whole messages."""
        ...


class Seat:
    """One client's share of the subscription."""

    __slots__ = ("client", "credit", "held", "id", "instance", "name", "since")

    def __init__(self, client: Client, id: str, instance: str, credit: int) -> None:
        self.client: Client = client
        self.name: str = id
        """The subscription's id with this client,"""
        self.id: bytes = encode(id)
        """and the same as JSON."""
        self.instance: str = instance
        self.credit: int = credit
        self.held: dict[str, Lease | None] = {}
        """By token; None for what another router handed out, or this one before it was started anew."""
        self.since: dict[str, float] = {}
        """When each token was handed out, monotonic seconds."""

    @property
    def open(self) -> bool:
        """Whether it takes anything now; one whose client is back on another connection has no credit."""
        return self.credit > 0 and not self.client.reserved and not self.client.congested

    @property
    def free(self) -> int:
        """How many more it takes."""
        return self.credit - len(self.held) if self.open else 0

    def take(self, leases: Sequence[Lease], now: float) -> None:
        """Send them to the client."""
        self.held.update((lease.token, lease) for lease in leases)
        self.since.update((lease.token, now) for lease in leases)
        self.client.outstanding += len(leases)
        for lease in leases:
            if lease.event.reply_to is not None:
                self.client.asked(lease.event)
        data = messages([leased_item(self.id, lease) for lease in leases], batch=self.client.batch)
        self.client.push(data, len(leases), leases[-1].position)

    def drop(self, token: str) -> Lease | None:
        """What it held under that token, now no longer."""
        if token not in self.held:
            return None
        lease = self.held.pop(token)
        self.client.outstanding -= 1
        self.client.idle.notify()
        return lease

    def empty(self) -> dict[str, Lease | None]:
        """All that it held, now no longer."""
        held, self.held = self.held, {}
        self.since.clear()
        self.client.outstanding -= len(held)
        self.client.idle.notify()
        return held


class Courier:
    """The deliveries of one named subscription on this router."""

    def __init__(
        self,
        spec: Subscription,
        policy: RetryPolicy,
        tally: Tally,
        *,
        clock: Clock,
        lasting: bool,
        holds: Holds,
        fail: Callable[[Event, str], None],
        guard: Guard | None,
        abandoned: Callable[[Courier], None],
        removed: Callable[[Courier], None],
        buried: Callable[[str, Event, Bury], None],
    ) -> None:
        """`lasting`: a lease is good at any router, whoever handed it out (see Capabilities).

        `holds` says which events are paused, though others come.

        `fail(request, error)` answers a request that failed for good. What the `guard` stops is buried.

        `abandoned(courier)` is called when a client did not come back, so that nobody may need the courier any more;
        `removed(courier)` when somebody has removed the subscription, `buried(id, event, bury)` once an event is a dead
        letter.
        """
        self.spec: Subscription = spec
        self.seats: list[Seat] = []
        self.expected: int = 0
        """Clients that are about to take a seat."""
        self._lasting = lasting
        self._abandoned = abandoned
        self._removed = removed
        self._source: Source = tally.valve
        self._holds = holds
        self._clock = clock
        self._judge = Judge(
            spec.id, policy, clock=clock, fail=fail, guard=guard, buried=self._announce, noted=tally.note
        )
        self._buried = buried
        self.counts: Counts = self._judge.counts
        self._tally = tally
        tally.counts = self.counts
        self._settler = Settler(spec.id, self._source, lease=spec.lease, clock=clock, counts=self.counts)
        tally.valve.decline = self._settler.give_back
        self._parked: dict[str, tuple[dict[str, Lease | None], Timer]] = {}
        self._suspects: dict[str, Lease] = {}  # on their way to a client that holds nothing else
        self._room = Wakeup()
        self._left = -math.inf  # monotonic: when what was left to others is there for them
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._alone_tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    # --- seats --------------------------------------------------------------------------------------------------

    async def start(self, spec: Subscription) -> None:
        """Serve the subscription, by its newest declaration; returns when the engine knows that somebody does."""
        self.spec = spec
        await self._source.fetch(self.spec.id, limit=0, wait=0)
        if not self._tasks and not self._draining:
            self._tasks = [self._spawn(job) for job in (self._fetching(), self._settler.run(), self._keeping())]

    def join(self, seat: Seat, kept: Sequence[str], policy: RetryPolicy) -> None:
        """A client takes its share; `kept` are the tokens that it still has from a connection that broke.

        The newest policy holds for all.
        """
        self._judge.policy = policy
        leases = self._unpark(seat.instance)
        for other in self.seats:  # a connection that broke, though we have not noticed
            if other.instance == seat.instance:
                leases |= other.empty()
                other.credit = 0
        free = [token for token in kept if not self._of_another(seat, token)]
        seat.held = {token: leases.pop(token, None) for token in free if self._lasting or token in leases}
        seat.since = dict.fromkeys(seat.held, self._clock.monotonic())
        for token in seat.held:  # whoever had them before has shortened them
            self._settler.put(Extend(token, self.spec.lease))
        seat.client.outstanding += len(seat.held)
        self._give_back(leases)
        self.seats.append(seat)
        self._room.notify()

    def leave(self, seat: Seat, *, goodbye: bool) -> None:
        """A client is gone, or wants no more; without a goodbye it may come back for what it held."""
        self.seats.remove(seat)
        held = seat.empty()
        if goodbye or not held:
            self._give_back(held)
        else:
            held = {**self._unpark(seat.instance), **held}
            seconds = min(PARKED, self.spec.lease / 2)
            for token in held:
                self._settler.put(Extend(token, seconds))
            gone = self._clock.call_later(seconds, lambda: self._presume_crashed(seat.instance))
            self._parked[seat.instance] = (held, gone)
        self._room.notify()

    @property
    def unused(self) -> bool:
        """Whether nobody sits here, and nobody is waited for or about to come."""
        return not self.seats and not self._parked and not self.expected

    def wake(self) -> None:
        """A client has room again."""
        self._room.notify()

    def _unpark(self, instance: str) -> dict[str, Lease | None]:
        """What waits for that client, which is back."""
        leases, timer = self._parked.pop(instance, ({}, None))
        if timer is not None:
            timer.cancel()
        return leases

    def _presume_crashed(self, instance: str) -> None:
        """The leases end about now, unsettled: the engine counts a crash, unless another router has extended them."""
        leases, _ = self._parked.pop(instance)
        logger.warning("client did not come back here", subscription=self.spec.id, events=len(leases))
        self._room.notify()
        self._abandoned(self)

    def _give_back(self, tokens: Iterable[str]) -> None:
        for token in tokens:
            self._settler.put(Retry(token, charge=False))

    def _of_another(self, seat: Seat, token: str) -> bool:
        """Whether a client of somebody else holds that token: it is not this one's to keep or to settle."""
        return any(token in other.held and other.client.owner != seat.client.owner for other in self.seats)

    # --- settle -------------------------------------------------------------------------------------------------

    def settle(self, seat: Seat, tokens: Sequence[str], outcome: Outcome | None) -> None:
        """What a client says of its tokens; it goes to the engine with what else gathers."""
        self._settler.outbox.extend(self._settlements(seat, tokens, outcome))
        self._settler.wake()
        self._room.notify()

    async def settle_now(self, seat: Seat, tokens: Sequence[str], outcome: Outcome | None) -> int:
        """`settle`, and how many were in time."""
        settlements = self._settlements(seat, tokens, outcome)
        self._room.notify()
        return await self._settler.send(settlements)

    def _settlements(self, seat: Seat, tokens: Sequence[str], outcome: Outcome | None) -> list[Settlement]:
        return [
            self._settlement(seat, token, outcome)
            for token in tokens
            if token in seat.held or not self._of_another(seat, token)
        ]

    def _settlement(self, seat: Seat, token: str, outcome: Outcome | None) -> Settlement:
        lease = seat.drop(token)
        if lease is None:
            if isinstance(outcome, Halted):
                self._tally.valve.halt(outcome.seconds, outcome.reason)
            return _blind(token, outcome)
        now = self._clock.monotonic()
        seconds = now - seat.since.pop(token, now)
        if outcome is None:
            self.counts.handled += 1
            settlement: Settlement = Ack(token)
        else:
            settlement = self._judge.verdict(lease, outcome, seconds)
        self._tally.observe([lease], seconds, outcome or _DONE)
        return settlement

    def _announce(self, event: Event, bury: Bury) -> None:
        self._settler.burials[bury.token] = partial(self._buried, self.spec.id, event, bury)

    # --- fetch --------------------------------------------------------------------------------------------------

    async def _fetching(self) -> None:
        pause = BACKOFF[0]
        while not self._draining:
            credit = min(sum(max(0, seat.free) for seat in self.seats), _MOST)
            if credit <= 0:
                await self._room.wait()
                continue
            until = self._left - self._clock.monotonic()
            if -_AHEAD < until <= 0:  # else it may be this router that gets it each time
                await self._clock.sleep(until + _AHEAD)
                continue
            try:
                wait = min(until, _WAIT) if until > 0 else _WAIT
                leases = await self._source.fetch(self.spec.id, limit=credit, wait=wait)
            except Closed:
                return
            except SubscriptionNotFound:
                logger.warning("subscription was removed, its clients are told", subscription=self.spec.id)
                self._removed(self)
                return
            except PositionLost as lost:
                self.counts.lost += lost.lost or 0
                logger.error("subscription lost unread events", subscription=self.spec.id, lost=lost.lost)
                for seat in self.seats:
                    reset = Reset(subscription_id=seat.name, lost=lost.lost)
                    seat.client.push(message(encode(reset)), 0, None)
                continue
            except BrokerError as error:
                logger.error("subscription cannot be read now", subscription=self.spec.id, error=error, retry_in=pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, BACKOFF[1])
                continue
            pause = BACKOFF[0]
            self._hand_out(leases)

    def _hand_out(self, leases: Sequence[Lease]) -> None:
        if self._draining:  # they were fetched when that began: whoever counts what clients hold has counted
            self._give_back(lease.token for lease in leases)
            return
        worth, looked_at = [], self._judge.alert
        for lease in leases:
            event = lease.event
            if self._holds.active and (pause := self._holds.holding(event)) is not None:
                self._settler.put(Retry(lease.token, self._holds.again(pause), charge=False))
                continue
            plain = not (looked_at or lease.crashes or event.hops) and event.ttl_seconds is None
            settlement = None if plain else self._judge.beforehand(lease)
            if settlement is None:
                worth.append(lease)
            else:
                self._settler.put(settlement)
        if len(worth) == 1 and worth[0].crashes:
            self._spawn_alone(worth[0])
        elif worth:
            self._share(worth)

    def _share(self, leases: Sequence[Lease]) -> None:
        """Seats in turn, in pieces that fill no outbox; what nobody has room for is given back."""
        left = deque(leases)
        while left and (seats := [seat for seat in self.seats if seat.free > 0]):
            before = len(left)
            fair = -(-before // len(seats))
            self._turn += 1
            for seat in seats[self._turn % len(seats) :] + seats[: self._turn % len(seats)]:
                if piece := _piece(left, min(fair, seat.free), seat.client):
                    seat.take(piece, self._clock.monotonic())
            if len(left) == before:
                self._leave_to_others(left)
                return
        self._give_back(lease.token for lease in left)

    def _leave_to_others(self, leases: Iterable[Lease]) -> None:
        """Who has room here may not hear them: after a while they are there for whoever may."""
        now = self._clock.monotonic()
        if self._left <= now - _AHEAD:
            self._left = now + _ELSEWHERE
        for lease in leases:
            self._settler.put(Retry(lease.token, _ELSEWHERE, charge=False))

    def _spawn_alone(self, lease: Lease) -> None:
        """A suspect goes to the client that holds least, and waits there until it holds nothing."""
        able = [seat for seat in self.seats if seat.open and seat.client.hears(lease.event)]
        if not able and any(seat.free > 0 for seat in self.seats):
            self._leave_to_others([lease])
            return
        if not able:
            self._give_back([lease.token])
            return
        seat = min(able, key=lambda seat: seat.client.outstanding)
        seat.client.reserved = True
        self._suspects[lease.token] = lease
        task = self._spawn(self._alone(lease, seat))
        self._alone_tasks.add(task)
        task.add_done_callback(self._alone_tasks.discard)

    async def _alone(self, lease: Lease, seat: Seat) -> None:
        """A client that is never without anything else is waited for as long as a lease."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.spec.lease):
                    while seat.client.outstanding > 0 and seat in self.seats:
                        await seat.client.idle.wait()
            if seat not in self.seats or self._draining or self._tally.valve.paused:
                self._give_back([lease.token])
                return
            seat.take([lease], self._clock.monotonic())
            while lease.token in seat.held:
                await seat.client.idle.wait()
        finally:
            del self._suspects[lease.token]
            seat.client.release()
            self._room.notify()

    # --- life ---------------------------------------------------------------------------------------------------

    async def _keeping(self) -> None:
        """Renew what clients hold, and what is about to go to them, before the leases end."""
        while True:
            await self._clock.sleep(self.spec.lease / 3)
            tokens = {*(token for seat in self.seats for token in seat.held), *self._suspects}
            if tokens:
                await self._settler.send([Extend(token, self.spec.lease) for token in tokens])

    async def drain(self) -> None:
        """Hand out nothing more, and return once clients hold nothing."""
        self._draining = True
        with suppress(BrokerError, Closed):
            await self._source.detach(self.spec.id)
        self._room.notify()
        while any(seat.held for seat in self.seats):
            await self._room.wait()

    async def stop(self) -> None:
        """Give back what clients hold, settle what they said, and end."""
        self._draining = self._settler.stopping = True
        self._tally.close()
        for seat in self.seats:
            self._give_back(seat.empty())
        for leases, timer in self._parked.values():
            timer.cancel()
            self._give_back(leases)
        self._parked.clear()
        if not self._tasks:
            return
        with suppress(BrokerError, Closed):
            await self._source.detach(self.spec.id)
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await self._settler.flush()
        await end(*self._tasks, *self._alone_tasks)
        self._tasks = []

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job, name=f"wowevent:router:{self.spec.id}")
        task.add_done_callback(self._report_death)
        return task

    def _report_death(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("named subscription stopped by an internal error", subscription=self.spec.id, exc_info=error)


def _piece(left: deque[Lease], most: int, client: Client) -> list[Lease]:
    """The next leases that the client may hear, up to so many, and not many more bytes than a piece has."""
    piece: list[Lease] = []
    others: list[Lease] = []
    size = 0
    while left and len(piece) < most and size < _PIECE:
        lease = left.popleft()
        if client.hears(lease.event):
            piece.append(lease)
            size += memoryview(lease.event.body).nbytes
        else:
            others.append(lease)
    left.extendleft(reversed(others))
    return piece


def _blind(token: str, outcome: Outcome | None) -> Settlement:
    """What is settled under a token that this router did not hand out: one from before it was started anew.

    The engine knows the attempts so far; how many there may be is looked at when the event fails the next time.
    """
    match outcome:
        case None:
            return Ack(token)
        case GivenBack() | Halted():
            return Retry(token, charge=False)
        case Later(seconds):
            return Retry(token, seconds, charge=False)
        case Rejected(error, traceback, reason):
            return Bury(token, reason, error, traceback)
        case Failed(error):
            return Retry(token, RetryPolicy().delay(1), error)
    return Bury(token, Reason.UNKNOWN)
