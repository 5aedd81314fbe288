"""docs/reference.md is that of the code, and there is no public name without a word on it."""

import importlib
import inspect

import pytest

import wowevent
from tests.documents import reference

NAMES = [*((module, name) for module in reference.MODULES for name in reference.names(module)), *reference.PARTS]


def test_the_page_is_that_of_the_code() -> None:
    assert reference.PAGE.read_text() == reference.page(), f"to write it anew: {reference.COMMAND}"


def undocumented(name: str, value: object) -> list[str]:
    """What of a public name has no docstring."""
    found = [] if inspect.getdoc(value) else [name]
    if inspect.isclass(value):
        found += [f"{name}.{member}" for member, each in reference.members(value) if not inspect.getdoc(each)]
    return found


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_public_name_and_method_has_a_docstring(module: str, name: str) -> None:
    value = getattr(importlib.import_module(module), name)
    if callable(value):
        assert undocumented(name, value) == []


def test_every_public_name_is_on_the_page() -> None:
    page = reference.PAGE.read_text()
    for _, name in NAMES:
        assert f"### {name}\n" in page or f"`{name}`" in page, name


class Silent:
    def says(self) -> None: ...


def test_what_has_no_docstring_is_noticed() -> None:
    assert undocumented("Silent", Silent) == ["Silent", "Silent.says"]


def example(first: "str | None", *, second: float = 1.0, third: "wowevent.Event | None" = None) -> "list[str]":
    """Nothing."""
    return []


def test_a_signature_reads_as_the_source_does() -> None:
    assert reference.signature("example", example) == (
        "example(first: str | None, *, second: float = 1.0, third: Event | None = None) -> list[str]"
    )


def test_a_long_signature_has_a_line_for_each_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "WIDE", 20)
    assert reference.signature("example", example) == (
        "example(\n    first: str | None,\n    *,\n    second: float = 1.0,\n    third: Event | None = None,\n)"
        " -> list[str]"
    )


class Told:
    """What a class says of its attributes."""

    name: str
    kind: str = "plain"
    """Of which kind
    it is."""

    def __init__(self) -> None:
        self.count: int = 0
        """How many."""
        self._hidden: int = 0


def test_attributes_have_the_docstrings_behind_them() -> None:
    assert reference.fields(Told) == {
        "name": ("str", ""),
        "kind": ("str", "Of which kind it is."),
        "count": ("int", "How many."),
    }


def test_an_event_is_made_as_a_type_checker_is_told() -> None:
    assert reference.made("Event", wowevent.Event).startswith(
        "Event(\n    *,\n    topic: str | None = None,\n    event_type:"
    )
    assert {"body", "kind", "decoded"}.isdisjoint(reference.fields(wowevent.Event))
    assert reference.made("Position", wowevent.Position) == reference.signature("Position", wowevent.Position)
