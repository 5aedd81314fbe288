"""What a command line says, as values: a payload, a priority, a length of time, a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from wowevent.cli.exits import CommandError
from wowevent.codec import loads
from wowevent.errors import InvalidEvent
from wowevent.event import utc

Time = Annotated[str | None, typer.Option(help="ISO 8601 (naive is UTC), or as long ago as 90s, 15m, 2h, 7d.")]

_LENGTH: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def payload_of(text: str | bytes) -> dict[str, Any]:
    """A payload from outside: strict JSON, an object; InvalidEvent."""
    payload = loads(text)
    if not isinstance(payload, dict):
        raise InvalidEvent(f"payload: a JSON object is needed, not {payload.__class__.__name__}")
    return payload


def priority_of(text: str) -> int | str:
    """A level, or the name of one, which is looked up later."""
    return int(text) if text.isdecimal() else text


def term(text: str, option: str) -> int:
    """Seconds of such as `30d`; the option is named where it is none."""
    found = _LENGTH.fullmatch(text)
    if not found or not int(found[1]):
        raise CommandError("usage", f"{option} {text!r:.40}: such as 30d, 12h, 15m, 90s")
    return int(found[1]) * _SECONDS[found[2]]


def moment(text: str | None) -> datetime | None:
    """A time as a person writes it; InvalidEvent if it is none."""
    if text is None:
        return None
    if ago := _LENGTH.fullmatch(text):
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _SECONDS[ago[2]])
    return utc(text)
