"""EventSchema: a value that is checked at once, cannot be made to reach out or run wild, and says what is wrong."""

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent import EventSchema, InvalidEvent, InvalidTopic
from wowevent.schema.compatibility import breaks
from wowevent.schema.definition import version_numbers

TASK = {
    "type": "object",
    "properties": {"task_id": {"type": "string"}, "title": {"type": "string"}},
    "required": ["task_id", "title"],
}


def made(json_schema: Any = TASK, version: Any = "1.0.0", event_type: Any = "task.created") -> EventSchema:
    return EventSchema(event_type=event_type, version=version, json_schema=json_schema)


def wrong(json_schema: Any, payload: Any) -> tuple[str, ...]:
    schema, body = made(json_schema), msgspec.json.encode(payload)
    found = schema.wrong(body)
    assert schema.fits(body) is (not found)
    assert all(line.isprintable() for line in found)
    return found


# ------------------------------------------------------------------------------------------ a value


def test_it_is_what_it_was_given() -> None:
    schema = EventSchema(event_type="task.created", version="1.2", json_schema=TASK, description="a task")

    assert (schema.event_type, schema.version, schema.json_schema, schema.description) == (
        "task.created",
        "1.2",
        TASK,
        "a task",
    )
    assert schema.key == "task.created@1.2.0"
    assert repr(schema) == "EventSchema('task.created', '1.2')"


def test_it_does_not_change() -> None:
    given = json.loads(json.dumps(TASK))
    schema = made(given)
    given["required"].append("more")
    schema.json_schema["required"].append("more")

    assert schema.json_schema == TASK
    for change in (lambda: setattr(schema, "version", "2"), lambda: delattr(schema, "version")):
        with pytest.raises(AttributeError, match="does not change"):
            change()


def test_the_same_schema_is_the_same_value() -> None:
    turned = {name: TASK[name] for name in reversed(TASK)}
    schema = made()

    assert (
        schema
        == made(turned)
        == made(version="1")
        == EventSchema(event_type="task.created", version="1.0.0", json_schema=TASK, description="in other words")
    )
    assert hash(schema) == hash(made(turned))
    assert schema not in {made(version="2"), made({}), made(event_type="task.started")}
    assert schema != "task.created"
    assert pickle.loads(pickle.dumps(schema)) == schema  # noqa: S301 - our own bytes
    assert copy.copy(schema) is copy.deepcopy(schema) is schema


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("1", (1, 0, 0)), ("1.0", (1, 0, 0)), ("0.10.2", (0, 10, 2)), ("999999999.0.0", (999_999_999, 0, 0))],
)
def test_a_version_is_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers
    assert made(version=version).numbers == numbers


@pytest.mark.parametrize(
    "version", ["", "v1", "1.", "1.0.0.0", "01", "1.0-beta", "-1", "1_0", "²", " 1", "1\n", "9" * 10, 1, 1.0, None]
)
def test_what_is_no_version_is_refused(version: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"version: .* is not MAJOR, MAJOR\.MINOR or MAJOR\.MINOR\.PATCH in digits"):
        made(version=version)


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=2, max_size=5))
def test_versions_are_compared_as_numbers(versions: list[tuple[int, int, int]]) -> None:
    texts = [".".join(map(str, numbers)) for numbers in versions]
    assert sorted(texts, key=version_numbers) == [".".join(map(str, each)) for each in sorted(versions)]


@pytest.mark.parametrize("event_type", ["", "a b", "task.*", "a..b", "x" * 201, None, 5, ["a"]])
def test_what_is_no_event_type_is_refused(event_type: Any) -> None:
    with pytest.raises((InvalidTopic, InvalidEvent)):
        made(event_type=event_type)


# ------------------------------------------------------------------------------------------ checked at once

BAD: dict[str, tuple[Any, str]] = {
    "an unknown type": ({"type": "strin"}, 'json_schema.type: "strin" fits no alternative'),
    "deep inside": ({"properties": {"a": {"items": {"minimum": "x"}}}}, "json_schema.properties.a.items.minimum: "),
    "required is text": ({"required": "a"}, 'json_schema.required: "a" is not of type "array"'),
    "a property is a number": ({"properties": {"a": 5}}, "json_schema.properties.a: 5 is not of types"),
    "a list": ([], "json_schema: an object is needed, not list"),
    "text": ("{}", "json_schema: an object is needed, not str"),
    "True": (True, "json_schema: an object is needed, not bool"),
    "nothing": (None, "json_schema: an object is needed, not NoneType"),
    "another dialect": ({"$schema": "http://json-schema.org/draft-03/schema#"}, "json_schema.\\$schema: .* is none of"),
    "a dialect that is a number": ({"$schema": 5}, "json_schema.\\$schema: 5 is none of"),
    "over the network": ({"$ref": "http://127.0.0.1:1/x"}, "json_schema.\\$ref: .* leads out of the schema"),
    "from a file": ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "properties.a.\\$ref: .* leads out"),
    "a neighbour": ({"items": {"$ref": "other.json#/x"}}, "json_schema.items.\\$ref: .* leads out"),
    "the dialect itself": ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "leads out"),
    "in what nothing uses": ({"$defs": {"x": {"$ref": "http://a.b"}}}, "json_schema.\\$defs.x.\\$ref: .* leads out"),
    "by a dynamic reference": ({"$dynamicRef": "http://a.b/#x"}, "json_schema.\\$dynamicRef: .* leads out"),
    "a name that is not there": ({"$ref": "#/$defs/x"}, "names no schema"),
    "an anchor that is not there": ({"$ref": "#x"}, "names nothing"),
    "what is no schema": ({"$ref": "#/required", "required": ["a"]}, "names no schema"),
    "an id inside": ({"properties": {"a": {"$id": "http://a.b"}}}, "an id inside of a schema"),
    "no regular expression": ({"pattern": "(a"}, 'json_schema.pattern: "\\(a" is not a "regex"'),
    "one that looks ahead": ({"pattern": "(?=a)b"}, 'is not a "regex"'),
    "one that refers back": ({"patternProperties": {"(a)\\1": {}}}, "patternProperties"),
    "a huge one": ({"pattern": "(\\w{1000}){1000}"}, 'is not a "regex"'),
    "many of them": ({"properties": {f"p{n}": {"pattern": "a"} for n in range(129)}}, "129 regular expressions"),
    "too large": ({"description": "x" * 262_144}, "json_schema: 262\\d{3} bytes; 262144 at most"),
    "not a number": ({"const": float("nan")}, "json_schema: "),
    "half a character": ({"const": "\ud800"}, "json_schema: "),
    "no JSON": ({"const": object()}, "json_schema: Object of type object is not JSON serializable"),
}


@pytest.mark.parametrize(("json_schema", "message"), BAD.values(), ids=BAD.keys())
def test_a_wrong_schema_is_refused_by_the_place_that_is_wrong(json_schema: Any, message: str) -> None:
    with pytest.raises(InvalidEvent, match=message) as refused:
        made(json_schema)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


WORDS = st.sampled_from([
    "type", "properties", "items", "required", "enum", "$ref", "$id", "$anchor", "$schema", "$defs", "allOf", "anyOf",
    "not", "if", "pattern", "patternProperties", "additionalProperties", "dependencies", "dependentRequired", "minimum",
    "format", "$dynamicRef", "prefixItems", "object", "#", "#/$defs",
])  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, ANYTHING, max_size=4))
def test_whatever_is_given_is_a_schema_or_refused(json_schema: dict[str, Any]) -> None:
    try:
        schema = made(json_schema)
    except InvalidEvent:
        return
    assert schema.fits(b"{}") is (not schema.wrong(b"{}"))
    assert made(schema.json_schema) == schema
    assert breaks(schema, made({"type": "object"})) == []


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    while levels > 1:
        found, levels = {"not": found}, levels - 1
    return found


def test_it_is_32_levels_deep_at_most() -> None:
    made(deep(32))
    with pytest.raises(InvalidEvent, match="json_schema: nested deeper than 32 levels"):
        made(deep(34))
    with pytest.raises(InvalidEvent, match="json_schema: "):
        made(deep(100_000))


def chain(length: int) -> dict[str, Any]:
    """References after each other: thousands of them overflow the stack of the library."""
    links: dict[str, Any] = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(length)}
    return {"$defs": {**links, f"a{length}": {"type": "object"}}, "$ref": "#/$defs/a0"}


def doubling(times: int) -> dict[str, Any]:
    """Each name stands for the one before it, twice: a schema of `2 ** times` in so many lines."""
    double = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n - 1}"}] * 2} for n in range(1, times + 1)}
    return {"$defs": {"a0": {"type": "object"}, **double}, "$ref": f"#/$defs/a{times}"}


def test_references_cannot_make_it_grow_or_nest_without_end() -> None:
    assert made(chain(100)).fits(b"{}")
    assert made(doubling(10)).fits(b"{}")
    with pytest.raises(InvalidEvent, match="more than 200 schemas inside each other"):
        made(chain(5000))
    with pytest.raises(InvalidEvent, match="more than 20000 schemas in all"):
        made(doubling(40))


def test_an_expression_takes_linear_time() -> None:
    schema = made({"properties": {"a": {"pattern": "^(a+)+$"}}})
    assert not schema.fits(msgspec.json.encode({"a": "a" * 100_000 + "!"}))


@pytest.mark.parametrize(
    "json_schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#"},
        {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "object"}}},
        {"$id": "http://a.b/c", "$ref": "http://a.b/c#/$defs/a", "$defs": {"a": {}}},
        {"$ref": "#/mine/a~1b%20c/0", "mine": {"a/b c": [{"type": "object"}]}},
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "properties": {"a": {"minimum": 1, "exclusiveMinimum": True}},
        },
        {"$schema": "http://json-schema.org/draft-06/schema#", "definitions": {"a": {"$id": "#x"}}, "$ref": "#x"},
        {"$schema": "http://json-schema.org/draft-07/schema", "if": {"required": ["a"]}, "then": {"required": ["b"]}},
        {"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}, "pattern": {}}},
        {"enum": [{"$ref": "http://a.b"}, {}]},
        {},
    ],
    ids=str,
)
def test_what_stays_inside_is_understood(json_schema: dict[str, Any]) -> None:
    assert made(json_schema).fits(b"{}")


# ------------------------------------------------------------------------------------------ what is wrong

LINES: dict[str, tuple[Any, Any, list[str]]] = {
    "a missing field": (TASK, {"task_id": "1"}, ["payload.title: is required"]),
    "every wrong field": (
        {
            **TASK,
            "properties": {
                "task_id": {"type": "string"},
                "items": {"items": {"properties": {"price": {"type": "number"}}}},
            },
        },
        {"task_id": 5, "items": [{"price": 1}, {}, {"price": "x"}]},
        [
            'payload.items.2.price: "x" is not of type "number"',
            'payload.task_id: 5 is not of type "string"',
            "payload.title: is required",
        ],
    ),
    "what is not allowed": (
        {"properties": {"a": {"additionalProperties": False}, "b": False}},
        {"a": {"x": 1, "y": 2}, "b": 1},
        ["payload.a.x: is not allowed", "payload.a.y: is not allowed", "payload.b: is not allowed"],
    ),
    "not evaluated": ({"unevaluatedProperties": False}, {"z": 1}, ["payload.z: is not allowed"]),
    "a dependency": ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, ["payload.b: is required"]),
    "one of several": (
        {"properties": {"a": {"enum": ["x", "y"]}}},
        {"a": "z"},
        ['payload.a: "z" is not one of "x" or "y"'],
    ),
    "a format": (
        {"properties": {"a": {"format": "date-time"}}},
        {"a": "now"},
        ['payload.a: "now" is not a "date-time"'],
    ),
    "a bound": ({"properties": {"a": {"maximum": 3}}}, {"a": 10}, ["payload.a: 10 is greater than the maximum of 3"]),
    "no alternative": (
        {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}},
        {"a": 1.5},
        ['payload.a: 1.5 fits no alternative: 1.5 is not of type "string"; 1.5 is not of type "integer"'],
    ),
    "inside the alternative that was meant": (
        {"properties": {"a": {"anyOf": [{"type": "null"}, {"type": "object", "required": ["q"]}]}}},
        {"a": {}},
        ["payload.a.q: is required"],
    ),
    "inside the one that a constant names": (
        {
            "oneOf": [
                {"properties": {"kind": {"const": "a"}, "x": {"type": "string"}}},
                {"properties": {"kind": {"const": "b"}, "x": {"type": "integer"}}},
            ]
        },
        {"kind": "b", "x": "1"},
        ['payload.x: "1" is not of type "integer"'],
    ),
    "a name": (
        {"propertyNames": {"pattern": "^a"}},
        {"b": 1},
        ['payload: a name in it is not allowed: "b" does not match "^a"'],
    ),
    "what a terminal would obey": (
        {"properties": {"a": {"type": "integer"}}, "additionalProperties": False},
        {"a": "\x1b[31m\u202e", "\x9b": 1},
        ['payload.a: "\\u001b[31m\\u202e" is not of type "integer"', "payload.\\x9b: is not allowed"],
    ),
    "a list": (
        {"properties": {"a": {"type": "string"}}},
        {"a": [1, 2]},
        ['payload.a: a list of 2 items is not of type "string"'],
    ),
    "large": (
        {"properties": {"a": {"type": "string"}, "b": {"maxLength": 3}}},
        {"a": {"secret": 1}, "b": "x" * 10_000},
        [
            'payload.a: an object of 1 fields is not of type "string"',
            'payload.b: "' + "x" * 38 + "… is longer than 3 characters",
        ],
    ),
}


@pytest.mark.parametrize(("json_schema", "payload", "lines"), LINES.values(), ids=LINES.keys())
def test_every_wrong_field_has_a_line(json_schema: Any, payload: Any, lines: list[str]) -> None:
    assert sorted(wrong(json_schema, payload)) == sorted(lines)


def test_numbers_of_any_size_are_shown() -> None:
    (line,) = wrong({"properties": {"a": {"type": "string"}}}, {"a": 10**400})
    assert line == 'payload.a: a very large number is not of type "string"'


def test_a_hundred_are_told_and_that_there_are_more() -> None:
    schema = {"properties": {"a": {"items": {"type": "string"}}}}

    assert len(wrong(schema, {"a": [1] * 100})) == 100
    found = wrong(schema, {"a": [1] * 101})
    assert (len(found), found[-1]) == (101, "and more")


def test_what_cannot_be_read_does_not_fit() -> None:
    for body in (b"{", b"\xff", b'{"a": 1e999}'):
        assert not made({}).fits(body)
        assert made({}).wrong(body)[0].startswith("payload: cannot be read: ")


def sums(levels: int) -> bytes:
    nested: Any = "leaf"
    for _ in range(levels):
        nested = {"op": "mul", "left": nested}
    return msgspec.json.encode({"sum": nested})


def test_alternatives_inside_of_each_other_are_explained_no_deeper_than_is_quick() -> None:
    """The library explains each alternative of each: at 30 levels it would not end."""
    either = [
        {
            "type": "object",
            "required": ["op", "left"],
            "properties": {"op": {"const": op}, "left": {"$ref": "#/$defs/sum"}},
        }
        for op in ("add", "mul")
    ]
    schema = made(
        {"$defs": {"sum": {"oneOf": [{"type": "number"}, *either]}}, "properties": {"sum": {"$ref": "#/$defs/sum"}}}
    )

    assert schema.wrong(sums(2))[0].startswith('payload.sum.left.left: "leaf" fits no alternative')
    assert schema.wrong(sums(29)) == ("payload: does not fit; its alternatives are nested too deep to say where",)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=60),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=80), inner, max_size=3),
        max_leaves=10,
    )
)
def test_lines_are_short_and_printable_whatever_the_payload_is(value: Any) -> None:
    schema = {"properties": {"a": {"type": "string", "maxLength": 0}}, "additionalProperties": False}
    for line in wrong(schema, {"a": value, **(value if isinstance(value, dict) else {})}):
        assert len(line) <= 300
