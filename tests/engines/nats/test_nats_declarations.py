"""Subscriptions on NATS: declared, changed, removed; and the lock of one that an instance holds alone."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import WORKER, acknowledge, declare, event, events, numbers, once_it_works, take, take_all
from tests.engines.nats.own import cut, delete_consumer, gather, kill, known_of, opened, session_of, stranger


async def test_a_backlog_is_read_by_the_declaration_that_it_was_published_under(rig: Rig) -> None:
    broker, other = opened(rig), opened(rig)
    await declare(broker, patterns=("a.*",))
    await broker.publish([event("a.x", 1), event("b.x", 2)])
    await declare(other, patterns=("b.*",))
    await broker.publish([event("a.x", 3), event("b.x", 4), event("b.x", 5, priority=9)])
    await declare(broker, patterns=("a.*", "c"))
    await other.publish([event("a.x", 6), event("b.x", 7), event("c", 8)])
    assert sorted(numbers(await take_all(other))) == [1, 4, 5, 6, 8]
    await declare(broker, patterns=("#",))
    assert not await take(broker)
    assert len(known_of(broker).specs) == 1


@pytest.mark.parametrize("exclusive", [False, True])
async def test_exclusive_is_switched_over_a_backlog(rig: Rig, exclusive: bool) -> None:
    broker = opened(rig)
    await declare(broker, exclusive=exclusive)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    assert len(await take(broker, limit=2)) == 2
    await declare(broker, exclusive=not exclusive)
    await broker.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6, 12)])
    found = numbers(await take_all(broker))
    assert len(found) == len(set(found)) == 10
    assert set(range(6, 12)) <= set(found)
    assert not await take(broker)


async def test_exclusive_switched_on_and_off_brings_nothing_back(rig: Rig) -> None:
    broker = opened(rig)
    sent = iter(range(1000))

    async def some() -> list[int]:
        await broker.publish([event(n=next(sent), priority=9 if n % 2 else 5) for n in range(6)])
        return numbers(await take_all(broker))

    found: list[int] = []
    for exclusive in (True, False, False, True, True, False):
        await declare(broker, exclusive=exclusive)
        found += await some()
        await declare(broker, patterns=("#", "x"), exclusive=exclusive)
    found += await some()
    assert len(found) == len(set(found)) == 42


async def test_a_declaration_over_a_consumer_that_is_gone_forgets_nothing(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(3))
    await delete_consumer(broker._names.log, broker._names.consumer(WORKER, "n"))
    await declare(broker, patterns=("#", "x"))
    assert numbers(await take_all(broker)) == [0, 1, 2]


async def test_a_consumer_of_another_life_is_not_taken_for_ours(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish(events(4))
    names = broker._names
    config = {
        "ack_policy": "explicit",
        "deliver_policy": "by_start_sequence",
        "filter_subjects": [f"{names.prefix}n.x"],
    }
    async with stranger() as link:
        for lane, first in (("u", 1), ("n", 3)):
            name = names.consumer(WORKER, lane)
            more = {"name": name, "durable_name": name, "opt_start_seq": first}
            await link.ask(f"CONSUMER.CREATE.{names.log}.{name}", stream_name=names.log, config=config | more)
    await declare(broker, start="first")
    assert numbers(await take_all(broker)) == [0, 1, 2, 3]
    await broker.publish([event(n=4, priority=9)])
    assert numbers(await take_all(broker)) == [4]


@pytest.mark.parametrize("made", ["by us", "by the server's own measure"])
async def test_a_log_has_room_for_thousands_of_subscriptions(rig: Rig, made: str) -> None:
    """A server allows 1,000 consumers a stream where nothing is said."""
    broker = opened(rig)
    names = broker._names
    async with stranger() as link:
        if made != "by us":
            subjects = [f"{names.prefix}{lane}.>" for lane in "unUN"]
            await link.ask(f"STREAM.CREATE.{names.log}", name=names.log, subjects=subjects, max_consumers=1_000)
        await broker.publish([event(n=1)])
        for name in (names.log, names.again):
            assert (await link.ask(f"STREAM.INFO.{name}"))["config"]["max_consumers"] == 100_000


OTHERS: dict[str, dict[str, Any]] = {
    "of another kind of acknowledgement": {
        "ack_policy": "all",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": 1,
    },
    "that begins elsewhere": {"ack_policy": "explicit", "deliver_policy": "last"},
    "that is told where to deliver": {"ack_policy": "explicit", "deliver_policy": "all", "deliver_subject": "nobody"},
}


@pytest.mark.parametrize("how", ["declare", "join"])
@pytest.mark.parametrize("name", OTHERS)
async def test_a_consumer_that_cannot_become_ours_is_made_anew(rig: Rig, name: str, how: str) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(3))
    leases = await take(broker, limit=1)
    names = broker._names
    consumer = names.consumer(WORKER, "n")
    await delete_consumer(names.log, consumer)
    async with stranger() as link:
        config = {"name": consumer, "durable_name": consumer, "filter_subjects": [f"{names.prefix}n.x"]}
        await link.ask(f"CONSUMER.CREATE.{names.log}.{consumer}", stream_name=names.log, config=config | OTHERS[name])
    if how == "declare":
        await declare(broker, patterns=("#", "x"))
    else:
        cut(broker)
    assert numbers(await once_it_works(lambda: take_all(broker))) == [0, 1, 2]
    assert await acknowledge(broker, leases) == 0
    await broker.publish([event(n=3)])
    assert numbers(await take_all(broker)) == [3]


async def test_a_consumer_that_is_told_where_to_deliver_is_found_out_by_who_fetches(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await broker.publish(events(2))
    names = broker._names
    consumer = names.consumer(WORKER, "n")
    await delete_consumer(names.log, consumer)
    async with stranger() as link:
        config = {"name": consumer, "durable_name": consumer, **OTHERS["that is told where to deliver"]}
        await link.ask(f"CONSUMER.CREATE.{names.log}.{consumer}", stream_name=names.log, config=config)
    assert numbers(await once_it_works(lambda: take_all(broker))) == [0, 1]


# ------------------------------------------------------------------------------------------------ locks


@pytest.mark.usefixtures("brief")
async def test_a_lock_is_kept_as_long_as_its_holder_says_so_and_free_when_it_closes(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(3))
    assert numbers(await take(one, limit=1)) == [0]
    for _ in range(4):
        await asyncio.sleep(1)
        assert not await take(two)
    assert len(session_of(one).locks.held) == 2  # delays, too
    await one.close()
    assert sorted(numbers(await gather(two, 3))) == [0, 1, 2]


@pytest.mark.usefixtures("brief", "quick")
async def test_a_lock_is_taken_over_from_one_that_is_gone_and_what_it_had_comes_first(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True, lease=3.0)
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(6)])
    leases = await take(one, limit=3)
    assert numbers(leases) == [0, 1, 2]
    kill(one)
    began = asyncio.get_running_loop().time()
    found = await gather(two, 6, 15)
    assert asyncio.get_running_loop().time() - began > 1.5
    assert numbers(found) == [0, 1, 2, 3, 4, 5]
    assert [lease.crashes for lease in found] == [1, 1, 1, 0, 0, 0]


@pytest.mark.usefixtures("brief")
async def test_who_said_nothing_of_its_lock_for_too_long_leases_nothing_by_it(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(4))
    assert await acknowledge(one, await take(one, limit=1)) == 1
    ticking = session_of(one)._ticking
    assert ticking is not None
    ticking.cancel()  # as one whose words do not come through
    found: list[int] = []

    async def taken_over() -> bool:
        found.extend(numbers(await take(two, limit=1)))
        return bool(found)

    await eventually(taken_over)
    assert found == [1]
    assert not await take(one)


async def test_a_line_that_broke_costs_no_lock(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(4))
    leases = await take(one, limit=1)
    for _ in range(2):
        cut(one)
        assert not await take(two)
        assert numbers(await take(one, limit=1)) != []
    assert set(session_of(one).locks.held) == {f"one.{WORKER}", "later"}
    assert await acknowledge(one, leases) == 1


async def test_a_lock_that_is_renewed_twice_at_once_is_kept(rig: Rig) -> None:
    broker = opened(rig)
    await broker.open()
    here = session_of(broker).locks
    for _ in range(5):
        assert all(await asyncio.gather(*(here.lock("later") for _ in range(4))))
    assert set(here.held) == {"later"}


async def test_who_waits_for_a_lock_hears_that_it_is_free(rig: Rig) -> None:
    one, two = opened(rig), opened(rig)
    await declare(one, exclusive=True)
    await one.publish(events(2))
    leases = await take(one, limit=1)
    waiting = asyncio.create_task(two.fetch(WORKER, limit=1, wait=600))
    await asyncio.sleep(0.1)
    await one.detach(WORKER)
    await acknowledge(one, leases)
    assert numbers(await asyncio.wait_for(waiting, 5)) == [1]
