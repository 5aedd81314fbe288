"""What a tool answers when it cannot do what it was asked: a stable code, what is wrong, and what to do about it."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from wowevent.errors import BusError, PositionLost, printable
from wowevent.process.exits import code_of, message_of

_LONGEST: Final = 2000  # characters of a message

_REFUSED: Final = "Ask who runs this server for that right, or for --allow-changes."
_DO: Final = {
    "invalid_arguments": "Correct the argument that is named and call again; the tool's input schema has the shapes.",
    "invalid_event": "Correct what is named and call again.",
    "invalid_topic": "Words of letters, digits, _ and - joined by dots; * is one word, # any number of them.",
    "validation_error": "The payload does not fit the schema of its event type: correct each field that is named.",
    "payload_too_large": "Publish less, or where the data lies.",
    "broker_unavailable": "The engine does not answer. Call troubleshoot, and once it answers call again.",
    "storage_full": "Call troubleshoot: the engine needs room, or smaller retention. Do not call again before.",
    "subscription_not_found": "Call subscriptions for the names that are known.",
    "subscription_conflict": "It is a live one, for which nothing is kept: it cannot be paused.",
    "dead_letter_not_found": "Call dead_letters: it was redelivered or discarded meanwhile.",
    "conversation_not_found": "Call history for the ids that there are; retention may have taken this one.",
    "storm_not_found": "Call storms for those that are parked.",
    "schedule_not_found": "Call schedules for the names that there are.",
    "position_lost": "The log holds that place no more. Call again without `after`.",
    "no_responders": "Nobody serves that topic now. Call subscriptions or agents to see who could.",
    "request_timeout": "Call again with a longer timeout, or look at subscriptions whether the responder is stuck.",
    "request_failed": "The responder failed for good; its error stands in the message and in dead_letters.",
    "rate_limited": "Wait, then call again.",
    "not_permitted": _REFUSED,
    "unauthenticated": "The token is not valid any more: a person has to make a new one.",
    "not_supported": "This engine cannot do that; docs/engines.md says what each can.",
    "config": "Call router_status for the settings, and router_configure to correct them.",
    "not_running": "Call router_start.",
    "already_running": "Call router_status; nothing has to be started.",
    "not_started": "Call router_logs and troubleshoot: the last lines say why.",
    "not_stopped": "It still drains: call router_status in a while, or router_stop with force.",
    "address_in_use": "Another program has that port: troubleshoot says which. Call router_configure for another port.",
    "closed": "This server is ending; connect again.",
}
_ELSE: Final = "Call troubleshoot, and tell a person what it says."


class Problem(Struct, frozen=True, kw_only=True):
    """Why a tool did nothing."""

    error: str
    """A stable code, as everywhere else (docs/commands.md), or invalid_arguments."""
    message: str
    retryable: bool
    """The same call can succeed later."""
    do: str
    """What to do now."""


class Refusal(Exception):
    """What only a tool refuses, or one that runs a command; `code` is stable."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


def problem_of(error: Exception) -> Problem:
    """An error as it is told; of one that is a fault of ours nothing but that."""
    code = error.code if isinstance(error, Refusal) else code_of(error)
    if code == "internal_error":
        message = "this is a fault of the server; its log has it"
    else:
        message = printable(message_of(error))[:_LONGEST]
    retryable = isinstance(error, BusError | Refusal) and error.retryable
    do = _DO.get(code, _ELSE)
    if isinstance(error, PositionLost) and error.lost is not None:
        message += f" ({error.lost} events)"
    return Problem(error=code, message=message, retryable=retryable, do=do)


def as_text(problem: Problem) -> dict[str, Any]:
    """For who reads text alone."""
    return {"type": "text", "text": f"error[{problem.error}]: {problem.message}\n{problem.do}"}
