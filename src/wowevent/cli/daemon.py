"""`wowevent start | stop | restart`: the service in the background.

start --daemon   spawn `wowevent start` in a session of its own -> wait until its record is there -> say where it is
stop             SIGTERM -> wait for the drain -> with --force SIGKILL
restart          stop, then start --daemon with the options that it was started with, and those that are given anew
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from wowevent.cli.engine import Namespace, Url, note
from wowevent.cli.launch import launch
from wowevent.cli.pidfile import Seen, find, forget
from wowevent.cli.serve import (
    AllowAnonymous,
    Host,
    HttpPort,
    LogFile,
    LogFormat,
    LogLevel,
    Port,
    TlsCert,
    TlsKey,
    Tokens,
    Workers,
    given,
    serve_here,
    settings_of,
)
from wowevent.cli.show import print_json
from wowevent.cli.status import facts_of, show
from wowevent.cli.stopping import PATIENCE, end
from wowevent.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="One object.")]
Force = Annotated[bool, typer.Option("--force", help="Kill it if it does not end in time.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds that it gets to end.")]


def start(  # noqa: PLR0917 - the options of a command
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
    daemon: Annotated[bool, typer.Option("--daemon", "-d", help="In the background.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One object; with --daemon.")] = False,
    detached: Annotated[bool, typer.Option("--detached", hidden=True)] = False,
) -> None:
    """Serve the bus like `serve`, once on a data directory; with --daemon in the background."""
    options = given(
        url=url, namespace=namespace, host=host, port=port, http_port=http_port, workers=workers,
        log_file=log_file, log_level=log_level, log_format=log_format, allow_anonymous=allow_anonymous,
        tokens=tokens, tls_cert=tls_cert, tls_key=tls_key,
    )  # fmt: skip
    if daemon:
        _start(options, Path.cwd(), json=json)
    else:
        serve_here(options, alone=True, detached=detached)


def stop(force: Force = False, timeout: Patience = PATIENCE, json: Json = False) -> None:
    """End the service that runs: it finishes what is under way. None that runs is well, too."""
    answer = end_service(Settings(), timeout, force=force)
    if json:
        print_json(answer)
    elif answer["state"] == "not_running":
        note("no service runs")
    else:
        how = "killed" if answer["killed"] else "stopped"
        print(f"{how} process {answer['pid']} after {answer['seconds']:.1f} s")


def restart(  # noqa: PLR0917 - the options of a command
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
    force: Force = False,
    timeout: Patience = PATIENCE,
    json: Json = False,
) -> None:
    """End the service that runs, and start one in the background.

    It gets the options that the old one was started with, and those that are given anew; what the environment and the
    configuration file say is read again.
    """
    anew = given(
        url=url, namespace=namespace, host=host, port=port, http_port=http_port, workers=workers,
        log_file=log_file, log_level=log_level, log_format=log_format, allow_anonymous=allow_anonymous,
        tokens=tokens, tls_cert=tls_cert, tls_key=tls_key,
    )  # fmt: skip
    settings = settings_of(anew)
    last = find(settings.data_dir).record
    options = {**(last.options if last else {}), **anew}
    end_service(settings, timeout, force=force)
    _start(options, Path(last.cwd) if last else Path.cwd(), json=json)


def _start(options: dict[str, Any], cwd: Path, *, json: bool) -> None:
    settings = settings_of(options)
    _report(find(settings.data_dir))
    record, fresh = launch(options, settings, cwd)
    if json:
        print_json({"state": "started" if fresh else "running", **facts_of(record)})
        return
    if not fresh:
        note(f"a service runs already, as process {record.pid}; wowevent restart gives it other options")
    show(facts_of(record))


def end_service(settings: Settings, timeout: float, *, force: bool) -> dict[str, Any]:
    """End what runs, and say what was done; blocks. CommandError (not_stopped) if it is still there."""
    seen = find(settings.data_dir)
    _report(seen)
    if seen.process is None:
        if seen.trouble:
            forget(settings.data_dir)
        return {"state": "not_running"}
    began = time.monotonic()
    killed = end(seen.process, timeout, force=force)
    forget(settings.data_dir)
    return {"state": "stopped", "pid": seen.process.pid, "seconds": time.monotonic() - began, "killed": killed}


def _report(seen: Seen) -> None:
    if seen.trouble:
        note(f"a service ended without cleaning up, or its file is not ours: {seen.trouble}; nothing is sent to it")
