"""Writes down what a broker answered, and changes none of it: what a handler cannot see is its own ack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.faults.journal import Journal, What, digest
from wowevent.broker import Ack, Broker, Bury, Extend, Lease, Retry, Settlement
from wowevent.event import Event


class Recorder:
    """A broker that keeps a journal of what was settled; everything else goes straight to the real one."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        *,
        before: Callable[[Settlement], None] | None = None,
        after: Callable[[Settlement], None] | None = None,
    ) -> None:
        """`before` and `after` are called around each settlement but Extend: a fault can strike there."""
        self._broker = broker
        self._journal = journal
        self._before = before
        self._after = after
        self._ids: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        """What is not recorded."""
        return getattr(self._broker, name)

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """Remember which event a token stands for."""
        leases = await self._broker.fetch(id, limit=limit, wait=wait)
        self._ids.update((lease.token, lease.event.event_id) for lease in leases)
        return leases

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """Settle, then write down what came of it. Where some were stale, each is asked for by itself."""
        told = [settlement for settlement in settlements if not isinstance(settlement, Extend)]
        if self._before is not None:
            for each in told:
                self._before(each)
        if self._before is None and self._after is None and len(told) > 1 and await self._all(id, settlements):
            return len(settlements)
        done = 0
        for settlement in settlements:
            settled = await self._broker.settle(id, [settlement])
            done += settled
            if not isinstance(settlement, Extend):
                self._journal.write(self._what(settlement) if settled else "stale", self._ids.get(settlement.token, ""))
                if self._after is not None:
                    self._after(settlement)
        return done

    async def _all(self, id: str, settlements: Sequence[Settlement]) -> bool:
        """In one call, which is what a bus does; False where a token is of a lease that may have ended."""
        done = await self._broker.settle(id, settlements)
        if done < len(settlements):
            # Those that were settled are stale from now on, so the truth about each is gone: say so, once for each.
            for each in settlements:
                self._journal.write("stale", self._ids.get(each.token, ""), note="of a batch")
            return True
        for settlement in settlements:
            if not isinstance(settlement, Extend):
                self._journal.write(self._what(settlement), self._ids.get(settlement.token, ""))
        return True

    @staticmethod
    def _what(settlement: Settlement) -> What:
        match settlement:
            case Ack():
                return "acked"
            case Bury():
                return "buried"
            case Retry():
                return "retried"
            case _:
                raise AssertionError(settlement)


def fingerprint(event: Event) -> str:
    """Of what the publisher wrote: payload and headers, byte by byte."""
    return digest(event.body, event.headers.items())
