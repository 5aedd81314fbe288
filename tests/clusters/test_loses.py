"""A cluster test counts once it was seen to fail: here the copies are missing, and the checker has to notice."""

from __future__ import annotations

import asyncio
import shutil
import time
from functools import partial

import pytest

from tests.clusters import groups
from tests.clusters.groups import NODES, Group, cut_off, nats_leader
from tests.clusters.test_failover import ASYNCHRONOUS, LEASE, Make, judge, on, steady
from tests.faults.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COPIES: dict[str, Make] = {str(count): partial(groups.nats, replicas=count) for count in (1, NODES)}
SENTINELS = {name: make for name, make in ASYNCHRONOUS.items() if "sentinel" in name}
COUNT = 500
CUT = 1.0
"""Seconds for which the replicas are cut off before their primary dies."""
UNDER_WAY = 0.2
"""Seconds in which an answer that is under way is written down."""


@on(COPIES)
async def test_a_node_of_nats_comes_back_with_an_empty_disk(
    group: Group, lab: Lab, measured, request: pytest.FixtureRequest
):
    """It led the log, and nothing was read yet: with one replica all of it is gone, with three nothing is."""
    copied = request.node.callspec.id == str(NODES)
    await lab.declare(lease=LEASE)
    assert await lab.ended(lab.publisher(count=COUNT), timeout=60) == 0
    victim = group.nodes[await asyncio.to_thread(nats_leader, group, "wow-default-log")]
    await asyncio.to_thread(victim.kill)
    shutil.rmtree(victim.folder / "store")
    await asyncio.to_thread(victim.start)
    report, gone = await judge(lab, group, partial(measured, 1))
    assert len(report.ok) == COUNT
    assert len(report.lost) == len(gone) == (0 if copied else COUNT)


@on(SENTINELS)
async def test_a_primary_of_redis_dies_that_its_replicas_did_not_hear_any_more(
    group: Group, lab: Lab, measured, request: pytest.FixtureRequest
):
    """What it confirmed alone is gone, and nothing of before; one that must have a replica stops at once."""
    safe = request.node.callspec.id.endswith("min-replicas")
    await steady(group)
    await lab.declare(lease=LEASE)
    publisher = lab.publisher(tasks=4)
    await lab.written(300, "ok", timeout=60)
    primary = await asyncio.to_thread(group.victim, 0)
    began = time.monotonic()
    await asyncio.to_thread(cut_off, group)
    cut = time.monotonic()
    await asyncio.sleep(CUT)
    await asyncio.to_thread(primary.kill)
    killed = time.monotonic()
    await lab.until(lambda: lab.history("ok")[-1].time > killed, timeout=60)
    await asyncio.to_thread(primary.start)
    publisher.kill()
    report, gone = await judge(lab, group, partial(measured, 1), cut=killed - began)
    alone = {entry.id for entry in lab.history("ok") if cut + UNDER_WAY < entry.time < killed}
    assert not report.unexpected | report.altered
    assert alone <= report.lost == {entry.id for entry in gone}
    assert all(began < entry.time < (cut if safe else killed) + UNDER_WAY for entry in gone)
    assert bool(alone) is not safe
