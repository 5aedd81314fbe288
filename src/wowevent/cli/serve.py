"""`wowevent serve`: the service, for people and for `make run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wowevent.access import Listening, listen
from wowevent.bus import EventBus
from wowevent.cli.engine import Namespace, Url, settle
from wowevent.router import EventRouter
from wowevent.service.logs import set_up_logs
from wowevent.service.loop import run
from wowevent.service.server import serve as serve_http

if TYPE_CHECKING:
    from wowevent.settings import Settings

_LOG: Final = "wowevent.log"


def serve(  # noqa: PLR0917 - the options of a command
    url: Url = None,
    namespace: Namespace = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Where to listen; another than this machine needs --allow-anonymous.", show_default="127.0.0.1"
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="The WebSocket router's port.", show_default="9090")] = None,
    http_port: Annotated[int | None, typer.Option(help="The HTTP port.", show_default="8080, or PORT")] = None,
    log_file: Annotated[
        Path | None, typer.Option(help="Where log lines go, beside stderr.", show_default="in the data directory")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", show_default="INFO")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Whoever reaches the host may publish and read everything.")
    ] = None,
) -> None:
    """Serve the bus over WebSocket and HTTP until Ctrl-C or SIGTERM."""
    settings = settle(
        url=url, namespace=namespace, host=host, port=port, http_port=http_port,
        log_level=log_level, allow_anonymous=allow_anonymous,
    )  # fmt: skip
    log = (log_file or settings.data_dir / _LOG).absolute()
    listening = listen("http", settings.host, settings.http_port, allow_anonymous=settings.allow_anonymous)
    sockets = listen("ws", settings.host, settings.port, allow_anonymous=settings.allow_anonymous)
    set_up_logs(settings.log_level, log)
    run(_serve(settings, listening, sockets, log))


async def _serve(settings: Settings, listening: Listening, sockets: Listening, log: Path) -> None:
    bus = router = None
    if settings.event_bus_enabled:
        bus = EventBus(settings.engine_url(), namespace=settings.namespace, max_payload=settings.max_payload)
        router = EventRouter(settings.host, listening=sockets, bus=bus, origins=settings.origins)

    async def banner() -> None:
        _print_banner(settings, listening, sockets, log, await _promise(bus))

    await serve_http(bus, listening, settings, beside=router, started=banner)


async def _promise(bus: EventBus | None) -> str:
    """What the engine promises, as far as it can be asked."""
    if bus is None:
        return "the event bus is disabled (EVENT_BUS_ENABLED=false): only /health answers"
    health = await bus.health()
    promise = health["details"].get("promise")
    return str(promise) if promise else "the engine does not answer yet; /ready will say when it does"


def _print_banner(settings: Settings, listening: Listening, sockets: Listening, log: Path, promise: str) -> None:
    from importlib.metadata import version

    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]WowEvent {version('wowevent')}[/]")
    rows = (
        ("health", f"{listening.url}/health"),
        ("ready", f"{listening.url}/ready"),
        ("events", f"{listening.url}/events"),
        ("websocket", sockets.url),
        ("engine", settings.shown_url()),
        ("promise", promise),
        ("namespace", settings.namespace),
        ("log file", str(log)),
        ("stop", "Ctrl-C"),
    )
    for name, value in rows:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(value, markup=False)
    console.file.flush()
