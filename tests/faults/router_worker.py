"""The programs of the router's fault tests: a router to be looked into, publishers, subscribers, readers, storms.

    python -m tests.faults.router_worker publisher '{"url": "ws://…", "journal": "…", "name": "p1", …}'

Each ends in good order by SIGTERM, and then says in its last line what its clients counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
import psutil
from msgspec import Struct, structs
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from tests.faults.journal import Journal
from tests.faults.raw import Raw
from tests.faults.recorder import fingerprint
from tests.faults.worker import Publisher, build, die
from wowevent import Event, current
from wowevent.client import EventRouterClient, workers
from wowevent.client.subscription import Subscription
from wowevent.errors import BusError, InvalidEvent, OutboxFull, StorageFull
from wowevent.process.loop import ending, run
from wowevent.router import EventRouter

_CONFIRMED = 25.0  # seconds after the last publish for everything to be confirmed


class Settings(Struct, kw_only=True):
    """What all programs are told."""

    url: str
    """A router's; for a router the engine's."""
    journal: str
    name: str


class Served(Settings, kw_only=True):
    """A router in a process of its own that says on SIGUSR1 what it holds."""

    port: int
    ping_interval: float = 25.0
    max_clients: int = 1_000
    without: Literal["", "ids"] = ""
    """A guard that is taken out: `ids` are the known ids of the log."""


class Link(Settings, kw_only=True):
    """How EventRouterClients are set."""

    reconnect: float = 1.0
    heartbeat: float = 30.0
    timeout: float = 10.0


class Sending(Link, kw_only=True):
    """Publishes with `tasks` at a time until `count` are through, or it is told to end."""

    count: int = 0
    """0: without end."""
    tasks: int = 4
    topics: int = 1
    """The n-th event goes to `load.t{n % topics}`."""
    pause: float = 0.0
    """Seconds between two events of a task."""
    period: float = 0.0
    """Seconds from one event of a task to the next, however long a publish takes: so the rate is kept."""


class Receiving(Link, kw_only=True):
    """So many clients with one subscription each, the n-th to `load.t{n % topics}`, or to everything."""

    clients: int = 1
    named: bool = True
    subscription: str = ""
    """A name that all share; without it each has its own."""
    topics: int = 0
    """0: everything."""
    lease: float = 3.0
    slow: float = 0.0
    """Seconds that a handler takes, before its effect."""
    concurrency: int = 1
    max_retries: int = 5
    without: Literal["", "position", "waiting"] = ""
    """A guard that is taken out: going on from a position, or acknowledging only what was handled."""


class Reading(Settings, kw_only=True):
    """So many clients that note how old `tick.*` events are as they come, by the phase that these name."""

    clients: int


class Storming(Settings, kw_only=True):
    """So many plain sockets come and go, all at once, round after round."""

    port: int
    clients: int
    rounds: int


# --- router ---------------------------------------------------------------------------------------------------------


async def serve(settings: Served) -> None:
    """Serve until told to end."""
    if settings.without == "ids":
        from wowevent.brokers.sqlite import log

        setattr(log, "_known", lambda _store, _events: {})  # noqa: B010 - not ours, but for this
    told = ending()
    with Journal(settings.journal, settings.name) as journal:
        async with EventRouter(
            port=settings.port,
            url=settings.url,
            ping_interval=settings.ping_interval,
            max_clients=settings.max_clients,
            max_queue_size=10_000,
        ) as router:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: tell(journal, router))
            journal.write("ready")
            await told.wait()
        journal.write("stopped")


def tell(journal: Journal, router: EventRouter) -> None:
    """What a router holds now."""
    desk, connections = router._desk, router._connections  # noqa: SLF001 - health does not tell of tasks and couriers
    facts = {
        "connections": len(connections),
        "members": len(desk.fanout),
        "couriers": len(desk.couriers),
        "tasks": len(asyncio.all_tasks()),
        "handles": psutil.Process().num_fds(),
        "memory": psutil.Process().memory_info().rss / 2**20,
    }
    journal.write("ready", note=msgspec.json.encode(facts).decode())


# --- EventRouterClients ---------------------------------------------------------------------------------------------


def client_of(settings: Link) -> EventRouterClient:
    """One client, by the settings."""
    return EventRouterClient(
        settings.url,
        reconnect_interval=settings.reconnect,
        heartbeat_interval=settings.heartbeat,
        timeout=settings.timeout,
    )


def counted(clients: Iterable[EventRouterClient]) -> str:
    """The sums of what clients counted, as the note of a journal's last line."""
    sums: Counter[str] = Counter()
    for client in clients:
        sums.update(structs.asdict(client.counters))
    return msgspec.json.encode(dict(sums)).decode()


async def send(settings: Sending) -> None:
    """Publish; what is given back before it is confirmed is kept by the client, and confirmed before the end."""
    told = ending()
    with Journal(settings.journal, settings.name) as journal:
        client = client_of(settings)
        async with client:
            journal.write("ready")
            numbers = iter(range(settings.count) if settings.count else range(10**12))
            sending = [_send_some(client, journal, settings, numbers, told) for _ in range(settings.tasks)]
            given = sum(await asyncio.gather(*sending))
            async with asyncio.timeout(_CONFIRMED):
                while client.counters.published < given:  # noqa: ASYNC110 - a client that is away confirms nothing
                    await asyncio.sleep(0.01)
        journal.write("stopped", note=counted([client]))


async def _send_some(
    client: EventRouterClient, journal: Journal, settings: Sending, numbers: Iterable[int], told: asyncio.Event
) -> int:
    """How many events the client took."""
    given, due = 0, time.monotonic()
    for number in numbers:
        topic = f"load.t{number % settings.topics}"
        event = build(Publisher(url="", journal="", name=settings.name, topic=topic), number)
        journal.write("invoked", event.event_id, digest=fingerprint(event), key=topic)
        try:
            await client.publish(event)
        except (InvalidEvent, StorageFull, OutboxFull) as error:
            journal.write("failed", event.event_id, note=repr(error))
        except BusError as error:
            journal.write("unknown", event.event_id, note=repr(error))
        else:
            journal.write("ok", event.event_id, key=topic)
            given += 1
        if told.is_set():
            break
        due += settings.period
        if wait := max(settings.pause, due - time.monotonic()):
            await asyncio.sleep(wait)
    return given


async def receive(settings: Receiving) -> None:
    """Connect all, subscribe, and handle until told to end."""
    _take_out(settings.without)
    told = ending()
    with Journal(settings.journal, settings.name) as journal:
        clients = [client_of(settings) for _ in range(settings.clients)]
        await asyncio.gather(*(_receive(client, journal, settings, n) for n, client in enumerate(clients)))
        journal.write("ready")
        await told.wait()
        await asyncio.gather(*(client.disconnect() for client in clients))
        journal.write("stopped", note=counted(clients))


async def _receive(client: EventRouterClient, journal: Journal, settings: Receiving, number: int) -> None:
    name = settings.subscription or f"{settings.name}-{number}"
    pattern = f"load.t{number % settings.topics}" if settings.topics else "load.#"
    named: dict[str, Any] = {}
    if settings.named:
        named = {"subscription": name, "lease": settings.lease, "max_retries": settings.max_retries}
    await client.connect()
    journal.write("asked", key=f"{name}|{pattern}")
    handler = handling(name, settings, journal)
    await client.subscribe(pattern, callback=handler, concurrency=settings.concurrency, **named)
    journal.write("ready", key=f"{name}|{pattern}")


def handling(name: str, settings: Receiving, journal: Journal) -> Callable[[Event], Any]:
    """A handler that writes down what it does for a subscription; a poison kills it, each time."""

    async def handle(event: Event) -> None:
        delivery = current()
        assert delivery is not None
        position = str(delivery.position or "")
        facts = {"key": f"{name}|{event.headers.get('key', '')}", "attempt": delivery.attempt, "position": position}
        journal.write("delivered", event.event_id, digest=fingerprint(event), **facts)
        if event.payload.get("poison"):
            die()
        if settings.slow:
            await asyncio.sleep(settings.slow)
        journal.write("effect", event.event_id, **facts)

    return handle


def _take_out(guard: str) -> None:
    """Make this process's clients worse than they are."""
    if guard == "position":
        ask = Subscription.ask

        def forget(subscription: Subscription) -> Any:
            setattr(subscription, "_last", None)  # noqa: B010 - as below, a guard that is not meant to be reached
            return ask(subscription)

        setattr(Subscription, "ask", forget)  # noqa: B010
    elif guard == "waiting":
        run_handler = getattr(workers.Workers, "_run")  # noqa: B009
        settle = Subscription.settle

        async def hasty(self: Any, lease: Any) -> None:
            settle(self._subscription, lease, None)
            self._progress(self._subscription)
            await asyncio.sleep(0.01)  # it is sent
            await run_handler(self, lease)

        setattr(workers.Workers, "_run", hasty)  # noqa: B010


# --- readers --------------------------------------------------------------------------------------------------------

_TICK = re.compile(rb'"at":([0-9.]+),"phase":"(\w+)"')


class Reader(WSListener):  # inheriting is how picows makes one
    """Reads as fast as it can, and looks at nothing but the time."""

    def __init__(self, ages: dict[str, list[float]]) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.ready = asyncio.Event()
        self._ages = ages

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Subscribe."""
        wanted = {"type": "subscribe", "subscription": {"topics": ["tick.*"]}}
        transport.send(WSMsgType.TEXT, msgspec.json.encode(wanted))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Ticks, and the router's word that it serves."""
        text = frame.get_payload_as_bytes()
        found = _TICK.findall(text)
        for at, phase in found:
            self._ages[phase.decode()].append(time.monotonic() - float(at))
            self.counts[phase.decode()] += 1
        if not found and b'"subscribed"' in text:
            self.ready.set()


async def read(settings: Reading) -> None:
    """Say at the end, for each phase, the fewest events of a client and the percentiles of all."""
    told = ending()
    ages: dict[str, list[float]] = defaultdict(list)
    with Journal(settings.journal, settings.name) as journal, contextlib.ExitStack() as stack:
        readers = [Reader(ages) for _ in range(settings.clients)]
        for reader in readers:
            transport, _ = await ws_connect(lambda reader=reader: reader, settings.url)
            stack.callback(transport.disconnect)
        await asyncio.gather(*(reader.ready.wait() for reader in readers))
        journal.write("ready")
        await told.wait()
        fewest = {phase: min(reader.counts[phase] for reader in readers) for phase in ages}
        facts = {phase: {"fewest": fewest[phase], "ages": sorted(found)} for phase, found in ages.items()}
        journal.write("stopped", note=msgspec.json.encode(facts).decode())


# --- storms ---------------------------------------------------------------------------------------------------------


async def storm(settings: Storming) -> None:
    """Every client of a round is gone before the next begins."""
    with Journal(settings.journal, settings.name) as journal:
        for _ in range(settings.rounds):
            await asyncio.gather(*(_come_and_go(settings.port, number) for number in range(settings.clients)))
            journal.write("ready")
        journal.write("stopped")


async def _come_and_go(port: int, number: int) -> None:
    """Subscribe by name or not, publish a little, and leave: with a goodbye, without, or before the answer."""
    client = await Raw.connect(port)
    named: dict[str, Any] = {"name": f"agent-{number % 50}"} if number % 2 else {}
    await client.send(type="subscribe", subscription={"topics": [f"storm.t{number % 10}"], **named})
    if number % 3:
        await client.until("subscribed")
        await client.send(type="publish", event={"topic": f"storm.t{number % 10}", "payload": {"n": number}})
        await client.until("published")
    if number % 4:
        await client.goodbye()
    else:
        client.close(reset=number % 8 == 0)


def main() -> None:
    """Run the program that the first argument names, with the settings of the second."""
    program, settings = sys.argv[1:]
    kind, work = PROGRAMS[program]
    run(work(msgspec.json.decode(settings, type=kind)))


PROGRAMS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "router": (Served, serve),
    "publisher": (Sending, send),
    "receiver": (Receiving, receive),
    "readers": (Reading, read),
    "storm": (Storming, storm),
}

if __name__ == "__main__":
    main()
