"""`wowevent serve`: the service, for people and for `make run`; and what `wowevent start` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from wowevent.cli.engine import Namespace, Url, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.pidfile import registered
from wowevent.log import logger
from wowevent.process.logs import set_up_logs
from wowevent.process.loop import run

if TYPE_CHECKING:
    from wowevent.settings import Settings

Host = Annotated[
    str | None,
    typer.Option(
        help="Where to listen; another than this machine needs --tokens or --allow-anonymous.",
        show_default="127.0.0.1",
    ),
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

Tokens = Annotated[
    Path | None, typer.Option(help="The file of tokens: whoever asks is asked for one.", show_default="none")
]
TlsCert = Annotated[Path | None, typer.Option(help="The certificate, PEM: https and wss.", show_default="none")]
TlsKey = Annotated[Path | None, typer.Option(help="Its key, PEM.", show_default="none")]

Workers = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="How many processes share the ports; SIGHUP exchanges them.", show_default="1"),
]

_LOG: Final = "wowevent.log"
_NOT_SETTINGS: Final = frozenset({"log_file", "workers"})
_PATHS: Final = ("log_file", "tokens", "tls_cert", "tls_key")


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
    tokens: Tokens = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    workers: Workers = None,
    post: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the bus over WebSocket and HTTP until Ctrl-C or SIGTERM."""
    options = given(
        url=url, namespace=namespace, host=host, port=port, http_port=http_port, workers=workers,
        log_file=log_file, log_level=log_level, log_format=log_format, allow_anonymous=allow_anonymous,
        tokens=tokens, tls_cert=tls_cert, tls_key=tls_key,
    )  # fmt: skip
    if post is not None:
        _serve_at(post, options)
    else:
        serve_here(options)


def given(**options: Any) -> dict[str, Any]:
    """The options that a command line did name, in a form that can be kept: paths from the root."""
    kept = {name: value for name, value in options.items() if value is not None}
    return kept | {name: str(kept[name].absolute()) for name in _PATHS if name in kept}


def log_of(options: dict[str, Any], settings: Settings) -> Path:
    """Where the service's log lines go."""
    return Path(options.get("log_file") or settings.data_dir / _LOG).absolute()


def settings_of(options: dict[str, Any]) -> Settings:
    """The settings of a service with these options."""
    return settle(**{name: value for name, value in options.items() if name not in _NOT_SETTINGS})


def flags(options: dict[str, Any]) -> list[str]:
    """The options as a command line says them."""
    named = ((f"--{name.replace('_', '-')}", value) for name, value in options.items())
    return [flag if value is True else f"{flag}={value}" for flag, value in named]


def serve_here(options: dict[str, Any], *, alone: bool = False, detached: bool = False) -> None:
    """Serve until told to end, registered in the data directory unless another service is.

    With `alone`, CommandError (already_running) if one is. With `detached` stderr is only for what goes wrong before it
    serves.
    """
    from wowevent.cli.fleet import Fleet, command_of
    from wowevent.cli.serving import Alone

    settings = settings_of(options)
    log = log_of(options, settings)
    with registered(settings.data_dir) as register:
        if register is None and alone:
            raise CommandError("already_running", "a service runs on this data directory; see wowevent status")
        service: Alone | Fleet
        if options.get("workers", 1) > 1:
            own = {name: value for name, value in options.items() if name not in _NOT_SETTINGS}
            service = Fleet(settings, options, log, command_of(flags(own)))
        else:
            service = Alone(settings, options, log)
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


def _serve_at(post: str, options: dict[str, Any]) -> None:
    """Serve as a worker of the process that says so; that one writes the log."""
    import msgspec

    from wowevent.cli.serving import Post, work

    settings = settings_of(options)
    given = msgspec.json.decode(post, type=Post)
    set_up_logs(settings.log_level, form=settings.log_format, worker=given.number)
    run(work(given, settings))
