"""Jobs in the background of a process, as the others see and steer them."""

from __future__ import annotations

import pytest

from tests.conformance.engines import Rig, eventually
from wowevent import EventBus, directory, pulses
from wowevent.pulse import JobPulse


class Desk:
    """One job, which does as it is told."""

    def __init__(self) -> None:
        self.job = JobPulse("work", "j1", "worker", {"done": 0})
        self.told: list[str] = []

    def pulses(self) -> list[JobPulse]:
        return [self.job]

    async def carry_out(self, id: str, what: str, order: str) -> None:
        self.told.append(what)
        self.job = JobPulse("work", id, "worker", {"done": len(self.told)}, order)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_LOOK", 0.1)
    monkeypatch.setattr(pulses, "_ANSWERS", 0.5)
    monkeypatch.setattr(pulses, "PERIOD", 0.3)


async def test_a_job_of_another_process_is_seen_and_steered_once(rig: Rig):
    working, idle, asking = await rig.bus(), await rig.bus(), await rig.bus()
    desk, other = Desk(), Desk()
    other.job = JobPulse("work", "j2", None, {})
    working.errands.open(desk)
    idle.errands.open(other)
    await eventually(lambda: sees(asking, "j1", "j2"))
    found = await asking.errands.find("work", "j1")
    assert found is not None
    assert (found.process, found.job.owner, found.job.shown) == (working.attendance.process, "worker", {"done": 0})
    assert await asking.errands.elsewhere("play") == []
    for times, what in enumerate(("pause", "resume"), 1):
        steered = await asking.errands.steer(found, what)
        assert steered is not None
        assert steered.job.shown == {"done": times}
    assert (desk.told, other.told) == (["pause", "resume"], [])
    for _ in range(2):  # as it is after two processes wrote over each other's orders
        working.errands._asked("o1", {"kind": "work", "id": "j1", "what": "pause"})  # noqa: SLF001 - at one moment
    await eventually(lambda: desk.job.order == "o1")
    assert desk.told == ["pause", "resume", "pause"]
    working.errands.shut(desk)
    working.errands.change()
    await eventually(lambda: sees(asking, "j2"))


async def sees(bus: EventBus, *ids: str) -> bool:
    return {errand.job.id for errand in await bus.errands.elsewhere("work")} == set(ids)
