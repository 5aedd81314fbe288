"""What a schema accepts, as a set: whether another covers it, and what it accepts in a part of a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import reduce
from typing import Any, Final

import jsonschema_rs
import msgspec
from jsonschema_rs import CanonicalSchema
from jsonschema_rs import canonical as shapes
from jsonschema_rs.canonical import CanonicalizationError, Containment

from wowevent.schema.definition import REGEX

Accepted = CanonicalSchema
"""A set of values. Its own methods are the library's; these functions give an answer where they raise."""

_HOPS: Final = 20  # references after each other
_BRANCHES: Final = 1000
_ERRORS: Final = (CanonicalizationError, ValueError)


class Unclear(Exception):
    """It cannot be said what is accepted here."""


def accepted(schema: Mapping[str, Any]) -> Accepted:
    """The set of values that a schema accepts; Unclear for one that cannot be understood that far."""
    try:
        return jsonschema_rs.canonicalize(dict(schema), validate_formats=True, pattern_options=REGEX, offline=True)
    except _ERRORS as error:
        raise Unclear(str(error)) from error


def covers(large: Accepted, small: Accepted) -> Containment:
    """Whether all of `small` lies in `large`: YES is sure, NO nearly so, UNKNOWN is neither."""
    try:
        return large.covers(small)
    except _ERRORS:
        return Containment.UNKNOWN


def resolved(found: Accepted, hops: int = _HOPS) -> Accepted:
    """The same without references in its first place."""
    view = found.view()
    if not hops:
        raise Unclear("references that lead to each other")
    if isinstance(view, shapes.ReferenceView):
        return resolved(_definition(found, view), hops - 1)
    if isinstance(view, shapes.AllOfView) and any(_refers(each) for each in view.branches):
        return resolved(_both(resolved(each, hops - 1) for each in view.branches), hops - 1)
    return found


def branches(found: Accepted) -> list[Accepted]:
    """What it accepts one way or the other, each without references in its first place."""
    waiting, done = [found], []
    while waiting:
        each = resolved(waiting.pop())
        view = each.view()
        if isinstance(view, shapes.AnyOfView | shapes.OneOfView):
            waiting += reversed(view.branches)
        else:
            done.append(each)
        if len(waiting) + len(done) > _BRANCHES:
            raise Unclear("too many alternatives")
    return done


def narrowed(found: Accepted, schema: Mapping[str, Any]) -> Accepted:
    """What it accepts of what `schema` accepts; Unclear where that cannot be said."""
    try:
        return found.intersect(accepted(schema))
    except _ERRORS as error:
        raise Unclear(str(error)) from error


def of_property(found: Accepted, name: str, base: Mapping[str, Any]) -> Accepted | None:
    """What it accepts as the value of that property, perhaps more; None if it accepts no such property.

    `base` holds the `$schema` of the draft.
    """
    return _either([part for each in branches(found) if (part := _property(each, name, base)) is not None])


def of_items(found: Accepted, base: Mapping[str, Any], first: int, *, only: bool = False) -> Accepted | None:
    """What it accepts as the items from number `first` on, or as this one `only`; None if it accepts none."""
    parts = []
    for each in branches(found):
        view = each.view()
        if isinstance(view, shapes.ArrayView):
            if view.max_items is not None and view.max_items <= first:
                continue
            prefix = view.prefix_items[first : first + 1 if only else None]
            parts += prefix
            if not (only and prefix):
                parts.append(view.items if view.items is not None else accepted(base))
        else:
            parts += _constants(view, "array", base, lambda value: value[first : first + 1 if only else None])
    return _either(parts)


def of_pattern(found: Accepted, pattern: str) -> Accepted | None:
    """What it accepts as the value of a property that fits that pattern; None if it does not say it of all of them."""
    parts = []
    for each in branches(found):
        view = each.view()
        if not isinstance(view, shapes.ObjectView) or pattern not in view.pattern_properties:
            return None
        parts.append(view.pattern_properties[pattern])
    return _either(parts)


def of_others(found: Accepted, base: Mapping[str, Any]) -> Accepted:
    """What it accepts as the value of a property that it does not know by name, perhaps more."""
    parts = []
    for each in branches(found):
        view = each.view()
        if not isinstance(view, shapes.ObjectView):
            return accepted(base)
        parts.append(accepted(base) if view.additional_properties is None else view.additional_properties)
        parts += view.pattern_properties.values()
    return _either(parts) or accepted(base)


def is_closed(found: Accepted) -> bool:
    """Whether it knows by name every property that it accepts."""
    views = [each.view() for each in branches(found)]
    return all(
        isinstance(view, shapes.ObjectView)
        and view.property_names is not None
        and values(view.property_names) is not None
        for view in views
    )


def ways(found: Accepted, base: Mapping[str, Any]) -> list[Accepted]:
    """Its branches, where several types are a branch each."""
    parts = []
    for each in branches(found):
        view = each.view()
        several = view.types if isinstance(view, shapes.MultiTypeView) and len(view.types) > 1 else []
        parts += [narrowed(each, {**base, "type": name}) for name in several] or [each]
    return parts


def names(found: Accepted) -> set[str]:
    """The properties that it knows by name."""
    known: set[str] = set()
    for each in branches(found):
        view = each.view()
        if isinstance(view, shapes.ObjectView):
            known |= {*view.required, *view.properties}
            if view.property_names is not None:
                known |= {value for value in values(view.property_names) or () if isinstance(value, str)}
        for value in values(each) or ():
            known |= set(value) if isinstance(value, dict) else set()
    return known


def values(found: Accepted) -> list[Any] | None:
    """The values that it accepts, if it lists them."""
    view = found.view()
    if isinstance(view, shapes.EnumView):
        return list(view.values)
    return [view.value] if isinstance(view, shapes.ConstView) else None


def is_anything(found: Accepted) -> bool:
    """Whether it accepts every value."""
    return isinstance(found.view(), shapes.TrueView)


def text_of(found: Accepted) -> Any:
    """It as a JSON Schema for people: without the definitions that it carries along."""
    shown = found.to_json_schema()
    if isinstance(shown, dict):
        shown = {name: value for name, value in shown.items() if name not in {"$schema", "$defs", "definitions"}}
    return shown


def _definition(found: Accepted, view: shapes.ReferenceView) -> Accepted:
    target = found.definition(view.uri)
    if target is None:
        raise Unclear(f"{view.uri} is not known")
    return target


def _refers(found: Accepted) -> bool:
    return isinstance(found.view(), shapes.ReferenceView)


def _property(found: Accepted, name: str, base: Mapping[str, Any]) -> Accepted | None:
    view = found.view()
    if isinstance(view, shapes.TypedGroupView) and view.type_name == "object":
        return of_property(view.body, name, base)
    if not isinstance(view, shapes.ObjectView):
        return _either(_constants(view, "object", base, lambda value: [value[name]] if name in value else []))
    if view.property_names is not None and covers(view.property_names, _just(name, base)) is Containment.NO:
        return None
    parts = [view.properties[name]] if name in view.properties else []
    parts += [inner for pattern, inner in view.pattern_properties.items() if matches(pattern, name, base)]
    if not parts and view.additional_properties is not None:
        parts = [view.additional_properties]
    return _both(parts) if parts else accepted(base)


def _just(value: Any, base: Mapping[str, Any]) -> Accepted:
    return accepted({**base, "enum": [value]})


def matches(pattern: str, name: str, base: Mapping[str, Any]) -> bool:
    """Whether a property's name fits a pattern."""
    schema = {**base, "pattern": pattern}
    return jsonschema_rs.is_valid(schema, name, offline=True, pattern_options=REGEX)


def _constants(view: Any, kind: str, base: Mapping[str, Any], parts: Any) -> list[Accepted]:
    """The parts of listed values of that kind; anything, where any value of that kind is accepted."""
    match view:
        case shapes.EnumView() | shapes.ConstView():
            listed = view.values if isinstance(view, shapes.EnumView) else [view.value]
            wanted = dict if kind == "object" else list
            found = [part for value in listed if isinstance(value, wanted) for part in parts(value)]
            return [_just(part, base) for part in found]
        case shapes.TrueView():
            return [accepted(base)]
        case shapes.MultiTypeView():
            return [accepted(base)] if kind in view.types else []
        case shapes.FalseView() | shapes.StringView() | shapes.NumberView() | shapes.IntegerView():
            return []
        case shapes.ObjectView() | shapes.ArrayView():
            return []
        case shapes.TypedGroupView() if view.type_name != kind:
            return []
        case _:
            raise Unclear(f"{type(view).__name__}")


def _either(parts: list[Accepted]) -> Accepted | None:
    if not parts:
        return None
    with suppress(*_ERRORS):
        return reduce(lambda one, other: one.union(other), parts)
    raise Unclear("alternatives that cannot be put together")


def _both(parts: Iterable[Accepted]) -> Accepted:
    with suppress(*_ERRORS):
        return reduce(lambda one, other: one.intersect(other), parts)
    raise Unclear("conditions that cannot be put together")


def as_json(value: Any) -> str:
    """A JSON value as compact text."""
    return msgspec.json.encode(value).decode()
