"""Many clients publish many events to each other; none may be lost, and how fast it went is said at the end.

Run it: python examples/load_test.py [--clients 100] [--events 1000] [--url ws://localhost:9090]

Without --url it starts a router of its own, in this process: then router and clients share one core. `make bench`
measures properly.
"""

import argparse
import asyncio
import secrets
import statistics
import sys
import time
from contextlib import AsyncExitStack

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wowevent import BusError, Event
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

PATIENCE = 30.0  # seconds until an event that did not come is taken for lost


class Load:
    """What was published, and what came."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.topic = f"load.{secrets.token_hex(4)}"  # others may use the same router
        self.published: set[str] = set()
        self.received: set[str] = set()
        self.latencies: list[float] = []  # seconds from publish to handler
        self.all_there = asyncio.Event()

    async def receive(self, event: Event) -> None:
        self.latencies.append(time.perf_counter() - event.payload["sent"])
        self.received.add(event.event_id)
        if len(self.received) == self.events:
            self.all_there.set()


async def publish(client: EventRouterClient, load: Load, clients: int, count: int) -> None:
    """One client's share, each event to a client that chance picks."""
    for _ in range(count):
        topic = f"{load.topic}.{secrets.randbelow(clients)}"
        load.published.add(await client.publish(topic, {"sent": time.perf_counter(), "data": "test"}))


async def run(clients: int, events: int, url: str | None, console: Console) -> None:
    load = Load(events)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with AsyncExitStack() as stack:
        if url is None:
            url = (await stack.enter_async_context(EventRouter(port=0, max_clients=clients))).url
        progress = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))

        everyone: list[EventRouterClient] = []
        connecting = progress.add_task("clients", total=clients)
        for number in range(clients):
            client = EventRouterClient(url, agent=f"load-{number}")
            client.on(f"{load.topic}.{number}")(load.receive)
            everyone.append(await stack.enter_async_context(client))
            progress.update(connecting, completed=number + 1)
        before = (await everyone[0].get_health())["events_processed"]

        receiving = progress.add_task("events", total=events)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as publishers:
            for number, client in enumerate(everyone):
                share = events // clients + (number < events % clients)
                publishers.create_task(publish(client, load, clients, share))
        published = time.perf_counter() - began
        try:
            async with asyncio.timeout(PATIENCE):
                while not load.all_there.is_set():
                    progress.update(receiving, completed=len(load.received))
                    await asyncio.sleep(0.05)
        except TimeoutError:
            console.print("[red]some did not come")
        progress.update(receiving, completed=len(load.received))
        took = time.perf_counter() - began
        processed = (await everyone[0].get_health())["events_processed"] - before

    cuts = statistics.quantiles(load.latencies, n=100) if len(load.latencies) > 1 else [0.0] * 99
    say = console.out
    say(f"clients    {clients:,}")
    say(f"published  {len(load.published):,} in {published:.2f} s: {events / published:,.0f}/s")
    say(f"received   {len(load.received):,} in {took:.2f} s: {len(load.received) / took:,.0f}/s")
    say(f"latency    p50 {cuts[49] * 1000:.1f} ms, p95 {cuts[94] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms")
    say(f"processed  {processed:,}, says the router")
    if load.received != load.published or processed < events:
        sys.exit(f"lost: {len(load.published - load.received)} of {events}")
    if len(load.latencies) != events:
        sys.exit(f"came twice: {len(load.latencies) - events} of {events}")
    say("nothing was lost, nothing came twice")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Many clients publish many events to each other.")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--url", help="a router that is there already (default: one of its own)")
    given = parser.parse_args()
    if given.clients < 1 or given.events < 1:
        parser.error("--clients and --events are 1 or more")
    try:
        asyncio.run(run(given.clients, given.events, given.url, Console()))
    except BusError as error:
        sys.exit(str(error))
