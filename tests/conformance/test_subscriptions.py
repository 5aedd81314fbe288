"""What is known of subscriptions: declaring, serving, numbers, purging, forgetting."""

from __future__ import annotations

import asyncio

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, declare, event, events, heard, info, numbers, same, take, take_all
from wowevent import SubscriptionNotFound
from wowevent.broker import Ack, Broker, Bury, DeadQuery, Filter, Reason, Retry, Subscription


async def test_declaring_twice_is_declaring_once(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(2))
    assert (await declare(broker)).ready == 2
    assert len(await broker.subscriptions()) == 1
    assert numbers(await take_all(broker)) == [0, 1]


async def test_a_declaration_comes_back_whole_also_after_a_reopening(rig: Rig):
    spec = Subscription(
        id="full~a,b",
        patterns=("a.#", "b.*"),
        agent="me",
        filter=Filter(types=frozenset({"x"}), priorities=frozenset({1, 2}), sources=frozenset({"s"})),
        exclusive=True,
        lease=12.5,
    )
    before = rig.broker()
    assert (await before.declare(spec)).subscription == spec
    await before.close()
    after = rig.broker()
    (found,) = await after.subscriptions()
    assert found.subscription == spec


async def test_a_renewed_declaration_replaces_the_settings(rig: Rig):
    broker = rig.broker()
    await declare(broker, patterns=("a",), lease=10)
    await declare(broker, patterns=("b",), lease=20, agent="new")
    found = (await info(broker)).subscription
    assert (found.patterns, found.lease, found.agent) == (("b",), 20, "new")


async def test_what_nobody_declared_cannot_be_fetched(rig: Rig):
    broker = rig.broker()
    with pytest.raises(SubscriptionNotFound):
        await take(broker, "unknown")
    assert await broker.info("unknown") is None


async def test_consumers_are_the_instances_that_fetch(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    assert (await info(one)).consumers == 0
    await one.fetch(WORKER, limit=0, wait=0)
    assert (await info(two)).consumers == 1
    await two.fetch(WORKER, limit=0, wait=0)
    await two.fetch(WORKER, limit=0, wait=0)
    assert (await info(one)).consumers == 2
    await two.close()
    assert (await info(one)).consumers == 1
    await one.detach(WORKER)
    assert (await info(one)).consumers == 0


async def test_detaching_ends_the_waiting_fetches_and_a_later_one_serves_again(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    fetches = [asyncio.create_task(one.fetch(WORKER, limit=1, wait=60)) for _ in range(3)]
    other = asyncio.create_task(two.fetch(WORKER, limit=1, wait=60))
    await rig.breathe()
    await one.detach(WORKER)
    async with asyncio.timeout(5):
        assert [list(found) for found in await asyncio.gather(*fetches)] == [[], [], []]
    assert not other.done()
    await one.publish([event()])
    async with asyncio.timeout(5):
        assert numbers(await other) == [0]
    await one.publish([event(n=1)])
    assert numbers(await take_all(one)) == [1]
    assert (await info(one)).consumers == 2


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_detaching_ends_a_fetch_that_has_just_begun(rig: Rig, turns: int):
    broker = rig.broker()
    await declare(broker)
    fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
    for _ in range(turns):
        await asyncio.sleep(0)
    await broker.detach(WORKER)
    async with asyncio.timeout(2):
        assert list(await fetch) == []


async def test_detaching_from_what_is_not_served_or_not_there_is_nothing(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.detach(WORKER)
    await broker.detach("unknown")


async def test_a_fetch_waits_no_longer_than_asked(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=5))
    await rig.advance(4)
    assert not fetch.done()
    await rig.advance(2)
    async with asyncio.timeout(5):
        assert list(await fetch) == []


async def test_a_waiting_fetch_is_woken_by_a_publish_on_any_instance(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    for publisher in (one, two):
        fetch = asyncio.create_task(one.fetch(WORKER, limit=1, wait=60))
        await rig.breathe()
        await publisher.publish([event()])
        async with asyncio.timeout(2):
            assert len(await fetch) == 1


async def test_the_numbers_are_right(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(6))
    await rig.advance(5)
    leases = await take(broker, limit=4)
    await broker.settle(
        WORKER,
        [Ack(leases[0].token), Retry(leases[1].token, 60, "x"), Bury(leases[2].token, Reason.REJECTED, "x")],
    )
    found = await info(broker)
    assert (found.ready, found.dead) == (2, 1)
    assert same(broker, found.leased, 1)
    assert same(broker, found.delayed, 1)
    assert same(broker, found.oldest, pytest.approx(5, abs=0.5))
    await declare(broker, "idle")
    assert (await info(broker, "idle")).oldest is None


async def test_purging_drops_what_is_ready_and_nothing_else(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await declare(broker, "other")
    await broker.publish([*events(6), event(n=6, priority=9)])
    leases = await take(broker, limit=4)
    await broker.settle(
        WORKER,
        [
            Retry(leases[0].token, 60, "x"),
            Bury(leases[1].token, Reason.REJECTED, "x"),
            Retry(leases[2].token, charge=False),
        ],
    )
    assert await broker.purge(WORKER) == 4
    found = await info(broker)
    assert (found.ready, found.dead) == (0, 1)
    assert same(broker, found.leased, 1)
    assert same(broker, found.delayed, 1)
    assert await broker.purge(WORKER) == 0
    assert (await info(broker, "other")).ready == 7
    await broker.publish([event(n=9)])
    assert numbers(await take_all(broker)) == [9]


async def test_removing_forgets_everything(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    await broker.publish(events(3))
    leases = await take(broker, limit=2)
    await broker.settle(WORKER, [Bury(leases[0].token, Reason.REJECTED, "x")])
    await broker.remove(WORKER)
    assert await broker.info(WORKER) is None
    assert list(await broker.subscriptions()) == []
    assert list(await broker.dead(DeadQuery())) == []
    with pytest.raises(SubscriptionNotFound):
        await take(broker)
    await declare(broker)
    assert not await take(broker)
    assert (await info(broker)).dead == 0
    await broker.remove("unknown")


async def test_removing_wakes_who_waits(rig: Rig):
    broker = rig.broker()
    await declare(broker)
    fetch = asyncio.create_task(broker.fetch(WORKER, limit=1, wait=60))
    await rig.breathe()
    await broker.remove(WORKER)
    with pytest.raises(SubscriptionNotFound):
        async with asyncio.timeout(5):
            await fetch


# --- live ones ----------------------------------------------------------------------------------------------------


async def test_a_live_subscription_is_presence_alone(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, "live", durable=False, agent="me")
    (found,) = await two.subscriptions()
    assert (found.subscription.id, found.subscription.durable, found.subscription.agent) == ("live", False, "me")
    assert found.consumers == 1
    await one.remove("live")
    assert list(await two.subscriptions()) == []


async def test_presence_ends_with_its_instance(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one, "live", durable=False)
    await declare(two, "mine", durable=False)
    await one.close()
    assert [found.subscription.id for found in await two.subscriptions()] == ["mine"]
    await heard(rig, two)
    (answer,) = await two.publish([event()])
    assert answer.matched == ("mine",)


# --- presence -----------------------------------------------------------------------------------------------------


async def test_presence_is_the_subscriptions_without_their_numbers(rig: Rig):
    one, two = rig.broker(), rig.broker()
    await declare(one)
    await declare(one, "idle", agent="me", patterns=("a.*", "b"))
    await declare(two, "live", durable=False)
    for broker in (one, two):
        await broker.fetch(WORKER, limit=0, wait=0)
    for broker in (one, two, rig.broker()):  # the last one joins by this call
        assert await _present(broker) == {WORKER: 2, "idle": 0, "live": 1}
        specs = [each.subscription for each in await broker.presence()]
        assert specs == [found.subscription for found in await broker.subscriptions()]
    await one.detach(WORKER)
    assert await _present(two) == {WORKER: 1, "idle": 0, "live": 1}
    await one.remove("idle")
    await two.close()
    assert await _present(one) == {WORKER: 0}


async def test_who_joins_knows_who_is_there_without_asking_anew(rig: Rig):
    there = rig.broker()
    await declare(there)
    await declare(there, "live", durable=False)
    await there.fetch(WORKER, limit=0, wait=0)
    newcomer = rig.broker()
    assert await _present(newcomer, fresh=False) == {WORKER: 1, "live": 1}
    await there.detach(WORKER)
    await eventually(lambda: _is_present(newcomer, {WORKER: 0, "live": 1}))


async def _present(broker: Broker, *, fresh: bool = True) -> dict[str, int]:
    return {each.subscription.id: each.consumers for each in await broker.presence(fresh=fresh)}


async def _is_present(broker: Broker, wanted: dict[str, int]) -> bool:
    return await _present(broker, fresh=False) == wanted
