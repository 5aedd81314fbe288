"""Power cuts: what was not synced is gone, or there in part, and nothing that was confirmed may hang on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.faults.checker import Report, check
from tests.faults.disk import Disk
from tests.faults.journal import Entry, Tail
from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.recorder import fingerprint
from tests.faults.worker import Publisher, build, publish_noted, waiting
from wowevent import EventBus
from wowevent.broker import Ack
from wowevent.brokers import open_broker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

CHANCES = (0.0, 0.5, 0.9, 1.0)
"""That a sector which was not synced is on the platter all the same."""


async def reopened(path: Path, known: Sequence[Entry]) -> Report:
    """Judge what the log of a cut has, payloads included, against what was written down before the cut."""
    found: list[Entry] = []
    async with EventBus(f"sqlite:///{path}") as bus:
        async for stored in bus.history():
            event = stored.event
            position, digest = str(stored.position), fingerprint(event)
            found.append(
                Entry(time=1e12, process="log", what="delivered", id=event.event_id, position=position, digest=digest)
            )
        info = await bus.info(SUBSCRIPTION)
    assert info is not None, "the subscription is gone"
    # What is acknowledged may be ready again only if its acknowledgement was not confirmed.
    acked = {entry.id for entry in known if entry.what == "acked"}
    ids = {entry.id for entry in found}
    assert waiting(info) <= len(ids - acked)
    unacked = {entry.id for entry in known if entry.what == "ok"} - {e.id for e in known if e.what == "asked"}
    assert waiting(info) >= len(unacked & ids)
    return check([entry for entry in known if entry.what != "acked"] + found, retained=ids)


class Cutter:
    """Takes an image at random writes and syncs, in the engine's own thread: most fall into the middle of a commit."""

    def __init__(self, lab: Lab, disk: Disk, count: int, every: int) -> None:
        """`count` images, one in about `every` changes of the disk."""
        self.images: list[tuple[Path, list[Entry]]] = []
        self.torn = 0
        """Images that were taken while something was not synced."""
        self.full = threading.Event()
        self._lab = lab
        self._disk = disk
        self._count = count
        self._every = every
        self._tail = Tail(lab.journals)
        self._random = Random(4)
        self._left = every
        disk.before_change = self._strike

    def _strike(self) -> None:
        self._left -= 1
        if self._left > 0 or self.full.is_set():
            return
        self._left = self._random.randint(1, 2 * self._every)
        known = list(self._tail.entries())  # first: what is confirmed after this is not asked of the image
        folder = self._lab.folder / f"cut-{len(self.images)}"
        folder.mkdir()
        self.torn += self._disk.unsynced("") > 0
        self._disk.cut(folder, CHANCES[len(self.images) % len(CHANCES)], self._random)
        self.images.append((folder / self._lab.path.name, known))
        if len(self.images) == self._count:
            self.full.set()


async def cuts(lab: Lab, disk: Disk, count: int, *, synchronous: str = "full", every: int = 150) -> Cutter:
    """Publish and acknowledge, and cut the power so many times meanwhile."""
    random = Random(4)
    broker = open_broker(f"{lab.url}?synchronous={synchronous}")
    bus = EventBus(broker)
    await bus.start()
    handle = await bus.subscribe("load.#", print, "declared", subscription=SUBSCRIPTION, lease=60.0)
    await handle.cancel()
    cutter = Cutter(lab, disk, count, every)
    with lab.journal("power") as journal:

        async def publish(name: str) -> None:
            for number in range(10**9):
                settings = Publisher(url="", journal="", name=name, padding=random.choice((10, 300, 20_000)))
                await publish_noted(bus, journal, [build(settings, number)])

        async def acknowledge() -> None:
            while True:
                leases = await broker.fetch(SUBSCRIPTION, limit=5, wait=1.0)
                for lease in leases:
                    journal.write("asked", lease.event.event_id)
                if await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases]) == len(leases):
                    for lease in leases:
                        journal.write("acked", lease.event.event_id)

        tasks = [asyncio.create_task(publish(f"t{n}")) for n in range(8)] + [asyncio.create_task(acknowledge())]
        await lab.until(cutter.full.is_set, timeout=600)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await bus.stop()
    await broker.close()
    return cutter


async def test_a_power_cut_loses_nothing_that_was_confirmed(lab: Lab, long_form: bool, measured):
    """Cut at any moment: what was confirmed is there, nothing else is, and no payload is another one."""
    with Disk(lab.folder) as disk:
        cutter = await cuts(lab, disk, 300 if long_form else 40)
        assert disk.checkpoints > 1
    reports = [await reopened(path, known) for path, known in cutter.images]
    lost, made_up = (sum(len(getattr(report, name)) for report in reports) for name in ("lost", "unexpected"))
    ok = len(reports[-1].ok)
    measured(len(reports), ok=ok, lost=lost, unexpected=made_up, torn=cutter.torn)
    assert [report.broken() for report in reports] == [{}] * len(reports)
    assert cutter.torn > len(reports) / 2
    assert ok > 100


async def test_it_is_synced_before_it_is_confirmed(lab: Lab):
    """When a publish or an acknowledgement is answered, nothing of it waits for a sync."""
    with Disk(lab.folder) as disk:
        broker = open_broker(lab.url)
        bus = EventBus(broker)
        await bus.start()
        handle = await bus.subscribe("load.#", print, "declared", subscription=SUBSCRIPTION, lease=60.0)
        await handle.cancel()
        settings = Publisher(url="", journal="", name="p")
        for number in range(100):
            writes, syncs = disk.writes, disk.syncs
            await bus.publish(build(settings, number))
            assert disk.writes > writes
            assert disk.syncs > syncs
            assert not disk.unsynced("-wal")
            (lease,) = await broker.fetch(SUBSCRIPTION, limit=1, wait=1.0)
            syncs = disk.syncs
            assert await broker.settle(SUBSCRIPTION, [Ack(lease.token)]) == 1
            assert disk.syncs > syncs
            assert not disk.unsynced("-wal")
        await bus.stop()
        await broker.close()


async def test_the_guard_matters_without_sync_a_power_cut_loses(lab: Lab):
    """The same cuts with synchronous=off and =normal are convicted: this disk does forget."""
    with Disk(lab.folder) as disk:
        broker = open_broker(f"{lab.url}?synchronous=off")
        bus = EventBus(broker)
        await bus.start()
        handle = await bus.subscribe("load.#", print, "declared", subscription=SUBSCRIPTION)
        await handle.cancel()
        with lab.journal("power") as journal:
            for number in range(50):
                await publish_noted(bus, journal, [build(Publisher(url="", journal="", name="p"), number)])
        folder = lab.folder / "cut"
        folder.mkdir()
        disk.cut(folder, 0.0, Random(5))
        await bus.stop()
        await broker.close()
    async with EventBus(f"sqlite:///{folder / lab.path.name}") as bus:
        kept = [stored.event.event_id async for stored in bus.history()]
    report = check(lab.history(), retained=kept)
    assert len(report.lost) == 50


async def test_the_guard_matters_normal_loses_the_last_moments(lab: Lab):
    """`synchronous=normal` says so itself: what was committed since the last checkpoint is not on disk."""
    with Disk(lab.folder) as disk:
        cutter = await cuts(lab, disk, 6, synchronous="normal")
    lost = 0
    for path, known in cutter.images:
        try:
            lost += len((await reopened(path, known)).lost)
        except AssertionError as error:
            assert "the subscription is gone" in str(error)  # noqa: PT017 - its declaration was confirmed, too
            lost += 1
    assert lost
