"""Who is killed on NATS: what he held, what he was moving, and who gets it then."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, acknowledge, declare, event, events, numbers, take, take_all, take_one
from tests.engines.nats.own import TOPIC, by_a_line, cut, gather, kill, link_of, opened, session_of, unanswered
from wowevent import Event
from wowevent.broker import Bury, DeadQuery, Extend, Lease, Reason, Retry, Settlement
from wowevent.brokers.nats import NatsBroker
from wowevent.codec import encode
from wowevent.errors import BrokerUnavailable, PayloadTooLarge


@pytest.mark.usefixtures("quick")
async def test_what_a_killed_instance_had_comes_again_as_suspects_each_alone(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish([event(n=0), event(n=1, priority=9), event(n=2)])
    assert len(await take(one)) == 3
    await two.publish([event(n=3)])
    kill(one)
    found = await gather(two, 4)
    assert numbers(found)[:1] == [3]
    assert {(lease.event.payload["n"], lease.crashes) for lease in found} == {(0, 1), (1, 1), (2, 1), (3, 0)}
    assert [each.error for lease in found[1:] for each in lease.attempts] == ["the lease ended unsettled"] * 3


@pytest.mark.usefixtures("quick")
async def test_each_instance_that_it_kills_is_a_crash(rig: Rig) -> None:
    last = opened(rig)
    await declare(last, lease=1.0)
    await last.publish([event()])
    for crashes in range(3):
        doomed = opened(rig)
        found: list[Lease] = []

        async def comes(doomed: NatsBroker = doomed, found: list[Lease] = found) -> bool:
            found += await take(doomed)
            return bool(found)

        await eventually(comes)
        assert [lease.crashes for lease in found] == [crashes]
        kill(doomed)
    assert [lease.crashes for lease in await gather(last, 1)] == [3]


@pytest.mark.usefixtures("quick")
async def test_fetches_at_the_same_time_look_into_a_crash_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish(events(6))
    assert len(await take(one)) == 6
    kill(one)
    await two.fetch(WORKER, limit=0, wait=0)
    serving = session_of(two).serving(WORKER)
    asked = serving._successors.gone_on

    async def slowly(*args: Any) -> bool:
        await asyncio.sleep(0.05)
        return await asked(*args)

    monkeypatch.setattr(serving._successors, "gone_on", slowly)
    found: list[Lease] = []

    async def more() -> bool:
        for leases in await asyncio.gather(*(take(two) for _ in range(3))):
            assert len(leases) <= 1  # a suspect comes alone
            found.extend(leases)
            await acknowledge(two, leases)
        return len(found) >= 6

    await eventually(more)
    assert sorted(numbers(found)) == [0, 1, 2, 3, 4, 5]
    assert {lease.crashes for lease in found} == {1}


async def test_leases_outlast_a_line_that_broke(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    leases = list(await take(broker))
    for n in (0, 1):  # what comes once more, too
        await broker.settle(WORKER, [Retry(leases[n].token)])
    leases = [*leases[2:], *await take(broker)]
    for _ in range(3):
        cut(broker)
        await broker.ping()
    retried, done = leases[0], leases[1:]
    assert await broker.settle(WORKER, [Retry(retried.token, error="once")]) == 1
    assert await acknowledge(broker, done) == 5
    cut(broker)
    found = await take_all(other)
    assert [(lease.failures, lease.crashes) for lease in found] == [(1, 0)]
    assert (await broker.subscriptions())[0].leased == 0


@pytest.mark.usefixtures("quick")
async def test_leases_are_ours_as_long_as_the_server_hears_so(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish(events(3))
    (lease,) = await take(broker, limit=1)
    waiting = asyncio.create_task(broker.fetch(WORKER, limit=2, wait=60))
    leases = await waiting
    await asyncio.sleep(5)
    assert not await take(other)
    assert await acknowledge(broker, [lease, *leases]) == 3


@pytest.mark.usefixtures("quick")
async def test_a_lease_that_was_cut_short_elsewhere_is_looked_after_in_time(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, lease=30.0)
    await broker.publish([event()])
    lease = await take_one(broker)
    await declare(other, lease=1.0)
    await broker.ping()
    await asyncio.sleep(4)
    assert not await take(other)
    assert await acknowledge(broker, [lease]) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["asleep", "unheard"])
async def test_a_late_answer_is_refused(rig: Rig, how: str) -> None:
    other = opened(rig)
    async with by_a_line(rig) as (broker, proxy):
        await declare(broker, lease=1.0)
        await broker.publish([event()])
        lease = await take_one(broker)
        if how == "asleep":
            ticking = session_of(broker)._ticking
            assert ticking is not None
            ticking.cancel()
        else:
            proxy.stop_passing()
        found: list[Lease] = []

        async def comes() -> bool:
            found.extend(await take(other))
            return bool(found)

        await eventually(comes)
        proxy.pass_on()
        assert [each.crashes for each in found] == [1]
        assert await broker.settle(WORKER, [Retry(lease.token), Extend(lease.token, 5.0)]) == 0
        assert await acknowledge(broker, [lease]) == 0
        assert await acknowledge(other, found) == 1
        await asyncio.sleep(2.5)
        assert not await take(broker)
        assert not await take(other)


SUCCESSORS: dict[str, Any] = {
    "retry": lambda token: Retry(token, error="once"),
    "retry later": lambda token: Retry(token, 5.0, "once"),
    "give back": lambda token: Retry(token, charge=False),
    "bury": lambda token: Bury(token, Reason.REJECTED, "no"),
}


async def one_of_it(rig: Rig, broker: NatsBroker, name: str) -> None:
    """There is one event, and it comes once: here, or with the dead letters."""
    await rig.advance(6)
    found: list[Lease] = []

    async def settled() -> bool:
        await rig.advance(6)  # a beat, by which somebody else sends on what is delayed
        leases = await take(broker)
        found.extend(leases)
        await acknowledge(broker, leases)
        return len(found) + len(await broker.dead(DeadQuery())) > 0

    await eventually(settled)
    await asyncio.sleep(2.5)
    found += await take_all(broker)
    assert (len(found), len(await broker.dead(DeadQuery()))) == ((0, 1) if name == "bury" else (1, 0))


@pytest.mark.usefixtures("quick", "brief")
@pytest.mark.parametrize("name", SUCCESSORS)
@pytest.mark.parametrize("again", [False, True])
async def test_a_kill_between_the_copy_and_the_answer_delivers_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, again: bool
) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, lease=1.0)
    await one.publish([event()])
    if again:  # of what comes once more it holds, too
        await one.settle(WORKER, [Retry((await take_one(one)).token, charge=False)])
    lease = await take_one(one)

    async def killed(*_: Any) -> int:
        kill(one)
        raise BrokerUnavailable("killed")

    monkeypatch.setattr(session_of(one).serving(WORKER).lanes, "ack", killed)
    with pytest.raises(BrokerUnavailable):
        await one.settle(WORKER, [SUCCESSORS[name](lease.token)])
    await one_of_it(rig, two, name)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", SUCCESSORS)
async def test_a_copy_that_is_written_twice_is_one(rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    broker = opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish([event()])
    order = SUCCESSORS[name]((await take_one(broker)).token)
    serving = session_of(broker).serving(WORKER)
    with monkeypatch.context() as patch:
        patch.setattr(serving.lanes, "ack", unanswered)
        with pytest.raises(BrokerUnavailable):
            await broker.settle(WORKER, [order])
    assert await broker.settle(WORKER, [order]) == 1
    await one_of_it(rig, broker, name)


@pytest.mark.parametrize("name", ["retry later", "bury"])
async def test_what_went_on_and_was_not_answered_is_no_crash_when_its_lease_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    broker = opened(rig)
    await declare(broker, lease=1.0)
    await broker.publish([event()])
    lease = await take_one(broker)
    with monkeypatch.context() as patch:
        patch.setattr(session_of(broker).serving(WORKER).lanes, "ack", unanswered)
        with pytest.raises(BrokerUnavailable):
            await broker.settle(WORKER, [SUCCESSORS[name](lease.token)])
    await one_of_it(rig, broker, name)


async def test_a_lease_that_was_to_be_settled_and_was_not_ends_in_its_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    lease = await take_one(broker)
    serving = session_of(broker).serving(WORKER)
    waits = asyncio.Event()

    async def hangs(*_: Any) -> int:
        await waits.wait()
        raise BrokerUnavailable("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(serving.lanes, "ack", hangs)
        settling = asyncio.create_task(acknowledge(broker, [lease]))
        await asyncio.sleep(0.05)
        await rig.clock.advance(31)  # its lease would have ended meanwhile
        waits.set()
        with pytest.raises(BrokerUnavailable):
            await settling
    await rig.clock.advance(0.1)
    await eventually(lambda: not serving.leases)
    assert [each.crashes for each in await take(broker)] == [1]


async def test_a_lease_that_ends_while_it_is_settled_is_settled_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(2))
    leases = await take(broker)
    serving = session_of(broker).serving(WORKER)
    again = serving._context.consumers.again

    async def slowly(id: str) -> None:
        await again(id)
        await rig.clock.advance(31)

    with monkeypatch.context() as patch:
        patch.setattr(serving._context.consumers, "again", slowly)
        counts = await asyncio.gather(
            broker.settle(WORKER, [Retry(lease.token, error="x") for lease in leases]),
            broker.settle(WORKER, [Retry(lease.token, error="y") for lease in leases]),
        )
    await serving.expiry.flush()
    found = await gather(broker, 2)
    assert sum(counts) in (0, 2)
    assert sorted(numbers(found)) == [0, 1]
    assert not await take(broker)


async def test_what_is_given_back_keeps_its_order(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one)
    await one.publish(events(40))
    first = await take(one, limit=4)
    waiting = asyncio.create_task(one.fetch(WORKER, limit=10, wait=60))
    leases = await waiting
    back = [Retry(lease.token, charge=False) for lease in (*first, *leases)]
    await one.settle(WORKER, list(reversed(back)))
    held = asyncio.create_task(one.fetch(WORKER, limit=5, wait=60))
    await held
    serving = session_of(one).serving(WORKER)
    await serving.consume(20)  # of both sources something is here
    await eventually(lambda: len(serving.lanes) > 15)
    again = [Retry(lease.token, charge=False) for lease in await held]
    await one.settle(WORKER, again)
    await one.detach(WORKER)
    assert len(serving.lanes) == 0
    found = await take_all(two, limit=1)
    assert numbers(found) == list(range(40))
    assert {(lease.failures, lease.crashes) for lease in found} == {(0, 0)}


async def test_whatever_a_handler_says_of_its_failure_can_be_kept(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish([event()])
    for n in range(4):
        order: Settlement = Retry((await take_one(broker)).token, error=f"{n}" * 100_000)
        assert await broker.settle(WORKER, [order]) == 1
    lease = await take_one(broker)
    assert (lease.failures, [each.number for each in lease.attempts]) == (4, [1, 2, 3, 4])
    assert await broker.settle(WORKER, [Bury(lease.token, Reason.TIMEOUT, "e" * 70_000, "t" * 200_000 + "end")]) == 1
    (letter,) = await broker.dead(DeadQuery())
    assert letter.traceback.endswith("tend")
    assert letter.error.startswith("eee")


async def test_an_event_that_the_server_would_not_take_is_said_before_it_breaks_the_line(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    room = link_of(broker)._most - 40_960
    fits = event(n=1)
    longest = Event(
        topic=TOPIC, source_agent="tester", payload={"n": 1, "x": "x" * (room - len(encode(event(n=1))) - 20)}
    )
    assert room - 100 < len(encode(longest)) <= room
    for sent in (
        Event(topic=TOPIC, source_agent="tester", payload={"x": "x" * room}),
        Event(
            topic=TOPIC,
            source_agent="tester",
            payload={"x": "x" * room},
            not_before=datetime.now(UTC) + timedelta(days=1),
        ),
        Event(topic="_reply.x", source_agent="tester", payload={"x": "x" * (room + 50_000)}),
    ):
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await broker.publish([sent])
    await broker.publish([longest, fits])
    lease, _ = await take(broker)
    assert await broker.settle(WORKER, [Retry(lease.token, error="e" * 100_000)]) == 1
    assert link_of(broker).error is None
