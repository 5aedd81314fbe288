"""The parts of a consumer, each alone: what it waits for, what a pause holds of a fetch, the rate, what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from wowevent import Event, PauseSubscription, Reject, RetryAfter, ValidationError
from wowevent.broker import Extend, Lease, Reason, Retry, Settlement, Subscription, SubscriptionInfo
from wowevent.consumer.expected import Expected
from wowevent.consumer.failure import outcome_of
from wowevent.consumer.options import Options
from wowevent.consumer.pace import Pace
from wowevent.consumer.sieve import Sieve
from wowevent.consumer.stock import Stock
from wowevent.gate import Gate
from wowevent.holds import Holds, Pause
from wowevent.judge import Counts
from wowevent.retry import Failed, Halted, Later, Rejected
from wowevent.settler import Settler
from wowevent.testing import ManualClock, settle


def lease(topic: str, name: str = "t") -> Lease:
    return Lease(event=Event(topic=topic), token=name, position=None)


# --- what a bus waits for ---------------------------------------------------------------------------------------------


def info(**numbers: Any) -> SubscriptionInfo:
    return SubscriptionInfo(subscription=Subscription(id="s", patterns=("#",)), **numbers)


@pytest.mark.parametrize(
    ("answer", "in_hand", "over"),
    [
        (None, 0, True),
        (info(ready=1), 0, False),
        (info(delayed=1), 0, False),
        (info(leased=0), 1, True),
        (info(leased=1), 1, False),
        (info(leased=None), 0, True),
        (info(leased=None), 1, False),
    ],
    ids=["removed", "ready", "delayed", "none leased", "leased here", "maybe elsewhere, three times", "here"],
)
async def test_what_others_of_the_group_did_is_waited_for_no_longer(
    answer: SubscriptionInfo | None, in_hand: int, over: bool
):
    async def ask() -> SubscriptionInfo | None:
        return answer

    expected = Expected(lambda: in_hand, ask)
    expected.add("a", held=False)
    waiting = asyncio.create_task(expected.drained(retries=False))
    done, _ = await asyncio.wait([waiting], timeout=0.9)
    assert bool(done) is over
    expected.close()
    assert await waiting is False or over


async def test_handled_once_is_enough_unless_retries_are_waited_for_too():
    expected = Expected(lambda: 0, None)
    assert expected.add("a", held=False)
    assert not expected.add("a", held=False)
    expected.note("a")
    assert (expected.outstanding(retries=False), expected.outstanding(retries=True)) == (False, True)
    expected.drop("a")
    assert await expected.drained(retries=True)


# --- a pause of single events -----------------------------------------------------------------------------------------


def test_what_is_held_is_sifted_out_and_a_backlog_of_it_in_growing_pieces():
    clock = ManualClock()
    holds = Holds(clock)
    sieve = Sieve(holds, 40)
    assert not sieve.active
    holds.put(Pause(scope="topic", name="held", since=clock.time()))
    (held,), (free,) = sieve.sift([lease("held", "h"), lease("free", "f")])
    assert (held[1], free.token, sieve.beside) == (Retry("h", 1.0, charge=False), "f", 0)
    pieces = []
    for _ in range(3):
        sieve.sift([lease("held")])
        pieces.append(sieve.beside)
    assert pieces == [16, 32, 40]
    sieve.sift([lease("free")])
    assert sieve.beside == 0


# --- the rate ---------------------------------------------------------------------------------------------------------


async def test_a_rate_is_kept_evenly_and_who_stops_does_not_wait():
    clock = ManualClock()
    pace = Pace(10.0, clock)
    await pace.wait()
    pace.spend(2)
    waiting = asyncio.create_task(pace.wait())
    await clock.advance(0.19)
    assert not waiting.done()
    await clock.advance(0.02)
    assert waiting.done()
    pace.spend(100)
    waiting = asyncio.create_task(pace.wait())
    await settle()
    pace.stop()
    await waiting


# --- what is held -----------------------------------------------------------------------------------------------------


class Sink:
    """Notes what is settled."""

    def __init__(self) -> None:
        self.settled: list[Settlement] = []

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        self.settled += settlements
        return len(settlements)

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        return []

    async def detach(self, id: str) -> None: ...


async def test_what_is_held_for_long_is_renewed():
    clock, sink = ManualClock(), Sink()
    settler = Settler("s", sink, lease=30, clock=clock, counts=Counts())
    stock = Stock(Options(policy=None), settler, clock, Gate())
    keeper = asyncio.create_task(stock.renew())
    stock.take([lease("a")])
    await clock.advance(30.5)
    assert Extend("t", 30.0) in sink.settled
    keeper.cancel()


async def test_for_a_suspect_everything_goes_back_at_once():
    """Of an ordered subscription too: what is held would crash with it."""
    clock, sink, gate = ManualClock(), Sink(), Gate()
    settler = Settler("s", sink, lease=30, clock=clock, counts=Counts())
    running = asyncio.create_task(settler.run())
    stock = Stock(Options(policy=None, order_by=lambda event: event.topic), settler, clock, gate)
    stock.take([lease("a", "a0"), lease("a", "a1")])
    stock.push([lease("a", "a0"), lease("a", "a1")])
    assert stock.hand.pop() is not None
    gate.closed = True
    await stock.clear()
    await stock.decline([lease("a", "a2")])
    assert [each.token for each in sink.settled] == ["a1", "a2"]
    running.cancel()


# --- what an exception means ------------------------------------------------------------------------------------------


def test_what_a_handler_raises_is_an_outcome():
    now = 1_000.0
    assert outcome_of(RetryAfter(3), None, now) == Later(3.0)
    assert outcome_of(PauseSubscription(60, "quota"), None, now) == Halted(60.0, "quota")
    found = [
        outcome_of(error, 1.0, now) for error in (Reject("no"), ValidationError("x"), TimeoutError(), OSError("x"))
    ]
    assert [(type(each), getattr(each, "reason", None)) for each in found] == [
        (Rejected, Reason.REJECTED),
        (Rejected, Reason.VALIDATION_ERROR),
        (Failed, Reason.TIMEOUT),
        (Failed, Reason.HANDLER_ERROR),
    ]
    assert isinstance(outcome_of(TimeoutError(), None, now), Failed)
