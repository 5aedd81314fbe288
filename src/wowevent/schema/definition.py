"""EventSchema: what the payload of one event type must look like, in one version; compiled once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NoReturn

import jsonschema_rs
import msgspec

from wowevent.errors import InvalidEvent, shown
from wowevent.event import checked
from wowevent.payload import MAX_DEPTH, check_depth
from wowevent.schema.findings import MASK, MOST, lines
from wowevent.schema.layout import MOST_VISITS, Layout
from wowevent.topic import check_topic

MAX_BYTES: Final = 262_144
"""A JSON Schema's size at most, as compact JSON."""

# The linear engine: no expression takes longer than its text and the value's ask for. The library's default can.
REGEX: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)

_NUMBER: Final = "(?:0|[1-9][0-9]{0,8})"
_VERSION: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{0,2}}")
_LONGEST: Final = 4096  # characters of a description

Numbers = tuple[int, int, int]
"""A version to compare: `1` is `1.0.0`."""


def version_numbers(version: object) -> Numbers:
    """The numbers of `MAJOR[.MINOR[.PATCH]]`; InvalidEvent for what is no such text."""
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise InvalidEvent(f"version: {shown(version)} is not MAJOR, MAJOR.MINOR or MAJOR.MINOR.PATCH in digits")
    major, minor, patch = (*map(int, version.split(".")), 0, 0)[:3]
    return major, minor, patch


class EventSchema:
    """What the payload of one event type must look like, in one version. A value: it does not change.

    The JSON Schema (drafts 4 to 2020-12 by its `$schema`, 2020-12 without) is checked and compiled here, once: it must
    stand alone, have 256 KiB and 32 levels at most, and its regular expressions have no look-around and no references
    back, so that they take linear time. `format` is asserted.
    """

    __slots__ = (
        "_compiled", "_decode", "_is_valid", "_layout", "_same", "_text", "description", "event_type", "numbers",
        "version",
    )  # fmt: skip

    event_type: str
    """Which events it is for."""
    version: str
    """As it was given."""
    description: str
    """For people; empty without one."""
    numbers: Numbers
    """The version, to compare."""

    def __init__(self, *, event_type: str, version: str, json_schema: Mapping[str, Any], description: str = "") -> None:
        """Raises InvalidEvent (or InvalidTopic) that says what is wrong; nothing is kept then."""
        put = object.__setattr__
        put(self, "event_type", checked(check_topic, event_type))
        put(self, "numbers", version_numbers(version))
        put(self, "version", version)
        if not isinstance(description, str) or len(description) > _LONGEST:
            raise InvalidEvent(f"description: {shown(description)} is not text of {_LONGEST} characters at most")
        put(self, "description", description)
        put(self, "_text", _encoded(json_schema))
        put(self, "_layout", Layout(msgspec.json.decode(self._text)))
        put(self, "_same", msgspec.json.encode(self._layout.root, order="deterministic"))
        put(self, "_compiled", compiled(self._layout.root))
        put(self, "_is_valid", self._compiled.is_valid)
        put(self, "_decode", _decode)

    _text: bytes
    _same: bytes
    _layout: Layout
    _compiled: jsonschema_rs.Validator
    _is_valid: Callable[[Any], bool]
    _decode: Callable[[Any], Any]

    @property
    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema; a copy."""
        found: dict[str, Any] = msgspec.json.decode(self._text)
        return found

    @property
    def key(self) -> str:
        """`{event_type}@{major}.{minor}.{patch}`: the same for `1` and `1.0.0`, which are one version."""
        return f"{self.event_type}@{'.'.join(map(str, self.numbers))}"

    @property
    def layout(self) -> Layout:
        """Its parts and references."""
        return self._layout

    def fits(self, body: Any) -> bool:
        """Whether a payload, as its JSON (`event.body`), is as it must be."""
        try:
            return self._is_valid(self._decode(body))
        except ValueError:  # what is no JSON, which nothing of the bus writes
            return False

    def wrong(self, body: Any) -> tuple[str, ...]:
        """One line for every wrong field of a payload, as its JSON; 100 at most, then `and more`. Empty if it fits."""
        try:
            payload = self._decode(body)
            if self._is_valid(payload):
                return ()
            # Alternatives inside of each other double with each level when they are explained, though not when checked.
            if self._layout.recursive and self._layout.visits(_depth(payload)) > MOST_VISITS:
                return ("payload: does not fit; its alternatives are nested too deep to say where",)
            return lines(islice(self._compiled.iter_errors(payload), MOST + 1), "payload", payload)
        except ValueError as error:
            return (f"payload: cannot be read: {shown(str(error))}",)

    def __eq__(self, other: object) -> bool:
        """The same type and version, and the same JSON Schema; what describes it makes no difference."""
        if not isinstance(other, EventSchema):
            return NotImplemented
        return (self.event_type, self.numbers, self._same) == (other.event_type, other.numbers, other._same)

    def __hash__(self) -> int:
        return hash((self.event_type, self.numbers, self._same))

    def __repr__(self) -> str:
        return f"EventSchema({self.event_type!r}, {self.version!r})"

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"an EventSchema does not change: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an EventSchema does not change: {name} cannot be deleted")

    def __copy__(self) -> EventSchema:
        return self

    def __deepcopy__(self, _memo: object) -> EventSchema:
        return self

    def __reduce__(self) -> tuple[Callable[..., EventSchema], tuple[str, str, dict[str, Any], str]]:
        """Pickled as what it was made of, and compiled anew."""
        return _made, (self.event_type, self.version, self.json_schema, self.description)


def _made(event_type: str, version: str, json_schema: dict[str, Any], description: str) -> EventSchema:
    return EventSchema(event_type=event_type, version=version, json_schema=json_schema, description=description)


_decode: Final = msgspec.json.Decoder().decode


def _encoded(json_schema: object) -> bytes:
    """The schema as compact JSON."""
    if not isinstance(json_schema, Mapping):
        raise InvalidEvent(f"json_schema: an object is needed, not {type(json_schema).__name__}")
    try:
        text = json.dumps(dict(json_schema), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        found = text.encode()
        check_depth(msgspec.json.decode(found), MAX_DEPTH)
    except InvalidEvent as error:
        raise InvalidEvent(f"json_schema: {error}") from None
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise InvalidEvent(f"json_schema: {error}") from error
    if len(found) > MAX_BYTES:
        raise InvalidEvent(f"json_schema: {len(found)} bytes; {MAX_BYTES} at most")
    return found


def compiled(root: dict[str, Any]) -> jsonschema_rs.Validator:
    """The validator of a schema whose layout is known to be within bounds; InvalidEvent says what is wrong with it."""
    try:
        return jsonschema_rs.validator_for(root, mask=MASK, offline=True, validate_formats=True, pattern_options=REGEX)
    except jsonschema_rs.ValidationError as error:
        raise InvalidEvent("; ".join(lines([error], "json_schema", root))) from error
    except ValueError as error:
        raise InvalidEvent(f"json_schema: {error}") from error


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [
        inner
        for item in level
        if isinstance(item, dict | list)
        for inner in (item.values() if isinstance(item, dict) else item)
    ]:
        depth += 1
    return depth
