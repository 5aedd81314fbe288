"""`wowevent mcp`: the tools of an agent, over stdin and stdout or over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wowevent.cli.engine import Namespace, Url, note_memory, settle
from wowevent.cli.exits import CommandError
from wowevent.process.logs import set_up_logs
from wowevent.process.loop import run
from wowevent.settings import Settings

Tokens = Annotated[
    Path | None, typer.Option(help="With --http: whoever asks is asked for a token of this file.", show_default="none")
]


def mcp(  # noqa: PLR0917 - the options of a command
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Streamable HTTP there, at /mcp.", show_default="stdio")
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Also tools that publish, redeliver, pause, start, stop, configure.")
    ] = False,
    name: Annotated[str, typer.Option(help="As whom it publishes, unless a token says so.")] = "mcp",
    tokens: Tokens = None,
    log_file: Annotated[
        Path | None, typer.Option(help="Where log lines go, the audit's too, beside stderr.", show_default="none")
    ] = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Serve the Model Context Protocol: tools with which an agent uses, watches and repairs the bus.

    Without --allow-changes it only looks. It ends when its client closes stdin; with --http on Ctrl-C or SIGTERM.
    """
    given = None if tokens is None else str(tokens.absolute())
    _pass_on(WOWEVENT_URL=url, WOWEVENT_NAMESPACE=namespace)
    settings = settle(tokens=given)
    if http is None and tokens is not None:
        raise CommandError("usage", "--tokens goes with --http: over stdio it has the rights of its user")
    _check_extra()
    set_up_logs(settings.log_level, log_file, form=settings.log_format)
    run(_serve(settings, http, name, allow_changes=allow_changes))


def _pass_on(**given: str | None) -> None:
    """By way of the environment, so that what it starts, and what it looks at, is on the same engine."""
    os.environ.update({name: value for name, value in given.items() if value is not None})


def _check_extra() -> None:
    try:
        import mcp.server  # noqa: F401 - whether it is there
    except ImportError as error:
        raise CommandError("not_supported", "this needs an extra: pip install 'wowevent[mcp]'") from error


async def _serve(settings: Settings, http: str | None, name: str, *, allow_changes: bool) -> None:
    from wowevent.access.keyring import Keyring
    from wowevent.bus import EventBus
    from wowevent.cli.router_tools import ROUTER_TOOLS
    from wowevent.event import check_name
    from wowevent.mcp import http as over_http
    from wowevent.mcp import stdio
    from wowevent.mcp.call import Caller
    from wowevent.mcp.line import Line
    from wowevent.mcp.server import BUS_TOOLS, Server
    from wowevent.schema import SchemaRegistry

    check_name(name)
    note_memory(settings)
    line = Line(
        lambda: EventBus(
            settings.engine_url(),
            namespace=settings.namespace,
            name=name,
            max_payload=settings.max_payload,
            registry=SchemaRegistry(),
        )
    )
    keyring = None if http is None else Keyring.of(settings)
    callers = (lambda _: Caller()) if http is None else over_http.callers(keyring)
    server = Server((*BUS_TOOLS, *ROUTER_TOOLS), line, allow_changes=allow_changes, caller=callers)
    try:
        if http is None:
            await stdio.serve(server, line)
        else:
            host, port = _place(http)
            settings = settings.model_copy(update={"host": host})
            listening = over_http.take(host, port, settings, keyring)
            await over_http.serve(server, listening, settings, keyring=keyring)
    finally:
        await line.close()


def _place(text: str) -> tuple[str, int]:
    """The host and the port of HOST:PORT, of [::1]:PORT, or of a port alone."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= len("65535")):
        raise CommandError("usage", f"--http {text!r:.80}: HOST:PORT, such as 127.0.0.1:8090")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
