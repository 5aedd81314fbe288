"""What a new schema refuses of what an old one accepted: every break, by the field in which it is.

A schema is the conjunction of its keywords. So the new one is taken apart, keyword by keyword, and each is asked
whether it covers what the old one accepts there; what does not is followed into properties, items, alternatives and
references until it can be named. Only a sure yes counts: what cannot be decided is a break that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import jsonschema_rs
from jsonschema_rs.canonical import AnyOfView, Containment
from msgspec import Struct

from wowevent.errors import plain
from wowevent.schema import accepted as sets
from wowevent.schema.accepted import Accepted, Unclear, accepted, as_json, covers
from wowevent.schema.definition import REGEX, EventSchema
from wowevent.schema.facets import GROUP_OF, WHOLE, Facet, facets
from wowevent.schema.layout import DEFAULT, Layout
from wowevent.schema.samples import samples

# One question takes a millisecond or so for each way in which the conditions of a value can meet, and the square of the
# values that are listed. Within these bounds a comparison takes a second or two; what lies beyond is not decided.
_QUESTIONS: Final = 1000
_COMBINATIONS: Final = 64
_CONSTANTS: Final = 1000
_TYPES: Final = ("null", "boolean", "number", "string", "array", "object")
_ROOT: Final = "payload"
_HOPS: Final = 5  # references after each other that are followed to show what was there
_TEXT: Final = 120  # characters of a value in a report
_NOTHING: Final = "nothing"
_ANYTHING: Final = "anything"


class SchemaBreak(Struct, frozen=True):
    """One way in which a schema refuses what another accepted."""

    path: str
    """Where, as `payload.items.*.price`; `*` stands for every item, or every other name."""
    what: str
    """The keyword, or `schema`, `alternative`, `property`."""
    old: str
    new: str
    certain: bool = True
    """False: it could not be decided whether this is one."""

    def __str__(self) -> str:
        """On one line."""
        doubt = "" if self.certain else " (it cannot be decided whether this refuses what was accepted)"
        return f"{self.path}: {self.what} was {self.old}, is {self.new}{doubt}"


class SchemaDiff(Struct, frozen=True):
    """What lies between two schemas; both are empty if they accept the same."""

    breaks: tuple[SchemaBreak, ...]
    """What the new one refuses and the old one accepted."""
    harmless: tuple[SchemaBreak, ...]
    """What the new one accepts and the old one refused."""


def breaks(old: EventSchema, new: EventSchema) -> list[SchemaBreak]:
    """Every way in which `new` refuses payloads that `old` accepts; empty if it surely refuses none."""
    if old.layout.root == new.layout.root:
        return []
    if old.layout.draft != new.layout.draft:
        return [SchemaBreak(_ROOT, "$schema", old.layout.draft, new.layout.draft, certain=False)]
    layouts = (old.layout, new.layout)
    small = all(each.combinations() <= _COMBINATIONS and each.constants() <= _CONSTANTS for each in layouts)
    try:
        return _Comparison(*layouts).run() if small else [_undecided(_ROOT, *(each.root for each in layouts))]
    except Unclear:
        return [_undecided(_ROOT, *(each.root for each in layouts))]


def diff(old: EventSchema, new: EventSchema) -> SchemaDiff:
    """The breaks between two schemas, and the changes that are none."""
    loosened = (
        SchemaBreak(each.path, each.what, each.new, each.old, certain=each.certain) for each in breaks(new, old)
    )
    return SchemaDiff(tuple(breaks(old, new)), tuple(loosened))


def _undecided(path: str, old: Any, new: Any) -> SchemaBreak:
    return SchemaBreak(path, "schema", _short(old), _short(new), certain=False)


class _TooMuch(Unclear):
    """All questions have been asked."""


class _Comparison:
    """One old schema against one new one."""

    def __init__(self, old: Layout, new: Layout) -> None:
        self._base: dict[str, Any] = {"$schema": old.root.get("$schema", DEFAULT)}
        self._old, self._new = old, new
        self._kept: dict[str, Any] = {}
        self._assumed: set[tuple[str, Accepted]] = set()
        self._asked = 0
        self._follow: dict[str, Callable[[Accepted, Facet, str], list[SchemaBreak]]] = {
            "properties": self._property,
            "patternProperties": self._pattern,
            "additionalProperties": self._additional,
            "prefixItems": self._item,
            "items": self._items,
            "additionalItems": self._items,
            "allOf": self._each,
            "anyOf": self._alternatives,
            "$ref": self._reference,
        }
        self._name: dict[str, Callable[[Accepted, Facet, str], list[SchemaBreak]]] = {
            "type": self._types,
            "enum": self._listed,
            "const": self._listed,
            "required": self._required,
            "oneOf": self._lost_alternatives,
        }

    def run(self) -> list[SchemaBreak]:
        if self._old.dynamic or self._new.dynamic:
            before, after = accepted({**self._base, **self._old.root}), accepted({**self._base, **self._new.root})
            same = covers(after, before) is Containment.YES
            return [] if same else [_undecided(_ROOT, self._old.root, self._new.root)]
        old, kept = self._old.standalone()
        before = accepted({**self._base, **old, self._old.defs: kept})
        new, self._kept = self._new.standalone()
        objects = sets.narrowed(sets.resolved(before), {**self._base, "type": "object"})
        return list(dict.fromkeys(self._refused(objects, new, _ROOT)))

    def _refused(self, old: Accepted, new: Any, path: str) -> list[SchemaBreak]:
        """What the schema `new` refuses of what `old` accepts at that place."""
        if new is True or new == {}:
            return []
        if new is False:
            new = {"not": {}}
        old = sets.resolved(old)
        answer = self._covers(new, old)
        if answer is Containment.YES:
            return []
        if sets.is_anything(old):
            return [SchemaBreak(path, "schema", _ANYTHING, self._written(new))]
        found: list[SchemaBreak] = []
        for facet in facets(new):
            if facet.keyword in WHOLE and found:
                continue  # it stands for the whole schema, whose other breaks would be told again
            try:
                found += self._facet(old, facet, path)
            except _TooMuch:
                return [*found, _undecided(path, sets.text_of(old), new)]
            except Unclear:
                found.append(self._broken(old, facet, path, Containment.UNKNOWN))
        if not found and answer is Containment.NO:
            return [SchemaBreak(path, "schema", _short(sets.text_of(old)), self._written(new))]
        return found

    def _facet(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        answer = self._covers(facet.schema, old)
        if answer is Containment.YES:
            return []
        if (follow := self._follow.get(facet.keyword)) is not None:
            found = follow(old, facet, path)
            if not found and answer is Containment.NO:
                found = [self._broken(old, facet, path, answer)]
            return found
        found = self._name[facet.keyword](old, facet, path) if facet.keyword in self._name else []
        certain = self._is_certain(old, facet.schema, answer)
        found = found or [self._broken(old, facet, path, answer)]
        return [SchemaBreak(each.path, each.what, each.old, each.new, certain=certain) for each in found]

    # ------------------------------------------------------------------------------------------ followed

    def _property(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        before = sets.of_property(old, str(facet.key), self._base)
        new = facet.schema["properties"][facet.key]
        return [] if before is None else self._allowed(before, new, f"{path}.{_step(facet.key)}")

    def _allowed(self, before: Accepted, new: Any, path: str) -> list[SchemaBreak]:
        if new is False and self._covers({"not": {}}, before) is not Containment.YES:
            shown = _ANYTHING if sets.is_anything(before) else _short(sets.text_of(before))
            return [SchemaBreak(path, "property", shown, "not allowed")]
        return self._refused(before, new, path)

    def _pattern(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        """Names that fit a pattern: those that the old schema knew, then all others."""
        pattern = str(facet.key)
        new, found = facet.schema["patternProperties"][pattern], []
        for name in sorted(sets.names(old)):
            before = sets.of_property(old, name, self._base)
            if before is not None and sets.matches(pattern, name, self._base):
                found += self._allowed(before, new, f"{path}.{_step(name)}")
        before = sets.of_pattern(old, pattern)
        if before is not None:
            found += self._refused(before, new, f"{path}.*")
        elif not sets.is_closed(old):
            found.append(
                SchemaBreak(
                    f"{path}.*", f"patternProperties {_short(pattern)}", _NOTHING, self._written(new), certain=False
                )
            )
        return found

    def _additional(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        """Names that the new schema gives no place of their own: those that the old one knew, then all others."""
        new, found = facet.schema["additionalProperties"], []
        patterns, known = facet.schema["patternProperties"], dict(facet.schema["properties"])
        declared = self._old.root.get("properties", {}) if path == _ROOT else {}  # also those that may be anything
        for name in sorted((sets.names(old) | set(declared)) - known.keys()):
            known[name] = {}
            before = sets.of_property(old, name, self._base)
            if before is not None and not any(sets.matches(each, name, self._base) for each in patterns):
                found += self._allowed(before, new, f"{path}.{_step(name)}")
        others = {**facet.schema, "properties": known}
        answer = self._covers(others, old)
        if answer is Containment.YES:
            return found
        rest = [] if new is False else self._refused(sets.of_others(old, self._base), new, f"{path}.*")
        if not rest and (new is False or answer is Containment.NO):
            was = self._said(old, facet, path, missing=_ANYTHING)
            certain = self._is_certain(old, others, answer)
            rest = [SchemaBreak(f"{path}.*", facet.keyword, was, self._written(new), certain=certain)]
        return found + rest

    def _item(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        number = int(facet.key or 0)
        before = sets.of_items(old, self._base, number, only=True)
        keyword = "prefixItems" if "prefixItems" in facet.schema else "items"
        return [] if before is None else self._allowed(before, facet.schema[keyword][number], f"{path}.{number}")

    def _items(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        before = sets.of_items(old, self._base, int(facet.key or 0))
        return [] if before is None else self._allowed(before, facet.schema[facet.keyword], f"{path}.*")

    def _each(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        return [each for branch in facet.schema["allOf"] for each in self._refused(old, branch, path)]

    def _alternatives(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        """Each of the old alternatives against the new one that is nearest to it."""
        found: list[SchemaBreak] = []
        for branch in sets.ways(old, self._base):
            if self._covers(facet.schema, branch) is Containment.YES:
                continue
            each = min((self._refused(branch, new, path) for new in facet.schema["anyOf"]), key=len)
            if any(one.path == path and one.what in {"type", "const", "enum", "schema"} for one in each):
                each = [SchemaBreak(path, "alternative", _short(sets.text_of(branch)), _NOTHING, each[0].certain)]
            found += each
        return found

    def _reference(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        """What is compared already, further up in a recursion, is taken as covered: it would be found there."""
        name = str(facet.schema["$ref"]).rpartition("/")[2]
        if (name, old) in self._assumed:
            return []
        self._assumed.add((name, old))
        try:
            return self._refused(old, self._kept[name], path)
        finally:
            self._assumed.discard((name, old))

    # ------------------------------------------------------------------------------------------ named

    def _types(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        before = [self._type_name(old, name) for name in _TYPES if self._accepts(old, name)]
        given = facet.schema["type"]
        after = given if isinstance(given, list) else [given]
        return [SchemaBreak(path, "type", ", ".join(before), ", ".join(after))]

    def _accepts(self, old: Accepted, name: str) -> bool:
        return self._covers({"not": {"type": name}}, old) is not Containment.YES

    def _type_name(self, old: Accepted, name: str) -> str:
        whole = name == "number" and self._covers({"not": {"type": "number", "not": {"type": "integer"}}}, old)
        return "integer" if whole is Containment.YES else name

    def _listed(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        """The values that the old schema listed and the new one lacks."""
        listed = [value for branch in sets.branches(old) for value in sets.values(branch) or ()]
        fits = _checker(self._whole(facet.schema))
        lost = [value for value in listed if not fits(value)]
        return [SchemaBreak(path, facet.keyword, _short(value), _NOTHING) for value in lost]

    def _required(self, _old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        return [SchemaBreak(f"{path}.{_step(facet.key)}", "required", "no", "yes")]

    def _lost_alternatives(self, old: Accepted, facet: Facet, path: str) -> list[SchemaBreak]:
        found = sets.ways(old, self._base)
        if len(found) == 1:
            return []
        return [
            SchemaBreak(path, "alternative", _short(sets.text_of(branch)), _NOTHING)
            for branch in found
            if self._covers(facet.schema, branch) is not Containment.YES
        ]

    def _broken(self, old: Accepted, facet: Facet, path: str, answer: Containment) -> SchemaBreak:
        new = facet.schema if len(facet.schema) > 1 else facet.schema.get(facet.keyword)
        was, certain = self._said(old, facet, path), answer is Containment.NO
        return SchemaBreak(path, facet.keyword, was, self._written(new), certain)

    # ------------------------------------------------------------------------------------------ asked

    def _whole(self, schema: Any) -> dict[str, Any]:
        """A part of the new schema as one that stands alone."""
        return {**self._base, self._new.defs: self._kept, **schema}

    def _covers(self, new: Any, old: Accepted) -> Containment:
        view = old.view()
        self._asked += len(view.branches) if isinstance(view, AnyOfView) else 1
        if self._asked > _QUESTIONS:
            raise _TooMuch
        return covers(accepted(self._whole(new)), old)

    def _is_certain(self, old: Accepted, schema: Mapping[str, Any], answer: Containment) -> bool:
        """Whether the old schema surely accepts a value that this part of the new one refuses."""
        was = old.to_json_schema()
        if answer is Containment.NO or not isinstance(was, dict):
            return answer is Containment.NO
        before, after = _checker(was), _checker(self._whole(schema))
        return any(before(value) and not after(value) for value in samples(old))

    def _said(self, old: Accepted, facet: Facet, path: str, missing: str = _NOTHING) -> str:
        """What the old schema had where the new one has this: as it was written, where that is plain to see."""
        keywords = GROUP_OF.get(facet.keyword, (facet.keyword,))
        found = {each: value for each, value in _beneath(self._old, path).items() if each in keywords}
        if found:
            return _short(found if len(found) > 1 else next(iter(found.values())))
        for branch in sets.branches(old):
            was = sets.text_of(branch)
            for keyword in (facet.keyword, *keywords):
                if isinstance(was, dict) and keyword in was:
                    return _short(was[keyword])
        return missing

    def _written(self, new: Any) -> str:
        """A schema, or a keyword's value, for people: a reference as what it names."""
        if isinstance(new, dict) and isinstance(reference := new.get("$ref"), str):
            new = self._kept.get(reference.rpartition("/")[2], new)
        return _short(new)


def _beneath(layout: Layout, path: str) -> Mapping[str, Any]:
    """The schema of a place, if only properties, items and references lead there; else an empty one."""
    node: Any = layout.root
    for step in [None, *path.split(".")[1:]]:
        if step is not None and isinstance(node, dict):
            node = node.get("items") if step == "*" else node.get("properties", {}).get(step)
        for _ in range(_HOPS):
            if isinstance(node, dict) and isinstance(reference := node.get("$ref"), str):
                node = layout.target(reference)
    return node if isinstance(node, dict) else {}


def _checker(schema: dict[str, Any]) -> Callable[[Any], bool]:
    """What says whether a value fits, compiled."""
    return jsonschema_rs.validator_for(schema, validate_formats=True, offline=True, pattern_options=REGEX).is_valid


def _step(name: object) -> str:
    return plain(str(name))[:60]


def _short(value: Any) -> str:
    text = as_json(value)
    return plain(text) if len(text) <= _TEXT else f"{plain(text[: _TEXT - 1])}…"
