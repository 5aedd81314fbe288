"""docs/reference.md, made of the docstrings of the public names: `python -m tests.documents.reference`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from functools import cache, cached_property
from itertools import pairwise
from types import ModuleType
from typing import Any, Final

from tests import made_pages
from tests.documents.pages import ROOT

COMMAND: Final = "python -m tests.documents.reference"
PAGE: Final = ROOT / "docs" / "reference.md"
MODULES: Final = ("wowevent", "wowevent.router", "wowevent.client", "wowevent.blocking", "wowevent.testing")
PARTS: Final = (
    ("wowevent.dead_letter", "DeadLetters"),
    ("wowevent.schedules", "Schedules"),
    ("wowevent.storms", "Storms"),
)
"""What a bus has as attributes, and nobody makes: `bus.dead_letters`, `bus.schedules`, `bus.storms`."""
WIDE: Final = 110
"""Characters of a signature that stands on one line."""

INTRODUCTION: Final = f"""\
# Reference

<!-- Made by `{COMMAND}` of the docstrings. Change those, not this page. -->

Every public name, its signature, and what its docstring promises. How the parts work together stands on
[the other pages](README.md). What raises a subclass of BusError is in the table of [errors](#errors).
Everything that is not here may change without notice.

"""


# --- what there is ----------------------------------------------------------------------------------------------------


def names(module: str) -> list[str]:
    """What a module exports: what it says, else what it defines."""
    there = importlib.import_module(module)
    own = [name for name, value in vars(there).items() if getattr(value, "__module__", "") == module and name[0] != "_"]
    return sorted(getattr(there, "__all__", own), key=str.lower)


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class defines, in the order of its source."""
    for name, value in vars(owner).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if name[0] != "_" and (inspect.isfunction(plain) or isinstance(value, property | cached_property)):
            yield name, plain


@cache
def fields(owner: Any) -> dict[str, tuple[str, str]]:
    """The public attributes of a class with their types, and the docstring that stands behind each."""
    node = _source(owner)
    own = dict(_documented(node.body, lambda target: isinstance(target, ast.Name) and target.id))
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            own |= dict(_documented(each.body, _of_self))
    renamed = _renamed(owner)
    return {name: found for name, found in own.items() if name[0] != "_" and name not in renamed}


def _source(owner: type) -> ast.ClassDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(node, ast.ClassDef)
    return node


def _renamed(owner: type) -> set[str]:
    """Fields that are stored by another name: users have properties for them, or do not see them."""
    stored = getattr(owner, "__struct_encode_fields__", ())
    return {name for name, by in zip(getattr(owner, "__struct_fields__", ()), stored, strict=True) if name != by}


def _of_self(target: ast.expr) -> str | bool:
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.attr


def _documented(body: list[ast.stmt], name: Any) -> Iterator[tuple[str, tuple[str, str]]]:
    for statement, behind in pairwise([*body, ast.Pass()]):
        if isinstance(statement, ast.AnnAssign) and (found := name(statement.target)):
            says = behind.value if isinstance(behind, ast.Expr) else None
            text = str(says.value) if isinstance(says, ast.Constant) and isinstance(says.value, str) else ""
            yield found, (ast.unparse(statement.annotation), " ".join(text.split()))


# --- how it is written ------------------------------------------------------------------------------------------------


class _Text:
    """An annotation or a default that is printed as it stands in the source."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def signature(name: str, function: Any) -> str:
    """As it is called, on a line or, if that is long, on a line for each parameter."""
    try:
        found = inspect.signature(function)
    except ValueError:  # what is made in C, as a str is
        return name
    parameters = [
        each.replace(annotation=_shown(each.annotation), default=_default(each.default))
        for each in found.parameters.values()
        if each.name not in {"self", "cls"}
    ]
    gives = found.empty if inspect.isclass(function) else _shown(found.return_annotation)
    found = found.replace(parameters=parameters, return_annotation=gives)
    kind = "async " if inspect.iscoroutinefunction(function) else ""
    line = f"{kind}{name}{found}"
    if len(line) <= WIDE:
        return line
    inside = [str(each) for each in parameters]
    star = next((n for n, each in enumerate(parameters) if each.kind is each.KEYWORD_ONLY), None)
    if star is not None and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        inside.insert(star, "*")
    behind = "" if found.return_annotation is found.empty else f" -> {found.return_annotation!r}"
    return f"{kind}{name}(\n" + "".join(f"    {each},\n" for each in inside) + f"){behind}"


def made(name: str, owner: type) -> str:
    """How one is made: as the class says to a type checker, where it says so, else by its signature."""
    for each in _source(owner).body:
        if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING":
            for one in each.body:
                if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                    arguments = [
                        f"{arg.arg}: {ast.unparse(arg.annotation or ast.Name('Any'))}" for arg in one.args.kwonlyargs
                    ]
                    defaults = [f" = {ast.unparse(default)}" if default else "" for default in one.args.kw_defaults]
                    inside = [
                        f"    {argument}{default},\n" for argument, default in zip(arguments, defaults, strict=True)
                    ]
                    return f"{name}(\n    *,\n{''.join(inside)})"
    return signature(name, owner)


def _shown(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Text(re.sub(r"\b(typing|collections\.abc|wowevent(\.\w+)*)\.(?=[A-Z])", "", text.strip("'")))


def _default(value: Any) -> Any:
    if isinstance(value, Enum):
        return _Text(str(value) if not isinstance(value, int) else f"{type(value).__name__}.{value.name}")
    if value is inspect.Parameter.empty or isinstance(value, str | int | float | tuple | type(None)):
        return value
    return _Text("…") if " at 0x" in repr(value) or callable(value) else value


def prose(value: Any) -> str:
    """A docstring as Markdown, which is what it is: a drawing in it is indented by four."""
    return inspect.getdoc(value) or ""


def entry(name: str, value: Any, level: int = 3) -> str:
    """All of one name."""
    head = f"{'#' * level} {name}\n\n"
    if inspect.isclass(value):
        return head + _class(name, value)
    if callable(value):
        return f"{head}```text\n{signature(name, value)}\n```\n\n{prose(value)}\n\n"
    return f"{head}`{value!r}`\n\n"


def _class(name: str, owner: Any) -> str:
    text = f"{prose(owner)}\n\n"
    if issubclass(owner, Enum):
        return text + "".join(f"- `{name}.{each.name}` = `{each.value!r}`\n" for each in owner) + "\n"
    if not issubclass(owner, BaseException):
        text = f"```text\n{made(name, owner)}\n```\n\n{text}"
        if (init := vars(owner).get("__init__")) is not None and init.__doc__:
            text += f"{prose(init)}\n\n"
    for field, (annotation, says) in fields(owner).items():
        text += f"- `{field}: {annotation}`{': ' if says else ''}{says}\n"
    text += "\n" if fields(owner) else ""
    for member, value in members(owner):
        text += _member(member, value)
    return text


def _member(name: str, value: Any) -> str:
    if isinstance(value, property):
        annotation = _shown(inspect.signature(value.fget).return_annotation) if value.fget else ""
        return f"**`{name}: {annotation!r}`**: {prose(value)}\n\n"
    if isinstance(value, cached_property):
        return f"**`{name}`**: {prose(value)}\n\n"
    return f"```text\n{signature(name, value)}\n```\n\n{prose(value)}\n\n"


def errors(module: ModuleType) -> str:
    """One row a class of the error tree: its place in it, code, and whether to try again may help."""
    from wowevent import BusError

    every: list[Any] = sorted(_tree(BusError), key=lambda each: [one.__name__ for one in reversed(each.__mro__)])
    rows = "".join(
        f"| {'&nbsp;' * 4 * (len([one for one in each.__mro__ if issubclass(one, BusError)]) - 1)}`{each.__name__}` "
        f"| `{each.code}` | {'yes' if each.retryable else ''} | {' '.join((each.__doc__ or '').split())} |\n"
        for each in every
        if each.__name__ in names(module.__name__)
    )
    return f"## Errors\n\n| error | code | retry? | |\n|---|---|---|---|\n{rows}\n"


def _tree(root: Any) -> Iterator[Any]:
    yield root
    for each in root.__subclasses__():
        yield from _tree(each)


def page() -> str:
    """All of it."""
    text = INTRODUCTION + errors(importlib.import_module("wowevent"))
    from wowevent import BusError

    for module in MODULES:
        there = importlib.import_module(module)
        text += f"## {module}\n\n{(there.__doc__ or '').partition(chr(10))[0]}\n\n"
        for name in names(module):
            value = getattr(there, name)
            if not (inspect.isclass(value) and issubclass(value, BusError) and not _own(value)):
                text += entry(name, value)
    text += "## The parts of a bus\n\n`bus.dead_letters`, `bus.schedules` and `bus.storms`; nobody makes them.\n\n"
    for module, name in PARTS:
        text += entry(name, getattr(importlib.import_module(module), name)).replace(_made(module, name), "", 1)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _made(module: str, name: str) -> str:
    """How one is made, which is the bus's matter."""
    owner = getattr(importlib.import_module(module), name)
    return f"```text\n{signature(name, owner)}\n```\n\n"


def _own(error: type) -> bool:
    """Whether an error is made by users, and so has more to say than its row."""
    return "__init__" in vars(error) or bool(fields(error).keys() - {"code", "retryable"})


def main() -> None:
    """Write the page; with `--check` only say what would change, and end with 1 if anything would."""
    made_pages.write({PAGE: page()}, COMMAND)


if __name__ == "__main__":
    main()
