"""A router under fault: it, its clients, and the verdict for each of their subscriptions."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tests.faults.checker import Report, check
from tests.faults.journal import Entry
from tests.faults.lab import Lab, Program
from tests.faults.recorder import fingerprint
from tests.faults.router_worker import PROGRAMS
from tests.faults.worker import empty
from tests.processes import environment
from wowevent import Event, EventBus
from wowevent.client import EventRouterClient
from wowevent.errors import BusError

SERVE = "serve"
"""The name of `wowevent serve` among the programs."""


class RouterLab:
    """A lab with a router on its log, always at the same port."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.port = free_port()
        self.url = f"ws://localhost:{self.port}"
        self._count = 0

    # --- programs -----------------------------------------------------------------------------------------------

    async def serve(self, *options: str) -> Program:
        """`wowevent serve`, with these options beside those that say where, once it takes clients."""
        where = ["--url", self.lab.url, "--port", str(self.port), "--http-port", "0"]
        home = environment(self.lab.folder)
        program = self.lab.run(SERVE, [sys.executable, "-m", "wowevent", "serve", *where, *options], home)
        await self.lab.until(lambda: program.ended or takes_clients(self.port))
        assert not program.ended, self.lab.output()
        return program

    async def router(self, **settings: Any) -> Program:
        """A router that can be looked into; its settings are those of `router_worker.Served`."""
        program = self._start("router", url=self.lab.url, port=self.port, **settings)
        await self.lab.written(1, "ready", process=program.name)
        return program

    def publisher(self, **settings: Any) -> Program:
        """Start a publisher; its settings are those of `router_worker.Sending`."""
        return self._start("publisher", **{"url": self.url, **settings})

    async def receiver(self, **settings: Any) -> Program:
        """Start clients, and wait until all are subscribed; their settings are those of `router_worker.Receiving`.

        `within` is how many seconds that may take.
        """
        within = settings.pop("within", 30.0)
        program = self.start_receiver(**settings)
        await self.lab.until(lambda: self.is_ready(program), timeout=within)
        return program

    def start_receiver(self, **settings: Any) -> Program:
        """The same without waiting: it may not live that long."""
        return self._start("receiver", **{"url": self.url, **settings})

    async def readers(self, **settings: Any) -> Program:
        """Start readers, and wait until all are subscribed; their settings are those of `router_worker.Reading`."""
        program = self._start("readers", **{"url": self.url, **settings})
        await self.lab.until(lambda: self.is_ready(program))
        return program

    async def storm(self, clients: int, rounds: int) -> None:
        """Let so many clients come and go at once, so many times."""
        program = self._start("storm", url=self.url, port=self.port, clients=clients, rounds=rounds)
        assert await self.lab.ended(program, timeout=60.0 * rounds) == 0, self.lab.output()

    def is_ready(self, program: Program) -> bool:
        """Whether all of a program's clients are subscribed."""
        ready = self.lab.history("ready", process=program.name)
        return bool(ready) and not ready[-1].key

    def _start(self, kind: str, **settings: Any) -> Program:
        self._count += 1
        name = settings.pop("name", f"{kind}{self._count}")
        journal = str(self.lab.journals / f"{name}-{self._count}.jsonl")
        told = PROGRAMS[kind][0](journal=journal, name=name, **settings)
        text = msgspec.json.encode(told).decode()
        return self.lab.run(name, [sys.executable, "-m", "tests.faults.router_worker", kind, text])

    async def end(self, *programs: Program, timeout: float = 30.0) -> dict[str, int]:
        """SIGTERM each, and wait until it has ended in good order; the sums of what its clients counted."""
        sums: dict[str, int] = defaultdict(int)
        for program in programs:
            if not program.ended:
                program.signal(signal.SIGTERM)
        for program in programs:
            assert await self.lab.ended(program, timeout=timeout) == 0, self.lab.output()
            if program.name != SERVE:
                for name, count in self.last_words(program).items():
                    sums[name] += count
        return sums

    def last_words(self, program: Program) -> Any:
        """What a program said in its last line."""
        stopped = self.lab.history("stopped", process=program.name)
        assert stopped, f"{program.name} did not end in good order:\n{self.lab.output()}"
        return json.loads(stopped[-1].note or "{}")

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish from this process, each confirmed before the next; written down as a publisher does."""
        with self.lab.journal("test") as journal:
            async with EventRouterClient(self.url) as client:
                for event in events:
                    journal.write("invoked", event.event_id, digest=fingerprint(event), key=event.topic)
                    await client.publish(event)
                    journal.write("ok", event.event_id, key=event.topic)

    # --- the router ---------------------------------------------------------------------------------------------

    async def health(self) -> Mapping[str, Any]:
        """What the router says; nothing if it is not there."""
        try:
            async with EventRouterClient(self.url, auto_reconnect=False, timeout=5.0) as client:
                return await client.get_health()
        except BusError:
            return {}

    async def subscribed(self, count: int, *, timeout: float = 30.0) -> float:
        """Wait until so many subscriptions are served; how many seconds that took."""
        began = time.monotonic()
        while (found := (await self.health()).get("subscriptions", 0)) != count:
            if time.monotonic() - began > timeout:
                raise AssertionError(f"{found} of {count} are served; the programs say:\n{self.lab.output()}")
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def facts(self, router: Program) -> dict[str, float]:
        """What a router that can be looked into holds."""
        before = len(self.lab.history("ready", process=router.name))
        router.signal(signal.SIGUSR1)
        await self.lab.written(before + 1, "ready", process=router.name)
        facts: dict[str, float] = json.loads(self.lab.history("ready", process=router.name)[-1].note)
        return facts

    # --- the verdict --------------------------------------------------------------------------------------------

    async def confirmed(self, *publishers: Program) -> int:
        """End these publishers; every event that they were given an id for is confirmed, or this fails."""
        sums = await self.end(*publishers)
        names = {publisher.name for publisher in publishers}
        given = sum(entry.process in names for entry in self.lab.history("ok"))
        assert sums["published"] == given, f"{given - sums['published']} of {given} are in doubt\n{self.lab.output()}"
        return given

    async def confirmed_all(self, publisher: Program) -> int:
        """The same for one that ends by itself."""
        assert await self.lab.ended(publisher) == 0, self.lab.output()
        return await self.confirmed(publisher)

    async def settled(self, subscription: str, *, timeout: float = 30.0) -> None:
        """Wait until the engine has nothing of a subscription left."""
        async with EventBus(self.lab.url) as bus, asyncio.timeout(timeout):
            await empty(bus, subscription)

    async def handled(self, *, timeout: float = 60.0) -> float:
        """Wait until every subscription has handled all that was published for it; how many seconds that took."""
        wanted = {name: {e.id for e in part if e.what == "ok"} for name, part in parts(self.lab.history()).items()}
        seen = 0

        def all_done() -> bool:
            nonlocal seen
            effects = self.lab.history("effect")
            for entry in effects[seen:]:
                wanted[entry.key.partition("|")[0]].discard(entry.id)
            seen = len(effects)
            return not any(wanted.values())

        try:
            return await self.lab.until(all_done, timeout=timeout)
        except AssertionError as error:
            missing = {name: sorted(ids)[:10] for name, ids in wanted.items() if ids}
            error.add_note(f"not handled: {missing}")
            raise

    async def verdict(self, *, dead: Iterable[str] = (), retained: Iterable[str] = ()) -> Report:
        """The verdicts of all subscriptions as one; the ids in it are `subscription/event`."""
        history = self.lab.history()
        gone, kept = list(dead), list(retained)
        return await asyncio.to_thread(
            lambda: joined({name: check(part, dead=gone, retained=kept) for name, part in parts(history).items()})
        )


def parts(history: Sequence[Entry]) -> dict[str, list[Entry]]:
    """For each subscription what was published for it, and what it did."""
    published: dict[str, list[Entry]] = defaultdict(list)
    topics: dict[str, str] = {}
    found: dict[str, list[Entry]] = defaultdict(list)
    for entry in history:
        name, bar, pattern = entry.key.partition("|")
        if bar and entry.what == "ready":
            topics[name] = pattern
        elif bar and entry.id:
            found[name].append(entry)
        elif entry.id:
            published[entry.key].append(entry)
    everything = [entry for part in published.values() for entry in part]
    return {
        name: found[name] + (everything if pattern == "load.#" else published[pattern])
        for name, pattern in topics.items()
    }


def joined(reports: Mapping[str, Report]) -> Report:
    """Several verdicts as one."""
    fields: dict[str, Any] = {}
    for field in Report.__struct_fields__:
        found = {name: getattr(report, field) for name, report in reports.items()}
        if field in {"duplicates", "inversions"}:
            fields[field] = {f"{name}/{id}": count for name, part in found.items() for id, count in part.items()}
        else:
            fields[field] = frozenset(f"{name}/{id}" for name, part in found.items() for id in part)
    return Report(**fields)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def takes_clients(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(("127.0.0.1", port)) == 0
