"""What is delayed on NATS: who sends it on, when, and that he does it once."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, declare, event, has, later, numbers, read, take, take_one
from tests.engines.nats.own import gather, kill, link_of, opened, session_of, stranger, unanswered
from wowevent.broker import Retry
from wowevent.brokers.nats import NatsBroker
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.tags import copied, tag_of
from wowevent.tag import Tag


async def test_what_cannot_be_read_among_the_delayed_holds_up_nothing_and_is_tried_seldom(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    prefix = broker._names.prefix
    now = rig.clock.time()
    async with stranger() as link:
        await link.store(
            [
                Message(f"{prefix}l.e.x", b"hello"),
                Message(f"{prefix}l.e.y", b"hello", b"Wow: \xff\r\n"),
                copied(f"{prefix}l.e.z", b"hello", Tag(at=now, due=now, leaving=True)),
                copied(f"{prefix}l.r.w.x", b"hello", Tag(at=now, due=now, target="x")),
                copied(f"{prefix}l.r.w.y", b"hello", Tag(at=now, due=now, target="$JS.API.INFO x 0\r\n\r\nPUB y")),
                copied(f"{prefix}l.r.w.z", b"hello", Tag(at=now, due=now, target=f"{prefix}a.x.y z.n")),
            ]
        )
    await broker.publish([later(rig, 5, 1)])
    await rig.advance(6)
    assert numbers(await gather(broker, 1)) == [1]
    waiting = session_of(broker).delays
    await eventually(lambda: len(waiting._due) == 6)
    assert min(due for due, _ in waiting._due) > rig.clock.time() + 500
    await rig.advance(700)
    await broker.publish([later(rig, 5, 2)])
    await rig.advance(6)
    assert numbers(await gather(broker, 1)) == [2]
    assert len(waiting._due) == 6


@pytest.mark.parametrize("claimed", [False, True])
async def test_the_next_one_sends_on_what_is_delayed_when_the_first_is_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, claimed: bool
) -> None:
    first = opened(rig)
    await declare(first)
    sent = [later(rig, 60, n, event_id=f"e-{n}") for n in range(20)]
    await first.publish(sent)
    await first.publish([event(n=20)])
    await first.settle(WORKER, [Retry((await take_one(first)).token, 60.0, "once")])
    second = opened(rig)
    await second.open()
    assert session_of(second).delays._follower is None
    if claimed:
        monkeypatch.setattr(link_of(first), "store", unanswered)
        await rig.advance(61)
        assert not await second.cancel("e-3")  # it cannot be taken back any more
        assert numbers(await read(second)) == [20]
    kill(first)
    await eventually(lambda: session_of(second).delays._follower is not None, 3)
    await rig.advance(61)
    await eventually(lambda: has(second, 21))
    found = await gather(second, 21)
    assert sorted(numbers(found)) == list(range(21))
    assert {lease.failures for lease in found if lease.event.payload["n"] == 20} == {1}
    await rig.advance(61)
    assert not await take(second)
    assert sorted(numbers(await read(second))) == list(range(21))


async def test_who_was_away_while_another_one_sent_on_sends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish([event(n=1), later(rig, 30, 2)])
    await one.settle(WORKER, [Retry((await take_one(one)).token, 30.0, "once")])
    await two.open()
    here, link = session_of(one).delays, link_of(one)
    assert here._watching is not None
    here._watching.cancel()  # as one that is stopped: it neither says that it is here nor hears of the other
    publish, store = link.publish, link.store
    sent: list[Message] = []
    claimed, goes_on = asyncio.Event(), asyncio.Event()

    async def waits(messages: Sequence[Message]) -> Any:
        confirms = await publish(messages)
        claimed.set()
        await goes_on.wait()
        return confirms

    async def noted(messages: Sequence[Message]) -> Any:
        sent.extend(messages)
        return await store(messages)

    with monkeypatch.context() as patch:
        patch.setattr(link, "publish", waits)
        patch.setattr(link, "store", noted)
        await rig.clock.advance(31)
        await asyncio.wait_for(claimed.wait(), 5)
        await eventually(lambda: session_of(two).delays._follower is not None, 3)
        assert sorted(numbers(await gather(two, 2))) == [1, 2]
        goes_on.set()
        assert here._releasing is not None
        await asyncio.wait([here._releasing])
    assert [each for each in sent if ".i." not in each.subject] == []


async def test_the_next_one_has_what_is_delayed_at_once_when_the_first_closes(rig: Rig) -> None:
    first, second = opened(rig), opened(rig)
    await first.publish([later(rig, 60, n) for n in range(3)])
    await second.open()
    await first.close()
    await eventually(lambda: len(session_of(second).delays._due) == 3)


async def test_what_is_cancelled_before_it_is_claimed_does_not_leave(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, other = opened(rig), opened(rig)
    await broker.publish([later(rig, 5, 1, event_id="e-1"), later(rig, 5, 2, event_id="e-2")])
    link = link_of(broker)
    publish = link.publish
    held = asyncio.Event()

    async def waits(messages: Sequence[Message]) -> Any:
        if any(tag_of(b"NATS/1.0\r\n" + each.headers + b"\r\n").leaving for each in messages):
            held.set()
            assert await other.cancel("e-1")  # between the look and the claim
        return await publish(messages)

    monkeypatch.setattr(link, "publish", waits)
    await rig.advance(6)
    await asyncio.wait_for(held.wait(), 5)
    await eventually(lambda: has(other, 1))
    await rig.advance(5)
    assert numbers(await read(other)) == [2]
    assert not await other.cancel("e-2")


async def test_what_left_between_others_cannot_be_cancelled(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish([later(rig, 60, n, event_id=f"e-{n}") for n in range(3)])
    delays, names = session_of(broker).delays, broker._names
    found = await link_of(broker).get(names.later, subject=names.held("e-1"))
    assert found is not None
    assert await delays._delete(found.seq)
    assert not await delays._delete(found.seq)  # of a hole the server says something else than of what never was
    assert not await delays._delete(found.seq + 100)
    assert await delays._delete(found.seq + 1)
    assert not await delays._delete(found.seq + 1)


async def test_what_is_cancelled_by_one_of_two_while_it_is_due_never_comes(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await two.open()
    await one.publish([later(rig, 10, n, event_id=f"e-{n}") for n in range(30)])

    async def cancel(broker: NatsBroker, n: int) -> int | None:
        await asyncio.sleep(n / 1000)
        return n if await broker.cancel(f"e-{n}") else None

    await rig.clock.advance(9.9)
    tries = [cancel(broker, n) for n in range(30) for broker in (one, two)]
    *said, _ = await asyncio.gather(*tries, rig.advance(1))
    cancelled = [n for n in said if n is not None]
    assert len(cancelled) == len(set(cancelled))  # of two who cancel, one is told that it did
    wanted = sorted(set(range(30)) - set(cancelled))
    await eventually(lambda: has(two, len(wanted)))
    await rig.advance(5)
    assert sorted(numbers(await read(two))) == wanted
