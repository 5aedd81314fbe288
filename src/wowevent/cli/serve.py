"""`wowevent serve`: the service, for people and for `make run`; and what `wowevent start` runs."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wowevent.access import Listening, listen
from wowevent.bus import EventBus
from wowevent.cli.engine import Namespace, Url, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.pidfile import Record, moments, registered
from wowevent.log import logger
from wowevent.schema import SchemaRegistry
from wowevent.service.logs import set_up_logs
from wowevent.service.loop import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from wowevent.settings import Settings

Host = Annotated[
    str | None,
    typer.Option(help="Where to listen; another than this machine needs --allow-anonymous.", show_default="127.0.0.1"),
]
Port = Annotated[int | None, typer.Option(help="The WebSocket router's port.", show_default="9090")]
HttpPort = Annotated[int | None, typer.Option(help="The HTTP port.", show_default="8080, or PORT")]
LogFile = Annotated[
    Path | None, typer.Option(help="Where log lines go, beside stderr.", show_default="in the data directory")
]
LogLevel = Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", show_default="INFO")]
LogFormat = Annotated[str | None, typer.Option(help="text, or json: one object a line.", show_default="text")]
AllowAnonymous = Annotated[
    bool | None, typer.Option("--allow-anonymous", help="Whoever reaches the host may publish and read everything.")
]

_LOG: Final = "wowevent.log"


def serve(  # noqa: PLR0917 - the options of a command
    url: Url = None,
    namespace: Namespace = None,
    host: Host = None,
    port: Port = None,
    http_port: HttpPort = None,
    log_file: LogFile = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    allow_anonymous: AllowAnonymous = None,
) -> None:
    """Serve the bus over WebSocket and HTTP until Ctrl-C or SIGTERM."""
    serve_here(
        given(
            url=url, namespace=namespace, host=host, port=port, http_port=http_port,
            log_file=log_file, log_level=log_level, log_format=log_format, allow_anonymous=allow_anonymous,
        )
    )  # fmt: skip


def given(*, log_file: Path | None, **options: Any) -> dict[str, Any]:
    """The options that a command line did name, in a form that can be kept."""
    kept = {name: value for name, value in options.items() if value is not None}
    return kept if log_file is None else {**kept, "log_file": str(log_file.absolute())}


def log_of(options: dict[str, Any], settings: Settings) -> Path:
    """Where the service's log lines go."""
    return Path(options.get("log_file") or settings.data_dir / _LOG).absolute()


def settings_of(options: dict[str, Any]) -> Settings:
    """The settings of a service with these options."""
    return settle(**{name: value for name, value in options.items() if name != "log_file"})


def serve_here(options: dict[str, Any], *, alone: bool = False, detached: bool = False) -> None:
    """Serve until told to end, registered in the data directory unless another service is.

    With `alone`, CommandError (already_running) if one is. With `detached` stderr is only for what goes wrong before it
    serves.
    """
    settings = settings_of(options)
    log = log_of(options, settings)
    with registered(settings.data_dir) as register:
        if register is None and alone:
            raise CommandError("already_running", "a service runs on this data directory; see wowevent status")
        service = _Service(settings, options, log)
        set_up_logs(settings.log_level, log, stderr=not detached, form=settings.log_format)
        if register is None:
            logger.info(
                "another service is registered here, status and stop are about that one", data=settings.data_dir
            )
        try:
            run(service.run(register, detached=detached))
        except Exception as error:
            if detached:
                logger.error("service failed", error=error)
            raise


class _Service:
    """What is served, and where; its ports are taken as soon as it is made."""

    def __init__(self, settings: Settings, options: dict[str, Any], log: Path) -> None:
        self._settings = settings
        self._options = options
        self._log = log
        self._http = self._listen("http", settings.http_port)
        self._websocket = self._listen("ws", settings.port) if settings.event_bus_enabled else None

    def _listen(self, scheme: str, port: int) -> Listening:
        return listen(scheme, self._settings.host, port, allow_anonymous=self._settings.allow_anonymous)

    async def run(self, register: Callable[[Record], None] | None, *, detached: bool) -> None:
        """Serve; once it does, say so on stdout and in the record, and with `detached` let go of stderr."""
        from wowevent.router import EventRouter
        from wowevent.service.server import serve as serve_http

        settings = self._settings
        bus = router = None
        if self._websocket is not None:
            given: Any = {"namespace": settings.namespace, "max_payload": settings.max_payload}
            bus = EventBus(settings.engine_url(), **given, registry=SchemaRegistry())
            router = EventRouter(settings.host, listening=self._websocket, bus=bus, origins=settings.origins)

        async def started() -> None:
            _print_banner(await self._facts(bus))
            if register is not None:
                register(self._record())
            if detached:
                _let_go_of_stderr()

        await serve_http(bus, self._http, settings, beside=router, started=started)

    async def _facts(self, bus: EventBus | None) -> list[tuple[str, str]]:
        http, websocket = self._http.url, self._websocket
        return [
            ("health", f"{http}/health"),
            ("ready", f"{http}/ready"),
            ("events", f"{http}/events"),
            ("websocket", websocket.url if websocket else "not served"),
            ("engine", self._settings.shown_url()),
            ("promise", await _promise(bus)),
            ("namespace", self._settings.namespace),
            ("log file", str(self._log)),
            ("stop", "Ctrl-C"),
        ]

    def _record(self) -> Record:
        import psutil

        created, since_boot = moments(psutil.Process())
        return Record(
            pid=os.getpid(),
            created=created,
            since_boot=since_boot,
            websocket=self._websocket.url if self._websocket else None,
            http=self._http.url,
            engine=self._settings.shown_url(),
            namespace=self._settings.namespace,
            log=str(self._log),
            version=version("wowevent"),
            options=self._options,
            cwd=str(Path.cwd()),
        )


def _let_go_of_stderr() -> None:
    """Nobody reads it any more: what went wrong is in the log from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


async def _promise(bus: EventBus | None) -> str:
    """What the engine promises, as far as it can be asked."""
    if bus is None:
        return "the event bus is disabled (EVENT_BUS_ENABLED=false): only /health answers"
    health = await bus.health()
    promise = health["details"].get("promise")
    return str(promise) if promise else "the engine does not answer yet; /ready will say when it does"


def _print_banner(rows: list[tuple[str, str]]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]WowEvent {version('wowevent')}[/]")
    for name, value in rows:
        console.print(f"  [dim]{name:<10}[/] ", end="")
        console.print(value, markup=False)
    console.file.flush()
