"""How a command ends: one line on stderr for an error, and an exit status that scripts can rely on.

    0    done; also when the reader of the output went away, a service was told to end, or a view was left (monitor and
         logs -f, by q or Ctrl-C)
    1    a fault of ours, an error that has no status of its own, a question that was answered no (declined), or a
         doctor that found what fails
    2    the command line is wrong
    65   the data is wrong: invalid_event, invalid_topic, invalid_schedule, validation_error, payload_too_large,
         format_too_new, schema_conflict, copy_differs
    69   nobody there: broker_unavailable, no_responders, unroutable, subscription_not_found, dead_letter_not_found,
         storm_not_found, schema_not_found, conversation_not_found, schedule_not_found, token_not_found,
         address_in_use, not_running
    70   a responder, a worker or a service failed: request_failed, workers_failed, not_started
    73   no room: storage_full, outbox_full
    74   the log or a file cannot be read: storage_damaged, position_lost, io_error
    75   try again later: request_timeout, rate_limited, closed, subscription_conflict; of a service
         already_running, not_answering, unhealthy, not_stopped
    77   not_permitted, unauthenticated
    78   the configuration is wrong, or asks for what this engine cannot do: config, not_supported
    130  interrupted by Ctrl-C; a backup or a restore by SIGTERM, too

The numbers are those of sysexits.h, where one fits.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Final

import pydantic
import typer
from typer.exceptions import TyperException

from wowevent.errors import BusError
from wowevent.process import exits
from wowevent.process.exits import STATUS as STATUS  # noqa: PLC0414 - the table of every command, too

INTERRUPTED: Final = 130
SAID: Final = re.compile(r"error\[(\w+)\]: (.*)")
"""What `say` says of an error: its code, its message."""


class CommandError(Exception):
    """What a command refuses or fails at, beside the errors of the bus; `code` as in the table above."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def exit_status(error: BaseException) -> int:
    """The exit status of what ended a command."""
    if isinstance(error, BrokenPipeError):
        _discard_output()
        return 0
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    return STATUS.get(code_of(error), 1)


def say(error: Exception) -> None:
    """`error[code]: message`, on one line, on stderr; nothing for a command line that was answered with its help."""
    message = " ".join(_message(error).split())
    if not isinstance(error, typer.Abort) and (message or not isinstance(error, TyperException)):
        print(f"error[{code_of(error)}]: {message}", file=sys.stderr)


def code_of(error: BaseException) -> str:
    """The stable name of an error."""
    match error:
        case CommandError():
            return error.code
        case TyperException():
            return "usage"
        case _:
            return exits.code_of(error)


def _message(error: Exception) -> str:
    match error:
        case TyperException():
            return error.format_message()
        case pydantic.ValidationError() | BusError() | CommandError() | ValueError() | OSError():
            return exits.message_of(error)
        case _:
            return f"{type(error).__name__}: {error} (--debug shows where)"


def _discard_output() -> None:
    """The reader of our output is gone: what is still buffered must not make the interpreter complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
