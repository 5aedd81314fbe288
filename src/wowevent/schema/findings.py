"""What a payload has wrong, as lines: one for every wrong field, its place first, its value short and printable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import jsonschema_rs
import msgspec

from wowevent.errors import plain

MOST: Final = 100
"""Lines that are told; `and more` follows where there are others."""
MASK: Final = "\x00"
"""What stands in a message of the library for the value, which it would show whole."""

_VALUE: Final = 40  # characters of a value
_NAME: Final = 60  # characters of a field's name
_LINE: Final = 300
_AND_MORE: Final = "and more"
_MORE_ITEMS: Final = "has more items than are allowed"
_SAID: Final = {"falseSchema": "is not allowed", "unevaluatedItems": _MORE_ITEMS, "additionalItems": _MORE_ITEMS}


def lines(errors: Iterable[jsonschema_rs.ValidationError], root: str, value: Any) -> tuple[str, ...]:
    """The errors that `value` has, as lines; `root` is what it is called."""
    found: dict[str, None] = {}  # two schemas may say the same of a field
    for error in errors:
        for line in _lines(error, root, value):
            found[_cut(plain(line), _LINE)] = None
        if len(found) > MOST:
            return (*list(found)[:MOST], _AND_MORE)
    return tuple(found)


def _lines(error: jsonschema_rs.ValidationError, root: str, value: Any) -> Iterator[str]:
    kind: Any = error.kind
    place = ".".join([root, *(_cut(str(step), _NAME) for step in error.instance_path)])
    match kind.name:
        case "required":
            yield f"{place}.{_cut(kind.property, _NAME)}: is required"
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind.unexpected:
                yield f"{place}.{_cut(name, _NAME)}: is not allowed"
        case "falseSchema" if error.schema_path[-1:] == ["additionalProperties"]:  # told of the first one alone
            for name in _at(value, error.instance_path):
                yield f"{place}.{_cut(name, _NAME)}: is not allowed"
        case "falseSchema" | "unevaluatedItems" | "additionalItems":
            yield f"{place}: {_SAID[kind.name]}"
        case "anyOf" | "oneOf" if not isinstance(kind, jsonschema_rs.ValidationErrorKind.OneOfMultipleValid):
            yield from _alternatives(error, root, value, place)
        case "not":
            yield f"{place}: {short(error.instance)} is what is not allowed here"
        case "propertyNames":
            yield f"{place}: a name in it is not allowed: {_message(kind.error)}"
        case _:
            yield f"{place}: {_message(error)}"


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _alternatives(error: jsonschema_rs.ValidationError, root: str, value: Any, place: str) -> Iterator[str]:
    """What the one alternative has to say that the value could have meant; else that it fits none."""
    kind: Any = error.kind
    branches: list[list[jsonschema_rs.ValidationError]] = kind.context
    own = len(error.instance_path)
    meant = [branch for branch in branches if not any(_not_meant(each, own) for each in branch)]
    if len(meant) == 1:
        for each in meant[0]:
            yield from _lines(each, root, value)
        return
    reasons = dict.fromkeys(_message(branch[0]) for branch in branches if branch)
    yield f"{place}: {short(error.instance)} fits no alternative: {'; '.join(reasons)}"


def _not_meant(error: jsonschema_rs.ValidationError, own: int) -> bool:
    """Whether an error says that a value was meant for another alternative: its type, or a constant just in it."""
    depth = len(error.instance_path) - own
    return (depth == 0 and error.kind.name in {"type", "const", "enum"}) or (depth == 1 and error.kind.name == "const")


def _message(error: jsonschema_rs.ValidationError) -> str:
    text = error.message
    return text.replace(MASK, short(error.instance), 1) if MASK in text else text


def short(value: Any) -> str:
    """A JSON value in a few characters: what is nested is only counted."""
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_VALUE:
        return "a very large number"
    return _cut(msgspec.json.encode(value).decode() if not isinstance(value, int) else str(value).lower(), _VALUE)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
