"""What a new schema breaks: every break by its place, and none overlooked, held against values by brute force."""

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wowevent.schema import EventSchema, SchemaBreak, diff
from wowevent.schema.compatibility import breaks

Schema = dict[str, Any]


def made(json_schema: Schema) -> EventSchema:
    return EventSchema(event_type="task.created", version="1.0.0", json_schema=json_schema)


def of(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties}


def told(old: Schema, new: Schema) -> list[str]:
    return [str(each) for each in breaks(made(old), made(new))]


CLOSED = {"additionalProperties": False}
DOUBT = " (it cannot be decided whether this refuses what was accepted)"


def tree(kind: str, **more: Any) -> Schema:
    return {**of(v={"type": kind}, kids={"type": "array", "items": {"$ref": "#"}}), **more}


def linked(kind: str, name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}", "$defs": {name: of(v={"type": kind}, next={"$ref": f"#/$defs/{name}"})}}


BREAKS: dict[str, tuple[Schema, Schema, list[str]]] = {
    "a new required property": (
        of(a={"type": "string"}),
        {**of(a={"type": "string"}), "required": ["a", "b"]},
        ["payload.a: required was no, is yes", "payload.b: required was no, is yes"],
    ),
    "a narrowed type": (
        of(a={"type": "number"}),
        of(a={"type": "integer"}),
        ["payload.a: type was number, is integer"],
    ),
    "null no longer": (
        of(a={"type": ["string", "null"]}),
        of(a={"type": "string"}),
        ["payload.a: type was null, string, is string"],
    ),
    "a removed enum value": (
        of(a={"enum": ["x", "y", "z"]}),
        of(a={"enum": ["x", "q"]}),
        ['payload.a: enum was "y", is nothing', 'payload.a: enum was "z", is nothing'],
    ),
    "a constant": (
        of(a={"enum": ["x", "y"]}),
        of(a={"const": "x"}),
        ['payload.a: const was "y", is nothing'],
    ),
    "tighter bounds": (
        of(a={"type": "number", "minimum": 1, "maximum": 9}),
        of(a={"type": "number", "minimum": 2, "maximum": 8}),
        ["payload.a: maximum was 9, is 8", "payload.a: minimum was 1, is 2"],
    ),
    "bounds, a pattern and a format where none were": (
        of(a={"type": "string"}),
        of(a={"type": "string", "maxLength": 5, "pattern": "^b", "format": "date"}),
        [
            'payload.a: format was nothing, is "date"',
            "payload.a: maxLength was nothing, is 5",
            'payload.a: pattern was nothing, is "^b"',
        ],
    ),
    "another pattern": (
        of(a={"type": "string", "pattern": "^a"}),
        of(a={"type": "string", "pattern": "^ab"}),
        ['payload.a: pattern was "^a", is "^ab"'],
    ),
    "a pattern that cannot be compared": (
        of(a={"type": "string", "pattern": "^[b-d]+x$"}),
        of(a={"type": "string", "pattern": "^[b-d]*x$"}),
        ['payload.a: pattern was "^[b-d]+x$", is "^[b-d]*x$"' + DOUBT],
    ),
    "another divisor": (
        of(a={"type": "integer", "multipleOf": 2}),
        of(a={"type": "integer", "multipleOf": 4}),
        ["payload.a: multipleOf was 2, is 4"],
    ),
    "closed": (
        of(a={"type": "string"}, b={}),
        {**of(a={"type": "string"}), **CLOSED},
        ["payload.b: property was anything, is not allowed", "payload.*: additionalProperties was anything, is false"],
    ),
    "a property gone from a closed object": (
        {**of(a={"type": "string"}, b={"type": "integer"}), **CLOSED},
        {**of(a={"type": "string"}), **CLOSED},
        ['payload.b: property was {"type":"integer"}, is not allowed'],
    ),
    "all others typed": (
        of(a={"type": "string"}),
        {**of(a={"type": "string"}), "additionalProperties": {"type": "string"}},
        ['payload.*: schema was anything, is {"type":"string"}'],
    ),
    "a new property of an open object": (
        of(a={}),
        of(a={}, d={"type": "integer"}),
        ['payload.d: schema was anything, is {"type":"integer"}'],
    ),
    "a removed alternative": (
        of(a={"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]}),
        of(a={"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ['payload.a: alternative was {"type":"null"}, is nothing'],
    ),
    "an alternative gone, another tighter": (
        of(a={"anyOf": [{"type": "string"}, {"type": "object", "required": ["q"]}]}),
        of(a={"anyOf": [{"type": "object", "required": ["q", "r"]}, {"type": "null"}]}),
        ['payload.a: alternative was {"type":"string"}, is nothing', "payload.a.r: required was no, is yes"],
    ),
    "items": (
        of(items={"type": "array", "items": of(price={"type": "number"})}),
        of(items={"type": "array", "items": of(price={"type": "integer"})}),
        ["payload.items.*.price: type was number, is integer"],
    ),
    "a fixed item": (
        of(a={"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]}),
        of(a={"type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}], "items": False}),
        ["payload.a.*: property was anything, is not allowed", "payload.a.1: type was number, is string"],
    ),
    "fewer, and different ones": (
        of(a={"type": "array"}),
        of(a={"type": "array", "maxItems": 3, "uniqueItems": True}),
        ["payload.a: maxItems was nothing, is 3", "payload.a: uniqueItems was nothing, is true"],
    ),
    "deep inside": (
        of(a=of(b=of(c={"type": ["integer", "string"]}))),
        of(a=of(b=of(c={"type": "integer"}))),
        ["payload.a.b.c: type was integer, string, is integer"],
    ),
    "behind a reference": (
        {**of(a={"$ref": "#/$defs/x"}), "$defs": {"x": of(c={"type": "string"})}},
        {**of(a={"$ref": "#/$defs/y"}), "$defs": {"y": of(c={"type": "string", "minLength": 1})}},
        ["payload.a.c: minLength was nothing, is 1"],
    ),
    "in a recursion": (
        tree("number"),
        tree("integer"),
        ["payload.kids.*.v: type was number, is integer", "payload.v: type was number, is integer"],
    ),
    "in each of several conditions": (
        of(a={"type": "integer"}),
        {"allOf": [of(a={"minimum": 1}), of(a={"maximum": 5})]},
        ["payload.a: minimum was nothing, is 1", "payload.a: maximum was nothing, is 5"],
    ),
    "names by a pattern": (
        {**of(), "patternProperties": {"^x": {"type": "number"}}},
        {**of(), "patternProperties": {"^x": {"type": "integer"}}},
        ["payload.*: type was number, is integer"],
    ),
    "a dependency": (
        of(),
        {**of(), "dependentRequired": {"a": ["b"]}},
        ['payload: dependentRequired was nothing, is {"a":["b"]}'],
    ),
    "a condition": (
        of(a={"if": {"enum": [0]}, "else": {"minimum": 1}}),
        of(a={"if": {"enum": [0]}, "else": {"minimum": 2}}),
        ['payload.a: if was {"if":{"enum":[0]},"else":{"minimum":1}}, is {"if":{"enum":[0]},"else":{"minimum":2}}'],
    ),
    "another draft": (
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"type": "object"},
        ["payload: $schema was 7, is 2020-12" + DOUBT],
    ),
    "draft 4": (
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            **of(a={"type": "number"}, b={"type": "string"}),
            **CLOSED,
        },
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            **of(a={"type": "number", "minimum": 0, "exclusiveMinimum": True}),
            **CLOSED,
        },
        [
            'payload.a: minimum was nothing, is {"minimum":0,"exclusiveMinimum":true}',
            'payload.b: property was {"type":"string"}, is not allowed',
        ],
    ),
    "draft 7, items in their order": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            **of(a={"type": "array", "items": [{"type": "number"}], "additionalItems": {"type": "string"}}),
        },
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            **of(a={"type": "array", "items": [{"type": "integer"}], "additionalItems": False}),
        },
        [
            'payload.a.*: property was {"type":"string"}, is not allowed',
            "payload.a.0: type was number, is integer",
        ],
    ),
}


@pytest.mark.parametrize(("old", "new", "lines"), BREAKS.values(), ids=BREAKS.keys())
def test_every_break_is_named(old: Schema, new: Schema, lines: list[str]) -> None:
    assert sorted(told(old, new)) == sorted(lines)


COMPATIBLE: dict[str, tuple[Schema, Schema]] = {
    "the same": (of(a={"type": "string"}), of(a={"type": "string"})),
    "words": (of(a={"type": "string"}), {**of(a={"type": "string", "description": "a"}), "title": "b"}),
    "a wider type": (of(a={"type": "integer"}), of(a={"type": ["number", "null"]})),
    "a new property without a type": (of(a={}), of(a={}, b={})),
    "a new property of a closed object": ({**of(a={}), **CLOSED}, {**of(a={}, b={"type": "integer"}), **CLOSED}),
    "opened": ({**of(a={}), **CLOSED}, of(a={})),
    "an object said aloud": ({"properties": {"a": {}}}, {"type": "object"}),
    "no longer required": ({**of(a={}), "required": ["a"]}, of(a={})),
    "looser bounds": (of(a={"type": "integer", "minimum": 3}), of(a={"type": "integer", "minimum": 1})),
    "one more alternative": (of(a={"enum": [1, 2]}), of(a={"enum": [1, 2, 3]})),
    "a reference written out": (
        {**of(a={"$ref": "#/$defs/x"}), "$defs": {"x": {"type": "string"}}},
        of(a={"type": "string"}),
    ),
    "wider in a recursion": (tree("integer"), tree("number")),
    "another name in a recursion": (linked("integer", "n"), linked("number", "m")),
    "halves that make a whole": (
        of(a={"type": "number"}),
        of(a={"anyOf": [{"type": "number", "minimum": 3}, {"type": "number", "maximum": 4}]}),
    ),
    "what can never be": (of(a=False), of(a={"type": "string"})),
}


@pytest.mark.parametrize(("old", "new"), COMPATIBLE.values(), ids=COMPATIBLE.keys())
def test_what_accepts_as_much_breaks_nothing(old: Schema, new: Schema) -> None:
    assert told(old, new) == []


def test_a_diff_has_both_directions() -> None:
    found = diff(
        made(of(a={"type": "number"}, b={"type": "integer"})), made(of(a={"type": "integer"}, b={"type": "number"}))
    )

    assert found.breaks == (SchemaBreak("payload.a", "type", "number", "integer"),)
    assert found.harmless == (SchemaBreak("payload.b", "type", "integer", "number"),)
    assert diff(made(of(a={})), made(of(a={}, b={}))) == diff(made(of()), made(of()))


def test_what_a_terminal_would_obey_is_shown_escaped() -> None:
    evil = "\x1b[31m\r\u202e"
    (line,) = told(of(), {**of(), "required": [evil]})
    assert line.isprintable()
    assert told(of(a={"const": evil}), of(a={"const": 1}))[0].isprintable()


def test_a_wide_comparison_ends_and_says_that_it_has_not_decided_all() -> None:
    def wide(length: int) -> Schema:
        return of(**{f"p{n}": {"type": "string", "maxLength": length} for n in range(600)})

    found = breaks(made(wide(9)), made(wide(8)))
    assert 100 < len(found) < 600
    assert (found[-1].path, found[-1].what, found[-1].certain) == ("payload", "schema", False)


@pytest.mark.parametrize(
    "large",
    [
        of(a={"enum": list(range(1001))}),
        {"dependentRequired": {f"a{n}": [f"b{n}"] for n in range(7)}},
        {"allOf": [{"if": {"required": [f"a{n}"]}, "then": {"required": [f"b{n}"]}} for n in range(7)]},
        {"allOf": [{"anyOf": [{"required": [f"a{n}"]}, {"required": [f"b{n}"]}]} for n in range(7)]},
    ],
    ids=["many values", "dependencies", "conditions", "alternatives"],
)
def test_what_would_take_long_is_not_decided(large: Schema) -> None:
    assert [(each.path, each.certain) for each in breaks(made(large), made({**large, "maxProperties": 3}))] == [
        ("payload", False)
    ]
    assert breaks(made(large), made(large)) == []


# ------------------------------------------------------------------------------------------ by brute force

LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [
        {},
        False,
        {"type": "integer"},
        {"type": "number"},
        {"type": "string"},
        {"type": ["string", "null"]},
        {"type": "integer", "minimum": 1},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 2},
        {"multipleOf": 2},
        {"enum": [1, "a", None]},
        {"enum": [1, 2]},
        {"const": "a"},
        {"type": "string", "minLength": 1},
        {"type": "string", "pattern": "^a"},
        {"not": {"type": "string"}},
        {"$ref": "#"},
        {"$ref": "#/$defs/x"},
    ]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b"])
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["object", ["object", "integer"]]),
                "properties": st.dictionaries(names, inner, max_size=2),
                "required": st.lists(names, unique=True, max_size=2),
                "additionalProperties": inner,
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
                "maxProperties": st.integers(0, 2),
                "propertyNames": st.sampled_from([{}, {"const": "a"}, {"pattern": "^a"}]),
                "dependentRequired": st.sampled_from([{}, {"a": ["b"]}]),
                "unevaluatedProperties": st.sampled_from([True, False]),
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "maxItems": st.integers(0, 2),
                "uniqueItems": st.booleans(),
                "contains": inner,
            },
        ),
        st.builds(lambda key, value: {key: value}, st.sampled_from(["anyOf", "oneOf", "allOf"]), some),
        st.builds(lambda one, two, three: {"if": one, "then": two, "else": three}, inner, inner, inner),
        st.builds(lambda one: {"not": one}, inner),
    )


PARTS = st.recursive(LEAVES, nested, max_leaves=5)
SCHEMAS = st.builds(
    lambda a, b, x, more: {"type": "object", "properties": {"a": a, "b": b}, "$defs": {"x": x}, **more},
    PARTS,
    PARTS,
    LEAVES.filter(lambda each: each != {"$ref": "#/$defs/x"}),
    st.fixed_dictionaries(
        {},
        optional={
            "required": st.just(["a"]),
            "additionalProperties": st.one_of(st.just(False), LEAVES),
            "anyOf": st.lists(PARTS, min_size=1, max_size=2),
        },
    ),
)
SMALL: list[Any] = [None, True, 0, 1, 2, 3, -1, 0.5, "", "a", "b", "ab"]
INNER: list[Any] = [*SMALL, [], *([x] for x in SMALL), *([x, y] for x in (1, "a", None) for y in (1, "a", 2)), {}]
INNER += [{name: x} for name in ("a", "b", "c") for x in (*SMALL, {}, {"a": 1}, [1])]
INNER += [{"a": x, "b": y} for x in (1, "a", None, 0.5) for y in (1, "a", None, 2)]
VALUES: list[Any] = [{}, *({name: x} for name in ("a", "b", "c", "ab") for x in INNER)]
VALUES += [{"a": x, "b": y} for x in INNER[::3] for y in INNER[::3]]


def fitting(schema: EventSchema) -> list[bool]:
    check = jsonschema_rs.validator_for(schema.json_schema, validate_formats=True)
    return [check.is_valid(value) for value in VALUES]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(old=SCHEMAS, new=SCHEMAS, same=st.booleans(), part=PARTS)
def test_no_value_is_refused_where_no_break_is_told(old: Schema, new: Schema, part: Any, *, same: bool) -> None:
    if same:  # but for one part: most pairs have nothing in common
        new = {**old, "properties": {**old["properties"], "a": part}}
    before, after = made(old), made(new)
    found = breaks(before, after)
    lost = [value for value, was, is_ in zip(VALUES, fitting(before), fitting(after), strict=True) if was and not is_]

    assert found or not lost
