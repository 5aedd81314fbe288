"""Asking a person before something is dropped or sent, and refusing where there is nobody to ask."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from wowevent.cli.exits import CommandError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def consent(what: str, *, yes: bool) -> None:
    """Return if a person agrees to `what`, a sentence without its end, or has said --yes.

    Raises CommandError: usage without a terminal, declined for any other answer than y or yes. Reads from the terminal
    and blocks, so it is called outside of an event loop: Ctrl-C ends it like any other command.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("usage", f"{what}: without a terminal to ask on, this wants --yes")
    print(f"{what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("declined", "nothing was changed")
