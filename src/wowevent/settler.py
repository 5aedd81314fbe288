"""Settlements on their way to the engine: what gathers while one call is out goes in the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from wowevent.broker import Lease, Retry, Settlement
from wowevent.clock import Clock
from wowevent.errors import BrokerError, Closed, SubscriptionNotFound
from wowevent.judge import Counts
from wowevent.log import logger
from wowevent.wakeup import Wakeup

BACKOFF: Final = (0.05, 5.0)
"""Seconds, first and longest pause when the engine is in trouble."""


class Source(Protocol):
    """What hands out leases: a broker, or what a live subscription brings of its own."""

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Broker."""
        ...

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Broker."""
        ...

    async def detach(self, id: str) -> None:
        """See Broker."""
        ...


class Settler:
    """One subscription's settlements."""

    def __init__(self, id: str, source: Source, *, lease: float, clock: Clock, counts: Counts) -> None:
        """`lease` seconds are how long a call is tried again: then the leases must have ended anyway."""
        self.outbox: list[Settlement] = []
        """What was not sent yet; `wake` after appending."""
        self.stopping: bool = False
        """True: trouble of the engine is waited out no longer."""
        self.burials: dict[str, Callable[[], object]] = {}
        """By token, what is to be called once it is buried."""
        self._id = id
        self._source = source
        self._lease = lease
        self._clock = clock
        self._counts = counts
        self._sending = False
        self._filled = Wakeup()
        self._empty = Wakeup()

    def put(self, settlement: Settlement) -> None:
        """Send it with the next call."""
        self.outbox.append(settlement)
        self.wake()

    def wake(self) -> None:
        """Something is in the outbox."""
        if self._filled.waiting:
            self._filled.notify()

    async def run(self) -> None:
        """Send what gathers, one call at a time, until cancelled."""
        while True:
            if not self.outbox:
                self._empty.notify()
                await self._filled.wait()
            batch, self.outbox = self.outbox, []
            self._sending = True
            try:
                await self.send(batch)
            finally:
                self._sending = False

    async def give_back(self, leases: Sequence[Lease]) -> None:
        """Uncharged, and behind what was put before: some engines bring it again in the order of its return."""
        self.outbox += [Retry(lease.token, charge=False) for lease in leases]
        self.wake()
        await self.flush()

    async def flush(self) -> None:
        """Return once everything put so far is settled."""
        while self.outbox or self._sending:
            await self._empty.wait()

    async def send(self, settlements: Sequence[Settlement]) -> int:
        """Settle now; while the engine is in trouble, again and again. Returns how many came in time."""
        done = await self._send(settlements)
        if self.burials:
            self._announce(settlements, done)
        return done

    def _announce(self, settlements: Sequence[Settlement], done: int) -> None:
        """Of several of which some came too late nobody knows which: rather told once too often than not at all."""
        for settlement in settlements:
            announce = self.burials.pop(settlement.token, None)
            if announce is not None and done:
                announce()

    async def _send(self, settlements: Sequence[Settlement]) -> int:
        until = self._clock.monotonic() + self._lease
        pause = BACKOFF[0]
        while True:
            try:
                done = await self._source.settle(self._id, settlements)
            except (Closed, SubscriptionNotFound):
                return 0
            except BrokerError as error:
                if not error.retryable or self.stopping or self._clock.monotonic() > until:
                    logger.error(
                        "delivery could not be settled, it will come again", subscription=self._id, error=error
                    )
                    return 0
                await self._clock.sleep(pause)
                pause = min(pause * 2, BACKOFF[1])
                continue
            if done < len(settlements):
                self._counts.stale += len(settlements) - done
                logger.warning("delivery settled too late", subscription=self._id, stale=len(settlements) - done)
            return done
