"""How much all processes do, and who got an event, as two see it that look: through kills, a stop, and an engine away.

The stated times (docs/monitoring.md): a process that is killed, or does nothing any more, is gone from the sample after
6 s of silence; who cannot hear the others says so within 4 s, and until 4 s after it hears something again. The short
form lets everybody speak, and be missed, four times as fast.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.conformance.engines import eventually
from tests.faults.conftest import Engine
from wowevent import Delivered, Event, EventBus, directory, pulse, pulses, trails
from wowevent.broker import Query
from wowevent.pulse import PERIOD
from wowevent.service import create_app, drain

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

FAST = 0.25  # of the stated times, in the short form,
SOON = 0.4  # and of those in which questions are seen and answered
LATE = 3.0  # seconds: of a machine with much to do
BACK = 20.0  # seconds within which processes have their engine again, once that answers
ANSWER = 10.0  # seconds within which a page has an answer, whatever there is: for the first one all are asked
BUSY, QUIET = 20, 1  # events that they publish ten times a second
MUCH, LITTLE = 40.0, 15.0  # events a second: more than the quiet one makes, and no more than that

WORKS = """
import asyncio, sys
from wowevent import Event, EventBus, directory, pulses
from wowevent.errors import BusError

async def main(url, name, period, look, many):
    pulses.PERIOD, directory._LOOK = float(period), float(look)
    async with EventBus(url) as bus:
        await bus.subscribe(f"{name}.*", lambda event: None, name)
        print(bus.attendance.process, flush=True)
        while True:
            try:
                await bus.publish_many([Event(topic=f"{name}.done") for _ in range(int(many))])
            except BusError:
                pass
            await asyncio.sleep(0.1)

asyncio.run(main(*sys.argv[1:]))
"""


class Works:
    """A process that publishes, and handles what it publishes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.id: str = ""
        """What it goes by."""

    async def begun(self) -> None:
        """Return once it is there."""
        assert self._process.stdout is not None
        self.id = (await asyncio.to_thread(self._process.stdout.readline)).decode().strip()
        assert self.id

    def signal(self, number: int) -> None:
        self._process.send_signal(number)


@contextmanager
def working(url: str, name: str, many: int) -> Iterator[Works]:
    """One, killed if it is still there at the end."""
    paces = [str(pulse.PERIOD), str(directory._LOOK)]  # noqa: SLF001 - of this run
    command = [sys.executable, "-c", WORKS, url, name, *paces, str(many)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield Works(process)
        finally:
            process.kill()


class Eye:
    """Who looks, by HTTP, at a process of its own."""

    def __init__(self, bus: EventBus, client: httpx.AsyncClient) -> None:
        self.bus = bus
        self._client = client

    async def get(self, path: str) -> dict[str, Any]:
        """An answer, which comes in time."""
        began = time.monotonic()
        answer = await self._client.get(path)
        assert time.monotonic() - began < ANSWER
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def until(self, true: Callable[[dict[str, Any]], object], within: float) -> float:
        """Seconds until the overview is so."""
        began = time.monotonic()
        while not true(found := await self.get("/overview")):
            assert time.monotonic() - began < within, {**found, "series": found["series"][-5:]}
            await asyncio.sleep(0.05)
        return time.monotonic() - began


@asynccontextmanager
async def eye(url: str) -> AsyncIterator[Eye]:
    async with EventBus(url) as bus:
        app = create_app(bus)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bus", timeout=60) as client:
            yield Eye(bus, client)
        await drain(app)


def processes(count: int | None) -> Callable[[dict[str, Any]], object]:
    """Whether so many are there."""
    return lambda found: found["processes"] == count


def nothing_known(found: dict[str, Any]) -> bool:
    """Whether it says so of all that nobody knows, and calls none of it 0."""
    names = ("processes", "published_per_second", "delivered_per_second", "failed_per_second", "latency")
    newest = found["series"][-1]
    return [found[name] for name in names] == [None] * 5 and newest["published"] is newest["p95"] is None


async def said(bus: EventBus, process: str, seconds: float) -> int:
    """How many pulses of a process somebody hears in that time."""
    count, head = 0, (await bus.broker.ping()).head
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(seconds),
            aclosing(bus.broker.read(Query(patterns=(pulses.TOPIC,)), after=head, follow=True)) as words,
        ):
            async for stored in words:
                count += stored.event.payload["process"] == process
    return count


async def stop(works: Works, one: Eye, other: Eye, left: int) -> float:
    """SIGSTOP, seen by both; seconds. One that is stopped while it has SQLite's write lock stops all: then again."""
    for _ in range(5):
        works.signal(signal.SIGSTOP)
        began = time.monotonic()
        gone = pulse.SILENT + 2 * pulse.PERIOD + LATE
        found = await asyncio.gather(
            *(each.until(lambda its: its["processes"] in {left, None}, gone) for each in (one, other))
        )
        if [(await each.get("/overview"))["processes"] for each in (one, other)] == [left, left]:
            return max(found)
        works.signal(signal.SIGCONT)
        await one.until(processes(left + 1), BACK)
        await other.until(processes(left + 1), BACK)
        assert time.monotonic() - began < 60
    raise AssertionError("it is never stopped without a lock")


async def test_what_two_see_who_look(
    engine: Engine, long_form: bool, monkeypatch: pytest.MonkeyPatch, measured
) -> None:
    pace = 1.0 if long_form else FAST
    for module in (pulses, pulse):
        monkeypatch.setattr(module, "PERIOD", PERIOD * pace)
    monkeypatch.setattr(pulse, "SILENT", pulse.SILENT * pace)
    for module, name in ((directory, "_LOOK"), (pulses, "_ANSWERS"), (trails, "_ANSWERS")):
        monkeypatch.setattr(module, name, getattr(module, name) * (1.0 if long_form else SOON))
    handles = psutil.Process().num_fds()
    with ExitStack() as stack:
        busy = stack.enter_context(working(engine.url, "busy", BUSY))
        quiet = stack.enter_context(working(engine.url, "quiet", QUIET))
        await asyncio.gather(busy.begun(), quiet.begun())
        async with eye(engine.url) as one:
            async with eye(engine.url) as other:
                for each in (one, other):  # one after the other: all have seen the first look before the second
                    await each.until(all_of, 20)
                await two_cost_no_more_than_one(one, busy)
                killed = await is_killed(busy, one, other)
                stopped = await is_stopped_and_goes_on(quiet, one, other, engine.url)
                if engine.server is not None:
                    await asyncio.to_thread(engine.server.kill)
                    deaf = await asyncio.gather(
                        *(each.until(nothing_known, 6 * pulse.PERIOD + 3 * LATE) for each in (one, other))
                    )
                    assert not (await one.get("/routers"))["complete"]
            back = await comes_back(engine, one)
    await eventually(lambda: psutil.Process().num_fds() <= handles)
    measured(1, killed=killed, stopped=stopped, deaf=max(deaf) if engine.server else 0.0, back=back)


def all_of(found: dict[str, Any]) -> bool:
    return found["processes"] == 4 and found["published_per_second"] > MUCH and found["delivered_per_second"] > MUCH


async def two_cost_no_more_than_one(eye: Eye, works: Works) -> None:
    """Both ask again and again, by now, and a process speaks as often as it would for one of them."""
    periods = 4
    assert 1 <= await said(eye.bus, works.id, periods * pulse.PERIOD) <= periods + 1


async def is_killed(works: Works, *eyes: Eye) -> float:
    """The busy one: nobody counts it any more, and what it did does not stick."""
    works.signal(signal.SIGKILL)
    within = pulse.SILENT + pulse.PERIOD + LATE
    took = await asyncio.gather(*(each.until(processes(3), within) for each in eyes))
    for each in eyes:
        await each.until(lambda found: found["published_per_second"] < LITTLE, pulse.PERIOD + LATE)
        found = await each.get("/overview")
        assert found["delivered_per_second"] < LITTLE
        assert found["health"] == "healthy"
    return max(took)


async def is_stopped_and_goes_on(works: Works, one: Eye, other: Eye, url: str) -> float:
    """It does not answer: nobody waits for it. It goes on: it counts once, and what it knows is known again."""
    (event,) = [stored.event async for stored in one.bus.history("quiet.*", limit=1)]
    await eventually(lambda: knows(one, event), BACK)
    took = await stop(works, one, other, 2)
    for each in (one, other):
        await each.until(lambda found: found["published_per_second"] == 0, pulse.PERIOD + LATE)
    async with asyncio.timeout(ANSWER), eye(url) as third:
        await third.until(processes(3), ANSWER)
        assert list(await third.bus.deliveries(event.event_id)) == []
    works.signal(signal.SIGCONT)
    began = time.monotonic()
    for each in (one, other):
        await each.until(lambda found: (found["published_per_second"] or 0) > 0, BACK)
    while time.monotonic() - began < 4 * pulse.PERIOD:  # nothing comes twice
        for each in (one, other):
            found = await each.get("/overview")
            assert found["processes"] == 3
            assert found["published_per_second"] < LITTLE
    await eventually(lambda: knows(one, event), BACK)
    return took


async def knows(eye: Eye, event: Event) -> list[Delivered]:
    return list(await eye.bus.deliveries(event.event_id))


async def comes_back(engine: Engine, eye: Eye) -> float:
    """By itself; the other one, who looked, left while the engine was away, or leaves now."""
    if engine.server is None:
        return 0.0
    await asyncio.to_thread(engine.server.start)
    back = await eye.until(lambda found: found["processes"] == 2 and found["published_per_second"] > 0, BACK)
    assert (await eye.get("/overview"))["series"][-1]["published"] is not None
    return back
