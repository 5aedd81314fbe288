"""The log on NATS: its positions, its limits, what cannot be read, its dead letters."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

import asyncio
import time
from typing import Any

import pytest

from tests.conformance.engines import Rig
from tests.conformance.making import WORKER, declare, event, events, numbers, read, take, take_all
from tests.engines.nats.own import TOPIC, opened, session_of, stranger
from wowevent.broker import DeadQuery, Lease, Query, Retention
from wowevent.brokers.nats import NatsBroker, counting, stream
from wowevent.brokers.nats import link as link_module
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.tags import copied
from wowevent.codec import encode
from wowevent.errors import PositionLost
from wowevent.tag import Tag


async def test_a_reader_that_takes_its_time_reads_all(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FORGOTTEN", 0.5)  # seconds after which the server forgets it
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    await broker.publish(events(25))
    found: list[int] = []
    async for stored in broker.read(Query()):
        found.append(stored.event.payload["n"])
        if len(found) in (10, 20):
            await asyncio.sleep(2.5)
    assert found == list(range(25))


async def test_what_the_limits_take_before_a_reader_that_is_under_way_is_told_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    everything = [n for n in range(1, 31) if n % 7]
    await broker.publish([event(TOPIC if n in everything else "_bus.x", n) for n in range(1, 31)])
    reading = broker.read(Query())
    found = [(await anext(reading)).event.payload["n"]]
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}", seq=21)
    lost: list[int | None] = []
    while 30 not in found:
        try:
            found.append((await anext(reading)).event.payload["n"])
        except PositionLost as error:
            lost.append(error.lost)
    assert lost == [10]
    assert found == [n for n in everything if n <= 10 or n >= 21]
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_what_the_limits_take_at_the_end_of_what_is_read_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 10)
    broker = opened(rig)
    await broker.publish(events(20))
    reading = broker.read(Query())
    await anext(reading)
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}")
    await broker.publish(events(5))
    for _ in range(9):
        await anext(reading)
    with pytest.raises(PositionLost) as lost:
        await anext(reading)
    assert lost.value.lost == 10
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_a_hole_in_the_log_is_not_what_its_limits_took(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish(events(9))
    async with stranger() as link:
        await link.ask(f"STREAM.MSG.DELETE.{broker._names.log}", seq=5, no_erase=True)
    assert numbers(await read(broker)) == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_who_reads_on_while_nothing_is_gone_is_told_nothing(rig: Rig) -> None:
    broker = opened(rig)
    await broker.publish([event("_bus.x" if n % 3 == 0 else TOPIC, n) for n in range(40)])
    async with stranger() as link:
        await link.ask(f"STREAM.PURGE.{broker._names.log}", seq=11)
    assert numbers(await read(broker)) == [n for n in range(10, 40) if n % 3]
    assert numbers(await read(broker, patterns=("_bus.*", "x"))) == [n for n in range(10, 40) if not n % 3]


@pytest.mark.parametrize("priority", [5, 9])
async def test_facts_outlive_the_log_in_both_lanes(rig: Rig, priority: int) -> None:
    broker = opened(rig, retention=Retention(max_count=5))
    await broker.publish(
        [event("_bus.a", 1, priority=5), event("_bus.a", 2, priority=9), event("_bus.b", 3, priority=9)]
    )
    await broker.publish([event("_bus.b", 4, priority=priority)])
    places = [stored.position for stored in await read(broker, patterns=("_bus.#",))]
    await broker.publish(events(20))
    await rig.advance(11)
    assert len(await read(broker)) == 5
    newcomer = opened(rig)
    found = await read(newcomer, patterns=("_bus.#",))
    assert numbers(found) == [2, 4]
    assert [stored.position for stored in found] == places
    await newcomer.publish([event("_bus.a", 5, priority=priority)])
    assert numbers(await read(broker, patterns=("_bus.#",))) == [4, 5]
    await broker.publish(events(20))
    await rig.advance(11)
    assert numbers(await read(newcomer, patterns=("_bus.#",))) == [4, 5]
    assert numbers(await read(newcomer, patterns=("_bus.#",), after=places[1])) == [5]


async def test_only_what_the_limits_took_unread_is_lost_and_it_is_counted_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Retention(max_bytes=20_000)
    one, two = opened(rig, retention=limits), opened(rig, retention=limits)
    await declare(one, "quick")
    await declare(one, "slow")
    await two.open()
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(300)])
    janitors = [session_of(each)._janitor for each in (one, two)]
    asked = janitors[0]._keep_facts
    seen: list[Lease] = []

    async def meanwhile(upto: int) -> None:
        await asked(upto)
        seen.extend(await take_all(one, "quick"))  # what is read now is not lost

    assert len(await take_all(one, "quick", limit=50)) == 300
    await one.publish([event(n=n, priority=9 if n % 2 else 5) for n in range(300)])
    for each in janitors:
        monkeypatch.setattr(each, "_keep_facts", meanwhile)
    await asyncio.gather(*(each.trim() for each in janitors))
    assert len(seen) == 300
    left = len(await read(two))
    assert left < 600
    with pytest.raises(PositionLost) as lost:
        await take(two, "slow")
    assert lost.value.lost == 600 - left
    assert len(await take_all(two, "slow")) == left
    assert not await take(one, "quick")
    assert "trim" not in session_of(one).locks.held


async def bury_by_hand(broker: NatsBroker, count: int) -> None:
    """So many letters of the subscription, and one that is another one's."""
    body, now = encode(event()), time.time()
    names = broker._names
    letters = [f"{names.letters(WORKER)}.x{n}" for n in range(count)] + [f"{names.letters('another')}.x"]
    async with stranger() as link:
        for first in range(0, len(letters), 1_000):
            tags = [Tag(at=now, buried=now + count - n) for n in range(first, first + 1_000)]
            some = zip(letters[first : first + 1_000], tags, strict=False)
            await link.store([copied(subject, body, tag) for subject, tag in some])


def _measuring(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each answer has from now on."""
    request = link_module.Link.request
    sizes: list[int] = []

    async def measured(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        answer = await request(self, subject, *more, again=again)
        sizes.append(len(answer[0]))
        return answer

    monkeypatch.setattr(link_module.Link, "request", measured)
    return sizes


async def test_thousands_of_letters_are_counted_without_being_listed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_LISTED", 2_999)
    broker = opened(rig)
    for id in (WORKER, "other"):
        await declare(broker, id)
    await bury_by_hand(broker, 3_000)
    sizes = _measuring(monkeypatch)
    info = await broker.info(WORKER)
    assert info is not None
    assert info.dead == 3_000
    assert [info.dead for info in await broker.subscriptions()] == [3_000, 0]
    assert max(sizes) < 4_000


async def test_of_many_letters_the_first_are_found(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig)
    await declare(broker)
    await bury_by_hand(broker, 1_200)
    found = await broker.dead(DeadQuery(limit=7))
    assert [letter.id.rpartition("-")[2] for letter in found] == [f"x{n}" for n in range(1_199, 1_192, -1)]
    assert len(await broker.dead(DeadQuery(limit=10_000))) == 1_200


@pytest.mark.slow
async def test_more_letters_than_the_server_lists_are_counted_exactly(rig: Rig) -> None:
    broker = opened(rig)
    await declare(broker)
    await bury_by_hand(broker, 100_050)
    info = await broker.info(WORKER)
    assert info is not None
    assert info.dead == 100_050


async def test_limits_that_take_nothing_read_one_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(rig, retention=Retention(max_age=3600.0, max_bytes=10**9))
    await broker.publish(events(50))
    asked: list[str] = []
    request = link_module.Link.request

    async def noted(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        asked.append(subject.removeprefix("$JS.API."))
        return await request(self, subject, *more, again=again)

    monkeypatch.setattr(link_module.Link, "request", noted)
    await session_of(broker)._janitor.trim()
    assert asked == [f"STREAM.INFO.{broker._names.log}", f"DIRECT.GET.{broker._names.log}"]


@pytest.mark.parametrize("replicas", [1, 3])
async def test_of_a_stream_with_replicas_nothing_is_to_be_deleted_to_see_whether_it_can_write(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    broker = opened(rig)
    await broker.open()
    session_of(broker).storage.learn(broker._names.log, replicas)
    asked: list[str] = []
    request = link_module.Link.request

    async def noted(self: Link, subject: str, *more: Any, again: bool = False) -> tuple[bytes, bytes]:
        asked.append(subject.removeprefix("$JS.API."))
        return await request(self, subject, *more, again=again)

    monkeypatch.setattr(link_module.Link, "request", noted)
    await broker.ping()
    assert (f"STREAM.MSG.DELETE.{broker._names.log}" in asked) is (replicas == 1)
