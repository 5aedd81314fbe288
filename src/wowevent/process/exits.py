"""How a process of ours ends: what an error is called, and the exit status that it has (those of sysexits.h)."""

from __future__ import annotations

import errno
from typing import Final

import pydantic

from wowevent.errors import BusError

STATUS: Final = {
    "usage": 2,
    "invalid_event": 65,
    "invalid_topic": 65,
    "invalid_schedule": 65,
    "validation_error": 65,
    "payload_too_large": 65,
    "format_too_new": 65,
    "schema_conflict": 65,
    "copy_differs": 65,
    "broker_unavailable": 69,
    "no_responders": 69,
    "unroutable": 69,
    "subscription_not_found": 69,
    "dead_letter_not_found": 69,
    "storm_not_found": 69,
    "schema_not_found": 69,
    "conversation_not_found": 69,
    "schedule_not_found": 69,
    "token_not_found": 69,
    "address_in_use": 69,
    "not_running": 69,
    "request_failed": 70,
    "workers_failed": 70,
    "not_started": 70,
    "storage_full": 73,
    "outbox_full": 73,
    "storage_damaged": 74,
    "position_lost": 74,
    "io_error": 74,
    "request_timeout": 75,
    "rate_limited": 75,
    "closed": 75,
    "subscription_conflict": 75,
    "already_running": 75,
    "not_answering": 75,
    "unhealthy": 75,
    "not_stopped": 75,
    "not_permitted": 77,
    "unauthenticated": 77,
    "config": 78,
    "not_supported": 78,
}
"""The codes that have a status of their own; any other one ends with 1."""


def code_of(error: BaseException) -> str:
    """The stable name of an error."""
    match error:
        case BusError():
            return error.code
        case pydantic.ValidationError() | ValueError():
            return "config"
        case OSError():
            return "address_in_use" if error.errno == errno.EADDRINUSE else "io_error"
        case _:
            return "internal_error"


def message_of(error: BaseException) -> str:
    """What is wrong, on one line; of a setting its name and never its value, which may be a secret."""
    if isinstance(error, pydantic.ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return " ".join(str(error).split())
