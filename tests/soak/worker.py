"""The programs of a soak beside the router's own: handlers on the bus, a publisher, and clients that come and go.

    python -m tests.soak.worker handlers '{"url": "sqlite:////…", "journal": "…", "name": "steady", …}'

Each says every two seconds how many tasks it has and what it counted, and ends in good order by SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from tests.faults.journal import Journal
from tests.faults.recorder import fingerprint
from tests.faults.worker import Publisher, build, publish_noted
from tests.soak.ledger import ORDERED
from wowevent import Event, EventBus, RetryPolicy, current
from wowevent.client import EventRouterClient
from wowevent.errors import BusError
from wowevent.process.loop import ending, run

SHARED = "shared"
"""The subscription whose members are killed, but for one."""
FLAKY = "flaky"
"""The subscription with failures, and with dead letters that are handed to it again."""

_TELLS = 2.0  # seconds
_BURST = 0.05  # seconds from one burst of the publisher to the next
_LATER = 2.0  # seconds that a delayed event is delayed
_LEAKY = 300  # events after which handlers that leak do so
_STAY = 5.0  # seconds that a client waits for its first event, then it goes


class Settings(Struct, kw_only=True):
    """What all programs are told."""

    url: str
    journal: str
    name: str


class Handlers(Settings, kw_only=True):
    """Handlers of named subscriptions; those of `steady` have all of them, answer requests and keep a schedule."""

    steady: bool = True
    leak: float = 0.0
    """MiB that are kept, as many pipes and four times as many tasks, of 300 events each: the soak has to notice."""
    drop: int = 0
    """So many events of the shared subscription are acknowledged and not handled."""


class Publishing(Settings, kw_only=True):
    """Publishes so many events a second, each twentieth for later, and asks something once a second."""

    rate: float


class Churn(Settings, kw_only=True):
    """So many clients at a time come, subscribe, get an event and go; each third by a name that is then removed."""

    engine: str
    """Where the names are removed; `url` is the router's."""
    nameless: str = ""
    """While there is such a file nobody comes by a name."""
    clients: int = 3

    def by_name(self) -> bool:
        """Whether one may come by a name now."""
        return not self.nameless or not Path(self.nameless).exists()


class Told:
    """Counts, told every two seconds, and whether it is time to end."""

    def __init__(self, journal: Journal) -> None:
        self.counts: Counter[str] = Counter()
        self.end = ending()
        self._journal = journal

    async def tell(self) -> None:
        """Until it is time to end."""
        while not self.end.is_set():
            self._write("ready")
            try:
                async with asyncio.timeout(_TELLS):
                    await self.end.wait()
            except TimeoutError:
                continue

    def stopped(self) -> None:
        """The last words."""
        self._write("stopped")

    def _write(self, what: Any) -> None:
        note = msgspec.json.encode({**self.counts, "tasks": len(asyncio.all_tasks())}).decode()
        self._journal.write(what, note=note)


# --- handlers -------------------------------------------------------------------------------------------------------


async def handle(settings: Handlers) -> None:
    """Serve until told to end, then drain."""
    with Journal(settings.journal, settings.name) as journal:
        told = Told(journal)
        bus = EventBus(settings.url)
        async with bus:
            noting = Noting(settings, journal, told.counts)
            await noting.serve(bus, SHARED, concurrency=4, lease=5.0)
            if settings.steady:
                await noting.serve(bus, ORDERED, concurrency=8, order_by=lambda event: event.headers["key"])
                await noting.serve(
                    bus, FLAKY, concurrency=8, retry=RetryPolicy(max_retries=1, initial=0.2), breaker=False
                )
                await _converse(bus, told.counts)
            journal.write("ready", note="{}")
            await told.tell()
        told.stopped()


class Noting:
    """Handlers that write down what they did, each for a subscription to everything."""

    def __init__(self, settings: Handlers, journal: Journal, counts: Counter[str]) -> None:
        self._journal = journal
        self._counts = counts
        self._drop = settings.drop
        self._leak = leaking(settings.leak)
        self._failed: Counter[str] = Counter()

    async def serve(self, bus: EventBus, name: str, **settings: Any) -> None:
        """Subscribe, and say so."""

        async def handle(event: Event) -> None:
            if name == FLAKY:
                self._fail(event)
            if name == SHARED and self._drop:
                self._drop -= 1
                return
            delivery = current()
            position = str(delivery.position or "") if delivery is not None else ""
            facts = {"key": f"{name}|{event.headers['key']}", "position": position, "digest": fingerprint(event)}
            self._journal.write("effect", event.event_id, **facts)
            self._counts["handled"] += 1
            if not self._counts["handled"] % _LEAKY:
                self._leak()

        await bus.subscribe("load.#", handle, name, subscription=name, **settings)
        self._journal.write("ready", key=f"{name}|load.#")

    def _fail(self, event: Event) -> None:
        """One of a hundred fails once, one fails until it is a dead letter, and then once it is handed out again."""
        fails = {13: 1, 57: 2}.get(event.payload["number"] % 100, 0)
        if self._failed[event.event_id] < fails:
            self._failed[event.event_id] += 1
            self._counts["failed"] += 1
            raise RuntimeError("flaky")
        self._failed.pop(event.event_id, None)


async def _converse(bus: EventBus, counts: Counter[str]) -> None:
    """Answer, and keep a schedule."""

    async def answer(event: Event) -> dict[str, int]:
        return {"sum": event.payload["a"] + event.payload["b"]}

    def tick(_: Event) -> None:
        counts["ticks"] += 1

    await bus.subscribe("ask.sum", answer, "answering")
    await bus.subscribe("tick.#", tick, "ticking")
    await bus.schedules.add("ticks", "tick.fired", {}, every=2)


def leaking(amount: float) -> Callable[[], None]:
    """What keeps memory, pipes and tasks, and more of them at each call."""
    kept: list[Any] = []

    def leak() -> None:
        kept.append(b"x" * int(amount * 2**20))
        kept.extend(os.pipe() for _ in range(int(amount)))
        kept.extend(asyncio.create_task(asyncio.sleep(3600)) for _ in range(4 * int(amount)))

    return leak


# --- publisher ------------------------------------------------------------------------------------------------------


async def publish(settings: Publishing) -> None:
    """Publish in small bursts until told to end; what an outage held up is not made up for."""
    with Journal(settings.journal, settings.name) as journal:
        told = Told(journal)
        source = Publisher(url="", journal="", name=settings.name)
        async with EventBus(settings.url) as bus, asyncio.TaskGroup() as group:
            group.create_task(told.tell())
            group.create_task(_ask(bus, told))
            number, due = 0, time.monotonic()
            while not told.end.is_set():
                until = number + max(1, round(settings.rate * _BURST))
                await publish_noted(bus, journal, [_made(source, each) for each in range(number, until)])
                number = until
                due = max(due + _BURST, time.monotonic() - _BURST)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
        told.stopped()


def _made(source: Publisher, number: int) -> Event:
    event = build(source, number)
    if number % 20:
        return event
    return structs.replace(event, not_before=datetime.now(UTC) + timedelta(seconds=_LATER))


async def _ask(bus: EventBus, told: Told) -> None:
    """A question a second; while the engine or the one who answers is away, none is answered."""
    while not told.end.is_set():
        told.counts["asked"] += 1
        try:
            answer = await bus.request("ask.sum", {"a": told.counts["asked"], "b": 1}, timeout=3.0)
        except BusError:
            told.counts["unanswered"] += 1
        else:
            told.counts["wrong"] += answer != {"sum": told.counts["asked"] + 1}
        await asyncio.sleep(1.0)


# --- clients that come and go ---------------------------------------------------------------------------------------


async def churn(settings: Churn) -> None:
    """So many at a time, until told to end."""
    with Journal(settings.journal, settings.name) as journal:
        told = Told(journal)
        async with EventBus(settings.engine) as bus, asyncio.TaskGroup() as group:
            group.create_task(told.tell())
            for number in range(settings.clients):
                group.create_task(_come_and_go(settings, bus, told, number))
        told.stopped()


async def _come_and_go(settings: Churn, bus: EventBus, told: Told, number: int) -> None:
    while not told.end.is_set():
        named = told.counts["came"] % 3 == 2 and settings.by_name()
        name = f"passing-{number}" if named else None
        told.counts["came"] += 1
        try:
            await _visit(settings.url, name)
            if name is not None:
                await bus.remove(name)
        except (BusError, TimeoutError):
            told.counts["turned_away"] += 1
        await asyncio.sleep(0.5)


async def _visit(url: str, name: str | None) -> None:
    """Come, get an event, go."""
    got = asyncio.Event()

    def handler(_: Event) -> None:
        got.set()

    async with EventRouterClient(url, timeout=_STAY) as client:
        named: dict[str, Any] = {} if name is None else {"subscription": name}
        await client.subscribe("load.#", callback=handler, **named)
        async with asyncio.timeout(_STAY):
            await got.wait()


PROGRAMS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "handlers": (Handlers, handle),
    "publisher": (Publishing, publish),
    "churn": (Churn, churn),
}


def main() -> None:
    """Run the program that the first argument names, with the settings of the second."""
    program, settings = sys.argv[1:]
    kind, work = PROGRAMS[program]
    run(work(msgspec.json.decode(settings, type=kind)))


if __name__ == "__main__":
    main()
