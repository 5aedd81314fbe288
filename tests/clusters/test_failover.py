"""Clusters of the engines, for real on one machine: a node is killed under load, and comes back. `make clusters`.

Of NATS with three replicas and of RabbitMQ's quorum queues nothing that was confirmed may be gone. Redis confirms
before its replicas have it: what it had not sent on is gone with a primary, and nothing else is.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.clusters import groups
from tests.clusters.groups import Group
from tests.faults.checker import Report
from tests.faults.journal import Entry
from tests.faults.lab import Lab
from wowevent import BusError, EventBus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 3
LEASE = 15.0
"""Seconds: longer than any of them takes to go on, so that nothing comes twice for that."""
WINDOW = 30.0
"""Seconds within which all goes on after a node's death."""
UNSENT = 1.0
"""Seconds before a primary's death whose events its replicas may not have."""
TAKES = 6.0
"""Seconds in which Sentinels agree that a primary is dead, make another one, and all of them know."""
WRITE_TWICE = ("--min-replicas-to-write", "1")

Make = Callable[[Path], AbstractContextManager[Group]]
SAFE: dict[str, Make] = {"nats": groups.nats, "rabbitmq": groups.rabbitmq}
ASYNCHRONOUS: dict[str, Make] = {
    "redis-sentinel": groups.sentinel,
    "redis-sentinel-min-replicas": lambda folder: groups.sentinel(folder, *WRITE_TWICE),
    "redis-cluster": groups.slots,
}


def on(forms: dict[str, Make]) -> pytest.MarkDecorator:
    """Once on each of these clusters."""
    return pytest.mark.parametrize("group", list(forms.values()), ids=list(forms), indirect=True)


# ---------------------------------------------------------------------------------------------------- each node dies


@on(SAFE)
async def test_a_node_is_killed_under_load_and_nothing_is_lost(group: Group, lab: Lab, measured):
    """Each node once: whoever was connected to it goes to another one, and what was confirmed is there."""
    _, still = await kill_nodes(lab, group)
    report, gone = await judge(lab, group, partial(measured, ROUNDS), **still)
    assert not report.lost | report.unexpected | report.altered
    assert not gone
    assert max(still.values()) < WINDOW


@on(ASYNCHRONOUS)
async def test_a_primary_is_killed_under_load_and_only_what_its_replicas_did_not_have_is_lost(
    group: Group, lab: Lab, measured
):
    """The primary of the moment, three times: a replica takes over, and the one that was killed follows it.

    Sentinels on a busy machine may take a primary for dead that is only slow. That loses what the slow one goes on to
    confirm until it is told, and is reported.
    """
    kills, still = await kill_nodes(lab, group)
    others = [at for at in group.switches() if not any(0 < at - killed < TAKES for killed in kills)]
    report, gone = await judge(lab, group, partial(measured, ROUNDS), **still, switched_without_a_kill=len(others))
    assert not report.unexpected | report.altered
    assert report.lost <= {entry.id for entry in gone}
    spans = [(at - UNSENT, at + UNSENT) for at in kills] + [(at - TAKES, at + TAKES) for at in others]
    outside = [entry for entry in gone if not any(begin < entry.time < end for begin, end in spans)]
    assert not outside, [(entry.id, [round(entry.time - at, 3) for at in kills]) for entry in outside]
    assert max(still.values()) < WINDOW


async def kill_nodes(lab: Lab, group: Group) -> tuple[list[float], dict[str, float]]:
    """Kill one after another under load, each time when all are well; when that was, and how long who stood still."""
    await steady(group)
    await lab.declare(lease=LEASE)
    consumer = lab.consumer(concurrency=4, lease=LEASE, slow=0.005)  # something is unread when a node dies
    await lab.written(1, "ready", process=consumer.name, timeout=60)
    publisher = lab.publisher(tasks=4)
    kills, still = [], {"publishing": 0.0, "consuming": 0.0}
    for round in range(ROUNDS):
        await lab.written(len(lab.history("ok")) + 300, "ok", timeout=120)
        victim = await asyncio.to_thread(group.victim, round)
        kills.append(time.monotonic())
        await asyncio.to_thread(victim.kill)
        for what, kind in (("publishing", "ok"), ("consuming", "acked")):
            still[what] = max(still[what], await stood_still(lab, kind, kills[-1]))
        await asyncio.to_thread(victim.start)
        await lab.written(len(lab.history("ok")) + 100, "ok", timeout=120)
        await steady(group)
    publisher.kill()
    consumer.kill()
    return kills, still


async def stood_still(lab: Lab, kind: str, killed: float) -> float:
    """Wait until it goes on behind that moment; the longest pause since then, in seconds."""
    await lab.until(lambda: lab.history(kind)[-1].time > killed + UNSENT, timeout=2 * WINDOW)
    times = [entry.time for entry in lab.history(kind) if entry.time > killed - UNSENT]
    return max(after - before for before, after in itertools.pairwise(times))


async def judge(lab: Lab, group: Group, measured: Callable[..., None], **facts: object) -> tuple[Report, list[Entry]]:
    """The verdict once all are well and the subscription is drained, and what was confirmed and is not in the log."""
    await steady(group)
    await until(lambda: answers(lab), 60)
    drain = await lab.drain(lease=LEASE, timeout=180)
    report = await lab.verdict()
    stored = frozenset(await lab.stored())
    gone = [entry for entry in lab.history("ok") if entry.id not in stored]
    revived = len(report.revived | report.settled_twice)
    measured(report, gone=len(gone), revived=revived, **facts, drain=drain)
    return report, gone


async def steady(group: Group) -> None:
    """Return when every node is there and has everything."""
    await until(lambda: asyncio.to_thread(group.steady), 90)


async def answers(lab: Lab) -> bool:
    """Whether the bus is served by each part of the cluster."""
    try:
        async with EventBus(lab.url) as bus:
            await bus.health()
            await bus.subscriptions()
            await bus.dead_letters.list()
    except BusError:
        return False
    return True


async def until(true: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Return once that is true; ask seldom, since it asks every node. TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - a cluster tells nobody that it is well
            await asyncio.sleep(0.25)
