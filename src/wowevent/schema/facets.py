"""The parts of a JSON Schema that can be asked alone: whoever fits all of them fits it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

# Keywords that mean something only together.
_GROUPS: Final = (
    ("contains", "minContains", "maxContains"),
    ("if", "then", "else"),
    ("minimum", "exclusiveMinimum"),
    ("maximum", "exclusiveMaximum"),
    ("items", "additionalItems"),
    ("contentMediaType", "contentEncoding"),
)
GROUP_OF: Final = {keyword: group for group in _GROUPS for keyword in group}
"""The keywords that mean something only together, by each of them."""
_ANY: Final[dict[str, Any]] = {}  # not True, which draft 4 does not know
WHOLE: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
"""Keywords that mean something only beside all others."""


class Facet(Struct, frozen=True):
    """A part of a schema that can be asked alone."""

    keyword: str
    schema: Mapping[str, Any]
    key: str | int | None = None
    """Which property, item or name of it."""


def facets(new: Mapping[str, Any]) -> Iterator[Facet]:
    """The parts of a schema; whoever fits all of them fits it."""
    done: set[str] = set()
    for keyword, value in sorted(new.items(), key=lambda item: item[0] in WHOLE):
        if keyword in done:
            continue
        group = {each: new[each] for each in GROUP_OF.get(keyword, (keyword,)) if each in new}
        done.update(group)
        match keyword:
            case "properties" | "patternProperties":
                yield from (Facet(keyword, {keyword: {name: inner}}, name) for name, inner in value.items())
            case "additionalProperties":
                places = {name: dict.fromkeys(new.get(name, ()), _ANY) for name in ("properties", "patternProperties")}
                yield Facet(keyword, {**places, keyword: value})
            case "required" if isinstance(value, list):
                yield from (Facet(keyword, {keyword: [name]}, name) for name in value)
            case "prefixItems":
                yield from (Facet(keyword, {keyword: [_ANY] * n + [each]}, n) for n, each in enumerate(value))
            case "items" | "additionalItems":
                yield from _item_facets(new)
            case _:
                yield Facet(keyword, new if keyword in WHOLE and value is not True else group)


def _item_facets(new: Mapping[str, Any]) -> Iterator[Facet]:
    """Those of `items` and `additionalItems`, in the old form (`items` is a list) and in the new one."""
    items = new.get("items")
    if isinstance(items, list):
        for number, each in enumerate(items):
            yield Facet("prefixItems", {"items": [_ANY] * number + [each]}, number)
        if "additionalItems" in new:
            rest = {"items": [_ANY] * len(items), "additionalItems": new["additionalItems"]}
            yield Facet("additionalItems", rest, len(items))
    elif items is not None:
        before = new.get("prefixItems", ())
        prefix = {"prefixItems": [_ANY] * len(before)} if before else {}
        yield Facet("items", {**prefix, "items": items}, len(before))
