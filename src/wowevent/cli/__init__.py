"""The command: `wowevent` and `python -m wowevent`. One file per group of commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wowevent.cli.exits import exit_status, say
from wowevent.cli.history import history
from wowevent.cli.publish import publish
from wowevent.cli.run import run
from wowevent.cli.serve import serve
from wowevent.cli.subscribe import subscribe
from wowevent.cli.version import version

app: typer.Typer = typer.Typer(
    name="wowevent",
    help="An event bus for agents: publish, subscribe, look at what happened, and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (serve, run, publish, subscribe, history, version):
    app.command()(_command)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """An event bus for agents: publish, subscribe, look at what happened, and serve it."""
    context.obj["debug"] = debug


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns its exit status (see `wowevent.cli.exits`)."""
    flags = {"debug": False}
    try:
        status = app(arguments, prog_name="wowevent", standalone_mode=False, obj=flags)
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
    return status if isinstance(status, int) else 0
