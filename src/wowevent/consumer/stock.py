"""What a consumer holds: leases that wait for its handler, or are with it, until each is settled or goes back.

    fetched ──push──> hand ──pop──> handler ──settle──────────────────────> outbox
                       │  ▲            └─ hold_back, with `order_by`: it waits here, and its key behind it
                       │  └─ due ──────┘
                       └─ clear, paused, stopping ──> goes back uncharged ──> outbox

What goes back goes by the outbox, one call behind the other, since some engines bring it again in the order of its
return; and what waits behind an event of its key that the handler has goes back behind that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from wowevent.broker import Attempt, Extend, Lease, Retry, Settlement
from wowevent.clock import Clock
from wowevent.consumer.options import Options
from wowevent.gate import Gate
from wowevent.hand import Chains, Lanes
from wowevent.settler import Settler
from wowevent.wakeup import Wakeup

_PARKED: Final = 4096  # held events of an ordered subscription that are kept here beside its window


class Stock:
    """One subscription's."""

    def __init__(self, options: Options, settler: Settler, clock: Clock, gate: Gate) -> None:
        self.chains: Chains | None = Chains(options.order_by) if options.order_by is not None else None
        self.hand: Lanes | Chains = Lanes() if self.chains is None else self.chains
        """What waits for the handler."""
        self.held: dict[str, float] = {}
        """By token, when each lease was renewed last; oldest first. What waits and what the handler has."""
        self.paused: bool = False
        """By hand: nothing is begun."""
        self.stopping: bool = False
        self.arrived: Wakeup = Wakeup()
        """For workers: the hand has something."""
        self._acknowledged = options.auto_ack
        self._lease = options.lease
        self._settler = settler
        self._clock = clock
        self._gate = gate
        self._parked = 0
        self._taken = Wakeup()  # for the keeper: something is held

    # --- in -----------------------------------------------------------------------------------------------------

    @property
    def counted(self) -> int:
        """How many are held, but for those that are parked beside the window."""
        return len(self.held) - min(self._parked, _PARKED)

    def take(self, leases: Sequence[Lease]) -> None:
        """They are ours, and to be renewed."""
        now = self._clock.monotonic()
        self.held.update(dict.fromkeys([lease.token for lease in leases], now))
        self._taken.notify()

    def push(self, leases: Sequence[Lease]) -> None:
        """They wait for the handler."""
        for lease in leases:
            self.hand.push(lease)
        self.arrived.notify(len(leases))

    # --- back ---------------------------------------------------------------------------------------------------

    async def decline(self, leases: Sequence[Lease]) -> None:
        """Give back what has just come, behind what is to go back before it."""
        if not leases:
            return
        if self.chains is None or self._acknowledged or self._gate.closed:
            for lease in leases:
                self.held.pop(lease.token, None)
            await self._settler.give_back(leases)
        else:
            self.take(leases)
            for lease in leases:
                self.chains.push(lease)
            self.clear_idle()
            await self._settler.flush()

    def clear_idle(self) -> None:
        """Give back what was not started, but for what follows an event that the handler has: it goes after that."""
        self._let_go(self.hand.clear_idle())

    async def clear(self) -> None:
        """Give back everything that was not started; returns when all that was put so far is settled.

        What was acknowledged when it came stays unless it is stopped: the engine has it no longer, and no crash is
        charged to it.
        """
        if self.stopping or not self._acknowledged:
            self._let_go(self.hand.clear())
        await self._settler.flush()

    def _let_go(self, leases: Sequence[Lease]) -> None:
        """Uncharged. What was acknowledged when it came is gone."""
        for lease in leases:
            self.held.pop(lease.token, None)
            if not self._acknowledged:
                self._settler.put(Retry(lease.token, charge=False))

    # --- out ----------------------------------------------------------------------------------------------------

    def settle(self, lease: Lease, settlement: Settlement) -> None:
        """The handler is through with it, or never gets it."""
        if self.chains is not None:
            self.chains.done(lease)
            self.arrived.notify(1)
        self.held.pop(lease.token, None)
        if not self._acknowledged:
            self._settler.put(settlement)
        if self.chains is not None and (self.stopping or (self.paused and not self._acknowledged)):
            self.clear_idle()

    def keep(self, lease: Lease) -> None:
        """What the engine has no longer waits here, before others of its key."""
        if self.chains is None:
            self.hand.push(lease)
        else:
            self.chains.push_back(lease)
            self.chains.free(lease)

    def hold_back(self, chains: Chains, lease: Lease, retry: Retry) -> None:
        """Keep one of an ordered subscription, and with it the others of its key, until it is due."""
        if self.stopping or self.paused:  # nothing waits here then, and what follows it goes back behind it
            self.settle(lease, structs.replace(retry, delay=0.0))
            return
        if retry.charge:
            failed = Attempt(lease.failures + lease.crashes + 1, self._clock.time(), retry.error)
            lease = structs.replace(lease, failures=lease.failures + 1, attempts=(*lease.attempts, failed))
            self._settler.put(Extend(lease.token, self._lease, retry.error))
        chains.push_back(lease)

        def due() -> None:
            chains.free(lease)
            self.arrived.notify(1)

        self._clock.call_later(retry.delay, due)

    def park(self, chains: Chains, lease: Lease, retry: Retry) -> None:
        """Hold it back for a pause; others may come beside it."""

        def over() -> None:
            self._parked -= 1

        self._parked += 1
        self._clock.call_later(retry.delay, over)
        self.hold_back(chains, lease, retry)

    # --- meanwhile ----------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Until cancelled, extend the leases of what is held for long: with the handler, or waiting for it."""
        period = self._lease / 3
        while True:
            while not self.held:
                await self._taken.wait()
            await self._clock.sleep(period)
            now = self._clock.monotonic()
            old = [token for token, at in self.held.items() if now - at > period]
            for token in old:
                self.held[token] = now
            if old and not self._acknowledged:
                await self._settler.send([Extend(token, self._lease) for token in old])
