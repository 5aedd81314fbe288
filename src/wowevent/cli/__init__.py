"""The command: `wowevent` and `python -m wowevent`. One file per group of commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wowevent.cli.agents import agents
from wowevent.cli.backup import backup, restore, verify
from wowevent.cli.configure import configure
from wowevent.cli.copy import copy
from wowevent.cli.daemon import restart, start, stop
from wowevent.cli.dlq import app as dlq
from wowevent.cli.doctor import doctor
from wowevent.cli.exits import exit_status, say
from wowevent.cli.history import history
from wowevent.cli.info import info
from wowevent.cli.logs import logs
from wowevent.cli.mcp import mcp
from wowevent.cli.monitor import monitor
from wowevent.cli.pauses import pause, pauses, resume
from wowevent.cli.publish import publish
from wowevent.cli.replay import replay
from wowevent.cli.run import run
from wowevent.cli.schedule import app as schedule
from wowevent.cli.schema import app as schema
from wowevent.cli.serve import serve
from wowevent.cli.status import status
from wowevent.cli.storms import app as storms
from wowevent.cli.subscribe import subscribe
from wowevent.cli.subscriptions import app as subscriptions
from wowevent.cli.token import app as token
from wowevent.cli.trace import trace
from wowevent.cli.version import version
from wowevent.settings import CONFIG

app: typer.Typer = typer.Typer(
    name="wowevent",
    help="An event bus for agents: publish, subscribe, look at what happened, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    serve,
    start,
    stop,
    restart,
    status,
    configure,
    logs,
    monitor,
    mcp,
    run,
    publish,
    subscribe,
    history,
    trace,
    replay,
    copy,
    backup,
    restore,
    verify,
    info,
    agents,
    pause,
    resume,
    pauses,
    doctor,
    version,
):
    app.command()(_command)
app.add_typer(subscriptions, name="subscriptions")
app.add_typer(dlq, name="dlq")
app.add_typer(storms, name="storms")
app.add_typer(schema, name="schema")
app.add_typer(schedule, name="schedule")
app.add_typer(token, name="token")


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The configuration file.", show_default="WOWEVENT_CONFIG, else the platform's"),
    ] = None,
) -> None:
    """An event bus for agents: publish, subscribe, look at what happened, and serve it."""
    context.obj["debug"] = debug
    if config is not None:  # by way of the environment, so that processes that a command starts get it too
        os.environ[CONFIG] = str(config.absolute())


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns its exit status (see `wowevent.cli.exits`)."""
    flags = {"debug": False}
    try:
        result = app(arguments, prog_name="wowevent", standalone_mode=False, obj=flags)
        sys.stdout.flush()
    except SystemExit as ended:  # typer's answer to a reader that went away
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return exit_status(ended.__context__)
    except KeyboardInterrupt as stopped:
        return exit_status(stopped)
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            return exit_status(error)
        if flags["debug"]:
            raise
        say(error)
        return exit_status(error)
    return result if isinstance(result, int) else 0
