"""What must come out right in spite of crashes: attempts, dead letters, delays, ids, effects, replays."""

from __future__ import annotations

import hashlib
import signal
from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from tests.faults.journal import digest
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.recorder import fingerprint
from tests.faults.worker import Ledger, Publisher, balances_of, build, publish_noted
from wowevent import Event, EventBus, ReplayConfig, current
from wowevent.broker import Reason, Stored

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def plain(number: int, **payload: object) -> Event:
    return Event(topic="load.made", event_id=f"plain-{number}", payload={"number": number, **payload})


async def publish(lab: Lab, events: list[Event]) -> None:
    await lab.declare()
    with lab.journal("test") as journal:
        async with EventBus(lab.url) as bus:
            await publish_noted(bus, journal, events)


async def consume_until_buried(lab: Lab, poisons: set[int], **settings: Any) -> int:
    """Start a consumer again and again until the poison is dead and the rest is done; how many were killed."""
    kills, before = 0, len(lab.history("buried"))
    while True:
        consumer = lab.consumer(lease=0.6, **settings)
        await lab.until(lambda c: c.ended or len(lab.history("buried")) == before + len(poisons), consumer)
        if not consumer.ended:
            break
        assert consumer.process.returncode == -signal.SIGKILL, lab.output()
        kills += 1
        assert kills <= (1 + settings["max_retries"]) * len(poisons), lab.output()
    innocents = {entry.id for entry in lab.history("ok")} - {entry.id for entry in lab.history("buried")}
    await lab.until(lambda: innocents <= {entry.id for entry in lab.history("acked", "effect")})
    consumer.signal(signal.SIGTERM)
    assert await lab.ended(consumer) == 0
    return kills


@pytest.mark.parametrize(("max_retries", "concurrency"), [(1, 1), (1, 4), (3, 4)])
async def test_poison_gets_its_attempts_and_innocents_none_of_the_blame(
    lab: Lab, long_form: bool, max_retries: int, concurrency: int, measured
):
    """A handler that kills its process: exactly the attempts promised, then one dead letter; its neighbours live."""
    random, kills, poisons = Random(7), 0, set()
    for first in range(0, 40 * (10 if long_form else 1), 40):
        poison = first + random.randrange(40)
        await publish(lab, [plain(n, poison=True) if n == poison else plain(n) for n in range(first, first + 40)])
        killed = await consume_until_buried(lab, {poison}, max_retries=max_retries, concurrency=concurrency)
        assert killed == len(lab.history("delivered", id=f"plain-{poison}")) == 1 + max_retries
        kills += killed
        poisons.add(f"plain-{poison}")
    report = await lab.verdict()
    dead = await lab.dead()
    measured(kills, report, dead=len(dead))
    assert not report.broken()
    assert sorted(dead) == sorted(poisons)
    assert report.handled == report.ok - poisons
    async with EventBus(lab.url) as bus:
        letters = await bus.dead_letters.list()
    assert {letter.reason for letter in letters} == {Reason.CRASHED}
    assert {len(letter.attempts) for letter in letters} == {1 + max_retries}


async def test_poisons_side_by_side(lab: Lab, measured):
    """One that was held beside another when that crashed is charged for it, once, as nobody can tell which it was."""
    poisons = {7, 20, 21}
    await publish(lab, [plain(n, poison=True) if n in poisons else plain(n) for n in range(40)])
    kills = await consume_until_buried(lab, poisons, max_retries=2)
    report = await lab.verdict()
    dead = await lab.dead()
    measured(kills, report, dead=len(dead))
    assert not report.broken()
    assert sorted(dead) == sorted(f"plain-{n}" for n in poisons)
    assert report.handled == report.ok - set(dead)
    deliveries = [len(lab.history("delivered", id=id)) for id in dead]
    assert {2, 3} >= set(deliveries) >= {3}


async def test_an_innocent_keeps_its_own_attempts(lab: Lab):
    """Held beside a poison once, failing once by itself: it is promised a second attempt, and would succeed."""
    await publish(lab, [plain(0, poison=True), plain(1)])
    while not (lab.history("buried", id="plain-0") and lab.history("buried", "effect", id="plain-1")):
        consumer = lab.consumer(max_retries=1, fail=1, lease=0.6, concurrency=4)
        await lab.until(lambda c: c.ended or lab.history("buried", "effect", id="plain-1"), consumer)
        await lab.until(lambda c: c.ended or lab.history("buried", id="plain-0"), consumer)
        consumer.kill()
    assert await lab.dead() == ["plain-0"]


async def test_a_kill_while_burying_leaves_one_dead_letter(lab: Lab, long_form: bool, measured):
    """At every write and sync of the commit that makes the dead letter and settles the delivery."""
    points = range(60) if long_form else (0, 5, 10, 15, 99)
    survived = 0
    for number, point in enumerate(points):
        await publish(lab, [plain(number)])
        consumer = lab.consumer(reject=True, die_writing=point, lease=0.5)
        buried = len(lab.history("buried"))
        await lab.until(lambda c, before: c.ended or len(lab.history("buried")) > before, consumer, buried)
        survived += not consumer.ended
        consumer.kill()
        await lab.drain(reject=True, lease=0.5)
        assert Counter(await lab.dead()) == Counter(f"plain-{n}" for n in range(number + 1))
    report = await lab.verdict()
    measured(len(points), report, survived=survived)
    assert not report.broken()
    assert 0 < survived < len(points), "kills before, within and after the commit are wanted"


async def test_backoff_survives_restarts(lab: Lab, long_form: bool, measured):
    """Killed after each failure: the retries come at their time all the same, within 20 %, with their counts."""
    waits: list[float] = []
    for first in range(0, 50 if long_form else 5, 5):
        ids = [f"plain-{number}" for number in range(first, first + 5)]
        await publish(lab, [plain(number) for number in range(first, first + 5)])
        for attempt in (1, 2):
            consumer = lab.consumer(fail=2, initial=1.5)
            await lab.written(2 * first + 5 * attempt, "retried")
            consumer.kill()
        await lab.drain(fail=2, initial=1.5)
        for id in ids:
            delivered, failed = lab.history("delivered", id=id), lab.history("retried", id=id)
            assert [entry.attempt for entry in delivered] == [1, 2, 3]
            waits += [(delivered[1].time - failed[0].time) / 1.5, (delivered[2].time - failed[1].time) / 3.0]
    report = await lab.verdict()
    measured(len(waits), report, earliest=min(waits), latest=max(waits))
    assert not report.broken()
    assert min(waits) >= 0.98
    assert max(waits) <= 1.2


async def test_ten_thousand_ids_are_known_after_a_restart(lab: Lab):
    """The same 10,000 events again, by another process: each is told to be a duplicate, at its old position."""
    first = lab.publisher(name="same", count=10_000, tasks=4, many=500)
    await lab.written(10_000, "ok")
    first.kill()
    again = lab.publisher(name="same", count=10_000, tasks=4, many=500)
    assert await lab.ended(again) == 0
    answers = lab.history("ok")
    assert Counter(entry.note for entry in answers) == {"": 10_000, "duplicate": 10_000}
    stored = await lab.stored()
    assert len(stored) == len(set(stored)) == 10_000
    assert not (await lab.verdict(retained=stored)).broken()  # conflicts among them: no id has two positions


async def test_a_ledger_is_exact_after_kills(lab: Lab, long_form: bool, measured):
    """Effects that book by event id: whatever is killed whenever, each amount moved once."""
    rounds, random = 100 if long_form else 5, Random(3)
    ledger = str(lab.folder / "ledger.db")
    await lab.declare()
    for _ in range(rounds):
        publisher = lab.publisher(tasks=1)  # a booking takes longer than a publish
        consumer = lab.consumer(ledger=ledger, concurrency=random.choice((1, 4)))
        goal = len(lab.history("effect")) + random.randint(20, 120)
        await lab.written(goal, "effect")
        for program in random.sample([publisher, consumer], 2):
            program.kill()
    await lab.drain(ledger=ledger, timeout=600)
    report = await lab.verdict()
    measured(rounds, report)
    assert not lab.broken(report)
    names = {entry.process for entry in lab.history("invoked")}
    events = {
        id: build(Publisher(url="", journal="", name=name), int(number))
        for id in report.handled
        for name, _, number in [id.rpartition("-")]
        if name in names
    }
    assert report.handled == events.keys()
    book = Ledger(ledger)
    assert book.balances() == balances_of(events.values())
    assert sum(book.balances().values()) == 0
    book.close()


async def test_a_replay_is_the_original(lab: Lab, long_form: bool):
    """SHA-256 over position, id, headers and payload, before and after kills; cursors stay; the delivery says so."""
    await lab.declare()
    publisher = lab.publisher(count=20_000 if long_form else 1_000, padding=50)
    assert await lab.ended(publisher, timeout=120) == 0
    killed = lab.publisher()
    await lab.written(100, "ok", process=killed.name)
    killed.kill()
    async with EventBus(lab.url) as bus:
        placed = bus.capabilities.positions
        original = sum_of([stored async for stored in bus.history()])
        before = await bus.info(SUBSCRIPTION)
    consumer = lab.consumer(die="effect", die_at=100)
    assert await lab.ended(consumer) == -signal.SIGKILL
    await lab.drain()
    async with EventBus(lab.url) as bus:
        moved = await bus.info(SUBSCRIPTION)
        replayed: list[Stored] = []

        def handler(event: Event) -> None:
            delivery = current()
            assert delivery is not None
            assert delivery.replayed
            assert delivery.position is not None
            replayed.append(Stored(event=event, position=delivery.position, stored_at=0))

        await bus.replay(handler, ReplayConfig(speed_multiplier=0))
        assert sum_of(replayed) == original
        assert await bus.info(SUBSCRIPTION) == moved
    assert before is not None
    assert len(replayed) == len(await lab.stored())
    told = {entry.id: (entry.position, entry.digest) for entry in lab.history("delivered")}
    again = {s.event.event_id: (str(s.position) if placed else "", fingerprint(s.event)) for s in replayed}
    report = await lab.verdict()
    # Where an event goes to the log and to each subscription by itself, what nobody confirmed may be in one of them.
    unconfirmed = set() if placed else report.invoked - report.ok
    assert {id: each for id, each in told.items() if id not in unconfirmed} == {
        id: each for id, each in again.items() if id not in unconfirmed
    }
    assert placed <= (before.ready == len(replayed))
    assert not lab.broken(report)


def sum_of(log: list[Stored]) -> str:
    """One SHA-256 over positions, ids, headers and payloads."""
    found = hashlib.sha256()
    for stored in log:
        event = stored.event
        line = [str(stored.position), event.event_id, digest(event.body, event.headers.items())]
        found.update(msgspec.json.encode(line))
    return found.hexdigest()
