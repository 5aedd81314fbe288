"""Where a JSON Schema has its parts, where its references lead, and how much work it can make.

A schema comes from whoever may register one, so it is bounded before it is compiled: it stands alone (no reference
leaves it), its references multiply it by no more than plain text could, and nest no deeper than a stack bears.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2s
from typing import Any, Final, Literal
from urllib.parse import unquote

from wowevent.errors import InvalidEvent, shown

MOST_VISITS: Final = 20_000
"""Subschemas that one instance may be held against, references followed: as many as 256 KiB of text have at most."""
_HEIGHT: Final = 200  # subschemas inside each other, references followed; thousands would overflow a native stack
_PATTERNS: Final = 128  # regular expressions: each may take 1 MiB when compiled

DRAFTS: Final[Mapping[str, str]] = {
    "http://json-schema.org/draft-04/schema": "4",
    "http://json-schema.org/draft-06/schema": "6",
    "http://json-schema.org/draft-07/schema": "7",
    "https://json-schema.org/draft/2019-09/schema": "2019-09",
    "https://json-schema.org/draft/2020-12/schema": "2020-12",
}
"""The dialects that are known, by `$schema` without a last `#`."""
DEFAULT: Final = "https://json-schema.org/draft/2020-12/schema"

Use = Literal["here", "below", "kept"]
"""Applied to the same value, to a part of it, or only kept for references."""
Node = Any
"""A schema: an object or a boolean."""

_ONE: Final[Mapping[str, Use]] = {
    **dict.fromkeys(("not", "if", "then", "else"), "here"),
    **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "propertyNames"), "below"),
    **dict.fromkeys(("items", "additionalItems", "unevaluatedItems", "contains"), "below"),
    "contentSchema": "kept",
}  # fmt: skip
_SEVERAL: Final[Mapping[str, Use]] = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), "here"),
    **dict.fromkeys(("prefixItems", "items"), "below"),
}
_NAMED: Final[Mapping[str, Use]] = {
    **dict.fromkeys(("dependentSchemas", "dependencies"), "here"),
    **dict.fromkeys(("properties", "patternProperties"), "below"),
    **dict.fromkeys(("$defs", "definitions"), "kept"),
}
_EXCLUSIVE: Final = frozenset({"properties", "prefixItems"})  # a part of a value meets one of these at most
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_DYNAMIC: Final = frozenset({"$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor"})
_SIBLINGS_IGNORED: Final = frozenset({"4", "6", "7"})  # beside `$ref`, in these drafts


def parts(node: Node) -> Iterator[tuple[Use, str, str | int | None, Node]]:
    """The subschemas of a schema: how each is used, below which keyword, and there by which name or number."""
    if not isinstance(node, dict):
        return
    for keyword, value in node.items():
        if isinstance(value, dict) and keyword in _NAMED:
            for name, inner in value.items():
                if isinstance(inner, dict | bool):  # `dependencies` may hold lists of names
                    yield _NAMED[keyword], keyword, name, inner
        elif isinstance(value, list) and keyword in _SEVERAL:
            for number, inner in enumerate(value):
                yield _SEVERAL[keyword], keyword, number, inner
        elif isinstance(value, dict | bool) and keyword in _ONE:
            yield _ONE[keyword], keyword, None, value


class Layout:
    """One JSON Schema with its references resolved; raises InvalidEvent for one that is out of bounds."""

    def __init__(self, root: dict[str, Any]) -> None:
        """`root` is plain decoded JSON, and must not change afterwards."""
        self.root: dict[str, Any] = root
        self.draft: str = _draft(root)
        """`4`, `6`, `7`, `2019-09` or `2020-12`."""
        self.dynamic: bool = False
        """It has references that depend on the way by which they are reached."""
        self.recursive: bool = False
        """A reference leads back to where it came from."""
        self._anchors: dict[str, Node] = {}
        self._base = str(root.get("$id") or root.get("id" if self.draft == "4" else "$id") or "").partition("#")[0]
        self._visits: dict[tuple[int, int], int] = {}
        self._look()
        self._unroll(root, {}, set(), 0)

    def target(self, reference: str) -> Node:
        """The schema that a reference within this one names; InvalidEvent if there is none here."""
        base, _, fragment = reference.partition("#")
        if base and base != self._base:
            raise InvalidEvent(f"{shown(reference)} leads out of the schema, which must stand alone")
        if fragment in self._anchors:
            return self._anchors[fragment]
        if fragment and not fragment.startswith("/"):
            raise InvalidEvent(f"{shown(reference)} names nothing in the schema")
        node: Any = self.root
        for step in unquote(fragment).split("/")[1:]:
            node = _step(node, step.replace("~1", "/").replace("~0", "~"))
        if not isinstance(node, dict | bool):
            raise InvalidEvent(f"{shown(reference)} names no schema in the schema")
        return node

    def visits(self, depth: int) -> int:
        """How many subschemas a value of that depth is held against along its deepest way, at most."""
        return self._count(self.root, depth, set())

    def combinations(self) -> int:
        """In how many ways its conditions and alternatives can meet at one value, at most; never below 1."""
        known: dict[int, int] = {}
        return max(self._ways(node, frozenset(), known) for node, _ in _all(self.root))

    def constants(self) -> int:
        """How many values it lists."""
        return sum(len(node["enum"]) for node, _ in _all(self.root) if isinstance(node.get("enum"), list))

    def standalone(self) -> tuple[dict[str, Any], dict[str, Node]]:
        """The same without `$id` and anchors, and what its references name, each as `#/$defs/name` says.

        A reference that is written alike in two schemas has the same name in both. Not for dynamic ones.
        """
        kept: dict[str, Node] = {}
        root = self._moved(self.root, kept)
        root.pop("$schema", None)
        return root, kept

    # ------------------------------------------------------------------------------------------ bounds

    def _look(self) -> None:
        """Note the anchors, then prove of every reference that it stays inside."""
        nodes = list(_all(self.root))
        for node, path in nodes:
            self._note(node, path)
        patterns = 0
        for node, path in nodes:
            named = node.get("patternProperties")
            patterns += ("pattern" in node) + (len(named) if isinstance(named, dict) else 0)
            for keyword in _REFERENCES:
                if isinstance(reference := node.get(keyword), str):
                    try:
                        self.target(reference)
                    except InvalidEvent as error:
                        raise InvalidEvent(f"{path}.{keyword}: {error}") from error
        if patterns > _PATTERNS:
            raise InvalidEvent(f"json_schema: {patterns} regular expressions; {_PATTERNS} at most")

    def _note(self, node: dict[str, Any], path: str) -> None:
        self.dynamic = self.dynamic or not _DYNAMIC.isdisjoint(node)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(keyword), str):
                self._anchors[name] = node
        name = node.get("id" if self.draft == "4" else "$id")
        if isinstance(name, str) and name.startswith("#"):
            self._anchors[name[1:]] = node
        elif name is not None and node is not self.root:
            raise InvalidEvent(f"{path}: an id inside of a schema makes another one of it; only the whole may have one")

    def _unroll(self, node: Node, known: dict[int, tuple[int, int]], above: set[int], depth: int) -> tuple[int, int]:
        """How many subschemas `node` is when references are written out, and how deep; one that leads back is 1."""
        if id(node) in known:
            return known[id(node)]
        if id(node) in above:
            self.recursive = True
            return 1, 1
        above.add(id(node))
        size, height = 1, 0
        for inner in self._applied(node):
            if depth + height >= _HEIGHT:
                raise InvalidEvent(f"json_schema: more than {_HEIGHT} schemas inside each other, references followed")
            inner_size, inner_height = self._unroll(inner, known, above, depth + 1)
            size, height = size + inner_size, max(height, inner_height)
            if size > MOST_VISITS:
                raise InvalidEvent(f"json_schema: more than {MOST_VISITS} schemas in all, references followed")
        above.discard(id(node))
        known[id(node)] = size, height + 1
        return size, height + 1

    def _applied(self, node: Node) -> Iterator[Node]:
        for use, _, _, inner in parts(node):
            if use != "kept":
                yield inner
        yield from self._named(node)

    def _named(self, node: Node) -> Iterator[Node]:
        """What the references of a schema name."""
        for keyword in _REFERENCES if isinstance(node, dict) else ():
            if isinstance(reference := node.get(keyword), str):
                yield self.target(reference)

    def _count(self, node: Node, depth: int, above: set[int]) -> int:
        key = id(node), depth
        if key in self._visits:
            return self._visits[key]
        if id(node) in above:  # applied to the same value again: that is not done twice
            return 1
        inside = above | {id(node)}
        total = 1 + sum(self._count(inner, depth, inside) for inner in self._named(node))
        largest: dict[str, int] = {}
        for use, keyword, _, inner in parts(node):
            if use == "here":
                total += self._count(inner, depth, inside)
            elif use == "below" and depth:
                cost = self._count(inner, depth - 1, set())
                if keyword in _EXCLUSIVE:
                    largest[keyword] = max(largest.get(keyword, 0), cost)
                else:
                    total += cost
        total += sum(largest.values())
        self._visits[key] = total
        return total

    def _ways(self, node: Node, above: frozenset[int], known: dict[int, int]) -> int:
        if not isinstance(node, dict) or id(node) in above:
            return 1
        if id(node) in known:
            return known[id(node)]
        above |= {id(node)}
        found, sums = 1, {"anyOf": 0, "oneOf": 0}
        for use, keyword, _, inner in parts(node):
            if use == "here" and found <= MOST_VISITS:
                ways = self._ways(inner, above, known)
                if keyword in sums:
                    sums[keyword] += ways
                else:
                    found *= ways if keyword in {"allOf", "then", "else"} else ways + 1
        for inner in self._named(node):
            found *= self._ways(inner, above, known)
        for keyword in ("dependentRequired", "dependencies"):
            lists = [each for each in node.get(keyword, {}).values() if isinstance(each, list) and each]
            found *= 2 ** min(len(lists), 20)
        known[id(node)] = found * max(1, sums["anyOf"]) * max(1, sums["oneOf"])
        return known[id(node)]

    # ------------------------------------------------------------------------------------------ moving

    def _moved(self, node: Node, kept: dict[str, Node]) -> Any:
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref")
        if isinstance(reference, str) and self.draft in _SIBLINGS_IGNORED:
            return {"$ref": self._name(reference, kept)}
        found: dict[str, Any] = {}
        for keyword, value in node.items():
            if keyword in {"$defs", "definitions", "$id", "$anchor"} or (keyword == "id" and self.draft == "4"):
                continue
            found[keyword] = self._name(value, kept) if keyword == "$ref" else value
        for _, keyword, key, inner in parts(found):
            moved = self._moved(inner, kept)
            if key is None:
                found[keyword] = moved
            else:
                if found[keyword] is node[keyword]:
                    found[keyword] = node[keyword].copy()
                found[keyword][key] = moved
        return found

    def _name(self, reference: str, kept: dict[str, Node]) -> str:
        name = blake2s(reference.encode(), digest_size=8).hexdigest()
        if name not in kept:
            kept[name] = True  # so that a reference back to it ends here
            kept[name] = self._moved(self.target(reference), kept)
        return f"#/{self.defs}/{name}"

    @property
    def defs(self) -> str:
        """The keyword below which this draft keeps schemas for references."""
        return "definitions" if self.draft in _SIBLINGS_IGNORED else "$defs"


def _draft(root: Mapping[str, Any]) -> str:
    given = root.get("$schema", DEFAULT)
    draft = DRAFTS.get(given.removesuffix("#")) if isinstance(given, str) else None
    if draft is None:
        raise InvalidEvent(f"json_schema.$schema: {shown(given)} is none of {', '.join(DRAFTS)}")
    return draft


def _all(root: Node) -> Iterator[tuple[dict[str, Any], str]]:
    """Every schema in a schema, with its place."""
    waiting = [(root, "json_schema")]
    while waiting:
        node, path = waiting.pop()
        if isinstance(node, dict):
            yield node, path
        for _, keyword, key, inner in parts(node):
            waiting.append(
                (inner, f"{path}.{keyword}" if key is None else f"{path}.{keyword}.{shown(key).strip(chr(39))}")
            )


def _step(node: Any, step: str) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    if isinstance(node, list) and step.isascii() and step.isdecimal() and len(step) < 7 and int(step) < len(node):
        return node[int(step)]
    return None
