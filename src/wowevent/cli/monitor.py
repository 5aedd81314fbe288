"""`wowevent monitor`: a router as it is now: rates, latency, what waits, who is there, and the events that go by."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wowevent.access.tls import own_context
from wowevent.cli.arguments import priority_of
from wowevent.cli.dashboard import Sample, Seen, draw, rate
from wowevent.cli.engine import settle
from wowevent.cli.exits import CommandError
from wowevent.cli.pidfile import find
from wowevent.cli.serve import settings_of
from wowevent.cli.show import open_console, print_json
from wowevent.ending import end
from wowevent.errors import BrokerUnavailable
from wowevent.event import Event
from wowevent.process.logs import set_up_logs
from wowevent.process.loop import ending, run
from wowevent.settings import Settings

if TYPE_CHECKING:
    from wowevent.client import EventRouterClient

_KEPT: Final = 200  # events that are kept to be shown
_ANSWER: Final = 5.0  # seconds for the router to answer
_COME_BACK: Final = (0.5, 5.0)  # seconds, first and longest pause before a router that went away is asked again
_REDRAW: Final = 0.25  # seconds between two drawings while events go by


def monitor(  # noqa: PLR0917 - the options of a command
    pattern: Annotated[list[str] | None, typer.Argument(help="Patterns such as 'task.*'; all events without.")] = None,
    type: Annotated[list[str] | None, typer.Option("--type", help="Only events of this type.")] = None,
    priority: Annotated[
        list[str] | None,
        typer.Option("--priority", help="Only this priority: low, normal, high, critical, or 1 to 10."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option("--source", help="Only events of this agent.")] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="One object per interval on stdout.")] = False,
    once: Annotated[bool, typer.Option("--once", help="One look, an interval long, and end.")] = False,
    url: Annotated[
        str | None, typer.Option(help="The router.", show_default="the service that runs, else as configured")
    ] = None,
) -> None:
    """Show what a router does until q or Ctrl-C. It is a client itself, and counts as one."""
    live = not (json or once)
    if live and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("usage", "without a terminal it wants --json or --once")
    settings = settle()
    set_up_logs("CRITICAL" if live else "ERROR")
    wanted: dict[str, Any] = {
        "topics": pattern or ["*"],
        "types": type,
        "priorities": [priority_of(each) for each in priority] if priority else None,
        "sources": source,
    }
    run(_monitor(_client(url, settings), wanted, interval, json=json, once=once))


def _client(url: str | None, settings: Settings) -> EventRouterClient:
    """One of the router that was named, else of the service that runs, else of where it would be."""
    from wowevent.client import EventRouterClient

    tls = None
    if url is None:
        url, tls = _service(settings)
    first, longest = _COME_BACK
    return EventRouterClient(
        url,
        reconnect_interval=first,
        max_reconnect_interval=longest,
        heartbeat_interval=_ANSWER,
        timeout=_ANSWER,
        token=settings.token or "",
        ssl=tls,
        ca=settings.ca if tls is None else None,
    )


def _service(settings: Settings) -> tuple[str, ssl.SSLContext | None]:
    """Where the service of this machine is or would be, and its TLS if it has one."""
    seen = find(settings.data_dir)
    if seen.process is not None and seen.record is not None and seen.record.websocket:
        url = seen.record.websocket
        return url, own_context(settings_of(seen.record.options)) if url.startswith("wss:") else None
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.tls_cert is None:
        return f"ws://{host}:{settings.port}", None
    return f"wss://{host}:{settings.port}", own_context(settings)


async def _monitor(
    client: EventRouterClient, wanted: dict[str, Any], interval: float, *, json: bool, once: bool
) -> None:
    told = ending()
    watch = _Watch(client)
    connecting = asyncio.create_task(_connect(client, wanted, watch))
    waiting = asyncio.create_task(told.wait())
    try:
        await asyncio.wait({connecting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done():
            connecting.result()
            await watch.look()
            view = (
                _report(watch, told, interval, json=json, once=once) if json or once else _show(watch, told, interval)
            )
            await view
    finally:
        await end(connecting, waiting)
        await client.disconnect()


async def _connect(client: EventRouterClient, wanted: dict[str, Any], watch: _Watch) -> None:
    await client.connect()
    await client.subscribe(**wanted, callback=watch.take)


class _Watch:
    """What is known of a router: its last health, the rates since the one before, and the events that went by."""

    def __init__(self, client: EventRouterClient) -> None:
        self.changed = asyncio.Event()
        """There are events that were not drawn."""
        self._client = client
        self._events: deque[Seen] = deque(maxlen=_KEPT)
        self._matched = 0
        self._health: dict[str, Any] | None = None
        self._last: tuple[float, dict[str, Any]] | None = None
        self._rates: dict[str, float | None] = {"published": None, "delivered": None}

    async def take(self, event: Event) -> None:
        """Keep an event to be shown."""
        self._events.append(Seen.of(event))
        self._matched += 1
        self.changed.set()

    async def look(self) -> None:
        """Ask how the router is; BrokerUnavailable if it does not want us any more."""
        try:
            health = await self._client.get_health() if self._client.connected or self._client.closed else None
        except BrokerUnavailable:
            if self._client.closed:
                raise
            health = None
        if health is None:
            self._health = self._last = None
            self._rates = dict.fromkeys(self._rates)
            return
        now = time.monotonic()
        if self._last is not None:
            began, before = self._last
            self._rates = {
                "published": rate(before, health, "events_processed", now - began),
                "delivered": rate(before, health, "events_delivered", now - began),
            }
        self._health, self._last = health, (now, health)

    def sample(self) -> Sample:
        """All of it, as it is now."""
        connected = self._client.connected and self._health is not None
        return Sample(
            time=datetime.now(UTC),
            url=self._client.url,
            state="connected" if connected else "reconnecting",
            health=self._health if connected else None,
            rates=self._rates,
            reconnects=self._client.counters.reconnects,
            matched=self._matched,
            events=list(self._events),
        )

    def forget(self) -> None:
        """The events were shown."""
        self._events.clear()
        self._matched = 0


async def _report(watch: _Watch, told: asyncio.Event, interval: float, *, json: bool, once: bool) -> None:
    """A sample each interval, on stdout."""
    while not await _within(told, interval):
        await watch.look()
        sample = watch.sample()
        if json:
            print_json(sample.plain())
            watch.forget()
        else:
            console = open_console()
            console.print(draw(sample, rows=len(sample.events) + 1))
        if once:
            return


async def _show(watch: _Watch, told: asyncio.Event, interval: float) -> None:
    """The live view, on a screen of its own that is given back at the end."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    looking = asyncio.create_task(_looking(watch, told, interval))
    try:
        with _keys(told), Live(console=console, screen=True, auto_refresh=False) as live:
            while not told.is_set() and not looking.done():
                watch.changed.clear()
                live.update(draw(watch.sample(), rows=console.height), refresh=True)
                if await _within(told, _REDRAW):
                    break
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await watch.changed.wait()
    finally:
        await end(looking)
    if not looking.cancelled():
        looking.result()


async def _looking(watch: _Watch, told: asyncio.Event, interval: float) -> None:
    while not await _within(told, interval):
        await watch.look()
        watch.changed.set()


async def _within(told: asyncio.Event, seconds: float) -> bool:
    """Whether it was told to end, at once or within that time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await told.wait()
    return told.is_set()


@contextmanager
def _keys(told: asyncio.Event) -> Iterator[None]:
    """Take keys as they are pressed, without showing them; q ends. The terminal is left as it was found."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        keys = b""
        with suppress(OSError):
            keys = os.read(fd, 64)
        if not keys:  # the terminal is gone
            loop.remove_reader(fd)
        if not keys or b"q" in keys.lower():
            told.set()

    tty.setcbreak(fd)
    loop.add_reader(fd, pressed)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
