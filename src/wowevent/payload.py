"""A payload as it is encoded: strict JSON, an object, not too deep."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import msgspec

from wowevent.errors import InvalidEvent, PayloadTooLarge

MAX_DEPTH: Final = 32
"""Levels of objects and arrays in one another."""


def too_large(size: int, most: int) -> PayloadTooLarge:
    """The error for a payload of so many bytes."""
    return PayloadTooLarge(f"payload of {size} bytes; {most} is the most")


def encode_payload(payload: object) -> bytes:
    """The payload as strict JSON, an object; InvalidEvent for what JSON cannot say (NaN, half a character)."""
    if payload is None:
        return b"{}"
    try:
        text = _encoder.encode(payload)
        # The encoder writes NaN and infinities as null, so only a null makes a look necessary.
        if b"null" in text:
            _refuse_nan(msgspec.to_builtins(payload, enc_hook=_plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"payload: {error}") from error
    if not text.startswith(b"{"):
        raise InvalidEvent(f"payload: a JSON object is needed, not {type(payload).__name__}")
    # Each level takes two bytes at least, and counting brackets costs less than decoding.
    if len(text) > 2 * MAX_DEPTH and text.count(b"{") + text.count(b"[") > MAX_DEPTH:
        check_depth(msgspec.json.decode(text))
    return text


def _plain(value: object) -> object:
    """What the encoder does not know by itself: pydantic models, and subclasses of `str` such as EventType."""
    if isinstance(value, str):
        return str.__str__(value)
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"JSON has no {type(value).__name__}")
    return dump(mode="json")


_encoder: Final = msgspec.json.Encoder(enc_hook=_plain)


def _refuse_nan(value: object) -> None:
    """ValueError if a float in here is not a number that JSON has."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not isfinite(item):
            raise ValueError(f"JSON has no {item}")
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)


_NESTING: Final = (dict, list)


def check_depth(value: object, limit: int = MAX_DEPTH) -> None:
    """InvalidEvent if objects and arrays are nested deeper than `limit`; `[]` is one level."""
    level: list[Any] = [[value]]
    for _ in range(limit + 1):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, _NESTING)
        ]
        if not level:
            return
    raise InvalidEvent(f"nested deeper than {limit} levels")
