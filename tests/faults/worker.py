"""The programs that fault tests start and kill: a publisher and a consumer, on the public EventBus API.

    python -m tests.faults.worker publisher '{"url": "sqlite:////…", "journal": "…", "name": "p1", …}'

Where a program is to die, it kills itself with SIGKILL at exactly that point: nothing after it runs, no handler, no
`finally`, no buffer is written.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import hashlib
import os
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

from tests.faults.journal import Journal
from tests.faults.recorder import Recorder, fingerprint
from wowevent import Event, EventBus, Reject, RetryPolicy, current
from wowevent.broker import Bury, Settlement, SubscriptionInfo
from wowevent.brokers import open_broker
from wowevent.errors import BrokerUnavailable, BusError, InvalidEvent, StorageFull

ACCOUNTS = 10


class Publisher(Struct, kw_only=True):
    """Publishes with `tasks` at a time, each awaiting its own, until `count` are through or it is killed."""

    url: str
    journal: str
    name: str
    count: int = 0
    """0: without end."""
    tasks: int = 20
    keys: int = 10
    topic: str = "load.made"
    many: int = 1
    """More than 1: publish_many, so many at a time."""
    padding: int = 0


class Consumer(Struct, kw_only=True):
    """Consumes one named subscription until it is killed, terminated, or told to die."""

    url: str
    journal: str
    name: str
    subscription: str = "work"
    pattern: str = "load.#"
    lease: float = 1.0
    concurrency: int = 1
    max_retries: int = 5
    initial: float = 0.2
    auto_ack: bool = False
    slow: float = 0.0
    """Seconds that a handler takes, before its effect."""
    ledger: str = ""
    """The file of the accounts that its effects are booked in."""
    fail: int = 0
    """So many attempts at each event raise; those that ended with the process do not count."""
    reject: bool = False
    die: Literal["", "before", "effect", "acked"] = ""
    """At which point of an event: before its effect, after it, after its acknowledgement."""
    die_at: int = 1
    """At the how-manieth of these."""
    die_writing: int = -1
    """Die at this write or sync (from 0) of the transaction that buries."""
    die_talking: int = -1
    """Die at this message (from 0) to or from the engine's server, since the first burial was asked for."""


class Filler(Struct, kw_only=True):
    """Fills a small disk, looks what still works, makes room, and looks whether everything works again."""

    url: str
    journal: str
    name: str
    ballast: str
    """A file on the same disk, which is deleted to make room."""
    subscription: str = "work"


def die() -> NoReturn:
    """No goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived SIGKILL")


def key_of(number: int, keys: int) -> str:
    """The key of a publisher's n-th event."""
    return f"k{number % keys}"


def build(settings: Publisher, number: int) -> Event:
    """The n-th event of a publisher; the same whenever it is made again, but for its time."""
    name = settings.name
    amount = int(hashlib.sha256(f"{name}{number}".encode()).hexdigest()[:4], 16)
    payload: dict[str, Any] = {"number": number, "from": number % ACCOUNTS, "to": amount % ACCOUNTS, "amount": amount}
    if settings.padding:
        payload["padding"] = "x" * settings.padding
    return Event(
        event_id=f"{name}-{number}",
        topic=settings.topic,
        source_agent=name,
        payload=payload,
        headers={"key": f"{name}.{key_of(number, settings.keys)}", "number": str(number)},
    )


async def publish(settings: Publisher) -> None:
    """Each event is written down before and after it is published."""
    with Journal(settings.journal, settings.name) as journal:
        async with EventBus(settings.url) as bus:
            journal.write("ready")
            numbers = iter(range(settings.count) if settings.count else range(10**12))
            tasks = [_publish_some(bus, journal, settings, numbers) for _ in range(settings.tasks)]
            await asyncio.gather(*tasks)
        journal.write("stopped")


async def _publish_some(bus: EventBus, journal: Journal, settings: Publisher, numbers: Iterable[int]) -> None:
    batch: list[Event] = []
    for number in numbers:
        batch.append(build(settings, number))
        if len(batch) == settings.many:
            await publish_noted(bus, journal, batch)
            batch = []
    if batch:
        await publish_noted(bus, journal, batch)


async def publish_noted(bus: EventBus, journal: Journal, events: list[Event]) -> None:
    """Publish, and write down what was asked and what was answered."""
    for event in events:
        journal.write("invoked", event.event_id, digest=fingerprint(event), key=event.headers.get("key", ""))
    try:
        receipts = await bus.publish_many(events)
    except (InvalidEvent, StorageFull) as error:
        for event in events:
            journal.write("failed", event.event_id, note=repr(error))
    except BusError as error:
        for event in events:
            journal.write("unknown", event.event_id, note=repr(error))
    else:
        for receipt in receipts:
            note = "duplicate" if receipt.duplicate else ""
            journal.write("ok", receipt.event_id, position=str(receipt.position or ""), note=note)


async def fill(settings: Filler) -> None:
    """Its journal tells what happened: every publish, every acknowledgement, and how long the answers took."""
    ballast = Path(settings.ballast)
    ballast.write_bytes(bytes(6 * 2**20))  # noqa: ASYNC240 - nothing else runs yet, nor when it goes
    source = Publisher(url="", journal="", name=settings.name, padding=50_000)
    with Journal(settings.journal, settings.name) as journal:
        async with EventBus(settings.url) as bus:
            handling = Handling(Consumer(url="", journal="", name=settings.name), journal)
            handle = await bus.subscribe("load.#", print, settings.name, subscription=settings.subscription)
            await handle.cancel()
            number = 0

            async def refused() -> bool:
                nonlocal number
                number += 1
                try:
                    async with asyncio.timeout(5):
                        await publish_noted(bus, journal, [build(source, number)])
                except TimeoutError:
                    sys.exit("a publish hangs")
                return journal.last == "failed"

            while not await refused():
                pass
            journal.write("ready", note="full")
            told = [stored.event.event_id async for stored in bus.history()]
            journal.write("ready", note=f"read {len(told)}")
            handle = await bus.subscribe("load.#", handling, settings.name, subscription=settings.subscription)
            await empty(bus, settings.subscription)
            await handle.cancel()
            journal.write("ready", note="drained")
            assert await refused(), "acknowledging must not make room for publishing: the log keeps its events"
            ballast.unlink()  # noqa: ASYNC240
            while await refused():
                pass
            journal.write("ready", note="resumed")
            await bus.subscribe("load.#", handling, settings.name, subscription=settings.subscription)
            await empty(bus, settings.subscription)
        journal.write("stopped")


def waiting(info: SubscriptionInfo) -> int:
    """How many events a subscription is not through with."""
    return info.ready + (info.leased or 0) + (info.delayed or 0)


async def empty(bus: EventBus, subscription: str) -> None:
    """Return once it is through with all; an engine that has just come back may not answer yet."""
    while True:
        with suppress(BrokerUnavailable):
            if (info := await bus.info(subscription)) is None or not waiting(info):
                return
        await asyncio.sleep(0.01)


class Ledger:
    """Accounts whose every booking happens once: the event's id is booked in the same transaction."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS booked(id TEXT PRIMARY KEY)")
        self._db.execute("CREATE TABLE IF NOT EXISTS account(number INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")

    def book(self, event: Event) -> bool:
        """Move the amount, unless this event has done so before."""
        payload = event.payload
        self._db.execute("BEGIN IMMEDIATE")
        new = self._db.execute("INSERT OR IGNORE INTO booked VALUES (?)", (event.event_id,)).rowcount == 1
        if new:
            for number, amount in ((payload["from"], -payload["amount"]), (payload["to"], payload["amount"])):
                self._db.execute(
                    "INSERT INTO account VALUES (?1, ?2) ON CONFLICT DO UPDATE SET balance = balance + ?2",
                    (number, amount),
                )
        self._db.execute("COMMIT")
        return new

    def balances(self) -> dict[int, int]:
        """What each account has."""
        return dict(self._db.execute("SELECT number, balance FROM account").fetchall())

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def balances_of(events: Iterable[Event]) -> dict[int, int]:
    """What the accounts must have when each of these was booked once."""
    found: dict[int, int] = defaultdict(int)
    for event in events:
        found[event.payload["from"]] -= event.payload["amount"]
        found[event.payload["to"]] += event.payload["amount"]
    return dict(found)


class Handling:
    """The consumer's handler, and the points at which it dies."""

    def __init__(self, settings: Consumer, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._ledger = Ledger(settings.ledger) if settings.ledger else None
        self._passed: dict[str, int] = defaultdict(int)

    async def __call__(self, event: Event) -> None:
        """Write down that it came, do its effect, write that down."""
        delivery = current()
        assert delivery is not None
        key, attempt, position = event.headers.get("key", ""), delivery.attempt, str(delivery.position or "")
        facts = {"key": key, "attempt": attempt, "position": position}
        self._journal.write("delivered", event.event_id, digest=fingerprint(event), **facts)
        if event.payload.get("poison"):
            die()
        self._pass("before")
        if self._settings.slow:
            await asyncio.sleep(self._settings.slow)
        if event.retry_count < self._settings.fail:
            raise RuntimeError(f"attempt {attempt} fails")
        if self._settings.reject:
            raise Reject("not this one")
        if self._ledger is not None:
            self._ledger.book(event)
        self._journal.write("effect", event.event_id, **facts)
        self._pass("effect")

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def settled(self, _: Settlement) -> None:
        """The engine has the acknowledgement."""
        self._pass("acked")

    def _pass(self, point: str) -> None:
        self._passed[point] += 1
        if self._settings.die == point and self._passed[point] >= self._settings.die_at:
            die()


async def consume(settings: Consumer) -> None:
    """Serve until SIGTERM, then drain."""
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    with Journal(settings.journal, settings.name) as journal:
        handling = Handling(settings, journal)
        broker = Recorder(
            open_broker(settings.url),
            journal,
            before=_arm(settings),
            after=handling.settled if settings.die == "acked" else None,
        )
        bus = EventBus(broker)
        await bus.start()
        await bus.subscribe(
            settings.pattern,
            handling,
            settings.name,
            subscription=settings.subscription,
            start="first",
            lease=settings.lease,
            concurrency=settings.concurrency,
            retry=RetryPolicy(max_retries=settings.max_retries, initial=settings.initial),
            auto_ack=settings.auto_ack,
        )
        journal.write("ready")
        await terminated.wait()
        await bus.stop(timeout=10)
        await broker.close()
        journal.write("stopped")


def _arm(settings: Consumer) -> Callable[[Settlement], None] | None:
    """From the first burial on, count what the engine writes, or says and hears, and die when that is so much."""
    at = max(settings.die_writing, settings.die_talking)
    if at < 0:
        return None
    count, burying = -1, False

    def strike() -> None:
        nonlocal count
        count += burying
        if count == at:
            die()

    def before(settlement: Settlement) -> None:
        nonlocal burying
        burying = burying or isinstance(settlement, Bury)

    (_watch_disk if settings.die_writing >= 0 else _watch_lines)(strike)
    return before


def _watch_disk(strike: Callable[[], None]) -> None:
    """Before each write and sync."""
    from tests.faults.disk import Disk

    disk = Disk(Path("/"))
    disk.before_change = strike
    disk.install()


def _watch_lines(strike: Callable[[], None]) -> None:
    """Before anything is sent, and when something has come that nobody has read yet."""
    line: Any = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined] # noqa: SLF001 - each line of the process
    for name in ("write", "_read_ready"):
        real = getattr(line, name)

        def struck(self: Any, *arguments: Any, _real: Callable[..., None] = real) -> None:
            strike()
            _real(self, *arguments)

        setattr(line, name, struck)


def main() -> None:
    """Run the program that the first argument names, with the settings of the second."""
    program, settings = sys.argv[1:]
    match program:
        case "publisher":
            asyncio.run(publish(msgspec.json.decode(settings, type=Publisher)))
        case "consumer":
            asyncio.run(consume(msgspec.json.decode(settings, type=Consumer)))
        case "filler":
            asyncio.run(fill(msgspec.json.decode(settings, type=Filler)))
        case _:
            sys.exit(f"no program {program!r}")


if __name__ == "__main__":
    main()
