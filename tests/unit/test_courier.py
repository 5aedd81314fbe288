"""A courier and its seats: what a fetch brings as a pause begins, and who is given an event under suspicion."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from wowevent import Event, RetryPolicy
from wowevent.broker import Lease, Position, Settlement, Subscription
from wowevent.holds import Holds, Pause
from wowevent.metrics import EventMetrics
from wowevent.retry import GivenBack
from wowevent.router.courier import Courier, Seat
from wowevent.tally import Tally
from wowevent.testing import ManualClock, settle
from wowevent.trail import Trail
from wowevent.valve import Valve
from wowevent.wakeup import Wakeup


class Source:
    """Hands out leases one fetch after the other; the first settlement waits until it is let, others overtake it."""

    def __init__(self) -> None:
        self.settled: list[str] = []
        self.let = asyncio.Event()
        self._waits = True
        self._left: list[Lease] = []
        self._news = Wakeup()

    def bring(self, *tokens: str, crashes: int = 0) -> None:
        """A fetch that is under way has these."""
        self._left += [Lease(event=Event(topic="a"), token=token, position=None, crashes=crashes) for token in tokens]
        self._news.notify()

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        while limit and not self._left:
            await self._news.wait()
        found, self._left = self._left[:limit], self._left[limit:]
        return found

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        if self._waits:
            self._waits = False
            await self.let.wait()
        self.settled += [each.token for each in settlements]
        return len(settlements)

    async def detach(self, id: str) -> None: ...


class Client:
    """Takes what it gets, and says nothing."""

    batch = True
    owner = None

    def __init__(self, *, congested: bool = False) -> None:
        self.congested = congested
        self.outstanding = 0
        self.reserved = False
        self.idle = Wakeup()

    def hears(self, event: Event) -> bool:
        return True

    def release(self) -> None: ...
    def asked(self, request: Event) -> None: ...
    def push(self, data: bytes, events: int, position: Position | None) -> None: ...


def nothing(*_: Any) -> None: ...


def served(source: Source) -> tuple[Courier, Valve, ManualClock]:
    """A courier that takes from it."""
    clock = ManualClock()
    valve = Valve("s", source, clock)
    spec = Subscription(id="s", patterns=("#",))
    tally = Tally(spec, EventMetrics().meter("s", ""), valve, Trail(clock.time))
    courier = Courier(
        spec, RetryPolicy(), tally, clock=clock, lasting=True,
        holds=Holds(clock), fail=nothing, guard=None, abandoned=nothing, removed=nothing, buried=nothing,
    )  # fmt: skip
    return courier, valve, clock


async def test_what_comes_as_a_pause_begins_goes_back_behind_what_a_client_gave_back() -> None:
    source = Source()
    courier, valve, clock = served(source)
    await courier.start(courier.spec)
    seat = Seat(Client(), "s", "here", 10)
    courier.join(seat, [], RetryPolicy())
    await settle()
    source.bring("first")
    await settle()
    assert [*seat.held] == ["first"]
    valve.pause(Pause(scope="subscription", name="s", since=clock.time()))
    courier.settle(seat, ["first"], GivenBack())
    source.bring("second")
    await settle()
    assert source.settled == []
    source.let.set()
    await settle()
    assert source.settled == ["first", "second"]
    await courier.stop()


@pytest.mark.parametrize("instance", ["here", "there"])
async def test_a_suspect_goes_to_nobody_who_would_not_get_it(instance: str) -> None:
    """Neither to a connection that its client has replaced, nor to one that does not read, or is on its way out."""
    source = Source()
    courier, _, _ = served(source)
    await courier.start(courier.spec)
    before = Seat(Client(congested=instance == "there"), "s", "here", 10)
    courier.join(before, [], RetryPolicy())
    seat = Seat(Client(), "s", instance, 10)
    courier.join(seat, [], RetryPolicy())
    await settle()
    source.bring("suspect", crashes=1)
    await settle()
    assert (list(before.held), list(seat.held)) == ([], ["suspect"])
    source.let.set()
    await courier.stop()
