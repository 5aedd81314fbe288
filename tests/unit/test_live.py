"""Live subscriptions: an inbox each, bounded; what is dropped is counted and said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from wowevent import Event, PositionLost
from wowevent.broker import Ack, Bury, Extend, Lease, Position, Reason, Retry, Stored
from wowevent.live import CAPACITY, Inbox
from wowevent.testing import ManualClock, settle


def stored(n: int) -> Stored:
    return Stored(Event(topic="a", payload={"n": n}), Position("e", n), 0.0)


def inbox(since: int = 0, clock: ManualClock | None = None) -> Inbox:
    return Inbox("live", Position("e", since), clock or ManualClock())


async def take(box: Inbox, limit: int = 100) -> Sequence[Lease]:
    return await box.fetch("live", limit=limit, wait=0)


def numbers(leases: Sequence[Lease]) -> list[int]:
    return [lease.event.payload["n"] for lease in leases]


async def test_what_was_published_before_it_was_there_is_not_its():
    box = inbox(since=2)
    for n in range(1, 5):
        box.put(stored(n))
    assert numbers(await take(box)) == [3, 4]


async def test_a_fetch_takes_up_to_its_limit_and_waits_for_news():
    box = inbox()
    fetch = asyncio.create_task(box.fetch("live", limit=2, wait=60))
    await settle()
    assert not fetch.done()
    for n in range(1, 4):
        box.put(stored(n))
    assert numbers(await fetch) == [1, 2]
    assert numbers(await box.fetch("live", limit=0, wait=60)) == []
    assert numbers(await take(box)) == [3]


async def test_what_is_given_back_keeps_its_order():
    box = inbox()
    for n in range(1, 5):
        box.put(stored(n))
    leases = await take(box, 3)
    await box.settle("live", [Retry(lease.token, charge=False) for lease in leases])
    again = await take(box)
    assert numbers(again) == [1, 2, 3, 4]
    assert [lease.failures for lease in again] == [0, 0, 0, 0]


async def test_what_is_given_back_later_goes_behind_what_was_before():
    box = inbox()
    for n in range(1, 6):
        box.put(stored(n))
    leases = await take(box, 4)
    for part in (leases[1:3], leases[3:], leases[:1]):
        await box.settle("live", [Retry(lease.token, charge=False) for lease in part])
    assert numbers(await take(box)) == [1, 2, 3, 4, 5]


async def test_a_retry_comes_when_it_is_due_with_its_attempts():
    clock = ManualClock()
    box = inbox(clock=clock)
    box.put(stored(1))
    (lease,) = await take(box)
    await box.settle("live", [Retry(lease.token, 5, "first")])
    await clock.advance(4)
    assert not await take(box)
    await clock.advance(2)
    (lease,) = await take(box)
    assert (lease.failures, [(a.number, a.error) for a in lease.attempts]) == (1, [(1, "first")])


@pytest.mark.parametrize("settlement", [Ack, lambda token: Bury(token, Reason.REJECTED, "x")], ids=["ack", "bury"])
async def test_what_is_settled_is_gone(settlement):
    box = inbox()
    box.put(stored(1))
    (lease,) = await take(box)
    await box.settle("live", [Extend(lease.token, 5), settlement(lease.token)])
    await box.settle("live", [Retry(lease.token)])
    assert not await take(box)


async def test_what_does_not_fit_is_dropped_and_told_once(caplog: pytest.LogCaptureFixture):
    box = inbox()
    for n in range(1, CAPACITY + 4):
        box.put(stored(n))
    assert box.dropped == 3
    assert caplog.text.count("too slow") == 1
    with pytest.raises(PositionLost) as caught:
        await take(box)
    assert caught.value.lost == 3
    found = await take(box, CAPACITY)
    assert numbers(found) == list(range(1, CAPACITY + 1))
    box.put(stored(CAPACITY + 9))
    assert numbers(await take(box)) == [CAPACITY + 9]


async def test_detaching_wakes_who_waits_and_takes_nothing_back():
    clock = ManualClock()
    box = inbox(clock=clock)
    box.put(stored(1))
    (lease,) = await take(box)
    fetch = asyncio.create_task(box.fetch("live", limit=1, wait=60))
    await settle()
    await box.detach("live")
    assert list(await fetch) == []
    await box.settle("live", [Retry(lease.token, charge=False)])
    assert list(await box.fetch("live", limit=1, wait=60)) == []
