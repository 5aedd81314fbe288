"""`wowevent run module:bus`: the handlers of a module, in one process or several."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wowevent.bus import EventBus
from wowevent.cli.engine import settle
from wowevent.cli.exits import CommandError
from wowevent.cli.serve import LogFormat, LogLevel
from wowevent.cli.workers import PARENT, WORKER, refuse_unshared, supervise
from wowevent.log import logger
from wowevent.process.logs import set_up_logs
from wowevent.process.loop import ending
from wowevent.process.loop import run as run_loop


def run(  # noqa: PLR0917 - the options of a command
    target: Annotated[str, typer.Argument(metavar="MODULE:BUS", help="The EventBus; ':bus' may be left out.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a .py file below here changes.")] = False,
    log_file: Annotated[Path | None, typer.Option(help="Where log lines go, beside stderr; one a worker.")] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Start the bus of a module and serve its subscriptions until Ctrl-C or SIGTERM.

    Workers are processes that share the subscriptions; one that dies is started again.
    """
    settings = settle(log_level=log_level, log_format=log_format)
    worker = os.environ.get(WORKER)
    if worker is None and (workers > 1 or reload):
        set_up_logs(settings.log_level, log_file, form=settings.log_format)
        if workers > 1:
            refuse_unshared(load(target))
        file = [f"--log-file={log_file}"] if log_file else []
        logs = [f"--log-level={settings.log_level}", f"--log-format={settings.log_format}", *file]
        arguments = [*logs, "--", target]
        run_loop(supervise(arguments, workers, Path.cwd() if reload else None))
        return
    if worker is not None and log_file is not None:
        log_file = log_file.with_name(f"{log_file.stem}.{worker}{log_file.suffix}")
    set_up_logs(settings.log_level, log_file, form=settings.log_format)
    run_loop(_serve(load(target)))


def load(target: str) -> EventBus:
    """The bus that `module:name` names, with the current directory to import from; CommandError if there is none."""
    module_name, _, name = target.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise CommandError("usage", f"there is no module {module_name!r} here") from error
    except ValueError as error:
        raise CommandError("usage", f"{target!r} is not module:bus") from error
    bus = getattr(module, name or "bus", None)
    if not isinstance(bus, EventBus):
        raise CommandError("usage", f"{module_name} has no EventBus named {name or 'bus'!r}")
    return bus


async def _serve(bus: EventBus) -> None:
    parent = os.environ.get(PARENT)
    told = ending(None if parent is None else int(parent))
    await bus.start()
    logger.info("worker serves", process=os.getpid())
    await told.wait()
    logger.info("worker drains", process=os.getpid())
    await bus.stop()
