"""One log into another, of the same engine and of another one: all of it, once, whenever it was stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import Rig, shared_nats, shared_redis
from tests.conformance.making import (
    PAYLOADS,
    Seen,
    beyond,
    declare,
    event,
    events,
    numbers,
    read,
    store,
    take,
    take_all,
)
from wowevent import Event, EventSchema, PositionLost, SchemaRegistry
from wowevent.broker import Ack, Appended, Broker, Bury, Position, Reason, Retention, Stored
from wowevent.codec import encode
from wowevent.copying import Compared, Copied, Copy, Standing, carry_over, compare
from wowevent.copying.past import Past
from wowevent.errors import BrokerUnavailable

CROSSINGS = (
    ("sqlite", "redis"), ("redis", "nats"), ("nats", "sqlite"), ("sqlite", "rabbitmq"), ("rabbitmq", "sqlite"),
)  # fmt: skip
FACTS = ("_bus.#",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """From each engine that `--broker` names to itself, and every crossing of two of them."""
    if "pair" in metafunc.fixturenames:
        named = [name.strip() for name in metafunc.config.getoption("--broker").split(",")]
        pairs = [(name, name) for name in named] + [pair for pair in CROSSINGS if set(pair) <= set(named)]
        metafunc.parametrize("pair", pairs, ids=["-".join(pair) for pair in pairs], indirect=True, scope="session")


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Engines that are there: starting one would block the loop of the first test."""
    found: tuple[str, str] = request.param
    for name, server in (("redis", shared_redis), ("nats", shared_nats)):
        if name in found:
            server.url()
    return found


@pytest.fixture
async def source(pair: tuple[str, str], tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "source").mkdir()
    rig = Rig(pair[0], tmp_path / "source")
    yield rig
    await rig.close()


@pytest.fixture
async def target(pair: tuple[str, str], tmp_path: Path) -> AsyncIterator[Rig]:
    (tmp_path / "target").mkdir()
    rig = Rig(pair[1], tmp_path / "target")
    yield rig
    await rig.close()


async def copied(here: Broker, there: Broker, **settings: Any) -> Copied:
    """One run to its end."""
    copy = Copy(here, there, **settings)
    assert await copy.open()
    try:
        return await copy.run()
    finally:
        await copy.close()


async def compared(here: Broker, there: Broker) -> Compared:
    return await compare(here, there, (await here.ping()).head)


async def moved(source: Rig, here: Broker, there: Broker) -> dict[str, Standing]:
    """The subscriptions, after one run."""
    done = await copied(here, there)
    return {each.id: each for each in await carry_over(here, there, done.position, None, source.clock)}


def envelopes(found: Sequence[Stored]) -> list[bytes]:
    return [encode(stored.event) for stored in found]


class Failing:
    """An engine that does not answer any more after so many publishes; the last of these it carried out."""

    def __init__(self, broker: Broker, after: int) -> None:
        self._broker = broker
        self._left = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, sent: Sequence[Event]) -> Sequence[Appended]:
        if self._left < 0:
            raise BrokerUnavailable("on purpose")
        self._left -= 1
        answers = await self._broker.publish(sent)
        if self._left < 0:
            raise BrokerUnavailable("on purpose, and too late")
        return answers


# --- events -------------------------------------------------------------------------------------------------------


async def test_every_event_is_there_as_it_was(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    sent = [Event(topic="some.thing", payload=payload) for payload in PAYLOADS.values()]
    sent += [
        event(
            "task.done", 1, event_type="order.placed", correlation_id="c", parent_event_id="p", priority=9,
            trace_id="t", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", execution_id="e",
            ttl_seconds=1, max_retries=2, reply_to="a.b", hops=5, headers={"a": "ö"}, source_service="shop",
            target_agent="worker", replay_of="r", timestamp="2020-01-01T00:00:00.000001Z",
            not_before="2020-01-01T00:00:00Z", unknown={"later": [1, {"a": None}]},
        ),
        *events(1200),
    ]  # fmt: skip
    for start in range(0, len(sent), 400):
        await here.publish(sent[start : start + 400])
    done = await copied(here, there)
    assert (done.events, done.known, done.damaged, done.gone) == (len(sent), 0, 0, False)
    assert envelopes(await read(there)) == [encode(each) for each in sent]
    found = await compared(here, there)
    assert (found.difference, found.events, found.others) == (None, len(sent), 0)
    assert found.source == found.target


async def test_an_empty_log_is_copied_too(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    assert (await copied(here, there)).events == 0
    assert (await compared(here, there)).difference is None
    assert await read(there) == []


async def test_the_next_run_brings_what_has_come_since(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish(events(5))
    await copied(here, there)
    await here.publish([event(n=n) for n in range(5, 8)])
    done = await copied(here, target.broker())
    assert (done.events, done.known) == (3, 0)
    assert (await copied(here, target.broker())).events == 0
    assert numbers(await read(there)) == list(range(8))


async def test_what_comes_while_it_runs_is_the_next_ones(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish(events(5))
    copy = Copy(here, there)
    await copy.open()
    await here.publish([event(n=5)])
    assert (await copy.run()).events == 5
    await copy.close()
    assert (await copied(here, there)).events == 1
    assert numbers(await read(there)) == list(range(6))


@pytest.mark.parametrize("publishes", range(9))
async def test_wherever_it_stops_it_goes_on_there(source: Rig, target: Rig, publishes: int):
    here = source.broker()
    sent = [event(n=n, event_id=f"id-{n}") for n in range(3_100)]
    for start in range(0, len(sent), 500):
        await here.publish(sent[start : start + 500])
    with pytest.raises(BrokerUnavailable):
        await copied(here, Failing(target.broker(), publishes), note_every=1_000)
    again = Copy(here, target.broker(), note_every=1_000)
    await again.open()
    assert not await again.filled()
    done = await again.run()
    await again.close()
    assert done.known <= 1_500
    assert [stored.event.event_id for stored in await read(target.broker())] == [each.event_id for each in sent]
    assert (await compared(here, target.broker())).difference is None


async def test_events_of_the_target_are_left_alone_and_counted(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await there.publish([event("own.before", 100)])
    await here.publish(events(3))
    copy = Copy(here, there)
    await copy.open()
    assert await copy.filled()
    await copy.run()
    await there.publish([event("own.after", 101)])
    assert not await copy.filled()
    await copy.close()
    await here.publish([event(n=3)])
    assert (await copied(here, there)).events == 1
    found = await compared(here, there)
    assert (found.difference, found.events, found.others) == (None, 4, 2)
    assert numbers(await read(there)) == [100, 0, 1, 2, 101, 3]


async def test_a_target_with_subscriptions_alone_is_filled(source: Rig, target: Rig):
    copy = Copy(source.broker(), target.broker())
    await copy.open()
    assert not await copy.filled()
    await declare(target.broker())
    assert await copy.filled()
    await copy.close()


async def test_a_log_is_not_copied_into_itself(source: Rig):
    copy = Copy(source.broker(), source.broker())
    assert not await copy.open()
    await copy.close()


async def test_a_target_that_was_replaced_begins_anew(source: Rig, target: Rig):
    here, old = source.broker(), target.broker()
    await here.publish(events(3))
    await copied(here, old)
    new = target.another_log().broker()
    facts = [stored.event for stored in await read(old, patterns=FACTS)]
    assert facts
    await new.publish(facts)  # as whoever knows them says them again
    done = await copied(here, new)
    assert (done.events, done.known) == (3, 0)
    assert numbers(await read(new)) == [0, 1, 2]


async def test_another_source_is_another_copy(source: Rig, target: Rig):
    one, two, there = source.broker(), source.another_log().broker(), target.broker()
    await one.publish(events(3))
    await two.publish([event(n=n) for n in range(3, 6)])
    await copied(one, there)
    await copied(two, there)
    assert numbers(await read(there)) == list(range(6))
    assert (await compared(two, there)).difference is None


async def test_what_the_limits_of_the_source_took_is_told_and_the_rest_is_copied(source: Rig, target: Rig):
    here, there = source.broker(retention=Retention(max_age=100)), target.broker()
    await here.publish(events(3))
    assert not (await copied(here, there)).gone
    await here.publish(events(3))
    await source.advance(105)
    await here.publish([event(n=3)])
    await source.advance(12)
    await here.publish([event(n=4)])
    await source.advance(12)
    done = await copied(here, there)
    assert (done.gone, done.events) == (True, 2)
    assert numbers(await read(there)) == [0, 1, 2, 3, 4]
    assert (await compared(here, there)).difference is None


# --- comparing ----------------------------------------------------------------------------------------------------

ONE, TWO, THREE = (event(n=n, event_id=f"id-{n}") for n in (1, 2, 3))
OTHER = event(n=99, event_id="id-2")


@pytest.mark.parametrize(
    ("there", "kind", "id"),
    [
        ([], "missing", "id-1"),
        ([ONE, THREE], "missing", "id-2"),
        ([ONE, TWO], "missing", "id-3"),
        ([ONE, OTHER, THREE], "changed", "id-2"),
        ([TWO, ONE, THREE], "misplaced", "id-2"),
    ],
    ids=["nothing", "a gap", "no end", "another", "disorder"],
)
async def test_the_first_that_differs_is_named(source: Rig, target: Rig, there: list[Event], kind: str, id: str):
    here, other = source.broker(), target.broker()
    places = dict(zip(("id-1", "id-2", "id-3"), await store(here, [ONE, TWO, THREE]), strict=True))
    await other.publish(there)
    found = (await compared(here, other)).difference
    assert found is not None
    assert (found.kind, found.event_id, found.topic, found.position) == (kind, id, "task.created", places[id])
    assert str(found).startswith(f"task.created {id}, at {places[id]} of the source, ")


async def test_what_is_there_twice_differs(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish([ONE, TWO, THREE])
    await there.publish([ONE, TWO, event(n=4)])
    await target.broker().publish([ONE, THREE])  # where each instance knows its own ids alone, it is stored again
    found = await compared(here, there)
    if there.capabilities.dedup:
        assert (found.difference, found.others) == (None, 1)
    else:
        assert found.difference is not None
        assert (found.difference.kind, found.difference.event_id) == ("twice", "id-1")


async def test_what_the_source_has_twice_is_copied_once(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish([ONE, TWO])
    await source.broker().publish([ONE, THREE])
    assert (await copied(here, there)).events == 3
    assert numbers(await read(there)) == [1, 2, 3]
    assert (await compared(here, there)).difference is None


async def test_the_position_of_another_log_is_refused(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish([ONE])
    with pytest.raises(PositionLost):
        await compare(here, there, (await there.ping()).head)


async def test_a_position_that_the_log_never_reached_is_refused(source: Rig):
    here = source.broker()
    (place,) = await store(here, [ONE])
    beyond_it = Position(place.epoch, place.offset + beyond(here))
    with pytest.raises(PositionLost):
        assert [stored async for stored in Past(here, beyond_it).read()] == []


# --- facts --------------------------------------------------------------------------------------------------------

SCHEMA = EventSchema(event_type="task.created", version="1.0.0", json_schema={"type": "object"})


async def test_what_processes_share_is_there(source: Rig, target: Rig):
    bus = await source.bus(registry=SchemaRegistry())
    await bus.register_schema(SCHEMA)
    await bus.subscribe("#", Seen(), "worker")
    await bus.pause("worker")
    here, there = bus.broker, target.broker()
    assert (await copied(here, there)).facts == 2
    registry = SchemaRegistry()
    other = await target.bus(registry=registry)
    assert registry.schemas() == [SCHEMA]
    assert other.paused("worker~#")
    found = await compared(here, there)
    assert (found.difference, found.facts) == (None, 2)

    await bus.resume("worker")
    changed = (await compared(here, there)).difference
    assert changed is not None
    assert (changed.kind, changed.topic.split(".")[1]) == ("changed", "pause")
    assert (await copied(here, there)).facts == 1
    assert (await compared(here, there)).difference is None


async def test_a_newer_fact_of_the_target_stays(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await here.publish(
        [event("_bus.note.a", 1, timestamp="2030-01-01"), event("_bus.note.b", 1, timestamp="2030-01-01")]
    )
    await there.publish(
        [event("_bus.note.a", 2, timestamp="2031-01-01"), event("_bus.note.b", 2, timestamp="2029-01-01")]
    )
    assert (await copied(here, there)).facts == 1
    found = {stored.event.topic: stored.event.payload["n"] for stored in await read(there, patterns=("_bus.note.*",))}
    assert found == {"_bus.note.a": 2, "_bus.note.b": 1}
    assert (await compared(here, there)).difference is None


async def test_the_notes_of_an_earlier_copy_are_not_copied(source: Rig, target: Rig):
    first, here, there = source.another_log().broker(), source.broker(), target.broker()
    await first.publish(events(2))
    await copied(first, here)
    assert (await copied(here, there)).facts == 0
    assert (await compared(here, there)).difference is None
    assert len(await read(there, patterns=FACTS)) == 1


# --- subscriptions ------------------------------------------------------------------------------------------------


async def test_a_subscription_goes_on_with_the_oldest_that_it_had_not_handled(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here, "behind", ("task.*",), agent="worker", lease=7.0)
    await declare(here, "done")
    for n in range(6):
        await here.publish([event(n=n), event("log.line", 100 + n)])
        await source.advance(1)
    first, second, third = await take(here, "behind", 3)
    await here.settle("behind", [Ack(first.token), Ack(third.token)])  # the second is out, the third was quicker
    await take_all(here, "done")
    standings = await moved(source, here, there)

    if here.capabilities.exact:
        assert (standings["behind"].begins, standings["behind"].event_id) == ("unread", second.event.event_id)
        found = await there.info("behind")
        assert found is not None
        assert (found.subscription.agent, found.subscription.lease) == ("worker", 7.0)
        assert numbers(await take_all(there, "behind")) == [1, 2, 3, 4, 5]
        assert standings["done"].begins == "new"
    else:
        assert standings["behind"].begins == "unknown"
        assert await there.info("behind") is None
    assert (await compared(here, there)).difference is None


async def test_while_a_worker_holds_an_event_that_is_not_told_its_subscription_is_not_moved(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here)
    await here.publish(events(1))
    await take(here)
    standing = (await moved(source, here, there))["worker"]
    assert standing.begins == ("unread" if here.capabilities.exact else "unknown")


async def test_one_that_has_handled_everything_gets_what_is_new(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here)
    await here.publish(events(3))
    await take_all(here)
    await here.detach("worker")
    assert (await moved(source, here, there))["worker"].begins == "new"
    assert await take_all(there) == []
    await there.publish([event(n=3)])
    assert numbers(await take_all(there)) == [3]


async def test_one_that_the_target_knows_stays_as_it_is(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here)
    await here.publish(events(3))
    assert (await copied(here, there)).events == 3
    await declare(there, patterns=("other.*",))
    assert (await moved(source, here, there))["worker"].begins == "there"
    found = await there.info("worker")
    assert found is not None
    assert found.subscription.patterns == ("other.*",)


async def test_what_is_carried_over_after_several_runs_is_exact(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here)
    for n in range(3):
        await here.publish([event(n=n)])
        await source.advance(1)
    await copied(here, there)
    (first, _, _) = await take(here)
    await here.settle("worker", [Ack(first.token)])
    await here.publish([event(n=3)])
    if here.capabilities.exact:
        assert (await moved(source, here, there))["worker"].begins == "unread"
        assert numbers(await take_all(there)) == [1, 2, 3]


async def test_live_and_dead_stay_behind(source: Rig, target: Rig):
    here, there = source.broker(), target.broker()
    await declare(here)
    await declare(here, "eyes", durable=False)
    await here.publish(events(1))
    (lease,) = await take(here)
    await here.settle("worker", [Bury(lease.token, Reason.REJECTED, "no")])
    await here.detach("worker")
    standings = await moved(source, here, there)
    assert list(standings) == ["worker"]
    assert (standings["worker"].begins, standings["worker"].dead) == ("new", 1)
    assert [info.subscription.id for info in await there.subscriptions()] == ["worker"]
