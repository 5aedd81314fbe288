"""fetch -> handle -> settle, with credit, for one subscription.

    fetcher   leases as many as there is room for               -> stock     window, sieve
    workers   stock -> handler -> outcome -> judge              -> outbox    pace, failure
    settler   what gathered in the outbox goes in one call
    keeper    extends the leases of what is held too long                    stock

`expected` is what a bus waits for, `options` what a user says. Fetching and handling are one file, since an event
passes both: whoever follows it reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from msgspec import structs

from wowevent.broker import Ack, Bury, Extend, Lease, Reason, Retry, Settlement, SubscriptionInfo
from wowevent.clock import Clock
from wowevent.consumer.expected import Expected
from wowevent.consumer.failure import outcome_of
from wowevent.consumer.options import Observer, Options, Replier
from wowevent.consumer.pace import Pace
from wowevent.consumer.sieve import Sieve
from wowevent.consumer.stock import Stock
from wowevent.consumer.window import Window
from wowevent.delivery import Delivery, enter
from wowevent.ending import end
from wowevent.errors import (
    BrokerError,
    BusError,
    Closed,
    PositionLost,
    SubscriptionNotFound,
    ValidationError,
    printable,
)
from wowevent.event import Event
from wowevent.gate import Gate
from wowevent.handler import Handler
from wowevent.holds import Holds
from wowevent.judge import Counts, Judge
from wowevent.limit import TimeLimit
from wowevent.log import logger
from wowevent.retry import Done, GivenBack, Halted, Outcome, Rejected
from wowevent.settler import BACKOFF, Settler, Source
from wowevent.storm import Guard
from wowevent.wakeup import Wakeup

__all__ = ["Consumer", "Observer", "Options", "Replier"]

_WAIT: Final = 60.0  # seconds that one fetch waits


class Consumer:
    """One subscription's deliveries in this process."""

    def __init__(
        self,
        id: str,
        source: Source,
        handler: Handler,
        options: Options,
        *,
        clock: Clock,
        gate: Gate,
        reply: Replier,
        observe: Observer | None = None,
        check: Callable[[Event], object] | None = None,
        info: Callable[[str], Awaitable[SubscriptionInfo | None]] | None = None,
        buried: Callable[[str, Event, Bury], None] | None = None,
        holds: Holds | None = None,
        guard: Guard | None = None,
        noted: Callable[[Lease, float, Outcome, Settlement], None] | None = None,
    ) -> None:
        """`handler` takes an event, or a list of events with `options.batch`.

        `check(event)` raises ValidationError for one that the handler must not get. `info` asks the engine for the
        subscription's numbers, where other members of the group may share the work. `holds` says which events are
        paused, though others come. What the `guard` stops is buried; `buried(id, event, bury)` is told of each dead
        letter, once it is one; `noted(lease, seconds, outcome, settlement)` of each attempt that did not succeed.
        """
        self.id = id
        self._judge = Judge(
            id,
            None if options.auto_ack else options.policy,
            clock=clock,
            fail=self._fail,
            dead_letters=options.dead_letters and not options.auto_ack,
            max_age=options.max_age,
            buried=None if buried is None else self._announce,
            guard=guard,
            noted=noted,
        )
        self._buried = buried
        self.counts: Counts = self._judge.counts
        self._settler = Settler(id, source, lease=options.lease, clock=clock, counts=self.counts)
        self._source = source
        self._handler = handler
        self._options = options
        self._clock = clock
        self._gate = gate
        self._reply = reply
        self._observe = observe
        self._check = check
        self._shared = info is not None  # else nobody else has what was expected
        self._window = Window(options)
        self._stock = Stock(options, self._settler, clock, gate)
        self._sieve = Sieve(holds or Holds(clock), self._window.most)
        self._limit = None if options.timeout is None else TimeLimit(options.timeout)
        self._pace = None if options.rate is None else Pace(options.rate, clock)
        self._expected = Expected(self._in_hand, None if info is None else partial(info, id))
        self._started = False
        self._tasks: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._replies: set[asyncio.Task[None]] = set()
        self._room = Wakeup()  # for the fetcher: there may be room
        self._resumed = Wakeup()  # for workers of what was acknowledged already

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the subscription from here on; returns when the engine knows that somebody does. Twice is once."""
        if self._started:
            return
        self._started = True
        await self._source.fetch(self.id, limit=0, wait=0)
        self._gate.register(self._stock.clear)
        workers = 1 if self._options.batch else self._options.concurrency
        self._tasks = [
            self._spawn(self._fetching()),
            self._spawn(self._settler.run()),
            self._spawn(self._stock.renew()),
        ]
        self._workers = [self._spawn(self._working()) for _ in range(workers)]

    async def stop(self, timeout: float) -> None:
        """Fetch nothing further, let running handlers finish within `timeout` seconds, give the rest back."""
        if self._stock.stopping:
            return
        self._stock.stopping = self._settler.stopping = True
        self._expected.close()
        try:
            await self._source.detach(self.id)
        except BusError as error:
            logger.warning("subscription could not be detached", subscription=self.id, error=error)
        if not self._tasks:
            return
        fetcher, settler, keeper = self._tasks
        self._room.notify()
        self._stock.arrived.notify()
        if self._pace is not None:
            self._pace.stop()
        self._resumed.notify()
        # A handler may cancel its own subscription: its worker ends, and the rest with it, when the handler returns.
        own = asyncio.current_task()
        others = [worker for worker in self._workers if worker is not own]
        try:
            self._stock.clear_idle()
            await self._settler.flush()
            await asyncio.wait([fetcher, *others], timeout=max(timeout, 0.01))
        finally:
            await end(fetcher, *others)
            if len(others) == len(self._workers):
                await self._finish(keeper, settler)
            elif own is not None:
                own.add_done_callback(lambda _: self._tasks.append(self._spawn(self._finish(keeper, settler))))

    async def _finish(self, keeper: asyncio.Task[None], settler: asyncio.Task[None]) -> None:
        """Settle what the handlers left, and end what served them."""
        if self._replies:
            await asyncio.wait(self._replies, timeout=1.0)
        await self._stock.clear()
        self._gate.unregister(self._stock.clear)
        if self._limit is not None:
            self._limit.close()
        await end(keeper, settler, *self._replies)

    def heed(self, paused: bool) -> None:
        """Somebody has paused the subscription, or resumed it: begin nothing, and give back what was not started.

        What was acknowledged when it came stays, and waits here.
        """
        self._stock.paused = paused
        if not paused:
            self._resumed.notify()
        elif not self._options.auto_ack:
            self._stock.clear_idle()
            self._room.notify()

    async def decline(self, leases: Sequence[Lease]) -> None:
        """Give back what has just come, behind what is to go back before it; see Valve."""
        await self._stock.decline(leases)

    @property
    def serving(self) -> bool:
        """Whether its handler gets events: it was started, not stopped, and no task of it has died."""
        tasks = (*self._tasks, *self._workers)
        return bool(self._tasks) and not self._stock.stopping and not any(task.done() for task in tasks)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job, name=f"wowevent:{self.id}")
        task.add_done_callback(self._report_death)
        return task

    def _report_death(self, task: asyncio.Task[None]) -> None:
        """A consumer's task ends only when it is told to; anything else must not go unseen."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("subscription stopped by an internal error", subscription=self.id, exc_info=error)

    # --- what the bus waits for ---------------------------------------------------------------------------------

    def expect(self, event_id: str, *, held: bool = False) -> bool:
        """This bus publishes an event that comes here; False if it is expected already.

        One that is `held` by a pause is expected by `join` alone: who stops does not know for how long.
        """
        return self._expected.add(event_id, held=held)

    def unexpect(self, event_id: str) -> None:
        """It does not come after all, or it is through."""
        self._expected.drop(event_id)

    def outstanding(self, *, retries: bool) -> bool:
        """Whether some expected event is not through: not handled once, or, with `retries`, not settled for good."""
        return self._expected.outstanding(retries=retries)

    async def drained(self, *, retries: bool) -> None:
        """Return once nothing is outstanding, here or with another member of the group."""
        if await self._expected.drained(retries=retries):
            await self._settler.flush()  # whoever asks the engine next finds what was waited for

    def _in_hand(self) -> int:
        """How many leases are here that the engine does not know to have ended."""
        return len(self._stock.held) + len(self._settler.outbox)

    # --- fetch --------------------------------------------------------------------------------------------------

    async def _fetching(self) -> None:
        pause = BACKOFF[0]
        while not self._stock.stopping:
            await self._gate.opened()
            room = self._free()
            if room <= 0:
                await self._room.wait()
                continue
            try:
                leases = await self._source.fetch(self.id, limit=room, wait=_WAIT)
            except Closed:
                return
            except PositionLost as lost:
                self.counts.lost += lost.lost or 0
                logger.error("subscription lost unread events", subscription=self.id, lost=lost.lost, error=lost)
                if not self._shared:
                    self._expected.clear()
                continue
            except SubscriptionNotFound:
                logger.warning("subscription was removed, its consumer ends", subscription=self.id)
                return
            except BrokerError as error:
                logger.error("subscription cannot be read now", subscription=self.id, error=error, retry_in=pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, BACKOFF[1])
                continue
            pause = BACKOFF[0]
            if leases:
                await self._take_in(leases)

    def _free(self) -> int:
        """How many more to lease."""
        return self._window.room(self._stock.counted - self._sieve.beside, idle=not len(self._stock.hand))

    def _make_room(self) -> None:
        """Something is held no longer."""
        if self._room.waiting and self._free() > 0:
            self._room.notify()

    async def _take_in(self, leases: Sequence[Lease]) -> None:
        stock = self._stock
        stock.take(leases)
        if self._sieve.active and stock.chains is None:
            leases = await self._sift(leases)
        if stock.stopping or stock.paused or self._gate.closed:
            await stock.decline(leases)
            return
        if self._options.auto_ack:
            await self._settler.send([Ack(lease.token) for lease in leases])
        stock.push(leases)

    async def _sift(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those that may be handled; those that a pause holds go back, and come again later.

        A backlog that is held is sifted in large pieces; what of them is free beyond the window is left to others.
        """
        held, free = self._sieve.sift(leases)
        for lease, retry in held:
            self._pass_by(lease)
            self._note_attempt(lease)
            self._stock.held.pop(lease.token, None)
            self._settler.put(retry)
        if held:
            await self._settler.flush()
            self._room.notify()
        room = max(0, self._window.size - len(self._stock.held) + len(free))
        await self._stock.decline(free[room:])
        return free[:room]

    # --- handle -------------------------------------------------------------------------------------------------

    async def _working(self) -> None:
        stock, hand, pace = self._stock, self._stock.hand, self._pace
        while True:
            if self._gate.closed:
                await self._gate.opened()
            if stock.paused:
                if stock.stopping:
                    return
                await self._resumed.wait()
                continue
            if pace is not None and len(hand):
                await pace.wait()  # nothing is popped before, so that it can be given back
                if self._gate.closed or stock.paused:  # meanwhile a suspect came: nothing else may start
                    continue
            lease = hand.pop()
            if lease is None:
                if stock.stopping:
                    return
                self._room.notify()
                await stock.arrived.wait()
                continue
            leases = [lease] if self._options.batch is None else self._fill(lease, self._options.batch)
            if pace is not None:
                pace.spend(len(leases))
            await self._handle(leases)

    def _fill(self, first: Lease, most: int) -> list[Lease]:
        """A batch around `first`; one that failed before goes alone, so that it takes no others with it."""
        batch = [first]
        while len(batch) < most and not first.failures and not first.crashes:
            lease = self._stock.hand.pop()
            if lease is None:
                break
            if lease.failures or lease.crashes:
                self._stock.hand.push(lease)
                break
            batch.append(lease)
        return batch

    async def _handle(self, leases: list[Lease]) -> None:
        if self._sieve.active and not self._options.auto_ack:  # what was acknowledged counts as begun
            leases = [lease for lease in leases if not self._hold(lease)]
        looked_at = self._judge.alert
        leases = [lease for lease in leases if (not looked_at and _is_plain(lease)) or self._worth_handling(lease)]
        if self._check is not None:
            leases = [lease for lease in leases if self._fits(lease, self._check)]
        if not leases:
            return
        if leases[0].crashes:
            async with self._gate.alone(self._options.lease) as alone:
                if alone and not self._stock.paused:
                    await self._run(leases)
                else:
                    self._pass_by(leases[0])
                    self._conclude(leases[0], GivenBack())
                await self._settler.flush()
            return
        await self._run(leases)

    def _hold(self, lease: Lease) -> bool:
        """Whether it is held by a pause; then it comes again later, and what follows it in its order waits for it."""
        retry = self._sieve.holding(lease)
        if retry is None:
            return False
        self._pass_by(lease)
        self._note_attempt(lease)
        if self._stock.chains is None:
            self._settle(lease, retry, final=False)
        else:
            self._stock.park(self._stock.chains, lease, retry)
            self._room.notify()
        return True

    def _worth_handling(self, lease: Lease) -> bool:
        """Settle at once what need not or must not reach the handler."""
        settlement = self._judge.beforehand(lease)
        if settlement is not None:
            self._pass_by(lease)
            self._settle(lease, settlement)
        return settlement is None

    def _pass_by(self, lease: Lease) -> None:
        """Tell who watches that the handler did not get it."""
        if self._observe is not None:
            self._observe([lease], 0.0, GivenBack())

    def _fits(self, lease: Lease, check: Callable[[Event], object]) -> bool:
        """Reject at once what is not as it was agreed to be."""
        try:
            check(lease.event)
        except ValidationError as error:
            self._pass_by(lease)
            self._conclude(lease, Rejected(printable(str(error)), "", Reason.VALIDATION_ERROR))
            return False
        return True

    async def _run(self, leases: list[Lease]) -> None:
        """One call of the handler, and what follows from it for each event of the call."""
        first = leases[0]
        events = [_as_seen(lease) for lease in leases]
        enter(self._delivery(first, events[0], 0 if len(leases) == 1 else max(event.hops for event in events)))
        self._gate.running += 1
        started = self._clock.monotonic()
        reply: Any = None
        try:
            if self._limit is None:
                reply = await self._handler(events if self._options.batch else events[0])
            else:
                with self._limit:
                    reply = await self._handler(events if self._options.batch else events[0])
            outcome: Outcome = _DONE
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                for lease in leases:
                    self._conclude(lease, GivenBack())
                raise
            outcome = outcome_of(error, self._options.timeout, self._clock.time())
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            outcome = outcome_of(error, self._options.timeout, self._clock.time())
        finally:
            self._gate.left()
            enter(None)
            took = self._clock.monotonic() - started
            self._window.adapt(took, len(leases))
        if outcome is _DONE:
            self._done(leases)
        else:
            for lease in leases:
                self._conclude(lease, outcome, took)
        if self._observe is not None and self._observe(leases, took, outcome):
            await self._stock.clear()
        if reply is not None and first.event.reply_to is not None and self._options.batch is None:
            await self._reply(first.event, reply, None)

    def _delivery(self, lease: Lease, event: Event, hops: int) -> Delivery:
        return Delivery(
            event,
            lease.failures + lease.crashes + 1,
            self.id,
            lease.position,
            False,
            lease.redelivered,
            lease.token,
            self._extend,
            hops=hops,
        )

    async def _extend(self, token: str, seconds: float) -> None:
        if token in self._stock.held:
            await self._settler.send([Extend(token, seconds)])

    def _done(self, leases: Sequence[Lease]) -> None:
        """All of them were handled: what `_settle` does with each, without what the common case need not look at."""
        self.counts.handled += len(leases)
        if self._stock.chains is not None or self._options.auto_ack:
            for lease in leases:
                self._settle(lease, Ack(lease.token))
            return
        held, outbox, expected = self._stock.held, self._settler.outbox, self._expected.ids
        for lease in leases:
            token = lease.token
            held.pop(token, None)
            outbox.append(Ack(token))
            if expected:
                expected.pop(lease.event.event_id, None)
        self._settler.wake()
        self._expected.tell()
        self._make_room()

    def _conclude(self, lease: Lease, outcome: Outcome, seconds: float = 0.0) -> None:
        """Settle one outcome."""
        settlement, chains = self._judge.verdict(lease, outcome, seconds), self._stock.chains
        if isinstance(outcome, Halted) and self._options.auto_ack:
            self._note_attempt(lease)
            self._stock.keep(lease)
        elif not isinstance(settlement, Retry):
            self._settle(lease, settlement)
        elif chains is None or isinstance(outcome, GivenBack | Halted):
            if not isinstance(outcome, GivenBack):
                self._note_attempt(lease)
            self._settle(lease, settlement, final=False)
        elif self._options.auto_ack:
            self._settle(lease, Ack(lease.token))
        else:
            self._note_attempt(lease)
            self._stock.hold_back(chains, lease, settlement)
            self._make_room()

    def _fail(self, request: Event, error: str) -> None:
        """Answer a request that failed for good."""
        task = self._spawn(self._reply(request, None, error))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    # --- settle -------------------------------------------------------------------------------------------------

    def _settle(self, lease: Lease, settlement: Settlement, *, final: bool = True) -> None:
        """The consumer is through with this lease; `final` if the subscription is through with the event."""
        self._stock.settle(lease, settlement)
        if self._expected.ids and (final or self._options.auto_ack):
            self._expected.drop(lease.event.event_id)
        self._make_room()

    def _announce(self, event: Event, bury: Bury) -> None:
        if self._buried is not None:
            self._settler.burials[bury.token] = partial(self._buried, self.id, event, bury)

    def _note_attempt(self, lease: Lease) -> None:
        self._expected.note(lease.event.event_id)


_DONE: Final = Done()


def _is_plain(lease: Lease) -> bool:
    """Whether there is nothing about it to be looked at before it is handled."""
    return lease.crashes == 0 and lease.event.ttl_seconds is None and not lease.event.hops


def _as_seen(lease: Lease) -> Event:
    """The event with the failures so far, which are not part of what is stored."""
    return lease.event if not lease.failures else structs.replace(lease.event, retry_count=lease.failures)
