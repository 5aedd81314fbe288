"""The library's logger: structured, and sent through the standard `logging` under the name `wowevent`.

A line is a message and `key=value` pairs, so that it can be searched for subscription, delivery, dead_letter,
validation. Who embeds the bus decides with `logging` where the lines go, and finds what the line was made of in the
record's `said`. Payloads are never logged.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog
from msgspec import Struct


class Said(Struct, frozen=True):
    """What a line is made of."""

    message: str
    fields: dict[str, Any]
    trace: str | None


def _render(_logger: Any, _method: str, line: Any) -> tuple[tuple[str], dict[str, Any]]:
    """`message key=value …`, with values that hold blanks or line breaks quoted; its parts go along as `said`."""
    message = str(line.pop("event"))
    trace = line.pop("exception", None)
    said = Said(message, dict(line), trace)
    pairs = " ".join(f"{key}={_quoted(value)}" for key, value in line.items())
    text = f"{message} {pairs}" if pairs else message
    return (f"{text}\n{trace}" if trace else text,), {"extra": {"said": said}}


def _quoted(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("wowevent"),
    processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _render],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def websocket_logger() -> logging.Logger:
    """What picows says. Below DEBUG it would say whole handshakes, with the tokens in them: so far it never goes."""
    lines = logging.getLogger("picows.wowevent")
    if lines.getEffectiveLevel() < logging.DEBUG:
        lines.setLevel(logging.DEBUG)
    return lines
