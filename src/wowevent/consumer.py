"""fetch -> handle -> settle, with credit, for one subscription.

    fetcher   leases as many as there is credit for            -> hand
    workers   hand -> handler -> outcome -> retry.decide        -> outbox
    settler   what gathered in the outbox goes in one call
    keeper    extends the leases of what is held too long

Credit is adapted: a consumer holds what its handlers need for about a tenth of a second, so that slow handlers do not
hoard what other members of the group could do, and fast ones never wait for the engine.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from msgspec import Struct, structs

from wowevent.breaker import BreakerPolicy
from wowevent.broker import Ack, Attempt, Bury, Extend, Lease, Reason, Retry, Settlement, SubscriptionInfo
from wowevent.clock import Clock
from wowevent.delivery import Delivery, enter
from wowevent.errors import (
    BrokerError,
    BusError,
    Closed,
    PauseSubscription,
    PositionLost,
    Reject,
    RetryAfter,
    SubscriptionNotFound,
    ValidationError,
    printable,
)
from wowevent.event import Event
from wowevent.gate import Gate
from wowevent.hand import Chains, Lanes
from wowevent.handler import Handler
from wowevent.holds import Holds, Pause
from wowevent.judge import Counts, Judge
from wowevent.log import logger
from wowevent.retry import Done, Failed, GivenBack, Halted, Later, Outcome, Rejected, RetryPolicy
from wowevent.settler import BACKOFF, Settler, Source
from wowevent.storm import Guard
from wowevent.wakeup import Wakeup

_HOLD: Final = 0.1  # seconds of work to hold
_WAIT: Final = 60.0  # seconds that one fetch waits
_ASK: Final = 0.2  # seconds after which a drain asks the engine whether others did the rest
_ALIKE: Final = 3  # such answers in a row, between which nothing came
_SIFTED: Final = 16  # events of the first larger fetch where all are held
_PARKED: Final = 4096  # held events of an ordered subscription that are kept here beside its window


class Options(Struct, frozen=True, kw_only=True):
    """How one subscription is consumed."""

    policy: RetryPolicy | None
    """None: one attempt, whatever the event says."""
    concurrency: int = 1
    order_by: Callable[[Event], Any] | None = None
    rate: float | None = None
    """Events per second."""
    timeout: float | None = None
    lease: float = 30.0
    auto_ack: bool = False
    batch: int | None = None
    breaker: BreakerPolicy | None = None
    """None: it gets its events however badly it handles them."""
    dead_letters: bool = True
    """False: an event that used up its attempts is dropped, with an ERROR line."""
    max_age: float | None = None
    """Seconds after which an event is expired here, whatever its own TTL says."""
    prefetch: int = 512
    """Events to hold at most, those that are being handled among them."""


Observer = Callable[[Sequence[Lease], float, Outcome], bool]
"""`observe(leases, seconds, outcome)`: one call of the handler; True if what was not started is to be given back."""

Replier = Callable[[Event, Any, str | None], Coroutine[Any, Any, None]]
"""`reply(request, value, error)`: answer a request, with a value or with the handler's last error."""


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
    ) -> None:
        """`handler` takes an event, or a list of events with `options.batch`.

        `check(event)` raises ValidationError for one that the handler must not get. `info` asks the engine for the
        subscription's numbers, where other members of the group may share the work. `holds` says which events are
        paused, though others come. What the `guard` stops is buried; `buried(id, event, bury)` is told of each dead
        letter, once it is one.
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
        self._info = info
        self._holds = holds or Holds(clock)
        self._paused = False  # by hand; `heed` changes it
        self._parked = 0  # events of an ordered subscription that are held, and kept here
        self._sift = 0  # events to fetch beside the window, since all that came last was held
        self._chains = Chains(options.order_by) if options.order_by is not None else None
        self._hand: Lanes | Chains = Lanes() if self._chains is None else self._chains
        self._held: dict[str, float] = {}  # token -> when its lease was last renewed, oldest first
        self._expected: dict[str, bool] = {}  # ids published by this bus -> whether handled once
        self._least = max(options.concurrency, 2 * (options.batch or 0))
        self._most = max(options.prefetch, self._least)
        self._window = self._least if self._chains is None else self._most
        self._plenty = _HOLD * options.concurrency / self._most  # seconds: below, the window is at its largest
        self._average = 0.0
        self._next_slot = 0.0
        self._started = False
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._replies: set[asyncio.Task[None]] = set()
        self._taken = Wakeup()  # for the keeper: something is held
        self._arrived = Wakeup()  # for workers: the hand has something
        self._room = Wakeup()  # for the fetcher: there may be credit
        self._progress = Wakeup()  # for the bus: something expected is through
        self._slots = Wakeup()  # for workers that wait for the rate
        self._resumed = Wakeup()  # for workers of what was acknowledged already

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the subscription from here on; returns when the engine knows that somebody does. Twice is once."""
        if self._started:
            return
        self._started = True
        await self._source.fetch(self.id, limit=0, wait=0)
        self._gate.register(self._give_back)
        workers = 1 if self._options.batch else self._options.concurrency
        self._tasks = [
            self._spawn(self._fetching()),
            self._spawn(self._settler.run()),
            self._spawn(self._keeping()),
        ]
        self._workers = [self._spawn(self._working()) for _ in range(workers)]

    async def stop(self, timeout: float) -> None:
        """Fetch nothing further, let running handlers finish within `timeout` seconds, give the rest back."""
        if self._stopping:
            return
        self._stopping = self._settler.stopping = True
        try:
            await self._source.detach(self.id)
        except BusError as error:
            logger.warning("subscription could not be detached", subscription=self.id, error=error)
        if not self._tasks:
            return
        fetcher, settler, keeper = self._tasks
        self._room.notify()
        self._arrived.notify()
        self._slots.notify()
        self._resumed.notify()
        # A handler may cancel its own subscription: its worker ends, and the rest with it, when the handler returns.
        own = asyncio.current_task()
        others = [worker for worker in self._workers if worker is not own]
        try:
            self._let_idle_go()
            await self._settler.flush()
            await asyncio.wait([fetcher, *others], timeout=max(timeout, 0.01))
        finally:
            await _cancel(fetcher, *others)
            if len(others) == len(self._workers):
                await self._finish(keeper, settler)
            elif own is not None:
                own.add_done_callback(lambda _: self._tasks.append(self._spawn(self._finish(keeper, settler))))

    async def _finish(self, keeper: asyncio.Task[None], settler: asyncio.Task[None]) -> None:
        """Settle what the handlers left, and end what served them."""
        if self._replies:
            await asyncio.wait(self._replies, timeout=1.0)
        await self._give_back()
        self._gate.unregister(self._give_back)
        await _cancel(keeper, settler, *self._replies)
        self._progress.notify()

    def heed(self, paused: bool) -> None:
        """Somebody has paused the subscription, or resumed it: begin nothing, and give back what was not started.

        What was acknowledged when it came stays, and waits here.
        """
        self._paused = paused
        if not paused:
            self._resumed.notify()
        elif not self._options.auto_ack:
            self._let_idle_go()
            self._room.notify()

    def _let_idle_go(self) -> None:
        """What waits behind an event in a handler's hands follows that one: should it go back too, it goes first."""
        self._let_go(self._hand.clear_idle())

    @property
    def serving(self) -> bool:
        """Whether its handler gets events: it was started, not stopped, and no task of it has died."""
        return bool(self._tasks) and not self._stopping and not any(t.done() for t in (*self._tasks, *self._workers))

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
        if event_id in self._expected:
            return False
        self._expected[event_id] = held
        return True

    def unexpect(self, event_id: str) -> None:
        """It does not come after all, or it is through."""
        if self._expected.pop(event_id, None) is not None and self._progress.waiting:
            self._progress.notify()

    def outstanding(self, *, retries: bool) -> bool:
        """Whether some expected event is not through: not handled once, or, with `retries`, not settled for good."""
        return bool(self._expected) if retries else not all(self._expected.values())

    async def drained(self, *, retries: bool) -> None:
        """Return once nothing is outstanding, here or with another member of the group."""
        alike = 0
        while not self._stopping and self.outstanding(retries=retries):
            with suppress(TimeoutError):
                async with asyncio.timeout(_ASK):
                    await self._progress.wait()
                    alike = 0
                    continue
            elsewhere = await self._rest_is_elsewhere()
            alike = alike + 1 if elsewhere is None else 0
            if elsewhere or alike == _ALIKE:
                self._expected.clear()
        if not self._stopping:
            await self._settler.flush()  # whoever asks the engine next finds what was waited for

    async def _rest_is_elsewhere(self) -> bool | None:
        """Whether what is still expected was finished by other members of the group; None if they may have it in hand.

        Then it may as well be on its way to us, for a moment: a fetch has leased it, and has not returned.
        """
        if self._info is None:
            return False
        held = self._in_hand()
        info = await self._info(self.id)
        if info is None:
            return True
        if info.ready or info.delayed:
            return False
        if info.leased == 0:  # and not None: some engines cannot tell
            return True
        return False if held or self._in_hand() else None

    def _in_hand(self) -> int:
        """How many leases are here that the engine does not know to have ended."""
        return len(self._held) + len(self._settler.outbox)

    # --- fetch --------------------------------------------------------------------------------------------------

    async def _fetching(self) -> None:
        pause = BACKOFF[0]
        while not self._stopping:
            await self._gate.opened()
            credit = self._credit()
            if credit <= 0:
                await self._room.wait()
                continue
            try:
                leases = await self._source.fetch(self.id, limit=credit, wait=_WAIT)
            except Closed:
                return
            except PositionLost as lost:
                self.counts.lost += lost.lost or 0
                logger.error("subscription lost unread events", subscription=self.id, lost=lost.lost, error=lost)
                if self._info is None:  # a live one: nobody else has what was expected
                    self._expected.clear()
                    self._progress.notify()
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

    def _credit(self) -> int:
        """How many more to lease: up to the window, asked for once half of it is free."""
        room = self._window - len(self._held) + min(self._parked, _PARKED)
        if self._holds.active:
            room += self._sift
        return room if 2 * room >= self._window or not len(self._hand) else 0

    async def _take_in(self, leases: Sequence[Lease]) -> None:
        now = self._clock.monotonic()
        self._held.update(dict.fromkeys([lease.token for lease in leases], now))
        self._taken.notify()
        if self._holds.active and self._chains is None:
            leases = await self._without_held(leases)
        if self._stopping or self._gate.closed or self._paused:
            await self.decline(leases)
            return
        if self._options.auto_ack:
            await self._settler.send([Ack(lease.token) for lease in leases])
        for lease in leases:
            self._hand.push(lease)
        self._arrived.notify(len(leases))

    async def _without_held(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those that may be handled; those that a pause holds go back, and come again later.

        A backlog that is held is sifted in large pieces; what of them is free beyond the window is left to others.
        """
        held = [(lease, pause) for lease in leases if (pause := self._holds.holding(lease.event)) is not None]
        if held:
            for lease, _ in held:
                self._held.pop(lease.token, None)
                self._pass_by(lease)
                self._note_attempt(lease)
                self._settler.put(self._postponed(lease, pause))
            await self._settler.flush()
            self._room.notify()
        tokens = {lease.token for lease, _ in held}
        free = [lease for lease in leases if lease.token not in tokens]
        self._sift = 0 if free else min(max(_SIFTED, 2 * self._sift), self._most)
        room = max(0, self._window - len(self._held) + len(free))
        await self.decline(free[room:])
        return free[:room]

    def _postponed(self, lease: Lease, pause: Pause) -> Retry:
        return Retry(lease.token, self._holds.again(pause), charge=False)

    def _adapt(self, seconds: float, count: int) -> None:
        """Learn how long handlers take, and hold accordingly; the window grows by doubling only."""
        took = seconds / count
        self._average = 0.8 * self._average + 0.2 * took if self._average else took
        if self._chains is not None:
            return  # a key that waits must not keep the others from coming
        if self._window == self._most and self._average < self._plenty and self._options.rate is None:
            return
        want = int(_HOLD * self._options.concurrency / (self._average + 1e-7))
        if self._options.rate is not None:
            want = min(want, int(_HOLD * self._options.rate))
        self._window = max(self._least, min(want, 2 * self._window, self._most))

    # --- handle -------------------------------------------------------------------------------------------------

    async def _working(self) -> None:
        while True:
            if self._gate.closed:
                await self._gate.opened()
            if self._paused:
                if self._stopping:
                    return
                await self._resumed.wait()
                continue
            if self._options.rate is not None and len(self._hand):
                await self._slot()
                if self._gate.closed or self._paused:  # meanwhile a suspect came: nothing else may start
                    continue
            lease = self._hand.pop()
            if lease is None:
                if self._stopping:
                    return
                self._room.notify()
                await self._arrived.wait()
                continue
            leases = [lease] if self._options.batch is None else self._fill(lease, self._options.batch)
            if self._options.rate is not None:
                now = self._clock.monotonic()
                self._next_slot = max(self._next_slot, now) + len(leases) / self._options.rate
            await self._handle(leases)

    def _fill(self, first: Lease, most: int) -> list[Lease]:
        """A batch around `first`; one that failed before goes alone, so that it takes no others with it."""
        batch = [first]
        while len(batch) < most and not first.failures and not first.crashes:
            lease = self._hand.pop()
            if lease is None:
                break
            if lease.failures or lease.crashes:
                self._hand.push(lease)
                break
            batch.append(lease)
        return batch

    async def _handle(self, leases: list[Lease]) -> None:
        if self._holds.active and not self._options.auto_ack:  # what was acknowledged counts as begun
            leases = [lease for lease in leases if not self._hold(lease)]
        looked_at = self._judge.alert
        leases = [lease for lease in leases if (not looked_at and _is_plain(lease)) or self._worth_handling(lease)]
        if self._check is not None:
            leases = [lease for lease in leases if self._fits(lease, self._check)]
        if not leases:
            return
        if leases[0].crashes:
            async with self._gate.alone(self._options.lease) as alone:
                if alone and not self._paused:
                    await self._run(leases)
                else:
                    self._pass_by(leases[0])
                    self._conclude(leases[0], GivenBack())
                await self._settler.flush()
            return
        await self._run(leases)

    def _hold(self, lease: Lease) -> bool:
        """Whether it is held by a pause; then it comes again later, and what follows it in its order waits for it."""
        pause = self._holds.holding(lease.event)
        if pause is None:
            return False
        self._pass_by(lease)
        if self._chains is None:
            self._note_attempt(lease)
            self._settle(lease, self._postponed(lease, pause), final=False)
        else:
            self._park(self._chains, lease, self._postponed(lease, pause))
        return True

    def _park(self, chains: Chains, lease: Lease, retry: Retry) -> None:
        """Keep it here for a while; others may come beside it."""

        def over() -> None:
            self._parked -= 1

        self._parked += 1
        self._clock.call_later(retry.delay, over)
        self._hold_back(chains, lease, retry)
        self._room.notify()

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
            if self._options.timeout is None:
                reply = await self._handler(events if self._options.batch else events[0])
            else:
                async with asyncio.timeout(self._options.timeout):
                    reply = await self._handler(events if self._options.batch else events[0])
            outcome: Outcome = _DONE
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                for lease in leases:
                    self._conclude(lease, GivenBack())
                raise
            outcome = _failure(error, self._options.timeout, self._clock.time())
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            outcome = _failure(error, self._options.timeout, self._clock.time())
        finally:
            self._gate.left()
            enter(None)
            took = self._clock.monotonic() - started
            self._adapt(took, len(leases))
        if outcome is _DONE:
            self._done(leases)
        else:
            for lease in leases:
                self._conclude(lease, outcome)
        if self._observe is not None and self._observe(leases, took, outcome):
            await self._give_back()
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
        if token in self._held:
            await self._settler.send([Extend(token, seconds)])

    def _done(self, leases: Sequence[Lease]) -> None:
        """All of them were handled: what `_settle` does with each, without what the common case need not look at."""
        self.counts.handled += len(leases)
        if self._chains is not None or self._options.auto_ack:
            for lease in leases:
                self._settle(lease, Ack(lease.token))
            return
        held, outbox, expected = self._held, self._settler.outbox, self._expected
        for lease in leases:
            token = lease.token
            held.pop(token, None)
            outbox.append(Ack(token))
            if expected:
                expected.pop(lease.event.event_id, None)
        self._settler.wake()
        if self._progress.waiting:
            self._progress.notify()
        if self._room.waiting and self._credit() > 0:
            self._room.notify()

    def _conclude(self, lease: Lease, outcome: Outcome) -> None:
        """Settle one outcome."""
        settlement = self._judge.verdict(lease, outcome)
        if isinstance(outcome, Halted) and self._options.auto_ack:
            self._keep(lease)
        elif not isinstance(settlement, Retry):
            self._settle(lease, settlement)
        elif self._chains is not None and not isinstance(outcome, GivenBack | Halted):
            self._hold_back(self._chains, lease, settlement)
        else:
            if not isinstance(outcome, GivenBack):
                self._note_attempt(lease)
            self._settle(lease, settlement, final=False)

    def _keep(self, lease: Lease) -> None:
        """What the engine has no longer waits here, until the subscription goes on."""
        self._note_attempt(lease)
        if self._chains is None:
            self._hand.push(lease)
        else:
            self._chains.push_back(lease)
            self._chains.free(lease)

    def _hold_back(self, chains: Chains, lease: Lease, retry: Retry) -> None:
        """Keep a failed event of an ordered subscription, and with it the others of its key, until it is due."""
        if self._options.auto_ack:
            self._settle(lease, Ack(lease.token))
            return
        if self._stopping or self._paused:  # nothing waits here then, and what follows it goes back behind it
            self._note_attempt(lease)
            self._settle(lease, structs.replace(retry, delay=0.0), final=False)
            return
        if retry.charge:
            failed = Attempt(lease.failures + lease.crashes + 1, self._clock.time(), retry.error)
            lease = structs.replace(lease, failures=lease.failures + 1, attempts=(*lease.attempts, failed))
            self._settler.put(Extend(lease.token, self._options.lease, retry.error))
        self._note_attempt(lease)
        chains.push_back(lease)

        def due() -> None:
            chains.free(lease)
            self._arrived.notify(1)

        self._clock.call_later(retry.delay, due)

    def _fail(self, request: Event, error: str) -> None:
        """Answer a request that failed for good."""
        task = self._spawn(self._reply(request, None, error))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _slot(self) -> None:
        """Wait for the next moment that the rate allows; nothing is popped before, so that it can be given back."""
        while not self._stopping and (pause := self._next_slot - self._clock.monotonic()) > 0:
            timer = self._clock.call_later(pause, self._slots.notify)
            try:
                await self._slots.wait()
            finally:
                timer.cancel()

    # --- settle -------------------------------------------------------------------------------------------------

    def _settle(self, lease: Lease, settlement: Settlement, *, final: bool = True) -> None:
        """The consumer is through with this lease; `final` if the subscription is through with the event."""
        if self._chains is not None:
            self._chains.done(lease)
            self._arrived.notify(1)
        self._held.pop(lease.token, None)
        if not self._options.auto_ack:
            self._settler.put(settlement)
        if self._chains is not None and (self._stopping or (self._paused and not self._options.auto_ack)):
            self._let_idle_go()
        if self._expected and (final or self._options.auto_ack):
            self.unexpect(lease.event.event_id)
        if self._room.waiting and self._credit() > 0:
            self._room.notify()

    def _announce(self, event: Event, bury: Bury) -> None:
        if self._buried is not None:
            self._settler.burials[bury.token] = partial(self._buried, self.id, event, bury)

    def _note_attempt(self, lease: Lease) -> None:
        if lease.event.event_id in self._expected:
            self._expected[lease.event.event_id] = True
            self._progress.notify()

    def _let_go(self, leases: Sequence[Lease]) -> None:
        """Give back what was not started, with what else gathers. What was acknowledged when it came is gone."""
        for lease in leases:
            self._held.pop(lease.token, None)
            if not self._options.auto_ack:
                self._settler.put(Retry(lease.token, charge=False))

    async def decline(self, leases: Sequence[Lease]) -> None:
        """Give back what has just come, behind what is to go back before it."""
        if not leases:
            return
        if self._chains is None or self._options.auto_ack or self._gate.closed:
            for lease in leases:
                self._held.pop(lease.token, None)
            await self._settler.give_back(leases)
        else:
            self._held.update(dict.fromkeys([lease.token for lease in leases], self._clock.monotonic()))
            self._taken.notify()
            for lease in leases:
                self._chains.push(lease)
            self._let_idle_go()
            await self._settler.flush()

    async def _give_back(self) -> None:
        """Settle everything that was finished, and give back everything that was not started.

        What was acknowledged when it came stays: the engine has it no longer, and no crash is charged to it.
        """
        if self._stopping or not self._options.auto_ack:
            self._let_go(self._hand.clear())
        await self._settler.flush()

    async def _keeping(self) -> None:
        """Renew the leases of what is held for long: in a handler's hands, or waiting for one."""
        period = self._options.lease / 3
        while True:
            while not self._held:
                await self._taken.wait()
            await self._clock.sleep(period)
            now = self._clock.monotonic()
            old = [token for token, at in self._held.items() if now - at > period]
            for token in old:
                self._held[token] = now
            if old and not self._options.auto_ack:
                await self._settler.send([Extend(token, self._options.lease) for token in old])


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_DONE: Final = Done()


def _is_plain(lease: Lease) -> bool:
    """Whether there is nothing about it to be looked at before it is handled."""
    return lease.crashes == 0 and lease.event.ttl_seconds is None and not lease.event.hops


def _as_seen(lease: Lease) -> Event:
    """The event with the failures so far, which are not part of what is stored."""
    return lease.event if not lease.failures else structs.replace(lease.event, retry_count=lease.failures)


def _failure(error: BaseException, timeout: float | None, now: float) -> Outcome:
    """What an exception of a handler means; `now` in Unix seconds."""
    said = printable(str(error))
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    trace = printable("".join(traceback.format_exception(error)))
    match error:
        case RetryAfter():
            return Later(error.seconds)
        case PauseSubscription():
            return Halted(error.seconds(now), printable(error.reason))
        case Reject():
            return Rejected(said, trace)
        case ValidationError():
            return Rejected(said, trace, Reason.VALIDATION_ERROR)
        case TimeoutError() if timeout is not None:
            return Failed(text, trace, Reason.TIMEOUT)
        case _:
            return Failed(text, trace)
