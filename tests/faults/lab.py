"""One log under fault: the programs that use it, what they wrote down, and the drain and verdict at the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.checker import Report, check
from tests.faults.journal import Entry, Journal, Tail
from tests.faults.recorder import Recorder
from tests.faults.worker import Consumer, Filler, Handling, Publisher, empty
from wowevent import EventBus, RetryPolicy
from wowevent.brokers import open_broker

_ROOT = Path(__file__).parents[2]
_LOOK = 0.005  # a file tells nobody that it grew
_SETTLED = 1.0  # seconds in which a server delivers what it has
SUBSCRIPTION = "work"


class Program:
    """A process that a test started."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self.process.poll() is not None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end, which is near."""
        self.process.kill()
        self.process.wait()


class Lab:
    """A folder with a log and its journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "events.db"
        self.url = f"sqlite:///{self.path}"
        self.journals = folder / "journals"
        self.journals.mkdir()
        self.forgiven: frozenset[str] = frozenset()
        """What its engine does not promise, by the checker's names."""
        self._tail = Tail(self.journals)
        self._programs: list[Program] = []
        self._count = 0

    # --- programs -----------------------------------------------------------------------------------------------

    def publisher(self, **settings: Any) -> Program:
        """Start a publisher; its settings are those of `worker.Publisher`."""
        return self._start("publisher", Publisher(**self._named("p", settings)))

    def consumer(self, **settings: Any) -> Program:
        """Start a consumer; its settings are those of `worker.Consumer`."""
        return self._start("consumer", Consumer(**self._named("c", settings)))

    def filler(self, disk: Path) -> Program:
        """Start a filler on a disk of 24 MiB that only it can see, and that ends with it."""
        settings = self._named("f", {"url": f"sqlite:///{disk / 'events.db'}", "ballast": str(disk / "ballast")})
        mount = 'mount -t tmpfs -o size=24m none "$0" && exec "$@"'
        return self._start("filler", Filler(**settings), before=["unshare", "-rm", "sh", "-c", mount, str(disk)])

    def _named(self, letter: str, settings: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        name = settings.pop("name", f"{letter}{self._count}")
        journal = self.journals / f"{name}-{self._count}.jsonl"
        return {"url": self.url, "journal": str(journal), "name": name, **settings}

    def _start(self, kind: str, settings: Publisher | Consumer | Filler, before: Sequence[str] = ()) -> Program:
        arguments = [*before, sys.executable, "-m", "tests.faults.worker", kind, msgspec.json.encode(settings).decode()]
        return self.run(settings.name, arguments)

    def run(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Program:
        """Start any program; it ends with the test."""
        # What is killed cannot write its coverage down, and measuring only slows the race.
        kept = {key: value for key, value in environment.items() if not key.startswith("COVERAGE_")}
        with (self.folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(arguments, cwd=_ROOT, env=kept, stdout=output, stderr=output)
        program = Program(name, process)
        self._programs.append(program)
        return program

    def close(self) -> None:
        """End every program that is still there, and only those."""
        for program in self._programs:
            if not program.ended:
                program.kill()

    def output(self) -> str:
        """What the programs logged, the end of it."""
        path = self.folder / "output.txt"
        return path.read_text()[-4000:] if path.exists() else ""

    # --- what they wrote down -----------------------------------------------------------------------------------

    def journal(self, name: str) -> Journal:
        """A journal of this process's own."""
        self._count += 1
        return Journal(self.journals / f"{name}-{self._count}.jsonl", name)

    def history(self, *what: str, process: str = "", id: str = "") -> Sequence[Entry]:
        """What was written down so far; of some kinds, of one process or event, where they are given."""
        return self._tail.entries(*what, process=process, id=id)

    async def until(self, true: Callable[..., Any], *of: Any, timeout: float = 30.0) -> float:
        """Return once that is so, and how many seconds it took; fail with the programs' output if it never is."""
        began = time.monotonic()
        await asyncio.to_thread(self._tail.update)  # much may have been written since the last look
        while not true(*of):
            if time.monotonic() - began > timeout:
                raise AssertionError(f"it did not happen within {timeout} s; the programs say:\n{self.output()}")
            await asyncio.sleep(_LOOK)
            await asyncio.to_thread(self._tail.update)
        return time.monotonic() - began

    async def written(self, count: int, *what: str, process: str = "", timeout: float = 30.0) -> float:
        """Wait until so many lines of these kinds are there."""
        return await self.until(lambda: len(self.history(*what, process=process)) >= count, timeout=timeout)

    async def ended(self, program: Program, *, timeout: float = 30.0) -> int:
        """Wait for a program's end; its exit status, negative for a signal."""
        await self.until(lambda: program.ended, timeout=timeout)
        return int(program.process.returncode)

    # --- the verdict --------------------------------------------------------------------------------------------

    async def declare(self, *, lease: float = 1.0) -> None:
        """Let the subscription exist before its consumers do: nothing has to be taken in from the past."""
        async with EventBus(self.url) as bus:
            handle = await bus.subscribe("load.#", print, "declared", subscription=SUBSCRIPTION, lease=lease)
            await handle.cancel()

    async def drain(self, *, timeout: float = 60.0, **settings: Any) -> float:
        """Consume in this process until the subscription has nothing left; how many seconds that took."""
        consumer = Consumer(**self._named("drain", settings))
        async with AsyncExitStack() as stack:
            journal = stack.enter_context(Journal(consumer.journal, consumer.name))
            handling = Handling(consumer, journal)
            stack.callback(handling.close)
            broker = Recorder(open_broker(self.url), journal)
            stack.push_async_callback(broker.close)
            bus = await stack.enter_async_context(EventBus(broker))
            await bus.subscribe(
                consumer.pattern,
                handling,
                consumer.name,
                subscription=consumer.subscription,
                start="first",
                lease=consumer.lease,
                retry=RetryPolicy(max_retries=consumer.max_retries, initial=consumer.initial),
            )
            began = time.monotonic()
            try:
                async with asyncio.timeout(timeout):
                    await empty(bus, SUBSCRIPTION)
                    while not (bus.capabilities.exact or await self._quiet(bus)):
                        await empty(bus, SUBSCRIPTION)
            except TimeoutError:
                left = await asyncio.gather(bus.info(SUBSCRIPTION), bus.health(), return_exceptions=True)
                raise AssertionError(
                    f"not empty after {timeout} s: {left}; the programs say:\n{self.output()}"
                ) from None
            return time.monotonic() - began

    async def _quiet(self, bus: EventBus) -> bool:
        """Whether nothing comes any more, for an engine that cannot count what is leased or delayed, or not at once."""
        known, info = len(self.history()), await bus.info(SUBSCRIPTION)
        await asyncio.sleep(_SETTLED)
        if len(self.history()) > known:
            return False
        if info is not None and info.leased is not None:  # none is; of two that held one event, one may have retried it
            return True
        # One that came again is no retry to be waited for, though nothing be known of its end: its acknowledgement may
        # have got there just before the line broke.
        kinds = ("delivered", "acked", "retried", "buried")
        last = {entry.id: entry.what for entry in sorted(self.history(*kinds), key=_time)}
        return "retried" not in last.values()

    def broken(self, report: Report) -> dict[str, frozenset[str]]:
        """The promises of this engine that were."""
        return {name: found for name, found in report.broken().items() if name not in self.forgiven}

    async def dead(self) -> list[str]:
        """The ids of the dead letters, one for each letter."""
        async with EventBus(self.url) as bus:
            return [letter.event.event_id for letter in await bus.dead_letters.list(limit=10**6)]

    async def stored(self) -> Sequence[str]:
        """The ids that the log has."""
        async with EventBus(self.url) as bus:
            return [stored.event.event_id async for stored in bus.history()]

    async def verdict(self, *, retained: Sequence[str] = ()) -> Report:
        """Judge everything that was written down; call it when the fault is over and the subscription drained."""
        dead = await self.dead()
        # In a thread: a long history takes a while to judge, and this loop is watched.
        return await asyncio.to_thread(lambda: check(self.history(), dead=dead, retained=retained))


def _time(entry: Entry) -> float:
    return entry.time
