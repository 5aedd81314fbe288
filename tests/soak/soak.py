"""One engine under load for as long as is asked: who takes part, what goes wrong, and what is left at the end.

    publisher ─────────────┐                     ┌──> handlers `steady`: all of the bus's subscriptions
    client publisher ──┐   │                     ├──> handlers `mortal`: a member of `shared`; killed now and then
                     proxy │                     │
    receiver <─────────┤   └──> proxy ──> engine ┘
    churn <────────────┤          │         │
                       └── two routers of `wowevent serve`; the second one is killed now and then

What is killed starts with less than it had, and would hide what leaks. So of each kind one stays, and is watched.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tests.faults.lab import Lab, Program
from tests.faults.proxy import Proxy
from tests.faults.router_lab import SERVE, RouterLab
from tests.faults.worker import waiting
from tests.soak import engines
from tests.soak.engines import Engine
from tests.soak.faults import Fault, Strike, strike
from tests.soak.ledger import PROMISES, Ledger
from tests.soak.verdict import SHORTEST, Finding, Sample, judged
from tests.soak.watch import PASSING, Watch, Watched
from tests.soak.worker import FLAKY, PROGRAMS
from wowevent import EventBus
from wowevent.errors import BusError

NAMES = ("sqlite", "redis", "rabbitmq", "nats")
_SETTLED = 60.0  # seconds after which what was written down of an event is judged
_REDELIVERED = 10.0  # seconds between two redeliveries of all dead letters
_DRAINED = 120.0  # seconds within which all is settled once nobody publishes
_QUIET = {True: 5.0, False: 20.0}  # seconds without anything waiting after which nothing comes any more, if the engine
#                                    can count what is leased and delayed, and if it cannot
_STARTED = 60.0  # seconds within which all serve: a queue of RabbitMQ takes a moment to make
_ENDED = 40.0  # seconds for a program to end in good order
_NEAR = 0.95  # the share of a run after which nothing goes wrong any more: the end is about what is left
_MORTAL = 2  # the number of the router that is killed


class Asked(Struct, frozen=True, kw_only=True):
    """What a soak is to be."""

    seconds: float
    """Of load, for each engine; to start and to drain comes on top."""
    rate: float = 200.0
    """Events a second, half of them by a bus, half by a client of the router."""
    seed: int = 1
    fault_every: float = 30.0
    sample_every: float = 5.0
    shortest: float = SHORTEST
    """Seconds below which it is not said whether a series is flat."""
    leak: float = 0.0
    drop: int = 0
    """Built into the handlers, for the soak to notice: see `worker.Handlers`."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one engine."""

    engine: str
    seconds: float
    counts: dict[str, int]
    """What the ledger says, and what the programs counted."""
    faults: list[Fault]
    findings: list[Finding]
    series: dict[str, list[Sample]]
    failures: list[str]
    """Why it was not good; empty if it was."""


class Soak:
    """One run."""

    def __init__(self, engine: Engine, lab: Lab, asked: Asked) -> None:
        self._engine = engine
        self._lab = lab
        self._nameless = lab.folder / "nameless"
        self._asked = asked
        self._ledger = Ledger(lab.journals)
        self._routed = RouterLab(lab)
        self._started = 0
        self._programs: dict[str, Program] = {}
        self._failures: list[str] = []
        self._redelivered = 0
        self._struck: list[Fault] = []

    async def run(self) -> Outcome:
        """Load and faults, then the drain, then the verdict. What goes wrong with the soak itself is a failure too."""
        async with AsyncExitStack() as stack:
            stack.callback(self._lab.close)
            clients = await stack.enter_async_context(Proxy(self._routed.port, plain=True))
            lines = [clients]
            if self._engine.server is not None:
                lines.append(await stack.enter_async_context(Proxy(self._engine.server.port, plain=True)))
                self._lab.url = self._engine.behind(lines[1].port)
            bus = await stack.enter_async_context(EventBus(self._engine.url))
            watch = Watch(self._engine, bus, self._ledger, self._watched)
            try:
                await self._start(clients.url)
                await self._load(bus, watch, self._kinds(lines))
                await self._drain(bus)
            except (AssertionError, BusError, TimeoutError) as error:
                self._failures.append(f"{error!r}; the programs say: {self._lab.output()}")
        return self._outcome(watch)

    # --- who takes part -----------------------------------------------------------------------------------------

    async def _start(self, url: str) -> None:
        """All subscriptions are there before the first event is: it counts as lost where it was not expected."""
        await self._routed.serve("--workers", "2")
        await self._handlers("steady")
        await self._handlers("mortal")
        self._programs["receiver"] = await self._routed.receiver(
            name="receiver", url=url, named=True, lease=10.0, concurrency=8, within=_STARTED
        )
        await asyncio.sleep(self._engine.young)
        notes, given = self._ledger.notes, self._ledger.given
        self._begin("churn", "churn", url=url, engine=self._lab.url, nameless=str(self._nameless))
        await self._until(lambda: "churn" in notes, _STARTED)
        half = self._asked.rate / 2
        self._begin("publisher", "publisher", url=self._lab.url, rate=half)
        tasks = max(1, round(half / 10))
        self._programs["clients"] = self._routed.publisher(name="clients", url=url, tasks=tasks, period=tasks / half)
        await self._until(lambda: "publisher" in notes and given["clients"] > 0, _STARTED)

    async def _handlers(self, name: str) -> None:
        steady = name == "steady"
        guilty = {"leak": self._asked.leak, "drop": self._asked.drop} if steady else {}
        self._ledger.notes.pop(name, None)
        self._begin("handlers", name, url=self._lab.url, steady=steady, **guilty)
        await self._until(lambda: name in self._ledger.notes or self._programs[name].ended, _STARTED)

    def _begin(self, kind: str, name: str, **settings: Any) -> None:
        self._started += 1
        journal = str(self._lab.journals / f"{name}-{self._started}.jsonl")
        text = msgspec.json.encode(PROGRAMS[kind][0](journal=journal, name=name, **settings)).decode()
        self._programs[name] = self._lab.run(name, [sys.executable, "-m", "tests.soak.worker", kind, text])

    def _watched(self) -> dict[str, Watched]:
        """The first router, and all programs but the one that is killed."""
        found = {f"router {each['number']}": Watched(each["pid"], each["http"]) for each in self._routers()[:1]}
        return found | {
            name: Watched(program.process.pid)
            for name, program in self._programs.items()
            if name != "mortal" and not program.ended
        }

    def _routers(self) -> list[dict[str, Any]]:
        """Their numbers, processes and addresses."""
        (file,) = (self._lab.folder / ".local").rglob("wowevent.pid")
        found: list[dict[str, Any]] = json.loads(file.read_bytes())["workers"]
        return found

    # --- what goes wrong ----------------------------------------------------------------------------------------

    def _kinds(self, lines: list[Proxy]) -> dict[str, Strike]:
        async def cut(line: Proxy) -> None:
            line.reset()

        kinds: dict[str, Strike] = {
            "a consumer is killed": self._kill_consumer,
            "a router is killed": self._kill_router,
            "the lines to the routers are cut": lambda: cut(lines[0]),
        }
        if (restart := self._engine.restart) is not None:
            kinds["the lines to the engine are cut"] = lambda: cut(lines[1])
            kinds["the engine is killed"] = partial(self._kill_engine, restart)
        return kinds

    async def _kill_engine(self, restart: Callable[[], None]) -> None:
        """Where what is young does not survive that, nobody has come by a new name shortly before."""
        young = self._engine.young
        if young:
            self._nameless.touch()
        try:
            await asyncio.sleep(2 * young)
            await asyncio.to_thread(restart)
        finally:
            self._nameless.unlink(missing_ok=True)

    async def _kill_consumer(self) -> None:
        self._programs["mortal"].kill()
        await self._handlers("mortal")

    async def _kill_router(self) -> None:
        pid = self._routers()[_MORTAL - 1]["pid"]
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._until(lambda: self._routers()[_MORTAL - 1]["pid"] not in {None, pid}, _STARTED)

    # --- the load, and its end ----------------------------------------------------------------------------------

    async def _load(self, bus: EventBus, watch: Watch, kinds: dict[str, Strike]) -> None:
        asked = self._asked
        striking = strike(kinds, asked.seed, every=asked.fault_every, until=_NEAR * asked.seconds, struck=self._struck)
        tasks = [
            asyncio.create_task(job) for job in (watch.run(asked.sample_every), self._redeliver(bus), self._judge())
        ]
        struck = asyncio.create_task(striking)
        try:
            ended = time.monotonic() + asked.seconds
            while time.monotonic() < ended:
                done, _ = await asyncio.wait([*tasks, struck], timeout=1.0, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
                if any(program.ended for name, program in self._programs.items() if name != "mortal"):
                    raise AssertionError(f"ended by themselves: {self._ended()}")
            await asyncio.wait_for(struck, _STARTED)
        finally:
            for task in (*tasks, struck):
                task.cancel()
            await asyncio.gather(*tasks, struck, return_exceptions=True)

    def _ended(self) -> list[str]:
        return [name for name, program in self._programs.items() if program.ended]

    async def _redeliver(self, bus: EventBus) -> None:
        """All dead letters, again and again; while the engine is away there is a next time."""
        while True:
            await asyncio.sleep(_REDELIVERED)
            with suppress(BusError):
                self._redelivered += await bus.dead_letters.redeliver(subscription=FLAKY)

    async def _judge(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self._take, time.monotonic() - _SETTLED)

    def _take(self, before: float) -> None:
        self._ledger.update()
        self._ledger.sweep(before)

    async def _drain(self, bus: EventBus) -> None:
        """Nobody publishes any more: all that was confirmed is handled, and nothing waits."""
        await self._end("churn", "publisher", "clients")
        self._doubts()
        began = busy = time.monotonic()
        while (wait := await self._waiting(bus)) or self._ledger.left.lost:
            now = time.monotonic()
            busy = now if wait else busy
            if now - began > _DRAINED:
                self._failures.append(f"not empty after {_DRAINED:.0f} s: {wait}")
            if now - began > _DRAINED or now - busy > _QUIET[bus.capabilities.exact]:
                break
            await asyncio.sleep(0.5)
        if lost := self._ledger.left.lost:
            self._failures.append(f"not handled, such as {', '.join(sorted(lost)[:5])}")
        await self._end("receiver", "mortal", "steady", SERVE)
        await asyncio.to_thread(self._take, float("inf"))

    def _doubts(self) -> None:
        """A client gives an id before the router confirms the event: all have to be confirmed at the end."""
        given, confirmed = self._ledger.given["clients"], self._ledger.notes.get("clients", {}).get("published", 0)
        if given != confirmed:
            self._failures.append(f"{given - confirmed} of {given} events that a client took were never confirmed")

    async def _waiting(self, bus: EventBus) -> str:
        """What the engine has left; nothing if it has nothing. Dead letters are handed out once more."""
        with suppress(BusError):
            self._redelivered += await bus.dead_letters.redeliver(subscription=FLAKY)
            await asyncio.to_thread(self._take, float("inf"))
            infos = [info for info in await bus.subscriptions() if not info.subscription.id.startswith(PASSING)]
            wait = {info.subscription.id: waiting(info) + info.dead for info in infos if info.subscription.durable}
            return ", ".join(f"{count} of {name} wait" for name, count in wait.items() if count)
        return "the engine does not answer"

    async def _end(self, *names: str) -> None:
        """SIGTERM, and a good end."""
        programs = {name: self._programs[name] for name in names if name in self._programs}
        for program in programs.values():
            if not program.ended:
                program.signal(signal.SIGTERM)
        for name, program in programs.items():
            try:
                await self._gone(program)
            except AssertionError:
                self._failures.append(f"{name} did not end within {_ENDED:.0f} s of SIGTERM")
            else:
                if status := program.process.returncode:
                    self._failures.append(f"{name} ended with {status}: {self._lab.output()}")
        await asyncio.to_thread(self._ledger.update)

    async def _gone(self, program: Program) -> None:
        await self._until(lambda: program.ended, _ENDED)

    async def _until(self, true: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not happen within {timeout:.0f} s")
            await asyncio.sleep(0.05)
            await asyncio.to_thread(self._ledger.update)

    # --- the verdict --------------------------------------------------------------------------------------------

    def _outcome(self, watch: Watch) -> Outcome:
        asked = self._asked
        findings = [
            finding
            for name, samples in sorted(watch.series.items())
            if (finding := judged(name, samples, asked.seconds, asked.shortest)) is not None
        ]
        counts = {**self._ledger.total, "redelivered": self._redelivered, **self._said()}
        broken = {name: counts[name] for name in (*PROMISES, "wrong") if counts.get(name)}
        failures = [*self._failures, *(f"{name}: {count}" for name, count in broken.items())]
        failures += [f"not flat: {finding.name}" for finding in findings if finding.flat is False]
        return Outcome(
            engine=self._engine.name,
            seconds=asked.seconds,
            counts=counts,
            faults=self._struck,
            findings=findings,
            series=dict(watch.series),
            failures=failures,
        )

    def _said(self) -> dict[str, int]:
        """What the programs counted; of those that stay to the end."""
        notes = self._ledger.notes
        names = {"publisher": ("asked", "unanswered", "wrong"), "churn": ("came", "turned_away"), "steady": ("ticks",)}
        return {name: notes.get(process, {}).get(name, 0) for process, told in names.items() for name in told}


async def soak(name: str, folder: Path, asked: Asked) -> Outcome:
    """Run it on one engine, with its files below this folder."""
    with engines.running(name, folder / name / "engine") as engine:
        lab = Lab(folder / name)
        lab.url = engine.url
        return await Soak(engine, lab, asked).run()
