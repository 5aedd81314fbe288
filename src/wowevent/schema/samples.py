"""A few values near the edges of what a schema accepts, to show that a change refuses one of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from jsonschema_rs import canonical as shapes

from wowevent.schema.accepted import Accepted, Unclear, branches

_MOST: Final = 200
_DEPTH: Final = 4
_STRANGER: Final = "another name"
_TEXTS: Final = ("", "a", "A", "0", " ", "é", "aa", "2026-01-01", "2026-01-01T00:00:00Z")
_NUMBERS: Final = (0, 1, -1, 2, 3, 0.5, 10**6)
_ANY: Final[tuple[Any, ...]] = (None, True, False, 0, -1, 0.5, "", "a", [], [0], [0, 0], {}, {_STRANGER: 0})


def samples(found: Accepted) -> list[Any]:
    """Values that it may accept: whoever uses one holds it against the schema first. 200 at most."""
    return list(islice(_samples(found, _DEPTH), _MOST))


def _samples(found: Accepted, depth: int) -> Iterator[Any]:
    if depth == 0:
        return
    try:
        ways = branches(found)
    except Unclear:
        ways = []
    for each in ways:
        yield from _of(each.view(), depth)
    yield from _ANY


def _of(view: Any, depth: int) -> Iterator[Any]:
    match view:
        case shapes.EnumView():
            yield from view.values
        case shapes.ConstView():
            yield view.value
        case shapes.StringView():
            yield from _TEXTS
            yield from ("a" * length for length in (view.min_length, view.max_length) if length and length < 10_000)
        case shapes.NumberView() | shapes.IntegerView():
            yield from _numbers(view)
        case shapes.ArrayView():
            yield from _lists(view, depth)
        case shapes.ObjectView():
            yield from _objects(view, depth)


def _numbers(view: shapes.NumberView | shapes.IntegerView) -> Iterator[Any]:
    yield from _NUMBERS
    for edge in (view.minimum, view.maximum):
        if edge is not None:
            yield from (edge, edge + 1, edge - 1)
    for step in view.multiple_of:
        yield from (step * times for times in (1, 2, 3, 5, 7))


def _lists(view: shapes.ArrayView, depth: int) -> Iterator[Any]:
    first = [_one(each, depth) for each in view.prefix_items]
    yield first
    for each in islice(_items(view, depth), 12):
        yield [*first, each]
        yield [*first, each, each]
        yield [*first, *[each] * max(0, min(view.min_items or 0, 100) - len(first))]


def _items(view: shapes.ArrayView, depth: int) -> Iterator[Any]:
    if view.items is not None:
        yield from _samples(view.items, depth - 1)
    yield from _ANY


def _objects(view: shapes.ObjectView, depth: int) -> Iterator[Any]:
    least = {name: _one(view.properties.get(name), depth) for name in view.required}
    yield least
    for name, inner in view.properties.items():
        for value in islice(_samples(inner, depth - 1), 8):
            yield {**least, name: value}
    others = _ANY if view.additional_properties is None else islice(_samples(view.additional_properties, depth - 1), 8)
    for value in others:
        yield {**least, _STRANGER: value}
    names = None if view.property_names is None else view.property_names.view()
    for each in names.values if isinstance(names, shapes.EnumView) else ():
        yield from ({**least, str(each): value} for value in _ANY)


def _one(found: Accepted | None, depth: int) -> Any:
    """Something for a place that must be filled."""
    return None if found is None else next(_samples(found, depth - 1), None)
