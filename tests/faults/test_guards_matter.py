"""A fault test counts once it was seen to fail: here a guard is taken out, and the checker has to notice.

The power cut's own guards, `synchronous=off` and `=normal`, stand in test_power.py; the checksum's in test_storage.py.
"""

from __future__ import annotations

import signal

import apsw
import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.recorder import Recorder
from tests.faults.worker import Publisher, build, publish_noted
from wowevent import EventBus
from wowevent.broker import Ack
from wowevent.brokers import open_broker
from wowevent.brokers.sqlite import log, settling
from wowevent.brokers.sqlite.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


async def kill_one_consumer(lab: Lab, *, auto_ack: bool) -> None:
    await lab.declare()
    publisher = lab.publisher(count=100)
    assert await lab.ended(publisher) == 0
    consumer = lab.consumer(die="before", die_at=10, auto_ack=auto_ack)
    assert await lab.ended(consumer) == -signal.SIGKILL
    await lab.drain()


async def test_acknowledging_before_the_handler_loses(lab: Lab):
    """`auto_ack=True` is at most once, and says so; the same kill without it loses nothing."""
    await kill_one_consumer(lab, auto_ack=True)
    assert (await lab.verdict()).lost


async def test_acknowledging_behind_it_does_not(lab: Lab):
    await kill_one_consumer(lab, auto_ack=False)
    assert not (await lab.verdict()).broken()


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_known_ids_an_event_is_stored_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    """The ids of the log are what makes publishing again safe."""
    await lab.declare()
    if not guarded:
        monkeypatch.setattr(log, "_known", lambda _store, _events: {})
        db = apsw.Connection(str(lab.path))
        db.execute("DROP INDEX log_id")
        db.close()
    source = Publisher(url="", journal="", name="p")
    with lab.journal("test") as journal:
        for _ in range(2):
            async with EventBus(lab.url) as bus:
                await publish_noted(bus, journal, [build(source, number) for number in range(20)])
    await lab.drain()
    report = await lab.verdict()
    assert bool(report.broken()) is not guarded
    assert len(report.duplicates) == (0 if guarded else 20)
    assert len(report.conflicts) == (0 if guarded else 20)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_attempts_in_tokens_an_event_is_settled_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """A token that named the event alone would let a late acknowledgement settle what another one holds."""
    if not guarded:

        def ack(store: Store, num: int, lane: int, _attempt: int, offsets: list[int]) -> int:
            for offset in offsets:
                store.db.execute("DELETE FROM entry WHERE sub = ? AND lane = ? AND offset = ?", (num, lane, offset))
            return len(offsets)

        monkeypatch.setattr(settling, "_ack", ack)
    await lab.declare(lease=0.3)
    with lab.journal("test") as journal:
        async with EventBus(lab.url) as bus:
            await publish_noted(bus, journal, [build(Publisher(url="", journal="", name="p"), 0)])
    await late_ack(lab)
    report = await lab.verdict()
    assert bool(report.broken().get("settled_twice")) is not guarded


async def late_ack(lab: Lab) -> None:
    """One instance holds an event beyond its lease, another one gets it, and both acknowledge."""
    with lab.journal("late") as one, lab.journal("next") as two:
        late, following = Recorder(open_broker(lab.url), one), Recorder(open_broker(lab.url), two)
        held = [(broker, await broker.fetch(SUBSCRIPTION, limit=1, wait=5.0)) for broker in (late, following)]
        for broker, (lease,) in reversed(held):
            await broker.settle(SUBSCRIPTION, [Ack(lease.token)])
        await late.close()
        await following.close()
